//! Meshes, and the invites and members that whoever runs the broker makes (§17.3).
//!
//! An owner's secret key is a 0600 file beside the ledger, never a row of it.

use super::{AdminContext, InviteInfo, InviteWish, MeshInfo};
use crate::BrokerError;
use crate::connection::sanitize;
use crate::ledger::{Invite, JoinOutcome, Ledger, Mesh};
use claudemesh_base::message::{PublicKey, SecretKey, signed};
use claudemesh_base::wire::join::InvitePayload;
use claudemesh_fsm::id::Millis;
use claudemesh_fsm::negotiate::ConnectionPolicy;
use data_encoding::BASE64URL_NOPAD;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The longest slug.
const SLUG_CHARS_MAX: usize = 64;
/// How long an invite is good for when nothing is said: 7 days, in seconds.
pub const INVITE_EXPIRES_S: u64 = 7 * 24 * 60 * 60;
/// The longest an invite may be good for: a year, in seconds.
pub const INVITE_EXPIRES_S_MAX: u64 = 366 * 24 * 60 * 60;
/// The most uses of one invite.
pub const INVITE_USES_MAX: u32 = 10_000;

/// How many invites that differ in nothing else can be made in one second.
const INVITES_A_SECOND_MAX: usize = 60;

/// `ws://<authority>/ws`.
pub(crate) fn web_socket_url(authority: &str) -> String {
    format!("ws://{authority}/ws")
}

/// `http://<authority>/join/<token>`.
pub(crate) fn link(authority: &str, token: &str) -> String {
    format!("http://{authority}/join/{token}")
}

/// Makes a mesh with a fresh owner key.
pub(super) async fn create_mesh(
    context: &AdminContext,
    slug: &str,
) -> Result<MeshInfo, BrokerError> {
    let AdminContext { ledger, dir, runtime, .. } = context;
    let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if slug.is_empty() || slug.len() > SLUG_CHARS_MAX || !slug.chars().all(is_good) {
        let words = "slug must be 1 to 64 of a-z, 0-9 and -";
        return Err(BrokerError::Invalid(words.to_owned()));
    }
    if ledger.mesh_by_slug(slug).await?.is_some() {
        return Err(BrokerError::Conflict(format!("there is a mesh {slug:?} already")));
    }
    let owner = SecretKey::from_seed(runtime.random());
    let mesh = Mesh {
        id: runtime.mint_id(),
        slug: slug.to_owned(),
        owner_pubkey: owner.public().to_hex(),
        root_key: BASE64URL_NOPAD.encode(&runtime.random::<32>()),
        connection_policy: ConnectionPolicy::default().as_str().to_owned(),
        created_at: runtime.now(),
    };
    // The key first: a mesh without its owner's key could never invite anybody.
    store_owner_key(&owner_key_path(dir, &mesh.id), &owner)?;
    let info = MeshInfo::of(&mesh);
    if !ledger.insert_mesh(mesh).await? {
        return Err(BrokerError::Conflict(format!("there is a mesh {slug:?} already")));
    }
    Ok(info)
}

/// Sets what two installs of one member key do to each other (§15.6).
pub(super) async fn set_policy(
    context: &AdminContext,
    mesh: &str,
    policy: &str,
) -> Result<(), BrokerError> {
    let AdminContext { ledger, runtime, .. } = context;
    let words = "policy must be prefer_newest, prefer_oldest or allow_concurrent";
    let policy =
        ConnectionPolicy::parse(policy).ok_or_else(|| BrokerError::Invalid(words.to_owned()))?;
    let mesh = mesh_by_slug(&**ledger, mesh).await?;
    Ok(ledger.set_connection_policy(&mesh.id, policy, runtime.now()).await?)
}

/// Every mesh.
pub(super) async fn meshes(ledger: &dyn Ledger) -> Result<Vec<MeshInfo>, BrokerError> {
    Ok(ledger.meshes().await?.iter().map(MeshInfo::of).collect())
}

/// Makes an invite, signed by the mesh's owner key. `authority` is where the broker is reached.
pub(super) async fn create_invite(
    context: &AdminContext,
    wish: &InviteWish,
) -> Result<InviteInfo, BrokerError> {
    let AdminContext { ledger, dir, runtime, authority, .. } = context;
    let invalid = |words: &str| Err(BrokerError::Invalid(words.to_owned()));
    if !["member", "admin"].contains(&wish.role.as_str()) {
        return invalid("role must be member or admin");
    }
    if wish.uses == 0 || wish.uses > INVITE_USES_MAX {
        return invalid("uses must be 1 to 10000");
    }
    if wish.expires_s == 0 || wish.expires_s > INVITE_EXPIRES_S_MAX {
        return invalid("expires must be between one second and 366 days");
    }
    let mesh = mesh_by_slug(&**ledger, &wish.mesh).await?;
    let owner = load_owner_key(&owner_key_path(dir, &mesh.id))?;
    let now = runtime.now();
    // Whole seconds, rounded up: the format knows no finer ones.
    let earliest_s = (now.0 + 999) / 1000 + i64::try_from(wish.expires_s).unwrap_or(i64::MAX);
    // A token holds nothing random: what tells two invites of one second apart is their end.
    for expires_at_s in (earliest_s..).take(INVITES_A_SECOND_MAX) {
        let token = sign_invite(&mesh, &owner, authority, &wish.role, expires_at_s);
        let row = Invite {
            token: token.clone(),
            mesh_id: mesh.id.clone(),
            role: wish.role.clone(),
            expires_at: Millis(expires_at_s.saturating_mul(1000)),
            uses_max: i64::from(wish.uses),
            created_at: now,
        };
        let expires_at_ms = row.expires_at.0;
        if ledger.insert_invite(row).await? {
            return Ok(InviteInfo { link: link(authority, &token), token, expires_at_ms });
        }
    }
    Err(BrokerError::Conflict("too many invites in one second: try again".to_owned()))
}

/// The token of an invite.
fn sign_invite(
    mesh: &Mesh,
    owner: &SecretKey,
    authority: &str,
    role: &str,
    expires_at_s: i64,
) -> String {
    let broker_url = web_socket_url(authority);
    let signature = owner.sign(&signed::invite(&signed::InviteClaims {
        mesh_id: &mesh.id,
        mesh_slug: &mesh.slug,
        broker_url: &broker_url,
        expires_at_s,
        mesh_root_key: &mesh.root_key,
        role,
        owner: &owner.public(),
    }));
    let invite = InvitePayload {
        v: signed::INVITE_VERSION,
        mesh_id: mesh.id.clone(),
        mesh_slug: mesh.slug.clone(),
        broker_url,
        expires_at: expires_at_s,
        mesh_root_key: mesh.root_key.clone(),
        role: role.to_owned(),
        owner_pubkey: mesh.owner_pubkey.clone(),
        signature,
    };
    BASE64URL_NOPAD.encode(claudemesh_base::wire::to_text(&invite).as_bytes())
}

/// Adds a member without an invite; idempotent by key. Yields its id.
pub(super) async fn add_member(
    context: &AdminContext,
    mesh: &str,
    pubkey: &str,
    name: &str,
) -> Result<String, BrokerError> {
    let AdminContext { ledger, runtime, .. } = context;
    let key = PublicKey::parse(pubkey)
        .map_err(|error| BrokerError::Invalid(format!("pubkey {error}")))?
        .to_hex();
    let mesh = mesh_by_slug(&**ledger, mesh).await?;
    let (id, name) = (runtime.mint_id(), sanitize(name));
    let added = ledger.add_member(&mesh.id, &id, &key, &name, "member", runtime.now());
    match added.await? {
        JoinOutcome::New(id) | JoinOutcome::Already(id) => Ok(id),
        JoinOutcome::Refused(problem) => Err(BrokerError::Conflict(problem.code().to_owned())),
    }
}

/// The mesh with this slug.
pub(super) async fn mesh_by_slug(ledger: &dyn Ledger, slug: &str) -> Result<Mesh, BrokerError> {
    let unknown = || BrokerError::NotFound(format!("there is no mesh {slug:?} on this broker"));
    ledger.mesh_by_slug(slug).await?.ok_or_else(unknown)
}

fn owner_key_path(dir: &Path, mesh_id: &str) -> PathBuf {
    dir.join(format!("owner-{mesh_id}.key"))
}

fn store_owner_key(path: &Path, key: &SecretKey) -> Result<(), BrokerError> {
    let mut text = key.to_hex();
    text.push('\n');
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let stored = created.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    stored.map_err(|error| BrokerError::io("cannot store the owner key", path, &error))
}

fn load_owner_key(path: &Path) -> Result<SecretKey, BrokerError> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|error| BrokerError::io("cannot read the owner key", path, &error))?;
    SecretKey::parse(text.trim()).map_err(|error| {
        BrokerError::Invalid(format!("the owner key in {} {error}", path.display()))
    })
}
