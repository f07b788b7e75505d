//! How long ago a row was stored, by time that was witnessed and not by what the clock says (§1.2).
//!
//! What goes by age goes for good, and a wall clock may be a year wrong for a moment. So no time
//! that stands in a row is asked. The retention flow looks at the clock each time it runs: between
//! two looks at most [`STEP_MS_MAX`] counts, however far the clock moved, and nothing if it went
//! back. Now and then a mark notes which row was the newest; the rows up to an old mark are at
//! least that old. A row may live longer than it is told to, on a machine that is mostly off;
//! never shorter.

use claudemesh_base::db::{Error, Tx};
use claudemesh_fsm::id::Millis;

/// A day, in milliseconds.
pub(super) const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// The most that counts between two looks at the clock: whoever sets it a year ahead by mistake
/// makes everything one day older.
pub(super) const STEP_MS_MAX: i64 = DAY_MS;
/// The least between two marks: how much longer than told a row may live.
const WATERMARK_EVERY_MS: i64 = DAY_MS / 4;

/// Looks at the clock: it is `now`, and the newest row is at `newest_seq`. Ages of more than
/// `remembered_ms` will not be asked for.
pub(super) fn observe_clock(
    tx: &Tx<'_>,
    now: Millis,
    newest_seq: i64,
    remembered_ms: i64,
) -> Result<(), Error> {
    let sql = "SELECT ms, at FROM witnessed";
    let last = tx.query_row(sql, &[], |row| Ok((row.int(0)?, row.int(1)?)))?;
    let ms = last.map_or(0, |(ms, at)| ms + now.0.saturating_sub(at).clamp(0, STEP_MS_MAX));
    let sql = "INSERT INTO witnessed (only_row, ms, at) VALUES (1, ?1, ?2) \
               ON CONFLICT (only_row) DO UPDATE SET ms = ?1, at = ?2";
    tx.execute(sql, &[ms.into(), now.0.into()])?;
    let sql = "SELECT max(witnessed_ms) FROM mark";
    let newest_watermark = tx.query_row(sql, &[], |row| row.int_or_null(0))?.flatten();
    if newest_watermark.is_none_or(|watermark| ms - watermark >= WATERMARK_EVERY_MS) {
        let sql = "INSERT INTO mark (witnessed_ms, seq) VALUES (?, ?)";
        tx.execute(sql, &[ms.into(), newest_seq.into()])?;
    }
    // Of the marks that are old enough for every question, the newest answers it.
    let sql = "DELETE FROM mark WHERE witnessed_ms < \
               (SELECT max(witnessed_ms) FROM mark WHERE witnessed_ms <= ?)";
    tx.execute(sql, &[(ms - remembered_ms).into()])?;
    Ok(())
}

/// The place up to which every row is at least `age_ms` old; 0 if none is known to be.
pub(super) fn older_than(tx: &Tx<'_>, age_ms: i64) -> Result<i64, Error> {
    let sql = "SELECT max(seq) FROM mark WHERE witnessed_ms <= (SELECT ms FROM witnessed) - ?";
    Ok(tx.query_row(sql, &[age_ms.into()], |row| row.int(0))?.unwrap_or(0))
}
