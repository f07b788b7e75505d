//! `mesh create`, `mesh list` and `mesh invite`.

use super::broker::{DATA, data_dir};
use super::command::{Command, Flag, Parsed, one};
use super::join::{NAME, after_joining, name};
use super::print::{Tone, columns, inline};
use super::{Context, Failure, daemon, exit, status};
use claudemesh_broker::{
    Admin, BrokerError, INVITE_EXPIRES_S, INVITE_EXPIRES_S_MAX, INVITE_USES_MAX, InviteWish,
};
use claudemesh_daemon::join::{self, JoinError, JoinOptions, Joined, Prepared, VerifiedInvite};
use serde_json::json;
use std::time::Duration;

/// How long the invite lives that `mesh create` makes for its own use.
const OWN_INVITE_EXPIRES_S: u64 = 600;

pub(super) const LIST: Command = Command {
    name: "mesh list",
    about: "the meshes joined here",
    examples: &["claudemesh mesh list"],
    ..Command::new(list)
};

fn list(context: &Context, _: &Parsed) -> Result<u8, Failure> {
    let joined = join::joined(&context.paths)?;
    // Links are known while a daemon runs, and not otherwise.
    let health = context.block_on(async { Ok(context.client().health().await.ok()) })?;
    let link = |slug: &str| {
        let meshes = health.iter().flat_map(|health| &health.meshes);
        meshes.clone().find(|mesh| mesh.mesh == slug).map(|mesh| mesh.link.clone())
    };
    let items: Vec<_> = joined
        .iter()
        .map(|mesh| {
            json!({
                "mesh": mesh.slug, "mesh_id": mesh.mesh_id, "member_id": mesh.member_id,
                "member_pubkey": mesh.pubkey, "broker_url": mesh.broker_url,
                "link": link(&mesh.slug),
            })
        })
        .collect();
    context.print.answer(&json!({ "meshes": items }), || {
        if joined.is_empty() {
            return status::NO_MESH.to_owned();
        }
        let row = |mesh: &Joined| {
            let link = link(&mesh.slug).unwrap_or_else(|| "-".to_owned());
            vec![inline(&mesh.slug), inline(&link), inline(&mesh.broker_url), mesh.pubkey.clone()]
        };
        columns(&joined.iter().map(row).collect::<Vec<_>>())
    })
}

pub(super) const CREATE: Command = Command {
    name: "mesh create",
    operands: &["<slug>"],
    flags: &[NAME, DATA],
    about: "create a mesh on this machine's broker, and join it",
    examples: &["claudemesh mesh create demo"],
    ..Command::new(create)
};

fn create(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let slug = &parsed.operands[0];
    let options = JoinOptions { display_name: name(context, parsed)?, slug: None };
    let dir = data_dir(context, parsed);
    if let Some(other) = join::joined(&context.paths)?.iter().find(|mesh| mesh.slug == *slug) {
        let message = format!("the slug `{slug}` already names mesh {} here", other.mesh_id);
        return Err(Failure::new(exit::CONFLICT, "slug_taken", message)
            .hint("choose another, or invite people to that one"));
    }
    let joined = context.block_on(async {
        let admin = Admin::open_or_create(&dir, &context.runtime).await?;
        admin.create_mesh(slug).await.map_err(|error| match error {
            BrokerError::Conflict(_) => Failure::from(error)
                .hint(format!("join it with the link of `claudemesh mesh invite {slug}`")),
            other => other.into(),
        })?;
        let (expires_s, role) = (OWN_INVITE_EXPIRES_S, "admin".to_owned());
        let wish = InviteWish { mesh: slug.clone(), expires_s, uses: 1, role };
        let invite = admin.create_invite(&wish).await?;
        let invite = VerifiedInvite::read(&invite.token, context.runtime.now())?;
        join_own_mesh(context, &admin, slug, &invite, &options).await
    })?;
    let attached = daemon::reload(context)?;
    let value = json!({
        "ok": true, "mesh": joined.slug, "mesh_id": joined.mesh_id,
        "member_id": joined.member_id, "member_pubkey": joined.pubkey,
        "broker_url": joined.broker_url, "display_name": joined.display_name,
    });
    context.print.answer(&value, || {
        let name = inline(joined.display_name.as_deref().unwrap_or_default());
        let text = format!("created mesh {} ({}), joined as {name}", joined.slug, joined.mesh_id);
        context.print.paint(Tone::Good, &text)
    })?;
    after_joining(context, parsed, &joined, attached);
    if !context.print.is_json() {
        context.print.note(&format!("next: {}", context.command(&format!("mesh invite {slug}"))));
    }
    Ok(exit::OK)
}

/// Joins our own mesh: through the broker's port like anybody else, or past it when no broker
/// runs yet.
async fn join_own_mesh(
    context: &Context,
    admin: &Admin,
    slug: &str,
    invite: &VerifiedInvite,
    options: &JoinOptions,
) -> Result<Joined, Failure> {
    let (paths, runtime) = (&context.paths, &context.runtime);
    match join::join(paths, runtime, invite, options).await {
        // Whatever is at that port, it is not the broker of this directory.
        Err(JoinError::Unreachable { .. } | JoinError::NotABroker { .. }) => {}
        joined => return Ok(joined?),
    }
    match join::prepare(paths, runtime, invite, options)? {
        Prepared::Already(joined) => Ok(joined),
        Prepared::New(candidate) => {
            let name = &options.display_name;
            let member_id = admin.add_member(slug, &candidate.pubkey(), name).await?;
            Ok(candidate.complete(paths, runtime, invite, member_id)?)
        }
    }
}

const EXPIRES: Flag = one("expires", "time", "for how long it works (7d)");
const USES: Flag = one("uses", "n", "for how many members (1)");
const ROLE: Flag = one("role", "role", "member (default) or admin");

pub(super) const INVITE: Command = Command {
    name: "mesh invite",
    operands: &["<slug>"],
    flags: &[EXPIRES, USES, ROLE, DATA],
    about: "print an invite link, on the machine that runs the broker",
    examples: &["claudemesh mesh invite demo --expires 7d --uses 3"],
    ..Command::new(invite)
};

fn invite(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let expires = parsed.duration(EXPIRES)?.unwrap_or(Duration::from_secs(INVITE_EXPIRES_S));
    if !(1..=INVITE_EXPIRES_S_MAX).contains(&expires.as_secs()) {
        let max = humantime::format_duration(Duration::from_secs(INVITE_EXPIRES_S_MAX));
        return Err(Failure::usage(format!("--expires must be from 1s to {max}")));
    }
    let uses = parsed.count(USES, INVITE_USES_MAX as usize)?.unwrap_or(1);
    let role = parsed.parsed(ROLE, "member or admin", |role| {
        matches!(role, "member" | "admin").then(|| role.to_owned())
    })?;
    let wish = InviteWish {
        mesh: parsed.operands[0].clone(),
        expires_s: expires.as_secs(),
        uses: u32::try_from(uses).unwrap_or(INVITE_USES_MAX),
        role: role.unwrap_or_else(|| "member".to_owned()),
    };
    let dir = data_dir(context, parsed);
    let invite = context.block_on(async {
        let admin = Admin::open(&dir, &context.runtime).await?;
        admin.create_invite(&wish).await.map_err(|error| match error {
            BrokerError::NotFound(_) => Failure::from(error)
                .hint(format!("create it with `claudemesh mesh create {}`", wish.mesh)),
            other => other.into(),
        })
    })?;
    let expires_at =
        claudemesh_base::runtime::iso(claudemesh_fsm::id::Millis(invite.expires_at_ms));
    let value = json!({
        "ok": true, "mesh": wish.mesh, "link": invite.link, "token": invite.token,
        "expires_at": expires_at, "uses": wish.uses, "role": wish.role,
    });
    context.print.answer(&value, || invite.link.clone())?;
    context.print.progress(&format!("for {} of role {}, until {expires_at}", wish.uses, wish.role));
    Ok(exit::OK)
}
