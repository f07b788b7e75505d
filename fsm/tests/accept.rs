//! The whole table of what a caller is told (§4.5.1), from the columns of each kind of row.

use claudemesh_fsm::accept::{Conflict, Decision, decide, mismatch};
use claudemesh_fsm::id::Fingerprint;
use claudemesh_fsm::outbox::{Standing, StandingRecord, Status, standing};

fn standings() -> [(Standing, StandingRecord); 5] {
    let text = |value: &str| Some(value.to_owned());
    let base = |status: Status| StandingRecord {
        request_fingerprint: vec![7; 32],
        status: status.as_str().into(),
        ..StandingRecord::default()
    };
    let done = Standing::Done { broker_message_id: "b1".into(), history_id: text("h1") };
    let done_columns = StandingRecord {
        broker_message_id: text("b1"),
        history_id: text("h1"),
        ..base(Status::Done)
    };
    let dead = Standing::Dead { last_error: "no".into() };
    let dead_columns = StandingRecord { last_error: text("no"), ..base(Status::Dead) };
    let aborted = Standing::Aborted { superseded_by: text("r2") };
    let aborted_columns = StandingRecord { superseded_by: text("r2"), ..base(Status::Aborted) };
    [
        (Standing::Pending, base(Status::Pending)),
        (Standing::Inflight, base(Status::Inflight)),
        (done, done_columns),
        (dead, dead_columns),
        (aborted, aborted_columns),
    ]
}

#[test]
fn every_row_of_the_accept_table_is_answered() {
    let (same, other) = (Fingerprint::new([7; 32]), Fingerprint::new([8; 32]));
    assert_eq!(decide(None, same), Decision::Insert);
    let broker_message_id = || "b1".to_owned();
    let (history_id, superseded_by) = (Some("h1".to_owned()), Some("r2".to_owned()));
    let last_error = "no".to_owned();
    let table = [
        (Decision::Queued, Conflict::PendingMismatch, "outbox_pending_fingerprint_mismatch"),
        (Decision::Inflight, Conflict::InflightMismatch, "outbox_inflight_fingerprint_mismatch"),
        (
            Decision::Done { broker_message_id: broker_message_id(), history_id },
            Conflict::DoneMismatch { broker_message_id: broker_message_id() },
            "outbox_done_fingerprint_mismatch",
        ),
        (
            Decision::Conflict(Conflict::DeadMatch { last_error }),
            Conflict::DeadMismatch,
            "outbox_dead_fingerprint_mismatch",
        ),
        (
            Decision::Conflict(Conflict::AbortedMatch { superseded_by }),
            Conflict::AbortedMismatch,
            "outbox_aborted_fingerprint_mismatch",
        ),
    ];
    for ((stands, columns), (matched, conflict, word)) in standings().into_iter().zip(table) {
        assert_eq!(standing(columns), Ok((same, stands.clone())));
        assert_eq!(decide(Some((same, stands.clone())), same), matched);
        assert_eq!(mismatch(stands.clone()), conflict);
        assert_eq!(conflict.as_str(), word);
        assert_eq!(decide(Some((same, stands)), other), Decision::Conflict(conflict));
        if let Decision::Conflict(conflict) = matched {
            assert_eq!(conflict.as_str(), word.replace("mismatch", "match"));
        }
    }
}

#[test]
fn an_answer_that_lacks_its_columns_is_damage_not_an_answer() {
    for (status, words) in
        [("done", "broker_message_id is NULL"), ("dead", "last_error is NULL"), ("", "status ``")]
    {
        let columns = StandingRecord {
            request_fingerprint: vec![7; 32],
            status: status.into(),
            ..StandingRecord::default()
        };
        assert_eq!(standing(columns).expect_err(words).0, words);
    }
}
