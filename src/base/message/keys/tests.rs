//! Keys as text, and what is no key.

use super::*;

#[test]
fn a_key_pair_survives_hex_in_any_case() {
    let key = SecretKey::from_seed([7; 32]);
    let hex = key.to_hex();
    let again = SecretKey::parse(&hex.to_uppercase()).expect("our own key");
    assert_eq!(again.public(), key.public());
    assert_eq!(PublicKey::parse(&key.public().to_hex().to_uppercase()), Ok(key.public()));
}

#[test]
fn halves_that_do_not_belong_together_are_refused() {
    let one = SecretKey::from_seed([1; 32]).to_hex();
    let other = SecretKey::from_seed([2; 32]).to_hex();
    let mixed = format!("{}{}", &one[..64], &other[64..]);
    assert_eq!(SecretKey::parse(&mixed).err(), Some(KeyError::HalvesDiffer));
    assert_eq!(SecretKey::parse("00").err(), Some(KeyError::NotHex { digits: 128 }));
}

#[test]
fn a_weak_key_is_refused() {
    let mut identity = [0; 32];
    identity[0] = 1;
    assert_eq!(PublicKey::from_bytes(&identity), Err(KeyError::Weak));
    assert_eq!(PublicKey::from_bytes(&[0; 32]), Err(KeyError::Weak));
    assert_eq!(PublicKey::parse(&"zz".repeat(32)), Err(KeyError::NotHex { digits: 64 }));
    // Two characters of three bytes each: no slice of it may be taken blindly.
    assert!(PublicKey::parse(&"€".repeat(21)).is_err());
}

#[test]
fn a_secret_never_prints() {
    let key = SecretKey::from_seed([7; 32]);
    assert!(!format!("{key:?}").contains(&key.to_hex()[..64]));
}

#[test]
fn a_signature_covers_every_byte() {
    let key = SecretKey::from_seed([7; 32]);
    let signature = key.sign("a|b");
    assert!(key.public().verify("a|b", &signature));
    assert!(!key.public().verify("a|c", &signature));
    assert!(!key.public().verify("a|b", &signature[1..]));
    assert!(!SecretKey::from_seed([8; 32]).public().verify("a|b", &signature));
}
