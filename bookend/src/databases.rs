//! Where the owners' tables are, and how they are opened: SQLite files in a folder, or schemas on PostgreSQL.
//!
//! Must hold: one process per data folder, guarded by a lock file; a process opens the tables of the owners that it
//! hosts and no others.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use db::{Db, PostgresOptions};
use runtime::{Pause, Tasks};

use crate::settings::Settings;

/// Who owns tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Owner {
    /// Sagas.
    Engine,
    /// Slots and appointments.
    Clinic,
    /// Charges and refunds.
    Payment,
    /// Notices.
    Notify,
}

impl Owner {
    /// All owners.
    pub const ALL: [Self; 4] = [Self::Engine, Self::Clinic, Self::Payment, Self::Notify];

    /// The owner's name: its file, and the end of its schema's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Clinic => "clinic",
            Self::Payment => "payment",
            Self::Notify => "notify",
        }
    }

    /// Brings the owner's tables up to date.
    ///
    /// # Errors
    /// When a migration fails; what was done before it stays.
    pub async fn migrate(self, db: &Db) -> anyhow::Result<()> {
        let done = match self {
            Self::Engine => migrations::up::<migrations::Engine>(db.unlimited()).await,
            Self::Clinic => migrations::up::<migrations::Clinic>(db.unlimited()).await,
            Self::Payment => migrations::up::<migrations::Payment>(db.unlimited()).await,
            Self::Notify => migrations::up::<migrations::Notify>(db.unlimited()).await,
        };
        done.with_context(|| format!("the tables of {} can't be brought up to date", self.as_str()))
    }

    /// How many steps the owner's tables are behind this build.
    async fn pending(self, db: &Db) -> anyhow::Result<usize> {
        let pending = match self {
            Self::Engine => migrations::pending::<migrations::Engine>(db.unlimited()).await,
            Self::Clinic => migrations::pending::<migrations::Clinic>(db.unlimited()).await,
            Self::Payment => migrations::pending::<migrations::Payment>(db.unlimited()).await,
            Self::Notify => migrations::pending::<migrations::Notify>(db.unlimited()).await,
        };
        pending.with_context(|| format!("the tables of {} can't be looked at", self.as_str()))
    }
}

/// Where the owners' tables are.
#[derive(Clone, Debug)]
pub enum Place {
    /// SQLite files in this folder.
    Folder(PathBuf),
    /// Schemas on PostgreSQL.
    Server(Server),
}

/// The owners' schemas. Boxed settings, so that a URL with a password is in no `Debug`.
#[derive(Clone)]
pub struct Server(Box<Settings>);

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

impl Place {
    /// The place that the settings name: a data folder, or else a database URL.
    ///
    /// # Errors
    /// When they name none, or both.
    pub fn of(settings: &Settings) -> anyhow::Result<Self> {
        match (settings.data.dir.is_empty(), settings.database.url.is_empty()) {
            (false, true) => Ok(Self::Folder(settings.data_dir()?)),
            (true, false) => Ok(Self::Server(Server(Box::new(settings.clone())))),
            (true, true) => bail!("no place for the data: give --data DIR, or set data.dir or database.url"),
            (false, false) => bail!("two places for the data: set data.dir or database.url, not both"),
        }
    }

    /// The PostgreSQL database that `serve` and `participant` need.
    ///
    /// # Errors
    /// When none is set, or a data folder beside it.
    pub fn server(settings: &Settings) -> anyhow::Result<Self> {
        if settings.data.dir.is_empty() && settings.database.url.is_empty() {
            bail!("no database: set database.url, as in postgres://user:password@host:5432/database");
        }
        match Self::of(settings)? {
            Self::Folder(_) => bail!("a data folder is for one process, as `dev` is; set database.url instead"),
            place @ Self::Server(_) => Ok(place),
        }
    }

    /// What a person would call it.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Folder(dir) => dir.display().to_string(),
            Self::Server(_) => "the PostgreSQL database".to_owned(),
        }
    }

    /// Keeps other processes out while it lives. PostgreSQL needs no such thing.
    ///
    /// # Errors
    /// When another process has the folder.
    pub fn lock(&self) -> anyhow::Result<Option<Lock>> {
        match self {
            Self::Folder(dir) => Lock::take(dir).map(Some),
            Self::Server(_) => Ok(None),
        }
    }

    /// Opens an owner's tables.
    ///
    /// # Errors
    /// When they are out of reach.
    pub async fn open(&self, owner: Owner) -> anyhow::Result<Db> {
        match self {
            Self::Folder(dir) => open_file(dir, owner).await,
            Self::Server(Server(settings)) => open_schema(settings.postgres(owner)).await,
        }
    }

    /// Opens an owner's tables for changing them.
    ///
    /// # Errors
    /// When they are out of reach.
    pub async fn open_to_migrate(&self, owner: Owner) -> anyhow::Result<Db> {
        match self {
            Self::Folder(dir) => open_file(dir, owner).await,
            Self::Server(Server(settings)) => open_schema(settings.postgres(owner).for_migrations()).await,
        }
    }

    /// Opens an owner's tables, waiting for a database that is not there yet for as long as the process may run, and
    /// refuses tables that are not up to date.
    ///
    /// # Errors
    /// When the tables are behind this build, or the settings can't work.
    pub async fn open_patiently(&self, owner: Owner, tasks: &Tasks) -> anyhow::Result<Db> {
        let mut pause = Pause::new(Duration::from_millis(100), Duration::from_secs(5));
        let db = loop {
            match self.open(owner).await {
                Ok(db) => break db,
                Err(error) if error.downcast_ref::<db::Error>().is_some_and(db::Error::is_transient) => {
                    tracing::warn!("{error:#}; again soon");
                }
                Err(error) => return Err(error),
            }
            if !pause.wait(tasks).await {
                bail!("stopped before the database was there");
            }
        };
        let pending = owner.pending(&db).await?;
        if pending > 0 {
            bail!("the tables of {} are {pending} steps behind; run `bookend migrate` first", owner.as_str());
        }
        Ok(db)
    }
}

async fn open_file(dir: &Path, owner: Owner) -> anyhow::Result<Db> {
    std::fs::create_dir_all(dir).with_context(|| format!("the data folder {} can't be created", dir.display()))?;
    let path = dir.join(format!("{}.sqlite", owner.as_str()));
    Db::open_sqlite(&path).await.with_context(|| format!("{} can't be opened", path.display()))
}

async fn open_schema(options: PostgresOptions) -> anyhow::Result<Db> {
    Db::open_postgres(&options).await.with_context(|| format!("the schema {} can't be opened", options.schema))
}

/// The databases of all owners, open.
#[derive(Clone, Debug)]
pub struct Databases {
    /// Sagas.
    pub engine: Db,
    /// Slots and appointments.
    pub clinic: Db,
    /// Charges and refunds.
    pub payment: Db,
    /// Notices.
    pub notify: Db,
}

impl Databases {
    /// Opens the tables of all owners, creating files that are missing.
    ///
    /// # Errors
    /// When they are out of reach.
    pub async fn open(place: &Place) -> anyhow::Result<Self> {
        Ok(Self {
            engine: place.open(Owner::Engine).await?,
            clinic: place.open(Owner::Clinic).await?,
            payment: place.open(Owner::Payment).await?,
            notify: place.open(Owner::Notify).await?,
        })
    }

    /// Opens the tables of a place that is in use already.
    ///
    /// # Errors
    /// When the place holds no data.
    pub async fn open_existing(place: &Place) -> anyhow::Result<Self> {
        if let Place::Folder(dir) = place
            && !dir.join("engine.sqlite").exists()
        {
            bail!("{} holds no data; `bookend migrate --data {}` creates it", dir.display(), dir.display());
        }
        Self::open(place).await
    }

    /// Brings the tables of every owner up to date.
    ///
    /// # Errors
    /// When a migration fails; what was done before it stays.
    pub async fn migrate(&self) -> anyhow::Result<()> {
        for owner in Owner::ALL {
            owner.migrate(self.of(owner)).await?;
        }
        Ok(())
    }

    /// One owner's database.
    #[must_use]
    pub fn of(&self, owner: Owner) -> &Db {
        match owner {
            Owner::Engine => &self.engine,
            Owner::Clinic => &self.clinic,
            Owner::Payment => &self.payment,
            Owner::Notify => &self.notify,
        }
    }

    /// Closes all connections.
    pub async fn close(&self) {
        for owner in Owner::ALL {
            self.of(owner).close().await;
        }
    }
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
        std::fs::create_dir_all(dir).with_context(|| format!("the data folder {} can't be created", dir.display()))?;
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
