//! The accept flow: a request becomes a durable row, or an answer that says why not (§3.3, §4.5.1).
//!
//! Nothing is written to a socket here and nothing waits for a link: accepting works while every
//! broker is down. A retry of an id that already has a row gets its row's answer, whatever else is
//! wrong with the request: resolution, size and disk space matter only when there is no row.

use crate::api::bodies::{Candidate, SendBody};
use crate::mesh::roster::{self, Resolution};
use crate::mesh::{Mesh, Meshes};
use crate::store::Error as StoreError;
use crate::store::outbox::{AcceptOutcome, NewRow, Outbox, RequestKey};
use claudemesh_base::message::{MetaError, canonical_meta, fingerprint};
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire::send_frame::oversized_frame_bytes;
use claudemesh_base::wire::{FRAME_BYTES_MAX, MENTIONS_MAX};
use claudemesh_fsm::envelope::{
    Destination, DestinationError, Draft, Encryption, Envelope, Priority, Recipient,
};
use claudemesh_fsm::id::{ClientMessageId, IdError, RowId};

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

/// Why a request consumed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The header's id and the body's differ.
    IdsDisagree,
    /// The id cannot be one.
    BadId(IdError),
    /// A field has the right type and a bad value.
    BadField {
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: String,
    },
    /// `meta` cannot be fingerprinted.
    BadMeta(MetaError),
    /// Several meshes are attached and nothing says which.
    MeshRequired {
        /// The attached meshes.
        attached: Vec<String>,
    },
    /// That mesh is not attached.
    MeshNotAttached(String),
    /// That mesh's broker will not have us.
    MeshRefused {
        /// The mesh.
        mesh: String,
        /// Why.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// Several members have that name.
    Ambiguous {
        /// The name.
        to: String,
        /// Who.
        candidates: Vec<Candidate>,
    },
    /// Nobody has ever had that name.
    Unknown {
        /// The name.
        to: String,
        /// The mesh that was searched.
        mesh: String,
    },
    /// No roster was ever fetched.
    Unresolvable {
        /// The name.
        to: String,
        /// The mesh.
        mesh: String,
    },
    /// The frame would be too heavy.
    TooLarge {
        /// The mesh.
        mesh: String,
        /// What it would weigh.
        frame_bytes: usize,
        /// What the mesh allows.
        frame_bytes_max: usize,
    },
    /// The outbox did not take it.
    Store(StoreError),
}

impl From<StoreError> for Rejection {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl AcceptFlow {
    /// Accepts one request. `header_id` is the `Idempotency-Key` header, unquoted.
    ///
    /// # Errors
    /// Says why nothing was accepted; the id stays free.
    pub async fn accept(
        &self,
        body: SendBody,
        header_id: Option<String>,
    ) -> Result<AcceptAnswer, Rejection> {
        let client_message_id = self.choose_id(body.client_message_id.as_deref(), header_id)?;
        let (key, draft) = check(client_message_id.clone(), body)?;
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

    fn choose_id(
        &self,
        in_body: Option<&str>,
        in_header: Option<String>,
    ) -> Result<ClientMessageId, Rejection> {
        let given = |id: &str| !id.trim().is_empty();
        let in_body = in_body.filter(|id| given(id));
        let in_header = in_header.filter(|id| given(id));
        match (in_body, in_header) {
            (Some(body), Some(header)) if body.trim() != header.trim() => {
                Err(Rejection::IdsDisagree)
            }
            (Some(id), _) => ClientMessageId::parse(id).map_err(Rejection::BadId),
            (None, Some(id)) => ClientMessageId::parse(&id).map_err(Rejection::BadId),
            (None, None) => Ok(ClientMessageId::trusted(self.runtime.mint_id())),
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
        Resolution::Ambiguous(matches) => Err(Rejection::Ambiguous {
            to,
            candidates: matches
                .into_iter()
                .map(|found| Candidate {
                    pubkey: found.recipient.routing_key,
                    member_pubkey: found.recipient.member_key,
                    display_name: found.name,
                    online: found.online,
                })
                .collect(),
        }),
    }
}

/// What can be said of a request without knowing a mesh.
fn check(
    client_message_id: ClientMessageId,
    body: SendBody,
) -> Result<(RequestKey, Draft), Rejection> {
    let bad = |field, expected: &str| Rejection::BadField { field, expected: expected.to_owned() };
    if body.message.is_empty() {
        return Err(bad("message", "a non-empty string"));
    }
    let destination = Destination::parse(&body.to).map_err(|error| match error {
        DestinationError::Empty => {
            bad("to", "a public key, a name, @group, #topic or *, not empty")
        }
        DestinationError::ControlCharacter => bad("to", "free of control characters"),
        DestinationError::ReservedGroup => {
            bad("to", "a group whose name begins with neither * nor #")
        }
    })?;
    let written = body.to.trim();
    let reference_as_written = match &destination {
        Destination::Member(key) if key != written => Some(written.to_owned()),
        Destination::Everyone => written.strip_prefix('@').map(str::to_owned),
        _ => None,
    };
    let priority = match body.priority.as_deref() {
        None => Priority::default(),
        Some(word) => {
            Priority::parse(word).ok_or_else(|| bad("priority", "\"now\", \"next\" or \"low\""))?
        }
    };
    let has_control = |text: &String| text.chars().any(char::is_control);
    if body.reply_to_id.as_ref().is_some_and(has_control) {
        return Err(bad("reply_to_id", "free of control characters"));
    }
    check_mentions(&body.mentions, &destination)?;
    let meta = match &body.meta {
        None => None,
        Some(raw) => canonical_meta(raw).map_err(Rejection::BadMeta)?,
    };
    let payload = body.message.into_bytes();
    let reply_to_id = body.reply_to_id.filter(|id| !id.is_empty());
    let fingerprint =
        fingerprint(&destination, reply_to_id.as_deref(), priority, meta.as_deref(), &payload);
    let draft = Draft {
        destination,
        priority,
        meta,
        reply_to_id,
        mentions: body.mentions,
        payload,
        fingerprint,
    };
    let explicit_mesh = body.mesh;
    Ok((RequestKey { client_message_id, explicit_mesh, reference_as_written }, draft))
}

fn check_mentions(mentions: &[String], destination: &Destination) -> Result<(), Rejection> {
    let bad = |expected: String| Rejection::BadField { field: "mentions", expected };
    if mentions.len() > MENTIONS_MAX {
        return Err(bad(format!("at most {MENTIONS_MAX} names")));
    }
    if !mentions.is_empty() && !matches!(destination, Destination::Topic(_)) {
        return Err(bad("absent unless `to` is a #topic".to_owned()));
    }
    if mentions.iter().any(|name| name.is_empty() || name.chars().any(char::is_control)) {
        return Err(bad("names, not empty and free of control characters".to_owned()));
    }
    Ok(())
}
