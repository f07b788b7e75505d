//! The daemon's HTTP interface (§3): what every request passes through before a route sees it.
//!
//! ```text
//! http -> listen -> guard (§3.1) -> body within its limit -> tide route -> reply
//! ```

pub mod guard;
pub mod listen;
pub mod reply;
