//! The counters agree with the rows, whatever happened to them.

use super::*;
use crate::store::outbox::{NewRow, Outbox, RequeueRequest};
use crate::store::schema;
use claudemesh_base::db::Driver;
use claudemesh_fsm::envelope::{Destination, Draft, Priority};
use claudemesh_fsm::id::{BrokerMessageId, ClientMessageId, Fingerprint, Millis, RowId};
use claudemesh_fsm::outbox::Ack;
use smol::future::block_on;
use std::path::Path;

const NOW: Millis = Millis(1_000_000);

fn open(path: &Path) -> Outbox {
    Outbox::open(path, Driver::Threaded, Arc::new(|_| ())).expect("opens")
}

fn new_row(number: usize) -> NewRow {
    let mesh = if number.is_multiple_of(3) { "demo" } else { "work" };
    let draft = Draft {
        destination: Destination::Everyone,
        priority: Priority::Next,
        meta: number.is_multiple_of(2).then(|| "{\"key\":\"✔\"}".to_owned()),
        reply_to_id: None,
        mentions: Vec::new(),
        payload: vec![b'x'; number],
        fingerprint: Fingerprint::new([7; 32]),
    };
    NewRow {
        id: RowId::trusted(format!("row-{number}")),
        key: ClientMessageId::trusted(format!("message-{number}")).into(),
        envelope: draft.address(mesh, |_| Err(())).expect("an envelope"),
        enqueued_at: NOW,
    }
}

/// What a scan of the rows says: mesh, status, rows, weight.
fn scanned(path: &Path) -> Vec<(String, String, i64, i64)> {
    let connection = sqlite::open(path).expect("opens");
    let sql = "SELECT mesh, status, count(*), \
               sum(512 + length(payload) + coalesce(length(CAST(meta AS BLOB)), 0)) \
               FROM outbox GROUP BY mesh, status ORDER BY mesh, status";
    let mut statement = connection.prepare(sql).expect("prepares");
    let mut rows = Vec::new();
    while statement.next().expect("runs") == sqlite::State::Row {
        let row = (statement.read(0), statement.read(1), statement.read(2), statement.read(3));
        rows.push((
            row.0.expect("text"),
            row.1.expect("text"),
            row.2.expect("a number"),
            row.3.expect("a number"),
        ));
    }
    rows
}

/// What the counters say, in the same form.
fn kept(outbox: &Outbox) -> Vec<(String, String, i64, i64)> {
    let mut rows = Vec::new();
    for (mesh, depth) in outbox.depths() {
        for status in Status::ALL {
            let (count, bytes) = (depth.rows[status as usize], depth.bytes[status as usize]);
            if (count, bytes) != (0, 0) {
                let name = status.as_str().to_owned();
                rows.push((mesh.clone(), name, count as i64, bytes as i64));
            }
        }
    }
    rows.sort();
    rows
}

async fn live_a_little(outbox: &Outbox) {
    for number in 0..40 {
        outbox.accept(new_row(number)).await.expect("accepts");
    }
    outbox.accept(new_row(7)).await.expect("answers a repeat");
    let claimed = outbox.claim_due("work", NOW, Millis(0), 12).await.expect("claims");
    for (number, row) in claimed.rows.into_iter().enumerate() {
        let broker_message_id = BrokerMessageId::trusted(format!("broker-{number}"));
        let ack =
            Ack { broker_message_id, history_id: None, delivered_at: NOW, recipients: Some(1) };
        match number % 4 {
            0 => drop(outbox.store(row.acked(ack)).await.expect("stores")),
            1 => drop(outbox.store(row.refused("blocked".into())).await.expect("stores")),
            2 => drop(outbox.store(row.lost("cut".into(), NOW)).await.expect("stores")),
            _ => {}
        }
    }
    let patch = crate::store::outbox::Patch {
        payload: vec![b'y'; 1000],
        fingerprint: |_| Fingerprint::new([8; 32]),
    };
    let request = RequeueRequest {
        id: RowId::trusted("row-3".into()),
        new_id: RowId::trusted("row-new".into()),
        new_client_message_id: ClientMessageId::trusted("message-new".into()),
        patch: Some(patch),
        check_size: Box::new(|_, _| Ok(())),
        aborted_by: "operator".into(),
        now: NOW,
        force: false,
    };
    outbox.requeue(request).await.expect("requeues");
}

#[test]
fn what_is_kept_is_what_a_scan_would_count() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("outbox.db");
    let outbox = open(&path);
    block_on(live_a_little(&outbox));
    assert_eq!(kept(&outbox), scanned(&path));
    let before = kept(&outbox);
    outbox.close();
    // The table says the same as the memory did.
    let outbox = open(&path);
    assert_eq!(kept(&outbox), before);
    block_on(outbox.recover(NOW, None)).expect("recovers");
    assert_eq!(kept(&outbox), scanned(&path));
}

#[test]
fn after_an_end_that_was_not_in_order_the_rows_are_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, crashed) = (dir.path().join("outbox.db"), dir.path().join("crashed.db"));
    let outbox = open(&path);
    outbox.close();
    let outbox = open(&path);
    block_on(outbox.recover(NOW, Some("this boot".into()))).expect("recovers");
    block_on(live_a_little(&outbox));
    let connection = sqlite::open(&path).expect("opens");
    connection.execute(format!("VACUUM INTO '{}'", crashed.display())).expect("copies");
    assert_eq!(kept(&open(&crashed)), kept(&outbox));
}

#[test]
fn the_rows_of_an_older_outbox_are_counted_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, older) = (dir.path().join("outbox.db"), dir.path().join("older.db"));
    let outbox = open(&path);
    block_on(live_a_little(&outbox));
    let expected = kept(&outbox);
    outbox.close();
    // The first schema, with the same rows.
    let connection = sqlite::open(&older).expect("opens");
    let first = schema::OUTBOX.steps[0];
    let copy = format!(
        "{first}; PRAGMA user_version = 1; ATTACH '{}' AS newer; \
         INSERT INTO outbox SELECT * FROM newer.outbox;",
        path.display()
    );
    connection.execute(copy).expect("copies");
    drop(connection);
    assert_eq!(kept(&open(&older)), expected);
}

#[test]
fn backed_off_rows_are_made_due_some_at_a_time_and_all_in_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("outbox.db");
    open(&path).close();
    let connection = sqlite::open(&path).expect("opens");
    let fill = "INSERT INTO outbox (id, client_message_id, request_fingerprint, payload, mesh, \
                destination_kind, destination_ref, priority, enqueued_at, next_attempt_at, status) \
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) \
                SELECT 'r' || i, 'm' || i, zeroblob(32), x'00', 'demo', 'topic', '*', \
                CASE i % 3 WHEN 0 THEN 'now' WHEN 1 THEN 'next' ELSE 'low' END, 1, \
                2000000 + i, 'pending' FROM n;";
    connection.execute(fill).expect("fills");
    // Not in order: what was noted before is not believed.
    connection.execute("UPDATE host SET boot_id = NULL").expect("forgets");
    let outbox = open(&path);
    let due = || {
        let sql = "SELECT count(*) FROM outbox WHERE next_attempt_at <= 1000000";
        let mut statement = connection.prepare(sql).expect("prepares");
        statement.next().expect("runs");
        statement.read::<i64, _>(0).expect("a number")
    };
    let some = block_on(outbox.expedite_some("demo", NOW, 600)).expect("hastens");
    assert!((600..1200).contains(&some), "{some}");
    assert_eq!(due(), some as i64);
    let rest = block_on(outbox.expedite("demo", NOW)).expect("hastens");
    assert_eq!((some + rest, due()), (3000, 3000));
    assert_eq!(block_on(outbox.expedite("demo", NOW)).expect("hastens"), 0);
}
