//! `inbox.db`, row by row.

use super::{BOB, assert_kept, pin_rows};
use crate::support::theirs::{self, Version, insert, rows};
use claudemesh_base::db::Driver;
use claudemesh_daemon::store::inbox::{Inbox, InboxFilter, NewMessage, Stored};
use claudemesh_fsm::id::Millis;
use smol::future::block_on;
use sqlite::Connection;

const KEPT: [&str; 9] = [
    "id",
    "mesh",
    "topic",
    "sender_pubkey",
    "sender_name",
    "body",
    "received_at",
    "reply_to_id",
    "seen_at",
];
const META: &str = r#"'{"created_at":"2023-11-14T22:13:20.000Z"}'"#;

fn row(theirs: &Connection, id: &str, more: &[(&str, &str)]) {
    let quoted = |text: String| format!("'{text}'");
    let (row_id, sender, body) =
        (quoted(id.into()), quoted(BOB.into()), quoted(format!("text of {id} ✔")));
    let (client, broker) = (quoted(format!("cm-{id}")), quoted(format!("b-{id}")));
    let columns: Vec<(&str, &str)> = [
        ("id", row_id.as_str()),
        ("client_message_id", &client),
        ("broker_message_id", &broker),
        ("mesh", "'demo'"),
        ("sender_pubkey", &sender),
        ("sender_name", "'8139770e'"),
        ("body", &body),
        ("meta", META),
        ("received_at", "1700000000000"),
    ]
    .into_iter()
    .filter(|(name, _)| more.iter().all(|(other, _)| other != name))
    .chain(more.iter().copied())
    .collect();
    insert(theirs, "inbox", &columns);
}

fn first_rows(theirs: &Connection) {
    row(theirs, "plain", &[]);
    row(theirs, "reply", &[("reply_to_id", "'m0'"), ("topic", "'ops'")]);
    row(theirs, "without-sender-id", &[("client_message_id", "'b-without-sender-id'")]);
    row(theirs, "without-broker-id", &[("broker_message_id", "NULL")]);
    // One message, stored live under the broker's id and again under its sender's.
    row(theirs, "live", &[("client_message_id", "'b-twice'"), ("broker_message_id", "'b-twice'")]);
    row(theirs, "drained", &[("broker_message_id", "'b-twice'")]);
    row(theirs, "no-body", &[("body", "NULL"), ("meta", "NULL")]);
    row(theirs, "odd-meta", &[("meta", "'not JSON'")]);
    row(theirs, "rich-meta", &[("meta", r#"'{"created_at":"2023-11-14T22:13:20.000Z","a":1}'"#)]);
}

fn taken_over(version: Version, fill: impl Fn(&Connection)) -> (tempfile::TempDir, Inbox) {
    let dir = tempfile::tempdir().expect("a temp dir");
    let path = dir.path().join("inbox.db");
    fill(&theirs::inbox(&path, version));
    let before = rows(&path, "inbox");
    let inbox = Inbox::open(&path, Driver::Threaded).expect("opens");
    let after = rows(&path, "inbox");
    assert_kept(&before, &after, &KEPT);
    let query = InboxFilter { limit: 1000, bytes_max: usize::MAX, ..InboxFilter::default() };
    let page = block_on(inbox.list(query)).expect("lists");
    assert_eq!(page.messages.len(), before.len());
    let name =
        format!("inbox-{}", format!("{version:?}").trim_start_matches('V').replace('_', "."));
    pin_rows(&name, &after);
    (dir, inbox)
}

fn again(broker: &str, sender: &str, client: Option<&str>) -> NewMessage {
    NewMessage {
        id: format!("again-{broker}-{}", client.unwrap_or_default()),
        client_message_id: client.map(str::to_owned),
        broker_message_id: broker.to_owned(),
        mesh: "demo".to_owned(),
        sender_pubkey: sender.to_owned(),
        body: Some("again".to_owned()),
        priority: "next".to_owned(),
        received_at: Millis(1_800_000_000_000),
        ..NewMessage::default()
    }
}

#[test]
fn rows_of_0_9_0_are_kept_and_do_not_arrive_a_second_time() {
    let (_dir, inbox) = taken_over(Version::V0_9_0, first_rows);
    let other = "ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7726879333dbdabe7c";
    let cases = [
        // By the broker's id, whatever the sender's is said to be now.
        (again("b-plain", BOB, Some("cm-plain")), true),
        (again("b-plain", BOB, None), true),
        (again("b-without-sender-id", BOB, None), true),
        (again("b-twice", BOB, None), true),
        // By the sender's id, from another broker or after the broker forgot its own.
        (again("b-new", BOB, Some("cm-plain")), true),
        (again("b-newer", BOB, Some("cm-drained")), true),
        (again("b-newest", BOB, Some("cm-without-broker-id")), true),
        // Another sender may use the same id, and what is new is new.
        (again("b-other", other, Some("cm-plain")), false),
        (again("b-fresh", BOB, Some("cm-fresh")), false),
    ];
    for (message, is_known) in cases {
        let name = message.id.clone();
        let stored = block_on(inbox.store(vec![message])).expect("commits").remove(0).1;
        let is_duplicate = matches!(stored, Ok(Stored::Duplicate));
        assert_eq!(is_duplicate, is_known, "{name}: {stored:?}");
    }
}

#[test]
fn rows_of_1_34_8_keep_what_was_seen() {
    let fill = |theirs: &Connection| {
        row(theirs, "seen", &[("seen_at", "1700000005000")]);
        row(theirs, "unseen", &[]);
    };
    let (_dir, inbox) = taken_over(Version::V1_34_8, fill);
    let query = InboxFilter {
        limit: 10,
        bytes_max: usize::MAX,
        unread_only: true,
        ..InboxFilter::default()
    };
    let unread = block_on(inbox.list(query)).expect("lists").messages;
    assert_eq!(unread.iter().map(|m| m.content.id.as_str()).collect::<Vec<_>>(), ["unseen"]);
}

#[test]
fn rows_of_1_34_11_keep_whom_they_were_for() {
    let fill = |theirs: &Connection| {
        let key = format!("'{BOB}'");
        row(theirs, "to-session", &[("recipient_pubkey", &key), ("recipient_kind", "'session'")]);
        row(theirs, "to-member", &[("recipient_pubkey", &key), ("recipient_kind", "'member'")]);
        row(theirs, "before-that", &[("seen_at", "1700000005000")]);
    };
    let _ = taken_over(Version::V1_34_11, fill);
}
