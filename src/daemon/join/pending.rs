//! The key of a join whose answer may have been lost (`specs/wire.md`).
//!
//! The broker knows a key again and burns no second use of the invite for it, so the key must
//! outlive the command that made it: a 0600 file per invite, there from before the broker is asked
//! until it has answered, yes or no. It holds the key and nothing else.

use super::VerifiedInvite;
use claudemesh_base::message::SecretKey;
use claudemesh_base::paths::{Paths, PathsError, write_private};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// The key of an earlier try with this invite, if one is kept and whole.
pub(super) fn load(paths: &Paths, invite: &VerifiedInvite) -> Option<SecretKey> {
    let text = fs::read_to_string(path(paths, invite)).map(Zeroizing::new).ok()?;
    SecretKey::parse(text.trim()).ok()
}

/// Keeps the key until [`forget`].
pub(super) fn store(
    paths: &Paths,
    invite: &VerifiedInvite,
    key: &SecretKey,
) -> Result<(), PathsError> {
    let mut text = key.to_hex();
    text.push('\n');
    write_private(&path(paths, invite), text.as_bytes())
}

/// The broker has answered: the key is in `config.json`, or good for nothing.
pub(super) fn forget(paths: &Paths, invite: &VerifiedInvite) {
    // One that stays behind is only offered again, and known again.
    let _ = fs::remove_file(path(paths, invite));
}

/// An invite's token is as long as it likes and written by somebody else; its hash is neither.
fn path(paths: &Paths, invite: &VerifiedInvite) -> PathBuf {
    let hash = HEXLOWER.encode(&Sha256::digest(&invite.token)[..8]);
    paths.config_dir.join(format!("joining-{hash}.key"))
}
