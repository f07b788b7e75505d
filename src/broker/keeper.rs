//! What happens by itself: leases that end, presences that fade, and the nightly expiry (§17.1).
//! One task, one timer, armed to the next deadline; while nothing is leased it sleeps till night.

use super::Broker;
use super::ledger::Retention;
use super::route::Identity;
use super::send::system_event;
use futures_lite::future::or;
use serde_json::json;
use smol::channel::Receiver;
use std::sync::Arc;
use std::time::Duration;

/// From the start to the first expiry: late enough not to slow the start.
const FIRST_EXPIRY_AFTER: Duration = Duration::from_secs(5 * 60);
/// Between expiries.
const EXPIRY_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
const MS_PER_DAY: u64 = 24 * 60 * 60 * 1000;

/// Keeps the broker in order until it is dropped. `rings` says when there is a new first deadline.
pub(crate) async fn keep(broker: Arc<Broker>, rings: Receiver<()>) {
    let clock = &broker.clock;
    let mut expiry_at = clock.monotonic() + FIRST_EXPIRY_AFTER;
    loop {
        let next = broker.hub.next_deadline().map_or(expiry_at, |at| at.min(expiry_at));
        let rung = async {
            // The hub lives as long as this task, so the channel stays open.
            let _ = rings.recv().await;
        };
        or(clock.sleep_until(next), rung).await;
        let now = clock.monotonic();
        broker.hub.expire_leases(now);
        announce_departures(&broker, broker.hub.exorcise(now)).await;
        if now >= expiry_at {
            expiry_at = now + EXPIRY_EVERY;
            expire(&broker).await;
        }
    }
}

/// Tells the others who went of its own accord. Who is hidden has not come for them and does not
/// leave; who was removed or banned has been announced; and who is back has never left.
pub(crate) async fn announce_departures(broker: &Broker, left: Vec<Identity>) {
    for gone in left {
        match broker.ledger.member(&gone.mesh_id, &gone.member_pubkey).await {
            Ok(Some(member)) if member.visible && member.is_in() => {
                if !broker.hub.is_connected(&gone) {
                    announce_left(broker, vec![gone]);
                }
            }
            Ok(_) => {}
            Err(error) => broker.ledger_failed(&error),
        }
    }
}

/// Tells the others in their meshes who is no longer there.
pub(crate) fn announce_left(broker: &Broker, left: Vec<Identity>) {
    for gone in left {
        let data = json!({"name": gone.name, "pubkey": gone.routing_key});
        let (id, at) = (broker.clock.mint_id(), broker.clock.now());
        let event = system_event(id, &gone.mesh_id, "peer_left", data, at);
        broker.hub.broadcast(&gone.mesh_id, &event, |other| other.member != gone.member);
    }
}

/// Forgets what is past its time, and proves that the rest agrees. A session key that is connected
/// is in use, however long ago it said hello.
pub(crate) async fn expire(broker: &Broker) {
    let days = u64::from(broker.settings.undelivered_days);
    let keep = Retention { message_ms: days * MS_PER_DAY };
    let now = broker.clock.now();
    if let Err(error) = broker.ledger.touch_session_keys(broker.hub.session_keys(), now).await {
        // Expiring without it would forget keys that are in use.
        tracing::error!(%error, "the nightly expiry was put off");
        return;
    }
    match broker.ledger.expire(now, keep).await {
        Ok(expired) => tracing::info!(
            messages = expired.messages,
            undelivered = expired.undelivered,
            dedupe = expired.dedupe,
            "expired what was past its time"
        ),
        Err(error) => tracing::error!(%error, "the nightly expiry failed"),
    }
    if let Err(error) = broker.check().await {
        tracing::error!(%error, "the orphan check failed");
    }
}
