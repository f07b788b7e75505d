//! Sealing and opening (`specs/wire.md`; §3.6, §3.7), compatible with libsodium's
//! `crypto_box_easy`.
//!
//! Only direct messages are sealed. What goes to many is base64 of its plain text on today's
//! network, and [`plain`] says so by its name. Nonces are arguments: one nonce, one box.

use super::extension::{Extension, ExtensionError};
use super::keys::{KeyError, PublicKey, SecretKey};
use crypto_box::SalsaBox;
use crypto_box::aead::Aead;
use data_encoding::BASE64;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes in a nonce.
pub const NONCE_BYTES: usize = 24;
/// How many bytes a box adds to its plaintext.
pub const TAG_BYTES: usize = 16;

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

#[cfg(test)]
mod tests;
