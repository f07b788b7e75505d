//! Joins a mesh from a link (`specs/wire.md`): reads and verifies the invite, makes a member key,
//! enrols it with the broker, and writes the mesh into `config.json`.
//!
//! The invite alone says where the broker is: it is signed, the link around it is not. Nothing but
//! the new key is written before the broker has taken it, and nothing that is there is replaced.

mod error;
mod invite;
mod pending;

pub use error::JoinError;
pub use invite::{LINK_BYTES_MAX, VerifiedInvite};

use crate::identity::{self, IdentityConfig, IdentityError, JoinedMesh};
use claudemesh_base::http::client::{self as http, ClientError, Request, Response};
use claudemesh_base::message::SecretKey;
use claudemesh_base::paths::{Paths, ensure_private_dir};
use claudemesh_base::runtime::{self, Runtime};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// For the broker's port to accept.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For the broker to answer a join.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A join may be repeated: the broker knows a key again and burns no second use of the invite.
pub const ATTEMPTS_MAX: u32 = 3;
/// The longest display name, in characters.
pub const NAME_CHARACTERS_MAX: usize = 128;
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// How to join.
#[derive(Debug, Clone, Default)]
pub struct JoinOptions {
    /// The name peers are to see.
    pub display_name: String,
    /// Another slug than the invite's, where that one is taken.
    pub slug: Option<String>,
}

/// A mesh we are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Its name here.
    pub slug: String,
    /// Its id on the wire.
    pub mesh_id: String,
    /// Our id in it.
    pub member_id: String,
    /// Our member key, hex.
    pub pubkey: String,
    /// Where its broker is.
    pub broker_url: String,
    /// The name peers see.
    pub display_name: Option<String>,
    /// Whether we were in it before.
    pub was_joined: bool,
}

impl Joined {
    fn of(mesh: &JoinedMesh, config: &IdentityConfig, was_joined: bool) -> Self {
        Self {
            slug: mesh.slug.clone(),
            mesh_id: mesh.mesh_id.clone(),
            member_id: mesh.member_id.clone(),
            pubkey: mesh.pubkey().to_hex(),
            broker_url: mesh.broker_url.clone(),
            display_name: config.display_name.clone(),
            was_joined,
        }
    }
}

/// The meshes of `config.json`, in its order.
///
/// # Errors
/// When the file is damaged.
pub fn joined(paths: &Paths) -> Result<Vec<Joined>, IdentityError> {
    let config = IdentityConfig::load(paths)?;
    Ok(config.meshes.iter().map(|mesh| Joined::of(mesh, &config, true)).collect())
}

/// The name that `config.json` gives us in every mesh, if it does.
///
/// # Errors
/// When the file is damaged.
pub fn display_name(paths: &Paths) -> Result<Option<String>, IdentityError> {
    Ok(IdentityConfig::load(paths)?.display_name)
}

/// A membership that the broker has not granted yet: its key exists nowhere else.
pub struct PendingMember {
    slug: String,
    display_name: String,
    secret_key: SecretKey,
}

/// What [`prepare`] found.
pub enum Prepared {
    /// We are in this mesh already.
    Already(Joined),
    /// Everything is ready to be let in.
    New(PendingMember),
}

/// Checks all that can be checked before the broker is asked, and makes a key.
///
/// # Errors
/// When the name or the slug cannot be used, or `config.json` is damaged.
pub fn prepare(
    paths: &Paths,
    runtime: &Runtime,
    invite: &VerifiedInvite,
    options: &JoinOptions,
) -> Result<Prepared, JoinError> {
    let slug = options.slug.as_deref().unwrap_or(&invite.mesh_slug);
    check_name(&options.display_name)?;
    invite::check_slug(slug)?;
    let config = IdentityConfig::load(paths)?;
    if let Some(mesh) = config.meshes.iter().find(|mesh| mesh.mesh_id == invite.mesh_id) {
        return Ok(Prepared::Already(Joined::of(mesh, &config, true)));
    }
    refuse_taken_slug(&config, slug)?;
    // A use of the invite is spent on the broker's answer: what can fail here fails before.
    ensure_private_dir(&paths.config_dir).map_err(IdentityError::from)?;
    Ok(Prepared::New(PendingMember {
        slug: slug.to_owned(),
        display_name: options.display_name.clone(),
        // An earlier try whose answer was lost may have made this key a member.
        secret_key: pending::load(paths, invite)
            .unwrap_or_else(|| SecretKey::from_seed(runtime.random())),
    }))
}

impl PendingMember {
    /// The key to be let in, hex.
    #[must_use]
    pub fn pubkey(&self) -> String {
        self.secret_key.public().to_hex()
    }

    /// Writes the mesh into `config.json`, now that the broker knows the key as `member_id`.
    ///
    /// # Errors
    /// When the slug was taken meanwhile, or the file cannot be written.
    pub fn complete(
        self,
        paths: &Paths,
        runtime: &Runtime,
        invite: &VerifiedInvite,
        member_id: String,
    ) -> Result<Joined, JoinError> {
        let mesh = JoinedMesh {
            mesh_id: invite.mesh_id.clone(),
            member_id,
            slug: self.slug,
            name: invite.mesh_slug.clone(),
            secret_key: self.secret_key,
            broker_url: invite.broker_url.clone(),
            joined_at: runtime::iso(runtime.now()),
            root_key: Some(invite.mesh_root_key.clone()),
            invite_version: Some(invite::VERSION),
            extra: Map::new(),
        };
        let joined = store(paths, mesh, &self.display_name)?;
        pending::forget(paths, invite);
        Ok(joined)
    }
}

/// Joins the mesh of `invite`. A mesh we are already in is left as it is.
///
/// # Errors
/// [`JoinError`], naming the field and the remedy.
pub async fn join(
    paths: &Paths,
    runtime: &Runtime,
    invite: &VerifiedInvite,
    options: &JoinOptions,
) -> Result<Joined, JoinError> {
    match prepare(paths, runtime, invite, options)? {
        Prepared::Already(joined) => Ok(joined),
        Prepared::New(pending_member) => {
            let kept = pending::store(paths, invite, &pending_member.secret_key);
            kept.map_err(IdentityError::from)?;
            let member_id = match enrol(runtime, invite, &pending_member).await {
                Ok(member_id) => member_id,
                Err(error) => {
                    if error.is_an_answer() {
                        pending::forget(paths, invite);
                    }
                    return Err(error);
                }
            };
            pending_member.complete(paths, runtime, invite, member_id)
        }
    }
}

/// Writes a new mesh; another command may have joined it in the meantime, and then stays first.
fn store(paths: &Paths, mesh: JoinedMesh, display_name: &str) -> Result<Joined, JoinError> {
    identity::update(paths, |config| {
        if let Some(first) = config.meshes.iter().find(|first| first.mesh_id == mesh.mesh_id) {
            return Ok(Joined::of(first, config, true));
        }
        refuse_taken_slug(config, &mesh.slug)?;
        // The file has one name for all meshes: the first join sets it.
        config.display_name.get_or_insert_with(|| display_name.to_owned());
        let joined = Joined::of(&mesh, config, false);
        config.put_mesh(mesh)?;
        Ok(joined)
    })
}

fn refuse_taken_slug(config: &IdentityConfig, slug: &str) -> Result<(), JoinError> {
    match config.mesh(slug) {
        None => Ok(()),
        Some(other) => {
            Err(JoinError::SlugTaken { slug: slug.to_owned(), mesh_id: other.mesh_id.clone() })
        }
    }
}

fn check_name(name: &str) -> Result<(), JoinError> {
    let is_visible = !name.trim().is_empty() && !name.chars().any(char::is_control);
    if is_visible && name.chars().count() <= NAME_CHARACTERS_MAX {
        Ok(())
    } else {
        Err(JoinError::BadName)
    }
}

/// Makes the candidate's key a member of the invite's mesh; the member id it got.
async fn enrol(
    runtime: &Runtime,
    invite: &VerifiedInvite,
    pending_member: &PendingMember,
) -> Result<String, JoinError> {
    let body = json!({
        "invite_token": invite.token,
        "invite_payload": invite.payload,
        "peer_pubkey": pending_member.pubkey(),
        "display_name": pending_member.display_name,
    })
    .to_string();
    let mut attempt = 1;
    let answer = loop {
        match post(runtime, invite, body.clone()).await {
            Err(ClientError::Unanswered(_) | ClientError::NotWritten(_))
                if attempt < ATTEMPTS_MAX =>
            {
                attempt += 1;
                runtime.sleep(RETRY_PAUSE).await;
            }
            Err(error) => {
                let broker = invite.broker_url.clone();
                return Err(JoinError::Unreachable { broker, why: error });
            }
            Ok(answer) => break answer,
        }
    };
    read_answer(invite, &answer)
}

async fn post(
    runtime: &Runtime,
    invite: &VerifiedInvite,
    body: String,
) -> Result<Response, ClientError> {
    let broker = &invite.broker;
    let socket = http::connect_tcp(&broker.host, broker.port, runtime, CONNECT_TIMEOUT).await?;
    let request = Request::post_json(broker.path.clone(), body).header("host", &broker.authority);
    http::request(socket, runtime, request, ANSWER_TIMEOUT).await
}

fn read_answer(invite: &VerifiedInvite, answer: &Response) -> Result<String, JoinError> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if body["ok"] == true {
        let member_id = body["memberId"].as_str().filter(|id| !id.is_empty());
        return member_id.map(str::to_owned).ok_or_else(|| JoinError::NotABroker {
            broker: invite.broker_url.clone(),
            status: answer.status,
        });
    }
    match body["error"].as_str() {
        Some(code) => Err(JoinError::refused(code, &invite.mesh_slug)),
        None => {
            Err(JoinError::NotABroker { broker: invite.broker_url.clone(), status: answer.status })
        }
    }
}

#[cfg(test)]
mod tests;
