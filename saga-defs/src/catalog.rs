//! The definitions that are compiled in, and a set in which definitions are found by name or by `name@version`.
//!
//! Not the database's table of published definitions: that belongs to the store. Must hold: one definition has one
//! reference, because a start is recognised by it; what stands under a name and version is never replaced.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use serde_json::Value;

use crate::schema::{InputSchema, Misfit};
use crate::{Definition, Error};

/// TOML texts of the compiled-in definitions.
pub const BUILT_IN: &[&str] = &[include_str!("../definitions/booking.toml")];

/// The booking saga: reserve, charge, confirm, notify.
#[must_use]
pub fn booking() -> Definition {
    Definition::from_toml(BUILT_IN[0]).expect("the compiled-in definition is checked by a test")
}

/// A definition that is ready for use: checked, digest computed, input schema compiled.
#[derive(Debug)]
pub struct Loaded {
    /// The definition.
    pub definition: Definition,
    /// Its content digest.
    pub digest: String,
    schema: InputSchema,
}

impl Loaded {
    /// Prepares a checked definition.
    ///
    /// # Errors
    /// [`Error::Rules`] when it breaks structural rules.
    pub fn new(definition: Definition) -> Result<Self, Error> {
        let broken = crate::check::check(&definition);
        if !broken.is_empty() {
            return Err(Error::Rules(broken));
        }
        let schema = InputSchema::compile(&definition.input).expect("checked above");
        Ok(Self { digest: definition.digest(), schema, definition })
    }

    /// What is wrong with a saga's input; empty when it fits. Values are masked: they may be personal data.
    #[must_use]
    pub fn input_problems(&self, input: &Value) -> Vec<Misfit> {
        self.schema.problems(input)
    }
}

/// Definitions by name and version.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    by_name: BTreeMap<String, BTreeMap<u32, Arc<Loaded>>>,
}

impl Catalog {
    /// The compiled-in definitions.
    #[must_use]
    pub fn built_in() -> Self {
        let mut catalog = Self::default();
        for text in BUILT_IN {
            let definition = Definition::from_toml(text).expect("compiled-in definitions are checked by a test");
            catalog.add(Loaded::new(definition).expect("checked while read")).expect("checked by a test");
        }
        catalog
    }

    /// Adds a definition; one of equal content may be there already.
    ///
    /// # Errors
    /// [`Error::Duplicate`] when another content stands under its name and version.
    pub fn add(&mut self, loaded: Loaded) -> Result<(), Error> {
        let versions = self.by_name.entry(loaded.definition.name.clone()).or_default();
        match versions.entry(loaded.definition.version) {
            Entry::Vacant(free) => {
                free.insert(Arc::new(loaded));
                Ok(())
            }
            Entry::Occupied(there) if there.get().digest == loaded.digest => Ok(()),
            Entry::Occupied(_) => {
                Err(Error::Duplicate(format!("{}@{}", loaded.definition.name, loaded.definition.version)))
            }
        }
    }

    /// `booking` finds the newest version, `booking@1` that one. Other spellings of a version, such as `01` and `+1`,
    /// find nothing.
    #[must_use]
    pub fn find(&self, reference: &str) -> Option<Arc<Loaded>> {
        match reference.split_once('@') {
            Some((name, version)) => self.by_name.get(name)?.get(&canonical(version)?).cloned(),
            None => self.by_name.get(reference)?.values().next_back().cloned(),
        }
    }

    /// The very definition that a saga was started with.
    #[must_use]
    pub fn pinned(&self, name: &str, version: u32, digest: &str) -> Option<Arc<Loaded>> {
        self.by_name.get(name)?.get(&version).filter(|loaded| loaded.digest == digest).cloned()
    }

    /// All definitions, by name and version.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Loaded>> {
        self.by_name.values().flat_map(BTreeMap::values)
    }
}

/// The number that is written like this and no other way.
fn canonical(version: &str) -> Option<u32> {
    version.parse().ok().filter(|number: &u32| number.to_string() == version)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn built_in_definitions_are_sound_and_survive_json() {
        for loaded in Catalog::built_in().iter() {
            let text = serde_json::to_string(&loaded.definition).unwrap();
            let again = Definition::from_json(&text).unwrap();
            assert_eq!(again, loaded.definition);
            assert_eq!(again.digest(), loaded.digest);
        }
    }

    #[test]
    fn newest_version_answers_to_the_bare_name() {
        let mut catalog = Catalog::built_in();
        let mut newer = booking();
        newer.version = 2;
        catalog.add(Loaded::new(newer).unwrap()).unwrap();
        assert_eq!(catalog.find("booking").unwrap().definition.version, 2);
        assert_eq!(catalog.find("booking@1").unwrap().definition.version, 1);
        assert!(catalog.find("booking@3").is_none() && catalog.find("gone").is_none());
    }

    #[test]
    fn a_version_is_found_by_its_one_spelling_only() {
        let catalog = Catalog::built_in();
        assert!(catalog.find("booking@1").is_some());
        for reference in ["booking@01", "booking@+1", "booking@1 ", "booking@", "booking@-1", "booking@1@1", "@1", ""] {
            assert!(catalog.find(reference).is_none(), "{reference:?}");
        }
    }

    #[test]
    fn a_definition_is_never_replaced_by_another_one() {
        let mut catalog = Catalog::built_in();
        catalog.add(Loaded::new(booking()).unwrap()).unwrap();
        let mut other = booking();
        other.description = "Something else under the same name.".to_owned();
        match catalog.add(Loaded::new(other).unwrap()) {
            Err(Error::Duplicate(reference)) => assert_eq!(reference, "booking@1"),
            other => panic!("expected a duplicate, got {other:?}"),
        }
        assert_eq!(catalog.find("booking@1").unwrap().definition, booking());
        assert_eq!(catalog.iter().count(), 1);
    }

    #[test]
    fn input_problems_name_the_place_and_hide_the_value() {
        let loaded = Loaded::new(booking()).unwrap();
        let good = json!({
            "slot_id": "0190f5fe-7c00-7a00-8000-000000000001",
            "patient": {"name": "Ada", "phone": "+15005550006", "email": "ada@example.org"},
            "payment_method": "tok_visa"
        });
        assert_eq!(loaded.input_problems(&good), []);
        let mut bad = good.clone();
        bad["patient"]["phone"] = json!("call me at home");
        bad["surprise"] = json!(1);
        let problems = loaded.input_problems(&bad);
        assert_eq!(problems.len(), 2);
        assert!(problems.iter().any(|problem| problem.pointer == "/patient/phone"));
        assert!(problems.iter().all(|problem| !problem.detail.contains("at home")));
    }
}
