//! Enums as the words they are stored as: the same words that they have in JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Error;

/// The word for a value of an enum without data.
pub(super) fn word<T: Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        Ok(_) | Err(_) => unreachable!("enums without data are written as strings"),
    }
}

/// The value that a word stands for.
pub(super) fn parse<T: DeserializeOwned>(word: String) -> Result<T, Error> {
    serde_json::from_value(Value::String(word)).map_err(Error::Corrupt)
}

#[cfg(test)]
mod tests {
    use saga_core::{Decision, Status};

    use super::*;
    use crate::LateReason;

    /// The words lie in databases and in the text of indexes: changing one would lose rows.
    #[test]
    fn words_are_frozen() {
        assert_eq!(word(Status::Compensating), "compensating");
        assert_eq!(word(Decision::Abandoned), "abandoned");
        assert_eq!(word(LateReason::Contradiction), "contradiction");
        assert_eq!(parse::<Status>("stuck".to_owned()).unwrap(), Status::Stuck);
        assert!(matches!(parse::<Status>("parked".to_owned()), Err(Error::Corrupt(_))));
    }
}
