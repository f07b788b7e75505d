//! What a start and an end in order do to the whole outbox (§4.7, §4.11).

use super::depth::{self, Depth};
use super::{Outbox, moves};
use claudemesh_base::db::{Durability, Error, Tx};
use claudemesh_fsm::id::Millis;
use std::collections::BTreeMap;

/// Stands in place of a boot's id after an end in order: everything committed is synced, so no
/// power cut that follows can take anything away.
const CLEAN_SHUTDOWN: &str = "ended in order";

/// What a start found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Rows that were inflight.
    pub inflight: usize,
    /// Whether the host lost power, or may have, so that every waiting row is doubted.
    pub are_possibly_sent: bool,
}

/// A row that was inflight: its mesh, and its weight in bytes.
type RecoveredRow = (String, u64);

impl Outbox {
    /// Every inflight row becomes pending, due at `next_attempt_at`: at start nobody is sending
    /// (§4.11).
    ///
    /// `boot_id` names this boot of the host. Unless the last life ended in it, or in order, the
    /// host may have lost power and the outbox commits that were not synced: then every row that
    /// waits may have been sent (§4.7). Synced, so that no claim of this life is on disk before it.
    pub async fn recover(
        &self,
        next_attempt_at: Millis,
        boot_id: Option<String>,
    ) -> Result<Recovered, Error> {
        let job = move |tx: &Tx<'_>| begin(tx, next_attempt_at, boot_id.as_deref());
        let (returned, are_possibly_sent) =
            self.db.write(Durability::Synced, job, |_: &Result<_, Error>| ()).await?;
        for (mesh, bytes) in &returned {
            self.depths.returned(mesh, *bytes);
        }
        Ok(Recovered { inflight: returned.len(), are_possibly_sent })
    }

    /// Finishes what was queued, notes that this life ended in order, and closes the file. Only once
    /// nobody accepts or claims rows any more, and only after [`recover`](Self::recover): it would
    /// take away the doubt that the last life left. Blocks.
    pub fn close(&self) {
        let ended = async {
            // What was queued before is counted once this is answered.
            self.db.write(Durability::Relaxed, |_| Ok(()), |_: &Result<(), Error>| ()).await?;
            let depths = self.depths();
            let job = move |tx: &Tx<'_>| end(tx, &depths);
            self.db.write(Durability::Synced, job, |_: &Result<(), Error>| ()).await
        };
        if let Err(error) = smol::block_on(ended) {
            tracing::warn!(%error, "the next start cannot know that this end was in order");
        }
        self.db.close();
    }
}

/// How many rows each mesh has in each state: as the last life noted it, if it ended in order, and
/// counted otherwise.
pub(super) fn depths(tx: &Tx<'_>) -> Result<BTreeMap<String, Depth>, Error> {
    if last_boot_id(tx)?.as_deref() == Some(CLEAN_SHUTDOWN) {
        depth::read(tx)
    } else {
        depth::count(tx)
    }
}

fn begin(
    tx: &Tx<'_>,
    next_attempt_at: Millis,
    boot_id: Option<&str>,
) -> Result<(Vec<RecoveredRow>, bool), Error> {
    let are_possibly_sent = note_boot(tx, boot_id)?;
    // The rows themselves must say so too: an index that is wrong would wake what is done.
    let sql = concat!(
        "UPDATE outbox SET status = 'pending', next_attempt_at = ?, may_have_been_sent = 1 \
         WHERE seq IN (SELECT seq FROM outbox WHERE status = 'inflight') \
         AND status = 'inflight' RETURNING mesh, ",
        row_bytes_sql!()
    );
    let returned = tx.query(sql, &[next_attempt_at.0.into()], |row| {
        Ok((row.text(0)?, moves::row_bytes(row.int(1)?)))
    })?;
    Ok((returned, are_possibly_sent))
}

/// `None` where nobody knows which boot it was.
fn last_boot_id(tx: &Tx<'_>) -> Result<Option<String>, Error> {
    let stored = tx.query_row("SELECT boot_id FROM host", &[], |row| row.text_or_null(0))?;
    stored.ok_or_else(|| Error::corrupt("the outbox knows no host"))
}

/// Remembers this boot. Unless the last life ended in order or within this boot, commits of it may
/// be gone: then every row there is is marked as doubted, by its place and not one by one.
fn note_boot(tx: &Tx<'_>, boot_id: Option<&str>) -> Result<bool, Error> {
    let stored = last_boot_id(tx)?;
    let is_whole = match stored.as_deref() {
        Some(CLEAN_SHUTDOWN) => true,
        // A host that does not say which boot this is may have lost power.
        stored => stored.is_some() && stored == boot_id,
    };
    tx.execute("UPDATE host SET boot_id = ?", &[boot_id.into()])?;
    if !is_whole {
        let sql = "UPDATE host SET doubted_to = (SELECT coalesce(max(seq), 0) FROM outbox)";
        tx.execute(sql, &[])?;
    }
    let waiting = "SELECT 1 FROM outbox WHERE status = 'pending' LIMIT 1";
    Ok(!is_whole && tx.query_row(waiting, &[], |row| row.int(0))?.is_some())
}

/// The last change of a life: this commit is synced, and with it all before it.
fn end(tx: &Tx<'_>, depths: &BTreeMap<String, Depth>) -> Result<(), Error> {
    depth::write(tx, depths)?;
    tx.execute("UPDATE host SET boot_id = ?", &[CLEAN_SHUTDOWN.into()]).map(drop)
}
