//! Topics, who is in them, and their history.

use super::Answer;
use super::LedgerError;
use claudemesh_fsm::id::Millis;

/// The most topics of one mesh: what one list of them holds.
pub(crate) const TOPICS_MAX: i64 = 1000;
/// One topic, as a member sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) visibility: String,
    pub(crate) member_count: i64,
    pub(crate) created_at: Millis,
}

/// One member of a topic.
#[derive(Debug)]
pub(crate) struct TopicMember {
    pub(crate) member_id: String,
    pub(crate) pubkey: String,
    pub(crate) display_name: String,
    pub(crate) role: String,
    pub(crate) joined_at: Millis,
}

/// One message of a topic's past.
#[derive(Debug)]
pub(crate) struct TopicPage {
    pub(crate) id: String,
    pub(crate) sender_pubkey: String,
    pub(crate) sender_member_id: Option<String>,
    pub(crate) sender_name: String,
    pub(crate) nonce: String,
    pub(crate) ciphertext: String,
    pub(crate) reply_to_id: Option<String>,
    pub(crate) created_at: Millis,
}

/// Why a topic verb failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TopicError {
    #[error("no such topic")]
    NotFound,
    #[error("the topic is not public")]
    Forbidden,
    #[error("a mesh has at most {TOPICS_MAX} topics")]
    TooMany,
    #[error("not a member: the membership has ended")]
    NotAMember,
    #[error(transparent)]
    Failed(#[from] LedgerError),
}

/// Who asks, about which topic (id or name).
#[derive(Debug, Clone)]
pub(crate) struct TopicKey {
    pub(crate) mesh_id: String,
    pub(crate) member: i64,
    pub(crate) topic: String,
}

/// Topics, who is in them, and their history.
pub(crate) trait TopicLedger {
    /// Creates a topic and puts its creator in as lead, or finds it. Says whether it is new.
    fn create_topic(
        &self,
        mesh: &str,
        member: i64,
        new: TopicRow,
    ) -> Answer<(TopicRow, bool), TopicError>;

    /// The topics a member may see: the public ones and its own.
    fn topics(&self, mesh: &str, member: i64) -> Answer<Vec<TopicRow>>;

    /// The ids of the topics a member is in.
    fn topics_joined(&self, member: i64) -> Answer<Vec<String>>;

    /// Puts a member into a public topic; joining again changes nothing.
    fn join_topic(&self, key: TopicKey, now: Millis) -> Answer<(), TopicError>;

    /// Takes a member out of a topic.
    fn leave_topic(&self, key: TopicKey) -> Answer<(), TopicError>;

    /// Who is in a topic.
    fn topic_members(&self, key: TopicKey) -> Answer<(TopicRow, Vec<TopicMember>), TopicError>;

    /// A page of a topic's past, newest first, before a message if one is named.
    fn topic_history(
        &self,
        key: TopicKey,
        limit: Option<u32>,
        before_id: Option<String>,
    ) -> Answer<(TopicRow, Vec<TopicPage>), TopicError>;
}
