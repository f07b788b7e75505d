//! What a link is told from outside: stop, or dial again now.

use crate::clock::BoxFuture;
use futures_lite::Stream;
use smol::channel::Receiver;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

/// What is asked of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// End.
    Stop,
    /// Drop what there is and dial.
    Redial,
}

/// Both signals.
pub(super) struct Signals {
    /// `None` once it has completed.
    stop: Option<BoxFuture<()>>,
    /// `None` once nobody can ask any more.
    redial: Option<Pin<Box<Receiver<()>>>>,
}

impl Signals {
    pub(super) fn new(stop: BoxFuture<()>, redial: Receiver<()>) -> Self {
        Self { stop: Some(stop), redial: Some(Box::pin(redial)) }
    }

    /// A signal, as soon as there is one. Having stopped lasts.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Signal> {
        if self.poll_stop(cx).is_ready() {
            return Poll::Ready(Signal::Stop);
        }
        match self.redial.as_mut().map(|redial| redial.as_mut().poll_next(cx)) {
            Some(Poll::Ready(Some(()))) => return Poll::Ready(Signal::Redial),
            Some(Poll::Ready(None)) => self.redial = None,
            Some(Poll::Pending) | None => {}
        }
        Poll::Pending
    }

    /// Waits for a signal.
    pub(super) async fn wait(&mut self) -> Signal {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Waits until it is time to stop.
    pub(super) async fn stopped(&mut self) {
        poll_fn(|cx| self.poll_stop(cx)).await;
    }

    /// `future`'s result, or `None` if it is time to stop first.
    pub(super) async fn unless_stopped<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if self.poll_stop(cx).is_ready() {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Forgets requests to dial: what is being done is what they ask for.
    pub(super) fn forget_redials(&mut self) {
        while self.redial.as_ref().is_some_and(|redial| redial.try_recv().is_ok()) {}
    }

    fn poll_stop(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stop) = &mut self.stop else { return Poll::Ready(()) };
        let polled = stop.as_mut().poll(cx);
        if polled.is_ready() {
            self.stop = None;
        }
        polled
    }
}
