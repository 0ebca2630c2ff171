//! Clients that start sagas while something breaks, and remember every answer.
//!
//! Must hold: an answer is noted as it was given; whoever got none asks again later with the same key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use testkit::eventually;
use tokio::task::JoinSet;

use crate::common::{Api, Cluster, Simulators, input};

/// What a client was told about its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The saga exists.
    Accepted(String),
    /// 503: nothing was written, or nobody knows; the code of the problem says which.
    Later(String),
    /// The connection broke.
    Nothing,
}

/// A wish for a saga.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) key: String,
    pub(crate) definition: String,
    pub(crate) input: Value,
}

/// One wish for each slot: most are paid, every sixth card is declined, and `slow_of_six` of six charges land late.
pub(crate) fn wishes(name: &str, slots: &[String], slow_of_six: usize) -> Vec<Wish> {
    let wish = |(n, slot): (usize, &String)| {
        let payment_method = match n % 6 {
            0 => "tok_declined",
            n if n <= slow_of_six => "tok_slow",
            _ => "tok_visa",
        };
        Wish { key: format!("{name}-{n}"), definition: "booking".to_owned(), input: input(slot, payment_method) }
    };
    slots.iter().enumerate().map(wish).collect()
}

/// Every fifth slot is wanted a second time, right after the first.
pub(crate) fn rivals(wishes: Vec<Wish>) -> Vec<Wish> {
    let both = |(n, wish): (usize, Wish)| {
        let rival = n.is_multiple_of(5).then(|| Wish { key: format!("{}-rival", wish.key), ..wish.clone() });
        std::iter::once(wish).chain(rival)
    };
    wishes.into_iter().enumerate().flat_map(both).collect()
}

/// How long a client waits before its next wish.
#[derive(Clone, Copy, Debug)]
struct Pace {
    accepted: Duration,
    refused: Duration,
}

#[derive(Debug, Default)]
struct Notes {
    told: Mutex<BTreeMap<String, Vec<Told>>>,
    asked: AtomicUsize,
    stop: AtomicBool,
}

/// Clients at work.
pub(crate) struct Load {
    wishes: Vec<Wish>,
    notes: Arc<Notes>,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts `clients` clients, each at one of the orchestrators, that take wish after wish until there are no more or
    /// they are told to stop. A client whose start was refused goes on to the next wish after `pause`.
    pub(crate) fn start(apis: &[Api], wishes: Vec<Wish>, clients: usize, pause: Duration) -> Self {
        Self::at(apis, wishes, clients, Pace { accepted: Duration::ZERO, refused: pause })
    }

    /// The same, and a client goes on after `pace` whatever it was told: a load that outlasts a long fault.
    pub(crate) fn paced(apis: &[Api], wishes: Vec<Wish>, clients: usize, pace: Duration) -> Self {
        Self::at(apis, wishes, clients, Pace { accepted: pace, refused: pace })
    }

    fn at(apis: &[Api], wishes: Vec<Wish>, clients: usize, pace: Pace) -> Self {
        let notes = Arc::new(Notes::default());
        let mut set = JoinSet::new();
        for n in 0..clients {
            let (api, wishes, notes) = (apis[n % apis.len()].clone(), wishes.clone(), Arc::clone(&notes));
            set.spawn(async move { client(&api, &wishes, &notes, pace).await });
        }
        Self { wishes, notes, clients: set }
    }

    /// Ids of the sagas that were accepted so far.
    pub(crate) fn accepted(&self) -> Vec<String> {
        let told = self.notes.told.lock().unwrap_or_else(PoisonError::into_inner);
        let all = told.values().flatten();
        all.filter_map(|told| match told {
            Told::Accepted(id) => Some(id.clone()),
            Told::Later(_) | Told::Nothing => None,
        })
        .collect()
    }

    /// How many answers fit.
    pub(crate) fn count(&self, fits: impl Fn(&Told) -> bool) -> usize {
        let told = self.notes.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.values().flatten().filter(|told| fits(told)).count()
    }

    /// Waits until this many are accepted.
    pub(crate) async fn until_accepted(&self, count: usize) {
        eventually(Duration::from_secs(60), "enough sagas are accepted", async || {
            let accepted = self.accepted().len();
            if accepted >= count { Ok(()) } else { Err(format!("{accepted} of {count}")) }
        })
        .await;
    }

    /// Lets the clients finish what they are at, and start no more.
    pub(crate) async fn stop(&mut self) {
        self.notes.stop.store(true, Ordering::Relaxed);
        self.finish().await;
    }

    /// Waits until every wish was asked for.
    pub(crate) async fn finish(&mut self) {
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client does not panic");
        }
    }

    /// Asks for every wish again that was asked for, with its key. Whoever was accepted must get the same saga. Returns
    /// all sagas.
    ///
    /// A key that was only ever refused must be new: a refusal wrote nothing. A code in `unknown` says that nobody knew.
    pub(crate) async fn ask_again(&self, api: &Api, unknown: &[&str]) -> Vec<String> {
        let told = self.notes.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut ids = Vec::new();
        for wish in &self.wishes {
            let Some(told) = told.get(&wish.key) else { continue };
            let answer = api.start(&wish.definition, &wish.key, &wish.input, 0).await.expect("an answer");
            let id = answer.text("id").to_owned();
            for told in told {
                match told {
                    Told::Accepted(known) => assert_eq!((answer.status, known), (200, &id), "{}: {answer:?}", wish.key),
                    Told::Later(code) if unknown.contains(&code.as_str()) => {
                        assert!(matches!(answer.status, 200 | 201), "{}: {answer:?}", wish.key);
                    }
                    Told::Later(code) => assert_eq!(answer.status, 201, "{} was refused with {code}", wish.key),
                    Told::Nothing => assert!(matches!(answer.status, 200 | 201), "{}: {answer:?}", wish.key),
                }
            }
            ids.push(id);
        }
        ids
    }
}

async fn client(api: &Api, wishes: &[Wish], notes: &Notes, pace: Pace) {
    while !notes.stop.load(Ordering::Relaxed) {
        let Some(wish) = wishes.get(notes.asked.fetch_add(1, Ordering::Relaxed)) else { return };
        let told = match api.start(&wish.definition, &wish.key, &wish.input, 0).await {
            Ok(answer) if matches!(answer.status, 200 | 201) => Told::Accepted(answer.text("id").to_owned()),
            Ok(answer) if answer.status == 503 => Told::Later(answer.text("code").to_owned()),
            Ok(answer) => panic!("neither accepted nor later: {answer:?}"),
            Err(_) => Told::Nothing,
        };
        let pause = if matches!(told, Told::Accepted(_)) { pace.accepted } else { pace.refused };
        notes.told.lock().unwrap_or_else(PoisonError::into_inner).entry(wish.key.clone()).or_default().push(told);
        if !pause.is_zero() {
            // Paces the load: a client that is told to come later does so.
            tokio::time::sleep(pause).await;
        }
    }
}

/// Waits until every one of these sagas is decided.
pub(crate) async fn until_decided(api: &Api, ids: &[String], limit: Duration) {
    let ids: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    // Lists cost less than the sagas one by one, which is time that those under way need.
    eventually(limit, "every accepted saga is decided", async || {
        let open = undecided(api).await;
        let open: Vec<&Value> =
            open.iter().filter(|saga| saga["id"].as_str().is_some_and(|id| ids.contains(id))).collect();
        match open.first() {
            Some(one) => Err(format!("{} undecided, one of them {one}", open.len())),
            None => Ok(()),
        }
    })
    .await;
    for id in ids {
        let saga = api.saga(id).await;
        assert!(saga.status == 200 && !saga.body["decision"].is_null(), "{} {}", saga.status, saga.body);
    }
}

/// Sagas that are under way and not decided.
async fn undecided(api: &Api) -> Vec<Value> {
    let mut open = Vec::new();
    // In the order in which a saga can go from one to the other.
    for status in ["running", "compensating"] {
        let mut cursor = String::new();
        loop {
            let page = api.get(&format!("/v1/sagas?status={status}&limit=200{cursor}")).await;
            let data = page.body["data"].as_array().expect("a page");
            open.extend(data.iter().filter(|saga| saga["decision"].is_null()).cloned());
            match page.body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
    }
    open
}

/// Everything has ended, adds up, and no provider was asked twice for one effect.
pub(crate) async fn adds_up(cluster: &Cluster, simulators: &Simulators) {
    cluster.api.all_ended(Duration::from_secs(60)).await;
    cluster.audit().await;
    let summary = simulators.summary().await;
    println!("providers: {summary}");
    assert_eq!(summary["doubles"]["charge"], 0, "no second charge for any key");
    assert_eq!(summary["doubles"]["refund"], 0, "no second refund for any key");
}
