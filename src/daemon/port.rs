//! What a link and the flows say to each other, so that neither has to know the other.
//!
//! The drain asks one question of a link: send this, and what became of it? A link that opens hands
//! out a [`LinkTransport`]. When the link closes, its transport says so and never works again, so
//! that "the link is open" and "there is something to send with" are one value (§15.5). In the
//! other direction a link reports what it became and passes pushes on, each with the way back to
//! the socket it came from.

use claudemesh_base::message::{PublicKey, SecretKey};
use claudemesh_base::runtime::BoxFuture;
use claudemesh_base::wire;
use claudemesh_fsm::link::LinkState;
use claudemesh_fsm::outbox::Ack;
use smol::channel::Sender;
use std::sync::Arc;

/// What became of one send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// The broker has it.
    Acked(Ack),
    /// The broker said no.
    Refused {
        /// Its code, if it gave one.
        code: Option<u16>,
        /// Whether it says that trying again can never help, if it says.
        permanent: Option<bool>,
        /// Its words.
        reason: String,
    },
    /// The frame was written and nobody answered: the broker may have it.
    Lost {
        /// Why nobody answered.
        reason: String,
    },
    /// The frame was certainly not written.
    Unsent {
        /// Why not.
        reason: String,
    },
}

/// An open link, as the drain sees it.
pub trait LinkTransport: Send + Sync {
    /// Sends one message and waits for its answer, the ack deadline, or the link's end. The
    /// message's `id` correlates the answer, so two with one id must not be under way at once.
    fn deliver(&self, message: wire::SendFrame) -> BoxFuture<SendOutcome>;

    /// Asks what became of messages the broker has, by `client_message_id`, at most
    /// [`wire::RECEIPT_IDS_MAX`] (§4.13). `None` when this broker does not tell, or the link ends
    /// first; a broker that never answers is the caller's to give up.
    fn receipts(&self, ids: Vec<String>) -> BoxFuture<Option<Vec<wire::Receipt>>>;

    /// Completes when the link is no longer open.
    fn closed(&self) -> BoxFuture<()>;

    /// The secret this link sends with: messages are sealed with it (`specs/wire.md`).
    fn secret(&self) -> &SecretKey;

    /// How long a message may wait on this mesh before it expires, in milliseconds (§4.9).
    fn max_age_ms(&self) -> u64;
}

/// What a link is, in words a person understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    /// The state of §15.5.
    pub state: LinkState,
    /// Why it is not open.
    pub reason: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// The close code that led here.
    pub close_code: Option<u16>,
    /// The feature a negotiation failed on.
    pub feature: Option<String>,
    /// What was negotiated, name to version.
    pub features: Vec<(String, i64)>,
    /// Whether the broker negotiates nothing and was accepted all the same.
    pub legacy_broker: bool,
    /// The most a frame may weigh, if the broker ever said or showed; a link that is down keeps it.
    pub frame_bytes_max: Option<u64>,
}

impl LinkView {
    /// A link of which nothing is known but its state.
    #[must_use]
    pub const fn plain(state: LinkState) -> Self {
        Self {
            state,
            reason: None,
            remedy: None,
            close_code: None,
            feature: None,
            features: Vec::new(),
            legacy_broker: false,
            frame_bytes_max: None,
        }
    }
}

/// A late answer: an `ack` nobody waits for any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateAck {
    /// The `client_message_id` it is for.
    pub client_message_id: String,
    /// The broker's word that it has the message.
    pub ack: Ack,
}

/// A push on its way to the receive flow.
pub struct InboundPush {
    /// What was pushed.
    pub push: wire::PushFrame,
    /// The way back to the socket it came on: acknowledge there, after the commit (§5).
    pub acks: Sender<wire::ClientAck>,
    /// Every secret that may open it, the connection's own key first.
    pub secrets: Arc<[SecretKey]>,
    /// The key the connection routes by.
    pub connection_key: PublicKey,
}

/// Who hears what a link becomes.
pub trait LinkObserver: Send + Sync {
    /// The link is in a state in which it cannot send.
    fn down(&self, view: LinkView);

    /// The link opened: `transport` can send.
    fn open(&self, view: LinkView, transport: Arc<dyn LinkTransport>);

    /// The broker told who is there.
    fn roster(&self, peers: Vec<wire::RosterEntry>);

    /// A success arrived for an attempt that had been given up (§4.5.2).
    fn late_ack(&self, late: LateAck);

    /// The broker told, unasked, what became of messages (§4.13).
    fn receipts(&self, receipts: Vec<wire::Receipt>);

    /// This membership was revoked, learned by `via` (§15.6). The link says that it is down by
    /// itself; this is for whoever keeps records.
    fn revoked(&self, via: &str) {
        let _ = via;
    }
}
