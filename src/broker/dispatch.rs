//! From the ledger's decision to the sender's ack and the recipients' pushes.
//!
//! The thread that writes the ledger only puts what it decided into a queue. One task takes it out,
//! in the order of the commits, sends the ack and offers the message to the hub, so that neither
//! JSON nor a fan-out delays a commit. A sender whose connection is gone loses nothing: what was
//! committed is in the queue, whoever still waits for it.

use crate::acks::{outcome_ack, refusal_ack, truncated, try_later};
use crate::counters::Counters;
use crate::hub::{EncodedPush, Hub, OutboundQueue, Outgoing};
use crate::ledger::{
    AcceptError, AcceptOutcome, Accepted, LedgerHandle, QueuedMessage, Recipient, Refusal,
};
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire::{AckFrame, BrokerFrame, to_text};
use smol::channel::{self, Receiver, Sender};
use std::cell::OnceCell;
use std::sync::Arc;

/// Messages that may be on their way between a connection and the dispatcher.
const IN_FLIGHT_MAX: usize = 1024;
/// Decisions handled before other tasks get their turn.
const HANDLED_AT_ONCE_MAX: usize = 16;

/// Whom to tell what a message came to.
pub(crate) struct ReplyTo {
    pub(crate) outbound: OutboundQueue,
    pub(crate) correlation: String,
    pub(crate) client_id: Option<String>,
}

impl ReplyTo {
    pub(crate) fn send(self, ack: AckFrame) {
        let client_message_id = self.client_id.map(truncated);
        let ack = AckFrame { id: self.correlation, client_message_id, ..ack };
        let text = to_text(&BrokerFrame::Ack(Box::new(ack)));
        self.outbound.send(Outgoing::Frame(text.into()));
    }
}

/// One decision of the ledger.
struct Decided {
    outcome: Accepted,
    reply_to: ReplyTo,
    /// Frees the place once the decision is handled.
    _token: Token,
}

/// One of the places of the queue; free again when it is dropped.
struct Token(Sender<()>);

impl Drop for Token {
    fn drop(&mut self) {
        // There is room: the token came out of this channel.
        let _ = self.0.try_send(());
    }
}

/// Where the ledger's thread puts its decisions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DispatchQueue {
    decided: Sender<Decided>,
    /// The free places. A channel and not a semaphore: it wakes one waiter for each freed place,
    /// even while another that was woken has not been polled yet.
    free: (Sender<()>, Receiver<()>),
}

/// The right to put one decision into the queue, which has room for it.
pub(crate) struct Place {
    decided: Sender<Decided>,
    token: Token,
}

impl DispatchQueue {
    /// Waits for room. Taken before the ledger has the message, so that its thread never waits.
    pub(crate) async fn reserve(&self) -> Place {
        // Both ends are here, so the channel is never closed.
        let _ = self.free.1.recv().await;
        Place { decided: self.decided.clone(), token: Token(self.free.0.clone()) }
    }
}

impl Place {
    pub(crate) fn put(self, outcome: &Accepted, reply_to: ReplyTo) {
        let decided = Decided { outcome: outcome.clone(), reply_to, _token: self.token };
        // There are as many places as the channel holds; it is closed only when the broker ends.
        let _ = self.decided.try_send(decided);
    }
}

/// Sends acks and offers messages to the hub.
pub(crate) struct Dispatcher {
    decided: Receiver<Decided>,
    ledger: LedgerHandle,
    hub: Arc<Hub>,
    runtime: Runtime,
    counters: Arc<Counters>,
    has_rate_limit: bool,
}

impl Dispatcher {
    pub(crate) fn new(
        ledger: LedgerHandle,
        hub: Arc<Hub>,
        runtime: Runtime,
        counters: Arc<Counters>,
        has_rate_limit: bool,
    ) -> (Self, DispatchQueue) {
        let (sender, decided) = channel::bounded(IN_FLIGHT_MAX);
        let free = channel::bounded(IN_FLIGHT_MAX);
        while free.0.try_send(()).is_ok() {}
        let queue = DispatchQueue { decided: sender, free };
        (Self { decided, ledger, hub, runtime, counters, has_rate_limit }, queue)
    }

    /// Handles decisions until it is dropped.
    pub(crate) async fn run(&self) {
        let mut handled: usize = 0;
        while let Ok(decided) = self.decided.recv().await {
            self.handle(decided);
            handled = handled.wrapping_add(1);
            if handled.is_multiple_of(HANDLED_AT_ONCE_MAX) {
                smol::future::yield_now().await;
            }
        }
    }

    /// Handles what is in the queue now.
    pub(crate) fn finish(&self) {
        while let Ok(decided) = self.decided.try_recv() {
            self.handle(decided);
        }
    }

    fn handle(&self, decided: Decided) {
        let Decided { outcome, reply_to, _token } = decided;
        reply_to.send(self.answer(&outcome));
        if let Ok(outcome) = &outcome
            && let AcceptOutcome::First { message, recipients } = &**outcome
        {
            self.fan_out(message, recipients);
        }
    }

    /// Hands a committed message to whoever is connected. The frame is made once, and only if
    /// somebody can take it at once.
    fn fan_out(&self, message: &QueuedMessage, recipients: &[Recipient]) {
        let now = self.runtime.monotonic();
        let push: OnceCell<EncodedPush> = OnceCell::new();
        for recipient in recipients {
            self.hub.offer(recipient, message.seq, now, || {
                push.get_or_init(|| EncodedPush::of(message)).clone()
            });
        }
    }

    fn answer(&self, outcome: &Accepted) -> AckFrame {
        let counters = &self.counters;
        match outcome {
            Ok(outcome) => {
                match &**outcome {
                    AcceptOutcome::First { .. } => {
                        self.ledger.works();
                        counters.accepts.add(1);
                    }
                    AcceptOutcome::Duplicate(_) => counters.duplicates.add(1),
                    AcceptOutcome::Mismatch { .. } => counters.fingerprint_mismatches.add(1),
                }
                outcome_ack(outcome)
            }
            Err(AcceptError::Refused(refusal)) => {
                counters.refusals.add(1);
                if *refusal == Refusal::RateLimited {
                    counters.rate_limit_rejections.add(1);
                } else if self.has_rate_limit && is_b2(refusal) {
                    counters.rate_limit_consumed_then_b2_rejected.add(1);
                }
                refusal_ack(refusal)
            }
            Err(AcceptError::Failed(error)) => {
                self.ledger.failed(error);
                try_later()
            }
        }
    }
}

/// Whether a refusal came after the rate limit was asked.
fn is_b2(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Invalid(_)
        | Refusal::TooLarge { .. }
        | Refusal::RateLimited
        | Refusal::DiskFull => false,
        Refusal::NotAMember
        | Refusal::UnknownRecipient
        | Refusal::BannedRecipient
        | Refusal::Blocked
        | Refusal::UnknownTopic(_)
        | Refusal::MayNotWrite(_)
        | Refusal::OnlyYourself
        | Refusal::QueueFull => true,
    }
}
