//! `config.json` (§2): which meshes we joined, with which keys.

use super::{FILE_VERSION, Fields, IdentityError, read_object};
use claudemesh_base::message::{PublicKey, SecretKey};
use claudemesh_base::paths::{Paths, PathsError, ensure_private_dir, write_private};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use zeroize::Zeroizing;

const LOCK_FILE_MODE: u32 = 0o600;

/// The whole of `config.json`. Fields we do not know are kept.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityConfig {
    version: u64,
    /// The default name in a greeting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The groups a client asks for by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Group>>,
    /// `push`, `inbox` or `off`; advisory, no broker enforces it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_mode: Option<String>,
    /// The account of the network's web site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// The joined meshes; slugs are unique.
    pub meshes: Vec<JoinedMesh>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

/// A group a member is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name, without the `@`.
    pub name: String,
    /// The member's role in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// One mesh we joined. `Debug` shows no secret.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinedMesh {
    /// The mesh's id, which goes on the wire.
    pub mesh_id: String,
    /// Our member id in it.
    pub member_id: String,
    /// The mesh's name for people; unique in the file.
    pub slug: String,
    /// A longer name.
    pub name: String,
    /// Our member key; in the file both `pubkey` and `secretKey`.
    #[serde(flatten, serialize_with = "both_halves")]
    pub secret_key: SecretKey,
    /// `ws://` or `wss://`, `/ws` included; used verbatim.
    pub broker_url: String,
    /// When we joined, ISO-8601; empty if the file does not say.
    pub joined_at: String,
    /// The mesh's root key, base64url; only from newer invites. A secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_key: Option<String>,
    /// The format of the invite we came by, 1 or 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invite_version: Option<u64>,
    /// Fields we do not know, kept for whoever does.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn both_halves<S: Serializer>(key: &SecretKey, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(2))?;
    map.serialize_entry("pubkey", &key.public().to_hex())?;
    map.serialize_entry("secretKey", key.to_hex().as_str())?;
    map.end()
}

impl JoinedMesh {
    /// Our member key in this mesh.
    #[must_use]
    pub fn pubkey(&self) -> PublicKey {
        self.secret_key.public()
    }

    fn parse(file: &Path, index: usize, value: Value) -> Result<Self, IdentityError> {
        let mut fields = Fields { file, mesh: Some(format!("meshes[{index}]")), map: Map::new() };
        let Value::Object(map) = value else {
            return Err(fields.bad("meshes", "must hold objects only"));
        };
        fields.map = map;
        let slug = fields.text("slug")?;
        fields.mesh = Some(slug.clone());
        let broker_url = fields.text("brokerUrl")?;
        if !broker_url.starts_with("ws://") && !broker_url.starts_with("wss://") {
            return Err(fields.bad("brokerUrl", "must begin with ws:// or wss://"));
        }
        let invite_version = match fields.map.remove("inviteVersion") {
            None | Some(Value::Null) => None,
            Some(version) => Some(
                version.as_u64().ok_or_else(|| fields.bad("inviteVersion", "must be 1 or 2"))?,
            ),
        };
        Ok(Self {
            mesh_id: fields.text("meshId")?,
            member_id: fields.text("memberId")?,
            name: fields.text_or_none("name")?.unwrap_or_else(|| slug.clone()),
            slug,
            secret_key: fields.keys("pubkey", "secretKey")?,
            broker_url,
            joined_at: fields.text_or_none("joinedAt")?.unwrap_or_default(),
            root_key: fields.text_or_none("rootKey")?,
            invite_version,
            extra: fields.map,
        })
    }
}

impl fmt::Debug for JoinedMesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinedMesh")
            .field("slug", &self.slug)
            .field("mesh_id", &self.mesh_id)
            .field("member_id", &self.member_id)
            .field("pubkey", &self.pubkey())
            .field("broker_url", &self.broker_url)
            .finish_non_exhaustive()
    }
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            version: FILE_VERSION,
            display_name: None,
            role: None,
            groups: None,
            message_mode: None,
            account_id: None,
            meshes: Vec::new(),
            extra: Map::new(),
        }
    }
}

impl IdentityConfig {
    /// Reads `config.json`. A missing file, or `meshes` that is no array, is an empty
    /// configuration.
    ///
    /// # Errors
    /// When the file is not a JSON object, has another version, or a field is wrong: a mesh left
    /// out silently would look like a mesh never joined.
    pub fn load(paths: &Paths) -> Result<Self, IdentityError> {
        let file = paths.config_json();
        match read_object(&file)? {
            None => Ok(Self::default()),
            Some(map) => Self::parse(&file, map),
        }
    }

    fn parse(file: &Path, map: Map<String, Value>) -> Result<Self, IdentityError> {
        let mut fields = Fields { file, mesh: None, map };
        fields.check_version()?;
        let listed = match fields.map.remove("meshes") {
            Some(Value::Array(listed)) => listed,
            _ => Vec::new(),
        };
        let mut meshes: Vec<JoinedMesh> = Vec::with_capacity(listed.len());
        for (index, value) in listed.into_iter().enumerate() {
            let mesh = JoinedMesh::parse(file, index, value)?;
            if meshes.iter().any(|other| other.slug == mesh.slug) {
                return Err(IdentityError::DuplicateSlug { file: file.into(), slug: mesh.slug });
            }
            meshes.push(mesh);
        }
        let groups = match fields.map.remove("groups") {
            None | Some(Value::Null) => None,
            Some(groups) => Some(
                serde_json::from_value(groups)
                    .map_err(|_| fields.bad("groups", "must be a list of {name, role?}"))?,
            ),
        };
        Ok(Self {
            version: FILE_VERSION,
            display_name: fields.text_or_none("displayName")?,
            role: fields.text_or_none("role")?,
            groups,
            message_mode: fields.text_or_none("messageMode")?,
            account_id: fields.text_or_none("accountId")?,
            meshes,
            extra: fields.map,
        })
    }

    /// The mesh of that slug.
    #[must_use]
    pub fn mesh(&self, slug: &str) -> Option<&JoinedMesh> {
        self.meshes.iter().find(|mesh| mesh.slug == slug)
    }

    /// Adds a mesh, or replaces our entry in the same mesh.
    ///
    /// # Errors
    /// When another mesh has the slug: its key must not be lost.
    pub fn put_mesh(&mut self, mesh: JoinedMesh) -> Result<(), IdentityError> {
        match self.meshes.iter_mut().find(|other| other.slug == mesh.slug) {
            Some(other) if other.mesh_id == mesh.mesh_id => *other = mesh,
            Some(other) => {
                let mesh_id = other.mesh_id.clone();
                return Err(IdentityError::SlugTaken { slug: mesh.slug, mesh_id });
            }
            None => self.meshes.push(mesh),
        }
        Ok(())
    }

    fn store(&self, paths: &Paths) -> Result<(), IdentityError> {
        let mut json = Zeroizing::new(
            serde_json::to_vec_pretty(self).expect("text keys, and memory takes every byte"),
        );
        json.push(b'\n');
        Ok(write_private(&paths.config_json(), &json)?)
    }
}

/// Reads `config.json`, lets `change` edit it and writes it back, all under a lock, so that two
/// commands at once do not lose each other's mesh. Nothing is written when `change` fails. Blocks
/// while another process holds the lock, which is as long as writing one small file takes.
///
/// # Errors
/// Whatever reading, `change` or writing reports.
pub fn update<T, E: From<IdentityError>>(
    paths: &Paths,
    change: impl FnOnce(&mut IdentityConfig) -> Result<T, E>,
) -> Result<T, E> {
    let failed =
        |doing, error| IdentityError::from(PathsError::io(doing, &paths.config_lock(), error));
    ensure_private_dir(&paths.config_dir).map_err(IdentityError::from)?;
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(LOCK_FILE_MODE)
        .open(paths.config_lock())
        .map_err(|error| failed("create", error))?;
    lock.lock().map_err(|error| failed("lock", error))?;
    let mut config = IdentityConfig::load(paths)?;
    let result = change(&mut config)?;
    config.store(paths)?;
    Ok(result)
}

#[cfg(test)]
mod tests;
