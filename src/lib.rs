//! claudemesh: a daemon that makes any host a first-class peer on a message mesh.

pub mod accept;
pub mod api;
pub mod broker;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod courier;
pub mod daemon;
pub mod db;
pub mod drain;
pub mod events;
pub mod http;
pub mod identity;
pub mod ipc;
pub mod join;
pub mod link;
pub mod log;
pub mod meshes;
pub mod message;
pub mod paths;
pub mod receive;
pub mod recover;
pub mod roster;
pub mod store;
pub mod wire;
