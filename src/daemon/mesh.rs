//! The meshes this daemon serves: what each one's link is, who is in it, and its drain's wake-up.
//!
//! The links report here and the edges read here. Nothing here does I/O.

mod attached;
pub mod roster;

pub use attached::Meshes;

use crate::events::{Event, EventBus, EventContent};
use crate::mesh::roster::Roster;
use crate::port::{LateAck, LinkObserver, LinkTransport, LinkView};
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire::{Receipt, RosterEntry};
use claudemesh_fsm::link::LinkState;
use event_listener::Event as Notifier;
use smol::channel::{Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many late acknowledgements may wait to be stored; more are dropped, and the retry they
/// would have saved is answered by the broker's dedupe.
const LATE_ACKS_MAX: usize = 256;

/// How many frames of receipts may wait to be stored; more are dropped, and asked for again.
const RECEIPTS_MAX: usize = 256;

/// One attached mesh. Cheap to clone.
#[derive(Clone)]
pub struct Mesh {
    shared: Arc<Shared>,
}

struct Shared {
    slug: String,
    member_key: String,
    runtime: Runtime,
    bus: EventBus,
    link: Mutex<Link>,
    /// Shared by all meshes.
    link_changed: Arc<Notifier>,
    roster: Mutex<Roster>,
    roster_changed: Notifier,
    drain: (Sender<()>, Receiver<()>),
    late_acks: (Sender<LateAck>, Receiver<LateAck>),
    receipts: (Sender<Vec<Receipt>>, Receiver<Vec<Receipt>>),
    receipts_dropped: Notifier,
}

/// "Open" and "can send" are one value.
enum Link {
    Down(LinkView),
    Open(LinkView, Arc<dyn LinkTransport>),
}

impl Mesh {
    /// The mesh's name on this machine.
    #[must_use]
    pub fn slug(&self) -> &str {
        &self.shared.slug
    }

    /// Our member key in it, hex.
    #[must_use]
    pub fn member_key(&self) -> &str {
        &self.shared.member_key
    }

    /// What the link is.
    #[must_use]
    pub fn link(&self) -> LinkView {
        match &*self.lock_link() {
            Link::Down(view) | Link::Open(view, _) => view.clone(),
        }
    }

    /// The most a frame may weigh, in bytes, if the broker ever said or showed.
    ///
    /// # Errors
    /// What the link is, if the broker will not have us.
    pub fn frame_bytes_max(&self) -> Result<Option<u64>, Box<LinkView>> {
        match &*self.lock_link() {
            Link::Down(view) if view.state == LinkState::Refused => Err(Box::new(view.clone())),
            Link::Down(view) | Link::Open(view, _) => Ok(view.frame_bytes_max),
        }
    }

    /// Waits until the link is open; the transport it returns can send until it says that it is
    /// closed. `previous` is one that said so already: a link closes its transport a moment before it
    /// says here that it is down, and in that moment a caller must not be given the same one again.
    pub async fn transport(
        &self,
        previous: Option<&Arc<dyn LinkTransport>>,
    ) -> Arc<dyn LinkTransport> {
        loop {
            let changed = self.shared.link_changed.listen();
            if let Link::Open(_, transport) = &*self.lock_link()
                && !previous.is_some_and(|previous| Arc::ptr_eq(previous, transport))
            {
                return transport.clone();
            }
            changed.await;
        }
    }

    /// The last roster the broker sent.
    #[must_use]
    pub fn roster(&self) -> Roster {
        self.with_roster(Clone::clone)
    }

    /// Reads the roster without copying it.
    pub fn with_roster<T>(&self, read: impl FnOnce(&Roster) -> T) -> T {
        read(&self.shared.roster.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Completes at the next change of the roster after this call.
    pub fn roster_changed(&self) -> impl Future<Output = ()> + use<> {
        self.shared.roster_changed.listen()
    }

    /// There may be something to send.
    pub fn wake_drain(&self) {
        // A full channel already holds a wake-up.
        let _ = self.shared.drain.0.try_send(());
    }

    /// Waits for [`wake_drain`](Self::wake_drain); wake-ups that nobody waited for count once.
    pub async fn drain_woken(&self) {
        // Both ends live in `shared`, so the channel is never closed.
        let _ = self.shared.drain.1.recv().await;
    }

    /// The next success that arrived for an attempt already given up.
    pub async fn next_late_ack(&self) -> Option<LateAck> {
        self.shared.late_acks.1.recv().await.ok()
    }

    /// Waits until the broker told what became of messages, and takes all it has told.
    pub async fn next_receipts(&self) -> Vec<Receipt> {
        // Both ends live in `shared`, so the channel is never closed.
        let mut receipts = self.shared.receipts.1.recv().await.unwrap_or_default();
        while let Ok(more) = self.shared.receipts.1.try_recv() {
            receipts.extend(more);
        }
        receipts
    }

    /// Completes when receipts are dropped after this call: there were too many at once, or they
    /// could not be stored.
    pub fn receipts_dropped(&self) -> impl Future<Output = ()> + use<> {
        self.shared.receipts_dropped.listen()
    }

    /// What the broker told is lost, and has to be asked for.
    pub fn drop_receipts(&self) {
        self.shared.receipts_dropped.notify(usize::MAX);
    }

    fn set_link(&self, link: Link) {
        let view = match &link {
            Link::Down(view) | Link::Open(view, _) => view.clone(),
        };
        let before = std::mem::replace(&mut *self.lock_link(), link);
        let (Link::Down(before) | Link::Open(before, _)) = before;
        self.shared.link_changed.notify(usize::MAX);
        if view.state != LinkState::Open {
            self.shared.roster.lock().unwrap_or_else(PoisonError::into_inner).is_live = false;
        }
        if before != view {
            self.announce(view);
        }
    }

    fn announce(&self, view: LinkView) {
        self.shared.bus.publish(|| Event {
            at: self.shared.runtime.now(),
            content: EventContent::Link { mesh: self.shared.slug.clone(), view },
        });
    }

    fn lock_link(&self) -> MutexGuard<'_, Link> {
        self.shared.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinkObserver for Mesh {
    fn down(&self, view: LinkView) {
        self.set_link(Link::Down(view));
    }

    fn open(&self, view: LinkView, transport: Arc<dyn LinkTransport>) {
        self.set_link(Link::Open(view, transport));
    }

    fn roster(&self, peers: Vec<RosterEntry>) {
        let as_of = Some(self.shared.runtime.now());
        let mut roster = self.shared.roster.lock().unwrap_or_else(PoisonError::into_inner);
        *roster = Roster { peers, as_of, is_live: true, version: roster.version + 1 };
        drop(roster);
        self.shared.roster_changed.notify(usize::MAX);
    }

    fn late_ack(&self, late: LateAck) {
        // Dropping one is safe: the retry is answered by the broker's dedupe.
        let _ = self.shared.late_acks.0.try_send(late);
    }

    fn receipts(&self, receipts: Vec<Receipt>) {
        if self.shared.receipts.0.try_send(receipts).is_err() {
            self.drop_receipts();
        }
    }
}
