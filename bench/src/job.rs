//! The job that is measured: a saga of four steps, each of which is one row that its participant inserts. Beside it a
//! saga that sleeps, of which many are started to see what they cost the others.
//!
//! The same rows are written by the engine's participants and by the baseline's. Must hold: an effect made twice can be
//! counted, so its table has no key of its own.

use async_trait::async_trait;
use participant_kit::{Transaction, Transactional};
use saga_defs::catalog::{Catalog, Loaded};
use saga_defs::{Command, Definition, Outcome, Timestamp};
use sea_orm::sea_query::{ColumnDef, Expr, ExprTrait, Query, Table};
use sea_orm::{ConnectionTrait, DbErr};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::effects_sql;

/// The steps, which are also the participants.
pub(crate) const STEPS: [&str; 4] = ["reserve", "charge", "confirm", "inform"];

/// Where a saga is, for those who run the job without an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) step: usize,
    pub(crate) undo: bool,
}

impl Place {
    /// Whether a saga that is to be refused is refused here.
    pub(crate) fn may_refuse(self) -> bool {
        self.step == 2 && !self.undo
    }

    /// Where it goes on; none when it has ended.
    pub(crate) fn next(self, done: bool) -> Option<Self> {
        match (self.undo, done) {
            (false, true) => (self.step + 1 < STEPS.len()).then_some(Self { step: self.step + 1, undo: false }),
            (false, false) | (true, _) => self.step.checked_sub(1).map(|step| Self { step, undo: true }),
        }
    }
}

/// What the job is called.
pub(crate) const DEFINITION_NAME: &str = "errand";

const DEFINITION: &str = r#"
name = "errand"
version = 1
description = "Four steps of one row each; the third may refuse."

[input]
type = "object"
required = ["refuse"]
[input.properties.refuse]
type = "boolean"

[[steps]]
name = "reserve"
participant = "reserve"
execute = "reserve.make"
compensate = "reserve.undo"
refusals = []
payload = {}

[[steps]]
name = "charge"
participant = "charge"
execute = "charge.make"
compensate = "charge.undo"
refusals = []
payload = {}

[[steps]]
name = "confirm"
participant = "confirm"
execute = "confirm.make"
pivot = true
refusals = ["unwanted"]
payload = { refuse = "${input.refuse}" }

[[steps]]
name = "inform"
participant = "inform"
execute = "inform.make"
payload = {}
"#;

/// What the sleeping saga is called.
pub(crate) const NAP_NAME: &str = "nap";

const NAP: &str = r#"
name = "nap"
version = 1
description = "One step that is always put off."

[input]
type = "object"

[[steps]]
name = "reserve"
participant = "reserve"
execute = "reserve.make"
compensate = "reserve.undo"
refusals = []
payload = { sleep = true }
"#;

/// How long a nap's step is put off: the longest that the engine grants.
const NAP_MS: u64 = 3_600_000;

/// The definitions of an engine that runs the job.
pub(crate) fn catalog() -> anyhow::Result<Catalog> {
    let mut catalog = Catalog::default();
    catalog.add(Loaded::new(Definition::from_toml(DEFINITION)?)?)?;
    catalog.add(Loaded::new(Definition::from_toml(NAP)?)?)?;
    Ok(catalog)
}

/// One of the four participants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worker(pub(crate) &'static str);

/// Creates the table of effects where it is missing.
pub(crate) async fn create_effects(db: &impl ConnectionTrait) -> Result<(), DbErr> {
    let table = Table::create()
        .table("effects")
        .if_not_exists()
        .col(ColumnDef::new("saga_id").uuid().not_null())
        .col(ColumnDef::new("step").string().not_null())
        .col(ColumnDef::new("undone").boolean().not_null())
        .to_owned();
    db.execute(&table).await.map(|_| ())
}

/// Effects that were made more than once: of any saga and step, and of either kind.
pub(crate) async fn doubled(db: &impl ConnectionTrait) -> Result<u64, DbErr> {
    let again = Query::select()
        .expr(Expr::val(1))
        .from("effects")
        .group_by_columns(["saga_id", "step", "undone"])
        .and_having(Expr::col("saga_id").count().gt(1))
        .to_owned();
    Ok(db.query_all(&again).await?.len() as u64)
}

/// Effects that were made, and those of them that were undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) made: u64,
    pub(crate) undone: u64,
}

impl Made {
    /// What so many sagas leave, of which some are refused at the third step.
    pub(crate) fn by(sagas: u64, refused: u64) -> Self {
        Self { made: STEPS.len() as u64 * (sagas - refused) + 2 * refused, undone: 2 * refused }
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self { made: self.made + other.made, undone: self.undone + other.undone }
    }
}

/// Counts effects.
pub(crate) async fn made(db: &impl ConnectionTrait) -> Result<Made, DbErr> {
    let count = Query::select()
        .column("undone")
        .expr(Expr::col("saga_id").count())
        .from("effects")
        .group_by_col("undone")
        .to_owned();
    let mut made = Made::default();
    for row in db.query_all(&count).await? {
        let (undone, count): (bool, i64) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
        *(if undone { &mut made.undone } else { &mut made.made }) = count.unsigned_abs();
    }
    Ok(made)
}

#[async_trait]
impl Transactional for Worker {
    fn name(&self) -> &'static str {
        self.0
    }

    fn undoable(&self) -> bool {
        matches!(self.0, "reserve" | "charge")
    }

    async fn execute(&self, tx: &Transaction, _now: Timestamp, commands: &[&Command]) -> Result<Vec<Outcome>, DbErr> {
        let refuses = |command: &Command| command.payload["refuse"] == json!(true);
        let sleeps = |command: &Command| command.payload["sleep"] == json!(true);
        let made = commands.iter().filter(|command| !refuses(command) && !sleeps(command));
        let made: Vec<_> = made.map(|command| command.saga_id).collect();
        effects_sql::insert(tx, &made, self.0, false).await?;
        let outcome = |command: &&Command| match (refuses(command), sleeps(command)) {
            (true, _) => Outcome::refused("unwanted", "the input asks for it"),
            (false, true) => Outcome::Retry { after_ms: NAP_MS },
            (false, false) => Outcome::succeeded(json!({})),
        };
        Ok(commands.iter().map(outcome).collect())
    }

    async fn undo(&self, tx: &Transaction, _now: Timestamp, commands: &[&Command]) -> Result<Vec<Outcome>, DbErr> {
        let undone: Vec<_> = commands.iter().map(|command| command.saga_id).collect();
        effects_sql::insert(tx, &undone, self.0, true).await?;
        Ok(vec![Outcome::succeeded(json!({})); commands.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_gone_through_once_forward_and_once_back() {
        let at = |step, undo| Place { step, undo };
        assert_eq!(at(0, false).next(true), Some(at(1, false)));
        assert_eq!(at(3, false).next(true), None);
        assert_eq!(at(2, false).next(false), Some(at(1, true)));
        assert_eq!(at(0, false).next(false), None);
        assert_eq!(at(1, true).next(true), Some(at(0, true)));
        assert_eq!(at(0, true).next(true), None);
    }
}
