//! The address grammar: what is a destination, what is none, and what survives the database.

use super::*;
use alloc::string::ToString;

#[test]
fn a_destination_survives_the_database() {
    for to in ["alice", "@eng", "#ops", "*", "@eng/core"] {
        let parsed = Destination::parse(to).expect("a good destination");
        let restored = Destination::restore(parsed.kind().as_str(), &parsed.reference());
        assert_eq!(restored.as_ref(), Some(&parsed), "{to}");
        assert_eq!(parsed.to_text(), to.to_string());
    }
}

#[test]
fn all_is_everyone_and_a_row_that_was_stored_as_a_group_of_that_name_stays_one() {
    assert_eq!(Destination::parse(" @all "), Ok(Destination::Everyone));
    assert_eq!(Destination::parse("@all/core"), Ok(Destination::Group("all/core".into())));
    assert_eq!(Destination::parse("@All"), Ok(Destination::Group("All".into())));
    let earlier = Destination::restore("topic", "all").expect("a group");
    assert_eq!(earlier.to_text(), "@all");
    assert_eq!(Destination::parse(&earlier.to_text()), Ok(Destination::Everyone));
}

#[test]
fn a_public_key_is_lowercased_and_a_name_is_not() {
    let key = "AB".repeat(32);
    assert_eq!(Destination::parse(&key), Ok(Destination::Member(key.to_lowercase())));
    assert_eq!(Destination::parse(" Alice "), Ok(Destination::Member("Alice".into())));
}

#[test]
fn a_destination_nobody_recorded_survives_the_database_and_is_written_as_nothing() {
    let unrecorded = Destination::Unrecorded;
    let restored = Destination::restore(unrecorded.kind().as_str(), &unrecorded.reference());
    assert_eq!(restored, Some(Destination::Unrecorded));
    assert_eq!(unrecorded.to_text(), "");
    assert_eq!(unrecorded.encryption(), Encryption::None);
    assert_eq!(Destination::restore("topic", ""), None);
}

#[test]
fn nothing_is_not_a_destination() {
    for to in ["", "  ", "@", "#", "# "] {
        assert_eq!(Destination::parse(to), Err(DestinationError::Empty), "{to:?}");
    }
    assert_eq!(Destination::parse("@*"), Err(DestinationError::ReservedGroup));
    assert_eq!(Destination::parse("a\u{7}b"), Err(DestinationError::ControlCharacter));
}

#[test]
fn a_frame_is_read_to_the_letter_and_a_caller_is_not() {
    assert_eq!(Destination::parse_exact("@eng "), Ok(Destination::Group("eng ".into())));
    assert_eq!(Destination::parse("@eng "), Ok(Destination::Group("eng".into())));
    assert_eq!(Destination::parse_exact("@*x"), Ok(Destination::Group("*x".into())));
    assert_eq!(Destination::parse_exact(" *"), Ok(Destination::Member(" *".into())));
    let key = "AB".repeat(32);
    assert_eq!(Destination::parse_exact(&key), Ok(Destination::Member(key.to_lowercase())));
    for (spec, error) in [
        ("", DestinationError::Empty),
        ("@", DestinationError::Empty),
        ("#", DestinationError::Empty),
        ("*\t", DestinationError::ControlCharacter),
    ] {
        assert_eq!(Destination::parse_exact(spec), Err(error), "{spec:?}");
    }
    assert_eq!(Destination::parse("*\t"), Ok(Destination::Everyone), "blanks around it go first");
}
