//! What was done to a mesh, and by whom (§17.3).

use super::Answer;
use claudemesh_fsm::id::Millis;
use serde::{Deserialize, Serialize};

/// Whoever may write the broker's directory.
pub(crate) const BY_OPERATOR: &str = "operator";
/// The broker itself, by a rule of the mesh (§15.6).
pub(crate) const ACTOR_BROKER: &str = "broker";
/// One act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditEntry {
    pub(crate) at: Millis,
    pub(crate) mesh_id: String,
    pub(crate) actor: &'static str,
    pub(crate) act: &'static str,
    /// The id of the member or mesh it was done to.
    pub(crate) subject: String,
    pub(crate) detail: Option<String>,
}

/// One administrative act, or one decision of the broker itself (§15.6), as it is read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditInfo {
    /// When, Unix milliseconds.
    pub at_ms: i64,
    /// `operator`, or `broker` for a rule of the mesh.
    pub actor: String,
    /// What was done.
    pub act: String,
    /// The id of the member or mesh it was done to.
    pub subject: String,
    /// A word on how.
    pub detail: Option<String>,
}

impl AuditEntry {
    /// An act of whoever runs the broker.
    pub(crate) fn by_operator(mesh: &str, act: &'static str, subject: &str, at: Millis) -> Self {
        let (mesh_id, subject) = (mesh.to_owned(), subject.to_owned());
        Self { at, mesh_id, actor: BY_OPERATOR, act, subject, detail: None }
    }

    /// The same with a word on how.
    pub(crate) fn with(self, detail: &str) -> Self {
        Self { detail: Some(detail.to_owned()), ..self }
    }
}

/// What was done to a mesh, and by whom (§17.3).
pub(crate) trait AuditLedger {
    /// Writes down an act that changes nothing else in the ledger.
    fn record(&self, entry: AuditEntry) -> Answer<()>;

    /// The latest acts of a mesh, newest first, at most `limit`.
    fn audit(&self, mesh: &str, limit: u32) -> Answer<Vec<AuditInfo>>;
}
