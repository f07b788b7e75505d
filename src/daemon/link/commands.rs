//! What a link is told from outside: stop, dial again now, or go by another configuration.

use super::LinkConfig;
use claudemesh_base::runtime::BoxFuture;
use futures_lite::Stream;
use smol::channel::{self, Receiver, Sender};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

/// What is asked of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkCommand {
    /// End.
    Stop,
    /// Drop what there is and dial.
    Redial,
}

/// The end that tells a link what to do. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LinkHandle {
    redial: Sender<()>,
    config: Arc<Mutex<Option<LinkConfig>>>,
}

/// The link's end of a [`LinkHandle`].
#[derive(Debug)]
pub struct LinkCommandReceiver {
    redial: Receiver<()>,
    config: Arc<Mutex<Option<LinkConfig>>>,
}

impl LinkHandle {
    /// Both ends.
    #[must_use]
    #[allow(clippy::new_ret_no_self, reason = "the two ends only exist together")]
    pub fn new() -> (Self, LinkCommandReceiver) {
        let (redial, redials) = channel::bounded(1);
        let config = Arc::default();
        let orders = LinkCommandReceiver { redial: redials, config: Arc::clone(&config) };
        (Self { redial, config }, orders)
    }

    /// Dial again now: cuts a wait short, gives a refused link another try, and replaces a
    /// connection that exists.
    pub fn redial(&self) {
        // A full channel already says so.
        let _ = self.redial.try_send(());
    }

    /// From the next dial on, go by this.
    pub fn configure(&self, config: LinkConfig) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = Some(config);
    }
}

/// Everything a link may be told.
pub(super) struct LinkCommands {
    /// `None` once it has completed.
    stop: Option<BoxFuture<()>>,
    /// `None` once nobody can ask any more.
    redial: Option<Pin<Box<Receiver<()>>>>,
    config: Arc<Mutex<Option<LinkConfig>>>,
}

impl LinkCommands {
    pub(super) fn new(stop: BoxFuture<()>, orders: LinkCommandReceiver) -> Self {
        let LinkCommandReceiver { redial, config } = orders;
        Self { stop: Some(stop), redial: Some(Box::pin(redial)), config }
    }

    /// The configuration that is to hold from now on, if there is a new one.
    pub(super) fn take_config(&self) -> Option<LinkConfig> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A signal, as soon as there is one. Having stopped lasts.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LinkCommand> {
        if self.poll_stop(cx).is_ready() {
            return Poll::Ready(LinkCommand::Stop);
        }
        match self.redial.as_mut().map(|redial| redial.as_mut().poll_next(cx)) {
            Some(Poll::Ready(Some(()))) => return Poll::Ready(LinkCommand::Redial),
            Some(Poll::Ready(None)) => self.redial = None,
            Some(Poll::Pending) | None => {}
        }
        Poll::Pending
    }

    /// Waits for a signal.
    pub(super) async fn wait(&mut self) -> LinkCommand {
        poll_fn(|cx| self.poll(cx)).await
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
