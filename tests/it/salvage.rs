//! What `daemon recover --salvage` saves of a damaged outbox (§4.11): everything that can be read,
//! and nothing else. Bytes are flipped at random in copies of a real database; a look-up of every
//! row by its number says what could be read.
//!
//! `CLAUDEMESH_CASES=5000 cargo test --release --test it salvage` looks longer.

mod inbox;

use crate::support::chance::{Chance, seed};
use claudemesh_base::db::Check;
use claudemesh_base::db::Driver;
use claudemesh_base::message::fingerprint_of;
use claudemesh_daemon::repair::{Saved, Store, check};
use claudemesh_daemon::store::outbox::{NewRow, Outbox, RequeueOutcome, RequeueRequest};
use claudemesh_fsm::envelope::{Destination, Draft, Envelope, Priority, Recipient};
use claudemesh_fsm::id::{BrokerMessageId, ClientMessageId, Fingerprint, Millis, RowId};
use claudemesh_fsm::outbox::{Ack, Status};
use smol::future::block_on;
use sqlite::{Connection, OpenFlags, State};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

const ROWS: usize = 400;
/// How many copies are damaged.
const CASES: &str = "CLAUDEMESH_CASES";
const CASES_DEFAULT: usize = 200;
const PAGE_BYTES: usize = 4096;

/// What binds an id.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bound {
    row_id: String,
    id: String,
    fingerprint: Vec<u8>,
    status: String,
}

fn envelope(number: usize) -> Envelope {
    let destination = match number % 3 {
        0 => Destination::Member(format!("peer-{number}")),
        1 => Destination::Topic("deploys".into()),
        _ => Destination::Everyone,
    };
    let recipient = Recipient {
        routing_key: format!("{number:064x}"),
        member_key: format!("{:064x}", number + 1),
    };
    let mut draft = Draft {
        destination,
        priority: Priority::Next,
        meta: number.is_multiple_of(5).then(|| format!("{{\"n\":{number}}}")),
        reply_to_id: None,
        mentions: Vec::new(),
        // Some have pages of their own.
        payload: vec![b'x'; if number.is_multiple_of(50) { 9000 } else { 40 + number % 100 }],
        fingerprint: Fingerprint::new([0; 32]),
    };
    draft.fingerprint = fingerprint_of(&draft);
    draft.address("demo", |_| Ok::<_, ()>(recipient)).expect("an envelope")
}

/// An outbox with rows in several states, closed in order.
fn real_outbox(path: &Path) {
    let outbox = Outbox::open(path, Driver::Threaded, Arc::new(|_| ())).expect("opens");
    block_on(async {
        for number in 0..ROWS {
            let new = NewRow {
                id: RowId::trusted(format!("01JD8Q4M{number:018}")),
                key: ClientMessageId::trusted(format!("message-{number}")).into(),
                envelope: envelope(number),
                enqueued_at: Millis(1_750_000_000_000 + number as i64),
            };
            outbox.accept(new).await.expect("accepts");
        }
        let (now, never) = (Millis(1_760_000_000_000), Millis(0));
        let claimed = outbox.claim_due("demo", now, never, ROWS / 2).await.expect("claims");
        for (number, row) in claimed.rows.into_iter().enumerate() {
            let broker_message_id = BrokerMessageId::trusted(format!("broker-{number}"));
            let ack =
                Ack { broker_message_id, history_id: None, delivered_at: now, recipients: None };
            match number % 3 {
                0 => drop(outbox.store(row.acked(ack)).await.expect("stores")),
                1 => drop(outbox.store(row.refused("blocked".into())).await.expect("stores")),
                _ => {}
            }
        }
    });
    outbox.close();
}

/// Every row that a look-up by its number can read.
fn readable(path: &Path) -> BTreeMap<i64, Bound> {
    let mut found = BTreeMap::new();
    let Ok(connection) = Connection::open_with_flags(path, OpenFlags::new().with_read_only())
    else {
        return found;
    };
    let sql = "SELECT id AS a, client_message_id AS b, request_fingerprint AS c, status AS d, \
               length(payload) AS e FROM outbox NOT INDEXED WHERE seq = ?";
    for seq in 1..=ROWS as i64 + 10 {
        // Prepared anew each time: damage may stick to a statement.
        let Ok(mut statement) = connection.prepare(sql) else { continue };
        statement.bind((1, seq)).expect("binds");
        if matches!(statement.next(), Ok(State::Row))
            && let (Ok(row_id), Ok(id), Ok(fingerprint), Ok(status)) =
                (statement.read(0), statement.read(1), statement.read(2), statement.read(3))
        {
            found.insert(seq, Bound { row_id, id, fingerprint, status });
        }
    }
    found
}

fn damage(path: &Path, chance: &mut Chance) -> String {
    let file = std::fs::OpenOptions::new().write(true).read(true).open(path).expect("opens");
    let pages = file.metadata().expect("has a size").len() as usize / PAGE_BYTES;
    let mut log = String::new();
    for _ in 0..=chance.below(4) {
        // The first page mostly stays: without it there is nothing to tell apart.
        let page = if chance.one_in(20) { 0 } else { 1 + chance.below(pages - 1) };
        let at_header = chance.one_in(2);
        for _ in 0..=chance.below(8) {
            let offset = if at_header { chance.below(16) } else { chance.below(PAGE_BYTES) };
            let byte = chance.below(256) as u8;
            file.write_all_at(&[byte], (page * PAGE_BYTES + offset) as u64).expect("writes");
            log += &format!("page {} offset {offset} = {byte}; ", page + 1);
        }
    }
    log
}

/// Whether a row that is not in the new file as it was is told about. What a look-up finds on a page
/// whose own header is damaged differs from one to the next, so a row may be lost that another
/// look-up found; but it is never lost in silence.
fn is_told(report: &[Saved], seq: i64) -> bool {
    let outbox = report.iter().find(|saved| saved.table == "outbox").expect("the table");
    let mut notes = outbox.refused.iter().chain(&outbox.lost).chain(&outbox.mended);
    notes.any(|note| note.first <= seq && seq <= note.last)
}

#[test]
fn nothing_readable_is_lost_and_nothing_is_invented() {
    let seed = seed();
    let cases = std::env::var(CASES).map_or(CASES_DEFAULT, |text| text.parse().expect("a number"));
    let dir = tempfile::tempdir().expect("a directory");
    let original_path = dir.path().join("outbox.db");
    real_outbox(&original_path);
    let original = readable(&original_path);
    assert_eq!(original.len(), ROWS);
    let names: BTreeMap<&str, &Bound> = original.values().map(|b| (b.id.as_str(), b)).collect();
    let (mut lost_any, mut mended) = (0, 0);
    for case in 0..cases {
        let mut chance = Chance::new(seed.wrapping_add(case as u64));
        let (from, to) = (dir.path().join("damaged.db"), dir.path().join("saved.db"));
        std::fs::copy(&original_path, &from).expect("copies");
        let _ = std::fs::remove_file(&to);
        let told = damage(&from, &mut chance);
        let about = format!("case {case} of seed {seed}: {told}");
        let expected = readable(&from);
        let before = std::fs::read(&from).expect("reads");
        let report = match Store::Outbox.salvage(&from, &to) {
            Ok(report) => report,
            // The version in the header was hit.
            Err(error) => {
                assert!(error.to_string().contains("upgrade"), "{about}: {error}");
                continue;
            }
        };
        assert_eq!(std::fs::read(&from).expect("reads"), before, "{about}: it was changed");
        assert_eq!(check(&to).expect("reads"), Check::Whole, "{about}");
        let saved = readable(&to);
        let by_id: BTreeMap<&str, &Bound> = saved.values().map(|b| (b.id.as_str(), b)).collect();
        for (seq, bound) in &expected {
            let Some(kept) = by_id.get(bound.id.as_str()) else {
                assert!(
                    is_told(&report, *seq),
                    "{about}: row {seq} is lost: {bound:?}; there is {:?}; the report says {:?}",
                    saved.get(seq),
                    report.iter().find(|saved| saved.table == "outbox")
                );
                continue;
            };
            let is_dead = kept.status == "dead";
            assert!(kept.status == bound.status || is_dead, "{about}: {bound:?} {kept:?}");
            let is_same = kept.fingerprint == bound.fingerprint;
            assert!(is_same || is_told(&report, *seq), "{about}: {bound:?} {kept:?}");
            mended += usize::from(kept.status != bound.status);
        }
        for (seq, kept) in &saved {
            let was_read = expected.get(seq).is_some_and(|bound| bound.id == kept.id);
            let was_there = names.get(kept.id.as_str()).is_some_and(|bound| {
                bound.row_id == kept.row_id || bound.fingerprint == kept.fingerprint
            });
            assert!(
                was_read || was_there || is_told(&report, *seq),
                "{about}: row {seq} is invented: {kept:?}"
            );
        }
        lost_any += usize::from(saved.len() < ROWS);
        if case % 10 != 0 {
            continue;
        }
        let open = Outbox::open(&to, Driver::Threaded, Arc::new(|_| ())).expect("opens");
        block_on(open.recover(Millis(1), None)).expect("recovers");
        let depths = open.depths();
        let kept = depths.values().flat_map(|depth| Status::ALL.map(|status| depth.of(status)));
        assert_eq!(kept.sum::<u64>(), saved.len() as u64, "{about}");
        open.close();
    }
    println!("{cases} cases: rows were lost in {lost_any}, {mended} rows were mended");
    assert!(lost_any > cases / 10, "the damage was real");
}

#[test]
fn rows_that_are_only_in_the_log_are_saved() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("outbox.db");
    let outbox = Outbox::open(&path, Driver::Threaded, Arc::new(|_| ())).expect("opens");
    for number in 0..20 {
        let new = NewRow {
            id: RowId::trusted(format!("01JD8Q4M{number:018}")),
            key: ClientMessageId::trusted(format!("message-{number}")).into(),
            envelope: envelope(number),
            enqueued_at: Millis(1),
        };
        block_on(outbox.accept(new)).expect("accepts");
    }
    // As a crash leaves it: the rows are in the log alone.
    let copy = dir.path().join("copy.db");
    std::fs::copy(&path, &copy).expect("copies");
    std::fs::copy(path.with_extension("db-wal"), copy.with_extension("db-wal")).expect("copies");
    outbox.close();
    let to = dir.path().join("saved.db");
    let report = Store::Outbox.salvage(&copy, &to).expect("salvages");
    assert_eq!(
        report.iter().find(|saved| saved.table == "outbox").map(|saved| saved.rows),
        Some(20)
    );
    assert_eq!(readable(&to).len(), 20);
}

#[test]
fn a_message_whose_contents_were_damaged_is_not_sent_and_its_id_stays_bound() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("outbox.db");
    real_outbox(&path);
    let connection = sqlite::open(&path).expect("opens");
    let harm = "UPDATE outbox SET payload = x'00ff' WHERE seq = 300; \
                UPDATE outbox SET enqueued_at = 'no number' WHERE seq = 301;";
    connection.execute(harm).expect("harms");
    drop(connection);
    let before = readable(&path);
    let to = dir.path().join("saved.db");
    let report = Store::Outbox.salvage(&path, &to).expect("salvages");
    let saved = readable(&to);
    for seq in [300, 301] {
        assert_eq!(before[&seq].status, "pending");
        let expected = Bound { status: "dead".into(), ..before[&seq].clone() };
        assert_eq!(saved[&seq], expected);
    }
    let connection = sqlite::open(&to).expect("opens");
    let sql = "SELECT count(*) FROM outbox WHERE seq IN (300, 301) AND may_have_been_sent";
    // They waited, and what doubted them is not in the rows: nobody can deny an attempt.
    assert_eq!(number(&connection, sql), 2);
    let outbox = report.iter().find(|saved| saved.table == "outbox").expect("the table");
    let mended: Vec<i64> = outbox.mended.iter().map(|note| note.first).collect();
    assert_eq!((outbox.rows, mended), (ROWS as u64, vec![300, 301]));
}

#[test]
fn a_message_that_lost_where_it_goes_keeps_its_id_and_cannot_be_requeued() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("outbox.db");
    real_outbox(&path);
    let connection = sqlite::open(&path).expect("opens");
    let harm = "UPDATE outbox SET recipient = x'00' WHERE seq = 301; \
                UPDATE outbox SET recipient = NULL WHERE seq = 304; \
                UPDATE outbox SET recipient = NULL, status = 'dead', last_error = 'blocked' \
                WHERE seq = 307; \
                UPDATE outbox SET mesh = x'00' WHERE seq = 302; \
                UPDATE outbox SET destination_ref = x'00' WHERE seq = 303; \
                UPDATE outbox SET attempts = 5000000000 WHERE seq = 305;";
    connection.execute(harm).expect("harms");
    drop(connection);
    let to = dir.path().join("saved.db");
    let report = Store::Outbox.salvage(&path, &to).expect("salvages");
    let outbox = report.iter().find(|saved| saved.table == "outbox").expect("the table");
    assert_eq!((outbox.rows, outbox.refused.len()), (ROWS as u64, 0));
    let saved = readable(&to);
    let outbox = Outbox::open(&to, Driver::Threaded, Arc::new(|_| ())).expect("opens");
    let requeue = |seq: i64| {
        let request = RequeueRequest {
            id: RowId::trusted(saved[&seq].row_id.clone()),
            new_id: RowId::trusted(format!("next-{seq}")),
            new_client_message_id: ClientMessageId::trusted(format!("next-{seq}")),
            patch: None,
            check_size: Box::new(|_, _| Ok(())),
            aborted_by: "alice".into(),
            now: Millis(1),
            force: true,
        };
        block_on(outbox.requeue(request)).expect("answers")
    };
    for seq in [301, 302, 303, 304, 307] {
        assert_eq!(saved[&seq].status, "dead");
        assert_eq!(requeue(seq), RequeueOutcome::NoDestination, "{seq}");
    }
    assert_eq!(saved[&305].status, "dead");
    assert!(matches!(requeue(305), RequeueOutcome::Requeued { .. }));
    outbox.close();
}

fn number(connection: &Connection, sql: &str) -> i64 {
    let mut statement = connection.prepare(sql).expect("prepares");
    assert!(matches!(statement.next().expect("runs"), State::Row));
    statement.read(0).expect("a number")
}

#[test]
fn the_receipt_of_a_message_that_is_lost_is_not_the_next_ones() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("outbox.db");
    real_outbox(&path);
    let connection = sqlite::open(&path).expect("opens");
    // As damage leaves it that takes the newest rows, and the receipts not.
    let harm = "INSERT INTO receipt SELECT seq, 1, 1, 0, 5 FROM outbox; \
                DELETE FROM outbox WHERE seq > (SELECT max(seq) FROM outbox) - 3;";
    connection.execute(harm).expect("harms");
    drop(connection);
    let to = dir.path().join("saved.db");
    Store::Outbox.salvage(&path, &to).expect("salvages");
    let outbox = Outbox::open(&to, Driver::Threaded, Arc::new(|_| ())).expect("opens");
    let id = ClientMessageId::trusted("new".to_owned());
    let new = NewRow {
        id: RowId::trusted("row-new".to_owned()),
        key: id.clone().into(),
        envelope: envelope(1),
        enqueued_at: Millis(1),
    };
    block_on(outbox.accept(new)).expect("accepts");
    let view = block_on(outbox.view(&id)).expect("reads").expect("is there");
    assert_eq!((view.seq, view.receipt), (ROWS as i64 - 2, None));
    outbox.close();
    let connection = sqlite::open(&to).expect("opens");
    assert_eq!(number(&connection, "SELECT count(*) FROM receipt"), ROWS as i64 - 3);
}
