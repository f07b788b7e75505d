//! The decisions of claudemesh, and nothing else.
//!
//! This crate cannot read a clock, roll a die, open a file or speak to a peer: it is `no_std`, has
//! no dependencies, and takes the time and the jitter as arguments. What it offers is the part of
//! the product that must be right before anything else matters: which state may follow which, what
//! an answer means, and when to try again. The rooms around it carry its decisions out.
//!
//! | module | decides | contract |
//! |---|---|---|
//! | [`id`] | what an identifier may look like | §3.3, §4.2 |
//! | [`envelope`] | what a message is addressed to, and how urgent it is | §3.3, §4.4 |
//! | [`outbox`] | how a row may move | §4.5.2, §4.5.3 |
//! | [`accept`] | what a caller is told about an id | §4.5.1 |
//! | [`retry`] | when a row is due again, and when it is too old | §4.6, §4.9 |
//! | [`link`] | how a connection to a broker lives and dies | §15.5 |
//! | [`negotiate`] | whether a broker's features will do | §15 |
//! | [`dedupe`] | what a broker answers to an id it may know | §4.5b |
//! | [`refusal`] | what a broker's "no" asks of us | §4.6 |
//! | [`receive`] | what a pushed message is to its receiver | §5 |
//! | [`quota`] | how full a store is, and whether it takes more | §1.2 |

#![no_std]

extern crate alloc;

pub mod accept;
pub mod dedupe;
pub mod envelope;
pub mod id;
pub mod link;
pub mod negotiate;
pub mod outbox;
pub mod quota;
pub mod receive;
pub mod refusal;
pub mod retry;
