//! The participant: SMS first, mail where the SMS did not go out for sure, and another try where neither did.
//!
//! Not for what follows from what: that is [`crate::fates`]. Must hold: what a try teaches about a message is noted before
//! the next; a notice is refused only when both providers refused its messages, never because one is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use db::Transaction;
use participant_kit::{Definite, Effect, External, Verdict};
use runtime::breaker::State;
use saga_defs::contract::notify::{Channel, NAME, SEND, Send, Sent, UNDELIVERABLE};
use saga_defs::contract::read;
use saga_defs::message::ALREADY_EXECUTED;
use saga_defs::{Outcome, Timestamp};
use sea_orm::DbErr;

use crate::fates::{Fate, Fates};
use crate::mail::Mail;
use crate::sms::Sms;
use crate::{Error, Options, endpoint, notices};

/// How long to leave the providers alone after none took a message.
const RETRY_AFTER_MS: u64 = 1_000;
/// Counts mails sent although the SMS may have gone out.
const SWITCH_AFTER_UNKNOWN: &str = "bookend_notify_switch_after_unknown_total";

/// The participant `notify`. Clones share the circuit breaker, so that one can be served and another one watched.
#[derive(Clone, Debug)]
pub struct Notify {
    sms: Sms,
    mail: Mail,
    switches_after_unknown: Arc<AtomicU64>,
}

impl Notify {
    /// A participant that talks to the providers of `options`.
    ///
    /// # Errors
    /// When the HTTP client can't be set up.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let client = endpoint::client(options.timeout_ms)?;
        Ok(Self {
            sms: Sms::new(client.clone(), options),
            mail: Mail::new(client, options),
            switches_after_unknown: Arc::default(),
        })
    }

    /// Where the circuit breaker of the SMS provider stands.
    #[must_use]
    pub fn breaker_state(&self) -> State {
        self.sms.breaker_state()
    }

    /// How many mails went out although the SMS may have gone out as well.
    #[must_use]
    pub fn switches_after_unknown(&self) -> u64 {
        self.switches_after_unknown.load(Ordering::Relaxed)
    }

    async fn tell(&self, effect: &Effect, notice: &Send) -> Verdict {
        let mut fates = Fates::before(effect);
        for &channel in fates.to_ask() {
            match self.send(channel, effect, notice).await {
                Ok(id) => {
                    self.count(channel, fates);
                    return sent(channel, id);
                }
                Err(error) => {
                    log(effect, channel, &error);
                    fates = fates.learn(channel, error.fate());
                }
            }
        }
        if fates.to_ask().is_empty() {
            let message = "neither the SMS nor the mail provider takes a message to this patient";
            return Verdict::Definite(Outcome::refused(UNDELIVERABLE, message));
        }
        Verdict::Unknown { retry_after_ms: RETRY_AFTER_MS, provider_ref: fates.note() }
    }

    async fn send(&self, channel: Channel, effect: &Effect, notice: &Send) -> Result<String, Error> {
        let key = provider_key(effect, channel);
        match channel {
            Channel::Sms => self.sms.send(&key, notice).await,
            Channel::Mail => self.mail.send(&key, notice).await,
        }
    }

    /// Counts a mail that went out although the SMS may have gone out.
    fn count(&self, channel: Channel, fates: Fates) {
        match (channel, fates.sms) {
            (Channel::Mail, Fate::Unknown) => {
                self.switches_after_unknown.fetch_add(1, Ordering::Relaxed);
                metrics::counter!(SWITCH_AFTER_UNKNOWN).increment(1);
            }
            (Channel::Mail, Fate::Unsent | Fate::Refused)
            | (Channel::Sms, Fate::Unsent | Fate::Unknown | Fate::Refused) => {}
        }
    }
}

#[async_trait]
impl External for Notify {
    fn name(&self) -> &'static str {
        NAME
    }

    fn undoable(&self) -> bool {
        false
    }

    async fn execute(&self, effect: &Effect) -> Verdict {
        match read::<Send>(SEND, &effect.command) {
            Ok(notice) => self.tell(effect, &notice).await,
            Err(refusal) => Verdict::Definite(refusal),
        }
    }

    async fn undo(&self, _effect: &Effect) -> Verdict {
        Verdict::Definite(Outcome::refused(ALREADY_EXECUTED, "a message that went out can't be taken back"))
    }

    async fn record(&self, tx: &Transaction, now: Timestamp, verdicts: &[Definite<'_>]) -> Result<(), DbErr> {
        notices::add(tx, now, verdicts).await
    }
}

/// One key per channel: a provider that dedupes must not take the mail for a repeated SMS.
fn provider_key(effect: &Effect, channel: Channel) -> String {
    format!("{}:{}", effect.provider_key, channel.as_str())
}

fn sent(channel: Channel, provider_ref: String) -> Verdict {
    let output = serde_json::to_value(Sent { channel, provider_ref })
        .expect("outputs have string keys and no failing serializers");
    Verdict::Definite(Outcome::succeeded(output))
}

fn log(effect: &Effect, channel: Channel, error: &Error) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        channel = channel.as_str(),
        fate = ?error.fate(),
        saga_id = %effect.command.saga_id,
        key = %effect.command.key,
        "the provider did not take the message"
    );
}
