//! JSON Schema for the input of sagas.
//!
//! Not for payloads between steps: participants judge those. Must hold: nothing is fetched while compiling, and no
//! problem repeats a value, which may be personal data.

use serde_json::Value;

/// A place that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// JSON pointer to the place.
    pub pointer: String,
    /// What is wrong, the value masked.
    pub detail: String,
}

/// A compiled JSON Schema. Nothing is fetched: a reference to elsewhere does not compile.
pub struct InputSchema(jsonschema::Validator);

impl std::fmt::Debug for InputSchema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InputSchema")
    }
}

impl InputSchema {
    /// Compiles `schema` as draft 2020-12 with formats checked.
    ///
    /// # Errors
    /// Why it is not a schema.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .should_validate_formats(true)
            .build(schema)
            .map(Self)
            .map_err(|error| error.masked().to_string())
    }

    /// What is wrong with a document; empty when it fits, at most twenty otherwise.
    #[must_use]
    pub fn problems(&self, input: &Value) -> Vec<Misfit> {
        self.0
            .iter_errors(input)
            .take(20)
            .map(|error| Misfit { pointer: error.instance_path().to_string(), detail: error.masked().to_string() })
            .collect()
    }
}
