//! The time that expiry goes by: the clock's, as far as it can be trusted.
//!
//! What expires goes for good, and a wall clock may be a year wrong for a moment. So the ledger
//! keeps a time of its own. It is never ahead of the clock, and moves only as far as was seen to
//! pass: between two looks at the clock at most [`STEP_MS_MAX`] counts. Where it fell behind, after
//! a clock was set or a machine was off, it catches up at twice the speed. Things may live longer
//! than told; never more than a day shorter.

use crate::db::{Error, Tx};
use claudemesh_fsm::id::Millis;

/// The most that counts between two looks at the clock, in milliseconds.
const STEP_MS_MAX: i64 = 12 * 60 * 60 * 1000;

/// Looks at the clock, which says `now`, and yields the time to go by.
pub(super) fn trusted(tx: &Tx<'_>, now: Millis) -> Result<Millis, Error> {
    let sql = "SELECT at, clock_at FROM trusted_time";
    let last = tx.query_row(sql, &[], |row| Ok((row.int(0)?, row.int(1)?)))?;
    let at = last.map_or(now.0, |(at, clock_at)| {
        let passed = now.0.saturating_sub(clock_at).clamp(0, STEP_MS_MAX);
        now.0.min(at.saturating_add(2 * passed))
    });
    let sql = "INSERT INTO trusted_time (only_row, at, clock_at) VALUES (1, ?1, ?2) \
               ON CONFLICT (only_row) DO UPDATE SET at = ?1, clock_at = ?2";
    tx.execute(sql, &[at.into(), now.0.into()])?;
    Ok(Millis(at))
}
