//! System events: what the members of a mesh are told about each other (`specs/wire.md`).

use super::{Hub, Identity};
use claudemesh_base::runtime::{Runtime, iso};
use claudemesh_base::wire::{BrokerFrame, PushFrame, to_text};
use claudemesh_fsm::envelope::Priority;
use serde_json::{Value, json};

impl Hub {
    /// Tells an event to everybody in a mesh for whom `audience` holds.
    pub(crate) fn announce(
        &self,
        runtime: &Runtime,
        mesh_id: &str,
        event: &str,
        data: Value,
        audience: impl Fn(&Identity) -> bool,
    ) {
        let push = PushFrame {
            message_id: runtime.mint_id(),
            mesh_id: mesh_id.to_owned(),
            sender_pubkey: "system".to_owned(),
            priority: Priority::Low.as_str().to_owned(),
            created_at: iso(runtime.now()),
            subtype: Some("system".to_owned()),
            event: Some(event.to_owned()),
            event_data: Some(data),
            ..PushFrame::default()
        };
        let text = to_text(&BrokerFrame::Push(Box::new(push)));
        self.broadcast(mesh_id, &text.into(), audience);
    }

    /// Tells the others in their meshes who is no longer there.
    pub(crate) fn announce_left(&self, runtime: &Runtime, left: Vec<Identity>) {
        for gone in left {
            let data = json!({"name": gone.name, "pubkey": gone.routing_key});
            let is_other = |other: &Identity| other.member != gone.member;
            self.announce(runtime, &gone.mesh_id, "peer_left", data, is_other);
        }
    }
}
