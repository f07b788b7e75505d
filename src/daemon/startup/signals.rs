//! What the operating system asks of the daemon (§14).

use async_signal::Signal;
use futures_lite::StreamExt;
use std::io;

/// A request by signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalRequest {
    /// SIGTERM or SIGINT: end in order.
    Stop(&'static str),
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals, from the moment this is made.
pub(super) struct OsSignals(async_signal::Signals);

impl OsSignals {
    pub(super) fn new() -> io::Result<Self> {
        async_signal::Signals::new([Signal::Term, Signal::Int, Signal::Hup]).map(Self)
    }

    pub(super) async fn next(&mut self) -> SignalRequest {
        match self.0.next().await {
            Some(Ok(Signal::Hup)) => SignalRequest::Reload,
            Some(Ok(Signal::Int)) => SignalRequest::Stop("SIGINT"),
            Some(Ok(_)) | None => SignalRequest::Stop("SIGTERM"),
            Some(Err(error)) => {
                tracing::error!(%error, "signals cannot be read; stopping");
                SignalRequest::Stop("none")
            }
        }
    }
}
