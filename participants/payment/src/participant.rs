//! The participant: which calls make up a charge and an undo, and what their answers add up to.
//!
//! Must hold: a verdict is definite only when the gateway said so. A confirmation that was not answered may have
//! taken the money, so the gateway is asked before anything is said, and what stays open is `Unknown`.
//!
//! Must hold: an intent is not confirmed once its charge is no longer wanted: it is canceled, which is definite.
//!
//! Must hold, too: money that moved in another amount than asked is neither a success nor a refusal. A charge of
//! another amount stays `Unknown`: it is not the effect that was asked for, yet money was taken. Its saga gets stuck
//! with the effect held. A refund of another amount is refused with `refund_mismatch`: the charge still stands, in part
//! or whole, and no repetition changes what this key refunded.
//!
//! A gateway that forgot an intent (404) leaves the effect `Unknown` for ever, in both verbs: the saga gets stuck,
//! where a person can look at the gateway's books. An intent is created anew only while none was noted, that is, while
//! no confirmation is known to have been tried; a process that died between creating and noting relies on the gateway
//! to know the key again.

use std::error::Error as _;

use async_trait::async_trait;
use db::Transaction;
use participant_kit::{Definite, Effect, External, Verdict};
use saga_defs::contract::payment::{AMOUNT_MISMATCH, CARD_DECLINED, CHARGE, Charge, Charged, NAME};
use saga_defs::contract::{Money, read};
use saga_defs::ids::provider_key;
use saga_defs::message::{CONTRACT_VIOLATION, FENCED};
use saga_defs::{Outcome, Timestamp, Verb};
use sea_orm::DbErr;
use serde::{Deserialize, Serialize};

use crate::gateway::{Canceled, Created, Gateway, Intent, State};
use crate::{Error, Options, ledger};

/// How long to leave the gateway alone after it left something open.
const RETRY_AFTER_MS: u64 = 500;

/// What a charge is refused with whose undo came in time.
const CALLED_OFF: &str = "canceled before it was charged, because its undo was asked for";

/// The gateway refunded another amount than was charged.
const REFUND_MISMATCH: &str = "refund_mismatch";

/// The participant `payment`.
#[derive(Clone, Debug)]
pub struct Payment {
    gateway: Gateway,
}

/// Output of an undone charge. One that is called off before money moved is refused instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "undone", rename_all = "snake_case")]
pub enum Undone {
    /// The money was given back.
    Refunded {
        /// The gateway's id of the refund.
        refund_id: String,
        /// How much.
        amount: Money,
    },
}

impl Payment {
    /// A participant that talks to the gateway of `options`.
    ///
    /// # Errors
    /// When the HTTP client can't be set up.
    pub fn new(options: &Options) -> Result<Self, Error> {
        Ok(Self { gateway: Gateway::new(options)? })
    }

    async fn charge(&self, effect: &Effect, charge: &Charge) -> Verdict {
        let created = match &effect.provider_ref {
            // A confirmation of this intent was tried, so money may have moved under it. A gateway that no longer knows
            // it would create another one for the same key, and confirming that one could charge twice.
            Some(id) => self.gateway.read(id).await.map(Created::Intent),
            None => self.gateway.create(&effect.provider_key, charge).await,
        };
        let intent = match created {
            Ok(Created::Intent(intent)) => intent,
            Ok(Created::AmountMismatch) => {
                return refused(AMOUNT_MISMATCH, "the gateway does not accept this amount for this key");
            }
            Ok(Created::Malformed) => return refused(CONTRACT_VIOLATION, "the gateway can't read the request"),
            Err(error) => return unknown(effect, &error, None),
        };
        if !intent.agrees_with(&charge.amount) {
            return self.turn_away(effect, charge, &intent).await;
        }
        let intent = match intent.state {
            State::Created | State::Processing if effect.unwanted => match self.call_off(&intent.id).await {
                Ok(Some(intent)) => intent,
                Ok(None) => return refused(FENCED, CALLED_OFF),
                Err(error) => return unknown(effect, &error, Some(intent.id)),
            },
            State::Created | State::Processing => match self.confirm(effect, &intent.id).await {
                Ok(intent) => intent,
                Err(error) => return unknown(effect, &error, Some(intent.id)),
            },
            State::Charged { .. } | State::Declined | State::Canceled => intent,
        };
        match &intent.state {
            State::Charged { .. } if !intent.agrees_with(&charge.amount) => {
                log_other_amount(effect, charge, &intent);
                open(Some(intent.id))
            }
            State::Charged { charge_id } => {
                succeeded(&Charged { charge_id: charge_id.clone(), amount: charge.amount.clone() })
            }
            State::Declined => refused(CARD_DECLINED, "the issuer declined the card"),
            State::Canceled if effect.unwanted => refused(FENCED, CALLED_OFF),
            State::Canceled => refused(CARD_DECLINED, "the gateway canceled the payment before it was charged"),
            State::Created | State::Processing => open(Some(intent.id)),
        }
    }

    /// Cancels an intent; how it stands where that was too late.
    async fn call_off(&self, id: &str) -> Result<Option<Intent>, Error> {
        match self.gateway.cancel(id).await? {
            Canceled::Done => Ok(None),
            Canceled::AlreadyCharged | Canceled::Processing => self.gateway.read(id).await.map(Some),
        }
    }

    /// Takes no money under an intent of another amount: refused once the gateway said that none was or will be taken.
    async fn turn_away(&self, effect: &Effect, charge: &Charge, intent: &Intent) -> Verdict {
        log_other_amount(effect, charge, intent);
        match self.gateway.cancel(&intent.id).await {
            Ok(Canceled::Done) => {
                refused(AMOUNT_MISMATCH, "the gateway made an intent of another amount; it is canceled")
            }
            Ok(Canceled::AlreadyCharged | Canceled::Processing) => open(Some(intent.id.clone())),
            Err(error) => unknown(effect, &error, Some(intent.id.clone())),
        }
    }

    /// Takes the money; where no answer comes, asks what became of it.
    async fn confirm(&self, effect: &Effect, id: &str) -> Result<Intent, Error> {
        match self.gateway.confirm(id).await {
            Ok(intent) => Ok(intent),
            Err(error) => {
                log(effect, &error);
                self.gateway.read(id).await
            }
        }
    }

    /// The intent behind an executed effect: noted by a former call, or looked up by its key. Never created here:
    /// a gateway that does not know the intent must not be told that all is undone.
    async fn intent_of(&self, effect: &Effect) -> Result<String, Error> {
        match &effect.provider_ref {
            Some(id) => Ok(id.clone()),
            None => {
                let key = provider_key(effect.command.key, Verb::Execute);
                self.gateway.find(&key).await.map(|intent| intent.id)
            }
        }
    }

    /// Money that is known to have moved must come back: nothing else is an undo.
    async fn refund(&self, effect: &Effect, id: &str) -> Result<Verdict, Error> {
        let charged = charged(effect)?;
        let key = provider_key(effect.command.key, Verb::Compensate);
        let refund = self.gateway.refund(id, &key).await?;
        let (refund_id, amount) = (refund.refund_id.clone(), refund.money());
        if amount == charged {
            return Ok(succeeded(&Undone::Refunded { refund_id, amount }));
        }
        tracing::error!(
            %charged,
            refunded = %amount,
            refund_id,
            saga_id = %effect.command.saga_id,
            key = %effect.command.key,
            "the gateway refunded another amount than was charged"
        );
        let message = format!("the gateway refunded {amount}, but {charged} had been charged");
        Ok(refused(REFUND_MISMATCH, &message))
    }
}

#[async_trait]
impl External for Payment {
    fn name(&self) -> &'static str {
        NAME
    }

    fn undoable(&self) -> bool {
        true
    }

    async fn execute(&self, effect: &Effect) -> Verdict {
        match read::<Charge>(CHARGE, &effect.command) {
            Ok(charge) if charge.amount.amount_minor > 0 => self.charge(effect, &charge).await,
            Ok(_) => refused(AMOUNT_MISMATCH, "the amount must be more than zero"),
            Err(refusal) => Verdict::Definite(refusal),
        }
    }

    async fn undo(&self, effect: &Effect) -> Verdict {
        let id = match self.intent_of(effect).await {
            Ok(id) => id,
            Err(error) => return unknown(effect, &error, None),
        };
        match self.refund(effect, &id).await {
            Ok(verdict) => verdict,
            Err(error) => unknown(effect, &error, Some(id)),
        }
    }

    async fn record(&self, tx: &Transaction, now: Timestamp, verdicts: &[Definite<'_>]) -> Result<(), DbErr> {
        ledger::book(tx, now, verdicts).await
    }
}

/// How much the refund must come to.
fn charged(effect: &Effect) -> Result<Money, Error> {
    let charged = effect.output.as_ref().map(Charged::deserialize);
    charged.and_then(Result::ok).map(|charged| charged.amount).ok_or(Error::AmountUnknown)
}

fn succeeded(output: &impl Serialize) -> Verdict {
    let output = serde_json::to_value(output).expect("outputs have string keys and no failing serializers");
    Verdict::Definite(Outcome::succeeded(output))
}

fn refused(code: &str, message: &str) -> Verdict {
    Verdict::Definite(Outcome::refused(code, message))
}

/// Nothing definite, as the gateway itself says.
fn open(provider_ref: Option<String>) -> Verdict {
    Verdict::Unknown { retry_after_ms: RETRY_AFTER_MS, provider_ref }
}

/// Nothing definite, because of an error.
fn unknown(effect: &Effect, error: &Error, provider_ref: Option<String>) -> Verdict {
    log(effect, error);
    // What a former call noted stays true.
    open(provider_ref.or_else(|| effect.provider_ref.clone()))
}

fn log_other_amount(effect: &Effect, charge: &Charge, intent: &Intent) {
    tracing::error!(
        asked = %charge.amount,
        stated = intent.money().map(tracing::field::display),
        intent = intent.id,
        saga_id = %effect.command.saga_id,
        key = %effect.command.key,
        "the gateway speaks of another amount than was asked for"
    );
}

fn log(effect: &Effect, error: &Error) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        cause = error.source().map(tracing::field::display),
        saga_id = %effect.command.saga_id,
        key = %effect.command.key,
        "the gateway left the effect unknown"
    );
}
