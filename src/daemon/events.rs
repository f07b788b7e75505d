//! The bus on which the daemon tells local listeners what happened (§3.5). It carries what the rooms
//! know as they know it; how an event looks as JSON is the API's business.
//!
//! Publishing never waits: a listener that falls behind its bounded buffer is told that it lagged,
//! and reads what it missed from the store. The store is the truth; an event may be lost.

use crate::port::LinkView;
use crate::store::inbox::StoredMessage;
use crate::store::outbox::{Moved, ReceiptUpdate};
use crate::store::quota::LevelChange;
use claudemesh_fsm::id::Millis;
use serde_json::{Map, Value};
use smol::channel::{Receiver, Sender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// How many events a listener may have unread before it lags.
pub(crate) const BUFFER_MAX: usize = 1024;

/// Something that happened.
#[derive(Debug)]
pub struct Event {
    /// When it was published.
    pub at: Millis,
    /// What happened.
    pub content: EventContent,
}

/// What can happen.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "most events are messages")]
pub enum EventContent {
    /// A message was stored in the inbox.
    Message(StoredMessage),
    /// A broker told something that is no message.
    System {
        /// The broker's mesh.
        mesh: String,
        /// The broker's word for it.
        event: String,
        /// What the broker added.
        data: Map<String, Value>,
    },
    /// The link of a mesh changed.
    Link {
        /// The mesh.
        mesh: String,
        /// What the link is now.
        view: LinkView,
    },
    /// An outbox row changed its status.
    Moved(Moved),
    /// The broker told what became of a message.
    Receipt {
        /// The broker's mesh.
        mesh: String,
        /// What is known now.
        update: ReceiptUpdate,
    },
    /// A store fills up, or has room again.
    Storage(LevelChange),
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
    /// Tells every listener what `event` makes. When nobody listens, it is not even made.
    pub fn publish(&self, event: impl FnOnce() -> Event) {
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
        let (mesh, event, data) = ("demo".to_owned(), n.to_string(), Map::new());
        Event { at: Millis(0), content: EventContent::System { mesh, event, data } }
    }

    fn name(event: &Event) -> Option<&str> {
        match &event.content {
            EventContent::System { event, .. } => Some(event),
            _ => None,
        }
    }

    #[test]
    fn a_listener_that_falls_behind_is_told_and_slows_nobody() {
        let bus = EventBus::default();
        let (slow, quick) = (bus.subscribe(), bus.subscribe());
        for n in 0..=BUFFER_MAX {
            bus.publish(|| event(n));
            assert!(smol::block_on(quick.next()).is_some());
        }
        assert!(slow.take_lagged());
        assert!(!slow.take_lagged());
        assert!(!quick.take_lagged());
        let first = smol::block_on(slow.next()).expect("buffered");
        assert_eq!(name(&first), Some("0"));
    }

    #[test]
    fn nothing_is_made_for_nobody_and_a_dropped_listener_is_forgotten() {
        let bus = EventBus::default();
        bus.publish(|| unreachable!("nobody listens"));
        drop(bus.subscribe());
        bus.publish(|| event(0));
        assert!(bus.listeners.lock().expect("not poisoned").is_empty());
    }
}
