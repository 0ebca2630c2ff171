//! A data folder: one SQLite file per owner, and a lock file.
//!
//! Not for what is in the files. Must hold: one process per folder; an owner's file that was lost is never begun anew
//! beside what the others remember. So all files are made, empty, before any of them gets a table: a start that is
//! killed between two files leaves none that holds anything.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::databases::Owner;

/// The file that holds an owner's tables.
#[must_use]
pub fn file(dir: &Path, owner: Owner) -> PathBuf {
    dir.join(name(owner))
}

/// Makes the files of a new folder.
///
/// # Errors
/// When some owners' files were lost, or none can be made.
pub fn prepare(dir: &Path) -> anyhow::Result<()> {
    let missing = missing(dir)?;
    if missing.is_empty() {
        return Ok(());
    }
    for owner in Owner::ALL {
        let path = file(dir, owner);
        if !missing.contains(&owner) && path.metadata().is_ok_and(|there| there.len() > 0) {
            return Err(lost(dir, &missing));
        }
    }
    create(dir)?;
    for owner in missing {
        let path = file(dir, owner);
        File::create_new(&path).with_context(|| format!("{} can't be created", path.display()))?;
    }
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.with_context(|| format!("{} can't be written to disk", dir.display()))
}

/// Refuses a folder in which a file is missing, and changes nothing.
///
/// # Errors
/// When the files of some owners, or of all, are missing.
pub fn check_whole(dir: &Path) -> anyhow::Result<()> {
    let missing = missing(dir)?;
    if missing.len() == Owner::ALL.len() {
        bail!("{} holds no data; `bookend migrate --data {}` creates it", dir.display(), dir.display());
    }
    if missing.is_empty() { Ok(()) } else { Err(lost(dir, &missing)) }
}

fn name(owner: Owner) -> String {
    format!("{}.sqlite", owner.as_str())
}

fn missing(dir: &Path) -> anyhow::Result<Vec<Owner>> {
    let mut missing = Vec::new();
    for owner in Owner::ALL {
        let path = file(dir, owner);
        if !path.try_exists().with_context(|| format!("{} can't be looked for", path.display()))? {
            missing.push(owner);
        }
    }
    Ok(missing)
}

fn lost(dir: &Path, missing: &[Owner]) -> anyhow::Error {
    let names: Vec<String> = missing.iter().map(|owner| name(*owner)).collect();
    anyhow::anyhow!(
        "{} is not whole, missing: {}. Restore the folder from a backup in which all files are of one moment, or choose \
         another folder; remove it if it never held data",
        dir.display(),
        names.join(", ")
    )
}

/// For its owner alone: the files hold names and phone numbers. A folder that is there keeps its mode.
fn create(dir: &Path) -> anyhow::Result<()> {
    let parents = dir.parent().map_or(Ok(()), std::fs::create_dir_all);
    let created = parents.and_then(|()| DirBuilder::new().recursive(true).mode(0o700).create(dir));
    created.with_context(|| format!("the data folder {} can't be created", dir.display()))
}

/// Keeps other processes out of a data folder while it lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Locks `dir`.
    ///
    /// # Errors
    /// When another process has it.
    pub fn take(dir: &Path) -> anyhow::Result<Self> {
        create(dir)?;
        let path = dir.join("bookend.lock");
        let file = File::create(&path).with_context(|| format!("{} can't be created", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                bail!("{} is in use by another bookend process; stop it or choose another folder", dir.display())
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("{} can't be locked", path.display()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn text<T>(result: anyhow::Result<T>) -> String {
        result.map(|_| String::new()).unwrap_or_else(|error| format!("{error:#}"))
    }

    fn entries(dir: &Path) -> usize {
        dir.read_dir().map_or(0, Iterator::count)
    }

    #[test]
    fn a_folder_is_made_for_its_owner_alone_and_keeps_its_mode_afterwards() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("of").join("data");
        let mode = || dir.metadata().unwrap().permissions().mode() & 0o777;
        let lock = Lock::take(&dir).unwrap();
        assert_eq!(mode(), 0o700);
        let above = parent.path().join("of").metadata().unwrap().permissions().mode() & 0o777;
        assert_ne!(above, 0o700, "it is not ours alone");
        drop(lock);
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o750)).unwrap();
        Lock::take(&dir).unwrap();
        prepare(&dir).unwrap();
        assert_eq!(mode(), 0o750);
    }

    #[test]
    fn a_first_start_that_was_killed_between_two_files_goes_on() {
        for there in 0..Owner::ALL.len() {
            let dir = tempfile::tempdir().unwrap();
            for owner in &Owner::ALL[..there] {
                File::create_new(file(dir.path(), *owner)).unwrap();
            }
            prepare(dir.path()).unwrap();
            check_whole(dir.path()).unwrap();
        }
    }

    #[test]
    fn what_was_lost_is_named_and_not_begun_anew() {
        for gone in Owner::ALL {
            let dir = tempfile::tempdir().unwrap();
            for owner in Owner::ALL.into_iter().filter(|owner| *owner != gone) {
                std::fs::write(file(dir.path(), owner), "tables").unwrap();
            }
            for said in [text(prepare(dir.path())), text(check_whole(dir.path()))] {
                assert!(said.contains(&format!("missing: {}.sqlite.", gone.as_str())), "{said}");
            }
            assert_eq!(entries(dir.path()), 3, "nothing was made");
        }
    }

    #[test]
    fn looking_at_a_folder_that_holds_nothing_makes_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        assert!(text(check_whole(&dir)).contains("holds no data"));
        assert!(!dir.exists());
    }
}
