//! The list of commands, in the order of the help page. Parsing, help and completions go through it;
//! a command that is not here does not exist.

use super::command::Command;
use super::{
    broker, completions, daemon, demo, events, help, inbox, join, member, mesh, operator, outbox,
    peers, recover, send, status, up,
};

pub(super) const COMMANDS: &[Command] = &[
    up::UP,
    status::STATUS,
    daemon::VERSION,
    daemon::DOWN,
    daemon::RELOAD,
    recover::RECOVER,
    outbox::LIST,
    outbox::REQUEUE,
    operator::INSPECT,
    operator::ABORT,
    operator::PRUNE,
    send::SEND,
    inbox::INBOX,
    events::EVENTS,
    peers::PEERS,
    join::JOIN,
    mesh::CREATE,
    mesh::LIST,
    mesh::INVITE,
    member::LIST,
    member::KICK,
    member::BAN,
    member::UNBAN,
    member::REVOKE,
    member::BLOCK,
    member::UNBLOCK,
    broker::BROKER,
    broker::CHECK,
    broker::AUDIT,
    demo::DEMO,
    help::VERSION,
    help::HELP,
    completions::COMPLETIONS,
];

#[cfg(test)]
mod tests;
