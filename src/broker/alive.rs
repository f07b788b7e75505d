//! Knowing when the last connection has ended.

use smol::channel::{self, Receiver, Sender};
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};

/// Hands out guards until the broker ends; the channel closes with the last of them.
pub(crate) struct Alive(Mutex<Option<Sender<Infallible>>>);

impl Alive {
    /// With the end that completes when [`end`](Self::end) was called and every guard is dropped.
    pub(crate) fn new() -> (Self, Receiver<Infallible>) {
        let (sender, all_ended) = channel::bounded(1);
        (Self(Mutex::new(Some(sender))), all_ended)
    }

    /// Held by a task that the broker waits for at its end.
    pub(crate) fn guard(&self) -> Option<Sender<Infallible>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// No more guards.
    pub(crate) fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
