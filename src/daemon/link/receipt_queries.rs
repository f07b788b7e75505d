//! Questions to the broker that are no sends: what became of messages it has (§4.13).
//!
//! One is under way at a time. Whoever asks gives it up when it takes too long; an answer that then
//! still comes is news like any other.

use claudemesh_base::wire::{ClientFrame, Receipt, ReceiptsFrame, ReceiptsRequest, to_text};
use futures_channel::oneshot;
use futures_lite::Stream;
use smol::channel::{self, Receiver, Sender};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// How many questions may wait for their turn.
const WAITING_MAX: usize = 4;

/// One question.
pub(super) struct ReceiptQuery {
    /// Names it on the wire.
    pub(super) request_id: String,
    pub(super) ids: Vec<String>,
    pub(super) reply: oneshot::Sender<Vec<Receipt>>,
}

/// The link's end. Dropping it ends every question without an answer.
pub(super) struct ReceiptQueries {
    waiting: Pin<Box<Receiver<ReceiptQuery>>>,
    sender: Sender<ReceiptQuery>,
    under_way: Option<WrittenQuery>,
    /// The largest question that was answered, and the largest that was given up, in bytes.
    answered_bytes_max: usize,
    abandoned_bytes_max: usize,
}

/// A question that was written.
struct WrittenQuery {
    request_id: String,
    bytes: usize,
    reply: oneshot::Sender<Vec<Receipt>>,
}

impl ReceiptQueries {
    pub(super) fn new() -> Self {
        let (sender, waiting) = channel::bounded(WAITING_MAX);
        Self {
            waiting: Box::pin(waiting),
            sender,
            under_way: None,
            answered_bytes_max: 0,
            abandoned_bytes_max: 0,
        }
    }

    /// Where questions are put.
    pub(super) fn sender(&self) -> Sender<ReceiptQuery> {
        self.sender.clone()
    }

    /// The next question to write.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        if let Some(asked) = &mut self.under_way {
            ready!(asked.reply.poll_canceled(cx));
            self.abandoned_bytes_max = self.abandoned_bytes_max.max(asked.bytes);
            self.under_way = None;
        }
        loop {
            // The sender lives here, so the channel stays open.
            let Some(ask) = ready!(self.waiting.as_mut().poll_next(cx)) else {
                return Poll::Pending;
            };
            let ReceiptQuery { request_id, ids, mut reply } = ask;
            if reply.poll_canceled(cx).is_pending() {
                let text = question(&request_id, ids);
                self.under_way = Some(WrittenQuery { request_id, bytes: text.len(), reply });
                return Poll::Ready(text);
            }
        }
    }

    /// Hands an answer to whoever asked; gives receipts back that nobody asked for.
    pub(super) fn answer(&mut self, frame: ReceiptsFrame) -> Option<Vec<Receipt>> {
        let is_ours =
            |asked: &mut WrittenQuery| frame.request_id.as_deref() == Some(&*asked.request_id);
        match self.under_way.take_if(is_ours) {
            Some(asked) => {
                self.answered_bytes_max = self.answered_bytes_max.max(asked.bytes);
                asked.reply.send(frame.receipts).err()
            }
            None => Some(frame.receipts),
        }
    }

    /// The largest question that was answered, in bytes.
    pub(super) const fn answered_bytes_max(&self) -> usize {
        self.answered_bytes_max
    }

    /// The largest question that was not, in bytes.
    pub(super) fn unanswered_bytes_max(&self) -> usize {
        let under_way = self.under_way.as_ref().map_or(0, |asked| asked.bytes);
        under_way.max(self.abandoned_bytes_max)
    }

    /// The link is over: nobody is answered any more.
    pub(super) fn close(&mut self) {
        self.waiting.close();
        while self.waiting.try_recv().is_ok() {}
        self.under_way = None;
    }
}

/// `ids` in pages, each of which makes a frame of at most `bytes_max` as question `request_id`. An
/// id that does not fit one alone is left out: no message of that id fitted one.
pub(super) fn pages(ids: Vec<String>, request_id: &str, bytes_max: usize) -> Vec<Vec<String>> {
    // The last id has no comma.
    let room = (bytes_max + 1).saturating_sub(question(request_id, Vec::new()).len());
    let (mut pages, mut left): (Vec<Vec<String>>, usize) = (Vec::new(), 0);
    for id in ids {
        let bytes = to_text(&id).len() + 1;
        if bytes > room {
            continue;
        }
        match pages.last_mut() {
            Some(page) if bytes <= left => page.push(id),
            _ => {
                left = room;
                pages.push(vec![id]);
            }
        }
        left -= bytes;
    }
    pages
}

fn question(request_id: &str, ids: Vec<String>) -> String {
    let request_id = Some(request_id.to_owned());
    to_text(&ClientFrame::ReceiptsRequest(ReceiptsRequest { ids, request_id }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_fits_a_frame_and_no_id_is_lost_but_one_that_never_fits() {
        let escaped = "\"\\".repeat(100);
        let ids: Vec<String> = (0..40).map(|nth| format!("{nth}{escaped}")).collect();
        let mut all = ids.clone();
        all.insert(7, "x".repeat(1024));
        for bytes_max in [1024, 1500, 4096, 65_536] {
            let pages = pages(all.clone(), "r", bytes_max);
            assert!(pages.iter().all(|page| question("r", page.clone()).len() <= bytes_max));
            let mut asked = pages.concat();
            asked.retain(|id| !id.starts_with('x'));
            assert_eq!(asked, ids);
        }
        assert_eq!(pages(ids.clone(), "r", 65_536), std::slice::from_ref(&ids));
        // To the byte.
        let exact = question("r", ids.clone()).len();
        assert_eq!(pages(ids.clone(), "r", exact).len(), 1);
        assert_eq!(pages(ids, "r", exact - 1).len(), 2);
        assert_eq!(pages(Vec::new(), "r", 1024), Vec::<Vec<String>>::new());
    }
}
