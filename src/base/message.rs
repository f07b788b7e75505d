//! What a message is made of before it travels: canonical `meta`, the request fingerprint, keys,
//! sealed boxes, and the strings that are signed.
//!
//! Pure values and arithmetic, checked against libsodium. Nothing here reads a file, a clock or a
//! source of randomness: every nonce and every seed is an argument.
//!
//! | module | holds | contract |
//! |---|---|---|
//! | [`canonical`] | `meta` as RFC 8785 JSON, with everything refused that would change silently | §4.4 |
//! | [`extension`] | what travels beside a body: `meta`, the message that is answered | §3.6 |
//! | [`mod@fingerprint`] | what binds an id to one request | §4.4 |
//! | [`legacy`] | what the existing TypeScript daemon hashed for the same request | §4.4 |
//! | [`keys`] | ed25519 key pairs and signatures | §2 |
//! | [`seal`] | direct messages sealed, multicast in plain base64 | §3.6, §3.7 |
//! | [`signed`] | the exact strings a signature covers | §2 |

pub mod canonical;
pub mod extension;
pub mod fingerprint;
pub mod keys;
pub mod legacy;
pub mod seal;
pub mod signed;

pub use canonical::{MetaError, MetaErrorKind, canonical_meta};
pub use extension::Extension;
pub use fingerprint::{fingerprint, fingerprint_of};
pub use keys::{KeyError, PublicKey, SecretKey};
pub use seal::{EncodedPayload, NONCE_BYTES, Nonce, SharedBox, SharedBoxes};
