//! Where ended sagas go before they are deleted: a port, and files of JSON lines.
//!
//! Not for inputs: those may hold personal data and are not kept. Must hold: what was synced is on disk; a saga is one
//! line; a file is written by one process and never opened again by another, so that a line that was torn by a crash is
//! the last of its file.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use saga_core::Saga;
use saga_store::{Header, HistoryRow, LateReply};
use serde_json::{Value, json};

/// A file that has grown to this is not written to any more.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Takes sagas before they are deleted. The same saga may be given again, by this process or by another.
#[async_trait]
pub trait Archive: Send + Sync + fmt::Debug {
    /// Takes one saga, as one line of JSON without its end.
    ///
    /// # Errors
    /// When it can't be written; then nothing is deleted.
    async fn append(&self, line: String) -> io::Result<()>;

    /// Afterwards everything that was appended is on disk.
    ///
    /// # Errors
    /// When that is not so.
    async fn sync(&self) -> io::Result<()>;
}

/// An ended saga as a line of the archive. `events` are the exact bytes of its history.
pub(crate) fn line(header: &Header, saga: &Saga, history: &[HistoryRow], late: &[LateReply]) -> String {
    let past = |row: &HistoryRow| {
        json!({
            "seq": row.seq, "at": row.at, "actor": row.actor, "reason": row.reason,
            "operation_id": row.operation_id, "format": row.format, "events": row.events
        })
    };
    let reply = |late: &LateReply| {
        json!({
            "command_id": late.command_id, "reason": late.reason, "received_at": late.received_at, "reply": late.reply
        })
    };
    json!({
        "v": 1,
        "saga": {
            "id": header.id, "tenant": header.tenant, "principal": header.principal, "key": header.key,
            "definition": header.definition, "definition_version": header.definition_version,
            "digest": header.digest, "created_at": header.created_at, "status": saga.status(),
        },
        "state": saga,
        "history": history.iter().map(past).collect::<Vec<Value>>(),
        "late": late.iter().map(reply).collect::<Vec<Value>>(),
    })
    .to_string()
}

/// A folder with files of JSON lines, to which any number of processes may write, each to files of its own.
#[derive(Clone, Debug)]
pub struct Folder {
    open: Arc<Mutex<Files>>,
}

#[derive(Debug)]
struct Files {
    folder: PathBuf,
    /// Names this process among all that write here.
    name: String,
    begun: u32,
    current: Option<(File, u64)>,
}

impl Folder {
    /// The archive in `folder`, which is created where it is missing. `name` is this run's alone.
    ///
    /// # Errors
    /// When the folder can't be created.
    pub fn new(folder: &Path, name: &str) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let files = Files { folder: folder.to_owned(), name: name.to_owned(), begun: 0, current: None };
        Ok(Self { open: Arc::new(Mutex::new(files)) })
    }

    /// Files are written where nobody else waits for the thread.
    async fn on_files(&self, work: impl FnOnce(&mut Files) -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let open = Arc::clone(&self.open);
        let work = move || {
            let mut files = open.lock().unwrap_or_else(PoisonError::into_inner);
            let done = work(&mut files);
            if done.is_err() {
                // The last line may be torn: nothing may follow it.
                files.current = None;
            }
            done
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

impl Files {
    fn file(&mut self) -> io::Result<&mut (File, u64)> {
        if self.current.as_ref().is_some_and(|(_, bytes)| *bytes >= FILE_BYTES_MAX) {
            self.sync()?;
            self.current = None;
        }
        if self.current.is_none() {
            self.begun += 1;
            let path = self.folder.join(format!("sagas-{}-{:04}.jsonl", self.name, self.begun));
            let file = OpenOptions::new().append(true).create_new(true).open(path)?;
            // The file's name must be on disk as well.
            File::open(&self.folder)?.sync_all()?;
            self.current = Some((file, 0));
        }
        self.current.as_mut().ok_or_else(|| io::Error::other("no file is open"))
    }

    fn append(&mut self, mut line: String) -> io::Result<()> {
        line.push('\n');
        let (file, bytes) = self.file()?;
        file.write_all(line.as_bytes())?;
        *bytes += line.len() as u64;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.current.as_ref().map_or(Ok(()), |(file, _)| file.sync_all())
    }
}

#[async_trait]
impl Archive for Folder {
    async fn append(&self, line: String) -> io::Result<()> {
        self.on_files(move |files| files.append(line)).await
    }

    async fn sync(&self) -> io::Result<()> {
        self.on_files(|files| files.sync()).await
    }
}
