//! What a push to many becomes.

use super::*;
use claudemesh_base::message::SecretKey;
use data_encoding::BASE64;
use smol::channel;

fn read(target: &str, ciphertext: String) -> OpenedPush {
    let (us, peer) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
    let push = PushFrame {
        message_id: "b".into(),
        sender_pubkey: peer.public().to_hex(),
        target_spec: Some(target.into()),
        ciphertext,
        ..PushFrame::default()
    };
    let (connection_key, acks) = (us.public(), channel::bounded(1).0);
    let secrets = Arc::from([us]);
    PushOpener::default().read(&InboundPush { push, acks, secrets, connection_key })
}

#[test]
fn bytes_to_many_that_are_no_text_have_no_body_and_text_has_one() {
    for target in ["#ops", "@eng", "@all", "*"] {
        let read = |ciphertext: String| read(target, ciphertext);
        let text = read(BASE64.encode("hola".as_bytes()));
        let stored =
            |undecryptable| ReceiveDecision::Store { undecryptable, encryption: Encryption::None };
        assert_eq!((text.decision, text.body.as_deref()), (stored(false), Some("hola")));
        for bytes in [BASE64.encode(&[0x80, 0xFE]), "no base64!".into(), "aG9sYQ".into()] {
            let none = read(bytes);
            assert_eq!((none.decision, none.body), (stored(true), None));
        }
    }
}
