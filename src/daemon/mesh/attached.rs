//! Every mesh this daemon serves, by its name on this machine.

use super::{LATE_ACKS_MAX, Link, Mesh, RECEIPTS_MAX, Shared};
use crate::events::EventBus;
use crate::mesh::roster::Roster;
use crate::port::LinkView;
use claudemesh_base::runtime::Runtime;
use claudemesh_fsm::link::LinkState;
use event_listener::Event as Notifier;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Every mesh that is attached. Cheap to clone.
#[derive(Clone, Default)]
pub struct Meshes {
    by_slug: Arc<RwLock<BTreeMap<String, Mesh>>>,
    changed: Arc<Notifier>,
}

impl Meshes {
    /// Attaches a mesh whose link has not been tried; `roster` is what the last run remembered.
    pub fn attach(
        &self,
        slug: String,
        member_key: String,
        roster: Roster,
        runtime: Runtime,
        bus: EventBus,
    ) -> Mesh {
        let shared = Shared {
            slug: slug.clone(),
            member_key,
            runtime,
            bus,
            link: Mutex::new(Link::Down(LinkView::plain(LinkState::Offline))),
            link_changed: self.changed.clone(),
            roster: Mutex::new(roster),
            roster_changed: Notifier::new(),
            drain: smol::channel::bounded(1),
            late_acks: smol::channel::bounded(LATE_ACKS_MAX),
            receipts: smol::channel::bounded(RECEIPTS_MAX),
            receipts_dropped: Notifier::new(),
        };
        let mesh = Mesh { shared: Arc::new(shared) };
        let mut by_slug = self.by_slug.write().unwrap_or_else(PoisonError::into_inner);
        by_slug.insert(slug, mesh.clone());
        self.changed.notify(usize::MAX);
        mesh
    }

    /// Completes at the next change of any link, or when a mesh is attached. Ask before looking,
    /// so that nothing falls between.
    pub fn changed(&self) -> impl Future<Output = ()> + use<> {
        self.changed.listen()
    }

    /// The mesh of that slug.
    #[must_use]
    pub fn get(&self, slug: &str) -> Option<Mesh> {
        self.by_slug.read().unwrap_or_else(PoisonError::into_inner).get(slug).cloned()
    }

    /// The only one, if there is exactly one.
    #[must_use]
    pub fn only(&self) -> Option<Mesh> {
        let by_slug = self.by_slug.read().unwrap_or_else(PoisonError::into_inner);
        by_slug.values().next().filter(|_| by_slug.len() == 1).cloned()
    }

    /// All of them, by slug.
    #[must_use]
    pub fn all(&self) -> Vec<Mesh> {
        self.by_slug.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
