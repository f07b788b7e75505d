//! `GET /v1/events`: what happens, as it happens (§3.5).
//!
//! A stream subscribes first and only then looks up what its client missed, so that nothing falls
//! between the two; what arrives twice at that seam is dropped by its place in the inbox. A client
//! that falls behind, or presents an id of another database, is told `lagged` and resumes from the
//! store. It never slows the daemon.

use super::listen::EventStream;
use super::query::{QueryParameters, bad};
use super::reply::{self, Answer, Problem};
use super::{App, Request};
use crate::api::bodies::{EventKind, LaggedEvent, data_of};
use crate::events::{Event, EventContent, Subscription};
use crate::store::quota::Usage;
use bytes::Bytes;
use claudemesh_base::runtime::iso;
use claudemesh_base::wire::to_text;
use futures_lite::FutureExt;
use smol::channel::Sender;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// How often a comment shows that the stream lives.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// How many events may wait for the client's socket.
const UNSENT_MAX: usize = 64;
/// Why a listener lagged: it reads more slowly than things happen.
const SLOW_READER: &str = "slow_reader";
/// Why a listener lagged: its `Last-Event-ID` is of another database.
const UNKNOWN_EPOCH: &str = "unknown_epoch";
/// How many missed messages are read from the store at once.
const REPLAY_PAGE: usize = 256;

pub(super) async fn stream(request: Request) -> Answer {
    let app = request.state().clone();
    let (kinds, last) = (wanted(&request)?, last_event_id(&request)?);
    // A full disk is no time for more work that nobody depends on (§1.2).
    if let Some(usage) = app.outbox.quota().usage().filter(Usage::disk_is_full) {
        return Err(Problem::insufficient_storage(usage.reasons().join("; ")));
    }
    let slot = app.streams.take();
    let slot = slot.ok_or_else(|| Problem::too_many_streams(app.streams.max()))?;
    let (sender, events) = smol::channel::bounded(UNSENT_MAX);
    let subscription = app.bus.subscribe();
    // After the subscription: whatever is stored later is told live.
    let newest = app.inbox.newest_seq().await.map_err(|error| app.store_problem(&error))?;
    let runtime = app.runtime.clone();
    let run = async move {
        let _slot = slot;
        // Ends when the client is gone: its end of the channel is closed then.
        let _ = Stream { app, kinds, sender, subscription, seen: 0 }.run(last, newest).await;
    };
    runtime.spawn(run).detach();
    let mut response = reply::ok_text("text/event-stream", String::new());
    response.insert_header("cache-control", "no-cache, no-transform");
    response.insert_header("x-accel-buffering", "no");
    response.insert_ext(EventStream(events));
    Ok(response)
}

fn wanted(request: &Request) -> Result<Vec<EventKind>, Problem> {
    let query = QueryParameters::read(request, &["types"])?;
    let Some(types) = query.text("types") else { return Ok(EventKind::ALL.to_vec()) };
    let kind = |word: &str| {
        let all = EventKind::ALL.map(EventKind::as_str).join(", ");
        EventKind::parse(word.trim()).ok_or_else(|| bad("types", &format!("a list of {all}")))
    };
    types.split(',').map(kind).collect()
}

/// Where a client that reconnects was: the epoch and the place.
fn last_event_id(request: &Request) -> Result<Option<(String, i64)>, Problem> {
    let Some(value) = request.header("last-event-id").map(|values| values.last().as_str()) else {
        return Ok(None);
    };
    let parsed = value.trim().rsplit_once('-').and_then(|(epoch, seq)| {
        Some((epoch.to_owned(), seq.parse().ok().filter(|seq| *seq >= 0)?))
    });
    parsed.map(Some).ok_or_else(|| {
        let detail = "`Last-Event-ID` must be the `id:` of an event of this stream";
        Problem::bad_request("invalid_parameter", detail)
    })
}

/// The client closed the stream.
struct StreamClosed;

struct Stream {
    app: Arc<App>,
    kinds: Vec<EventKind>,
    sender: Sender<Bytes>,
    subscription: Subscription,
    /// The place of the last message sent, or skipped on purpose.
    seen: i64,
}

impl Stream {
    async fn run(mut self, last: Option<(String, i64)>, newest: i64) -> Result<(), StreamClosed> {
        self.send(": connected\n\n".to_owned()).await?;
        match last {
            None => self.seen = newest,
            Some((epoch, seq)) if epoch == self.app.inbox.epoch() && seq <= newest => {
                self.seen = seq;
                self.replay().await?;
            }
            // Everything in this database is new to a client of another one, or of what a restored
            // copy has not.
            Some(_) => {
                self.tell_lagged(UNKNOWN_EPOCH).await?;
                self.replay().await?;
            }
        }
        loop {
            let event = async { Some(self.subscription.next().await) };
            let quiet = async {
                self.app.runtime.sleep(COMMENT_EVERY).await;
                None
            };
            let closed = async {
                // The body was dropped: an idle stream must not wait for an event to notice.
                self.sender.closed().await;
                Some(None)
            };
            match closed.or(event).or(quiet).await {
                None => self.send(": keepalive\n\n".to_owned()).await?,
                Some(None) => return Ok(()),
                Some(Some(event)) => self.forward(&event).await?,
            }
            if self.subscription.take_lagged() {
                self.tell_lagged(SLOW_READER).await?;
                self.replay().await?;
            }
        }
    }

    async fn forward(&mut self, event: &Event) -> Result<(), StreamClosed> {
        let seq = match &event.content {
            EventContent::Message(message) => Some(message.seq),
            _ => None,
        };
        if let Some(seq) = seq {
            if seq <= self.seen {
                return Ok(());
            }
            self.seen = seq;
        }
        let kind = EventKind::of(&event.content);
        if self.kinds.contains(&kind) {
            let id = seq.map(|seq| format!("{}-{seq}", self.app.inbox.epoch()));
            self.send(block(id.as_deref(), kind.as_str(), &data_of(event))).await?;
        }
        Ok(())
    }

    /// Everything after `seen`, from the store, oldest first.
    async fn replay(&mut self) -> Result<(), StreamClosed> {
        loop {
            let missed = self.app.inbox.after(self.seen, REPLAY_PAGE).await;
            // The stream ends, and its client comes back with where it was.
            let missed = missed.map_err(|error| {
                let _ = self.app.store_problem(&error);
                StreamClosed
            })?;
            let more = missed.len() == REPLAY_PAGE;
            for message in missed {
                let (at, content) = (self.app.runtime.now(), EventContent::Message(message));
                self.forward(&Event { at, content }).await?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    async fn tell_lagged(&self, reason: &str) -> Result<(), StreamClosed> {
        let data = to_text(&LaggedEvent {
            ts: iso(self.app.runtime.now()),
            reason: reason.to_owned(),
            resumed_from: format!("{}-{}", self.app.inbox.epoch(), self.seen),
        });
        self.send(block(None, "lagged", &data)).await
    }

    async fn send(&self, text: String) -> Result<(), StreamClosed> {
        self.sender.send(Bytes::from(text)).await.map_err(|_| StreamClosed)
    }
}

/// One event as the protocol writes it. The data is JSON, so it has no line break of its own.
fn block(id: Option<&str>, kind: &str, data: &str) -> String {
    let mut text = String::with_capacity(data.len() + 64);
    if let Some(id) = id {
        let _ = writeln!(text, "id: {id}");
    }
    let _ = write!(text, "event: {kind}\ndata: {data}\n\n");
    text
}
