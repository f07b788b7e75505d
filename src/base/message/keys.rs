//! ed25519 keys and signatures (§2).
//!
//! A [`PublicKey`] has been checked once and always prints in lowercase. A [`SecretKey`] never
//! prints, and is wiped when it is dropped. Neither is made here from nothing: seeds are arguments.

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use std::fmt;
use std::hash::{Hash, Hasher};
use zeroize::Zeroizing;

/// Bytes in a seed, and in a public key.
pub const KEY_BYTES: usize = 32;
/// Bytes in a stored secret key: the seed, then the public key.
pub const SECRET_KEY_BYTES: usize = 2 * KEY_BYTES;
/// Bytes in a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// Why text is not a key. Never carries the text: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not this many hex digits.
    #[error("must be {digits} hex digits")]
    NotHex {
        /// How many digits were expected.
        digits: usize,
    },
    /// Hex, but no point of the curve.
    #[error("is not an ed25519 public key")]
    NotAPoint,
    /// A point of small order, which everybody can forge for.
    #[error("is a weak ed25519 public key, which anybody can forge for")]
    Weak,
    /// The public half of a secret key is not the one its seed gives.
    #[error("does not belong to its own public half")]
    HalvesDiffer,
}

/// A member's or session's public key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads 64 hex digits in any case.
    ///
    /// # Errors
    /// When the text is not hex of that length, or not a usable key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(&decode(text)?)
    }

    /// Checks 32 raw bytes.
    ///
    /// # Errors
    /// When they are no point of the curve, or a weak one.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAPoint)?;
        // `from_bytes` accepts points of small order.
        if key.is_weak() { Err(KeyError::Weak) } else { Ok(Self(key)) }
    }

    /// The 32 raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        self.0.as_bytes()
    }

    /// 64 lowercase hex digits: the only form that goes on the wire.
    #[must_use]
    pub fn to_hex(&self) -> String {
        HEXLOWER.encode(self.as_bytes())
    }

    /// The X25519 public key that boxes for this member use (`specs/wire.md`).
    #[must_use]
    pub fn to_x25519(&self) -> [u8; KEY_BYTES] {
        self.0.to_montgomery().to_bytes()
    }

    /// Whether `signature_hex` (128 hex digits) is this key's over `text`. Strict: a signature
    /// that only some libraries would accept is refused.
    #[must_use]
    pub fn verify(&self, text: &str, signature_hex: &str) -> bool {
        let Ok(bytes) = decode::<SIGNATURE_BYTES>(signature_hex) else { return false };
        self.0.verify_strict(text.as_bytes(), &Signature::from_bytes(&bytes)).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

/// A member's or session's secret key. Wiped on drop; `Debug` shows the public half only.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key pair of a seed. A new key is `SecretKey::from_seed(runtime.random())`.
    #[must_use]
    pub fn from_seed(seed: [u8; KEY_BYTES]) -> Self {
        let seed = Zeroizing::new(seed);
        Self(SigningKey::from_bytes(&seed))
    }

    /// Reads 128 hex digits: the seed, then the public key, which must belong together.
    ///
    /// # Errors
    /// When the text is not hex of that length, or the halves differ.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(decode::<SECRET_KEY_BYTES>(text)?);
        let (seed, public) = bytes.split_at(KEY_BYTES);
        let seed = <[u8; KEY_BYTES]>::try_from(seed).map_err(|_| KeyError::HalvesDiffer)?;
        let key = Self::from_seed(seed);
        if key.0.verifying_key().as_bytes() == public {
            Ok(key)
        } else {
            Err(KeyError::HalvesDiffer)
        }
    }

    /// 128 lowercase hex digits, as stored in a 0600 file. Wiped when dropped.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(self.0.to_keypair_bytes());
        Zeroizing::new(HEXLOWER.encode(bytes.as_slice()))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs `text`; 128 lowercase hex digits.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        HEXLOWER.encode(&self.0.sign(text.as_bytes()).to_bytes())
    }

    /// The X25519 secret key that boxes from this member use: the first half of the seed's
    /// SHA-512, clamped (`specs/wire.md`).
    #[must_use]
    pub fn to_x25519(&self) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut scalar = Zeroizing::new(self.0.to_scalar_bytes());
        scalar[0] &= 0b1111_1000;
        scalar[KEY_BYTES - 1] &= 0b0111_1111;
        scalar[KEY_BYTES - 1] |= 0b0100_0000;
        scalar
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

fn decode<const N: usize>(hex: &str) -> Result<[u8; N], KeyError> {
    let refused = KeyError::NotHex { digits: 2 * N };
    if hex.len() != 2 * N {
        return Err(refused);
    }
    let mut bytes = [0; N];
    HEXLOWER_PERMISSIVE.decode_mut(hex.as_bytes(), &mut bytes).map_err(|_| refused)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
