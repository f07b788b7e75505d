//! The bus on which the daemon tells local listeners what happened (§3.5).
//!
//! Publishing never waits: a listener that falls behind its bounded buffer is told that it lagged,
//! and reads what it missed from the store. The store is the truth; an event may be lost.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use smol::channel::{Receiver, Sender, TrySendError};

/// How many events a listener may have unread before it lags.
pub const BUFFER_MAX: usize = 1024;

/// The kinds of event, as `event:` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the event of the same name in specs/ipc.md")]
pub enum EventKind {
    Message,
    PeerJoin,
    PeerLeave,
    BrokerStatus,
    System,
    Outbox,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Message,
        Self::PeerJoin,
        Self::PeerLeave,
        Self::BrokerStatus,
        Self::System,
        Self::Outbox,
    ];

    /// The word after `event:`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::PeerJoin => "peer_join",
            Self::PeerLeave => "peer_leave",
            Self::BrokerStatus => "broker_status",
            Self::System => "system",
            Self::Outbox => "outbox",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What kind.
    pub kind: EventKind,
    /// The place in the inbox, of a message; no other event has one.
    pub seq: Option<i64>,
    /// JSON on one line.
    pub data: String,
}

/// The bus. Cheap to clone.
#[derive(Clone, Default)]
pub struct EventBus {
    listeners: Arc<Mutex<Vec<Weak<Listener>>>>,
}

struct Listener {
    events: Sender<Arc<Event>>,
    lagged: Mutex<bool>,
}

/// One listener's end. Dropping it ends the subscription.
pub struct Subscription {
    listener: Arc<Listener>,
    events: Receiver<Arc<Event>>,
}

impl EventBus {
    /// Tells every listener.
    pub fn publish(&self, event: Event) {
        self.publish_with(|| event);
    }

    /// Tells every listener what `event` makes; it is not even made when nobody listens.
    pub fn publish_with(&self, event: impl FnOnce() -> Event) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.is_empty() {
            return;
        }
        let event = Arc::new(event());
        listeners.retain(|listener| {
            let Some(listener) = listener.upgrade() else { return false };
            if let Err(TrySendError::Full(_)) = listener.events.try_send(event.clone()) {
                *listener.lagged.lock().unwrap_or_else(PoisonError::into_inner) = true;
            }
            true
        });
    }

    /// Starts to listen: every event published from now on is received, or counted as missed.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        let (sender, events) = smol::channel::bounded(BUFFER_MAX);
        let listener = Arc::new(Listener { events: sender, lagged: Mutex::new(false) });
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.push(Arc::downgrade(&listener));
        Subscription { listener, events }
    }
}

impl Subscription {
    /// The next event.
    pub async fn next(&self) -> Option<Arc<Event>> {
        self.events.recv().await.ok()
    }

    /// Whether events were missed since this was last asked.
    #[must_use]
    pub fn take_lagged(&self) -> bool {
        std::mem::take(&mut *self.listener.lagged.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: usize) -> Event {
        Event { kind: EventKind::System, seq: None, data: n.to_string() }
    }

    #[test]
    fn a_listener_that_falls_behind_is_told_and_slows_nobody() {
        let bus = EventBus::default();
        let (slow, quick) = (bus.subscribe(), bus.subscribe());
        for n in 0..=BUFFER_MAX {
            bus.publish(event(n));
            assert!(smol::block_on(quick.next()).is_some());
        }
        assert!(slow.take_lagged());
        assert!(!slow.take_lagged());
        assert!(!quick.take_lagged());
        assert_eq!(smol::block_on(slow.next()).map(|e| e.data.clone()), Some("0".into()));
    }

    #[test]
    fn a_dropped_listener_is_forgotten() {
        let bus = EventBus::default();
        drop(bus.subscribe());
        bus.publish(event(0));
        assert!(bus.listeners.lock().expect("not poisoned").is_empty());
    }
}
