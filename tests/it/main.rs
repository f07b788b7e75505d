//! Every test that looks at the whole program from outside, in one binary, so that it links once.
//!
//! Each module has a subject; what several of them need is in `tests/support/`. A test that must
//! have a process of its own is a binary beside this folder, and says why.

#![allow(unreachable_pub, reason = "its modules are its own")]
#![allow(clippy::print_stdout, reason = "a test says what it did, for when it fails")]

#[path = "../support"]
mod support {
    pub mod chance;
    pub mod raw_client;
    pub mod rig;
    pub mod rubbish;
    pub mod script;
    pub mod small_disk;
    pub mod snap;
    pub mod stream;
    pub mod theirs;
    pub mod torture;
    pub mod vitals;
}

mod accept;
mod bounds;
mod broker;
mod cli;
mod concurrency;
mod crash;
mod delivery;
mod demo;
mod documents;
mod durable;
mod faithful;
mod faults;
mod garbage;
mod idle;
mod ipc;
mod legacy;
mod links;
mod membership;
mod operator;
mod power;
mod progress;
mod recover;
mod salvage;
mod wire;
