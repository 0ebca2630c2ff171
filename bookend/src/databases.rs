//! Where the owners' tables are, and how they are opened: SQLite files in a folder, or schemas on PostgreSQL.
//!
//! Must hold: a process opens the tables of the owners that it hosts and no others; nobody works on tables of another
//! build's shape.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use db::{Db, PostgresOptions};
use migrations::Standing;
use runtime::{Pause, Tasks};
use tokio::time::Instant;

use crate::cli::output;
use crate::folder::{self, Lock};
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
    /// When a newer build wrote them, or a migration fails; what was done before it stays.
    pub async fn migrate(self, db: &Db) -> anyhow::Result<()> {
        if self.standing(db).await? == Standing::Ahead {
            return Err(self.ahead());
        }
        let done = match self {
            Self::Engine => migrations::up::<migrations::Engine>(db.unlimited()).await,
            Self::Clinic => migrations::up::<migrations::Clinic>(db.unlimited()).await,
            Self::Payment => migrations::up::<migrations::Payment>(db.unlimited()).await,
            Self::Notify => migrations::up::<migrations::Notify>(db.unlimited()).await,
        };
        done.with_context(|| format!("the tables of {} can't be brought up to date", self.as_str()))
    }

    /// Refuses tables that are not those of this build.
    ///
    /// # Errors
    /// When they are behind or ahead of it, or can't be looked at.
    pub async fn check_up_to_date(self, db: &Db) -> anyhow::Result<()> {
        match self.standing(db).await? {
            Standing::UpToDate => Ok(()),
            Standing::Behind(steps) => {
                bail!("the tables of {} are {steps} steps behind; run `bookend migrate` first", self.as_str())
            }
            Standing::Ahead => Err(self.ahead()),
        }
    }

    fn ahead(self) -> anyhow::Error {
        anyhow::anyhow!("the tables of {} were written by a newer build; run that one or a later one", self.as_str())
    }

    async fn standing(self, db: &Db) -> anyhow::Result<Standing> {
        let standing = match self {
            Self::Engine => migrations::standing::<migrations::Engine>(db.unlimited()).await,
            Self::Clinic => migrations::standing::<migrations::Clinic>(db.unlimited()).await,
            Self::Payment => migrations::standing::<migrations::Payment>(db.unlimited()).await,
            Self::Notify => migrations::standing::<migrations::Notify>(db.unlimited()).await,
        };
        standing.with_context(|| format!("the tables of {} can't be looked at", self.as_str()))
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

    /// Makes the files of a new data folder, before any is opened. On PostgreSQL migrations make the schemas.
    ///
    /// # Errors
    /// When files of the folder were lost, or it can't be written.
    pub fn prepare(&self) -> anyhow::Result<()> {
        match self {
            Self::Folder(dir) => folder::prepare(dir),
            Self::Server(_) => Ok(()),
        }
    }

    /// Refuses a data folder that holds nothing, or not all of what it held. Changes nothing.
    ///
    /// # Errors
    /// When a file is missing.
    pub fn check_whole(&self) -> anyhow::Result<()> {
        match self {
            Self::Folder(dir) => folder::check_whole(dir),
            Self::Server(_) => Ok(()),
        }
    }

    /// Opens an owner's tables.
    ///
    /// # Errors
    /// When they are out of reach.
    pub async fn open(&self, owner: Owner) -> anyhow::Result<Db> {
        match self {
            Self::Folder(dir) => open_file(folder::file(dir, owner)).await,
            Self::Server(Server(settings)) => open_schema(settings.postgres(owner)).await,
        }
    }

    /// Opens an owner's tables for changing them.
    ///
    /// # Errors
    /// When they are out of reach.
    pub async fn open_to_migrate(&self, owner: Owner) -> anyhow::Result<Db> {
        match self {
            Self::Folder(dir) => open_file(folder::file(dir, owner)).await,
            Self::Server(Server(settings)) => open_schema(settings.postgres(owner).for_migrations()).await,
        }
    }

    /// Opens an owner's tables, waiting for a database that is not there yet for as long as the process may run, and
    /// refuses tables that are not up to date.
    ///
    /// # Errors
    /// When the tables are not those of this build, or the settings can't work.
    pub async fn open_patiently(&self, owner: Owner, tasks: &Tasks) -> anyhow::Result<Db> {
        let (mut pause, mut said) = (Pause::new(Duration::from_millis(100), Duration::from_secs(5)), Said::default());
        let db = loop {
            match self.open(owner).await {
                Ok(db) => break db,
                Err(error) if error.downcast_ref::<db::Error>().is_some_and(db::Error::is_transient) => {
                    let text = output::chain(&error);
                    if said.is_news(&text) {
                        tracing::warn!("{text}; waiting for it");
                    }
                }
                Err(error) => return Err(error),
            }
            if !pause.wait(tasks).await {
                bail!("stopped before the database was there");
            }
        };
        owner.check_up_to_date(&db).await?;
        Ok(db)
    }
}

async fn open_file(path: PathBuf) -> anyhow::Result<Db> {
    Db::open_sqlite(&path).await.with_context(|| unopened(&path))
}

fn unopened(path: &Path) -> String {
    let refused = File::options().append(true).open(path).err().map(|error| error.kind());
    let why = match refused {
        Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
            " for writing, without which SQLite does not read it either; copy the folder to where it can be written"
        }
        _ => "",
    };
    format!("{} can't be opened{why}", path.display())
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
    /// Opens the tables of all owners for bringing them up to date, making the files of a new data folder.
    ///
    /// # Errors
    /// When they are out of reach, or files of the folder were lost.
    pub async fn open(place: &Place) -> anyhow::Result<Self> {
        place.prepare()?;
        Self::reach(place).await
    }

    /// Opens the tables of a place that is in use already, creating nothing.
    ///
    /// # Errors
    /// When the place holds no data, not all of it, or tables that are not those of this build.
    pub async fn open_existing(place: &Place) -> anyhow::Result<Self> {
        place.check_whole()?;
        let databases = Self::reach(place).await?;
        for owner in Owner::ALL {
            owner.check_up_to_date(databases.of(owner)).await?;
        }
        Ok(databases)
    }

    async fn reach(place: &Place) -> anyhow::Result<Self> {
        Ok(Self {
            engine: place.open(Owner::Engine).await?,
            clinic: place.open(Owner::Clinic).await?,
            payment: place.open(Owner::Payment).await?,
            notify: place.open(Owner::Notify).await?,
        })
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

/// What was said last of a trouble that lasts, and when.
#[derive(Debug, Default)]
struct Said(Option<(String, Instant)>);

impl Said {
    /// How long the same is not said again.
    const EVERY: Duration = Duration::from_secs(60);

    /// Whether to say it: once, and then seldom.
    fn is_news(&mut self, text: &str) -> bool {
        let known = self.0.as_ref().is_some_and(|(last, at)| last == text && at.elapsed() < Self::EVERY);
        if !known {
            self.0 = Some((text.to_owned(), Instant::now()));
        }
        !known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_trouble_that_lasts_is_told_once_and_then_seldom() {
        let mut said = Said::default();
        assert_eq!(["down", "down", "shut", "shut"].map(|text| said.is_news(text)), [true, false, true, false]);
        tokio::time::advance(Said::EVERY).await;
        assert_eq!(["shut", "shut"].map(|text| said.is_news(text)), [true, false]);
    }
}
