//! `outbox.db`, row by row.

use super::{BOB, assert_kept, pin_rows};
use crate::support::theirs::{self, Version, fingerprint, insert, rows};
use claudemesh_base::db::Driver;
use claudemesh_daemon::store::outbox::{ListQuery, Outbox, RequeueOutcome, RequeueRequest};
use claudemesh_fsm::id::{ClientMessageId, Millis, RowId};
use claudemesh_fsm::outbox::Status;
use smol::future::block_on;
use sqlite::Connection;
use std::path::Path;
use std::sync::Arc;

const KEPT: [&str; 10] = [
    "id",
    "client_message_id",
    "request_fingerprint",
    "payload",
    "enqueued_at",
    "attempts",
    "next_attempt_at",
    "delivered_at",
    "broker_message_id",
    "superseded_by",
];

/// A large number for a test, a small one for SQLite.
const MANY: usize = 100_000;

fn row(theirs: &Connection, id: &str, status: &str, more: &[(&str, &str)]) {
    let quoted = |text: &str| format!("'{text}'");
    let (row_id, client_message_id, status) =
        (quoted(id), quoted(&format!("cm-{id}")), quoted(status));
    let (fingerprint, payload) =
        (fingerprint("dm", "bob", "", id), format!("CAST('{id}' AS BLOB)"));
    let columns: Vec<(&str, &str)> = [
        ("id", row_id.as_str()),
        ("client_message_id", &client_message_id),
        ("request_fingerprint", &fingerprint),
        ("payload", &payload),
        ("enqueued_at", "1700000000000"),
        ("next_attempt_at", "1700000000500"),
        ("status", &status),
    ]
    .into_iter()
    .filter(|(name, _)| more.iter().all(|(other, _)| other != name))
    .chain(more.iter().copied())
    .collect();
    insert(theirs, "outbox", &columns);
}

/// A row in each state, as 0.9.0 stored it: without mesh and destination.
fn first_rows(theirs: &Connection) {
    row(theirs, "waits", "pending", &[]);
    let tried = [("attempts", "3"), ("last_error", "'ack_timeout'")];
    row(theirs, "tried", "pending", &tried);
    row(theirs, "under-way", "inflight", &[("attempts", "1")]);
    let done =
        [("attempts", "1"), ("delivered_at", "1700000001000"), ("broker_message_id", "'b1'")];
    row(theirs, "done", "done", &done);
    row(theirs, "dead", "dead", &[("attempts", "25"), ("last_error", "'max_attempts: x'")]);
    let aborted = [
        ("attempts", "2"),
        ("aborted_at", "1700000002000"),
        ("aborted_by", "'operator'"),
        ("superseded_by", "'successor'"),
    ];
    row(theirs, "aborted", "aborted", &aborted);
    // Their requeue copied payload and fingerprint, and nothing else.
    let same = fingerprint("dm", "bob", "", "aborted");
    let copy = [("request_fingerprint", same.as_str()), ("payload", "CAST('aborted' AS BLOB)")];
    row(theirs, "successor", "pending", &copy);
}

/// What 1.25.0 and later added: rows that know where they go, and what went wrong with them.
fn routed_rows(theirs: &Connection) {
    let capitals = format!("'{}'", BOB.to_uppercase());
    let bob = format!("'{BOB}'");
    let to = |target| {
        vec![
            ("mesh", "'demo'"),
            ("target_spec", target),
            ("nonce", "'AAAA'"),
            ("ciphertext", "'c2VhbGVk'"),
            ("priority", "'next'"),
        ]
    };
    let and = |mut row: Vec<_>, more: &[_]| {
        row.extend_from_slice(more);
        row
    };
    row(theirs, "to-key", "pending", &to(&bob));
    row(theirs, "to-capitals", "pending", &to(&capitals));
    row(theirs, "to-group", "pending", &to("'@eng/core'"));
    row(theirs, "to-topic", "pending", &to("'#0123456789abcdefghij'"));
    row(theirs, "to-everyone", "pending", &to("'*'"));
    row(
        theirs,
        "urgent",
        "pending",
        &[("mesh", "'demo'"), ("target_spec", &bob), ("priority", "'now'")],
    );
    row(theirs, "no-priority", "pending", &[("mesh", "'demo'"), ("target_spec", &bob)]);
    row(theirs, "sent-once", "inflight", &and(to(&bob), &[("attempts", "1")]));
    // What no version of theirs wrote, and no broker routes.
    row(theirs, "to-tag", "pending", &to("'tag:x'"));
    row(theirs, "to-star-group", "pending", &to("'@*'"));
    row(theirs, "no-mesh", "pending", &[("target_spec", &bob)]);
    // Requeued, and requeued again: neither successor has a destination of its own.
    let retired = [("aborted_at", "1700000002000"), ("aborted_by", "'operator'")];
    let same = fingerprint("dm", "bob", "", "first");
    let copy = [("request_fingerprint", same.as_str()), ("payload", "CAST('first' AS BLOB)")];
    let first = and(and(to(&bob), &retired), &[("superseded_by", "'second'")]);
    row(theirs, "first", "aborted", &and(first, &copy));
    let second = and(copy.to_vec(), &and(retired.to_vec(), &[("superseded_by", "'third'")]));
    row(theirs, "second", "aborted", &second);
    row(theirs, "third", "pending", &copy);
    // Requeued while it was under way: it came back to life beside its successor.
    let undead = and(and(to(&bob), &retired), &[("superseded_by", "'heir'"), ("attempts", "2")]);
    row(theirs, "undead", "pending", &undead);
    let same = fingerprint("dm", "bob", "", "undead");
    row(theirs, "heir", "pending", &[("request_fingerprint", same.as_str())]);
    // A successor that was sent went to everybody.
    let shouted = and(and(to(&bob), &retired), &[("superseded_by", "'shouted'")]);
    row(theirs, "whispered", "aborted", &shouted);
    let same = fingerprint("dm", "bob", "", "whispered");
    let done = [
        ("request_fingerprint", same.as_str()),
        ("delivered_at", "1700000001000"),
        ("broker_message_id", "'b2'"),
    ];
    row(theirs, "shouted", "done", &done);
}

fn open(path: &Path) -> Outbox {
    Outbox::open(path, Driver::Threaded, Arc::new(|_| ())).expect("opens")
}

fn all(outbox: &Outbox) -> usize {
    let query = ListQuery { status: None, mesh: None, before_seq: None, limit: 1000 };
    block_on(outbox.list(query)).expect("lists").rows.len()
}

fn taken_over(version: Version, fill: impl Fn(&Connection)) -> (tempfile::TempDir, Outbox) {
    let dir = tempfile::tempdir().expect("a temp dir");
    let path = dir.path().join("outbox.db");
    fill(&theirs::outbox(&path, version));
    let before = rows(&path, "outbox");
    let outbox = open(&path);
    let after = rows(&path, "outbox");
    assert_kept(&before, &after, &KEPT);
    // Each of them can be read as a row.
    assert_eq!(all(&outbox), before.len());
    let name =
        format!("outbox-{}", format!("{version:?}").trim_start_matches('V').replace('_', "."));
    pin_rows(&name, &after);
    (dir, outbox)
}

#[test]
fn rows_of_0_9_0_are_kept_and_what_has_nowhere_to_go_is_never_sent() {
    let (_dir, outbox) = taken_over(Version::V0_9_0, first_rows);
    let depths = outbox.depths();
    assert_eq!(depths.keys().collect::<Vec<_>>(), [""], "no mesh is invented");
    assert_eq!(depths[""].of(Status::Pending) + depths[""].of(Status::Inflight), 0);
    for id in ["waits", "tried", "under-way", "dead", "successor"] {
        assert_eq!(requeue(&outbox, id), RequeueOutcome::NoDestination, "{id}");
    }
}

#[test]
fn rows_of_1_25_0_are_kept_and_go_where_they_were_meant_to() {
    let fill = |theirs: &Connection| {
        first_rows(theirs);
        routed_rows(theirs);
    };
    let (_dir, outbox) = taken_over(Version::V1_25_0, fill);
    assert_eq!(block_on(outbox.recover(Millis(0), None)).expect("recovers").inflight, 1);
    let claimed = block_on(outbox.claim_due("demo", Millis(i64::MAX), Millis(0), 100));
    let claimed = claimed.expect("claims").rows;
    let mut sent: Vec<String> = claimed
        .iter()
        .map(|row| {
            let envelope = row.envelope();
            let recipient = envelope.recipient.as_ref().map(|to| to.routing_key.as_str());
            let to = envelope.destination.to_text();
            assert_eq!(recipient.is_some(), to == BOB, "{to}");
            format!("{} to {to}", row.identity().id.as_str())
        })
        .collect();
    sent.sort();
    let expected = [
        format!("heir to {BOB}"),
        format!("no-priority to {BOB}"),
        format!("sent-once to {BOB}"),
        format!("third to {BOB}"),
        format!("to-capitals to {BOB}"),
        "to-everyone to *".to_owned(),
        "to-group to @eng/core".to_owned(),
        format!("to-key to {BOB}"),
        "to-topic to #0123456789abcdefghij".to_owned(),
        format!("urgent to {BOB}"),
    ];
    assert_eq!(sent, expected);
}

#[test]
fn rows_of_1_34_0_are_kept() {
    let fill = |theirs: &Connection| {
        let session = format!("'{BOB}'");
        let to =
            [("mesh", "'demo'"), ("target_spec", "'@eng'"), ("sender_session_pubkey", &session)];
        row(theirs, "from-session", "pending", &to);
        row(theirs, "from-member", "pending", &to[..2]);
    };
    let _ = taken_over(Version::V1_34_0, fill);
}

fn requeue(outbox: &Outbox, id: &str) -> RequeueOutcome {
    let request = RequeueRequest {
        id: RowId::trusted(id.to_owned()),
        new_id: RowId::trusted(format!("new-{id}")),
        new_client_message_id: ClientMessageId::trusted(format!("new-cm-{id}")),
        patch: None,
        check_size: Box::new(|_, _| Ok(())),
        aborted_by: "operator".to_owned(),
        now: Millis(1),
        force: true,
    };
    block_on(outbox.requeue(request)).expect("answers")
}

/// Fills a table of theirs with `MANY` rows, the last of which is `last`.
pub(super) fn many(path: &Path, last: &str) {
    let theirs = theirs::outbox(path, Version::V1_34_0);
    let sql = format!(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {MANY}) \
         INSERT INTO outbox (id, client_message_id, request_fingerprint, payload, enqueued_at, \
           attempts, next_attempt_at, status, mesh, target_spec, delivered_at, broker_message_id) \
         SELECT 'r' || n, 'cm' || n, CASE WHEN n = {MANY} THEN {last} ELSE randomblob(32) END, \
           CAST(hex(randomblob(100)) AS BLOB), 1700000000000 + n, 1, 1700000000000, 'done', \
           'demo', '{BOB}', 1700000001000, 'b' || n FROM n"
    );
    theirs.execute(sql).expect("fills");
}

#[test]
fn a_hundred_thousand_rows_are_carried_over_at_once() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let path = dir.path().join("outbox.db");
    many(&path, "randomblob(32)");
    let outbox = open(&path);
    assert_eq!(outbox.depths()["demo"].of(Status::Done), MANY as u64);
}

#[test]
fn a_row_that_cannot_be_carried_over_leaves_all_of_them_where_they_were() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let path = dir.path().join("outbox.db");
    // The last of them: everything before it was carried over, and is undone.
    many(&path, "X'00'");
    let before = std::fs::read(&path).expect("reads");
    let error = Outbox::open(&path, Driver::Threaded, Arc::new(|_| ())).err().expect("fails");
    assert!(error.to_string().contains("Nothing was changed"), "{error}");
    assert!(std::fs::read(&path).expect("reads") == before, "the file was changed");
}
