//! What every layer above stands on, and what belongs to none of them.
//!
//! [`runtime`] is time, randomness and tasks; [`log`] and [`paths`] are files; [`db`] is a durable
//! SQLite database without any table; [`http`] is a server and a client without any route;
//! [`wire`] is the frames of a broker connection, and [`message`] what is inside them; [`nearest()`]
//! finds what a misspelt name may have meant.

pub mod db;
pub mod http;
pub mod log;
pub mod message;
mod nearest;
pub mod paths;
pub mod runtime;
pub mod wire;

pub use nearest::nearest;
