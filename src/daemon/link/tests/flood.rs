//! Brokers that never stop talking: whoever shares the executor has a turn all the same, and no
//! deadline is missed. Each floods from a thread of its own, because one that waited for its turn
//! here would be no flood.

use super::rig::{Rig, hello_ack, negotiated, rig_at};
use async_tungstenite::tungstenite::{self, Message};
use claudemesh_fsm::link::LinkState;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// A flood ends at last, so that a link that drowns in it fails its test and does not hang. It is
/// measured in bytes and not in time: a link takes only so much between two turns of the others, on
/// a slow machine as on a fast one.
const FLOOD_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How much is written at once, in bytes.
const WAVE_BYTES: usize = 64 * 1024;

struct Flood {
    url: String,
    is_over: Arc<AtomicBool>,
}

impl Flood {
    /// Floods the first connection with `first` and then `drop` again and again; where it `opens`,
    /// after the negotiation.
    fn start(opens: bool, first: &[u8], drop: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("ws://{}/ws", listener.local_addr().expect("address"));
        let is_over = Arc::new(AtomicBool::new(false));
        let (ends, first) = (is_over.clone(), first.to_vec());
        let wave = drop.repeat(WAVE_BYTES / drop.len());
        thread::spawn(move || {
            let mut stream = connection(&listener, opens);
            stream.write_all(&first).expect("sent");
            for _ in 0..FLOOD_BYTES_MAX / WAVE_BYTES {
                if stream.write_all(&wave).is_err() {
                    return;
                }
            }
            ends.store(true, Ordering::SeqCst);
        });
        Self { url, is_over }
    }

    fn assert_goes_on(&self) {
        assert!(
            !self.is_over.load(Ordering::SeqCst),
            "nobody had a turn before the flood was over"
        );
    }
}

fn connection(listener: &TcpListener, opens: bool) -> TcpStream {
    let (stream, _) = listener.accept().expect("a connection");
    let mut socket = tungstenite::accept(stream).expect("a WebSocket");
    if opens {
        for answer in [hello_ack(), negotiated()] {
            socket.read().expect("a frame");
            socket.send(Message::text(answer.to_string())).expect("sent");
        }
    }
    socket.get_ref().try_clone().expect("the socket")
}

fn frame(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 126).expect("short");
    [&[0x81, length], text.as_bytes()].concat()
}

/// Others have their turns, and a link that is told to stop does.
fn does_not_drown(first: &[u8], drop: &[u8]) {
    let flood = Flood::start(true, first, drop);
    rig_at(Rig::config(|_| ()), &flood.url, |mut rig| {
        let flood = &flood;
        async move {
            let (_, transport) = rig.opened().await;
            for _ in 0..5 {
                rig.runtime.sleep(Duration::from_millis(5)).await;
            }
            flood.assert_goes_on();
            rig.stop();
            transport.closed().await;
            rig.ended().await;
            flood.assert_goes_on();
        }
    });
}

#[test]
fn a_flood_of_frames_that_nobody_asked_for_keeps_nobody_from_working() {
    does_not_drown(&[], &frame(r#"{"type":"error","code":"x"}"#));
}

#[test]
fn a_message_that_never_ends_keeps_nobody_from_working() {
    let (empty_text, empty_continuation) = ([0x01, 0], [0, 0]);
    does_not_drown(&empty_text, &empty_continuation);
}

#[test]
fn a_flood_does_not_put_off_the_deadline_of_the_hello() {
    let flood = Flood::start(false, &[], &frame(r#"{"type":"peers_list","peers":[]}"#));
    let impatient = Rig::config(|config| {
        config.timers.hello_max = Duration::from_millis(200);
        config.timers.cap_ms = 60_000;
    });
    rig_at(impatient, &flood.url, |rig| {
        let flood = &flood;
        async move {
            let reason = rig.down(LinkState::Waiting).await.reason.expect("reason");
            assert!(reason.contains("not answered in time"), "{reason}");
            flood.assert_goes_on();
        }
    });
}
