//! The daemon: it holds one link per mesh, keeps what was accepted and what arrived, and answers
//! local programs.

pub mod api;
pub mod config;
pub mod error;
pub mod events;
pub mod flow;
pub mod identity;
pub mod join;
pub mod link;
pub mod lock;
pub mod mesh;
pub mod port;
pub mod repair;
pub mod startup;
pub mod store;
