//! The life of one outbox row, as types (§4.5.2).
//!
//! ```text
//!                  claim               acked
//!      ┌─ Pending ─────────▶ Inflight ─────────▶ Done ◀─┐
//!      │   │ │ ▲              │ │                      │
//!      │   │ │ └──────────────┘ └────────▶ Dead ◀─┐     │
//!      │   │ │  lost, deferred    refused    │    │     │
//!      │   │ └────────────────────────────── │ ───┘     │
//!      │   │              expired            │          │
//!      │   └──────────▶ Aborted ◀────────────┘          │
//!      │     retire               retire                │
//!      └────────────────────────────────────────────────┘
//!                        acked_late
//! ```
//!
//! To retire is to be requeued as another row; `abort` leads the same way with none in its place.
//!
//! Nothing leaves [`Done`] or [`Aborted`]: they have no methods that move. A [`Row`] is not `Clone`,
//! and a move consumes it. What a move returns is not the next row but a [`Step`]: the next row
//! exists only once the change is on disk. Because commits are shared and asynchronous, a step
//! comes apart in two. The [`Guard`] travels to the writer, which spends it on one guarded
//! `UPDATE` and gets a [`Verdict`] that leaves the transaction only if it commits; the
//! [`Unsettled`] half stays behind and becomes the next row only against that verdict. Nothing else yields the next row, and nothing
//! but the guard itself yields its verdict.

mod inflight;
mod pending;
mod requeue;
mod restore;

pub use pending::Ack;
pub use requeue::{Abort, Retire};
pub use restore::{AnyRow, Corrupt, RowRecord, RowSummary, RowSummaryRecord, row_summary};

use crate::envelope::Envelope;
use crate::id::{BrokerMessageId, ClientMessageId, Millis, RowId};
use alloc::string::String;

/// The five states, as the `status` column spells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Waiting for its turn.
    Pending,
    /// Claimed: its frame is being written, or its answer is awaited.
    Inflight,
    /// The broker has it.
    Done,
    /// It will never be sent.
    Dead,
    /// Retired by an operator.
    Aborted,
}

impl Status {
    /// Every state, in the order of the graph.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Inflight, Self::Done, Self::Dead, Self::Aborted];

    /// The word used in the database and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Inflight => "inflight",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Aborted => "aborted",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// Waiting to be claimed.
#[derive(Debug, PartialEq, Eq)]
pub struct Pending {
    /// Not before this instant.
    pub next_attempt_at: Millis,
    /// What went wrong last time, if anything did.
    pub last_error: Option<String>,
    /// Whether an attempt was written to a socket and never answered, or may have been and was
    /// forgotten by a power cut (§4.5.3, §4.7).
    pub may_have_been_sent: bool,
}

/// Claimed by the one task that is sending it.
#[derive(Debug, PartialEq, Eq)]
pub struct Inflight {
    /// Whether an attempt before this one was never answered.
    pub earlier_unanswered: bool,
}

/// The broker has it. Final.
#[derive(Debug, PartialEq, Eq)]
pub struct Done {
    /// The broker's id for it.
    pub broker_message_id: BrokerMessageId,
    /// Its place in the broker's history, when the broker keeps one.
    pub history_id: Option<String>,
    /// When the broker acknowledged it.
    pub delivered_at: Millis,
}

/// It will never be sent; an operator may retire it.
#[derive(Debug, PartialEq, Eq)]
pub struct Dead {
    /// Why, in the broker's words where it was the broker.
    pub last_error: String,
    /// Whether an attempt was never answered, so that the broker may have it after all.
    pub may_have_been_sent: bool,
}

/// Retired by an operator. Final.
#[derive(Debug, PartialEq, Eq)]
pub struct Aborted {
    /// When.
    pub aborted_at: Millis,
    /// By whom.
    pub aborted_by: String,
    /// The row that took its place, when it was requeued.
    pub superseded_by: Option<RowId>,
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Pending {}
    impl Sealed for super::Inflight {}
    impl Sealed for super::Done {}
    impl Sealed for super::Dead {}
    impl Sealed for super::Aborted {}
}

/// A state a row can be in. Sealed: there are five.
pub trait State: sealed::Sealed + Sized + Send {
    /// The state's name as data.
    const STATUS: Status;
}

impl State for Pending {
    const STATUS: Status = Status::Pending;
}
impl State for Inflight {
    const STATUS: Status = Status::Inflight;
}
impl State for Done {
    const STATUS: Status = Status::Done;
}
impl State for Dead {
    const STATUS: Status = Status::Dead;
}
impl State for Aborted {
    const STATUS: Status = Status::Aborted;
}

/// What every row has, whatever its state.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// Our name for the row.
    pub id: RowId,
    /// The caller's name for the message.
    pub client_message_id: ClientMessageId,
    /// When it was accepted.
    pub enqueued_at: Millis,
    /// How often it was claimed.
    pub attempts: u32,
    /// The message itself.
    pub envelope: Envelope,
}

/// One outbox row in state `S`. Not `Clone`: whoever holds it is the only one who may move it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a row that is dropped is a message nobody sends"]
pub struct Row<S> {
    identity: Identity,
    state: S,
}

impl<S: State> Row<S> {
    /// What the row is, whatever its state.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What only this state knows.
    pub const fn state(&self) -> &S {
        &self.state
    }

    /// The message.
    pub const fn envelope(&self) -> &Envelope {
        &self.identity.envelope
    }

    fn step<N: State>(self, next: N, change: Change) -> Step<S, N> {
        let guard = Guard {
            id: self.identity.id.clone(),
            leaves: S::STATUS,
            attempts: self.identity.attempts,
            change,
        };
        let attempts_after = guard.attempts_after();
        let unsettled =
            Unsettled { identity: self.identity, prior: self.state, next, attempts_after };
        Step { guard, unsettled }
    }
}

/// The columns a move writes; what it leaves alone is not named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// → inflight, with one more attempt.
    Claimed,
    /// → done.
    Done {
        /// The broker's id.
        broker_message_id: BrokerMessageId,
        /// The broker's history id.
        history_id: Option<String>,
        /// When it acknowledged.
        delivered_at: Millis,
        /// How many members it waits for: what its receipt begins with (§4.13). Not part of the
        /// row, which is final: what is learned later lives beside it.
        recipients: Option<u32>,
    },
    /// → pending again.
    Returned {
        /// When it is due.
        next_attempt_at: Millis,
        /// What went wrong; `None` keeps what is there.
        last_error: Option<String>,
        /// Whether an attempt is unanswered.
        may_have_been_sent: bool,
        /// Whether the attempt counts: a rate-limited one does not (§4.6).
        counts: bool,
    },
    /// → dead.
    Dead {
        /// Why.
        last_error: String,
        /// Whether an attempt is unanswered.
        may_have_been_sent: bool,
    },
    /// → aborted.
    Aborted {
        /// When.
        aborted_at: Millis,
        /// By whom.
        aborted_by: String,
        /// The row in its place.
        superseded_by: Option<RowId>,
    },
}

impl Change {
    /// The status the change leads to.
    #[must_use]
    pub const fn enters(&self) -> Status {
        match self {
            Self::Claimed => Status::Inflight,
            Self::Done { .. } => Status::Done,
            Self::Returned { .. } => Status::Pending,
            Self::Dead { .. } => Status::Dead,
            Self::Aborted { .. } => Status::Aborted,
        }
    }

    /// Whether the commit must be on stable storage before anybody hears of it (§4.7). The others
    /// may be forgotten by a power cut: recovery and the broker's dedupe bring them back.
    #[must_use]
    pub const fn must_be_synced(&self) -> bool {
        matches!(self, Self::Dead { .. } | Self::Aborted { .. })
    }
}

/// A move on its way to disk. Take it apart with [`Step::split`].
#[derive(Debug)]
#[must_use = "a move that is not stored did not happen"]
pub struct Step<S, N> {
    guard: Guard,
    unsettled: Unsettled<S, N>,
}

impl<S: State, N: State> Step<S, N> {
    /// The half that travels to the writer, and the half that waits for its verdict.
    pub fn split(self) -> (Guard, Unsettled<S, N>) {
        (self.guard, self.unsettled)
    }
}

/// The row as it must still be for the move to happen, and the values to write (§4.5.2).
#[derive(Debug)]
#[must_use = "a guard that reaches no writer is a move that never happens"]
pub struct Guard {
    id: RowId,
    leaves: Status,
    attempts: u32,
    change: Change,
}

impl Guard {
    /// The row to update.
    #[must_use]
    pub const fn id(&self) -> &RowId {
        &self.id
    }

    /// The status it must still have.
    #[must_use]
    pub const fn leaves(&self) -> Status {
        self.leaves
    }

    /// The attempt it must still be at.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The attempt count the row has once it has moved.
    #[must_use]
    pub const fn attempts_after(&self) -> u32 {
        match self.change {
            Change::Claimed => self.attempts.saturating_add(1),
            Change::Returned { counts: false, .. } => self.attempts.saturating_sub(1),
            _ => self.attempts,
        }
    }

    /// The values to write.
    #[must_use]
    pub const fn change(&self) -> &Change {
        &self.change
    }

    /// Inside the transaction: `rows_changed` is what the guarded `UPDATE` reported. The verdict
    /// must leave the transaction only by its `COMMIT`.
    pub fn applied(self, rows_changed: usize) -> Verdict {
        Verdict { id: self.id, moved: rows_changed > 0 }
    }
}

/// What became of a guard. Made from the guard alone.
#[derive(Debug)]
#[must_use = "the waiting half of the step needs this"]
pub struct Verdict {
    id: RowId,
    moved: bool,
}

/// The half of a step that stays with its owner until the commit is decided.
#[derive(Debug)]
#[must_use = "settle it with the writer's verdict"]
pub struct Unsettled<S, N> {
    identity: Identity,
    prior: S,
    next: N,
    attempts_after: u32,
}

impl<S: State, N: State> Unsettled<S, N> {
    /// Learns what the writer did. `Ok(Some)` is the row in its new state; `Ok(None)` means another
    /// writer moved it first, and this result is to be dropped.
    ///
    /// # Errors
    /// When nothing was committed, the row comes back in the state it had, with the reason.
    ///
    /// # Panics
    /// When given another row's verdict, which is a bug in the caller.
    #[allow(
        clippy::result_large_err,
        reason = "the row itself comes back, and is not boxed for it"
    )]
    pub fn settle<E>(self, outcome: Result<Verdict, E>) -> Result<Option<Row<N>>, (Row<S>, E)> {
        match outcome {
            Ok(verdict) => {
                assert!(verdict.id == self.identity.id, "a verdict settles the row it is about");
                let identity = Identity { attempts: self.attempts_after, ..self.identity };
                Ok(verdict.moved.then_some(Row { identity, state: self.next }))
            }
            Err(reason) => Err((Row { identity: self.identity, state: self.prior }, reason)),
        }
    }
}
