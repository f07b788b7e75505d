//! A link under test, and the broker it talks to: a listener on a free port and a script.

use crate::link::{CONNECT_MAX, LinkConfig, LinkHandle, TlsRoots, run};
use crate::port::{InboundPush, LateAck, LinkObserver, LinkTransport, LinkView};
use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::{WebSocketStream, accept_async};
use claudemesh_base::message::{PublicKey, SecretKey};
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire;
use claudemesh_fsm::link::{LinkState, Timers};
use claudemesh_fsm::negotiate::FeaturePolicy;
use futures_lite::{AsyncRead, AsyncWrite};
use futures_util::StreamExt;
use serde_json::{Value, json};
use smol::channel::{Receiver, Sender, bounded, unbounded};
use smol::net::{TcpListener, TcpStream};
use smol::{Executor, Task};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// No test takes this long; one that hangs fails.
const WATCHDOG: Duration = Duration::from_secs(60);

pub(super) enum Saw {
    Down(LinkView),
    Open(LinkView, Arc<dyn LinkTransport>),
    Roster(Vec<wire::RosterEntry>),
    Late(LateAck),
    Receipts(Vec<wire::Receipt>),
    Revoked(String),
}

struct Eyes(Sender<Saw>);

impl LinkObserver for Eyes {
    fn down(&self, view: LinkView) {
        self.0.try_send(Saw::Down(view)).expect("unbounded");
    }

    fn open(&self, view: LinkView, transport: Arc<dyn LinkTransport>) {
        self.0.try_send(Saw::Open(view, transport)).expect("unbounded");
    }

    fn roster(&self, peers: Vec<wire::RosterEntry>) {
        self.0.try_send(Saw::Roster(peers)).expect("unbounded");
    }

    fn late_ack(&self, late: LateAck) {
        self.0.try_send(Saw::Late(late)).expect("unbounded");
    }

    fn receipts(&self, receipts: Vec<wire::Receipt>) {
        self.0.try_send(Saw::Receipts(receipts)).expect("unbounded");
    }

    fn revoked(&self, via: &str) {
        self.0.try_send(Saw::Revoked(via.to_owned())).expect("unbounded");
    }
}

pub(super) struct Rig {
    listener: TcpListener,
    seen: Receiver<Saw>,
    pub(super) inbound: Receiver<InboundPush>,
    pub(super) runtime: Runtime,
    stop: Sender<()>,
    pub(super) remote: LinkHandle,
    link: Option<Task<()>>,
    key: PublicKey,
}

/// Runs `test` against a link with ordinary patience that dials again at once.
pub(super) fn rig<F: Future<Output = ()>>(test: impl FnOnce(Rig) -> F) {
    with(Rig::config(|_| ()), test);
}

pub(super) fn with<F: Future<Output = ()>>(config: LinkConfig, test: impl FnOnce(Rig) -> F) {
    rig_at(config, "ws://127.0.0.1:PORT/ws", test);
}

/// As [`with`], but dialling `url`; `PORT` in it is the script's.
pub(super) fn rig_at<F: Future<Output = ()>>(
    config: LinkConfig,
    url: &str,
    test: impl FnOnce(Rig) -> F,
) {
    rig_in_time(config, url, |runtime| runtime, test);
}

/// As [`rig_at`], with the link in a time of its own.
pub(super) fn rig_in_time<F: Future<Output = ()>>(
    mut config: LinkConfig,
    url: &str,
    time: impl FnOnce(Runtime) -> Runtime,
    test: impl FnOnce(Rig) -> F,
) {
    let url = url.to_owned();
    let executor = Arc::new(Executor::new());
    let runtime = Runtime::real(executor.clone());
    smol::block_on(executor.run(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("address").port();
        config.broker_url = url.replace("PORT", &port.to_string());
        let (eyes, seen) = unbounded();
        let (pushes, inbound) = bounded(4);
        let (stop, stopped) = bounded::<()>(1);
        let (remote, orders) = LinkHandle::new();
        let key = config.secret.public();
        let stopped = Box::pin(async move {
            let _ = stopped.recv().await;
        });
        let observer = Arc::new(Eyes(eyes));
        let link = run(config, time(runtime.clone()), observer, pushes, stopped, orders);
        let link = Some(runtime.spawn(link));
        let rig =
            Rig { listener, seen, inbound, runtime: runtime.clone(), stop, remote, link, key };
        let done = runtime.timeout(WATCHDOG, Box::pin(test(rig))).await;
        assert!(done.is_some(), "the test hangs");
    }));
}

impl Rig {
    pub(super) fn config(change: impl FnOnce(&mut LinkConfig)) -> LinkConfig {
        let mut config = LinkConfig {
            broker_url: String::new(),
            mesh_id: "mesh-1".into(),
            member_id: "member-1".into(),
            secret: SecretKey::from_seed([1; 32]),
            session_id: "session-1".into(),
            display_name: Some("tester".into()),
            hostname: None,
            cwd: "/".into(),
            pid: 1,
            timers: Timers { cap_ms: 5, ..Timers::default() },
            connect_max: CONNECT_MAX,
            ack_max: Duration::from_secs(15),
            inflight_max: 256,
            policy: FeaturePolicy::default(),
            max_age_override_hours: None,
            tls_roots: TlsRoots::BuiltIn,
        };
        change(&mut config);
        config
    }

    pub(super) fn key(&self) -> PublicKey {
        self.key
    }

    /// Where the script listens.
    pub(super) fn url(&self) -> String {
        format!("ws://{}/ws", self.listener.local_addr().expect("address"))
    }

    pub(super) async fn accept_tcp(&self) -> TcpStream {
        self.listener.accept().await.expect("a connection").0
    }

    pub(super) async fn accept(&self) -> Peer {
        Peer(accept_async(self.accept_tcp().await).await.expect("a WebSocket"))
    }

    /// Accepts, greets and negotiates.
    pub(super) async fn open(&self) -> Peer {
        let mut peer = self.accept().await;
        peer.open().await;
        peer
    }

    pub(super) async fn saw(&self) -> Saw {
        self.seen.recv().await.expect("the link lives")
    }

    /// Skips to the next opening.
    pub(super) async fn opened(&self) -> (LinkView, Arc<dyn LinkTransport>) {
        loop {
            if let Saw::Open(view, transport) = self.saw().await {
                return (view, transport);
            }
        }
    }

    pub(super) async fn down(&self, state: LinkState) -> LinkView {
        loop {
            match self.saw().await {
                Saw::Down(view) if view.state == state => return view,
                Saw::Open(..) if state == LinkState::Refused => panic!("must not open"),
                _ => {}
            }
        }
    }

    pub(super) async fn waiting(&self) -> LinkView {
        self.down(LinkState::Waiting).await
    }

    pub(super) async fn refused(&self) -> LinkView {
        self.down(LinkState::Refused).await
    }

    pub(super) async fn late(&self) -> LateAck {
        loop {
            if let Saw::Late(late) = self.saw().await {
                return late;
            }
        }
    }

    pub(super) async fn receipts(&self) -> Vec<wire::Receipt> {
        loop {
            if let Saw::Receipts(receipts) = self.saw().await {
                return receipts;
            }
        }
    }

    /// Every state so far that nobody has looked at.
    pub(super) async fn states(&self) -> Vec<String> {
        let mut states = Vec::new();
        while let Ok(saw) = self.seen.try_recv() {
            if let Saw::Down(view) = saw {
                states.push(view.state.as_str().to_owned());
            }
        }
        states
    }

    pub(super) fn stop(&self) {
        self.stop.try_send(()).expect("stopped once");
    }

    pub(super) fn redial(&self) {
        self.remote.redial();
    }

    pub(super) async fn ended(&mut self) {
        self.link.take().expect("the link's task").await;
    }
}

/// The broker's end of one connection.
pub(super) struct Peer<S = TcpStream>(pub(super) WebSocketStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// Greets and negotiates.
    pub(super) async fn open(&mut self) {
        self.greet().await;
        self.send(&negotiated()).await;
    }

    pub(super) async fn recv(&mut self) -> Value {
        loop {
            match self.0.next().await.expect("open").expect("a message") {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("expected a frame, got {other:?}"),
            }
        }
    }

    /// The next frame of that type.
    pub(super) async fn recv_type(&mut self, wanted: &str) -> Value {
        loop {
            let frame = self.recv().await;
            if frame["type"] == wanted {
                return frame;
            }
        }
    }

    pub(super) async fn send(&mut self, frame: &Value) {
        self.message(Message::text(frame.to_string())).await;
    }

    pub(super) async fn message(&mut self, message: Message) {
        self.0.send(message).await.expect("sent");
    }

    pub(super) async fn greet(&mut self) {
        assert_eq!(self.recv().await["type"], "hello");
        self.send(&hello_ack()).await;
        assert_eq!(self.recv().await["type"], "feature_negotiation_request");
    }

    pub(super) async fn ack(&mut self, id: &str, broker_id: &str) {
        self.send(&json!({"type": "ack", "id": id, "messageId": broker_id, "queued": true})).await;
    }

    pub(super) async fn push(&mut self, id: &str) {
        self.send(&json!({"type": "push", "messageId": id, "senderPubkey": "aa"})).await;
    }

    pub(super) async fn push_system(&mut self, event: &str, data: Value) {
        let frame = json!({"type": "push", "messageId": "s", "senderPubkey": "system",
            "subtype": "system", "event": event, "eventData": data});
        self.send(&frame).await;
    }

    pub(super) async fn close(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        self.0.close(Some(frame)).await.expect("closed");
        while let Some(Ok(_)) = self.0.next().await {}
    }

    /// The close frame that comes, and what it says.
    pub(super) async fn close_frame(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(frame) = self.0.next().await.expect("open").expect("a message") {
                let frame = frame.expect("with a code");
                // One more turn answers it.
                while let Some(Ok(_)) = self.0.next().await {}
                return (frame.code.into(), frame.reason.to_string());
            }
        }
    }

    pub(super) async fn pings(&mut self, count: usize) {
        let mut left = count;
        while left > 0 {
            if let Message::Ping(_) = self.0.next().await.expect("open").expect("a message") {
                left -= 1;
            }
        }
    }
}

pub(super) fn hello_ack() -> Value {
    json!({"type": "hello_ack", "presenceId": "p", "memberDisplayName": "m"})
}

pub(super) fn negotiated() -> Value {
    json!({"type": "feature_negotiation_response", "missing_required": [], "supported": {
        "client_message_id_dedupe": {"params": {"version": 1, "mode": "permanent",
            "request_fingerprint": true}},
        "concurrent_connection_policy": {"params": {"version": 1}},
    }})
}

pub(super) fn message(id: &str) -> wire::SendFrame {
    wire::SendFrame { id: Some(id.into()), target_spec: "*".into(), ..wire::SendFrame::default() }
}
