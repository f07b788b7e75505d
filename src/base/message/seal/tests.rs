//! Boxes that open, and boxes that do not.

use super::*;

fn pair() -> (SecretKey, SecretKey) {
    (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]))
}

#[test]
fn only_the_recipient_opens_a_box_and_only_untouched() {
    let (alice, bob) = pair();
    let eve = SecretKey::from_seed([5; 32]);
    let sealed = seal(b"hola", &alice, &bob.public(), [9; NONCE_BYTES]);
    let EncodedPayload { nonce_b64, ciphertext_b64 } = &sealed;
    assert_eq!(ciphertext_b64.len(), sealed_b64_bytes(4));
    assert_eq!(open(nonce_b64, ciphertext_b64, &bob, &alice.public()), Some(b"hola".into()));
    assert_eq!(open(nonce_b64, ciphertext_b64, &eve, &alice.public()), None);
    assert_eq!(open(nonce_b64, ciphertext_b64, &bob, &eve.public()), None);
    let mut bytes = BASE64.decode(ciphertext_b64.as_bytes()).expect("our own base64");
    bytes[3] ^= 1;
    assert_eq!(open(nonce_b64, &BASE64.encode(&bytes), &bob, &alice.public()), None);
    assert_eq!(open("AAAA", ciphertext_b64, &bob, &alice.public()), None);
    assert_eq!(open(nonce_b64, "", &bob, &alice.public()), None);
}

#[test]
fn a_key_as_text_gives_the_same_box_every_time_and_no_key_gives_none() {
    let (alice, bob) = pair();
    let boxes = SharedBoxes::default();
    let text = bob.public().to_hex();
    let first = boxes.between_text(&alice, &text).expect("is a key");
    let again = boxes.between_text(&alice, &text).expect("is a key");
    assert!(Arc::ptr_eq(&first, &again));
    assert!(Arc::ptr_eq(&first, &boxes.between(&alice, &bob.public())));
    for _ in 0..2 {
        assert!(boxes.between_text(&alice, &"0".repeat(64)).is_err());
        assert!(boxes.between_text(&alice, "bob").is_err());
    }
}

#[test]
fn base64_without_padding_or_of_the_url_alphabet_is_refused() {
    assert_eq!(open_plain("aG9sYQ=="), Some("hola".into()));
    for bad in ["aG9sYQ", "aG9sYQ=", "aG9s YQ==", "_-8=", "aG9sYR=="] {
        assert_eq!(open_plain(bad), None, "{bad}");
    }
    assert_eq!(open_plain(&BASE64.encode(&[0xFF, 0xFE])), None, "bytes are not text");
}

#[test]
fn the_second_box_carries_meta_and_reply() {
    let (alice, bob) = pair();
    let extension =
        Extension { meta: Some(r#"{"a":1,"b":"\"é"}"#.into()), reply_to_id: Some("m\"1".into()) };
    let sealed =
        SharedBox::between(&alice, &bob.public()).seal_extension(&extension, [8; NONCE_BYTES]);
    let theirs = SharedBox::between(&bob, &alice.public());
    let opened = theirs.open_extension(&sealed.nonce_b64, &sealed.ciphertext_b64);
    assert_eq!(opened, Ok(extension));
    let wrong = theirs.open_extension(&sealed.nonce_b64, "AAAA");
    assert_eq!(wrong, Err(ExtensionError::Unopened));
    assert!(Extension::default().is_empty());
    assert_eq!(Extension::parse(br#"{"v":1,"later":[]}"#), Ok(Extension::default()));
}

#[test]
fn a_hostile_second_box_is_refused_not_believed() {
    for (json, want) in [
        (r#"{"v":2}"#, ExtensionError::UnknownVersion),
        (r#"null"#, ExtensionError::UnknownVersion),
        (r#"{"v":1,"meta":[]}"#, ExtensionError::BadField("meta")),
        (r#"{"v":1,"reply_to_id":7}"#, ExtensionError::BadField("reply_to_id")),
    ] {
        assert_eq!(Extension::parse(json.as_bytes()), Err(want), "{json}");
    }
    for json in [&b"\xFF"[..], b"{", br#"{"v":1,"v":1}"#] {
        let refused = Extension::parse(json);
        assert!(matches!(refused, Err(ExtensionError::Malformed(_))), "{refused:?}");
    }
}
