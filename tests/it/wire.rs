//! The published vectors of today's network, made with libsodium: what we seal, sign and hash is
//! what everybody else opens, verifies and compares.
//!
//! One vector is left out on purpose: `canonical_json_quirk` is the key order of the existing
//! daemon's JavaScript, not ours.

use claudemesh_base::message::seal::{self, SharedBox};
use claudemesh_base::message::signed::{self, InviteClaims};
use claudemesh_base::message::{Nonce, PublicKey, SecretKey, canonical_meta, fingerprint};
use claudemesh_fsm::envelope::{Destination, Priority};
use claudemesh_fsm::id::Millis;
use crypto_secretbox::aead::{Aead, KeyInit};
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use serde_json::Value;
use std::fs;

fn vectors() -> Value {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/protocol-vectors.json");
    serde_json::from_slice(&fs::read(file).expect("the vectors")).expect("JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn secret(all: &Value, who: &str) -> SecretKey {
    SecretKey::parse(text(&all["keys"][who]["sk"])).expect("a good key")
}

fn public(all: &Value, who: &str) -> PublicKey {
    PublicKey::parse(text(&all["keys"][who]["pk"])).expect("a good key")
}

fn nonce(vector: &Value) -> Nonce {
    let bytes = BASE64.decode(text(&vector["nonce_b64"]).as_bytes()).expect("base64");
    Nonce::try_from(bytes).expect("24 bytes")
}

/// Checks a canonical string and its signature, both ways.
fn assert_signed(vector: &Value, canonical: &str, signer: &SecretKey) {
    assert_eq!(canonical, text(&vector["canonical"]));
    assert_eq!(signer.sign(canonical), text(&vector["signature"]));
    assert!(signer.public().verify(canonical, text(&vector["signature"])));
}

#[test]
fn keys_and_their_x25519_forms() {
    let all = vectors();
    for (who, key) in all["keys"].as_object().expect("keys") {
        let seed = HEXLOWER.decode(text(&key["seed"]).as_bytes()).expect("hex");
        let pair = SecretKey::from_seed(seed.try_into().expect("32 bytes"));
        assert_eq!(pair.to_hex().as_str(), text(&key["sk"]), "{who}");
        assert_eq!(pair.public().to_hex(), text(&key["pk"]), "{who}");
        let converted = &all["x25519"][who];
        assert_eq!(HEXLOWER.encode(&pair.public().to_x25519()), text(&converted["pk"]), "{who}");
        assert_eq!(HEXLOWER.encode(pair.to_x25519().as_slice()), text(&converted["sk"]), "{who}");
    }
}

#[test]
fn what_opens_a_connection_is_signed() {
    let all = vectors();
    let (member, session) = (secret(&all, "member_a"), secret(&all, "session_s"));
    let at = Millis(1_750_000_000_000);
    let hello = signed::hello("mesh_test", "member_a", &member.public(), at);
    assert_signed(&all["hello"], &hello, &member);
    let until = Millis(1_750_043_200_000);
    let attestation = signed::session_attestation(&member.public(), &session.public(), until);
    assert_signed(&all["attestation"], &attestation, &member);
    let hello = signed::session_hello("mesh_test", &member.public(), &session.public(), at);
    assert_signed(&all["session_hello"], &hello, &session);
}

#[test]
fn an_invite_is_signed_and_its_token_says_the_same() {
    let all = vectors();
    let vector = &all["invite_v1"];
    let owner = secret(&all, "owner_o");
    let token = BASE64URL_NOPAD.decode(text(&vector["token"]).as_bytes()).expect("base64url");
    let token: Value = serde_json::from_slice(&token).expect("JSON");
    let signer = PublicKey::parse(text(&token["owner_pubkey"])).expect("a good key");
    assert_eq!(signer, owner.public());
    assert_eq!(token["v"], signed::INVITE_VERSION);
    let canonical = signed::invite(&InviteClaims {
        mesh_id: text(&token["mesh_id"]),
        mesh_slug: text(&token["mesh_slug"]),
        broker_url: text(&token["broker_url"]),
        expires_at_s: token["expires_at"].as_i64().expect("seconds"),
        mesh_root_key: text(&token["mesh_root_key"]),
        role: text(&token["role"]),
        owner: &signer,
    });
    assert_signed(vector, &canonical, &owner);
    assert!(signer.verify(&canonical, text(&token["signature"])));
}

#[test]
fn a_direct_message_is_sealed_and_opened() {
    let all = vectors();
    let vector = &all["dm_box"];
    let (from, to) = (text(&vector["from"]), text(&vector["to"]));
    let plaintext = text(&vector["plaintext"]).as_bytes();
    let sealed = seal::seal(plaintext, &secret(&all, from), &public(&all, to), nonce(vector));
    assert_eq!(sealed.nonce_b64, text(&vector["nonce_b64"]));
    assert_eq!(sealed.ciphertext_b64, text(&vector["ciphertext_b64"]));
    let opened = seal::open(
        &sealed.nonce_b64,
        &sealed.ciphertext_b64,
        &secret(&all, to),
        &public(&all, from),
    );
    assert_eq!(opened.as_deref(), Some(plaintext));
}

/// Topic keys are not in this release (§18); what they are sealed with is.
#[test]
fn a_topic_key_is_sealed_with_the_same_box() {
    let all = vectors();
    let vector = &all["sealed_topic_key"];
    let (sealer, recipient) = (text(&vector["sealer"]), text(&vector["recipient"]));
    let blob = BASE64.decode(text(&vector["encryptedKey_b64"]).as_bytes()).expect("base64");
    assert_eq!(Some(blob.len() as u64), vector["blob_len"].as_u64());
    let (sender, boxed) = blob.split_at(32);
    assert_eq!(sender, public(&all, sealer).to_x25519());
    let shared = SharedBox::between(&secret(&all, recipient), &public(&all, sealer));
    let topic_key = shared.open(text(&vector["nonce_b64"]), &BASE64.encode(boxed));
    let topic_key = topic_key.expect("it opens");
    assert_eq!(HEXLOWER.encode(&topic_key), text(&all["topic_secretbox"]["key_hex"]));
    let again = SharedBox::between(&secret(&all, sealer), &public(&all, recipient));
    assert_eq!(again.seal(&topic_key, nonce(vector)).ciphertext_b64, BASE64.encode(boxed));

    let message = &all["topic_secretbox"];
    let cipher = crypto_secretbox::XSalsa20Poly1305::new_from_slice(&topic_key).expect("32 bytes");
    let boxed = cipher.encrypt(&nonce(message).into(), text(&message["plaintext"]).as_bytes());
    assert_eq!(BASE64.encode(&boxed.expect("sealed")), text(&message["ciphertext_b64"]));
}

#[test]
fn a_request_has_one_fingerprint() {
    let all = vectors();
    for vector in all["request_fingerprint"].as_array().expect("a list") {
        let input = &vector["in"];
        let optional = |field: &str| input.get(field).map(text);
        let to = Destination::restore(text(&input["kind"]), text(&input["ref"]));
        let priority = Priority::parse(optional("prio").unwrap_or("next"));
        let meta = input
            .get("meta")
            .and_then(|meta| canonical_meta(&meta.to_string()).expect("good meta"));
        let got = fingerprint(
            &to.expect("a destination"),
            optional("reply"),
            priority.expect("a priority"),
            meta.as_deref(),
            text(&input["body"]).as_bytes(),
        );
        assert_eq!(got.to_hex(), text(&vector["hex"]), "{input}");
    }
}

/// A vector added to the file must be tested here, or left out by name: `host_fingerprint` is, until
/// the feature is built.
#[test]
fn no_vector_is_forgotten() {
    let all = vectors();
    let mut names: Vec<&str> = all.as_object().expect("an object").keys().map(|k| &**k).collect();
    names.sort_unstable();
    let known = [
        "attestation",
        "canonical_json_quirk",
        "dm_box",
        "hello",
        "host_fingerprint",
        "invite_v1",
        "keys",
        "request_fingerprint",
        "sealed_topic_key",
        "session_hello",
        "topic_secretbox",
        "x25519",
    ];
    assert_eq!(names, known);
}
