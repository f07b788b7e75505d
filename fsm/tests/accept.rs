//! The whole table of what a caller is told (§4.5.1), from the columns of each kind of row.

use claudemesh_fsm::accept::{AcceptDecision, Conflict, decide, mismatch};
use claudemesh_fsm::id::Fingerprint;
use claudemesh_fsm::outbox::{RowSummary, RowSummaryRecord, Status, row_summary};

fn standings() -> [(RowSummary, RowSummaryRecord); 5] {
    let text = |value: &str| Some(value.to_owned());
    let base = |status: Status| RowSummaryRecord {
        request_fingerprint: vec![7; 32],
        status: status.as_str().into(),
        ..RowSummaryRecord::default()
    };
    let done = RowSummary::Done { broker_message_id: "b1".into(), history_id: text("h1") };
    let done_columns = RowSummaryRecord {
        broker_message_id: text("b1"),
        history_id: text("h1"),
        ..base(Status::Done)
    };
    let dead = RowSummary::Dead { last_error: "no".into() };
    let dead_columns = RowSummaryRecord { last_error: text("no"), ..base(Status::Dead) };
    let aborted = RowSummary::Aborted { superseded_by: text("r2") };
    let aborted_columns = RowSummaryRecord { superseded_by: text("r2"), ..base(Status::Aborted) };
    [
        (RowSummary::Pending, base(Status::Pending)),
        (RowSummary::Inflight, base(Status::Inflight)),
        (done, done_columns),
        (dead, dead_columns),
        (aborted, aborted_columns),
    ]
}

#[test]
fn every_row_of_the_accept_table_is_answered() {
    let (same, other) = (Fingerprint::new([7; 32]), Fingerprint::new([8; 32]));
    assert_eq!(decide(None, same), AcceptDecision::Insert);
    let broker_message_id = || "b1".to_owned();
    let (history_id, superseded_by) = (Some("h1".to_owned()), Some("r2".to_owned()));
    let last_error = "no".to_owned();
    let table = [
        (AcceptDecision::Queued, Conflict::PendingMismatch, "outbox_pending_fingerprint_mismatch"),
        (
            AcceptDecision::Inflight,
            Conflict::InflightMismatch,
            "outbox_inflight_fingerprint_mismatch",
        ),
        (
            AcceptDecision::Done { broker_message_id: broker_message_id(), history_id },
            Conflict::DoneMismatch { broker_message_id: broker_message_id() },
            "outbox_done_fingerprint_mismatch",
        ),
        (
            AcceptDecision::Conflict(Conflict::DeadMatch { last_error }),
            Conflict::DeadMismatch,
            "outbox_dead_fingerprint_mismatch",
        ),
        (
            AcceptDecision::Conflict(Conflict::AbortedMatch { superseded_by }),
            Conflict::AbortedMismatch,
            "outbox_aborted_fingerprint_mismatch",
        ),
    ];
    for ((stands, columns), (matched, conflict, word)) in standings().into_iter().zip(table) {
        assert_eq!(row_summary(columns), Ok((same, stands.clone())));
        assert_eq!(decide(Some((same, stands.clone())), same), matched);
        assert_eq!(mismatch(stands.clone()), conflict);
        assert_eq!(conflict.as_str(), word);
        assert_eq!(decide(Some((same, stands)), other), AcceptDecision::Conflict(conflict));
        if let AcceptDecision::Conflict(conflict) = matched {
            assert_eq!(conflict.as_str(), word.replace("mismatch", "match"));
        }
    }
}

#[test]
fn an_answer_that_lacks_its_columns_is_damage_not_an_answer() {
    for (status, words) in
        [("done", "broker_message_id is NULL"), ("dead", "last_error is NULL"), ("", "status ``")]
    {
        let columns = RowSummaryRecord {
            request_fingerprint: vec![7; 32],
            status: status.into(),
            ..RowSummaryRecord::default()
        };
        assert_eq!(row_summary(columns).expect_err(words).0, words);
    }
}
