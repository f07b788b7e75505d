//! Who we are: the joined meshes of `config.json`, the session keys, the local token (§1.1,
//! §2).
//!
//! Everything here is a secret or lies next to one: files are written 0600 and whole, no `Debug`
//! shows a key, and no error quotes what it read. `config.json` belongs to today's network as
//! much as to us, so what we do not know in it stays as it is.

mod boot;
mod config_json;
mod session_keys;
mod token;

pub use boot::boot_id;
pub use config_json::{Group, IdentityConfig, JoinedMesh, update};
pub use session_keys::{SESSION_ID_PREFIX, SessionKey, SessionKeys};
pub use token::{LocalToken, TOKEN_BYTES};

use claudemesh_base::message::{PublicKey, SecretKey};
use claudemesh_base::paths::PathsError;
use serde_json::{Map, Value};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The `version` of `config.json` and of `session-keys.json`.
pub const FILE_VERSION: u64 = 1;

/// Why an identity file cannot be used. Names the file, the mesh and the field; never a value.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's text says what its fields are")]
pub enum IdentityError {
    #[error(transparent)]
    Paths(#[from] PathsError),
    #[error("{} is not valid JSON (line {line}, column {column}): mend it or restore a copy", file.display())]
    NotJson { file: PathBuf, line: usize, column: usize },
    #[error("{} must hold a JSON object: mend it or restore a copy", .0.display())]
    NotAnObject(PathBuf),
    /// The file is left alone.
    #[error("{}: `version` must be {FILE_VERSION}: a newer claudemesh may have written it", .0.display())]
    UnknownVersion(PathBuf),
    /// `mesh` is the mesh's slug, or its place in the file when it has none.
    #[error("{}: {}`{field}` {expected}", file.display(), of_mesh(mesh.as_deref()))]
    BadField { file: PathBuf, mesh: Option<String>, field: &'static str, expected: String },
    #[error("{}: two meshes have the slug `{slug}`: rename one of them", file.display())]
    DuplicateSlug { file: PathBuf, slug: String },
    #[error("the slug `{slug}` already names mesh {mesh_id} here: join with --as <slug>")]
    SlugTaken { slug: String, mesh_id: String },
    #[error("{} does not hold a token: delete the file, and `claudemesh daemon up` makes a new one", .0.display())]
    BadToken(PathBuf),
}

fn of_mesh(mesh: Option<&str>) -> String {
    mesh.map(|mesh| format!("mesh `{mesh}`: ")).unwrap_or_default()
}

/// Reads a JSON object; `None` if the file does not exist.
fn read_object(file: &Path) -> Result<Option<Map<String, Value>>, IdentityError> {
    let bytes = match fs::read(file) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(PathsError::io("read", file, error).into()),
    };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(fields)) => Ok(Some(fields)),
        Ok(_) => Err(IdentityError::NotAnObject(file.into())),
        // Only the place: serde's own text may quote what it read.
        Err(error) => Err(IdentityError::NotJson {
            file: file.into(),
            line: error.line(),
            column: error.column(),
        }),
    }
}

/// Takes fields out of one object of one file, so that every error names its place.
struct Fields<'a> {
    file: &'a Path,
    mesh: Option<String>,
    map: Map<String, Value>,
}

impl Fields<'_> {
    fn bad(&self, field: &'static str, expected: impl Into<String>) -> IdentityError {
        let (file, mesh) = (self.file.into(), self.mesh.clone());
        IdentityError::BadField { file, mesh, field, expected: expected.into() }
    }

    fn text_or_none(&mut self, field: &'static str) -> Result<Option<String>, IdentityError> {
        match self.map.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.bad(field, "must be a string")),
        }
    }

    fn text(&mut self, field: &'static str) -> Result<String, IdentityError> {
        match self.text_or_none(field)? {
            Some(text) if text.is_empty() || text.chars().any(char::is_control) => {
                Err(self.bad(field, "must be visible text"))
            }
            Some(text) => Ok(text),
            None => Err(self.bad(field, "is missing")),
        }
    }

    /// The pair of keys under `public` and `secret`, which must belong together.
    fn keys(
        &mut self,
        public: &'static str,
        secret: &'static str,
    ) -> Result<SecretKey, IdentityError> {
        let public_text = self.text(public)?;
        let key =
            PublicKey::parse(&public_text).map_err(|error| self.bad(public, error.to_string()))?;
        let secret_text = Zeroizing::new(self.text(secret)?);
        let pair =
            SecretKey::parse(&secret_text).map_err(|error| self.bad(secret, error.to_string()))?;
        if pair.public() != key {
            return Err(self.bad(secret, format!("does not belong to `{public}`")));
        }
        Ok(pair)
    }

    fn check_version(&mut self) -> Result<(), IdentityError> {
        match self.map.remove("version") {
            None => Ok(()),
            Some(version) if version.as_u64() == Some(FILE_VERSION) => Ok(()),
            Some(_) => Err(IdentityError::UnknownVersion(self.file.into())),
        }
    }
}
