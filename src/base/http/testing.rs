//! What tests of servers share: a server on a port of its own, and raw bytes to and from it.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use super::*;
use crate::runtime::Trigger;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use smol::Executor;
use smol::net::{TcpListener, TcpStream};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};

/// No test may hang longer than this.
const HANG: Duration = Duration::from_secs(60);

/// Runs a test on an executor of its own.
pub fn run<F: Future>(test: impl FnOnce(Runtime) -> F) -> F::Output {
    let executor = Arc::new(Executor::new());
    let runtime = Runtime::real(Arc::clone(&executor));
    let test = Box::pin(test(runtime.clone()));
    smol::block_on(executor.run(runtime.timeout(HANG, test))).expect("the test hangs")
}

/// A server on a port of its own; it ends when this is dropped.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Ends it.
    pub trigger: Trigger,
    /// The server itself.
    pub task: smol::Task<()>,
}

/// Starts a server with `handler` on a free port of the loopback interface.
pub async fn start(
    runtime: &Runtime,
    limits: Limits,
    signal: (Trigger, Shutdown),
    handler: Arc<dyn Handler>,
) -> Running {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (trigger, shutdown) = signal;
    let task =
        runtime.spawn(serve(Listener::Tcp(listener), limits, runtime.clone(), shutdown, handler));
    Running { address, trigger, task }
}

/// Writes `bytes`, then reads until the server closes.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read_all(&mut stream).await
}

/// Reads until the other side closes.
pub async fn read_all(stream: &mut (impl futures_lite::AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Waits for what another task does, without guessing how long it takes.
pub async fn until(runtime: &Runtime, condition: impl Fn() -> bool) {
    while !condition() {
        runtime.sleep(Duration::from_millis(2)).await;
    }
}
