//! An accepted message as the frame that carries it, and how heavy that frame will be.
//!
//! A direct message is sealed, and `meta` and `reply_to_id` travel in a second box (§3.6). A message
//! to many travels in clear (§3.7), its `meta` too: base64 in the same field.

use super::{SendFrame, to_text};
use crate::message::seal::{plain, sealed_b64_bytes};
use crate::message::{EncodedPayload, Extension, Nonce, SharedBox};
use claudemesh_fsm::envelope::{Encryption, Envelope};
use claudemesh_fsm::id::ClientMessageId;

/// Length of a nonce in base64.
const NONCE_B64_BYTES: usize = 32;

/// More than a frame weighs without what its sender chose, mentions' punctuation included.
const FIXED_BYTES_MAX: usize = 1024;

/// The frame for one attempt.
///
/// `sealed_for` is the box between the sending key and the recipient; `None` for a message to many.
/// The two nonces must be fresh.
#[must_use]
pub fn encode(
    envelope: &Envelope,
    id: &ClientMessageId,
    target_spec: String,
    sealed_for: Option<&SharedBox>,
    nonces: [Nonce; 2],
) -> SendFrame {
    let [body_nonce, extension_nonce] = nonces;
    let extension = extension(envelope);
    let (body, second) = match sealed_for {
        Some(shared) => (
            shared.seal(&envelope.payload, body_nonce),
            extension.map(|extension| shared.seal_extension(&extension, extension_nonce)),
        ),
        None => (
            plain(&String::from_utf8_lossy(&envelope.payload), body_nonce),
            extension.map(|extension| plain(&extension.to_json(), extension_nonce)),
        ),
    };
    frame(envelope, id, target_spec, body, second)
}

/// How many bytes the frame of a message will have, whatever its keys and nonces (§3.6).
#[must_use]
pub fn encoded_frame_bytes(envelope: &Envelope, id: &ClientMessageId) -> usize {
    let b64_bytes = |plaintext_bytes: usize| {
        if envelope.destination.is_direct() {
            sealed_b64_bytes(plaintext_bytes)
        } else {
            plaintext_bytes.div_ceil(3) * 4
        }
    };
    let empty = || EncodedPayload { nonce_b64: String::new(), ciphertext_b64: String::new() };
    let extension = extension(envelope);
    let bare =
        frame(envelope, id, envelope.target_spec(), empty(), extension.as_ref().map(|_| empty()));
    let second =
        extension.map_or(0, |extension| NONCE_B64_BYTES + b64_bytes(extension.to_json().len()));
    to_text(&super::ClientFrame::Send(Box::new(bare))).len()
        + NONCE_B64_BYTES
        + b64_bytes(envelope.payload.len())
        + second
}

/// Whether the frame of a message fits `bytes_max` by a wide margin, without building it: true of
/// nearly every message.
#[must_use]
pub fn certainly_fits(envelope: &Envelope, id: &ClientMessageId, bytes_max: usize) -> bool {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let mentions: usize = envelope.mentions.iter().map(String::len).sum();
    // JSON writes a byte in six at the most; base64 four for three, within a factor of two.
    let in_clear = id.as_str().len() * 2 + envelope.destination.reference().len() + mentions;
    let boxed = envelope.payload.len() + length(&envelope.meta) + length(&envelope.reply_to_id) * 6;
    in_clear * 6 + length(&envelope.reply_to_id) * 6 + boxed * 2 + FIXED_BYTES_MAX <= bytes_max
}

/// What the frame of a message weighs, if that is more than `bytes_max` (§3.6).
#[must_use]
pub fn oversized_frame_bytes(
    envelope: &Envelope,
    id: &ClientMessageId,
    bytes_max: usize,
) -> Option<usize> {
    if certainly_fits(envelope, id, bytes_max) {
        return None;
    }
    Some(encoded_frame_bytes(envelope, id)).filter(|bytes| *bytes > bytes_max)
}

fn extension(envelope: &Envelope) -> Option<Extension> {
    // In clear, the reply has a field of its own.
    let reply_to_id = envelope.reply_to_id.clone().filter(|_| envelope.destination.is_direct());
    let extension = Extension { meta: envelope.meta.clone(), reply_to_id };
    (!extension.is_empty()).then_some(extension)
}

fn frame(
    envelope: &Envelope,
    id: &ClientMessageId,
    target_spec: String,
    body: EncodedPayload,
    second: Option<EncodedPayload>,
) -> SendFrame {
    let (ext_nonce, ext_ciphertext) =
        second.map(|sealed| (sealed.nonce_b64, sealed.ciphertext_b64)).unzip();
    let in_clear = envelope.destination.encryption() == Encryption::None;
    SendFrame {
        id: Some(id.as_str().to_owned()),
        target_spec,
        priority: envelope.priority.as_str().to_owned(),
        nonce: body.nonce_b64,
        ciphertext: body.ciphertext_b64,
        ext_nonce,
        ext_ciphertext,
        mentions: envelope.mentions.clone(),
        reply_to_id: envelope.reply_to_id.clone().filter(|_| in_clear),
        client_message_id: Some(id.as_str().to_owned()),
        request_fingerprint: Some(envelope.fingerprint.to_hex()),
    }
}

#[cfg(test)]
mod tests;
