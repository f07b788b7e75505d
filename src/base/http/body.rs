//! Bodies: of answers, whole or streamed, and of requests, read within a size and a deadline.

use super::progress::Progress;
use crate::runtime::Runtime;
use bytes::Bytes;
use futures_lite::{Stream, StreamExt, future::or};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The body of an answer. It cannot fail: a stream that must stop early just ends.
pub type Body = BoxBody<Bytes, Infallible>;

/// A body known in full; it gets a Content-Length.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    BoxBody::new(Full::new(bytes.into()))
}

/// No body.
#[must_use]
pub fn empty() -> Body {
    full(Bytes::new())
}

/// A body that goes out as its chunks come, each in one write; the headers go out at once.
#[must_use]
pub fn stream(chunks: impl Stream<Item = Bytes> + Send + Sync + 'static) -> Body {
    BoxBody::new(StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk)))))
}

/// Why a request's body is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than the limit.
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// It did not arrive in time.
    TimedOut,
    /// The connection broke or the body is malformed.
    Broken,
}

/// Reads a request's body. `deadline` is [`Runtime::monotonic`] time, from
/// [`Peer::arrival_deadline`](super::Peer).
///
/// A declared length beyond the limit is refused before a byte is read.
///
/// # Errors
/// [`BodyError`]; after it the codec closes the connection behind the answer.
pub async fn read_body(
    mut body: Incoming,
    limit_bytes: usize,
    runtime: &Runtime,
    deadline: Duration,
) -> Result<Vec<u8>, BodyError> {
    let too_large = Err(BodyError::TooLarge { limit: limit_bytes });
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if declared > limit_bytes {
        return too_large;
    }
    let collect = async move {
        let mut bytes = Vec::with_capacity(declared);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            if data.len() > limit_bytes - bytes.len() {
                return too_large;
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    };
    let timeout = async {
        runtime.sleep_until(deadline).await;
        Err(BodyError::TimedOut)
    };
    or(collect, timeout).await
}

/// An answer's body that tells the connection's watch when the codec is done with it.
pub(super) struct TrackedBody {
    body: Body,
    progress: Arc<Progress>,
}

impl TrackedBody {
    pub(super) fn new(body: Body, progress: Arc<Progress>) -> Self {
        Self { body, progress }
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.progress.answered();
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
