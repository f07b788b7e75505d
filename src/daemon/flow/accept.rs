//! The accept flow: a request becomes a durable row, or an answer that says why not (§3.3, §4.5.1).
//!
//! Nothing is written to a socket here and nothing waits for a link: accepting works while every
//! broker is down. A retry of an id that already has a row gets its row's answer, whatever else is
//! wrong with the request: resolution, size and disk space matter only when there is no row.

mod rejection;

pub use rejection::Rejection;

use crate::mesh::roster::{self, Resolution};
use crate::mesh::{Mesh, Meshes};
use crate::store::outbox::{AcceptOutcome, NewRow, Outbox, RequestKey};
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire::FRAME_BYTES_MAX;
use claudemesh_base::wire::send_frame::oversized_frame_bytes;
use claudemesh_fsm::envelope::{Destination, Draft, Encryption, Envelope, Recipient};
use claudemesh_fsm::id::{ClientMessageId, RowId};

/// The flow and what it works on. Cheap to clone.
#[derive(Clone)]
pub struct AcceptFlow {
    /// Where rows go.
    pub outbox: Outbox,
    /// The meshes that are attached.
    pub meshes: Meshes,
    /// Time and minted ids.
    pub runtime: Runtime,
}

/// An answer of §4.5.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptAnswer {
    /// The id, as given or minted.
    pub client_message_id: ClientMessageId,
    /// What was decided.
    pub accepted: AcceptOutcome,
    /// How the message travels.
    pub encryption: Encryption,
}

impl AcceptFlow {
    /// Accepts one request.
    ///
    /// # Errors
    /// Says why nothing was accepted; the id stays free.
    pub async fn accept(&self, key: RequestKey, draft: Draft) -> Result<AcceptAnswer, Rejection> {
        let client_message_id = key.client_message_id.clone();
        let encryption = draft.destination.encryption();
        let answer = |accepted| AcceptAnswer { client_message_id, accepted, encryption };
        match self.address(&key, draft) {
            Ok(envelope) => {
                let id = RowId::trusted(self.runtime.mint_id());
                let new = NewRow { id, key, envelope, enqueued_at: self.runtime.now() };
                Ok(answer(self.outbox.accept(new).await?))
            }
            Err((draft, rejection)) => {
                self.outbox.existing(key, draft).await?.map(answer).ok_or(rejection)
            }
        }
    }

    /// Everything that depends on a mesh: which one, whom it means by the name, and its limit. A
    /// draft that cannot be addressed comes back with the reason.
    #[allow(
        clippy::result_large_err,
        reason = "the draft comes back once, and is not boxed for it"
    )]
    fn address(&self, key: &RequestKey, draft: Draft) -> Result<Envelope, (Draft, Rejection)> {
        let (mesh, frame_bytes_max) = match self.choose_open_mesh(key, &draft.destination) {
            Ok(chosen) => chosen,
            Err(rejection) => return Err((draft, rejection)),
        };
        let pin = |to: &str| {
            let resolution = mesh.with_roster(|roster| roster::resolve(roster, to));
            pin(resolution, to, &mesh)
        };
        let envelope = draft.address(mesh.slug(), pin)?;
        match oversized_frame_bytes(&envelope, &key.client_message_id, frame_bytes_max) {
            None => Ok(envelope),
            Some(frame_bytes) => {
                let mesh = mesh.slug().to_owned();
                Err((envelope.draft, Rejection::TooLarge { mesh, frame_bytes, frame_bytes_max }))
            }
        }
    }

    /// The mesh a message goes to, unless its broker refused us, and the most a frame may weigh.
    fn choose_open_mesh(
        &self,
        key: &RequestKey,
        destination: &Destination,
    ) -> Result<(Mesh, usize), Rejection> {
        let mesh = self.choose_mesh(key.explicit_mesh.as_deref(), destination)?;
        let bytes_max = mesh.frame_bytes_max().map_err(|link| Rejection::MeshRefused {
            mesh: mesh.slug().to_owned(),
            reason: link.reason.unwrap_or_else(|| "the broker refused us".to_owned()),
            remedy: link.remedy.unwrap_or_else(|| "see `claudemesh daemon status`".to_owned()),
        })?;
        let bytes_max =
            bytes_max.map_or(FRAME_BYTES_MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        Ok((mesh, bytes_max))
    }

    fn choose_mesh(
        &self,
        explicit: Option<&str>,
        destination: &Destination,
    ) -> Result<Mesh, Rejection> {
        if let Some(slug) = explicit {
            let known = self.meshes.get(slug);
            return known.ok_or_else(|| Rejection::MeshNotAttached(slug.to_owned()));
        }
        if let Some(only) = self.meshes.only() {
            return Ok(only);
        }
        let attached = self.meshes.all();
        let to = destination.to_text();
        let knows = |mesh: &&Mesh| mesh.with_roster(|roster| roster::knows(roster, &to));
        let mut knowing = attached.iter().filter(knows);
        match (destination.encryption(), knowing.next(), knowing.next()) {
            (Encryption::Direct, Some(only), None) => Ok(only.clone()),
            _ => Err(Rejection::MeshRequired {
                attached: attached.iter().map(|mesh| mesh.slug().to_owned()).collect(),
            }),
        }
    }
}

fn pin(resolution: Resolution, to: &str, mesh: &Mesh) -> Result<Recipient, Rejection> {
    let (to, mesh) = (to.to_owned(), mesh.slug().to_owned());
    match resolution {
        Resolution::Found(recipient) => Ok(recipient),
        Resolution::Unknown => Err(Rejection::Unknown { to, mesh }),
        Resolution::NeverFetched => Err(Rejection::Unresolvable { to, mesh }),
        Resolution::Ambiguous(candidates) => Err(Rejection::Ambiguous { to, candidates }),
    }
}
