//! SQLite is compiled as `.cargo/config.toml` says, which cargo would leave out without a word.

use db::Db;
use sea_orm::{ConnectionTrait, DbBackend, Statement};

#[tokio::test]
async fn sqlite_is_built_as_the_workspace_says() {
    let dir = tempfile::tempdir().expect("a folder");
    let db = Db::open_sqlite(&dir.path().join("built.db")).await.expect("it opens");
    let asked = Statement::from_string(DbBackend::Sqlite, "pragma compile_options");
    let rows = db.reader().query_all_raw(asked).await.expect("it tells");
    let told: Vec<String> = rows.iter().map(|row| row.try_get_by_index(0).expect("a text")).collect();
    assert!(told.iter().any(|option| option == "DEFAULT_MEMSTATUS=0"), "{told:?}");
    assert!(!told.iter().any(|option| option == "ENABLE_MEMORY_MANAGEMENT"), "{told:?}");
}
