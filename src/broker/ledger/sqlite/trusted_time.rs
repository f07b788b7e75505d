//! The time that expiry goes by: the clock's, as far as it can be trusted.
//!
//! What expires goes for good, and a wall clock may be a year wrong for a moment. So the ledger
//! keeps a time of its own, which moves only as far as was seen to pass: between two looks at the
//! clock at most [`STEP_MS_MAX`] counts. Where it fell behind, because a machine was off, it catches
//! up at twice the speed. It never goes back, and a clock that is behind it is gone by instead, so
//! that one that is far behind for a moment costs nothing. Things may live longer than told; never
//! more than a day shorter.

use claudemesh_base::db::{Error, Tx};
use claudemesh_fsm::id::Millis;

/// The most that counts between two looks at the clock, in milliseconds.
const STEP_MS_MAX: i64 = 12 * 60 * 60 * 1000;

/// Looks at the clock, which says `now`, and yields the time to go by.
pub(super) fn trusted(tx: &Tx<'_>, now: Millis) -> Result<Millis, Error> {
    let sql = "SELECT at, clock_at FROM trusted_time";
    let last = tx.query_row(sql, &[], |row| Ok((row.int(0)?, row.int(1)?)))?;
    let at = match last {
        Some((at, clock_at)) => {
            let passed = now.0.saturating_sub(clock_at).clamp(0, STEP_MS_MAX);
            at.max(now.0.min(at.saturating_add(2 * passed)))
        }
        // A clock that is behind at the first look would be caught up with for as long as it was.
        None => now.0.max(newest_message(tx)?),
    };
    let sql = "INSERT INTO trusted_time (only_row, at, clock_at) VALUES (1, ?1, ?2) \
               ON CONFLICT (only_row) DO UPDATE SET at = ?1, clock_at = ?2";
    tx.execute(sql, &[at.into(), now.0.into()])?;
    Ok(Millis(at.min(now.0)))
}

fn newest_message(tx: &Tx<'_>) -> Result<i64, Error> {
    let sql = "SELECT coalesce(max(created_at), 0) FROM message";
    Ok(tx.query_row(sql, &[], |row| row.int(0))?.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::SqliteLedger;
    use super::*;

    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    const TODAY: i64 = 20_000 * DAY_MS;

    fn look(ledger: &SqliteLedger, now: i64) -> i64 {
        let at = ledger.synced(move |tx| trusted(tx, Millis(now)));
        smol::block_on(at).expect("commits").0
    }

    #[test]
    fn a_clock_that_is_behind_for_a_moment_costs_no_expiry() {
        let dir = tempfile::tempdir().expect("a directory");
        let ledger = SqliteLedger::open(dir.path()).expect("opens");
        assert_eq!(look(&ledger, TODAY), TODAY);
        assert_eq!(look(&ledger, 0), 0, "nothing is older than a clock of 1970 says");
        let tomorrow = TODAY + DAY_MS;
        assert_eq!(look(&ledger, tomorrow), tomorrow);
    }

    #[test]
    fn a_clock_that_is_ahead_for_a_moment_ages_nothing_by_more_than_a_day() {
        let dir = tempfile::tempdir().expect("a directory");
        let ledger = SqliteLedger::open(dir.path()).expect("opens");
        look(&ledger, TODAY);
        assert_eq!(look(&ledger, TODAY + 365 * DAY_MS), TODAY + DAY_MS);
        assert_eq!(look(&ledger, TODAY), TODAY);
    }
}
