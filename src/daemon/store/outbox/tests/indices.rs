//! An index that says of a row what the row does not say. A torn write can do this, and `quick_check`
//! does not see it.

use super::*;
use crate::repair::{Store, check};
use claudemesh_base::db::Check;

/// Changes the rows of a closed outbox so that the partial index of `status` does not learn of it.
fn unindexed(path: &Path, status: &str, change: &str) {
    let run = |sql: &str| sqlite::open(path).expect("opens").execute(sql).expect("runs");
    let condition = |from: &str, to: &str| {
        run(&format!(
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema \
             SET sql = replace(sql, 'status = ''{from}''', 'status = ''{to}''') \
             WHERE type = 'index'"
        ));
    };
    condition(status, "nothing");
    run(change);
    condition("nothing", status);
}

/// Passed over, such a row would be due again at once, for ever.
#[test]
fn a_row_that_does_not_wait_and_is_listed_as_due_is_damage() {
    let never = Millis(i64::MIN);
    // Among others, in a claim that it fills, and as one too old to be sent.
    for (limit, expired_before) in [(100, never), (1, never), (100, FOREVER)] {
        let mut bench = Bench::new();
        bench.accept("m");
        let path = bench.dir.path().join("outbox.db");
        bench.outbox.close();
        unindexed(&path, "pending", "UPDATE outbox SET status = 'inflight', attempts = 1");
        assert_eq!(check(&path).map(|found| found == Check::Whole), Ok(false));
        bench.outbox = super::open(&bench.dir);
        assert_eq!(bench.outbox.integrity(), Integrity::Whole, "as far as `quick_check` sees");
        let claimed = block_on(bench.outbox.claim_due(MESH, FOREVER, expired_before, limit));
        let error = claimed.expect_err("no claim");
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(error.to_string().contains("outbox_due"), "{error}");
        assert!(matches!(bench.outbox.integrity(), Integrity::Damaged(_)));
        bench.outbox.close();
        let saved = bench.dir.path().join("saved.db");
        Store::Outbox.salvage(&path, &saved).expect("salvages");
        assert_eq!(check(&saved), Ok(Check::Whole));
    }
}

#[test]
fn a_row_that_is_done_and_listed_as_inflight_stays_done() {
    let mut bench = Bench::new();
    bench.accept("m");
    bench.claim();
    let path = bench.dir.path().join("outbox.db");
    bench.outbox.close();
    let done = "UPDATE outbox SET status = 'done', broker_message_id = 'b', delivered_at = 1";
    unindexed(&path, "inflight", done);
    bench.outbox = super::open(&bench.dir);
    let recovered = block_on(bench.outbox.recover(Millis(START_MS), None)).expect("recovers");
    assert_eq!(recovered.inflight, 0);
    assert_eq!(bench.view("m").status, Status::Done);
}

#[test]
fn a_row_that_is_done_and_listed_as_waiting_is_not_made_due() {
    let mut bench = Bench::new();
    bench.unanswered("m");
    let path = bench.dir.path().join("outbox.db");
    bench.outbox.close();
    let done = "UPDATE outbox SET status = 'done', broker_message_id = 'b', delivered_at = 1";
    unindexed(&path, "pending", done);
    bench.outbox = super::open(&bench.dir);
    let before = bench.integer("SELECT next_attempt_at FROM outbox");
    let expedited = block_on(bench.outbox.expedite(MESH, Millis(START_MS)));
    assert_eq!(expedited.expect_err("is damage").kind(), Kind::Corrupt);
    bench.outbox.close();
    bench.outbox = super::open(&bench.dir);
    assert_eq!(bench.integer("SELECT next_attempt_at FROM outbox"), before);
}
