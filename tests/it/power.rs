//! What an outbox says after its host may have lost power (§4.7): the claims that were not synced
//! may be forgotten, so no row that waited through it is said to be unsent.

use claudemesh_base::db::{Driver, Durability, Error, Faults, Kind};
use claudemesh_base::paths::Paths;
use claudemesh_base::runtime::Runtime;
use claudemesh_daemon::events::EventBus;
use claudemesh_daemon::mesh::Meshes;
use claudemesh_daemon::startup::stores;
use claudemesh_daemon::store::outbox::{
    ListQuery, NewRow, Outbox, RequeueOutcome, RequeueRequest, RowView,
};
use claudemesh_daemon::store::quota::StorageLimits;
use claudemesh_fsm::envelope::{Destination, Draft, Priority};
use claudemesh_fsm::id::{BrokerMessageId, ClientMessageId, Fingerprint, Millis, RowId};
use claudemesh_fsm::outbox::{Ack, Status};
use smol::block_on;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const MESH: &str = "demo";
const NOW: Millis = Millis(1_000_000);
/// Before every row: none is too old.
const NEVER: Millis = Millis(i64::MIN);

/// A life of a daemon that began in this boot.
struct Life {
    outbox: Outbox,
    are_possibly_sent: bool,
}

impl Life {
    fn begin(dir: &Path, boot_id: Option<&str>) -> Self {
        let path = dir.join("outbox.db");
        let outbox = Outbox::open(&path, Driver::Threaded, Arc::new(|_| ())).expect("opens");
        let recovered = block_on(outbox.recover(NOW, boot_id.map(str::to_owned)));
        Self { are_possibly_sent: recovered.expect("recovers").are_possibly_sent, outbox }
    }

    /// Ends without a note of it, as a crash or a power cut does.
    fn die(self) {
        self.outbox.db().close();
    }

    fn accept(&self, id: &str) {
        let draft = Draft {
            destination: Destination::Everyone,
            priority: Priority::Next,
            meta: None,
            reply_to_id: None,
            mentions: Vec::new(),
            payload: b"m".to_vec(),
            fingerprint: Fingerprint::new([7; 32]),
        };
        let envelope = draft.address(MESH, |_| Err(())).expect("an envelope");
        let new = NewRow {
            id: row_id(id),
            key: ClientMessageId::trusted(id.into()).into(),
            envelope,
            enqueued_at: NOW,
        };
        block_on(self.outbox.accept(new)).expect("accepts");
    }

    fn view(&self, id: &str) -> RowView {
        let id = ClientMessageId::trusted(id.into());
        block_on(self.outbox.view(&id)).expect("reads").expect("is there")
    }

    fn requeue(&self, id: &str, force: bool) -> RequeueOutcome {
        let new = format!("{id}-again");
        let request = RequeueRequest {
            id: row_id(id),
            new_id: row_id(&new),
            new_client_message_id: ClientMessageId::trusted(new),
            patch: None,
            check_size: Box::new(|_, _| Ok(())),
            aborted_by: "operator".into(),
            now: NOW,
            force,
        };
        block_on(self.outbox.requeue(request)).expect("commits")
    }
}

/// A life in boot `one` that accepted a message, and died.
fn accepts_and_dies(dir: &Path, id: &str) {
    let life = Life::begin(dir, Some("one"));
    life.accept(id);
    life.die();
}

fn row_id(id: &str) -> RowId {
    RowId::trusted(format!("row-{id}"))
}

#[test]
fn a_row_that_waited_through_a_power_cut_may_have_been_sent() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let before = Life::begin(dir.path(), Some("one"));
    assert!(!before.are_possibly_sent, "a new outbox has nothing to doubt");
    before.accept("waits");
    assert!(!before.view("waits").may_have_been_sent);
    before.die();
    let after = Life::begin(dir.path(), Some("two"));
    assert!(after.are_possibly_sent);
    let row = after.view("waits");
    assert_eq!((row.status, row.attempts, row.may_have_been_sent), (Status::Pending, 0, true));
    let query = ListQuery { status: None, mesh: None, before_seq: None, limit: 10 };
    let page = block_on(after.outbox.list(query)).expect("reads");
    assert!(page.rows[0].may_have_been_sent);
    // An operator must insist, and the retired row keeps what was known of it.
    assert_eq!(after.requeue("waits", false), RequeueOutcome::MayHaveBeenSent);
    let done = RequeueOutcome::Requeued { may_have_been_sent: true };
    assert_eq!(after.requeue("waits", true), done);
    let row = after.view("waits");
    assert_eq!((row.status, row.may_have_been_sent), (Status::Aborted, true));
    // What is accepted from here on is known from its beginning.
    assert!(!after.view("waits-again").may_have_been_sent);
    after.accept("later");
    assert!(!after.view("later").may_have_been_sent);
}

/// A disk that fails the first commit.
#[derive(Default)]
struct FailsOnce {
    has_failed: AtomicBool,
}

impl Faults for FailsOnce {
    fn before_commit(&self, _: &Path, _: Durability) -> Result<(), Error> {
        if self.has_failed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::new(Kind::Io, "the disk failed"))
    }

    fn after_commit(&self, _: &Path, _: Durability) {}
}

#[test]
fn a_start_that_fails_leaves_the_doubt_to_the_next_one() {
    let dir = tempfile::tempdir().expect("a temp dir");
    accepts_and_dies(dir.path(), "waits");
    let [home, config_dir, daemon_dir] = [(); 3].map(|()| dir.path().to_path_buf());
    let paths = Paths { home, config_dir, daemon_dir };
    let (runtime, bus, meshes) =
        (Runtime::real(Arc::default()), EventBus::default(), Meshes::default());
    let driver = Driver::Inline(Arc::new(FailsOnce::default()));
    let boot_id = Some("two".to_owned());
    let opened =
        stores::open(&paths, driver, (&runtime, &bus, &meshes), StorageLimits::NONE, boot_id);
    assert_eq!(block_on(opened).err().map(|error| error.kind()), Some(Kind::Io));
    let after = Life::begin(dir.path(), Some("two"));
    assert!(after.are_possibly_sent && after.view("waits").may_have_been_sent);
}

#[test]
fn a_doubted_row_that_expires_is_not_said_to_be_unsent() {
    let dir = tempfile::tempdir().expect("a temp dir");
    accepts_and_dies(dir.path(), "old");
    let after = Life::begin(dir.path(), Some("two"));
    let future = Millis(NOW.0 + 1);
    let mut claimed = block_on(after.outbox.claim_due(MESH, NOW, future, 8)).expect("claims");
    let expired = claimed.expired.pop().expect("too old");
    let dead = block_on(after.outbox.store(expired.expire())).expect("commits");
    assert!(dead.is_some(), "nobody else moved it");
    let row = after.view("old");
    assert_eq!((row.status, row.may_have_been_sent), (Status::Dead, true));
    let why = row.last_error.unwrap_or_default();
    assert!(why.contains("may have been sent") && !why.contains("never sent"), "{why}");
}

#[test]
fn the_doubt_outlives_a_refusal_and_ends_with_the_brokers_answer() {
    let dir = tempfile::tempdir().expect("a temp dir");
    accepts_and_dies(dir.path(), "m");
    let after = Life::begin(dir.path(), Some("two"));
    let claim = || {
        let claimed = block_on(after.outbox.claim_due(MESH, NOW, NEVER, 8)).expect("claims");
        claimed.rows.into_iter().next().expect("is due")
    };
    let unsent = block_on(after.outbox.store(claim().unsent("why".into(), NOW)));
    assert!(unsent.expect("commits").is_some());
    assert!(after.view("m").may_have_been_sent);
    let ack = Ack {
        broker_message_id: BrokerMessageId::trusted("b".into()),
        history_id: None,
        delivered_at: NOW,
        recipients: Some(1),
    };
    assert!(block_on(after.outbox.store(claim().acked(ack))).expect("commits").is_some());
    let row = after.view("m");
    assert_eq!((row.status, row.may_have_been_sent), (Status::Done, false));
    after.die();
    // What is final stays as it is, whatever happens to the host.
    let later = Life::begin(dir.path(), Some("three"));
    assert!(!later.are_possibly_sent, "nothing waits");
    assert!(!later.view("m").may_have_been_sent);
}

#[test]
fn a_crash_of_the_process_and_an_end_in_order_leave_no_doubt() {
    let dir = tempfile::tempdir().expect("a temp dir");
    accepts_and_dies(dir.path(), "m");
    let second = Life::begin(dir.path(), Some("one"));
    assert!(!second.are_possibly_sent);
    second.outbox.close();
    let third = Life::begin(dir.path(), Some("two"));
    assert!(!third.are_possibly_sent && !third.view("m").may_have_been_sent);
    third.die();
    // The end in order was that of the second life: the third one's was none.
    assert!(Life::begin(dir.path(), Some("three")).view("m").may_have_been_sent);
}

#[test]
fn a_host_that_does_not_say_its_boot_may_have_lost_power_at_every_start() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let first = Life::begin(dir.path(), None);
    first.accept("m");
    first.die();
    let second = Life::begin(dir.path(), None);
    assert!(second.are_possibly_sent && second.view("m").may_have_been_sent);
    second.outbox.close();
    let third = Life::begin(dir.path(), None);
    third.accept("n");
    assert!(!third.are_possibly_sent && !third.view("n").may_have_been_sent);
}
