//! The flows' end of a connection: it hands a frame over and waits for its answer.

use super::{Outgoing, TOO_LARGE};
use crate::link::receipt_queries::{ReceiptQuery, pages};
use crate::link::topics::{Lookup, Topics};
use crate::port::{LinkTransport, SendOutcome};
use claudemesh_base::message::SecretKey;
use claudemesh_base::runtime::{BoxFuture, Runtime};
use claudemesh_base::wire::{self, ClientFrame, Correlated, to_text};
use claudemesh_fsm::envelope::Destination;
use futures_channel::oneshot;
use smol::channel::{Receiver, Sender};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// The status by which a message to a topic that does not exist is refused here.
const NOT_FOUND: u16 = 404;

/// What the link agreed with its broker, as far as a send depends on it.
pub(in crate::link) struct LinkTerms {
    /// What it sends with.
    pub(in crate::link) secret: SecretKey,
    /// How long a message may wait, in milliseconds.
    pub(in crate::link) max_age_ms: u64,
    /// The most a frame may weigh, in bytes.
    pub(in crate::link) frame_bytes_max: usize,
    /// Whether the broker tells receipts.
    pub(in crate::link) has_receipts: bool,
    /// Where names of topics are to be resolved here.
    pub(in crate::link) topics: Option<Arc<Topics>>,
}

/// The flows' end of a connection.
pub(in crate::link) struct ConnectionTransport {
    pub(super) outgoing: Sender<Outgoing>,
    pub(super) receipt_queries: Sender<ReceiptQuery>,
    pub(super) end_signal: Receiver<Infallible>,
    pub(super) link_terms: LinkTerms,
    pub(super) ack_max: Duration,
    pub(super) runtime: Runtime,
}

impl ConnectionTransport {
    /// Puts the id of a topic in the place of its name, where the broker wants that; or says why
    /// the message cannot go now, with what to ask the broker first.
    fn resolve(&self, message: &mut wire::SendFrame) -> Result<(), (SendOutcome, Option<String>)> {
        let Some(topics) = &self.link_terms.topics else { return Ok(()) };
        let Ok(Destination::Topic(topic)) = Destination::parse_exact(&message.target_spec) else {
            return Ok(());
        };
        match topics.find(&topic, self.runtime.monotonic(), self.ack_max) {
            Lookup::Id(id) => {
                message.target_spec = format!("#{id}");
                Ok(())
            }
            Lookup::NotYet { ask } => {
                let request = Correlated { request_id: Some(self.runtime.mint_id()) };
                let question = ask.then(|| to_text(&ClientFrame::TopicList(request)));
                let reason = "the broker's list of topics is not there yet".to_owned();
                // It counts as an attempt: a broker that never answers must not keep rows busy.
                Err((SendOutcome::Refused { code: None, permanent: Some(false), reason }, question))
            }
            Lookup::Missing => Err((unknown_topic(), None)),
        }
    }
}

impl LinkTransport for ConnectionTransport {
    fn deliver(&self, mut message: wire::SendFrame) -> BoxFuture<SendOutcome> {
        if message.id.is_none() {
            let id = message.client_message_id.clone();
            message.id = Some(id.unwrap_or_else(|| self.runtime.mint_id()));
        }
        let id = Arc::from(message.id.as_deref().unwrap_or_default());
        let (outgoing, frame_bytes_max) = (self.outgoing.clone(), self.link_terms.frame_bytes_max);
        let resolved = self.resolve(&mut message);
        Box::pin(async move {
            if let Err((delivery, question)) = resolved {
                if let Some(question) = question {
                    // A link that is no longer open is asked by the next one.
                    let _ = outgoing.send(Outgoing::Query(question)).await;
                }
                return delivery;
            }
            let text = to_text(&ClientFrame::Send(Box::new(message)));
            if text.len() > frame_bytes_max {
                return too_large(text.len(), frame_bytes_max);
            }
            let (reply, answer) = oneshot::channel();
            if outgoing.send(Outgoing::Send { id, text, reply }).await.is_err() {
                return SendOutcome::Unsent { reason: "the link is no longer open".to_owned() };
            }
            // The link's end answers whatever happens; without it nobody knows what was written.
            answer
                .await
                .unwrap_or_else(|_| SendOutcome::Lost { reason: "the link ended".to_owned() })
        })
    }

    fn receipts(&self, ids: Vec<String>) -> BoxFuture<Option<Vec<wire::Receipt>>> {
        if !self.link_terms.has_receipts {
            return Box::pin(std::future::ready(None));
        }
        let (receipt_queries, runtime) = (self.receipt_queries.clone(), self.runtime.clone());
        let pages = pages(ids, &runtime.mint_id(), self.link_terms.frame_bytes_max);
        Box::pin(async move {
            let mut receipts = Vec::new();
            for ids in pages {
                let (reply, answer) = oneshot::channel();
                receipt_queries
                    .send(ReceiptQuery { request_id: runtime.mint_id(), ids, reply })
                    .await
                    .ok()?;
                receipts.extend(answer.await.ok()?);
            }
            Some(receipts)
        })
    }

    fn closed(&self) -> BoxFuture<()> {
        let end_signal = self.end_signal.clone();
        Box::pin(async move {
            // Nothing is ever sent on it, so an answer is its end.
            let _ = end_signal.recv().await;
        })
    }

    fn secret(&self) -> &SecretKey {
        &self.link_terms.secret
    }

    fn max_age_ms(&self) -> u64 {
        self.link_terms.max_age_ms
    }
}

/// A broker of today's network would acknowledge it and lose it. The topic's name is not in the
/// words: they are read for what they mean.
fn unknown_topic() -> SendOutcome {
    let reason = "unknown topic: the broker's list has none of this name".to_owned();
    SendOutcome::Refused { code: Some(NOT_FOUND), permanent: Some(true), reason }
}

/// A broker would close the connection over it, and every send with it (`specs/wire.md`).
fn too_large(bytes: usize, bytes_max: usize) -> SendOutcome {
    let reason =
        format!("payload too large: the frame is {bytes} bytes, this mesh takes {bytes_max}");
    SendOutcome::Refused { code: Some(TOO_LARGE), permanent: Some(true), reason }
}
