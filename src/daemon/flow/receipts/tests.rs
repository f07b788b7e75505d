//! When the broker is asked again, on a real outbox in a time of its own.

use super::*;
use crate::mesh::Meshes;
use crate::mesh::roster::Roster;
use crate::port::{LinkObserver, LinkView, SendOutcome};
use crate::store::outbox::NewRow;
use claudemesh_base::db::{Driver, Durability, Faults, Kind};
use claudemesh_base::message::SecretKey;
use claudemesh_base::runtime::{BoxFuture, RuntimeBackend};
use claudemesh_base::wire;
use claudemesh_fsm::envelope::{Destination, Draft, Priority};
use claudemesh_fsm::id::{BrokerMessageId, ClientMessageId, Fingerprint, Millis, RowId};
use claudemesh_fsm::link::LinkState;
use claudemesh_fsm::outbox::Ack;
use smol::Task;
use smol::channel::Sender;
use smol::future::{block_on, yield_now};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const MESH: &str = "demo";
const ID: &str = "order-17";
/// More turns than anything else needs that has something to do.
const TURNS: usize = 32;

/// Time that passes while nobody has anything to do.
#[derive(Default)]
struct Idle(Arc<Mutex<Duration>>);

impl RuntimeBackend for Idle {
    fn now(&self) -> Millis {
        Millis(0)
    }

    fn monotonic(&self) -> Duration {
        *self.0.lock().expect("whole")
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture<()> {
        let now = self.0.clone();
        Box::pin(async move {
            for _ in 0..TURNS {
                yield_now().await;
            }
            let mut now = now.lock().expect("whole");
            *now = deadline.max(*now);
        })
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }

    fn spawn(&self, _: BoxFuture<()>) -> Task<()> {
        unreachable!("the flow spawns nothing")
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

/// A disk on which one commit fails: the one so many from now.
#[derive(Default)]
struct Disk(AtomicUsize);

impl Disk {
    fn fail_commit(&self, nth: usize) {
        self.0.store(nth, Ordering::SeqCst);
    }
}

impl Faults for Disk {
    fn before_commit(&self, _: &Path, _: Durability) -> Result<(), Error> {
        let count_down = |left: usize| left.checked_sub(1);
        match self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count_down) {
            Ok(1) => Err(Error::new(Kind::Full, "the disk is full")),
            _ => Ok(()),
        }
    }

    fn after_commit(&self, _: &Path, _: Durability) {}
}

/// What happens to a question.
#[derive(Clone, Copy)]
enum Fate {
    Answered,
    Unanswered,
    /// The answer cannot be stored.
    Unstored,
    /// Answered, while news comes that cannot be stored.
    NewsUnstored,
}

struct Broker {
    secret: SecretKey,
    runtime: Runtime,
    mesh: Mesh,
    disk: Arc<Disk>,
    fates: Mutex<Vec<Fate>>,
    asked: Sender<Duration>,
}

impl LinkTransport for Broker {
    fn deliver(&self, _: wire::SendFrame) -> BoxFuture<SendOutcome> {
        unreachable!("nothing is sent")
    }

    fn receipts(&self, ids: Vec<String>) -> BoxFuture<Option<Vec<Receipt>>> {
        assert_eq!(ids, [ID]);
        self.asked.try_send(self.runtime.monotonic()).expect("unbounded");
        match self.fates.lock().expect("whole").pop() {
            Some(Fate::Unanswered) => return Box::pin(std::future::pending()),
            Some(Fate::Unstored) => self.disk.fail_commit(1),
            Some(Fate::NewsUnstored) => {
                // The answer is stored first.
                self.disk.fail_commit(2);
                self.mesh.receipts(vec![receipt()]);
            }
            Some(Fate::Answered) | None => {}
        }
        Box::pin(std::future::ready(Some(vec![receipt()])))
    }

    fn closed(&self) -> BoxFuture<()> {
        Box::pin(std::future::pending())
    }

    fn secret(&self) -> &SecretKey {
        &self.secret
    }

    fn max_age_ms(&self) -> u64 {
        u64::MAX
    }
}

/// One of two recipients has it: more may be learned.
fn receipt() -> Receipt {
    Receipt { client_message_id: ID.to_owned(), recipients: 2, stored: 1, expired: 0 }
}

/// After how many seconds each question is asked.
fn asked(fates: &[Fate], count: usize) -> Vec<u64> {
    let dir = tempfile::tempdir().expect("a temp dir");
    let disk = Arc::new(Disk::default());
    let path = dir.path().join("outbox.db");
    let outbox = Outbox::open(&path, Driver::Inline(disk.clone()), Arc::new(|_| ()));
    let outbox = outbox.expect("opens");
    let (runtime, bus) = (Runtime::new(Arc::new(Idle::default())), EventBus::default());
    let (slug, key) = (MESH.to_owned(), String::new());
    let mesh = Meshes::default().attach(slug, key, Roster::default(), runtime.clone(), bus.clone());
    let (to_asked, asked) = smol::channel::unbounded();
    let broker = Arc::new(Broker {
        secret: SecretKey::from_seed([1; 32]),
        runtime: runtime.clone(),
        mesh: mesh.clone(),
        disk,
        fates: Mutex::new(fates.iter().rev().copied().collect()),
        asked: to_asked,
    });
    let times = async {
        let mut times = Vec::new();
        for _ in 0..count {
            times.push(asked.recv().await.expect("asks").as_secs());
        }
        times
    };
    let (_running, stop) = Shutdown::new();
    block_on(async {
        have_done(&outbox).await;
        mesh.open(LinkView::plain(LinkState::Open), broker);
        let flow = ReceiptFlow::new(mesh, outbox.clone(), bus, runtime).run(stop);
        let flow = async {
            flow.await;
            unreachable!("nothing stops it")
        };
        times.or(flow).await
    })
}

/// One row that the broker has, and that is for two.
async fn have_done(outbox: &Outbox) {
    let draft = Draft {
        destination: Destination::Everyone,
        priority: Priority::Next,
        meta: None,
        reply_to_id: None,
        mentions: Vec::new(),
        payload: b"hola".to_vec(),
        fingerprint: Fingerprint::new([7; 32]),
    };
    let envelope = draft.address(MESH, |_| Err(())).expect("an envelope");
    let new = NewRow {
        id: RowId::trusted("row".to_owned()),
        key: ClientMessageId::trusted(ID.to_owned()).into(),
        envelope,
        enqueued_at: Millis(0),
    };
    outbox.accept(new).await.expect("accepts");
    let claimed = outbox.claim_due(MESH, Millis(i64::MAX), Millis(i64::MIN), 1).await;
    let row = claimed.expect("claims").rows.pop().expect("a row");
    let ack = Ack {
        broker_message_id: BrokerMessageId::trusted("b".to_owned()),
        history_id: None,
        delivered_at: Millis(0),
        recipients: Some(2),
    };
    assert!(outbox.store(row.acked(ack)).await.expect("stores").is_some());
}

const DAY_S: u64 = 24 * 60 * 60;

#[test]
fn a_round_that_went_well_is_repeated_a_day_later() {
    assert_eq!(asked(&[Fate::Answered], 2), [0, 60 + DAY_S]);
}

#[test]
fn a_round_that_failed_is_repeated_soon_and_then_less_often() {
    let fates = [Fate::Unanswered, Fate::Unstored, Fate::Answered, Fate::Unanswered];
    let (second, third) = (15 + 60, 15 + 60 + 120);
    let fourth = third + 60 + DAY_S;
    assert_eq!(asked(&fates, 5), [0, second, third, fourth, fourth + 15 + 60]);
}

#[test]
fn news_that_could_not_be_stored_is_asked_for_soon() {
    assert_eq!(asked(&[Fate::NewsUnstored], 3), [0, 60, 60 + 60 + DAY_S]);
}
