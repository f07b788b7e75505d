//! Questions to the broker that are no sends: what became of messages it has (§4.13).
//!
//! One is under way at a time. Whoever asks gives it up when it takes too long; an answer that then
//! still comes is news like any other.

use crate::wire::{ClientFrame, Receipt, Receipts, ReceiptsRequest, to_text};
use futures_channel::oneshot;
use futures_lite::Stream;
use smol::channel::{self, Receiver, Sender};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// How many questions may wait for their turn.
const WAITING_MAX: usize = 4;

/// One question.
pub(super) struct Ask {
    /// Names it on the wire.
    pub(super) request_id: String,
    pub(super) ids: Vec<String>,
    pub(super) reply: oneshot::Sender<Vec<Receipt>>,
}

/// The link's end. Dropping it ends every question without an answer.
pub(super) struct Asks {
    waiting: Pin<Box<Receiver<Ask>>>,
    sender: Sender<Ask>,
    under_way: Option<(String, oneshot::Sender<Vec<Receipt>>)>,
}

impl Asks {
    pub(super) fn new() -> Self {
        let (sender, waiting) = channel::bounded(WAITING_MAX);
        Self { waiting: Box::pin(waiting), sender, under_way: None }
    }

    /// Where questions are put.
    pub(super) fn sender(&self) -> Sender<Ask> {
        self.sender.clone()
    }

    /// The next question to write.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        if let Some((_, reply)) = &mut self.under_way {
            ready!(reply.poll_canceled(cx));
            self.under_way = None;
        }
        loop {
            // The sender lives here, so the channel stays open.
            let Some(ask) = ready!(self.waiting.as_mut().poll_next(cx)) else {
                return Poll::Pending;
            };
            let Ask { request_id, ids, mut reply } = ask;
            if reply.poll_canceled(cx).is_pending() {
                self.under_way = Some((request_id.clone(), reply));
                let request = ReceiptsRequest { ids, request_id: Some(request_id) };
                return Poll::Ready(to_text(&ClientFrame::ReceiptsRequest(request)));
            }
        }
    }

    /// Hands an answer to whoever asked; gives receipts back that nobody asked for.
    pub(super) fn answer(&mut self, frame: Receipts) -> Option<Vec<Receipt>> {
        let is_ours = |(asked, _): &mut (String, _)| frame.request_id.as_ref() == Some(asked);
        match self.under_way.take_if(is_ours) {
            Some((_, reply)) => reply.send(frame.receipts).err(),
            None => Some(frame.receipts),
        }
    }

    /// The link is over: nobody is answered any more.
    pub(super) fn close(&mut self) {
        self.waiting.close();
        while self.waiting.try_recv().is_ok() {}
        self.under_way = None;
    }
}
