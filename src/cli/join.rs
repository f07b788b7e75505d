//! `join`: makes this host a member of a mesh, by an invite link.

use super::command::{Command, Flag, Parsed, one};
use super::print::{Tone, inline};
use super::{Context, Failure, daemon, exit};
use claudemesh_daemon::join::{self, JoinOptions, Joined, VerifiedInvite};
use serde_json::json;

pub(super) const NAME: Flag =
    one("name", "name", "the name peers see; else that of config.json, else $USER");
const AS: Flag = one("as", "slug", "call the mesh this here");

pub(super) const JOIN: Command = Command {
    name: "join",
    operands: &["<link>"],
    flags: &[NAME, AS],
    about: "join a mesh with an invite link",
    details: "A running daemon attaches the mesh at once.",
    examples: &["claudemesh join http://127.0.0.1:7900/join/eyJ2Ijox… --name bob"],
    ..Command::new(join)
};

fn join(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let invite = VerifiedInvite::read(&parsed.operands[0], context.runtime.now())?;
    let options = JoinOptions { display_name: name(context, parsed)?, slug: parsed.owned(AS) };
    context.print.progress(&format!("asking {}…", inline(&invite.broker_url)));
    let joined = context.block_on(async {
        Ok(join::join(&context.paths, &context.runtime, &invite, &options).await?)
    })?;
    let attached = daemon::reload(context)?;
    let value = json!({
        "ok": true, "mesh": joined.slug, "mesh_id": joined.mesh_id,
        "member_id": joined.member_id, "member_pubkey": joined.pubkey,
        "broker_url": joined.broker_url, "display_name": joined.display_name,
        "already_joined": joined.was_joined, "daemon_running": attached,
    });
    context.print.answer(&value, || {
        let (slug, name) = (&joined.slug, joined.display_name.as_deref().unwrap_or_default());
        let done = if joined.was_joined { "already joined" } else { "joined" };
        context.print.paint(Tone::Good, &format!("{done} {slug} as {}", inline(name)))
    })?;
    after_joining(context, parsed, &joined, attached);
    Ok(exit::OK)
}

/// The name peers are to see: the flag's, else the configured one, else the user's.
pub(super) fn name(context: &Context, parsed: &Parsed) -> Result<String, Failure> {
    if let Some(name) = parsed.value(NAME) {
        return Ok(name.to_owned());
    }
    let configured = join::display_name(&context.paths)?;
    Ok(configured.unwrap_or_else(Context::default_name))
}

pub(super) fn after_joining(context: &Context, parsed: &Parsed, joined: &Joined, is_running: bool) {
    if context.print.is_json() {
        return;
    }
    let shown = joined.display_name.as_deref().unwrap_or_default();
    if parsed.value(NAME).is_some_and(|wanted| wanted != shown) {
        context.print.note(&format!(
            "note: one name is kept for all meshes, and it is `{}`; change `displayName` in {} \
             to be called otherwise",
            inline(shown),
            context.paths.config_json().display()
        ));
    }
    if !is_running {
        context.print.note(&format!("next: {}", context.command("daemon up")));
    }
}
