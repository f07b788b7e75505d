//! Letting somebody in with an invite (`specs/wire.md`).

use crate::connection::sanitize;
use crate::ledger::{JoinOutcome, Ledger, LedgerError, Mesh};
use claudemesh_base::message::{PublicKey, signed};
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire::join::{InvitePayload, JoinRequest};
use claudemesh_fsm::envelope::is_public_key;
use data_encoding::BASE64URL_NOPAD;

/// Why nobody joined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// The code of the answer (`specs/wire.md`).
    #[error("{0}")]
    Refused(&'static str),
    #[error(transparent)]
    Failed(#[from] LedgerError),
}

/// The invite inside a token, unchecked.
pub(crate) fn open_token(token: &str) -> Result<InvitePayload, JoinError> {
    let malformed = JoinError::Refused("invite_not_found");
    let Ok(json) = BASE64URL_NOPAD.decode(token.as_bytes()) else { return Err(malformed) };
    serde_json::from_slice(&json).map_err(|_| malformed)
}

/// Checks who signed an invite, and for which mesh.
pub(crate) async fn check_invite(
    ledger: &dyn Ledger,
    invite: &InvitePayload,
) -> Result<Mesh, JoinError> {
    let bad_signature = JoinError::Refused("invite_bad_signature");
    let Ok(owner) = PublicKey::parse(&invite.owner_pubkey) else { return Err(bad_signature) };
    let text = signed::invite(&signed::InviteClaims {
        mesh_id: &invite.mesh_id,
        mesh_slug: &invite.mesh_slug,
        broker_url: &invite.broker_url,
        expires_at_s: invite.expires_at,
        mesh_root_key: &invite.mesh_root_key,
        role: &invite.role,
        owner: &owner,
    });
    if invite.v != signed::INVITE_VERSION || !owner.verify(&text, &invite.signature) {
        return Err(bad_signature);
    }
    let mesh = ledger.mesh(&invite.mesh_id).await?;
    let mesh = mesh.ok_or(JoinError::Refused("mesh_not_found"))?;
    if mesh.owner_pubkey != owner.to_hex() {
        return Err(JoinError::Refused("invite_owner_mismatch"));
    }
    Ok(mesh)
}

/// Lets somebody in with an invite.
pub(crate) async fn join(
    ledger: &dyn Ledger,
    runtime: &Runtime,
    request: &JoinRequest,
) -> Result<(Mesh, JoinOutcome), JoinError> {
    let token = request.invite_token.as_deref().unwrap_or_default();
    let name = sanitize(request.display_name.trim());
    if token.is_empty() || name.is_empty() || request.peer_pubkey.is_empty() {
        return Err(JoinError::Refused("invite_token, peer_pubkey and display_name are required"));
    }
    let bad_key = JoinError::Refused("peer_pubkey must be 64 hex digits of an ed25519 key");
    if !is_public_key(&request.peer_pubkey) {
        return Err(bad_key);
    }
    let key = PublicKey::parse(&request.peer_pubkey).map_err(|_| bad_key)?;
    let mesh = check_invite(ledger, &open_token(token)?).await?;
    let (id, now) = (runtime.mint_id(), runtime.now());
    let joined = ledger.join(token, &mesh.id, &id, &key.to_hex(), &name, now).await?;
    Ok((mesh, joined))
}
