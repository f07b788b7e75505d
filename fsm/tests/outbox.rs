//! Every legal move of the outbox, from every state, under every verdict of the writer (§4.5.2).
//!
//! A few lines of this file stand in for the database: they apply a guard to columns as the guarded
//! `UPDATE` does. What a move leaves in memory must then be what those columns read back as.

use claudemesh_fsm::id::{BrokerMessageId, Millis, RowId};
use claudemesh_fsm::outbox::{
    Abort, Ack, AnyRow, Change, Guard, Retire, Row, RowRecord, State, Status, Step, Verdict,
};
use claudemesh_fsm::outbox::{Dead, Inflight, Pending};
use claudemesh_fsm::refusal::TransientRefusal;
use std::fmt::Debug;

const ATTEMPTS: [i64; 4] = [0, 1, 7, u32::MAX as i64];

/// Columns of a row in a state, with the columns of no other.
fn record(status: Status, attempts: i64, may_have_been_sent: bool) -> RowRecord {
    let text = |value: &str| Some(value.to_owned());
    let mut record = RowRecord {
        id: "row".into(),
        client_message_id: "cmid".into(),
        request_fingerprint: vec![7; 32],
        payload: b"hello".to_vec(),
        mesh: "mesh".into(),
        destination_kind: "dm".into(),
        destination_ref: "alice".into(),
        recipient: text("key"),
        recipient_member: text("member"),
        priority: "next".into(),
        meta: text("{}"),
        reply_to_id: text("m0"),
        enqueued_at: 5,
        attempts,
        next_attempt_at: 6,
        status: status.as_str().into(),
        may_have_been_sent,
        ..RowRecord::default()
    };
    match status {
        Status::Pending | Status::Dead => record.last_error = text("earlier"),
        Status::Inflight => {}
        Status::Done => {
            (record.broker_message_id, record.delivered_at) = (text("b0"), Some(1));
        }
        Status::Aborted => (record.aborted_by, record.aborted_at) = (text("me"), Some(1)),
    }
    record
}

fn restore(record: &RowRecord) -> AnyRow {
    AnyRow::restore(record.clone()).expect("columns of a row")
}

/// The guarded `UPDATE`: how many rows it changed.
fn update(record: &mut RowRecord, guard: &Guard) -> usize {
    let is_still = record.id == guard.id().as_str()
        && record.status == guard.leaves().as_str()
        && record.attempts == i64::from(guard.attempts());
    if !is_still {
        return 0;
    }
    record.status = guard.change().enters().as_str().into();
    record.attempts = guard.attempts_after().into();
    match guard.change().clone() {
        Change::Claimed => {}
        Change::Done { broker_message_id, history_id, delivered_at, recipients: _ } => {
            record.broker_message_id = Some(broker_message_id.into_string());
            record.history_id = history_id;
            record.delivered_at = Some(delivered_at.0);
        }
        Change::Returned { next_attempt_at, last_error, may_have_been_sent, counts: _ } => {
            record.next_attempt_at = next_attempt_at.0;
            record.last_error = last_error.or(record.last_error.take());
            record.may_have_been_sent = may_have_been_sent;
        }
        Change::Dead { last_error, may_have_been_sent } => {
            record.last_error = Some(last_error);
            record.may_have_been_sent = may_have_been_sent;
        }
        Change::Aborted { aborted_at, aborted_by, superseded_by } => {
            record.aborted_at = Some(aborted_at.0);
            record.aborted_by = Some(aborted_by);
            record.superseded_by = superseded_by.map(RowId::into_string);
        }
    }
    1
}

/// A state whose rows can be taken out of an [`AnyRow`].
trait Known: State + Debug + PartialEq {
    fn of(row: AnyRow) -> Row<Self>;
}

macro_rules! known {
    ($($state:ident)*) => {$(
        impl Known for claudemesh_fsm::outbox::$state {
            fn of(row: AnyRow) -> Row<Self> {
                match row {
                    AnyRow::$state(row) => row,
                    other => panic!("not {}: {other:?}", stringify!($state)),
                }
            }
        }
    )*};
}

known! { Pending Inflight Done Dead Aborted }

/// Makes one move from `before` under all three verdicts. `expected` is the attempts and the
/// `may_have_been_sent` that the moved row has.
fn walk<S: Known, N: Known>(
    before: &RowRecord,
    step: impl Fn(Row<S>) -> Step<S, N>,
    expected: (i64, bool),
) {
    let row = || S::of(restore(before));
    let split = || {
        let (guard, unsettled) = step(row()).split();
        assert_eq!(guard.id().as_str(), before.id);
        assert_eq!((guard.leaves(), guard.change().enters()), (S::STATUS, N::STATUS));
        assert_eq!(i64::from(guard.attempts()), before.attempts);
        (guard, unsettled)
    };

    let (guard, unsettled) = split();
    let mut moved = before.clone();
    let rows_changed = update(&mut moved, &guard);
    assert_eq!(rows_changed, 1);
    let next = unsettled.settle(committed(guard, rows_changed)).expect("committed");
    assert_eq!(next, Some(N::of(restore(&moved))), "memory and columns agree");
    assert_eq!((moved.attempts, moved.may_have_been_sent), expected, "{before:?}");
    assert_eq!(restore(&moved).status(), N::STATUS);

    for another in Status::ALL.into_iter().filter(|status| *status != S::STATUS) {
        let (guard, unsettled) = split();
        let mut columns = RowRecord { status: another.as_str().into(), ..before.clone() };
        let rows_changed = update(&mut columns, &guard);
        assert_eq!(unsettled.settle(committed(guard, rows_changed)), Ok(None));
        assert_eq!(columns.status, another.as_str(), "the loser changes nothing");
    }
    let (guard, unsettled) = split();
    let mut columns = RowRecord { attempts: before.attempts - 1, ..before.clone() };
    let rows_changed = update(&mut columns, &guard);
    assert_eq!(unsettled.settle(committed(guard, rows_changed)), Ok(None), "another attempt's");

    let (_guard, unsettled) = split();
    assert_eq!(
        unsettled.settle(Err(DISK_FULL)),
        Err((row(), DISK_FULL)),
        "the old row comes back whole"
    );
}

const DISK_FULL: &str = "the disk is full";

fn committed(guard: Guard, rows_changed: usize) -> Result<Verdict, &'static str> {
    Ok(guard.applied(rows_changed))
}

fn each(status: Status, check: impl Fn(&RowRecord, i64, bool)) {
    for attempts in ATTEMPTS {
        for may_have_been_sent in [false, true] {
            check(&record(status, attempts, may_have_been_sent), attempts, may_have_been_sent);
        }
    }
}

fn ack() -> Ack {
    let broker_message_id = BrokerMessageId::trusted("b1".into());
    let history_id = Some("h1".into());
    Ack { broker_message_id, history_id, delivered_at: Millis(9), recipients: Some(1) }
}

fn retire(force: bool) -> Retire {
    let superseded_by = Some(RowId::trusted("next".into()));
    Retire { aborted_at: Millis(9), aborted_by: "me".into(), superseded_by, force }
}

fn abort() -> Abort {
    Abort { aborted_at: Millis(9), aborted_by: "me".into() }
}

#[test]
fn an_aborted_row_has_no_successor_and_keeps_what_it_is() {
    for status in [Status::Pending, Status::Dead] {
        let guard = match restore(&record(status, 1, true)) {
            AnyRow::Pending(row) => row.abort(abort()).split().0,
            AnyRow::Dead(row) => row.abort(abort()).split().0,
            other => panic!("{other:?}"),
        };
        let Change::Aborted { superseded_by, .. } = guard.change() else { panic!("{guard:?}") };
        assert_eq!(*superseded_by, None);
    }
}

#[test]
fn a_pending_row_makes_its_moves_and_no_others() {
    each(Status::Pending, |before, attempts, may| {
        let claimed = (attempts + 1).min(u32::MAX.into());
        walk(before, Row::<Pending>::claim, (claimed, may));
        walk(before, Row::<Pending>::expire, (attempts, may));
        walk(before, |row: Row<Pending>| row.acked_late(ack()), (attempts, may));
        let retired = |row: Row<Pending>| row.retire(retire(true)).expect("forced");
        walk(before, retired, (attempts, may));
        walk(before, |row: Row<Pending>| row.abort(abort()), (attempts, may));
    });
}

#[test]
fn an_inflight_row_makes_its_moves_and_no_others() {
    const LATER: Millis = Millis(99);
    each(Status::Inflight, |before, attempts, earlier| {
        let uncounted = (attempts - 1).max(0);
        let deferred = |why| move |row: Row<Inflight>| row.deferred(why, "no".into(), LATER);
        walk(before, |row: Row<Inflight>| row.acked(ack()), (attempts, earlier));
        walk(before, |row| row.refused("no".into()), (attempts, earlier));
        for why in [TransientRefusal::Busy, TransientRefusal::RecipientOffline] {
            walk(before, deferred(why), (attempts, earlier));
        }
        let limited = deferred(TransientRefusal::RateLimited);
        walk(before, limited, (uncounted, earlier));
        walk(before, |row: Row<Inflight>| row.lost("gone".into(), LATER), (attempts, true));
        walk(before, |row: Row<Inflight>| row.unsent("busy".into(), LATER), (uncounted, earlier));
    });
}

#[test]
fn a_dead_row_can_only_be_retired() {
    each(Status::Dead, |before, attempts, may| {
        for force in [false, true] {
            walk(before, |row: Row<Dead>| row.retire(retire(force)), (attempts, may));
        }
        walk(before, |row: Row<Dead>| row.abort(abort()), (attempts, may));
    });
}

#[test]
fn a_row_that_may_have_been_sent_is_retired_only_by_force() {
    each(Status::Pending, |before, _, may| {
        let result = Pending::of(restore(before)).retire(retire(false));
        match result {
            Ok(step) => {
                let (guard, _unsettled) = step.split();
                assert!(!may && guard.change().enters() == Status::Aborted);
            }
            Err(row) => assert!(may && row == Pending::of(restore(before))),
        }
    });
}

#[test]
fn an_expired_row_says_whether_it_may_have_been_sent() {
    each(Status::Pending, |before, _, may| {
        let (guard, _unsettled) = Pending::of(restore(before)).expire().split();
        let Change::Dead { last_error, .. } = guard.change() else { panic!("{guard:?}") };
        assert!(last_error.starts_with("expired"));
        assert_eq!(last_error.contains("may have been sent"), may);
    });
}

#[test]
fn an_uncounted_attempt_leaves_the_count_where_it_was_before_its_claim() {
    for attempts in [0, 1, 7] {
        let before = record(Status::Pending, attempts, false);
        let (guard, unsettled) = Pending::of(restore(&before)).claim().split();
        let claimed = unsettled.settle(committed(guard, 1)).expect("committed").expect("moved");
        let step = claimed.unsent("busy".into(), Millis(9));
        let (guard, unsettled) = step.split();
        let back = unsettled.settle(committed(guard, 1)).expect("committed").expect("moved");
        assert_eq!(i64::from(back.identity().attempts), attempts);
        assert!(!back.state().may_have_been_sent);
    }
}

#[test]
fn what_must_survive_a_power_cut_is_synced() {
    let steps = |before: &RowRecord| Pending::of(restore(before));
    let before = record(Status::Pending, 1, false);
    let synced = |guard: Guard| guard.change().must_be_synced();
    assert!(synced(steps(&before).expire().split().0));
    assert!(synced(steps(&before).retire(retire(true)).expect("forced").split().0));
    assert!(!synced(steps(&before).claim().split().0));
    assert!(!synced(steps(&before).acked_late(ack()).split().0));
}

#[test]
#[should_panic(expected = "a verdict settles the row it is about")]
fn a_verdict_of_another_row_settles_nothing() {
    let other = RowRecord { id: "other".into(), ..record(Status::Pending, 0, false) };
    let (guard, _unsettled) = Pending::of(restore(&other)).claim().split();
    let (_guard, unsettled) =
        Pending::of(restore(&record(Status::Pending, 0, false))).claim().split();
    let _ = unsettled.settle(committed(guard, 1));
}

#[test]
fn damaged_columns_are_named_and_never_become_a_row() {
    type Damage = fn(&mut RowRecord);
    let cases: [(Status, &str, Damage); 13] = [
        (Status::Pending, "status `queued`", |row| row.status = "queued".into()),
        (Status::Pending, "request_fingerprint of 31 bytes", |row| {
            row.request_fingerprint.truncate(31);
        }),
        (Status::Pending, "priority `soon`", |row| row.priority = "soon".into()),
        (Status::Pending, "attempts -1", |row| row.attempts = -1),
        (Status::Pending, "attempts 4294967296", |row| row.attempts = 1 << 32),
        (Status::Pending, "destination_kind `dn`", |row| row.destination_kind = "dn".into()),
        // A row that waits has somewhere to go; one that rests may have lost that.
        (Status::Pending, "destination_ref ``", |row| row.destination_ref.clear()),
        (Status::Inflight, "mesh ``", |row| row.mesh.clear()),
        (Status::Done, "broker_message_id is NULL", |row| row.broker_message_id = None),
        (Status::Done, "delivered_at is NULL", |row| row.delivered_at = None),
        (Status::Dead, "last_error is NULL", |row| row.last_error = None),
        (Status::Aborted, "aborted_at is NULL", |row| row.aborted_at = None),
        (Status::Aborted, "aborted_by is NULL", |row| row.aborted_by = None),
    ];
    for (status, words, damage) in cases {
        let mut damaged = record(status, 0, false);
        damage(&mut damaged);
        let corrupt = AnyRow::restore(damaged).expect_err(words);
        assert!(corrupt.0.contains(words), "{corrupt}");
    }
}
