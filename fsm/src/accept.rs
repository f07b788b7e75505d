//! What a caller is told about an id: §4.5.1 as two total matches, one for the same
//! fingerprint and one for another.
//!
//! Neither has a wildcard: a sixth state would not compile until its two answers were written.

use crate::id::Fingerprint;
use crate::outbox::RowSummary;
use alloc::string::String;

/// What to do with a request whose id was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AcceptDecision {
    /// No row has the id: insert one, commit, then answer 202.
    Insert,
    /// The row waits: 202 `queued`, nothing changes.
    Queued,
    /// The row is on its way: 202 `inflight`, nothing changes.
    Inflight,
    /// The broker has it: 200 `done`, `duplicate`.
    Done {
        /// The broker's id for it.
        broker_message_id: String,
        /// The broker's history id for it.
        history_id: Option<String>,
    },
    /// The id cannot be used for this request: 409.
    Conflict(Conflict),
}

/// Why an id cannot be used (409 `idempotency_key_reused`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the row of §4.5.1 of the same name")]
pub enum Conflict {
    PendingMismatch,
    InflightMismatch,
    DoneMismatch { broker_message_id: String },
    DeadMatch { last_error: String },
    DeadMismatch,
    AbortedMatch { superseded_by: Option<String> },
    AbortedMismatch,
}

impl Conflict {
    /// The `conflict` word of the answer.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::PendingMismatch => "outbox_pending_fingerprint_mismatch",
            Self::InflightMismatch => "outbox_inflight_fingerprint_mismatch",
            Self::DoneMismatch { .. } => "outbox_done_fingerprint_mismatch",
            Self::DeadMatch { .. } => "outbox_dead_fingerprint_match",
            Self::DeadMismatch => "outbox_dead_fingerprint_mismatch",
            Self::AbortedMatch { .. } => "outbox_aborted_fingerprint_match",
            Self::AbortedMismatch => "outbox_aborted_fingerprint_mismatch",
        }
    }
}

/// Decides what a request is told, from the row that has its id, if one does.
#[must_use]
pub fn decide(
    existing: Option<(Fingerprint, RowSummary)>,
    fingerprint: Fingerprint,
) -> AcceptDecision {
    let Some((stored, row_summary)) = existing else {
        return AcceptDecision::Insert;
    };
    if stored != fingerprint {
        return AcceptDecision::Conflict(mismatch(row_summary));
    }
    match row_summary {
        RowSummary::Pending => AcceptDecision::Queued,
        RowSummary::Inflight => AcceptDecision::Inflight,
        RowSummary::Done { broker_message_id, history_id } => {
            AcceptDecision::Done { broker_message_id, history_id }
        }
        RowSummary::Dead { last_error } => {
            AcceptDecision::Conflict(Conflict::DeadMatch { last_error })
        }
        RowSummary::Aborted { superseded_by } => {
            AcceptDecision::Conflict(Conflict::AbortedMatch { superseded_by })
        }
    }
}

/// What a request that is not the row's is told: another fingerprint, or another explicit mesh
/// (§3.3), which the fingerprint does not cover.
#[must_use]
pub fn mismatch(row_summary: RowSummary) -> Conflict {
    match row_summary {
        RowSummary::Pending => Conflict::PendingMismatch,
        RowSummary::Inflight => Conflict::InflightMismatch,
        RowSummary::Done { broker_message_id, .. } => Conflict::DoneMismatch { broker_message_id },
        RowSummary::Dead { .. } => Conflict::DeadMismatch,
        RowSummary::Aborted { .. } => Conflict::AbortedMismatch,
    }
}
