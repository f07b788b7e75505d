//! The ways a message takes through the daemon.

pub mod accept;
pub mod drain;
pub mod receipts;
pub mod receive;
pub mod retention;
