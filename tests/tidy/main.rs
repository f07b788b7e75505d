//! The house rules of `specs/architecture.md`, as tests: who may know whom, what happens in one
//! room only, how files look, which words are used, and that pages name only what exists. Each
//! failure says the rule and its reason.
//!
//! Reads text, not syntax: comments and test code are taken out first, then words are looked for.
//! A binary of its own, because it needs none of the program: it is built and run in a second.

#![allow(unreachable_pub, reason = "its modules are its own")]

mod files;
mod layers;
mod pages;
mod places;
mod source;
mod words;
