//! What makes a connection worth coming back to at once (§15.5), in a time that runs faster.

use super::rig::{Peer, Rig, rig_in_time};
use claudemesh_base::runtime::testing::fast;
use claudemesh_base::wire::ClientAck;
use serde_json::json;
use std::time::Duration;

/// Not more: what a busy machine loses between two steps counts as many times.
const SPEED: u32 = 3;

/// Closes, and says how long the link waits before it dials again.
async fn wait_after(rig: &Rig, mut peer: Peer) -> (Duration, Peer) {
    peer.close(1001, "").await;
    rig.waiting().await;
    let since = rig.runtime.monotonic();
    let peer = rig.open().await;
    rig.opened().await;
    ((rig.runtime.monotonic() - since) * SPEED, peer)
}

#[test]
fn only_what_was_taken_or_stored_starts_the_back_off_over() {
    let config = Rig::config(|config| config.timers.cap_ms = 60_000);
    let fast = |real| fast(real, SPEED);
    rig_in_time(config, "ws://127.0.0.1:PORT/ws", fast, |rig| async move {
        let mut peer = rig.open().await;
        rig.opened().await;
        for doubled_ms in [1000, 2000, 4000] {
            // News is no message, and what nobody stored comes again.
            peer.push_system("peer_joined", json!({"pubkey": "bb"})).await;
            peer.push("again").await;
            rig.inbound.recv().await.expect("the news");
            rig.inbound.recv().await.expect("the push");
            let (waited, next) = wait_after(&rig, peer).await;
            assert!(waited.as_millis() >= doubled_ms * 9 / 10, "{waited:?} of {doubled_ms} ms");
            peer = next;
        }
        peer.push("stored").await;
        let inbound = rig.inbound.recv().await.expect("the push");
        inbound.acks.try_send(ClientAck::default()).expect("room");
        peer.recv_type("client_ack").await;
        let (waited, _) = wait_after(&rig, peer).await;
        assert!(waited < Duration::from_secs(7), "{waited:?} and not eight seconds");
    });
}
