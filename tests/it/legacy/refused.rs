//! What is not theirs, or not theirs alone, is left as it is.

use crate::support::theirs::{self, Version};
use claudemesh_base::db::{Driver, Kind};
use claudemesh_daemon::store::inbox::Inbox;
use claudemesh_daemon::store::outbox::Outbox;
use std::path::Path;
use std::sync::Arc;

fn outbox_kind(path: &Path) -> Option<Kind> {
    Outbox::open(path, Driver::Threaded, Arc::new(|_| ())).err().map(|error| error.kind())
}

fn inbox_kind(path: &Path) -> Option<Kind> {
    Inbox::open(path, Driver::Threaded).err().map(|error| error.kind())
}

#[test]
fn a_table_with_one_thing_more_or_less_is_somebody_elses() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let changes = [
        ("ALTER TABLE outbox ADD COLUMN expires_at INTEGER", Kind::Foreign),
        ("CREATE TABLE other (x)", Kind::Foreign),
        ("CREATE VIEW other AS SELECT id FROM outbox", Kind::Foreign),
        ("ALTER TABLE outbox DROP COLUMN aborted_by", Kind::Foreign),
        ("ALTER TABLE outbox RENAME TO inbox", Kind::Foreign),
        ("PRAGMA user_version = 99", Kind::Newer),
    ];
    for (number, (change, kind)) in changes.into_iter().enumerate() {
        let path = dir.path().join(format!("{number}.db"));
        theirs::outbox(&path, Version::V1_34_0).execute(change).expect(change);
        let before = std::fs::read(&path).expect("reads");
        assert_eq!(outbox_kind(&path), Some(kind), "{change}");
        assert!(std::fs::read(&path).expect("reads") == before, "{change}: it was touched");
    }
}

#[test]
fn an_outbox_is_no_inbox() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let (outbox, inbox) = (dir.path().join("outbox.db"), dir.path().join("inbox.db"));
    drop(theirs::outbox(&outbox, Version::V1_34_0));
    drop(theirs::inbox(&inbox, Version::V1_34_11));
    assert_eq!(inbox_kind(&outbox), Some(Kind::Foreign));
    assert_eq!(outbox_kind(&inbox), Some(Kind::Foreign));
    assert_eq!(outbox_kind(&outbox), None);
    assert_eq!(inbox_kind(&inbox), None);
}

#[test]
fn an_empty_database_of_theirs_is_taken_over_too() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let path = dir.path().join("outbox.db");
    drop(theirs::outbox(&path, Version::V0_9_0));
    assert_eq!(outbox_kind(&path), None);
    assert_ne!(theirs::version(&path), 0);
}
