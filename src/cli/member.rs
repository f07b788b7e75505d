//! `member list|kick|ban|unban|revoke|block|unblock`: on the machine that runs the broker, through
//! it or, when none runs, on its ledger (§17.3).

use super::broker::{DATA, ITS_MESH, data_dir, open};
use super::command::{Command, Parsed, Run};
use super::print::{Tone, columns, inline};
use super::{Context, Failure};
use claudemesh_base::runtime::iso;
use claudemesh_broker::{MemberAct, MemberDone, MemberInfo};
use claudemesh_fsm::id::Millis;
use serde_json::{Value, json};

/// What the commands about one member have in common.
const fn about_member(run: Run) -> Command {
    Command {
        operands: &["<who>"],
        flags: &[ITS_MESH, DATA],
        details: "<who> is a member's name, id, key, or the first 8 digits of its key or more.",
        ..Command::new(run)
    }
}

pub(super) const LIST: Command = Command {
    name: "member list",
    flags: &[ITS_MESH, DATA],
    about: "who is in a mesh, on the machine that runs its broker",
    examples: &["claudemesh member list --mesh demo"],
    ..Command::new(list)
};

fn list(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let dir = data_dir(context, parsed);
    let (mesh, members) = context.block_on(async {
        let (admin, mesh) = open(context, &dir, parsed).await?;
        let members = admin.members(&mesh).await?;
        Ok((mesh, members))
    })?;
    let items: Vec<_> = members.iter().map(shown).collect();
    context.print.answer(&json!({ "mesh": mesh, "members": items }), || {
        if members.is_empty() {
            return "(nobody)".to_owned();
        }
        columns(&members.iter().map(row).collect::<Vec<_>>())
    })
}

pub(super) const KICK: Command = Command {
    name: "member kick",
    about: "close a member's connections",
    examples: &["claudemesh member kick bob"],
    ..about_member(kick)
};

fn kick(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    act(context, parsed, MemberAct::Kick, |name, done| match done.changed {
        true => format!("kicked {name}: {}", closed(done)),
        false => format!("{name} is not connected: nothing to close"),
    })
}

pub(super) const BAN: Command = Command {
    name: "member ban",
    about: "keep a member out until it is unbanned; its mail waits",
    examples: &["claudemesh member ban bob --mesh demo"],
    ..about_member(ban)
};

fn ban(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    act(context, parsed, MemberAct::Ban, |name, done| match done.changed {
        true => format!("banned {name}: {}; its mail waits for an unban", closed(done)),
        false => format!("{name} was banned already"),
    })
}

pub(super) const UNBAN: Command = Command {
    name: "member unban",
    about: "let a banned member in again",
    examples: &["claudemesh member unban bob"],
    ..about_member(unban)
};

fn unban(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    act(context, parsed, MemberAct::Unban, |name, done| match done.changed {
        true => format!("unbanned {name}: it may connect again (`claudemesh daemon down`, `up`)"),
        false => format!("{name} was not banned"),
    })
}

pub(super) const REVOKE: Command = Command {
    name: "member revoke",
    about: "end a membership for good; its mail is thrown away",
    examples: &["claudemesh member revoke 8139770ea87d175f"],
    ..about_member(revoke)
};

fn revoke(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    act(context, parsed, MemberAct::Revoke, |name, done| match done.changed {
        true => format!("revoked {name} for good: {}", closed(done)),
        false => format!("{name} was revoked already"),
    })
}

pub(super) const BLOCK: Command = Command {
    name: "member block",
    operands: &["<who>", "<sender>"],
    about: "keep one member's direct messages from another",
    examples: &["claudemesh member block bob mallory"],
    ..about_member(|context, parsed| set_block(context, parsed, true))
};

pub(super) const UNBLOCK: Command = Command {
    name: "member unblock",
    operands: &["<who>", "<sender>"],
    about: "let them through again",
    examples: &["claudemesh member unblock bob mallory"],
    ..about_member(|context, parsed| set_block(context, parsed, false))
};

fn act(
    context: &Context,
    parsed: &Parsed,
    act: MemberAct,
    words: impl FnOnce(&str, &MemberDone) -> String,
) -> Result<u8, Failure> {
    let dir = data_dir(context, parsed);
    let (mesh, done) = context.block_on(async {
        let (admin, mesh) = open(context, &dir, parsed).await?;
        let done = admin.act_on_member(&mesh, &parsed.operands[0], act).await?;
        Ok((mesh, done))
    })?;
    answer(context, &mesh, &done, json!({}), words)
}

fn set_block(context: &Context, parsed: &Parsed, is_blocked: bool) -> Result<u8, Failure> {
    let dir = data_dir(context, parsed);
    let (who, sender) = (&parsed.operands[0], &parsed.operands[1]);
    let (mesh, done) = context.block_on(async {
        let (admin, mesh) = open(context, &dir, parsed).await?;
        let done = admin.set_block(&mesh, who, sender, is_blocked).await?;
        Ok((mesh, done))
    })?;
    let sender = inline(sender);
    answer(
        context,
        &mesh,
        &done,
        json!({ "sender": sender, "blocked": is_blocked }),
        |name, done| match (is_blocked, done.changed) {
            (true, true) => format!("{name} gets no direct messages from {sender} any more"),
            (true, false) => format!("{name} got no direct messages from {sender} before either"),
            (false, true) => format!("{name} gets direct messages from {sender} again"),
            (false, false) => format!("{name} was not kept from {sender}'s direct messages"),
        },
    )
}

fn answer(
    context: &Context,
    mesh: &str,
    done: &MemberDone,
    more: Value,
    words: impl FnOnce(&str, &MemberDone) -> String,
) -> Result<u8, Failure> {
    let mut value = json!({
        "ok": true, "mesh": mesh, "member": shown(&done.member),
        "changed": done.changed, "closed": done.closed,
    });
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    context.print.answer(&value, || {
        let words = words(&inline(&done.member.display_name), done);
        let tone = if done.changed { Tone::Good } else { Tone::Quiet };
        context.print.paint(tone, &words)
    })
}

fn closed(done: &MemberDone) -> String {
    connections(done.closed) + " closed"
}

fn connections(count: usize) -> String {
    format!("{count} connection{}", if count == 1 { "" } else { "s" })
}

fn membership_status(member: &MemberInfo) -> &'static str {
    match (member.revoked, member.banned) {
        (true, _) => "revoked",
        (false, true) => "banned",
        (false, false) => "active",
    }
}

fn shown(member: &MemberInfo) -> Value {
    json!({
        "member_id": member.id, "member_pubkey": member.pubkey,
        "display_name": member.display_name, "role": member.role,
        "standing": membership_status(member), "connections": member.connections,
        "joined_at": iso(Millis(member.joined_at_ms)),
    })
}

fn row(member: &MemberInfo) -> Vec<String> {
    vec![
        inline(&member.display_name),
        membership_status(member).to_owned(),
        inline(&member.role),
        member.connections.map_or_else(|| "-".to_owned(), connections),
        member.pubkey.clone(),
        member.id.clone(),
    ]
}
