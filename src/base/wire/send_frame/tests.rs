//! What a frame weighs, and what it never says in clear.

use super::*;
use crate::message::SecretKey;
use crate::wire::ClientFrame;
use claudemesh_fsm::envelope::{Destination, Draft, Priority, Recipient};
use claudemesh_fsm::id::Fingerprint;

fn envelope(to: &str, payload: &str, meta: Option<&str>, reply: Option<&str>) -> Envelope {
    let destination = Destination::parse(to).expect("a destination");
    let key = SecretKey::from_seed([2; 32]).public().to_hex();
    let recipient = Recipient { routing_key: key.clone(), member_key: key };
    let draft = Draft {
        destination,
        priority: Priority::Next,
        meta: meta.map(str::to_owned),
        reply_to_id: reply.map(str::to_owned),
        mentions: vec!["ann".into()],
        payload: payload.into(),
        fingerprint: Fingerprint::new([7; 32]),
    };
    draft.address("demo", |_| Ok::<_, ()>(recipient)).expect("an envelope")
}

#[test]
fn the_predicted_weight_is_the_real_one() {
    let shared =
        SharedBox::between(&SecretKey::from_seed([1; 32]), &SecretKey::from_seed([2; 32]).public());
    let id = ClientMessageId::parse("id\"-1").expect("an id");
    for to in ["bob", "#ops", "*"] {
        for payload in ["x", "xy", "xyz", "hola, mesh ✔"] {
            for (meta, reply) in
                [(None, None), (Some("{\"a\":1}"), None), (Some("{\"a\":12}"), Some("m1"))]
            {
                let envelope = envelope(to, payload, meta, reply);
                let sealed_for = envelope.destination.is_direct().then_some(&shared);
                let nonces = [[1; 24], [2; 24]];
                let send = encode(&envelope, &id, envelope.target_spec(), sealed_for, nonces);
                let frame = to_text(&ClientFrame::Send(Box::new(send)));
                assert_eq!(frame.len(), encoded_frame_bytes(&envelope, &id), "{frame}");
                assert!(!certainly_fits(&envelope, &id, frame.len() - 1), "{frame}");
            }
        }
    }
}

#[test]
fn what_is_direct_says_nothing_in_clear() {
    let shared =
        SharedBox::between(&SecretKey::from_seed([1; 32]), &SecretKey::from_seed([2; 32]).public());
    let id = ClientMessageId::parse("id-1").expect("an id");
    let envelope = envelope("bob", "the secret", Some("{\"k\":\"hidden\"}"), Some("hidden-id"));
    let send = encode(&envelope, &id, envelope.target_spec(), Some(&shared), [[1; 24], [2; 24]]);
    let frame = to_text(&send);
    for secret in ["secret", "hidden", "dGhlIHNlY3JldA"] {
        assert!(!frame.contains(secret), "{frame}");
    }
}
