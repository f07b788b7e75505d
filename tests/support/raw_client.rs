//! A broker in a thread of its own, and a client that speaks frames by hand: nothing of the link is
//! used, so that both can be wrong only separately.

use async_tungstenite::tungstenite::Message;
use async_tungstenite::{WebSocketStream, client_async};
use claudemesh_base::message::{SecretKey, signed};
use claudemesh_base::runtime::{Runtime, Shutdown, Trigger};
use claudemesh_broker::{Admin, Options, Settings};
use claudemesh_fsm::id::Millis;
use futures_util::StreamExt;
use serde_json::{Value, json};
use smol::net::TcpStream;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running broker with one mesh.
pub struct TestBroker {
    pub addr: SocketAddr,
    pub runtime: Runtime,
    pub mesh_id: String,
    dir: tempfile::TempDir,
    trigger: Option<Trigger>,
    thread: Option<std::thread::JoinHandle<()>>,
    executor_end: Option<Trigger>,
}

/// A member and its key.
pub struct Member {
    pub id: String,
    pub key: SecretKey,
}

impl Member {
    pub fn pubkey(&self) -> String {
        self.key.public().to_hex()
    }
}

/// Whether a connection is a member's or a session's.
pub enum As<'a> {
    Member,
    Session(&'a SecretKey),
}

impl TestBroker {
    pub fn start(settings: Settings) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temp dir"), settings)
    }

    /// Stops the broker and starts it again on the same ledger.
    pub fn restart(mut self, settings: Settings) -> Self {
        self.stop();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().expect("a temp dir"));
        Self::start_in(dir, settings)
    }

    fn start_in(dir: tempfile::TempDir, settings: Settings) -> Self {
        let executor = Arc::new(smol::Executor::new());
        let runtime = Runtime::real(Arc::clone(&executor));
        let (trigger, shutdown) = Shutdown::new();
        let (executor_end, end) = Shutdown::new();
        let (ready, bound) = smol::channel::bounded(1);
        let options = Options {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: dir.path().join("broker"),
            public_authority: None,
            settings,
            on_ready: Some(Box::new(move |addr| ready.try_send(addr).expect("room for one"))),
        };
        let running = runtime.clone();
        let thread = std::thread::spawn(move || {
            smol::block_on(executor.run(async {
                claudemesh_broker::run(options, running, shutdown).await.expect("runs");
                end.wait().await;
            }));
        });
        let addr = bound.recv_blocking().expect("becomes ready");
        let mut this = Self {
            addr,
            runtime,
            mesh_id: String::new(),
            dir,
            trigger: Some(trigger),
            thread: Some(thread),
            executor_end: Some(executor_end),
        };
        this.mesh_id = smol::block_on(async {
            let admin = this.admin().await;
            match admin.meshes().await.expect("lists").pop() {
                Some(mesh) => mesh.id,
                None => admin.create_mesh("test").await.expect("creates").id,
            }
        });
        this
    }

    pub fn data_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("broker")
    }

    pub async fn admin(&self) -> Admin {
        Admin::open(&self.data_dir(), &self.runtime).await.expect("a way in")
    }

    /// A member whose key is made of `seed`.
    pub async fn member(&self, seed: u8) -> Member {
        let key = SecretKey::from_seed([seed; 32]);
        let admin = self.admin().await;
        let name = format!("name{seed}");
        let id = admin.add_member("test", &key.public().to_hex(), &name).await.expect("adds");
        Member { id, key }
    }

    /// A connection that has said nothing.
    pub async fn dial(&self) -> Client {
        let stream = TcpStream::connect(self.addr).await.expect("connects");
        stream.set_nodelay(true).expect("sends at once");
        let url = format!("ws://{}/ws", self.addr);
        let (socket, _) = client_async(url, stream).await.expect("upgrades");
        Client { socket }
    }

    /// The frame of a good hello.
    pub fn hello(&self, member: &Member, session_id: &str) -> Value {
        let at = self.runtime.now();
        let text = signed::hello(&self.mesh_id, &member.id, &member.key.public(), at);
        json!({
            "type": "hello", "meshId": self.mesh_id, "memberId": member.id,
            "pubkey": member.pubkey(), "sessionId": session_id, "pid": 1, "cwd": "/",
            "timestamp": at.0, "signature": member.key.sign(&text),
        })
    }

    /// The frame of a good session_hello.
    pub fn session_hello(&self, member: &Member, session: &SecretKey, session_id: &str) -> Value {
        let at = self.runtime.now();
        let until = Millis(at.0 + 3_600_000);
        let (parent, key) = (member.key.public(), session.public());
        let word = signed::session_attestation(&parent, &key, until);
        let text = signed::session_hello(&self.mesh_id, &parent, &key, at);
        json!({
            "type": "session_hello", "meshId": self.mesh_id, "parentMemberId": member.id,
            "parentMemberPubkey": parent.to_hex(), "sessionPubkey": key.to_hex(),
            "parentAttestation": {
                "sessionPubkey": key.to_hex(), "parentMemberPubkey": parent.to_hex(),
                "expiresAt": until.0, "signature": member.key.sign(&word),
            },
            "sessionId": session_id, "pid": 1, "cwd": "/", "timestamp": at.0,
            "signature": session.sign(&text),
        })
    }

    /// A connection that is in.
    pub async fn connect(&self, member: &Member, kind: As<'_>, session_id: &str) -> Client {
        let mut client = self.dial().await;
        client
            .send(match kind {
                As::Member => self.hello(member, session_id),
                As::Session(key) => self.session_hello(member, key, session_id),
            })
            .await;
        client.expect("hello_ack").await;
        client
    }

    pub fn stop(&mut self) {
        self.trigger.take();
        self.executor_end.take();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the broker ends without a panic");
        }
    }

    #[allow(dead_code, reason = "not every test file looks")]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a client was given.
#[derive(Debug)]
pub enum Given {
    Frame(Value),
    Close(u16, String),
    End,
}

pub struct Client {
    pub socket: WebSocketStream<TcpStream>,
}

impl Client {
    pub async fn send(&mut self, frame: Value) {
        self.raw(Message::text(frame.to_string())).await;
    }

    pub async fn raw(&mut self, message: Message) {
        self.socket.send(message).await.expect("writes");
    }

    /// The next thing that is not a ping.
    pub async fn next(&mut self) -> Given {
        let patience = async {
            smol::Timer::after(PATIENCE).await;
            panic!("nothing came")
        };
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Given::Frame(serde_json::from_str(&text).expect("json"));
                    }
                    Some(Ok(Message::Close(Some(close)))) => {
                        return Given::Close(close.code.into(), close.reason.to_string());
                    }
                    Some(Ok(Message::Close(None)) | Err(_)) | None => return Given::End,
                    Some(Ok(_)) => {}
                }
            }
        };
        smol::future::or(next, patience).await
    }

    /// The next frame of a type, passing over system events.
    pub async fn expect(&mut self, kind: &str) -> Value {
        loop {
            match self.next().await {
                Given::Frame(frame) if frame["type"] == kind && frame["subtype"] != "system" => {
                    return frame;
                }
                Given::Frame(frame) if frame["subtype"] == "system" => {}
                other => panic!("expected {kind}, got {other:?}"),
            }
        }
    }

    /// The next system event.
    pub async fn expect_event(&mut self, event: &str) -> Value {
        match self.next().await {
            Given::Frame(frame) if frame["event"] == event => frame,
            other => panic!("expected {event}, got {other:?}"),
        }
    }

    pub async fn expect_close(&mut self, code: u16, reason: &str) {
        loop {
            match self.next().await {
                Given::Close(got, why) => return assert_eq!((got, why.as_str()), (code, reason)),
                Given::Frame(frame) if frame["subtype"] == "system" => {}
                other => panic!("expected a close, got {other:?}"),
            }
        }
    }

    /// Sends a message and waits for its ack.
    pub async fn post(&mut self, to: &str, id: &str, fingerprint: u8) -> Value {
        self.send(message(to, id, fingerprint)).await;
        self.expect("ack").await
    }

    /// Waits for a push and acknowledges it.
    pub async fn take(&mut self) -> Value {
        let push = self.expect("push").await;
        self.send(json!({"type": "client_ack", "brokerMessageId": push["messageId"]})).await;
        push
    }

    /// Comes back once the broker has handled everything sent so far.
    pub async fn settle(&mut self) {
        self.send(json!({"type": "list_peers", "_reqId": "settle"})).await;
        self.expect("peers_list").await;
    }
}

/// The frame of a message.
pub fn message(to: &str, id: &str, fingerprint: u8) -> Value {
    json!({
        "type": "send", "id": id, "targetSpec": to, "priority": "next",
        "nonce": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX", "ciphertext": "Qk9E",
        "client_message_id": id, "request_fingerprint": format!("{fingerprint:02x}").repeat(32),
    })
}
