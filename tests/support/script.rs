//! A broker that does what a test says: a listener, a thread for each connection, and the few
//! frames a link needs to open.

use async_tungstenite::tungstenite::{self, Message, WebSocket};
use serde_json::{Value, json};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A WebSocket that blocks.
pub type Socket = WebSocket<TcpStream>;

/// A listener whose connections a script serves. It listens until its handle is dropped.
pub struct Script {
    pub port: u16,
    is_over: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Script {
    /// `serve` gets each connection and its number, from 0.
    pub fn start(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = listener.local_addr().expect("an address").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, counted, serve) = (is_over.clone(), connections.clone(), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let serve = serve.clone();
                std::thread::spawn(move || serve(stream, number));
            }
        });
        Self { port, is_over, connections }
    }

    /// How many connections there were so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Upgrades, greets and negotiates; `None` if the other side goes away meanwhile.
pub fn open(stream: TcpStream) -> Option<Socket> {
    let mut socket = tungstenite::accept(stream).ok()?;
    receive_type(&mut socket, "hello")?;
    say(&mut socket, &json!({"type": "hello_ack", "presenceId": "p", "memberDisplayName": "m"}))?;
    receive_type(&mut socket, "feature_negotiation_request")?;
    say(&mut socket, &negotiated())?;
    Some(socket)
}

pub fn negotiated() -> Value {
    json!({"type": "feature_negotiation_response", "missing_required": [], "supported": {
        "client_message_id_dedupe": {"params": {"version": 1, "mode": "permanent",
            "request_fingerprint": true}},
        "concurrent_connection_policy": {"params": {"version": 1}},
    }})
}

/// The next frame of that type.
pub fn receive_type(socket: &mut Socket, wanted: &str) -> Option<Value> {
    loop {
        let frame = receive(socket)?;
        if frame["type"] == wanted {
            return Some(frame);
        }
    }
}

/// The next text frame.
pub fn receive(socket: &mut Socket) -> Option<Value> {
    loop {
        if let Message::Text(text) = socket.read().ok()? {
            return serde_json::from_str(&text).ok();
        }
    }
}

pub fn say(socket: &mut Socket, frame: &Value) -> Option<()> {
    socket.send(Message::text(frame.to_string())).ok()
}
