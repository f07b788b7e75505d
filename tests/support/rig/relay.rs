//! A relay that does to a connection what networks do.

use super::text;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

/// A TCP relay in front of a broker: it can fall silent, or cut everything. It ends with its handle,
/// and all its connections with it: one process has the relays of many tests.
pub struct Relay {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    target: AtomicU16,
    is_over: AtomicBool,
    /// Bytes from the client are swallowed: the broker hears nothing, the client hears nothing back.
    is_deaf: AtomicBool,
    /// Bytes from the broker are swallowed: it hears the client, and the client hears nothing.
    is_mute: AtomicBool,
    /// Connections are refused.
    is_closed: AtomicBool,
    /// A connection is cut as soon as the broker says something on it.
    is_cutting: AtomicBool,
    /// What the broker said, whether or not it was passed on; `None` until somebody asks.
    heard: Mutex<Option<Vec<u8>>>,
    streams: Mutex<Vec<TcpStream>>,
}

impl Relay {
    pub fn start(target: u16) -> Self {
        Self::start_on(0, target)
    }

    /// The same, on a port of one's own choice.
    pub fn start_on(port: u16, target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("binds");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            target: AtomicU16::new(target),
            is_over: AtomicBool::new(false),
            is_deaf: AtomicBool::new(false),
            is_mute: AtomicBool::new(false),
            heard: Mutex::new(None),
            is_closed: AtomicBool::new(false),
            is_cutting: AtomicBool::new(false),
            streams: Mutex::default(),
        });
        let for_thread = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if for_thread.is_over.load(Ordering::SeqCst) {
                    return;
                }
                if !for_thread.is_closed.load(Ordering::SeqCst) {
                    for_thread.clone().connect(client);
                }
            }
        });
        Self { port, shared }
    }

    /// Swallows what clients say from now on, or no longer.
    pub fn set_deaf(&self, is_deaf: bool) {
        self.shared.is_deaf.store(is_deaf, Ordering::SeqCst);
    }

    /// Swallows what the broker says from now on, or no longer.
    pub fn set_mute(&self, is_mute: bool) {
        self.shared.is_mute.store(is_mute, Ordering::SeqCst);
    }

    /// Loses every answer from now on, and the connection with it; or no longer.
    pub fn set_cutting(&self, is_cutting: bool) {
        self.shared.is_cutting.store(is_cutting, Ordering::SeqCst);
    }

    /// Leads new connections to another port: the broker has moved.
    pub fn retarget(&self, target: u16) {
        self.shared.target.store(target, Ordering::SeqCst);
    }

    /// What the broker said since this was last called; the first call begins the record.
    pub fn heard(&self) -> String {
        let mut heard = self.shared.heard.lock().expect("not poisoned");
        text(&heard.replace(Vec::new()).unwrap_or_default())
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        for stream in self.shared.streams.lock().expect("not poisoned").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Cuts every connection and takes no new ones, or takes them again.
    pub fn set_closed(&self, is_closed: bool) {
        self.shared.is_closed.store(is_closed, Ordering::SeqCst);
        if is_closed {
            self.cut();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn connect(self: Arc<Self>, client: TcpStream) {
        let Ok(broker) = TcpStream::connect(("127.0.0.1", self.target.load(Ordering::SeqCst)))
        else {
            return;
        };
        let copies = (client.try_clone(), broker.try_clone());
        let (Ok(client_copy), Ok(broker_copy)) = copies else { return };
        {
            let mut streams = self.streams.lock().expect("not poisoned");
            // What has ended needs no cut any more.
            streams.retain(|stream| stream.peer_addr().is_ok());
            streams.extend(client.try_clone());
            streams.extend(broker.try_clone());
        }
        let upward = self.clone();
        std::thread::spawn(move || {
            pump(client_copy, broker, |_| upward.is_deaf.load(Ordering::SeqCst))
        });
        std::thread::spawn(move || {
            pump(broker_copy, client, |bytes| {
                if let Some(heard) = self.heard.lock().expect("not poisoned").as_mut() {
                    heard.extend_from_slice(bytes);
                }
                if self.is_cutting.load(Ordering::SeqCst) {
                    self.streams.lock().expect("not poisoned").iter().for_each(|stream| {
                        let _ = stream.shutdown(Shutdown::Both);
                    });
                }
                self.is_mute.load(Ordering::SeqCst) || self.is_cutting.load(Ordering::SeqCst)
            })
        });
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, swallows: impl Fn(&[u8]) -> bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read) = from.read(&mut buffer) {
        let bytes = &buffer[..read];
        if read == 0 || (!swallows(bytes) && to.write_all(bytes).is_err()) {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
