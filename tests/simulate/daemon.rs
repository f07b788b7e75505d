//! One life of one daemon: the real stores, the real flows, and the simulated link, wired as
//! `daemon/attach.rs` wires them. Says to its callers what the real one would.

use super::checkers::{Book, Told};
use super::disk::{Disk, Point};
use super::net::{DaemonEnd, Frame, Net, Way};
use super::world::{Owner, ProcessClock, Rng, Sched};
use claudemesh_base::db::Driver;
use claudemesh_base::message::{SecretKey, fingerprint_of};
use claudemesh_base::paths::Paths;
use claudemesh_base::runtime::{Runtime, Shutdown, Trigger};
use claudemesh_base::wire::RosterEntry;
use claudemesh_daemon::api::bodies::SendBody;
use claudemesh_daemon::api::draft_of;
use claudemesh_daemon::events::{EventBus, EventContent};
use claudemesh_daemon::flow::accept::{AcceptFlow, Rejection};
use claudemesh_daemon::flow::drain::{DrainFlow, DrainLimits};
use claudemesh_daemon::flow::receipts::ReceiptFlow;
use claudemesh_daemon::flow::receive::ReceiveFlow;
use claudemesh_daemon::mesh::roster::Roster;
use claudemesh_daemon::mesh::{Mesh, Meshes};
use claudemesh_daemon::port::{LinkObserver, LinkView};
use claudemesh_daemon::startup::stores::{self, Stores};
use claudemesh_daemon::store::inbox::Inbox;
use claudemesh_daemon::store::outbox::{ListQuery, Outbox, Patch, RequeueOutcome, RequeueRequest};
use claudemesh_daemon::store::quota::StorageLimits;
use claudemesh_fsm::id::{ClientMessageId, RowId};
use claudemesh_fsm::link::LinkState;
use claudemesh_fsm::outbox::Status;
use futures_lite::FutureExt;
use serde_json::value::RawValue;
use smol::Task;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};

pub const MESH: &str = "m";
pub const NAMES: [&str; 2] = ["alice", "bob"];
pub const FILES: &[&str] = &["outbox.db", "inbox.db"];
/// The longest back-off: short, so that a scenario ends soon.
const BACKOFF_CAP_MS: u64 = 8_000;
const INBOUND_MAX: usize = 256;

/// The key of a daemon: its seed is one byte, like the cast of the specification.
pub fn secret(daemon: usize) -> SecretKey {
    SecretKey::from_seed([daemon as u8 + 1; 32])
}

/// What every life of a daemon shares.
#[derive(Clone)]
pub struct Surroundings {
    pub sched: Arc<Sched>,
    pub net: Arc<Net>,
    pub book: Arc<Mutex<Book>>,
    /// A mutant: rows left inflight are not recovered.
    pub no_recovery: bool,
}

/// One life.
pub struct Daemon {
    pub index: usize,
    pub owner: Owner,
    pub disk: Arc<Disk>,
    pub stores: Stores,
    accept: AcceptFlow,
    runtime: Runtime,
    around: Surroundings,
    tasks: Vec<Task<()>>,
    _running: Trigger,
}

/// What a caller asks for.
#[derive(Debug, Clone)]
pub struct Request {
    pub id: String,
    pub to: String,
    pub body: String,
    pub meta: Option<String>,
}

impl Daemon {
    /// A process of the `boot`th boot of its host.
    pub fn start(
        index: usize,
        owner: Owner,
        boot: u64,
        disk: Arc<Disk>,
        wall_offset_ms: Arc<AtomicI64>,
        entropy: Rng,
        around: Surroundings,
    ) -> Result<Self, String> {
        let sched = around.sched.clone();
        let rng = Mutex::new(entropy);
        let runtime = ProcessClock { sched, owner, wall_offset_ms, entropy: rng }.into_clock();
        let (bus, meshes) = (EventBus::default(), Meshes::default());
        let driver = Driver::Inline(disk.clone());
        let paths = Paths {
            home: disk.dir.clone(),
            config_dir: disk.dir.clone(),
            daemon_dir: disk.dir.clone(),
        };
        let boot_id = Some(format!("boot {boot}"));
        let stores = if around.no_recovery {
            let outbox = Outbox::open(&paths.outbox_db(), driver.clone(), Arc::new(|_| ()));
            let inbox = Inbox::open(&paths.inbox_db(), driver);
            Stores {
                outbox: outbox.map_err(|e| e.to_string())?,
                inbox: inbox.map_err(|e| e.to_string())?,
            }
        } else {
            let context = (&runtime, &bus, &meshes);
            let opened = stores::open(&paths, driver, context, StorageLimits::NONE, boot_id);
            smol::future::block_on(opened).map_err(|e| e.to_string())?
        };
        let key = secret(index).public().to_hex();
        let mesh = meshes.attach(MESH.into(), key, Roster::default(), runtime.clone(), bus.clone());
        let (running, stopped) = Shutdown::new();
        let limits = DrainLimits { inflight_max: 8, backoff_cap_ms: BACKOFF_CAP_MS };
        let drain = DrainFlow::new(mesh.clone(), stores.outbox.clone(), runtime.clone(), limits);
        let (to_receive, pushes) = smol::channel::bounded(INBOUND_MAX);
        let receive =
            ReceiveFlow::new(mesh.clone(), stores.inbox.clone(), bus.clone(), runtime.clone());
        let receipts =
            ReceiptFlow::new(mesh.clone(), stores.outbox.clone(), bus.clone(), runtime.clone());
        let link = link(index, mesh, runtime.clone(), disk.clone(), to_receive, around.clone());
        let tasks = vec![
            runtime.spawn(listen(index, bus, disk.clone(), around.clone())),
            runtime.spawn(link),
            runtime.spawn(receipts.run(stopped.clone())),
            runtime.spawn(drain.run(stopped)),
            runtime.spawn(receive.run(pushes)),
        ];
        let accept = AcceptFlow { outbox: stores.outbox.clone(), meshes, runtime: runtime.clone() };
        Ok(Self { index, owner, disk, stores, accept, runtime, around, tasks, _running: running })
    }

    /// A caller's `POST /v1/send`; what it is told goes into the book, if the daemon lives to say.
    pub fn send(&mut self, request: Request) {
        let (accept, disk, around, index) =
            (self.accept.clone(), self.disk.clone(), self.around.clone(), self.index);
        let runtime = self.runtime.clone();
        let call = async move {
            let body = SendBody {
                to: request.to.clone(),
                message: request.body.clone(),
                meta: request.meta.clone().map(|meta| RawValue::from_string(meta).expect("JSON")),
                client_message_id: Some(request.id.clone()),
                ..SendBody::default()
            };
            let (key, draft) = draft_of(body, None, &runtime).expect("a well-formed request");
            let answer = accept.accept(key, draft).await;
            if !disk.is_alive() {
                return;
            }
            around.sched.log(|| format!("daemon {index} tells {}: {answer:?}", request.id));
            if let Err(Rejection::Store(_) | Rejection::Unresolvable { .. }) = &answer {
                return;
            }
            let told = Told::from_answer(index, request, answer);
            around.book.lock().expect("whole").told.push(told);
        };
        let task = self.runtime.spawn(call);
        self.tasks.push(task);
    }

    /// An operator's requeue of some dead or pending row.
    pub fn requeue(&mut self, new_id: String, mut rng: Rng) {
        let (outbox, runtime) = (self.stores.outbox.clone(), self.runtime.clone());
        let (disk, around, index) = (self.disk.clone(), self.around.clone(), self.index);
        let call = async move {
            let status = if rng.permille(400) { Status::Dead } else { Status::Pending };
            let query = ListQuery { status: Some(status), mesh: None, before_seq: None, limit: 50 };
            let Ok(page) = outbox.list(query).await else { return };
            // Rather one whose attempt was not answered yet: its answer may still come.
            let unanswered: Vec<_> = page.rows.iter().filter(|r| r.may_have_been_sent).collect();
            let Some(row) = rng.pick(&unanswered).copied().or(rng.pick(&page.rows)) else { return };
            let patched = rng.permille(300).then(|| format!("patched {new_id}"));
            let new_row_id = runtime.mint_id();
            let request = RequeueRequest {
                id: RowId::trusted(row.id.clone()),
                new_id: RowId::trusted(new_row_id.clone()),
                new_client_message_id: ClientMessageId::trusted(new_id.clone()),
                patch: patched.as_ref().map(|payload| Patch {
                    payload: payload.clone().into_bytes(),
                    fingerprint: fingerprint_of,
                }),
                check_size: Box::new(|_, _| Ok(())),
                aborted_by: "operator".into(),
                now: runtime.now(),
                force: rng.permille(850),
            };
            let outcome = outbox.requeue(request).await;
            if !disk.is_alive() {
                return;
            }
            around
                .sched
                .log(|| format!("daemon {index} requeues {}: {outcome:?}", row.client_message_id));
            if let Ok(RequeueOutcome::Requeued { .. }) = outcome {
                let told = (index, row.id.clone(), new_row_id, new_id, patched);
                around.book.lock().expect("whole").requeued.push(told);
            }
        };
        let task = self.runtime.spawn(call);
        self.tasks.push(task);
    }

    /// The process is gone: its tasks and handles are dropped where they stand.
    pub fn end(self) {
        let (sched, owner) = (self.around.sched.clone(), self.owner);
        drop(self);
        sched.bury(owner);
    }
}

/// What local listeners hear of arrived messages.
async fn listen(index: usize, bus: EventBus, disk: Arc<Disk>, around: Surroundings) {
    let events = bus.subscribe();
    while let Some(event) = events.next().await {
        if let EventContent::Message(message) = &event.content
            && disk.is_alive()
        {
            let id = message.content.broker_message_id.clone();
            around.book.lock().expect("whole").heard.push((index, id));
        }
    }
}

/// Dials, hands out the courier, forwards acknowledgements, and begins again.
async fn link(
    index: usize,
    mesh: Mesh,
    runtime: Runtime,
    disk: Arc<Disk>,
    inbound: smol::channel::Sender<claudemesh_daemon::port::InboundPush>,
    around: Surroundings,
) {
    loop {
        let wait = 100 + u64::from(runtime.jitter() >> 16) % 2000;
        runtime.sleep(std::time::Duration::from_millis(wait)).await;
        let (acks, acked) = smol::channel::bounded(INBOUND_MAX);
        let end = DaemonEnd {
            mesh: mesh.clone(),
            runtime: runtime.clone(),
            disk: disk.clone(),
            secret: secret(index),
            inbound: inbound.clone(),
            acks,
        };
        let Some((conn, transport)) = around.net.dial(index, end) else { continue };
        let gone = transport.end();
        mesh.open(LinkView::plain(LinkState::Open), Arc::new(transport));
        LinkObserver::roster(&mesh, roster());
        let forward = async {
            while let Ok(ack) = acked.recv().await {
                if !disk.passes(Point::BeforeSend) {
                    return std::future::pending().await;
                }
                let id = ack.broker_message_id.clone().unwrap_or_default();
                around.book.lock().expect("whole").acked.push((index, id));
                around.net.send(conn, Way::ToBroker, Frame::ClientAck(ack));
                disk.passes(Point::AfterSend);
            }
        };
        let closed = async {
            let _ = gone.recv().await;
        };
        forward.or(closed).await;
        mesh.down(LinkView::plain(LinkState::Offline));
    }
}

fn roster() -> Vec<RosterEntry> {
    let peer = |(index, name): (usize, &&str)| {
        let key = secret(index).public().to_hex();
        RosterEntry {
            pubkey: key.clone(),
            member_pubkey: key,
            display_name: (*name).to_owned(),
            online: None,
            peer_role: None,
            rest: serde_json::Map::new(),
        }
    };
    NAMES.iter().enumerate().map(peer).collect()
}
