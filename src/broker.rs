//! The embedded broker.
pub(crate) mod ledger;
