//! Hears what one link becomes: passes it on to the mesh, and writes the one line that a revocation
//! leaves behind (§15.6).
//!
//! Decides nothing, and never says more of a key than its public half.

use crate::mesh::Mesh;
use crate::port::{LateAck, LinkObserver, LinkTransport, LinkView};
use crate::store::outbox::Outbox;
use claudemesh_base::wire::{Receipt, RosterEntry};
use claudemesh_fsm::outbox::Status;
use std::sync::Arc;

/// Where a Linux host says which one it is; the first file that has it counts (§2.2).
const MACHINE_ID_FILES: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// The observer of one mesh's link.
pub(super) struct RevocationLogger {
    pub(super) mesh: Mesh,
    pub(super) outbox: Outbox,
}

impl LinkObserver for RevocationLogger {
    fn down(&self, view: LinkView) {
        self.mesh.down(view);
    }

    fn open(&self, view: LinkView, transport: Arc<dyn LinkTransport>) {
        self.mesh.open(view, transport);
    }

    fn roster(&self, peers: Vec<RosterEntry>) {
        LinkObserver::roster(&self.mesh, peers);
    }

    fn late_ack(&self, late: LateAck) {
        self.mesh.late_ack(late);
    }

    fn receipts(&self, receipts: Vec<Receipt>) {
        self.mesh.receipts(receipts);
    }

    fn revoked(&self, via: &str) {
        let (mesh, member_pubkey) = (self.mesh.slug(), self.mesh.member_key());
        let depth = self.outbox.depths().get(mesh).copied().unwrap_or_default();
        let pending_rows = depth.of(Status::Pending) + depth.of(Status::Inflight);
        let host_id = host_id();
        tracing::warn!(mesh, member_pubkey, via, host_id, pending_rows, "member_revoked");
    }
}

/// Which host this is; `None` where nothing says. Reads one line of a small file.
fn host_id() -> Option<String> {
    let read = |path: &&str| std::fs::read_to_string(path).ok();
    let ids = MACHINE_ID_FILES.iter().filter_map(read).map(|id| id.trim().to_owned());
    ids.into_iter().find(|id| !id.is_empty()).map(|id| format!("linux:{id}"))
}
