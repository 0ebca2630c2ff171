//! A script of SQLite is believed when it says that it has committed, and leaves its connection as it found it.
#![allow(clippy::unwrap_used, reason = "the helpers of tests panic like tests do")]

use db::{Db, Error};
use sea_orm::ConnectionTrait;
use sea_orm::sqlx::Row as _;

async fn open(dir: &tempfile::TempDir) -> Db {
    let db = Db::open_sqlite(&dir.path().join("script.db")).await.unwrap();
    db.writer().execute_unprepared("create table t (n integer primary key, word text)").await.unwrap();
    db
}

#[tokio::test]
async fn a_script_that_does_not_say_that_it_committed_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir).await;
    let told = db.sqlite_script("begin immediate; select 1 as one; commit", Vec::new()).await;
    assert!(matches!(told, Err(Error::UnknownCommit(_))), "{:?}", told.err());
}

#[tokio::test]
async fn a_script_that_fails_half_way_leaves_nothing_behind() {
    const FAILS: &str = "begin immediate; insert into t values (1, $2); insert into t values (1, $1);
        commit; select true as committed";
    const SOUND: &str = "begin immediate; insert into t values (1, $2); select word from t; commit;
        select word as committed from t where word = $2";
    let dir = tempfile::tempdir().unwrap();
    let db = open(&dir).await;
    let parameters = || vec!["one".to_owned(), "two".to_owned()];
    let failed = db.sqlite_script(FAILS, parameters()).await;
    assert!(matches!(failed, Err(Error::Bug(_))), "{:?}", failed.err());
    let row = db.sqlite_script(SOUND, parameters()).await.unwrap();
    assert_eq!(
        row.try_get::<String, _>("committed").unwrap(),
        "two",
        "the connection is free, and the row of the script that failed was gone"
    );
}
