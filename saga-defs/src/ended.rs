//! Tells a participant of sagas that have ended, so that it may forget their effects.
//!
//! Not for asking anything: nobody replies to it. Must hold: it can't be read as a command, nor a command as it; what
//! it says stays true for ever, so that hearing it again, late or never does no harm.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::message::{Item, VERSION};

/// Most sagas that one announcement names.
pub const SAGAS_MAX: usize = 256;

/// Sagas for which no command will be sent any more, in the words of the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Format version, [`VERSION`].
    pub v: u16,
    /// The sagas.
    pub ended: Vec<Uuid>,
    /// The participant that is told.
    pub participant: String,
}

impl Ended {
    /// Tells `participant` of `sagas`, at most [`SAGAS_MAX`].
    #[must_use]
    pub fn new(participant: &str, sagas: &[Uuid]) -> Self {
        Self { v: VERSION, ended: sagas.to_vec(), participant: participant.to_owned() }
    }
}

impl Item for Ended {
    fn version(&self) -> u16 {
        self.v
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{about, decode, encode, read};
    use crate::{Command, Error, Reply};

    #[test]
    fn an_announcement_is_no_command_and_no_reply() {
        let told = Ended::new("payment", &[Uuid::from_u128(1), Uuid::from_u128(2)]);
        let body = encode(std::slice::from_ref(&told)).concat();
        assert_eq!(
            body,
            r#"{"v":1,"ended":["00000000-0000-0000-0000-000000000001","00000000-0000-0000-0000-000000000002"],"participant":"payment"}"#
        );
        assert_eq!(read::<Ended>(&body).unwrap(), told);
        assert!(matches!(read::<Command>(&body), Err(Error::Json(_))));
        assert!(matches!(decode::<Reply>(body.as_bytes()).unwrap()[0], Err(Error::Json(_))));
        assert_eq!(about(&body), None);
    }

    #[test]
    fn the_longest_announcement_is_a_short_message() {
        let told = Ended::new(&"p".repeat(64), &[Uuid::max(); SAGAS_MAX]);
        assert!(encode(&[told]).concat().len() < crate::message::BATCH_BYTES_MAX);
    }
}
