//! What an identifier may look like.

use super::*;

#[test]
fn an_id_is_trimmed_and_checked() {
    assert_eq!(ClientMessageId::parse(" a-1 ").map(ClientMessageId::into_string), Ok("a-1".into()));
    assert_eq!(ClientMessageId::parse("  "), Err(IdError::Empty));
    assert_eq!(ClientMessageId::parse("a b"), Err(IdError::BadCharacter));
    assert_eq!(ClientMessageId::parse("é"), Err(IdError::BadCharacter));
    assert_eq!(ClientMessageId::parse(".."), Err(IdError::DotSegment));
    let longest = "x".repeat(CLIENT_MESSAGE_ID_BYTES_MAX);
    assert!(ClientMessageId::parse(&longest).is_ok());
    assert_eq!(ClientMessageId::parse(&(longest + "x")), Err(IdError::TooLong));
}

#[test]
fn a_fingerprint_survives_hex() {
    let fingerprint = Fingerprint::new(core::array::from_fn(|i| i as u8 * 7));
    assert_eq!(Fingerprint::from_hex(&fingerprint.to_hex()), Some(fingerprint));
    assert_eq!(fingerprint.prefix(), "00070e151c232a31");
    assert_eq!(Fingerprint::from_hex("zz"), None);
}

#[test]
fn time_saturates_instead_of_wrapping() {
    assert_eq!(Millis(i64::MAX).plus(5), Millis(i64::MAX));
    assert_eq!(Millis(5).since(Millis(9)), 0);
    assert_eq!(Millis(9).since(Millis(5)), 4);
}
