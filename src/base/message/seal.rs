//! Sealing and opening (`specs/wire.md`; §3.6, §3.7), compatible with libsodium's
//! `crypto_box_easy`.
//!
//! Only direct messages are sealed. What goes to many is base64 of its plain text on today's
//! network, and [`plain`] says so by its name. Nonces are arguments: one nonce, one box.

use super::canonical::{self, MetaError};
use super::keys::{KeyError, PublicKey, SecretKey};
use crypto_box::SalsaBox;
use crypto_box::aead::Aead;
use data_encoding::BASE64;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes in a nonce.
pub const NONCE_BYTES: usize = 24;
/// How many bytes a box adds to its plaintext.
pub const TAG_BYTES: usize = 16;
/// The only version of [`Extension`] there is.
pub const EXTENSION_VERSION: u64 = 1;

/// A nonce: random, never used twice with one pair of keys.
pub type Nonce = [u8; NONCE_BYTES];

/// A box, or plain multicast text, as it stands in a frame: standard base64 with padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPayload {
    /// 24 bytes.
    pub nonce_b64: String,
    /// Tag and ciphertext of a direct message; the text itself for multicast.
    pub ciphertext_b64: String,
}

impl EncodedPayload {
    fn new(nonce: &Nonce, bytes: &[u8]) -> Self {
        Self { nonce_b64: BASE64.encode(nonce), ciphertext_b64: BASE64.encode(bytes) }
    }
}

/// How long the base64 text of a box around `plaintext_bytes` bytes is.
#[must_use]
pub const fn sealed_b64_bytes(plaintext_bytes: usize) -> usize {
    (plaintext_bytes + TAG_BYTES).div_ceil(3) * 4
}

/// The secret two keys share. Making one costs an X25519 exchange, so keep it per pair of keys:
/// the box a sender seals with is the one its recipient opens with. Share it in an `Arc`.
pub struct SharedBox(SalsaBox);

impl fmt::Debug for SharedBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedBox(..)")
    }
}

impl SharedBox {
    /// The box between our `secret` and their `public` key. For sending, `secret` must be the key
    /// the broker will name as the sender of this connection (`specs/wire.md`).
    #[must_use]
    pub fn between(secret: &SecretKey, public: &PublicKey) -> Self {
        let secret = crypto_box::SecretKey::from_bytes(*secret.to_x25519());
        let public = crypto_box::PublicKey::from_bytes(public.to_x25519());
        Self(SalsaBox::new(&public, &secret))
    }

    /// Seals `plaintext`.
    #[must_use]
    pub fn seal(&self, plaintext: &[u8], nonce: Nonce) -> EncodedPayload {
        let boxed = self.0.encrypt(&nonce.into(), plaintext);
        EncodedPayload::new(&nonce, &boxed.expect("XSalsa20 fails only beyond 2^70 bytes"))
    }

    /// Opens a box; `None` unless it was sealed between these two keys and is untouched.
    #[must_use]
    pub fn open(&self, nonce_b64: &str, ciphertext_b64: &str) -> Option<Vec<u8>> {
        let nonce = Nonce::try_from(BASE64.decode(nonce_b64.as_bytes()).ok()?).ok()?;
        let boxed = BASE64.decode(ciphertext_b64.as_bytes()).ok()?;
        self.0.decrypt(&nonce.into(), boxed.as_slice()).ok()
    }

    /// Seals the second box of a direct message (§3.6): `ext_nonce` and `ext_ciphertext`.
    /// The nonce must not be the one of the first box.
    #[must_use]
    pub fn seal_extension(&self, extension: &Extension, nonce: Nonce) -> EncodedPayload {
        self.seal(extension.to_json().as_bytes(), nonce)
    }

    /// Opens the second box.
    ///
    /// # Errors
    /// When no box opens, or what is inside is not an extension of a version we know.
    pub fn open_extension(
        &self,
        nonce_b64: &str,
        ciphertext_b64: &str,
    ) -> Result<Extension, ExtensionError> {
        let json = self.open(nonce_b64, ciphertext_b64).ok_or(ExtensionError::Unopened)?;
        Extension::parse(&json)
    }
}

/// How many shared secrets [`SharedBoxes`] keeps; beyond it it starts over.
const BOXES_MAX: usize = 1024;

/// The shared secrets between our keys and others', kept because making one is slow.
#[derive(Debug, Default)]
pub struct SharedBoxes {
    by_keys: Mutex<HashMap<(PublicKey, PublicKey), Arc<SharedBox>>>,
    by_text: Mutex<HashMap<String, PublicKey>>,
}

impl SharedBoxes {
    /// The box between our `secret` and their `public` key.
    #[must_use]
    pub fn between(&self, secret: &SecretKey, public: &PublicKey) -> Arc<SharedBox> {
        let mut boxes = self.by_keys.lock().unwrap_or_else(PoisonError::into_inner);
        if boxes.len() >= BOXES_MAX {
            boxes.clear();
        }
        let make = || Arc::new(SharedBox::between(secret, public));
        boxes.entry((secret.public(), *public)).or_insert_with(make).clone()
    }

    /// The box between our `secret` and their key as text. A key that was met before is not proved
    /// to be one again: that costs more than sealing a short message.
    ///
    /// # Errors
    /// When `public` is no public key.
    pub fn between_text(
        &self,
        secret: &SecretKey,
        public: &str,
    ) -> Result<Arc<SharedBox>, KeyError> {
        let mut keys = self.by_text.lock().unwrap_or_else(PoisonError::into_inner);
        let known = keys.get(public).copied();
        let key = match known {
            Some(key) => key,
            None => PublicKey::parse(public)?,
        };
        if known.is_none() {
            if keys.len() >= BOXES_MAX {
                keys.clear();
            }
            keys.insert(public.to_owned(), key);
        }
        drop(keys);
        Ok(self.between(secret, &key))
    }
}

/// Seals one message. On a hot path keep a [`SharedBox`].
#[must_use]
pub fn seal(
    plaintext: &[u8],
    sender: &SecretKey,
    recipient: &PublicKey,
    nonce: Nonce,
) -> EncodedPayload {
    SharedBox::between(sender, recipient).seal(plaintext, nonce)
}

/// Opens one message. On a hot path keep a [`SharedBox`].
#[must_use]
pub fn open(
    nonce_b64: &str,
    ciphertext_b64: &str,
    recipient: &SecretKey,
    sender: &PublicKey,
) -> Option<Vec<u8>> {
    SharedBox::between(recipient, sender).open(nonce_b64, ciphertext_b64)
}

/// Multicast: *not* encrypted (§3.7). The nonce is ignored by receivers but expected in the frame.
#[must_use]
pub fn plain(text: &str, nonce: Nonce) -> EncodedPayload {
    EncodedPayload::new(&nonce, text.as_bytes())
}

/// Reads multicast text; `None` unless it is strict base64 of valid UTF-8, so that a box which
/// nobody could open is never shown as text.
#[must_use]
pub fn open_plain(ciphertext_b64: &str) -> Option<String> {
    String::from_utf8(BASE64.decode(ciphertext_b64.as_bytes()).ok()?).ok()
}

/// What travels beside the body of a direct message, in a box of its own (§3.6).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extension {
    /// Canonical JSON of `meta`.
    pub meta: Option<String>,
    /// The message this one answers.
    pub reply_to_id: Option<String>,
}

/// Why a second box says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// No box between these keys, or a damaged one.
    #[error("the second box does not open")]
    Unopened,
    /// Not the JSON of an extension.
    #[error("the second box is not an extension: {0}")]
    Malformed(MetaError),
    /// A `v` we do not know.
    #[error("the second box has a version this build predates")]
    UnknownVersion,
    /// This field has the wrong type.
    #[error("the second box has a malformed `{0}`")]
    BadField(&'static str),
}

impl Extension {
    /// Whether there is nothing to send, so that no second box is needed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.meta.is_none() && self.reply_to_id.is_none()
    }

    /// The JSON that is sealed. Its length plus [`TAG_BYTES`] counts against the frame limit.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = format!(r#"{{"v":{EXTENSION_VERSION}"#);
        if let Some(meta) = &self.meta {
            json += r#","meta":"#;
            json += meta;
        }
        if let Some(id) = &self.reply_to_id {
            json += r#","reply_to_id":"#;
            json += &Value::from(id.as_str()).to_string();
        }
        json + "}"
    }

    /// Reads the JSON of a second box. Unknown fields are left for later versions; `meta` comes
    /// back canonical whatever its sender wrote, under the same rules as a caller's.
    ///
    /// # Errors
    /// When it is not JSON, has another version, or a field of the wrong type.
    pub fn parse(json: &[u8]) -> Result<Self, ExtensionError> {
        let not_utf8 = |_| ExtensionError::Malformed(MetaError::not_utf8());
        let text = std::str::from_utf8(json).map_err(not_utf8)?;
        let mut fields = canonical::parse_object(text)
            .map_err(ExtensionError::Malformed)?
            .ok_or(ExtensionError::UnknownVersion)?;
        if fields.get("v").and_then(Value::as_u64) != Some(EXTENSION_VERSION) {
            return Err(ExtensionError::UnknownVersion);
        }
        Ok(Self { meta: take_meta(&mut fields)?, reply_to_id: take_reply(&mut fields)? })
    }
}

fn take_meta(fields: &mut Map<String, Value>) -> Result<Option<String>, ExtensionError> {
    match fields.remove("meta") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(meta)) => Ok(Some(canonical::to_canonical(&Value::Object(meta)))),
        Some(_) => Err(ExtensionError::BadField("meta")),
    }
}

fn take_reply(fields: &mut Map<String, Value>) -> Result<Option<String>, ExtensionError> {
    match fields.remove("reply_to_id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => Ok(Some(id)),
        Some(_) => Err(ExtensionError::BadField("reply_to_id")),
    }
}

#[cfg(test)]
mod tests;
