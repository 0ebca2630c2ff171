//! The gateway's intents and what may happen to them.
//!
//! ```text
//!  created ──confirm──► processing ──lands──► charged ──refund──► charged, with a refund
//!     │  └────confirm─► declined                (never canceled)
//!     └──cancel──► canceled (never charged)  ◄──cancel── declined
//! ```
//!
//! Not for HTTP, nor for files. Must hold: deciding changes nothing; only `add` and `apply` change, live and on replay
//! alike, and they refuse what the picture lacks; a canceled intent is never charged, a charged one never canceled;
//! one charge and one refund per intent; one intent per idempotency key.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use saga_defs::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

use crate::accepted::{Accepted, Kind, Money};
use crate::refusal::Refusal;

/// How a payment method behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Card {
    /// Charged at once.
    Good,
    /// Refused.
    Declined,
    /// Charged after a while.
    Slow,
    /// Charged at once, and nobody is told.
    Silent,
}

impl Card {
    fn of(payment_method: &str) -> Self {
        match payment_method {
            "tok_visa" => Self::Good,
            "tok_slow" => Self::Slow,
            "tok_timeout" => Self::Silent,
            // `tok_declined`, and every token that the gateway never handed out.
            _ => Self::Declined,
        }
    }
}

/// A wish to take money, as it was made. Holds the card's behaviour instead of the payment method, which is nobody's
/// business.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) amount_minor: i64,
    pub(crate) currency: String,
    pub(crate) card: Card,
}

/// What may become of an intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Became {
    /// The charge is under way and lands at this instant.
    Processing { lands_at: Timestamp },
    /// Money was taken.
    Charged { charge_id: String, at: Timestamp },
    /// The issuer said no.
    Declined,
    /// No money will ever be taken.
    Canceled,
    /// Money was given back.
    Refunded { key: String, refund_id: String, at: Timestamp },
}

/// Where an intent stands.
#[derive(Debug)]
pub(crate) enum Status {
    Created,
    Processing {
        lands_at: Timestamp,
        /// Dropped when the charge has landed: that is how those who wait hear of it.
        landing: watch::Sender<()>,
    },
    Charged {
        charge_id: String,
        refund_id: Option<String>,
    },
    Declined,
    Canceled,
}

/// One wish and what became of it.
#[derive(Debug)]
pub(crate) struct Intent {
    pub(crate) wish: Wish,
    pub(crate) status: Status,
}

/// A change that can't follow from what is known: only a journal that was tampered with holds one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Misfit;

/// All intents, bounded.
#[derive(Debug)]
pub(crate) struct Intents {
    by_id: BTreeMap<String, Intent>,
    ids_by_key: BTreeMap<String, String>,
    intents_max: usize,
}

impl Intents {
    pub(crate) fn new(intents_max: usize) -> Self {
        Self { by_id: BTreeMap::new(), ids_by_key: BTreeMap::new(), intents_max }
    }

    pub(crate) fn get(&self, id: &str) -> Result<&Intent, Refusal> {
        self.by_id.get(id).ok_or(Refusal::IntentUnknown)
    }

    pub(crate) fn by_key(&self, key: &str) -> Option<&Intent> {
        self.ids_by_key.get(key).and_then(|id| self.by_id.get(id))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The charges under way, and when they land.
    pub(crate) fn landings(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.by_id.values().filter_map(|intent| match intent.status {
            Status::Processing { lands_at, .. } => Some((intent.wish.id.as_str(), lands_at)),
            Status::Created | Status::Charged { .. } | Status::Declined | Status::Canceled => None,
        })
    }

    /// What creating an intent comes to; nothing where the intent of this key is known.
    pub(crate) fn create(
        &self,
        key: &str,
        amount_minor: i64,
        currency: &str,
        payment_method: &str,
    ) -> Result<Option<Wish>, Refusal> {
        if amount_minor <= 0 {
            return Err(Refusal::AmountInvalid);
        }
        if let Some(Intent { wish, .. }) = self.by_key(key) {
            let same = wish.amount_minor == amount_minor && wish.currency == currency;
            return if same { Ok(None) } else { Err(Refusal::AmountMismatch) };
        }
        if self.by_id.len() >= self.intents_max {
            return Err(Refusal::Full);
        }
        Ok(Some(Wish {
            // Random, so that an id noted before a loss of memory never names another intent after it.
            id: format!("pi_{}", Uuid::new_v4().simple()),
            key: key.to_owned(),
            amount_minor,
            currency: currency.to_owned(),
            card: Card::of(payment_method),
        }))
    }

    /// What confirming comes to; nothing where the charge is made or under way.
    pub(crate) fn confirm(&self, id: &str, now: Timestamp, lands_at: Timestamp) -> Result<Option<Became>, Refusal> {
        let intent = self.get(id)?;
        match (&intent.status, intent.wish.card) {
            (Status::Charged { .. } | Status::Processing { .. }, _) => Ok(None),
            (Status::Canceled, _) => Err(Refusal::Canceled),
            (Status::Declined, _) => Err(Refusal::CardDeclined),
            (Status::Created, Card::Declined) => Ok(Some(Became::Declined)),
            (Status::Created, Card::Good | Card::Silent) => Ok(Some(charged(now))),
            (Status::Created, Card::Slow) => Ok(Some(Became::Processing { lands_at })),
        }
    }

    /// What the end of a slow charge comes to; nothing where none is under way.
    pub(crate) fn land(&self, id: &str, now: Timestamp) -> Option<Became> {
        match self.by_id.get(id)?.status {
            Status::Processing { .. } => Some(charged(now)),
            Status::Created | Status::Charged { .. } | Status::Declined | Status::Canceled => None,
        }
    }

    /// What cancelling comes to; nothing where it was canceled before.
    pub(crate) fn cancel(&self, id: &str) -> Result<Option<Became>, Refusal> {
        match self.get(id)?.status {
            Status::Created | Status::Declined => Ok(Some(Became::Canceled)),
            Status::Canceled => Ok(None),
            Status::Processing { .. } => Err(Refusal::Processing),
            Status::Charged { .. } => Err(Refusal::AlreadyCharged),
        }
    }

    /// What giving the money back comes to; nothing where it was given back before, under whatever key.
    pub(crate) fn refund(&self, id: &str, key: &str, now: Timestamp) -> Result<Option<Became>, Refusal> {
        match &self.get(id)?.status {
            Status::Charged { refund_id: Some(_), .. } => Ok(None),
            Status::Charged { refund_id: None, .. } => {
                let refund_id = format!("re_{}", Uuid::new_v4().simple());
                Ok(Some(Became::Refunded { key: key.to_owned(), refund_id, at: now }))
            }
            Status::Processing { .. } => Err(Refusal::Processing),
            Status::Created | Status::Declined | Status::Canceled => Err(Refusal::NotCharged),
        }
    }

    /// Makes a wish known.
    pub(crate) fn add(&mut self, wish: Wish) -> Result<(), Misfit> {
        let (Entry::Vacant(of_key), Entry::Vacant(of_id)) =
            (self.ids_by_key.entry(wish.key.clone()), self.by_id.entry(wish.id.clone()))
        else {
            return Err(Misfit);
        };
        of_key.insert(wish.id.clone());
        of_id.insert(Intent { wish, status: Status::Created });
        Ok(())
    }

    /// Lets an intent become what was decided, and notes money that moved.
    pub(crate) fn apply(&mut self, id: &str, became: Became, accepted: &mut Accepted) -> Result<(), Misfit> {
        let Intent { wish, status } = self.by_id.get_mut(id).ok_or(Misfit)?;
        let money = Money { amount_minor: wish.amount_minor, currency: &wish.currency };
        match (&mut *status, became) {
            (Status::Created, Became::Processing { lands_at }) => {
                *status = Status::Processing { lands_at, landing: watch::Sender::new(()) };
            }
            (Status::Created | Status::Processing { .. }, Became::Charged { charge_id, at }) => {
                accepted.money(Kind::Charge, &wish.key, &charge_id, &money, at);
                *status = Status::Charged { charge_id, refund_id: None };
            }
            (Status::Created, Became::Declined) => *status = Status::Declined,
            (Status::Created | Status::Declined, Became::Canceled) => *status = Status::Canceled,
            (Status::Charged { refund_id: open @ None, .. }, Became::Refunded { key, refund_id, at }) => {
                accepted.money(Kind::Refund, &key, &refund_id, &money, at);
                *open = Some(refund_id);
            }
            (
                Status::Created
                | Status::Processing { .. }
                | Status::Charged { .. }
                | Status::Declined
                | Status::Canceled,
                Became::Processing { .. }
                | Became::Charged { .. }
                | Became::Declined
                | Became::Canceled
                | Became::Refunded { .. },
            ) => return Err(Misfit),
        }
        Ok(())
    }
}

fn charged(at: Timestamp) -> Became {
    Became::Charged { charge_id: format!("ch_{}", Uuid::new_v4().simple()), at }
}
