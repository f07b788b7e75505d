//! Finished rows grow small and say the same (§4.5.1, §4.5.2).

use super::*;

impl Bench {
    /// A whole pass at `now`; how many rows are smaller.
    fn pass(&self, now: Millis) -> usize {
        block_on(self.outbox.observe_clock(now)).expect("commits");
        let (mut walk, mut rows) = (Some(ShrinkPhase::default()), 0);
        while let Some(here) = walk {
            let step = block_on(self.outbox.shrink(here, now)).expect("commits");
            rows += step.rows;
            walk = step.next;
        }
        rows
    }

    /// Passes a day apart, the first one `from` days after the start; how many rows are smaller.
    fn days(&self, from: i64, to: i64) -> usize {
        (from..=to).map(|day| self.pass(Millis(START_MS + day * DAY_MS))).sum()
    }

    fn prune(&self, before: Millis, confirm: bool) -> usize {
        let pruned = self.outbox.prune(PruneQuery { before, after_seq: 0, confirm });
        let pruned = block_on(pruned).expect("commits");
        assert_eq!(pruned.next_after_seq, None);
        pruned.rows
    }

    fn is_shrunk(&self, id: &str) -> bool {
        let row = self.view(id);
        row.payload_bytes == 0 && row.next_attempt_at == Millis(0)
    }
}

/// One row in every state; those that are finished come first.
fn in_every_state() -> (Bench, [&'static str; 3], [&'static str; 3]) {
    let bench = Bench::new();
    bench.done("done");
    bench.dead("requeued");
    bench.requeue("requeued", "successor");
    bench.abort("successor");
    bench.dead("dead");
    bench.accept("inflight");
    std::mem::forget(bench.claim());
    bench.accept("pending");
    (bench, ["done", "requeued", "successor"], ["dead", "inflight", "pending"])
}

#[test]
fn a_retry_is_told_the_same_before_and_after_its_row_shrank() {
    let (mut bench, finished, others) = in_every_state();
    let all = || finished.into_iter().chain(others);
    let before: Vec<_> = all().map(|id| bench.answers(id)).collect();
    let told = |bench: &Bench| all().map(|id| bench.answers(id)).collect::<Vec<_>>();
    assert_eq!(bench.days(0, 10), 3, "bodies");
    assert_eq!(told(&bench), before);
    assert_eq!(bench.days(11, 40), 3, "rows");
    assert_eq!(told(&bench), before);
    for id in finished {
        assert!(bench.is_shrunk(id), "{id}");
    }
    // Every way of reading a row still reads it.
    bench.reopen();
    assert_eq!(told(&bench), before);
    for id in finished {
        let cmid = ClientMessageId::trusted(id.into());
        let late = block_on(bench.outbox.late_ack(MESH, &cmid, ack(id)));
        assert!(!late.expect("reads"), "{id}");
        let refused = bench.requeue(id, "never");
        assert!(matches!(refused, RequeueOutcome::WrongState { .. }), "{id}: {refused:?}");
        assert_eq!(bench.view(id).to, "bob");
    }
    let bytes = bench.integer(
        "SELECT max(length(id) + length(client_message_id) + length(request_fingerprint) \
         + length(payload) + length(mesh) + length(destination_ref) \
         + coalesce(length(recipient), 0) + coalesce(length(recipient_member), 0) \
         + coalesce(length(meta), 0) + coalesce(length(broker_message_id), 0) \
         + coalesce(length(history_id), 0) + coalesce(length(superseded_by), 0) \
         + coalesce(length(last_error), 0)) FROM outbox WHERE status IN ('done', 'aborted')",
    );
    assert!(bytes < 200, "{bytes}");
}

#[test]
fn what_may_still_move_is_never_touched() {
    let (bench, _, others) = in_every_state();
    let before: Vec<_> = others.iter().map(|id| bench.view(id)).collect();
    bench.days(0, 100);
    assert_eq!(bench.prune(Millis(START_MS + 100 * DAY_MS), true), 0, "the others are small");
    let after: Vec<_> = others.iter().map(|id| bench.view(id)).collect();
    assert_eq!(after, before);
    assert!(before.iter().all(|row| row.payload_bytes > 0));
}

#[test]
fn a_row_that_waited_when_the_walk_passed_is_found_when_it_is_done() {
    let bench = Bench::new();
    bench.dead("failed");
    bench.accept("slow");
    for n in 0..200 {
        bench.accept(&format!("more-{n}"));
    }
    let all_pending = bench.days(0, 60);
    assert_eq!(all_pending, 0);
    let rows = bench.claim();
    let slow = rows.into_iter().find(|row| row.identity().client_message_id.as_str() == "slow");
    let slow = slow.expect("is due");
    assert!(block_on(bench.outbox.store(slow.acked(ack("slow")))).expect("stores").is_some());
    let aborted_at = Millis(START_MS + 61 * DAY_MS);
    bench.abort_at("failed", aborted_at);
    bench.pass(Millis(START_MS + 62 * DAY_MS));
    assert!(bench.is_shrunk("slow"), "it is old enough");
    assert!(bench.view("failed").payload_bytes > 0, "it was aborted yesterday");
    bench.days(63, 70);
    assert_eq!(bench.view("failed").payload_bytes, 0, "a week later the body is gone");
    assert!(!bench.is_shrunk("failed"));
    bench.days(71, 95);
    assert!(bench.is_shrunk("failed"));
    assert_eq!(bench.integer("SELECT count(*) FROM left_behind WHERE seq <= 2"), 0);
}

#[test]
fn a_clock_that_is_a_year_ahead_for_a_moment_shrinks_nothing() {
    let bench = Bench::new();
    bench.done("m");
    bench.pass(Millis(START_MS));
    assert_eq!(bench.pass(Millis(START_MS + 365 * DAY_MS)), 0);
    assert_eq!(bench.pass(Millis(START_MS + 1)), 0);
    assert!(bench.view("m").payload_bytes > 0);
}

#[test]
fn a_walk_goes_on_where_it_was_after_a_restart() {
    let mut bench = Bench::new();
    for n in 0..150 {
        bench.done(&format!("m{n}"));
    }
    let now = Millis(START_MS + 8 * DAY_MS);
    bench.days(0, 7);
    block_on(bench.outbox.observe_clock(now)).expect("commits");
    let left = bench.integer("SELECT count(*) FROM outbox WHERE length(payload) > 0");
    bench.reopen();
    assert_eq!(bench.pass(now) as i64, left);
    assert_eq!(bench.pass(now), 0, "and has nothing left to do");
}

#[test]
fn prune_counts_before_it_is_confirmed_and_takes_only_what_is_old_enough() {
    let (bench, finished, _) = in_every_state();
    let answers = finished.map(|id| bench.answers(id));
    let later = Millis(START_MS + DAY_MS);
    assert_eq!(bench.prune(Millis(START_MS), false), 0, "nothing was finished before the start");
    assert_eq!(bench.prune(later, false), 3);
    assert!(!bench.is_shrunk("done"), "counting changes nothing");
    assert_eq!(bench.prune(later, true), 3);
    assert_eq!(bench.prune(later, true), 0);
    assert!(finished.iter().all(|id| bench.is_shrunk(id)));
    assert_eq!(finished.map(|id| bench.answers(id)), answers);
}

#[test]
fn heavy_bodies_go_a_few_at_a_time_and_all_of_them_go() {
    let bench = Bench::new();
    for n in 0..10 {
        let id = format!("m{n}");
        bench.accept_body(&id, &vec![b'x'; 300_000]);
        let row = bench.claim().pop().expect("a row");
        block_on(bench.outbox.store(row.acked(ack(&id)))).expect("stores");
    }
    bench.days(0, 6);
    let now = Millis(START_MS + 7 * DAY_MS);
    block_on(bench.outbox.observe_clock(now)).expect("commits");
    let step = block_on(bench.outbox.shrink(ShrinkPhase::Bodies, now)).expect("commits");
    assert_eq!((step.rows, step.next), (3, Some(ShrinkPhase::Bodies)), "a megabyte at a time");
    assert_eq!(bench.pass(now), 7);
    assert_eq!(bench.integer("SELECT sum(length(payload)) FROM outbox"), 0);
}

#[test]
fn an_outbox_of_the_older_schema_keeps_its_rows_and_they_shrink_too() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let path = dir.path().join("outbox.db");
    let older = Db::open(&path, &schema::older::OUTBOX, Driver::Threaded).expect("opens");
    let insert = "INSERT INTO outbox (id, client_message_id, request_fingerprint, payload, mesh, \
                  destination_kind, destination_ref, priority, enqueued_at, next_attempt_at, \
                  status, delivered_at, broker_message_id, aborted_at, aborted_by) VALUES \
                  ('row-d', 'd', zeroblob(32), 'x', 'demo', 'dm', 'bob', 'next', 1, 1, 'done', 2, \
                  'b', NULL, NULL), ('row-a', 'a', zeroblob(32), 'x', 'demo', 'topic', '#t', \
                  'low', 1, 1, 'aborted', NULL, NULL, 2, 'operator'), ('row-p', 'p', \
                  zeroblob(32), 'x', 'demo', 'topic', 'g', 'now', 1, 1, 'pending', NULL, NULL, \
                  NULL, NULL)";
    let job = move |tx: &Tx<'_>| tx.execute(insert, &[]);
    let inserted = older.write(Durability::Synced, job, |_: &Result<usize, Error>| ());
    assert_eq!(block_on(inserted).expect("inserts"), 3);
    older.close();
    let bench = Bench { outbox: open(&dir), dir };
    assert_eq!(bench.outbox.depths()[MESH].of(Status::Pending), 1);
    bench.days(0, 40);
    assert!(bench.is_shrunk("d") && bench.is_shrunk("a"));
    assert_eq!(bench.view("p").payload_bytes, 1);
    assert_eq!(bench.view("a").to, "#t");
}

#[test]
fn prune_of_many_rows_answers_in_parts_and_misses_none() {
    let bench = Bench::new();
    bench.tamper(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) \
         INSERT INTO outbox (id, client_message_id, request_fingerprint, payload, mesh, \
         destination_kind, destination_ref, priority, enqueued_at, next_attempt_at, status, \
         delivered_at, broker_message_id) SELECT 'row-' || i, i, zeroblob(32), 'x', 'demo', 'dm', \
         'bob', 'next', 1, 1, 'done', 2, 'b' FROM n",
    );
    let (mut after_seq, mut rows, mut parts) = (Some(0), 0, 0);
    while let Some(from) = after_seq {
        let query = PruneQuery { before: Millis(START_MS), after_seq: from, confirm: true };
        let pruned = block_on(bench.outbox.prune(query)).expect("commits");
        (after_seq, rows, parts) = (pruned.next_after_seq, rows + pruned.rows, parts + 1);
    }
    assert_eq!((rows, parts), (10_000, 2));
    assert_eq!(bench.integer("SELECT sum(length(payload)) FROM outbox"), 0);
}

#[test]
fn an_accept_waits_for_one_step_of_a_pass_and_not_for_the_pass() {
    let bench = Bench::new();
    bench.tamper(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
         INSERT INTO outbox (id, client_message_id, request_fingerprint, payload, mesh, \
         destination_kind, destination_ref, priority, enqueued_at, next_attempt_at, status, \
         delivered_at, broker_message_id) SELECT 'row-' || i, i, zeroblob(32), zeroblob(5000), \
         'demo', 'dm', 'bob', 'next', 1, 1, 'done', 2, 'b' FROM n",
    );
    bench.days(0, 6);
    let now = Millis(START_MS + 7 * DAY_MS);
    block_on(bench.outbox.observe_clock(now)).expect("commits");
    let pass_is_over = std::cell::Cell::new(false);
    let pass = async {
        let mut walk = Some(ShrinkPhase::default());
        while let Some(here) = walk {
            walk = bench.outbox.shrink(here, now).await.expect("commits").next;
        }
        pass_is_over.set(true);
    };
    let accepts = async {
        for n in 0..5 {
            let accepted = bench.outbox.accept(new_row(&format!("new-{n}"), b"hola"));
            assert_eq!(accepted.await.expect("accepts").decision, AcceptDecision::Insert);
        }
        assert!(!pass_is_over.get(), "accepted in the middle of a pass");
    };
    block_on(futures_lite::future::zip(pass, accepts));
    assert_eq!(bench.integer("SELECT count(*) FROM outbox WHERE length(payload) > 4"), 0);
}
