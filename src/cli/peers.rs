//! `peers`: lists the members that the daemon knows to be connected.

use super::command::{Command, MESH, Parsed};
use super::print::{columns, inline};
use super::{Context, Failure, exit};
use crate::client::Client;
use claudemesh_daemon::api::bodies::Peers;
use serde_json::{Map, Value, json};

/// How many digits of a key a terminal shows.
const KEY_DIGITS_SHOWN: usize = 16;
const KEY_DIGITS: usize = 64;

pub(super) const PEERS: Command = Command {
    name: "peers",
    flags: &[MESH],
    about: "who is there",
    examples: &["claudemesh peers --mesh demo"],
    ..Command::new(run)
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let peers = context.ask(async |client| client.peers(parsed.value(MESH)).await)?;
    context.print.answer(&json!(peers), || in_words(&peers))?;
    if !context.print.is_json() {
        for mesh in peers.meshes.iter().filter(|mesh| mesh.roster != "live") {
            let (slug, link) = (inline(&mesh.mesh), inline(&mesh.link));
            context.print.note(&match &mesh.as_of {
                Some(at) => format!("{slug}: as of {}; the link is {link}", inline(at)),
                None => format!("{slug}: nobody knows who is there; the link is {link}"),
            });
        }
    }
    Ok(exit::OK)
}

fn in_words(peers: &Peers) -> String {
    if peers.peers.is_empty() {
        return "nobody".to_owned();
    }
    let row = |peer: &Map<String, Value>| {
        let text = |name: &str| inline(peer.get(name).and_then(Value::as_str).unwrap_or_default());
        let is_offline = peer.get("online") == Some(&Value::Bool(false));
        let status = if is_offline { "offline".to_owned() } else { text("status") };
        let groups = peer.get("groups").and_then(Value::as_array).into_iter().flatten();
        let groups = groups.filter_map(|group| group["name"].as_str().or(group.as_str()));
        let groups: Vec<_> = groups.map(|name| format!("@{}", inline(name))).collect();
        vec![
            text("displayName"),
            status,
            text("mesh"),
            text("pubkey").chars().take(KEY_DIGITS_SHOWN).collect(),
            groups.join(" "),
            text("summary"),
        ]
    };
    columns(&peers.peers.iter().map(row).collect::<Vec<_>>())
}

/// The public key that `who` means: `who` itself, or the key of the one member of that name.
pub(super) async fn key_of(
    context: &Context,
    client: &Client,
    mesh: Option<&str>,
    who: &str,
) -> Result<String, Failure> {
    if who.len() == KEY_DIGITS && who.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(who.to_ascii_lowercase());
    }
    let peers = client.peers(mesh).await.map_err(|error| context.explain(error))?;
    let named = peers.peers.iter().filter(|peer| {
        let name = peer.get("displayName").and_then(Value::as_str);
        name.is_some_and(|name| name.to_lowercase() == who.to_lowercase())
    });
    // A member's connections are one sender.
    let key = |peer: &Map<String, Value>| {
        let key = peer.get("memberPubkey").or_else(|| peer.get("pubkey"));
        key.and_then(Value::as_str).map(str::to_owned)
    };
    let mut keys: Vec<String> = named.filter_map(key).collect();
    keys.sort();
    keys.dedup();
    match keys.len() {
        1 => Ok(keys.remove(0)),
        0 => {
            Err(Failure::usage(format!("--from {who:?} is neither a public key nor a known name")))
        }
        count => {
            let failure = Failure::usage(format!("--from {who:?} is the name of {count} members"));
            Err(failure.hint(format!("use a public key: {}", keys.join(", "))))
        }
    }
}
