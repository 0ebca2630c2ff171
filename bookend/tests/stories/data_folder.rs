//! A data folder that is not whole, or not of this build, is refused with a mend, and nothing is made in it.

use std::path::Path;

use db::Db;
use testkit::process::{Process, Program};

use super::common::{BIN, LIMIT};

/// Runs a command that must fail by itself, and gives what it said.
async fn refused(verb: &str, data: &Path) -> String {
    let args = [verb, "--data", &data.display().to_string()];
    let port: &[&str] = if verb == "dev" { &["--port", "0"] } else { &[] };
    let mut process = Process::start(Program::new(BIN, [&args, port].concat())).expect("the product starts");
    let status = process.ended(LIMIT).await;
    assert!(!status.success(), "{verb} did not fail: {}", process.output());
    process.output()
}

async fn migrated(data: &Path) {
    let args = ["migrate", "--data", &data.display().to_string()];
    let mut process = Process::start(Program::new(BIN, args)).expect("the product starts");
    assert!(process.ended(LIMIT).await.success(), "{}", process.output());
}

fn databases(data: &Path) -> Vec<String> {
    let entries = data.read_dir().expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.filter_map(|name| name.into_string().ok()).collect();
    names.retain(|name| name.ends_with(".sqlite"));
    names.sort();
    names
}

#[tokio::test]
async fn half_a_data_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    for owner in ["engine", "clinic", "payment", "notify"] {
        let (data, name) = (dir.path().join(owner), format!("{owner}.sqlite"));
        migrated(&data).await;
        std::fs::remove_file(data.join(&name)).expect("it was there");
        for verb in ["dev", "migrate", "seed", "audit"] {
            let said = refused(verb, &data).await;
            assert!(said.contains(&format!("is not whole, missing: {name}. Restore")), "{verb}: {said}");
        }
        assert_eq!(databases(&data).len(), 3, "nothing was made");
    }
}

#[tokio::test]
async fn no_data_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    for verb in ["seed", "audit"] {
        let said = refused(verb, &data).await;
        assert!(said.contains("holds no data") && said.contains("bookend migrate"), "{said}");
        assert!(!data.exists(), "{verb} only looks");
    }
}

#[tokio::test]
async fn tables_of_another_build() {
    const CLIMBS: &str = "begin immediate; insert into seaql_migrations values ('m99999999_future', 0); commit;
        select true as committed";
    let dir = tempfile::tempdir().expect("a folder");
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    std::fs::create_dir(&old).expect("a folder");
    for name in ["engine", "clinic", "payment", "notify"] {
        std::fs::write(old.join(format!("{name}.sqlite")), "").expect("a file");
    }
    for verb in ["seed", "audit"] {
        let said = refused(verb, &old).await;
        assert!(said.contains("the tables of engine are") && said.contains("run `bookend migrate` first"), "{said}");
    }
    migrated(&new).await;
    let db = Db::open_sqlite(&new.join("payment.sqlite")).await.expect("it opens");
    db.sqlite_script(CLIMBS, Vec::new()).await.expect("a row");
    db.close().await;
    for verb in ["dev", "migrate", "seed", "audit"] {
        let said = refused(verb, &new).await;
        assert!(said.contains("the tables of payment were written by a newer build"), "{verb}: {said}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database() {
    let dir = tempfile::tempdir().expect("a folder");
    migrated(dir.path()).await;
    std::fs::write(dir.path().join("clinic.sqlite"), "a letter".repeat(1_000)).expect("a file");
    let said = refused("audit", dir.path()).await;
    assert!(said.contains("can't be used as it is set up"), "{said}");
    assert_eq!(said.matches("file is not a database").count(), 1, "{said}");
}
