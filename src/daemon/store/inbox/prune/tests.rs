//! What leaves the inbox does not come back, and what should stay stays.

use super::*;
use crate::store::inbox::{InboxFilter, NewMessage, Stored};
use crate::store::schema;
use claudemesh_base::db::{Db, Driver};
use claudemesh_fsm::envelope::Encryption;
use smol::future::block_on;
use std::ops::Range;

const START_MS: i64 = 1_732_238_266_000;
const DAY_MS: i64 = trusted_time::DAY_MS;
const BOUNDS: InboxLimits = InboxLimits { retention_ms: 30 * DAY_MS, bytes_max: i64::MAX };

fn open(dir: &tempfile::TempDir) -> Inbox {
    Inbox::open(&dir.path().join("inbox.db"), Driver::Threaded).expect("opens")
}

fn message(name: &str) -> NewMessage {
    NewMessage {
        id: format!("id-{name}"),
        client_message_id: Some(name.into()),
        broker_message_id: format!("broker-{name}"),
        mesh: "demo".into(),
        sender_pubkey: "alice".into(),
        body: Some("hola".into()),
        priority: "next".into(),
        encryption: Encryption::Direct,
        received_at: Millis(START_MS),
        ..NewMessage::default()
    }
}

fn store(inbox: &Inbox, message: NewMessage) -> Stored {
    let mut stored = block_on(inbox.store(vec![message])).expect("commits");
    stored.pop().expect("one").1.expect("is stored")
}

fn arrive(inbox: &Inbox, name: &str) -> bool {
    matches!(store(inbox, message(name)), Stored::New { .. })
}

fn names(inbox: &Inbox) -> Vec<String> {
    let query = InboxFilter { limit: 1000, bytes_max: usize::MAX, ..InboxFilter::default() };
    let page = block_on(inbox.list(query)).expect("reads");
    let name = |message: &crate::store::inbox::StoredMessage| {
        message.content.client_message_id.clone().unwrap_or_default()
    };
    page.messages.iter().rev().map(name).collect()
}

fn known(inbox: &Inbox) -> i64 {
    let read = |tx: &Tx<'_>| tx.query_row("SELECT count(*) FROM seen", &[], |row| row.int(0));
    block_on(inbox.db.read::<_, Error, _>(read)).expect("reads").expect("a row")
}

/// A whole pass; how many messages left, and how many are no longer known.
fn pass(inbox: &Inbox, now: Millis, bounds: InboxLimits) -> (usize, usize) {
    block_on(async {
        inbox.observe_clock(now, bounds).await.expect("commits");
        let (mut pruned, mut forgotten) = (0, 0);
        loop {
            match inbox.prune(bounds).await.expect("commits") {
                0 => break,
                some => pruned += some,
            }
        }
        loop {
            match inbox.forget(bounds).await.expect("commits") {
                0 => return (pruned, forgotten),
                some => forgotten += some,
            }
        }
    })
}

/// Passes a day apart.
fn days(inbox: &Inbox, from: i64, to: i64, bounds: InboxLimits) -> (usize, usize) {
    let each = (from..=to).map(|day| pass(inbox, Millis(START_MS + day * DAY_MS), bounds));
    each.fold((0, 0), |sum, pass| (sum.0 + pass.0, sum.1 + pass.1))
}

#[test]
fn a_message_that_was_removed_cleared_or_pruned_does_not_reappear() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let inbox = open(&dir);
    assert!(arrive(&inbox, "removed") && arrive(&inbox, "cleared"));
    assert!(block_on(inbox.remove("id-removed".into())).expect("commits"));
    assert!(!block_on(inbox.remove("id-removed".into())).expect("commits"), "only once");
    assert_eq!(block_on(inbox.clear(ClearFilter::default())).expect("commits"), 1);
    assert!(arrive(&inbox, "pruned"));
    assert_eq!(days(&inbox, 0, 40, BOUNDS).0, 1);
    assert_eq!(names(&inbox), Vec::<String>::new());
    for name in ["removed", "cleared", "pruned"] {
        assert!(!arrive(&inbox, name), "{name}");
    }
    // Under another broker id, but the sender's own: the other key knows it.
    let again = NewMessage { broker_message_id: "another".into(), ..message("pruned") };
    assert_eq!(store(&inbox, again), Stored::Duplicate);
}

#[test]
fn what_is_known_outlives_the_message_and_then_goes_too() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let inbox = open(&dir);
    arrive(&inbox, "old");
    days(&inbox, 0, 60, BOUNDS);
    arrive(&inbox, "young");
    assert_eq!((names(&inbox), known(&inbox)), (vec!["young".to_owned()], 2));
    let outlives = SEEN_OUTLIVES_MS / DAY_MS;
    assert_eq!(days(&inbox, 61, 30 + outlives - 1, BOUNDS), (0, 0));
    assert_eq!(days(&inbox, 30 + outlives, 30 + outlives + 1, BOUNDS), (0, 1));
    assert_eq!((names(&inbox), known(&inbox)), (vec!["young".to_owned()], 1));
}

#[test]
fn a_message_that_is_still_here_is_never_forgotten() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let inbox = open(&dir);
    arrive(&inbox, "m");
    days(&inbox, 0, 20, BOUNDS);
    // A bound that was shortened: forgetting alone must not outrun pruning.
    let shorter = InboxLimits { retention_ms: -SEEN_OUTLIVES_MS, ..BOUNDS };
    assert_eq!(block_on(inbox.forget(shorter)).expect("commits"), 0);
    assert!(!arrive(&inbox, "m"));
    block_on(inbox.clear(ClearFilter::default())).expect("commits");
    assert_eq!(block_on(inbox.forget(shorter)).expect("commits"), 1);
}

#[test]
fn a_clock_that_is_a_year_ahead_for_a_moment_removes_nothing() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let inbox = open(&dir);
    arrive(&inbox, "m");
    pass(&inbox, Millis(START_MS), BOUNDS);
    for year in [1, 0, 1, 0, 50, 0] {
        let now = Millis(START_MS + year * 365 * DAY_MS);
        assert_eq!(pass(&inbox, now, BOUNDS), (0, 0), "{year}");
    }
    // And a message that arrived while the clock was in the past is as young as it is.
    let unset = NewMessage { received_at: Millis(0), ..message("unset") };
    store(&inbox, unset);
    assert_eq!(days(&inbox, 1, 20, BOUNDS), (0, 0));
    assert_eq!(names(&inbox), ["m", "unset"]);
}

#[test]
fn beyond_its_size_the_inbox_loses_its_oldest_first() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let inbox = open(&dir);
    for n in 0..100 {
        let body = Some("x".repeat(20_000));
        store(&inbox, NewMessage { body, ..message(&format!("m{n:03}")) });
    }
    let bounds = InboxLimits { bytes_max: 1_000_000, ..BOUNDS };
    let (pruned, forgotten) = pass(&inbox, Millis(START_MS), bounds);
    assert!((50..90).contains(&pruned), "{pruned}");
    assert_eq!(forgotten, 0);
    let left = names(&inbox);
    assert_eq!(left.len(), 100 - pruned);
    assert_eq!(left[0], format!("m{pruned:03}"), "the oldest went");
    assert!(!arrive(&inbox, "m000"));
    assert_eq!(pass(&inbox, Millis(START_MS), bounds), (0, 0), "small enough");
}

/// Messages as they are: ids and keys of their usual lengths.
fn arrive_many(inbox: &Inbox, name: &str, has_client_id: bool) {
    arrive_some(inbox, 0..2000, name, has_client_id);
}

fn arrive_some(inbox: &Inbox, numbers: Range<i32>, name: &str, has_client_id: bool) {
    for n in numbers {
        let new = NewMessage {
            id: format!("{name}-{n}"),
            broker_message_id: format!("01JXT21W2X828JZ8{name}{n:04}"),
            client_message_id: has_client_id.then(|| format!("{:0>26}", n * 7919 % 10_000)),
            sender_pubkey: "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394"
                .into(),
            ..message(name)
        };
        store(inbox, new);
    }
}

fn asked(inbox: &Inbox, what: fn(&Tx<'_>) -> Result<i64, Error>) -> i64 {
    block_on(inbox.db.read(what)).expect("reads")
}

#[test]
fn what_is_known_of_messages_that_left_is_weighed_about_right() {
    for has_client_id in [false, true] {
        let dir = tempfile::tempdir().expect("a temp dir");
        let inbox = open(&dir);
        let empty = asked(&inbox, used_bytes);
        arrive_many(&inbox, "old", has_client_id);
        assert_eq!(asked(&inbox, departed_bytes), 0, "they are all here");
        block_on(inbox.clear(ClearFilter::default())).expect("commits");
        let (taken, weighed) = (asked(&inbox, used_bytes) - empty, asked(&inbox, departed_bytes));
        let percent = weighed * 100 / taken;
        assert!((100..=140).contains(&percent), "{weighed} of {taken}: {percent} %");
    }
}

#[test]
fn what_is_known_of_messages_that_left_does_not_drive_out_the_others() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let inbox = open(&dir);
    arrive_many(&inbox, "old", true);
    block_on(inbox.clear(ClearFilter::default())).expect("commits");
    let known = asked(&inbox, used_bytes);
    arrive_many(&inbox, "new", false);
    // Half of the bound is left to messages, and they would take more.
    let bounds = InboxLimits { bytes_max: known / 2, ..BOUNDS };
    let (pruned, _) = pass(&inbox, Millis(START_MS), bounds);
    assert!((100..1900).contains(&pruned), "{pruned}");
    assert_eq!(pass(&inbox, Millis(START_MS), bounds).0, 0, "small enough");
}

#[test]
fn messages_among_those_that_left_stay_too() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let inbox = open(&dir);
    for n in 0..40 {
        arrive_some(&inbox, n * 50..(n + 1) * 50, "old", true);
        store(&inbox, NewMessage { mesh: "work".into(), ..message(&format!("stays-{n}")) });
    }
    let cleared = ClearFilter { mesh: Some("demo".into()), before: None };
    assert_eq!(block_on(inbox.clear(cleared)).expect("commits"), 2000);
    let bounds = InboxLimits { bytes_max: asked(&inbox, used_bytes) / 2, ..BOUNDS };
    assert_eq!(pass(&inbox, Millis(START_MS), bounds).0, 0);
    assert_eq!(names(&inbox).len(), 40);
}

#[test]
fn clearing_takes_what_it_was_told_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let inbox = open(&dir);
    for n in 0..300 {
        let mesh = if n % 3 == 0 { "work" } else { "demo" };
        let received_at = Millis(START_MS + n);
        let message = message(&format!("m{n}"));
        store(&inbox, NewMessage { mesh: mesh.into(), received_at, ..message });
    }
    let clear = |mesh: Option<&str>, before: Option<i64>| {
        let which = ClearFilter {
            mesh: mesh.map(str::to_owned),
            before: before.map(|at| Millis(START_MS + at)),
        };
        block_on(inbox.clear(which)).expect("commits")
    };
    assert_eq!(clear(Some("nowhere"), None), 0);
    assert_eq!(clear(Some("work"), Some(150)), 50);
    assert_eq!(clear(None, Some(10)), 6);
    assert_eq!(clear(None, None), 244);
    assert_eq!(clear(None, None), 0);
}

#[test]
fn an_inbox_of_the_older_schema_keeps_its_messages_and_what_it_knows() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let path = dir.path().join("inbox.db");
    let older = Db::open(&path, &schema::older::INBOX, Driver::Threaded).expect("opens");
    let job = |tx: &Tx<'_>| {
        tx.execute(
            "INSERT INTO inbox (id, client_message_id, broker_message_id, mesh, sender_pubkey, \
             body, priority, encryption, received_at) \
             VALUES ('id-m', 'm', 'broker-m', 'demo', 'alice', 'hola', 'next', 'direct', 1)",
            &[],
        )?;
        tx.execute(
            "INSERT INTO seen (mesh, broker_message_id, sender, client_message_id, first_seen_at) \
             VALUES ('demo', 'broker-m', 'alice', 'm', 1)",
            &[],
        )
    };
    let inserted = older.write(Durability::Synced, job, |_: &Result<usize, Error>| ());
    block_on(inserted).expect("inserts");
    older.close();
    let inbox = open(&dir);
    assert_eq!(names(&inbox), ["m"]);
    assert!(!arrive(&inbox, "m"));
    assert_eq!(pass(&inbox, Millis(START_MS), BOUNDS), (0, 0), "its age begins now");
    assert_eq!(days(&inbox, 1, 30 + SEEN_OUTLIVES_MS / DAY_MS, BOUNDS), (1, 1));
}
