//! The writer's promises, against real files.

use super::*;
use smol::future::block_on;

static NOTES: Migrations = Migrations {
    name: "notes",
    steps: &["CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT UNIQUE NOT NULL)"],
    adoption: None,
};

fn open(dir: &tempfile::TempDir) -> Db {
    Db::open(&dir.path().join("notes.db"), &NOTES, Driver::Threaded).expect("opens")
}

async fn insert(db: &Db, text: &str) -> Result<usize, Error> {
    let text = text.to_owned();
    let job =
        move |tx: &Tx<'_>| tx.execute("INSERT INTO note (text) VALUES (?)", &[(&text).into()]);
    db.write(Durability::Synced, job, |_| ()).await
}

async fn texts(db: &Db) -> Vec<String> {
    let query = |tx: &Tx<'_>| tx.query("SELECT text FROM note ORDER BY id", &[], |row| row.text(0));
    db.read::<_, Error, _>(query).await.expect("reads")
}

#[test]
fn a_failing_job_is_rolled_back_alone() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let db = open(&dir);
    block_on(async {
        insert(&db, "one").await.expect("inserts");
        let error = insert(&db, "one").await.expect_err("is not unique");
        assert_eq!(error.kind(), Kind::Constraint);
        let half = |tx: &Tx<'_>| {
            tx.execute("INSERT INTO note (text) VALUES ('half')", &[])?;
            Err::<(), _>(Error::new(Kind::Other, "changed my mind"))
        };
        let refused = db.write(Durability::Synced, half, |_| ()).await;
        assert_eq!(refused.map_err(|e| e.to_string()), Err("changed my mind".into()));
        assert_eq!(texts(&db).await, ["one"]);
    });
}

#[test]
fn jobs_that_wait_together_all_get_their_own_answer() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let db = open(&dir);
    let executor = smol::Executor::new();
    let inserts: Vec<_> = (0..500)
        .map(|n| {
            let db = db.clone();
            // Every tenth is a duplicate of the one before it.
            let text = format!("note {}", if n % 10 == 9 { n - 1 } else { n });
            executor.spawn(async move { insert(&db, &text).await.is_ok() })
        })
        .collect();
    let stored = block_on(executor.run(async {
        let mut stored = 0;
        for insert in inserts {
            stored += usize::from(insert.await);
        }
        stored
    }));
    assert_eq!(stored, 450);
    assert_eq!(block_on(texts(&db)).len(), 450);
}

#[test]
fn what_hangs_on_a_commit_runs_even_when_the_caller_goes_away() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let db = open(&dir);
    let (ran, closed) = smol::channel::bounded(1);
    let job = |tx: &Tx<'_>| tx.execute("INSERT INTO note (text) VALUES ('kept')", &[]);
    let after = move |result: &Result<usize, Error>| {
        ran.try_send(result.is_ok()).expect("room for one");
    };
    drop(db.try_write_one(job, after));
    assert_eq!(closed.recv_blocking(), Ok(true));
    assert_eq!(block_on(texts(&db)), ["kept"]);
}

#[test]
fn closing_finishes_what_was_queued_and_refuses_the_rest() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let db = open(&dir);
    let job = |tx: &Tx<'_>| tx.execute("INSERT INTO note (text) VALUES ('last')", &[]);
    let queued = db.try_write_one::<_, Error, _, _>(job, |_| ());
    db.close();
    assert!(block_on(queued).is_ok());
    assert_eq!(block_on(insert(&db, "late")).map_err(|e| e.kind()), Err(Kind::Closed));
    assert_eq!(block_on(texts(&open(&dir))), ["last"]);
}

#[test]
fn a_newer_a_foreign_and_a_damaged_file_are_refused_untouched() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let refusal = |name: &str, setup: &str| {
        let path = dir.path().join(name);
        sqlite::open(&path).and_then(|c| c.execute(setup)).expect("sets up");
        let before = std::fs::read(&path).expect("reads");
        let error = Db::open(&path, &NOTES, Driver::Threaded).err().expect("is refused");
        assert_eq!(std::fs::read(&path).expect("reads"), before);
        error.kind()
    };
    assert_eq!(refusal("newer.db", "PRAGMA user_version = 9"), Kind::Newer);
    assert_eq!(refusal("foreign.db", "CREATE TABLE other (x)"), Kind::Foreign);
    let path = dir.path().join("damaged.db");
    std::fs::write(&path, b"this is not a database, whatever its name says").expect("writes");
    let error = Db::open(&path, &NOTES, Driver::Threaded).err().expect("is refused");
    assert_eq!(error.kind(), Kind::Corrupt);
}

#[test]
fn the_file_and_its_companions_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a temp dir");
    let db = open(&dir);
    block_on(insert(&db, "secret")).expect("inserts");
    for name in ["notes.db", "notes.db-wal", "notes.db-shm"] {
        let mode = std::fs::metadata(dir.path().join(name)).expect(name).permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

/// Another program's notes: a table `memo`, to be taken over.
static TAKES_MEMOS: Migrations = Migrations {
    name: "notes",
    steps: &[
        "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT UNIQUE NOT NULL)",
        "CREATE INDEX note_text ON note (text)",
    ],
    adoption: Some(&Adoption {
        from: "the memo program",
        recognises: |tx| {
            let sql = "SELECT count(*) FROM sqlite_schema WHERE name = 'memo'";
            Ok(tx.query_row(sql, &[], |row| row.int(0))? == Some(1))
        },
        set_aside: |tx| tx.execute("ALTER TABLE memo RENAME TO theirs", &[]).map(drop),
        version: 1,
        carry_over: |tx| {
            let sql = "INSERT INTO note (text) SELECT text FROM theirs ORDER BY rowid";
            let result = tx.execute(sql, &[])?;
            tx.execute("DROP TABLE theirs", &[])?;
            Ok(result)
        },
    }),
};

const MEMOS: &str = "PRAGMA journal_mode=WAL; CREATE TABLE memo (text TEXT); \
                     INSERT INTO memo VALUES ('one'), ('two')";

#[test]
fn a_database_of_another_program_is_taken_over_whole_and_then_is_ours() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a temp dir");
    let path = dir.path().join("notes.db");
    sqlite::open(&path).and_then(|c| c.execute(MEMOS)).expect("sets up");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("is ours");
    for _ in 0..2 {
        let db = Db::open(&path, &TAKES_MEMOS, Driver::Threaded).expect("opens");
        assert_eq!(block_on(texts(&db)), ["one", "two"]);
        db.close();
    }
    let mode = std::fs::metadata(&path).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let version = sqlite::open(&path).expect("opens");
    let version = version.prepare("PRAGMA user_version").and_then(|mut s| {
        s.next()?;
        s.read::<i64, _>(0)
    });
    assert_eq!(version.expect("reads"), 2, "the steps after the adoption ran too");
}

#[test]
fn a_take_over_that_fails_leaves_the_file_as_it_was() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let path = dir.path().join("notes.db");
    let twice = format!("{MEMOS}; INSERT INTO memo VALUES ('one')");
    sqlite::open(&path).and_then(|c| c.execute(twice)).expect("sets up");
    let before = std::fs::read(&path).expect("reads");
    let error = Db::open(&path, &TAKES_MEMOS, Driver::Threaded).err().expect("fails");
    assert_eq!(error.kind(), Kind::Constraint);
    assert!(error.to_string().contains("from the memo program"), "{error}");
    assert_eq!(std::fs::read(&path).expect("reads"), before);
}

#[test]
fn a_database_that_its_program_still_has_open_is_not_taken_over() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let path = dir.path().join("notes.db");
    let theirs = sqlite::open(&path).expect("opens");
    theirs.execute(MEMOS).expect("sets up");
    let error = Db::open(&path, &TAKES_MEMOS, Driver::Threaded).err().expect("is refused");
    assert_eq!(error.kind(), Kind::InUse, "{error}");
    theirs.execute("INSERT INTO memo VALUES ('three')").expect("still works for them");
    drop(theirs);
    let db = Db::open(&path, &TAKES_MEMOS, Driver::Threaded).expect("opens");
    assert_eq!(block_on(texts(&db)), ["one", "two", "three"]);
}

#[test]
fn a_panic_on_the_writer_answers_everybody_and_is_told() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let db = open(&dir);
    let (enter, entered) = smol::channel::bounded::<()>(1);
    let (leave, left) = smol::channel::bounded::<()>(1);
    let panics = move |_: &Tx<'_>| -> Result<usize, Error> {
        enter.send_blocking(()).expect("somebody waits");
        left.recv_blocking().expect("somebody says when");
        panic!("a defect in a job");
    };
    let executor = smol::Executor::new();
    let panicked = executor.spawn({
        let db = db.clone();
        async move { db.write(Durability::Synced, panics, |_| ()).await }
    });
    block_on(executor.run(async { entered.recv().await })).expect("it runs");
    // Jobs that wait behind it, too.
    let waiting = db.try_write_one::<_, Error, _, _>(|_| Ok(()), |_| ());
    leave.send_blocking(()).expect("it waits");
    block_on(executor.run(async {
        assert_eq!(panicked.await.map_err(|e| e.kind()), Err(Kind::Closed));
        assert_eq!(waiting.await.map_err(|e| e.kind()), Err(Kind::Closed));
        assert_eq!(insert(&db, "late").await.map_err(|e| e.kind()), Err(Kind::Closed));
        db.lost().await;
    }));
}

#[test]
fn damage_that_is_met_ends_reading_and_writing() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().expect("a temp dir");
    let db = open(&dir);
    block_on(insert(&db, "one")).expect("inserts");
    // In order, so that the page is in the file and not in its log.
    db.close();
    let db = open(&dir);
    assert_eq!(db.integrity(), Integrity::Whole);
    let file = std::fs::OpenOptions::new().write(true).open(db.path()).expect("opens");
    // The table's own page; nobody has read it yet.
    file.write_all_at(&[0xEE; 64], 4096).expect("writes");
    let query = |tx: &Tx<'_>| tx.query("SELECT text FROM note", &[], |row| row.text(0));
    let read = block_on(db.read::<_, Error, _>(query));
    assert_eq!(read.map_err(|e| e.kind()), Err(Kind::Corrupt));
    assert!(matches!(db.integrity(), Integrity::Damaged(_)));
    let written = block_on(insert(&db, "two"));
    assert_eq!(written.map_err(|e| e.kind()), Err(Kind::Corrupt));
    // What is found once stays found, whatever a check says later.
    db.check_whole();
    assert!(matches!(db.integrity(), Integrity::Damaged(_)));
}
