//! The daemon's two databases as typed operations: rows go in and out as the types of `fsm`.
//!
//! Nothing here decides. The outbox stores the moves `fsm::outbox` allows, each guarded by the
//! status and attempt it leaves; the inbox stores each message once. All SQL of the daemon lives in
//! this room.

mod batch;
pub mod inbox;
mod legacy;
pub mod outbox;
pub mod quota;
pub(crate) mod schema;
mod trusted_time;

pub use claudemesh_base::db::{Error, Integrity, Kind};
