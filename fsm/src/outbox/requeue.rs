//! What an operator may do to a row that is not on its way: retire it, with or without a
//! successor (§4.5.3).

use super::{Aborted, Change, Dead, Pending, Row, State, Step};
use crate::id::{Millis, RowId};
use alloc::string::String;

/// Why a row is retired, for the audit columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retire {
    /// When.
    pub aborted_at: Millis,
    /// By whom.
    pub aborted_by: String,
    /// The row that takes its place, if one does.
    pub superseded_by: Option<RowId>,
    /// Retire a pending row even though an attempt was never answered.
    pub force: bool,
}

/// Who gives a row up, and when, for the audit columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abort {
    /// When.
    pub aborted_at: Millis,
    /// By whom.
    pub aborted_by: String,
}

impl From<Abort> for Retire {
    fn from(Abort { aborted_at, aborted_by }: Abort) -> Self {
        Self { aborted_at, aborted_by, superseded_by: None, force: true }
    }
}

impl Row<Pending> {
    /// Gives a waiting row up: nothing takes its place, so an attempt that was never answered
    /// cannot be doubled.
    pub fn abort(self, abort: Abort) -> Step<Pending, Aborted> {
        self.aborted(abort.into())
    }

    /// Retires a waiting row.
    ///
    /// # Errors
    /// Gives the row back when an earlier attempt was never answered and `force` is not set:
    /// requeueing it could double the message.
    #[allow(
        clippy::result_large_err,
        reason = "the row itself comes back, and is not boxed for it"
    )]
    pub fn retire(self, retire: Retire) -> Result<Step<Pending, Aborted>, Self> {
        if self.state.may_have_been_sent && !retire.force {
            return Err(self);
        }
        Ok(self.aborted(retire))
    }
}

impl Row<Dead> {
    /// Gives a dead row up.
    pub fn abort(self, abort: Abort) -> Step<Dead, Aborted> {
        self.aborted(abort.into())
    }

    /// Retires a dead row.
    pub fn retire(self, retire: Retire) -> Step<Dead, Aborted> {
        self.aborted(retire)
    }
}

impl<S: State> Row<S> {
    fn aborted(self, retire: Retire) -> Step<S, Aborted> {
        let Retire { aborted_at, aborted_by, superseded_by, force: _ } = retire;
        let change = Change::Aborted {
            aborted_at,
            aborted_by: aborted_by.clone(),
            superseded_by: superseded_by.clone(),
        };
        self.step(Aborted { aborted_at, aborted_by, superseded_by }, change)
    }
}
