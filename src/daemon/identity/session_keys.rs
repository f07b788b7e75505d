//! `session-keys.json` (§2): one key pair and one session id per mesh, made once.
//!
//! A restarted daemon that keeps its key can still open what was sealed to it, and is recognised
//! as the same peer. The daemon alone writes this file, under its lock.

use super::{FILE_VERSION, Fields, IdentityError, read_object};
use claudemesh_base::message::{PublicKey, SecretKey};
use claudemesh_base::paths::{Paths, write_private};
use claudemesh_base::runtime::{self, Runtime};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What a session id begins with; 26 characters follow.
pub const SESSION_ID_PREFIX: &str = "claudemesh-";

/// The daemon's own key in one mesh. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct SessionKey {
    /// The key pair; its public half is our routing key.
    pub secret_key: SecretKey,
    /// Stable for this install, without a pid in it.
    pub session_id: String,
    created_at: String,
}

impl SessionKey {
    /// Our routing key.
    #[must_use]
    pub fn pubkey(&self) -> PublicKey {
        self.secret_key.public()
    }

    fn make(runtime: &Runtime) -> Self {
        Self {
            secret_key: SecretKey::from_seed(runtime.random()),
            session_id: format!("{SESSION_ID_PREFIX}{}", runtime.mint_id()),
            created_at: runtime::iso(runtime.now()),
        }
    }

    fn parse(file: &Path, slug: &str, value: Value) -> Result<Self, IdentityError> {
        let mut fields = Fields { file, mesh: Some(slug.into()), map: Map::new() };
        let Value::Object(map) = value else {
            return Err(fields.bad("meshes", "must hold objects only"));
        };
        fields.map = map;
        Ok(Self {
            secret_key: fields.keys("publicKey", "secretKey")?,
            session_id: fields.text("sessionId")?,
            created_at: fields.text_or_none("createdAt")?.unwrap_or_default(),
        })
    }

    fn to_json(&self) -> Value {
        json!({
            "publicKey": self.pubkey().to_hex(),
            "secretKey": self.secret_key.to_hex().as_str(),
            "sessionId": self.session_id,
            "createdAt": self.created_at,
        })
    }
}

/// The session keys of every mesh, by slug.
pub struct SessionKeys {
    file: PathBuf,
    by_slug: BTreeMap<String, SessionKey>,
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.by_slug.iter().map(|(slug, key)| (slug, key.pubkey()))).finish()
    }
}

impl SessionKeys {
    /// Reads the file; a missing one holds no keys yet.
    ///
    /// # Errors
    /// When the file is damaged. It is never overwritten: mail may be sealed to its keys.
    pub fn load(paths: &Paths) -> Result<Self, IdentityError> {
        let file = paths.session_keys();
        let mut by_slug = BTreeMap::new();
        if let Some(map) = read_object(&file)? {
            let mut fields = Fields { file: &file, mesh: None, map };
            fields.check_version()?;
            match fields.map.remove("meshes") {
                Some(Value::Object(meshes)) => {
                    for (slug, value) in meshes {
                        let key = SessionKey::parse(&file, &slug, value)?;
                        by_slug.insert(slug, key);
                    }
                }
                _ => return Err(fields.bad("meshes", "must be an object")),
            }
        }
        Ok(Self { file, by_slug })
    }

    /// The key for a mesh, made and stored on first use.
    ///
    /// # Errors
    /// When a new key cannot be stored; it is then not used either.
    pub fn ensure(&mut self, slug: &str, runtime: &Runtime) -> Result<SessionKey, IdentityError> {
        if let Some(key) = self.by_slug.get(slug) {
            return Ok(key.clone());
        }
        let key = SessionKey::make(runtime);
        self.by_slug.insert(slug.into(), key.clone());
        if let Err(error) = self.store() {
            self.by_slug.remove(slug);
            return Err(error);
        }
        Ok(key)
    }

    fn store(&self) -> Result<(), IdentityError> {
        let meshes: Map<String, Value> =
            self.by_slug.iter().map(|(slug, key)| (slug.clone(), key.to_json())).collect();
        let text = json!({ "version": FILE_VERSION, "meshes": meshes }).to_string();
        let text = Zeroizing::new(text + "\n");
        Ok(write_private(&self.file, text.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::Arc;

    #[test]
    fn a_session_key_is_made_once_and_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::under(dir.path()).expect("absolute");
        claudemesh_base::paths::ensure_private_dir(&paths.daemon_dir).expect("created");
        let runtime = Runtime::real(Arc::new(smol::Executor::new()));
        let mut keys = SessionKeys::load(&paths).expect("none yet");
        let first = keys.ensure("demo", &runtime).expect("made");
        let other = keys.ensure("other", &runtime).expect("made");
        assert_ne!(first.pubkey(), other.pubkey());
        assert_eq!(first.session_id.len(), SESSION_ID_PREFIX.len() + 26);

        let mut again = SessionKeys::load(&paths).expect("kept");
        let kept = again.ensure("demo", &runtime).expect("kept");
        assert_eq!(
            (kept.pubkey(), &kept.session_id, &kept.created_at),
            (first.pubkey(), &first.session_id, &first.created_at)
        );
        let text = fs::read_to_string(paths.session_keys()).expect("read");
        assert!(text.contains(first.secret_key.to_hex().as_str()));
        assert!(!format!("{again:?} {kept:?}").contains(&first.secret_key.to_hex()[..64]));
        assert_eq!(claudemesh_base::paths::readable_by_others(&paths.session_keys()), None);
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = Paths::under(dir.path()).expect("absolute");
        fs::create_dir(&paths.daemon_dir).expect("created");
        for text in ["{", "{}", r#"{"meshes":{"demo":{}}}"#, r#"{"version":9,"meshes":{}}"#] {
            fs::write(paths.session_keys(), text).expect("written");
            let refused = SessionKeys::load(&paths).expect_err(text).to_string();
            assert!(refused.contains("session-keys.json"), "{refused}");
            assert_eq!(fs::read_to_string(paths.session_keys()).expect("read"), text);
        }
    }
}
