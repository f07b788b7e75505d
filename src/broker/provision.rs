//! Making meshes, members and invites, and letting people in (§17.3).
//!
//! These functions work on a ledger, whether a broker is running around it or not. An owner's
//! secret key is a 0600 file beside the ledger, never a row of it.

use super::BrokerError;
use super::ledger::{Invite as InviteRow, Joined, Ledger, Mesh};
use super::peer::clean;
use super::send::is_public_key;
use claudemesh_base::db;
use claudemesh_base::message::{PublicKey, SecretKey, signed};
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire::join::{InvitePayload, JoinRequest};
use claudemesh_fsm::id::Millis;
use claudemesh_fsm::negotiate::ConnectionPolicy;
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
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

/// A mesh, as shown to whoever administers it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MeshInfo {
    /// Its id on the wire.
    pub id: String,
    /// Its name for people.
    pub slug: String,
    /// The key that signs its invites.
    pub owner_pubkey: String,
    /// When it was made, Unix milliseconds.
    pub created_at_ms: i64,
}

/// What an invite should allow.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct InviteWish {
    /// The mesh's slug.
    pub mesh: String,
    /// Seconds from now.
    pub expires_s: u64,
    /// How many may join with it.
    pub uses: u32,
    /// `member` or `admin`.
    pub role: String,
}

impl Default for InviteWish {
    fn default() -> Self {
        let (mesh, role) = (String::new(), "member".to_owned());
        Self { mesh, expires_s: INVITE_EXPIRES_S, uses: 1, role }
    }
}

/// A new invite.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct InviteInfo {
    /// The token itself.
    pub token: String,
    /// `http://<host>:<port>/join/<token>`.
    pub link: String,
    /// When it stops working, Unix milliseconds.
    pub expires_at_ms: i64,
}

/// Why nobody joined.
pub(crate) enum JoinError {
    /// The code of the answer (`specs/wire.md`).
    Refused(&'static str),
    Failed(db::Error),
}

impl From<db::Error> for JoinError {
    fn from(error: db::Error) -> Self {
        Self::Failed(error)
    }
}

/// `ws://<authority>/ws`.
pub(crate) fn web_socket_url(authority: &str) -> String {
    format!("ws://{authority}/ws")
}

/// `http://<authority>/join/<token>`.
pub(crate) fn link(authority: &str, token: &str) -> String {
    format!("http://{authority}/join/{token}")
}

/// Makes a mesh with a fresh owner key.
pub(crate) async fn create_mesh(
    ledger: &Ledger,
    dir: &Path,
    runtime: &Runtime,
    slug: &str,
) -> Result<MeshInfo, BrokerError> {
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
    let info = MeshInfo {
        id: mesh.id.clone(),
        slug: mesh.slug.clone(),
        owner_pubkey: mesh.owner_pubkey.clone(),
        created_at_ms: mesh.created_at.0,
    };
    if !ledger.insert_mesh(mesh).await? {
        return Err(BrokerError::Conflict(format!("there is a mesh {slug:?} already")));
    }
    Ok(info)
}

/// Sets what two installs of one member key do to each other (§15.6).
pub(crate) async fn set_policy(
    ledger: &Ledger,
    runtime: &Runtime,
    mesh: &str,
    policy: &str,
) -> Result<(), BrokerError> {
    let words = "policy must be prefer_newest, prefer_oldest or allow_concurrent";
    let policy =
        ConnectionPolicy::parse(policy).ok_or_else(|| BrokerError::Invalid(words.to_owned()))?;
    let mesh = mesh_by_slug(ledger, mesh).await?;
    Ok(ledger.set_connection_policy(&mesh.id, policy, runtime.now()).await?)
}

/// Every mesh.
pub(crate) async fn meshes(ledger: &Ledger) -> Result<Vec<MeshInfo>, BrokerError> {
    let meshes = ledger.meshes().await?.into_iter().map(|mesh| MeshInfo {
        id: mesh.id,
        slug: mesh.slug,
        owner_pubkey: mesh.owner_pubkey,
        created_at_ms: mesh.created_at.0,
    });
    Ok(meshes.collect())
}

/// Makes an invite, signed by the mesh's owner key. `authority` is where the broker is reached.
pub(crate) async fn create_invite(
    ledger: &Ledger,
    dir: &Path,
    runtime: &Runtime,
    authority: &str,
    wish: &InviteWish,
) -> Result<InviteInfo, BrokerError> {
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
    let mesh = mesh_by_slug(ledger, &wish.mesh).await?;
    let owner = load_owner_key(&owner_key_path(dir, &mesh.id))?;
    let now = runtime.now();
    // Whole seconds, rounded up: the format knows no finer ones.
    let earliest_s = (now.0 + 999) / 1000 + i64::try_from(wish.expires_s).unwrap_or(i64::MAX);
    // A token holds nothing random: what tells two invites of one second apart is their end.
    for expires_at_s in (earliest_s..).take(INVITES_A_SECOND_MAX) {
        let token = sign_invite(&mesh, &owner, authority, &wish.role, expires_at_s);
        let row = InviteRow {
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
pub(crate) async fn add_member(
    ledger: &Ledger,
    runtime: &Runtime,
    mesh: &str,
    pubkey: &str,
    name: &str,
) -> Result<String, BrokerError> {
    let key = PublicKey::parse(pubkey)
        .map_err(|error| BrokerError::Invalid(format!("pubkey {error}")))?
        .to_hex();
    let mesh = mesh_by_slug(ledger, mesh).await?;
    let (id, name) = (runtime.mint_id(), clean(name));
    let added = ledger.add_member(&mesh.id, &id, &key, &name, "member", runtime.now());
    match added.await? {
        Joined::New(id) | Joined::Already(id) => Ok(id),
        Joined::Refused(problem) => Err(BrokerError::Conflict(problem.code().to_owned())),
    }
}

/// The mesh with this slug.
pub(crate) async fn mesh_by_slug(ledger: &Ledger, slug: &str) -> Result<Mesh, BrokerError> {
    let unknown = || BrokerError::NotFound(format!("there is no mesh {slug:?} on this broker"));
    ledger.mesh_by_slug(slug).await?.ok_or_else(unknown)
}

/// The invite inside a token, unchecked.
pub(crate) fn open_token(token: &str) -> Result<InvitePayload, JoinError> {
    let malformed = JoinError::Refused("invite_not_found");
    let Ok(json) = BASE64URL_NOPAD.decode(token.as_bytes()) else { return Err(malformed) };
    serde_json::from_slice(&json).map_err(|_| malformed)
}

/// Checks who signed an invite, and for which mesh.
pub(crate) async fn check_invite(
    ledger: &Ledger,
    invite: &InvitePayload,
) -> Result<Mesh, JoinError> {
    let bad_signature = JoinError::Refused("invite_bad_signature");
    let Ok(owner) = PublicKey::parse(&invite.owner_pubkey) else { return Err(bad_signature) };
    let text = signed::invite(&signed::InviteClaims {
        mesh_id: &invite.mesh_id,
        mesh_slug: &invite.mesh_slug,
        broker_url: &invite.broker_url,
        expires_at_s: invite.expires_at,
        mesh_root_key: &invite.mesh_root_key,
        role: &invite.role,
        owner: &owner,
    });
    if invite.v != signed::INVITE_VERSION || !owner.verify(&text, &invite.signature) {
        return Err(bad_signature);
    }
    let mesh = ledger.mesh(&invite.mesh_id).await?;
    let mesh = mesh.ok_or(JoinError::Refused("mesh_not_found"))?;
    if mesh.owner_pubkey != owner.to_hex() {
        return Err(JoinError::Refused("invite_owner_mismatch"));
    }
    Ok(mesh)
}

/// Lets somebody in with an invite.
pub(crate) async fn join(
    ledger: &Ledger,
    runtime: &Runtime,
    request: &JoinRequest,
) -> Result<(Mesh, Joined), JoinError> {
    let token = request.invite_token.as_deref().unwrap_or_default();
    let name = clean(request.display_name.trim());
    if token.is_empty() || name.is_empty() || request.peer_pubkey.is_empty() {
        return Err(JoinError::Refused("invite_token, peer_pubkey and display_name are required"));
    }
    let bad_key = JoinError::Refused("peer_pubkey must be 64 hex digits of an ed25519 key");
    if !is_public_key(&request.peer_pubkey) {
        return Err(bad_key);
    }
    let key = PublicKey::parse(&request.peer_pubkey).map_err(|_| bad_key)?;
    let mesh = check_invite(ledger, &open_token(token)?).await?;
    let (id, now) = (runtime.mint_id(), runtime.now());
    let joined = ledger.join(token, &mesh.id, &id, &key.to_hex(), &name, now).await?;
    Ok((mesh, joined))
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
