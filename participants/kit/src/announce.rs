//! Late verdicts: what is told to attempts that nobody has in hand any more, until the broker has it.
//!
//! Not for answers to deliveries in hand: those come again until they are acknowledged. Must hold: an announcement is
//! committed with its verdict and forgotten only when its message is confirmed; until then its row is leased to a live
//! run or due for the sweep.

use db::Db;
use saga_defs::Reply;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::Error;
use crate::handler::Replies;
use crate::leases::Lessee;
use crate::rows;

/// Announcements of one row that this run has handed over.
#[derive(Debug, Default)]
pub(crate) struct Announced(Vec<(Uuid, oneshot::Receiver<()>)>);

impl Announced {
    /// Hands announcements over.
    pub(crate) async fn send(&mut self, replies: &Replies, announcing: Vec<Reply>) {
        for reply in announcing {
            let command_id = reply.command_id;
            self.0.push((command_id, replies.announce(reply).await));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits until it is known of each whether it is safe; the command ids of those that are.
    pub(crate) async fn safe(self) -> Vec<Uuid> {
        let mut safe = Vec::new();
        for (command_id, told) in self.0 {
            if told.await.is_ok() {
                safe.push(command_id);
            }
        }
        safe
    }
}

/// Forgets the announcements of `key` that are `safe`. What is left becomes due at once.
pub(crate) async fn told(db: &Db, lessee: Lessee, key: Uuid, safe: Vec<Uuid>) -> Result<(), Error> {
    let now = db.now();
    db.transaction(move |tx| {
        let safe = safe.clone();
        Box::pin(async move {
            let Some(mut row) = rows::lock(tx, [key]).await?.pop() else { return Ok(()) };
            let mut left = row.announcing()?;
            left.retain(|reply| !safe.contains(&reply.command_id));
            row.announce(&left)?;
            // The lease of an open call is not about announcements.
            if row.open() == Some(false) {
                if left.is_empty() {
                    row.rest();
                } else if row.owner == Some(lessee.owner) {
                    row.due(now);
                }
            }
            rows::save(tx, &[row]).await
        })
    })
    .await?;
    Ok(())
}
