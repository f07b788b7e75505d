//! What the existing daemon hashed, against values computed by another implementation of the
//! formula from the texts named here.

use super::super::{canonical_meta, fingerprint as ours};
use super::*;
use claudemesh_fsm::envelope::Priority;

const KEY: &str = "8A88E3DD7409F195FD52DB2D3CBA5D72CA6709BF1D94121BF3748801B40F6F5C";

fn draft(to: &str, meta: Option<&str>) -> Draft {
    let destination = Destination::parse(to).expect("a good destination");
    let meta = meta.and_then(|meta| canonical_meta(meta).expect("good meta"));
    let payload = "hola, mesh ✔".as_bytes().to_vec();
    let fingerprint = ours(&destination, None, Priority::Next, meta.as_deref(), &payload);
    Draft {
        destination,
        priority: Priority::Next,
        meta,
        reply_to_id: None,
        mentions: Vec::new(),
        payload,
        fingerprint,
    }
}

fn theirs(draft: &Draft, reference_as_written: Option<&str>) -> Option<String> {
    fingerprint(draft, reference_as_written).map(|found| found.to_hex())
}

#[test]
fn a_request_that_both_hash_alike_has_no_second_form() {
    for to in ["bob", "@eng", "*", &KEY.to_lowercase()] {
        assert_eq!(theirs(&draft(to, None), None), None, "{to}");
        assert_eq!(theirs(&draft(to, Some("{}")), None), None, "{to}");
        assert_eq!(theirs(&draft(to, Some(r#"{"b":1,"a":[{"é":"ü\n"}]}"#)), None), None);
    }
}

/// `1␀dm␀#deploys␀␀next␀␀sha256(body)`: they knew no topics.
#[test]
fn a_topic_was_a_direct_message_to_them() {
    let want = "d1eb3c049c474b75a3f9c2c3c65b0b97f96c34a8558ec0ff805c164bec278c46";
    assert_eq!(theirs(&draft("#deploys", None), None).as_deref(), Some(want));
}

/// `1␀dm␀8A88…␀␀next␀␀sha256(body)`: the key as the caller wrote it.
#[test]
fn a_key_kept_its_case() {
    let draft = draft(KEY, None);
    let want = "aa488255a987826a3c032ed336d560c6319028f023df50432c1761bad9075e3c";
    assert_eq!(theirs(&draft, Some(KEY)).as_deref(), Some(want));
    assert_eq!(
        draft.fingerprint.to_hex(),
        "a0b4fe866a330bdbcc7a76b83ea60baff72c9e93b7658e44b8fdce809a25f59a"
    );
}

/// `1␀topic␀all␀␀next␀␀sha256(body)`: `@all` was a group like any other.
#[test]
fn everyone_was_a_group_where_a_caller_wrote_it_as_one() {
    let mut group = draft("@eng", None);
    group.destination = Destination::Group("all".into());
    let stored = super::super::fingerprint_of(&group).to_hex();
    assert_eq!(theirs(&draft("@all", None), Some("all")), Some(stored));
}

#[test]
fn an_earlier_version_hashed_everyone_as_a_group_with_canonical_meta() {
    let meta = Some(r#"{"10":1,"9":2}"#);
    let mut group = draft("@eng", meta);
    group.destination = Destination::Group("all".into());
    let stored = super::super::fingerprint_of(&group);
    let everyone = draft("@all", meta);
    assert_ne!(fingerprint(&everyone, Some("all")), Some(stored));
    assert_eq!(fingerprint_of_reference(&everyone, "all"), stored);
}

/// `canonical_json_quirk` of `specs/vectors.json`, and its hash as `meta` of a message to `bob`.
#[test]
fn keys_that_are_numbers_came_first_and_by_number() {
    let quirk = r#"{"9":2,"10":1,"a":4,"b":3}"#;
    let sorted = canonical_meta(quirk).expect("good meta").expect("an object");
    assert_eq!(sorted, r#"{"10":1,"9":2,"a":4,"b":3}"#);
    assert_eq!(in_their_order(&sorted).as_deref(), Some(quirk));
    let want = "d0f9c0f24654505dfd0651b02bc70e908a0ec74295041ec752fcd88894852763";
    assert_eq!(theirs(&draft("bob", Some(quirk)), None).as_deref(), Some(want));
}

/// `1␀dm␀#deploys␀m1␀now␀{"2":{"1":[{"7":0,"07":0}]},"a":1}␀sha256(body)`.
#[test]
fn every_difference_counts_at_any_depth() {
    let mut draft = draft("#deploys", Some(r#"{"a":1,"2":{"1":[{"07":0,"7":0}]}}"#));
    draft.reply_to_id = Some("m1".into());
    draft.priority = Priority::Now;
    let want = "face9d8df9c2b46f165e4297f18ed3892ae27ea17847971544ed09a75b48ccd5";
    assert_eq!(theirs(&draft, None).as_deref(), Some(want));
}

#[test]
fn only_a_number_as_javascript_writes_it_is_an_index() {
    for (key, number) in [
        ("0", Some(0)),
        ("10", Some(10)),
        ("4294967294", Some(4_294_967_294)),
        ("4294967295", None),
        ("01", None),
        ("+1", None),
        ("-1", None),
        ("1.0", None),
        ("", None),
    ] {
        assert_eq!(index(key), number, "{key}");
    }
}

/// Why a row is compared with both forms whoever accepted it.
#[test]
fn no_request_has_the_form_of_another() {
    let capitals = KEY.to_owned();
    let lower = KEY.to_lowercase();
    let tos = ["bob", "Bob", "#deploys", "deploys", "@deploys", "*", &capitals, &lower];
    let metas = [
        None,
        Some("{}"),
        Some(r#"{"10":1,"9":2}"#),
        Some(r#"{"10":2,"9":1}"#),
        Some(r#"{"a":{"10":1,"9":2}}"#),
    ];
    let requests: Vec<(&str, Draft)> =
        tos.iter().flat_map(|to| metas.iter().map(|meta| (*to, draft(to, *meta)))).collect();
    for (to, asked) in &requests {
        let reference_as_written = (*to == capitals).then_some(*to);
        let theirs = fingerprint(asked, reference_as_written);
        for (other, stored) in &requests {
            let is_same = stored.fingerprint == asked.fingerprint;
            let other_as_written = (*other == capitals).then_some(*other);
            let stored_by_them = fingerprint(stored, other_as_written);
            if !is_same {
                assert_ne!(theirs, Some(stored.fingerprint), "{to} {other} {:?}", asked.meta);
                let both = theirs.unwrap_or(asked.fingerprint);
                assert_ne!(Some(both), stored_by_them, "{to} {other} {:?}", asked.meta);
            }
        }
    }
}
