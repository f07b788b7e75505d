//! Every kind of push, and what becomes of it.

use super::*;
use DestinationKind::{Dm, Topic};

const US: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const SIBLING: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const PEER: &str = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

const SEALED: ReceiveDecision =
    ReceiveDecision::Store { undecryptable: false, encryption: Encryption::Direct };
const CLOSED: ReceiveDecision =
    ReceiveDecision::Store { undecryptable: true, encryption: Encryption::Direct };
const PLAIN: ReceiveDecision =
    ReceiveDecision::Store { undecryptable: false, encryption: Encryption::None };
const NO_TEXT: ReceiveDecision =
    ReceiveDecision::Store { undecryptable: true, encryption: Encryption::None };

fn drained() -> PushFacts<'static> {
    PushFacts {
        subtype: None,
        target: None,
        has_topic: false,
        sender_key: PEER,
        has_sender_member_key: false,
        connection_key: US,
        own_keys: &[US, SIBLING],
        opened: Opened::NotForUs,
        plain_is_text: true,
    }
}

#[test]
fn a_broker_that_says_the_kind_is_believed() {
    for (target, opened, plain_is_text, expected) in [
        (Dm, Opened::Text, false, SEALED),
        (Dm, Opened::Text, true, SEALED),
        (Dm, Opened::NotForUs, false, CLOSED),
        (Dm, Opened::NotForUs, true, CLOSED),
        (Dm, Opened::NotText, true, ReceiveDecision::Malformed("the box holds no UTF-8 text")),
        (Topic, Opened::NotForUs, true, PLAIN),
        (Topic, Opened::Text, true, PLAIN),
    ] {
        // What else the push names makes no difference.
        for (has_topic, has_sender_member_key) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            let push = PushFacts { target: Some(target), opened, plain_is_text, ..drained() };
            let push = PushFacts { has_topic, has_sender_member_key, ..push };
            assert_eq!(decide(&push), expected, "{push:?}");
        }
    }
}

#[test]
fn what_went_to_many_and_is_no_text_is_stored_without_a_body() {
    // That a box of ours happens to open changes nothing: it was not sent as one.
    for opened in [Opened::Text, Opened::NotText, Opened::NotForUs] {
        let target = Some(Topic);
        let push = PushFacts { target, opened, plain_is_text: false, ..drained() };
        assert_eq!(decide(&push), NO_TEXT, "{push:?}");
    }
}

#[test]
fn without_a_kind_a_direct_message_never_becomes_text_by_decoding() {
    for (has_sender_member_key, opened, plain_is_text, expected) in [
        (false, Opened::Text, true, SEALED),
        (false, Opened::NotForUs, true, CLOSED),
        (false, Opened::NotForUs, false, CLOSED),
        (true, Opened::Text, true, SEALED),
        (true, Opened::NotForUs, true, PLAIN),
        (true, Opened::NotForUs, false, CLOSED),
        (false, Opened::NotText, true, ReceiveDecision::Malformed("the box holds no UTF-8 text")),
    ] {
        let push = PushFacts { has_sender_member_key, opened, plain_is_text, ..drained() };
        assert_eq!(decide(&push), expected, "{push:?}");
    }
}

#[test]
fn a_named_topic_is_multicast_even_without_a_kind() {
    let push = PushFacts { has_topic: true, ..drained() };
    assert_eq!(decide(&push), PLAIN);
    let push = PushFacts { plain_is_text: false, ..push };
    assert_eq!(decide(&push), NO_TEXT);
}

#[test]
fn our_own_echo_is_dropped_and_acknowledged_only_where_that_deletes_nobodys_copy() {
    let (kept, gone) = (ReceiveDecision::Own { ack: false }, ReceiveDecision::Own { ack: true });
    for (sender_key, target, opened, expected) in [
        // Today's network: one row for all readers of a topic.
        (US, None, Opened::NotForUs, kept),
        (US, None, Opened::Text, kept),
        (SIBLING, None, Opened::NotForUs, kept),
        // One connection of ours writing to another.
        (SIBLING, None, Opened::Text, SEALED),
        // A broker that keeps a copy per reader.
        (US, Some(Topic), Opened::NotForUs, gone),
        (SIBLING, Some(Topic), Opened::NotForUs, gone),
        (US, Some(Dm), Opened::NotForUs, gone),
        (US, Some(Dm), Opened::Text, SEALED),
        (SIBLING, Some(Dm), Opened::Text, SEALED),
    ] {
        let push = PushFacts { sender_key, target, opened, ..drained() };
        assert_eq!(decide(&push), expected, "{push:?}");
    }
    let push = PushFacts { sender_key: US, has_topic: true, ..drained() };
    assert_eq!(decide(&push), kept);
    let shouted = US.to_ascii_uppercase();
    let push = PushFacts { sender_key: &shouted, ..drained() };
    assert_eq!(decide(&push), kept);
}

#[test]
fn an_event_is_no_message_and_a_sender_without_a_key_is_nobody() {
    for (subtype, sender_key) in [("system", "system"), ("webhook", "webhook:ci")] {
        let push = PushFacts { subtype: Some(subtype), sender_key, ..drained() };
        assert_eq!(decide(&push), ReceiveDecision::System);
    }
    for sender_key in ["", "system", "webhook:ci", &PEER[1..]] {
        let push = PushFacts { sender_key, ..drained() };
        assert_eq!(decide(&push), ReceiveDecision::Malformed("senderPubkey is not a public key"));
    }
    let reminder = PushFacts { subtype: Some("reminder"), has_topic: true, ..drained() };
    assert_eq!(decide(&reminder), PLAIN);
}

#[test]
fn everything_that_would_come_back_is_acknowledged() {
    for stored in [SEALED, CLOSED, PLAIN, NO_TEXT, ReceiveDecision::Malformed("why")] {
        assert!(stored.ack());
    }
    assert!(!ReceiveDecision::System.ack());
    assert!(ReceiveDecision::Own { ack: true }.ack() && !ReceiveDecision::Own { ack: false }.ack());
}
