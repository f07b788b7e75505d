//! One signal, fired once, seen by everyone who holds a clone. It carries no reason.

use smol::channel::{self, Receiver, Sender};
use std::convert::Infallible;

/// The end that waits. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown(Receiver<Infallible>);

/// The end that fires, when told to or when dropped.
#[derive(Debug)]
pub struct Trigger(Sender<Infallible>);

impl Shutdown {
    /// A signal that has not fired.
    #[must_use]
    #[allow(clippy::new_ret_no_self, reason = "the two ends only exist together")]
    pub fn new() -> (Trigger, Self) {
        // Nothing is ever sent: closing the channel is the signal.
        let (sender, receiver) = channel::bounded(1);
        (Trigger(sender), Self(receiver))
    }

    /// Completes once the signal has fired, however late it is asked.
    pub async fn wait(&self) {
        let _ = self.0.recv().await;
    }

    /// Whether the signal has fired.
    #[must_use]
    pub fn has_fired(&self) -> bool {
        self.0.is_closed()
    }
}

impl Trigger {
    /// Fires the signal; doing so again changes nothing.
    pub fn fire(&self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clone_sees_the_signal_early_or_late() {
        let (trigger, shutdown) = Shutdown::new();
        let early = shutdown.clone();
        assert!(!shutdown.has_fired());
        trigger.fire();
        smol::block_on(early.wait());
        smol::block_on(shutdown.clone().wait());
        assert!(shutdown.has_fired());
    }

    #[test]
    fn a_dropped_trigger_has_fired() {
        let (trigger, shutdown) = Shutdown::new();
        drop(trigger);
        smol::block_on(shutdown.wait());
    }
}
