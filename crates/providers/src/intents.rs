//! The gateway's intents and what may happen to them.
//!
//! ```text
//!  created ──confirm──► processing ──lands──► charged ──refund──► charged, with a refund
//!     │  └────confirm─► declined                (never canceled)
//!     └──cancel──► canceled (never charged)  ◄──cancel── declined
//! ```
//!
//! Not for HTTP. Must hold: a canceled intent is never charged, a charged one never canceled; one charge and one
//! refund per intent; one intent per idempotency key.

use std::collections::BTreeMap;

use saga_defs::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

use crate::journal::{Journal, Kind, Money};
use crate::refusal::Refusal;

/// How a payment method behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Card {
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

/// Where an intent stands.
#[derive(Clone, Debug)]
pub(crate) enum Status {
    Created,
    /// The sender is dropped when the charge has landed.
    Processing(watch::Receiver<()>),
    Charged {
        charge_id: String,
        refund_id: Option<String>,
    },
    Declined,
    Canceled,
}

/// One wish to take money.
#[derive(Clone, Debug)]
pub(crate) struct Intent {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) amount_minor: i64,
    pub(crate) currency: String,
    pub(crate) status: Status,
    card: Card,
}

/// What a confirmation leads to.
#[derive(Debug)]
pub(crate) enum Confirmed {
    /// Charged: tell the caller.
    Answer,
    /// Charged: tell nobody.
    Silence,
    /// The caller must let the charge land later, then drop the sender.
    Land(watch::Sender<()>),
    /// The charge is under way already.
    Wait(watch::Receiver<()>),
}

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

    /// Creates the intent of this key, or finds it.
    pub(crate) fn create(
        &mut self,
        key: String,
        amount_minor: i64,
        currency: String,
        payment_method: &str,
    ) -> Result<Intent, Refusal> {
        if amount_minor <= 0 {
            return Err(Refusal::AmountInvalid);
        }
        if let Some(known) = self.by_key(&key) {
            let same = known.amount_minor == amount_minor && known.currency == currency;
            return if same { Ok(known.clone()) } else { Err(Refusal::AmountMismatch) };
        }
        if self.by_id.len() >= self.intents_max {
            return Err(Refusal::Full);
        }
        // Random, so that an id noted before a restart never names another intent after it.
        let id = format!("pi_{}", Uuid::new_v4().simple());
        let card = Card::of(payment_method);
        let intent = Intent { id: id.clone(), key: key.clone(), amount_minor, currency, status: Status::Created, card };
        self.ids_by_key.insert(key, id.clone());
        self.by_id.insert(id, intent.clone());
        Ok(intent)
    }

    pub(crate) fn confirm(&mut self, id: &str, journal: &mut Journal, now: Timestamp) -> Result<Confirmed, Refusal> {
        let intent = self.by_id.get_mut(id).ok_or(Refusal::IntentUnknown)?;
        match (&intent.status, intent.card) {
            (Status::Charged { .. }, _) => Ok(Confirmed::Answer),
            (Status::Processing(landed), _) => Ok(Confirmed::Wait(landed.clone())),
            (Status::Canceled, _) => Err(Refusal::Canceled),
            (Status::Declined, _) => Err(Refusal::CardDeclined),
            (Status::Created, Card::Declined) => {
                intent.status = Status::Declined;
                Err(Refusal::CardDeclined)
            }
            (Status::Created, Card::Good) => {
                charge(intent, journal, now);
                Ok(Confirmed::Answer)
            }
            (Status::Created, Card::Silent) => {
                charge(intent, journal, now);
                Ok(Confirmed::Silence)
            }
            (Status::Created, Card::Slow) => {
                let (landing, landed) = watch::channel(());
                intent.status = Status::Processing(landed);
                Ok(Confirmed::Land(landing))
            }
        }
    }

    /// Lets a charge that is under way take the money.
    pub(crate) fn land(&mut self, id: &str, journal: &mut Journal, now: Timestamp) {
        if let Some(intent) = self.by_id.get_mut(id)
            && matches!(intent.status, Status::Processing(_))
        {
            charge(intent, journal, now);
        }
    }

    pub(crate) fn cancel(&mut self, id: &str) -> Result<(), Refusal> {
        let intent = self.by_id.get_mut(id).ok_or(Refusal::IntentUnknown)?;
        match intent.status {
            Status::Created | Status::Declined | Status::Canceled => {
                intent.status = Status::Canceled;
                Ok(())
            }
            Status::Processing(_) => Err(Refusal::Processing),
            Status::Charged { .. } => Err(Refusal::AlreadyCharged),
        }
    }

    /// Gives the money back, once; a repeat, under whatever key, finds the same refund.
    pub(crate) fn refund(
        &mut self,
        id: &str,
        key: &str,
        journal: &mut Journal,
        now: Timestamp,
    ) -> Result<Refund, Refusal> {
        let intent = self.by_id.get_mut(id).ok_or(Refusal::IntentUnknown)?;
        let money = Money { amount_minor: intent.amount_minor, currency: &intent.currency };
        let refund_id = match &mut intent.status {
            Status::Charged { refund_id, .. } => refund_id.get_or_insert_with(|| {
                let refund_id = format!("re_{}", Uuid::new_v4().simple());
                journal.money(Kind::Refund, key, &refund_id, &money, now);
                refund_id
            }),
            Status::Processing(_) => return Err(Refusal::Processing),
            Status::Created | Status::Declined | Status::Canceled => return Err(Refusal::NotCharged),
        };
        Ok(Refund {
            refund_id: refund_id.clone(),
            amount_minor: intent.amount_minor,
            currency: intent.currency.clone(),
        })
    }
}

/// Money given back.
#[derive(Debug)]
pub(crate) struct Refund {
    pub(crate) refund_id: String,
    pub(crate) amount_minor: i64,
    pub(crate) currency: String,
}

fn charge(intent: &mut Intent, journal: &mut Journal, now: Timestamp) {
    let charge_id = format!("ch_{}", Uuid::new_v4().simple());
    let money = Money { amount_minor: intent.amount_minor, currency: &intent.currency };
    journal.money(Kind::Charge, &intent.key, &charge_id, &money, now);
    intent.status = Status::Charged { charge_id, refund_id: None };
}
