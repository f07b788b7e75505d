//! What a start and an end in order do to the whole outbox (§4.7, §4.11).

use crate::db::{Error, Tx};
use claudemesh_fsm::id::Millis;

/// Stands in place of a boot's id after an end in order: everything committed is synced, so no
/// power cut that follows can take anything away.
const ENDED_IN_ORDER: &str = "ended in order";

/// What a start found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Rows that were inflight.
    pub inflight: usize,
    /// Whether the host lost power, or may have, so that every waiting row is doubted.
    pub is_doubted: bool,
}

/// Every inflight row becomes pending, due at `next_attempt_at`; every other waiting row is due no
/// later than that.
pub(super) fn begin(
    tx: &Tx<'_>,
    next_attempt_at: Millis,
    boot_id: Option<&str>,
) -> Result<Recovered, Error> {
    let is_doubted = note_boot(tx, boot_id)?;
    let sql = "UPDATE outbox SET status = 'pending', next_attempt_at = ?, \
               may_have_been_sent = 1 WHERE status = 'inflight'";
    let inflight = tx.execute(sql, &[next_attempt_at.0.into()])?;
    let sql = "UPDATE outbox SET next_attempt_at = ?1 \
               WHERE status = 'pending' AND next_attempt_at > ?1";
    tx.execute(sql, &[next_attempt_at.0.into()])?;
    Ok(Recovered { inflight, is_doubted })
}

/// Remembers this boot. Unless the last life ended in order or within this boot, commits of it may
/// be gone: then every row there is is marked as doubted, by its place and not one by one.
fn note_boot(tx: &Tx<'_>, boot_id: Option<&str>) -> Result<bool, Error> {
    let stored = tx.query_row("SELECT boot_id FROM host", &[], |row| row.text_or_null(0))?;
    let stored = stored.ok_or_else(|| Error::corrupt("the outbox knows no host"))?;
    let is_whole = match stored.as_deref() {
        Some(ENDED_IN_ORDER) => true,
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
pub(super) fn end(tx: &Tx<'_>) -> Result<(), Error> {
    tx.execute("UPDATE host SET boot_id = ?", &[ENDED_IN_ORDER.into()]).map(drop)
}
