//! A session beside the engine's that holds what they need, until the test has seen that they wait for it.
//!
//! Must hold: nothing here sleeps; who waits for whom is what the server says.

use sea_orm::sqlx::postgres::PgConnection;
use sea_orm::sqlx::{AssertSqlSafe, Connection, Row, query};
use uuid::Uuid;

use crate::world::{LIMIT, World};

/// A session inside a transaction.
pub(crate) struct Holder {
    held: PgConnection,
    looking: PgConnection,
    prefix: String,
}

impl Holder {
    pub(crate) async fn begin(world: &World) -> Self {
        let mut held = connect(world).await;
        query("begin").execute(&mut held).await.unwrap();
        Self { held, looking: connect(world).await, prefix: world.application("") }
    }

    /// Runs a statement in the transaction.
    pub(crate) async fn run(&mut self, text: &str) {
        query(AssertSqlSafe(text.to_owned())).execute(&mut self.held).await.unwrap();
    }

    /// Holds these rows of a table.
    pub(crate) async fn lock(&mut self, table: &str, ids: &[Uuid]) {
        let text = format!("select id from {table} where id = any($1) for update");
        let locked = query(AssertSqlSafe(text)).bind(ids).fetch_all(&mut self.held).await.unwrap();
        assert_eq!(locked.len(), ids.len());
    }

    /// Holds the place of a saga's row of history: whoever commits it waits at its end, holding all before it.
    pub(crate) async fn take_history(&mut self, id: Uuid, seq: i64) {
        let text = "insert into history (saga_id, seq, at, actor, commit_id, format, events)
            values ($1, $2, 0, 'holder', $1, 1, '[]')";
        query(text).bind(id).bind(seq).execute(&mut self.held).await.unwrap();
    }

    /// Ends the transaction: what it held is free, what it wrote is gone.
    pub(crate) async fn roll_back(mut self) {
        self.run("rollback").await;
    }

    /// Ends the transaction: what it wrote stays.
    pub(crate) async fn commit(mut self) {
        self.run("commit").await;
    }

    /// Waits until as many sessions of an instance wait for a lock.
    pub(crate) async fn waits(&mut self, name: &str, sessions: i64) {
        let text = "select count(*) from pg_stat_activity where application_name = $1 and wait_event_type = 'Lock'";
        let application = format!("{}{name}", self.prefix);
        let looking = &mut self.looking;
        testkit::eventually(LIMIT, &format!("{name} waits"), async || {
            let row = query(text).bind(&application).fetch_one(&mut *looking).await.unwrap();
            let waiting: i64 = row.get(0);
            if waiting == sessions { Ok(()) } else { Err(format!("{waiting} sessions wait")) }
        })
        .await;
    }

    /// Whether a session of one instance waits for a session of the other.
    pub(crate) async fn waits_for(&mut self, name: &str, other: &str) -> bool {
        let text = "select count(*) from pg_stat_activity as a, pg_stat_activity as b
            where a.application_name = $1 and b.application_name = $2 and b.pid = any(pg_blocking_pids(a.pid))";
        let (name, other) = (format!("{}{name}", self.prefix), format!("{}{other}", self.prefix));
        let row = query(text).bind(name).bind(other).fetch_one(&mut self.looking).await.unwrap();
        row.get::<i64, _>(0) > 0
    }

    /// A count, seen from outside the transaction.
    pub(crate) async fn count(&mut self, from: &str) -> i64 {
        let text = AssertSqlSafe(format!("select count(*) from {from}"));
        query(text).fetch_one(&mut self.looking).await.unwrap().get(0)
    }

    /// Rows that a commit writes, by table.
    pub(crate) async fn rows(&mut self) -> Vec<i64> {
        let mut rows = Vec::new();
        for table in ["sagas", "start_keys", "saga_inputs", "history", "outbox"] {
            rows.push(self.count(table).await);
        }
        rows
    }
}

async fn connect(world: &World) -> PgConnection {
    let mut connection = PgConnection::connect(world.schemas.url()).await.unwrap();
    let path = format!("set search_path = {}", world.schema());
    query(AssertSqlSafe(path)).execute(&mut connection).await.unwrap();
    connection
}
