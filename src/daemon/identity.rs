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

use claudemesh_base::paths::PathsError;
use serde_json::{Map, Value};
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The `version` of `config.json` and of `session-keys.json`.
pub const FILE_VERSION: u64 = 1;

/// Why an identity file cannot be used. Names the file, the mesh and the field; never a value.
#[derive(Debug)]
pub enum IdentityError {
    /// A file or directory is out of reach.
    Paths(PathsError),
    /// A file is not JSON.
    NotJson {
        /// The file.
        file: PathBuf,
        /// Where it stops being JSON.
        line: usize,
        /// Where in that line.
        column: usize,
    },
    /// A file is JSON, but not an object.
    NotAnObject(PathBuf),
    /// A file is of a version this build does not know; it is left alone.
    UnknownVersion(PathBuf),
    /// A field is missing or wrong.
    BadField {
        /// The file.
        file: PathBuf,
        /// The mesh's slug, or its place in the file when it has none.
        mesh: Option<String>,
        /// The field as it stands in the file.
        field: &'static str,
        /// What it must be.
        expected: String,
    },
    /// Two meshes of one file share a slug.
    DuplicateSlug {
        /// The file.
        file: PathBuf,
        /// The slug.
        slug: String,
    },
    /// Another mesh already has this slug here.
    SlugTaken {
        /// The slug.
        slug: String,
        /// The mesh that has it.
        mesh_id: String,
    },
    /// `local-token` does not hold a token.
    BadToken(PathBuf),
}

impl From<PathsError> for IdentityError {
    fn from(error: PathsError) -> Self {
        Self::Paths(error)
    }
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paths(error) => error.fmt(f),
            Self::NotJson { file, line, column } => write!(
                f,
                "{} is not valid JSON (line {line}, column {column}): mend it or restore a copy",
                file.display()
            ),
            Self::NotAnObject(file) => {
                write!(f, "{} must hold a JSON object: mend it or restore a copy", file.display())
            }
            Self::UnknownVersion(file) => write!(
                f,
                "{}: `version` must be {FILE_VERSION}: a newer claudemesh may have written it",
                file.display()
            ),
            Self::BadField { file, mesh, field, expected } => {
                write!(f, "{}: ", file.display())?;
                if let Some(mesh) = mesh {
                    write!(f, "mesh `{mesh}`: ")?;
                }
                write!(f, "`{field}` {expected}")
            }
            Self::DuplicateSlug { file, slug } => write!(
                f,
                "{}: two meshes have the slug `{slug}`: rename one of them",
                file.display()
            ),
            Self::SlugTaken { slug, mesh_id } => write!(
                f,
                "the slug `{slug}` already names mesh {mesh_id} here: leave that mesh first"
            ),
            Self::BadToken(file) => write!(
                f,
                "{} does not hold a token: run `claudemesh daemon rotate-token`",
                file.display()
            ),
        }
    }
}

impl std::error::Error for IdentityError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Paths(error) => error.source(),
            _ => None,
        }
    }
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
    ) -> Result<claudemesh_base::message::SecretKey, IdentityError> {
        let public_text = self.text(public)?;
        let key = claudemesh_base::message::PublicKey::parse(&public_text)
            .map_err(|error| self.bad(public, error.to_string()))?;
        let secret_text = Zeroizing::new(self.text(secret)?);
        let pair = claudemesh_base::message::SecretKey::parse(&secret_text)
            .map_err(|error| self.bad(secret, error.to_string()))?;
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
