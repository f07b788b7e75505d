//! How a message is accepted: once, or not at all (§17.1).

use super::{Answer, LedgerError, QueuedMessage};
use claudemesh_base::runtime::BoxFuture;
use claudemesh_base::wire::SendFrame;
use claudemesh_fsm::dedupe::DedupeEntry;
use claudemesh_fsm::envelope::Destination;
use claudemesh_fsm::id::{Fingerprint, Millis};
use std::sync::Arc;

/// Who sends, as its connection was authenticated.
#[derive(Debug, Clone)]
pub(crate) struct MessageSender {
    pub(crate) mesh_id: String,
    pub(crate) member: i64,
    pub(crate) member_pubkey: String,
    /// The session key, or the member key: what the message was sealed with.
    pub(crate) routing_key: String,
    pub(crate) name: String,
    /// The routing key of another connection of the same member, if there is one.
    pub(crate) other_connection: Option<String>,
}

/// One message to accept.
#[derive(Debug)]
pub(crate) struct IncomingMessage {
    /// The id it gets if it is new.
    pub(crate) id: String,
    /// What it deduplicates on; old clients send neither.
    pub(crate) client: Option<(String, Fingerprint)>,
    /// Where it goes, or why phase B1 refuses it.
    pub(crate) destination: Result<Destination, Refusal>,
    /// The frame it came in.
    pub(crate) frame: SendFrame,
    pub(crate) now: Millis,
    /// When the dedupe row may be forgotten; `None`: never.
    pub(crate) dedupe_expires_at: Option<Millis>,
}

/// What became of a message that was not refused.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it is always behind an Arc")]
pub(crate) enum AcceptOutcome {
    /// It is stored.
    First { message: QueuedMessage, recipients: Vec<Recipient> },
    /// It was stored before.
    Duplicate(DedupeEntry),
    /// The id belongs to another request.
    Mismatch { broker_message_id: String, broker_fingerprint_prefix: String },
}

/// Why a message is refused; its id stays free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A field is wrong; the text says which and what was expected.
    Invalid(String),
    TooLarge {
        bytes: usize,
        limit: usize,
    },
    RateLimited,
    /// The disk is below its reserve.
    DiskFull,
    /// The sender's membership has ended.
    NotAMember,
    /// No member and no session of this mesh ever had the key.
    UnknownRecipient,
    /// The member is known, and its membership is suspended.
    BannedRecipient,
    /// The recipient does not take direct messages of this sender.
    Blocked,
    UnknownTopic(String),
    MayNotWrite(String),
    /// The sender's own key, and no other connection of the sender.
    OnlyYourself,
    QueueFull,
}

/// Why a message is not accepted; its id stays free.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum AcceptError {
    #[error("refused: {0:?}")]
    Refused(Refusal),
    #[error(transparent)]
    Failed(#[from] LedgerError),
}

impl From<Refusal> for AcceptError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A member whose queue a message is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipient {
    pub(crate) member: i64,
    /// The only key of the member that may have the message, if it was sealed to one.
    pub(crate) only_key: Option<String>,
}

/// What a message came to. Cheap to clone.
pub(crate) type Accepted = Result<Arc<AcceptOutcome>, AcceptError>;

/// Asked once, for a message that is new and well-formed, whether there is room for it. The argument
/// says how many bytes the ledger could store without growing.
pub(crate) type Admit = Box<dyn FnOnce(&dyn Fn() -> u64) -> Result<(), Refusal> + Send>;

/// Called once, when it is decided what a message came to, in the order of the commits. It runs on
/// the thread that writes the ledger, so that it must neither wait nor work.
pub(crate) type OnDecided = Box<dyn FnOnce(&Accepted) + Send>;

/// How a message is accepted: once, or not at all (§17.1).
pub(crate) trait AcceptLedger {
    /// Accepts one message. A known id is answered first, whatever else is wrong with the retry;
    /// `admit` is asked after that.
    ///
    /// Waits for room in the ledger's queue, then for the commit; once it is queued, the message is
    /// accepted and `on_decided` is called whether or not anybody still waits.
    fn accept(
        &self,
        sender: MessageSender,
        message: IncomingMessage,
        admit: Admit,
        on_decided: OnDecided,
    ) -> BoxFuture<Accepted>;

    /// Puts a message into a topic's history and into nobody's queue; does nothing where there is
    /// no such topic.
    fn insert_topic_history(
        &self,
        sender: MessageSender,
        message: IncomingMessage,
        topic_id: String,
    ) -> Answer<()>;
}
