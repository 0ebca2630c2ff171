//! The participant: SMS first, mail where the SMS did not go out for sure, and another try where neither did.
//!
//! Must hold: an SMS whose fate is unknown is noted, and not sent again by a later try; a notice is never refused
//! because a provider is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use db::Transaction;
use participant_kit::{Definite, Effect, External, Verdict};
use runtime::breaker::State;
use saga_defs::contract::notify::{Channel, NAME, SEND, Send, Sent};
use saga_defs::contract::read;
use saga_defs::message::ALREADY_EXECUTED;
use saga_defs::{Outcome, Timestamp};
use sea_orm::DbErr;

use crate::mail::Mail;
use crate::sms::Sms;
use crate::{Error, Options, endpoint, notices};

/// How long to leave the providers alone after both failed.
const RETRY_AFTER_MS: u64 = 1_000;
/// Noted about an effect whose SMS may have gone out.
const SMS_UNKNOWN: &str = "sms_unknown";
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
        // A run that died in its call may have sent the SMS.
        let mut sms_unknown = effect.interrupted || effect.provider_ref.as_deref() == Some(SMS_UNKNOWN);
        if !sms_unknown {
            match self.sms.send(&provider_key(effect, Channel::Sms), notice).await {
                Ok(id) => return sent(Channel::Sms, id),
                Err(error) => {
                    log(effect, Channel::Sms, &error);
                    sms_unknown = error.leaves_unknown();
                }
            }
        }
        match self.mail.send(&provider_key(effect, Channel::Mail), notice).await {
            Ok(id) => {
                if sms_unknown {
                    self.switches_after_unknown.fetch_add(1, Ordering::Relaxed);
                    metrics::counter!(SWITCH_AFTER_UNKNOWN).increment(1);
                }
                sent(Channel::Mail, id)
            }
            Err(error) => {
                log(effect, Channel::Mail, &error);
                let provider_ref = sms_unknown.then(|| SMS_UNKNOWN.to_owned());
                Verdict::Unknown { retry_after_ms: RETRY_AFTER_MS, provider_ref }
            }
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
        unknown = error.leaves_unknown(),
        saga_id = %effect.command.saga_id,
        key = %effect.command.key,
        "the provider did not take the message"
    );
}
