//! Dead letters: kept, listed, settled, and dead again.

use runtime::Clock;
use saga_defs::dead_letter::{DeadLetter, Encoding, ITEM_BYTES_MAX, Reason};
use uuid::Uuid;

use super::world::World;
use crate::{
    KeptLetter, LetterFilter, LetterState, LetterSummary, OutboxLoad, OutboxMessage, Settled, Settlement, Settling,
};

const QUEUE: &str = "bookend.alpha";

fn letter(n: usize, reason: Reason) -> DeadLetter {
    DeadLetter::new(QUEUE, reason, format!("item {n}").as_bytes())
}

fn settlement(how: Settling) -> Settlement {
    Settlement { how, by: "admin:chief".to_owned(), reason: "a case".to_owned() }
}

async fn keep(world: &World, letters: &[DeadLetter]) {
    world.store.keep_dead_letters(letters).await.expect("the store keeps");
}

async fn get(world: &World, id: Uuid) -> KeptLetter {
    world.store.dead_letter(id).await.expect("the store reads").expect("the letter is there")
}

async fn list(world: &World, filter: &LetterFilter, limit: u64) -> Vec<LetterSummary> {
    world.store.dead_letters(filter, limit).await.expect("the store reads")
}

async fn settle(world: &World, id: Uuid, how: Settling) -> bool {
    world.store.settle_dead_letter(id, &settlement(how)).await.expect("the store settles")
}

async fn waiting(world: &World) -> u64 {
    world.store.dead_letters_waiting().await.expect("the store counts")
}

pub(super) async fn a_letter_is_kept_once_and_whole(world: &World) {
    let text = DeadLetter::new(QUEUE, Reason::BadJson, "{\"näive\": ".as_bytes()).saying("not JSON").after(3);
    let bytes = DeadLetter::new("elsewhere", Reason::Rejected, b"\xff\0\xfe");
    let long = DeadLetter::new(QUEUE, Reason::Oversized, &vec![b'x'; ITEM_BYTES_MAX + 7]);
    keep(world, &[text.clone(), bytes.clone(), text.clone(), long.clone()]).await;
    keep(world, &[]).await;
    let first = world.clock.now();
    world.clock.pass(5);
    keep(world, &[text.clone().after(9).saying("another time"), bytes.clone()]).await;
    assert_eq!((list(world, &LetterFilter::default(), 10).await.len(), waiting(world).await), (3, 3));

    for (letter, encoding) in [(&text, Encoding::Utf8), (&bytes, Encoding::Base64), (&long, Encoding::Utf8)] {
        let KeptLetter { summary, encoding: kept, body } = get(world, letter.id()).await;
        assert_eq!((kept, &body), (encoding, &letter.body));
        let expected = LetterSummary {
            id: letter.id(),
            queue: letter.queue.clone(),
            reason: letter.reason,
            detail: letter.detail.clone(),
            at: first,
            attempts: letter.attempts,
            bytes: letter.bytes,
            state: LetterState::Waiting,
            settled: None,
        };
        assert_eq!(summary, expected);
    }
    assert_eq!(world.store.dead_letter(world.id()).await.expect("the store reads"), None);
}

pub(super) async fn lists_are_filtered_and_paged(world: &World) {
    let reasons = [Reason::BadJson, Reason::Failed];
    for n in 0..6 {
        // Two at each moment.
        world.clock.pass((n % 2) as u64);
        keep(world, &[letter(n, reasons[n % 2])]).await;
    }
    keep(world, &[DeadLetter::new("elsewhere", Reason::Failed, b"x")]).await;
    let all = list(world, &LetterFilter::default(), 100).await;
    let places: Vec<_> = all.iter().map(|letter| (letter.at, letter.id)).collect();
    assert!(places.len() == 7 && places.is_sorted_by(|newer, older| newer > older), "{places:?}");

    let mut paged = Vec::new();
    let mut filter = LetterFilter::default();
    loop {
        let page = list(world, &filter, 2).await;
        filter.before = page.last().map(|last| (last.at, last.id));
        paged.extend(page);
        if filter.before.is_none() {
            break;
        }
    }
    assert_eq!(paged, all);

    assert!(settle(world, all[0].id, Settling::Discard).await);
    let count = async |filter: LetterFilter| list(world, &filter, 100).await.len();
    assert_eq!(count(LetterFilter { state: Some(LetterState::Waiting), ..LetterFilter::default() }).await, 6);
    assert_eq!(count(LetterFilter { state: Some(LetterState::Discarded), ..LetterFilter::default() }).await, 1);
    assert_eq!(count(LetterFilter { state: Some(LetterState::Replayed), ..LetterFilter::default() }).await, 0);
    assert_eq!(count(LetterFilter { reason: Some(Reason::BadJson), ..LetterFilter::default() }).await, 3);
    assert_eq!(count(LetterFilter { queue: Some("elsewhere".to_owned()), ..LetterFilter::default() }).await, 1);
}

pub(super) async fn a_letter_is_settled_once(world: &World) {
    let dead = letter(1, Reason::Failed);
    keep(world, std::slice::from_ref(&dead)).await;
    let id = dead.id();
    world.clock.pass(10);
    let (first, second) = tokio::join!(settle(world, id, Settling::Discard), settle(world, id, Settling::Replay(None)));
    assert!(first != second, "one of two wins: {first}, {second}");
    let kept = get(world, id).await.summary;
    let state = if first { LetterState::Discarded } else { LetterState::Replayed };
    assert_eq!((kept.state, waiting(world).await), (state, 0));
    let settled = Settled { by: "admin:chief".to_owned(), reason: "a case".to_owned(), at: world.clock.now() };
    assert_eq!(kept.settled, Some(settled));
    assert!(!settle(world, world.id(), Settling::Discard).await, "there is no such letter");
    assert_eq!(world.store.outbox_load().await.expect("the store answers"), OutboxLoad::default());
}

pub(super) async fn a_replay_is_in_the_outbox_at_once(world: &World) {
    let dead = letter(1, Reason::WrongParticipant);
    keep(world, std::slice::from_ref(&dead)).await;
    let message = OutboxMessage { id: world.id(), participant: "alpha".to_owned(), body: "item 1".into(), attempts: 0 };
    let replay = async |id| {
        let message = OutboxMessage { id, ..message.clone() };
        settle(world, dead.id(), Settling::Replay(Some(message))).await
    };
    assert!(replay(message.id).await);
    assert!(!replay(world.id()).await, "a loser sends nothing");
    let claimed = world.claim(10, 60_000).await;
    assert_eq!(claimed, [OutboxMessage { attempts: 1, ..message }]);
}

pub(super) async fn a_settled_letter_that_dies_again_waits_again(world: &World) {
    let dead = letter(1, Reason::UnknownVersion);
    for how in [Settling::Discard, Settling::Replay(None)] {
        keep(world, std::slice::from_ref(&dead)).await;
        assert!(settle(world, dead.id(), how).await);
        world.clock.pass(10);
        let again = DeadLetter { reason: Reason::Failed, ..dead.clone().after(4).saying("again") };
        keep(world, std::slice::from_ref(&again)).await;
        let kept = get(world, dead.id()).await;
        let summary = &kept.summary;
        assert_eq!((summary.state, summary.reason, summary.attempts), (LetterState::Waiting, Reason::Failed, 4));
        assert_eq!((summary.at, summary.detail.as_str(), &kept.body), (world.clock.now(), "again", &dead.body));
        assert!(summary.settled.as_ref().is_some_and(|settled| settled.at < summary.at), "who settled it is known");
    }
}
