//! Abort, requeue and the chain of successors (§4.5.3).

use super::*;

#[test]
fn abort_retires_what_waits_or_failed_and_says_who_and_when() {
    let bench = Bench::new();
    bench.accept("pending");
    assert_eq!(bench.abort("pending"), AbortOutcome::Aborted { may_have_been_sent: false });
    bench.dead("dead");
    assert_eq!(bench.abort("dead"), AbortOutcome::Aborted { may_have_been_sent: false });
    for id in ["pending", "dead"] {
        let row = bench.view(id);
        assert_eq!(row.status, Status::Aborted);
        assert_eq!(row.aborted_by.as_deref(), Some("alice"));
        assert_eq!((row.aborted_at, row.superseded_by), (Some(Millis(START_MS)), None));
    }
    assert!(bench.claim().is_empty(), "nothing is sent any more");
    assert_eq!(bench.outbox.depths()[MESH].of(Status::Aborted), 2);
    assert_eq!(bench.outbox.depths()[MESH].of(Status::Pending), 0);
}

#[test]
fn abort_of_an_unanswered_row_is_done_and_told_truthfully_for_ever() {
    let bench = Bench::new();
    bench.unanswered("m");
    assert_eq!(bench.abort("m"), AbortOutcome::Aborted { may_have_been_sent: true });
    assert!(bench.view("m").may_have_been_sent);
}

#[test]
fn abort_says_which_state_forbids_it_and_changes_nothing() {
    let bench = Bench::new();
    let refused = |status, superseded_by: Option<&str>| AbortOutcome::WrongState {
        status,
        superseded_by: superseded_by.map(|id| RowId::trusted(id.to_owned())),
    };
    assert_eq!(bench.abort("nobody"), AbortOutcome::NotFound);
    bench.done("done");
    assert_eq!(bench.abort("done"), refused(Status::Done, None));
    bench.dead("requeued");
    bench.requeue("requeued", "next");
    assert_eq!(bench.abort("requeued"), refused(Status::Aborted, Some("row-next")));
    bench.abort("next");
    assert_eq!(bench.abort("next"), refused(Status::Aborted, None));
    assert_eq!(bench.view("next").aborted_at, Some(Millis(START_MS)));
}

#[test]
fn of_abort_and_claim_the_first_wins() {
    let bench = Bench::new();
    bench.accept("claimed");
    let row = bench.claim().pop().expect("a row");
    let inflight = AbortOutcome::WrongState { status: Status::Inflight, superseded_by: None };
    assert_eq!(bench.abort("claimed"), inflight);
    let done = block_on(bench.outbox.store(row.acked(ack("claimed"))));
    assert!(done.expect("stores").is_some(), "the attempt ends as if nobody had asked");

    // Queued together, whichever order the writer takes them in: one of them has the row.
    for round in 0..50 {
        let id = format!("race-{round}");
        bench.accept(&id);
        let aborts = bench.outbox.abort(AbortRequest {
            id: RowId::trusted(format!("row-{id}")),
            aborted_by: "alice".into(),
            now: Millis(START_MS),
        });
        let claims = bench.outbox.claim_due(MESH, FOREVER, Millis(i64::MIN), 100);
        let (aborted, claimed) = block_on(futures_lite::future::zip(aborts, claims));
        let is_aborted = matches!(aborted.expect("answers"), AbortOutcome::Aborted { .. });
        let rows = claimed.expect("claims").rows;
        assert_eq!(rows.len(), usize::from(!is_aborted), "sent or given up, never both");
        for row in rows {
            let settled = block_on(bench.outbox.store(row.acked(ack(&id))));
            assert!(settled.expect("stores").is_some());
        }
    }
}

#[test]
fn of_abort_and_a_late_success_the_first_wins() {
    let bench = Bench::new();
    let late = |id: &str| {
        let cmid = ClientMessageId::trusted(id.to_owned());
        block_on(bench.outbox.late_ack(MESH, &cmid, ack(id))).expect("stores")
    };
    bench.unanswered("late-first");
    assert!(late("late-first"));
    let done = AbortOutcome::WrongState { status: Status::Done, superseded_by: None };
    assert_eq!(bench.abort("late-first"), done, "nothing leaves done");

    bench.unanswered("abort-first");
    bench.abort("abort-first");
    assert!(!late("abort-first"));
    let row = bench.view("abort-first");
    assert_eq!((row.status, row.broker_message_id), (Status::Aborted, None));
    assert!(row.may_have_been_sent, "and that is still the truth");
}

#[test]
fn a_chain_is_followed_forward_to_its_end_and_no_further_than_its_bound() {
    let bench = Bench::new();
    let inspect = |id: &str| {
        let asked = bench.outbox.inspect(RowId::trusted(format!("row-{id}")));
        block_on(asked).expect("reads")
    };
    assert_eq!(inspect("nobody"), None);
    bench.accept("0");
    for n in 0..CHAIN_ROWS_MAX + 5 {
        let requeued = bench.requeue(&n.to_string(), &(n + 1).to_string());
        assert_eq!(requeued, RequeueOutcome::Requeued { may_have_been_sent: false });
    }
    let short = inspect("100").expect("a row");
    let ids: Vec<_> = short.chain.iter().map(|row| row.client_message_id.as_str()).collect();
    assert_eq!(ids, ["101", "102", "103", "104", "105"]);
    assert_eq!(short.chain[4].status, Status::Pending);
    assert!(!short.is_cut);
    let long = inspect("0").expect("a row");
    assert_eq!((long.chain.len(), long.is_cut), (CHAIN_ROWS_MAX, true));

    bench.tamper("UPDATE outbox SET superseded_by = 'row-101' WHERE id = 'row-103'");
    let circle = inspect("100").expect("a row");
    assert_eq!((circle.chain.len(), circle.is_cut), (3, false), "a circle is walked once");
    bench.tamper("UPDATE outbox SET superseded_by = 'row-gone' WHERE id = 'row-101'");
    assert_eq!(inspect("100").expect("a row").chain.len(), 1);
}

#[test]
fn a_message_that_was_given_up_has_no_receipt_to_ask_for() {
    let bench = Bench::new();
    bench.unanswered("m");
    let told =
        ReportedReceipt { client_message_id: "m".into(), recipients: 2, stored: 1, expired: 0 };
    let stored = bench.outbox.store_receipts(MESH, vec![told], Millis(START_MS));
    assert_eq!(block_on(stored).expect("stores").len(), 1);
    let open = || block_on(bench.outbox.open_receipts(MESH, 0, 10)).expect("reads").ids;
    assert_eq!(open(), ["m"]);
    bench.abort("m");
    assert!(open().is_empty());
}

#[test]
fn a_requeue_that_could_never_be_sent_changes_nothing() {
    let bench = Bench::new();
    bench.dead("m");
    let too_large = TooLarge { mesh: MESH.into(), frame_bytes: 70_000, frame_bytes_max: 65_536 };
    let heavy = too_large.clone();
    let request = RequeueRequest {
        patch: Some(Patch { payload: b"longer".to_vec(), fingerprint: |e| e.fingerprint }),
        check_size: Box::new(move |envelope, id| {
            assert_eq!((envelope.payload.as_slice(), id.as_str()), (&b"longer"[..], "n"));
            Err(heavy.clone())
        }),
        ..requeue_of("m", "n")
    };
    let outcome = block_on(bench.outbox.requeue(request)).expect("answers");
    assert_eq!(outcome, RequeueOutcome::TooLarge(too_large));
    bench.tamper("UPDATE outbox SET payload = x''");
    let emptied = RequeueOutcome::BodyEmptied { status: Status::Dead };
    assert_eq!(bench.requeue("m", "n"), emptied);
    assert_eq!(bench.view("m").status, Status::Dead);
    assert_eq!(bench.integer("SELECT count(*) FROM outbox"), 1);
}

#[test]
fn a_row_that_makes_no_sense_any_more_is_dead_and_the_others_are_sent() {
    let bench = Bench::new();
    bench.accept("broken");
    bench.accept("sound");
    bench.tamper("UPDATE outbox SET recipient = NULL WHERE id = 'row-broken'");
    let claimed: Vec<_> = bench.claim().iter().map(|row| row.identity().id.clone()).collect();
    assert_eq!(claimed, [RowId::trusted("row-sound".into())]);
    let broken = bench.view("broken");
    assert_eq!((broken.status, broken.attempts), (Status::Dead, 0));
    let why = broken.last_error.expect("words");
    assert!(why.contains("was not sent"), "{why}");
    assert_eq!(bench.requeue("broken", "again"), RequeueOutcome::NoDestination);
    let depth = bench.outbox.depths()[MESH];
    let [dead, inflight, pending] = [Status::Dead, Status::Inflight, Status::Pending];
    assert_eq!((depth.of(dead), depth.of(inflight), depth.of(pending)), (1, 1, 0));
}

#[test]
fn open_receipts_are_found_by_their_index() {
    let bench = Bench::new();
    let explain = |tx: &Tx<'_>| {
        let sql = concat!("EXPLAIN QUERY PLAN ", open_receipts!());
        tx.query(sql, &[0.into(), MESH.into(), 10.into()], |row| row.text(3))
    };
    let plan: Vec<String> = block_on(bench.outbox.db.read(explain)).expect("explains");
    assert!(plan.iter().any(|step| step.contains("receipt_open")), "{plan:?}");
}
