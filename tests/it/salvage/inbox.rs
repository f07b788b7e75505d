//! What a salvage saves of a damaged inbox (§4.11).

use claudemesh_base::db::Driver;
use claudemesh_daemon::repair::Store;
use claudemesh_daemon::store::inbox::{ClearFilter, Inbox, NewMessage, Stored};
use claudemesh_fsm::envelope::Encryption;
use claudemesh_fsm::id::Millis;
use smol::future::block_on;

fn arrival(name: &str) -> NewMessage {
    NewMessage {
        id: format!("id-{name}"),
        client_message_id: Some(name.into()),
        broker_message_id: format!("broker-{name}"),
        mesh: "demo".into(),
        sender_pubkey: "alice".into(),
        body: Some("hola".into()),
        priority: "next".into(),
        encryption: Encryption::Direct,
        received_at: Millis(1),
        ..NewMessage::default()
    }
}

/// Whether each of the messages is new, and where it is then.
fn arrive(inbox: &Inbox, names: &[&str]) -> Vec<Stored> {
    let messages = names.iter().map(|name| arrival(name)).collect();
    let stored = block_on(inbox.store(messages)).expect("commits");
    stored.into_iter().map(|(_, stored)| stored.expect("is stored")).collect()
}

#[test]
fn a_place_in_the_inbox_is_not_given_away_twice_when_only_what_was_seen_is_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, to) = (dir.path().join("inbox.db"), dir.path().join("saved.db"));
    let inbox = Inbox::open(&path, Driver::Threaded).expect("opens");
    arrive(&inbox, &["a", "b", "c"]);
    inbox.close();
    let harm = "DELETE FROM inbox; DELETE FROM sqlite_sequence;";
    sqlite::open(&path).and_then(|file| file.execute(harm)).expect("harms");
    Store::Inbox.salvage(&path, &to).expect("salvages");
    let inbox = Inbox::open(&to, Driver::Threaded).expect("opens");
    assert_eq!(arrive(&inbox, &["c", "d"]), [Stored::Duplicate, Stored::New { seq: 4 }]);
    inbox.close();
}

#[test]
fn what_was_seen_is_saved_from_an_inbox_of_an_older_schema() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, to) = (dir.path().join("inbox.db"), dir.path().join("saved.db"));
    let inbox = Inbox::open(&path, Driver::Threaded).expect("opens");
    arrive(&inbox, &["a"]);
    block_on(inbox.clear(ClearFilter::default())).expect("clears");
    inbox.close();
    let older = "DROP INDEX seen_by_place; ALTER TABLE seen DROP COLUMN inbox_seq; \
                 DROP TABLE witnessed; DROP TABLE mark; PRAGMA user_version = 1;";
    sqlite::open(&path).and_then(|file| file.execute(older)).expect("makes it older");
    Store::Inbox.salvage(&path, &to).expect("salvages");
    let inbox = Inbox::open(&to, Driver::Threaded).expect("opens");
    assert_eq!(arrive(&inbox, &["a"]), [Stored::Duplicate]);
    inbox.close();
}
