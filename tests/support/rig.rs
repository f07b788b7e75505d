//! Real processes for black-box tests: a broker, daemons, and a relay between them.
//!
//! Every process gets a cleared environment and a home of its own in a temp dir, and is killed by
//! pid when its handle is dropped. Nothing here knows the code under test: requests are bytes on a
//! socket.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything here is waited for before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

const BINARY: &str = env!("CARGO_BIN_EXE_claudemesh");

/// Timers short enough for tests; the same code as with the long ones.
const QUICK: &str = "[link]\nbackoff_cap_ms = 200\n[outbox]\nbackoff_cap_ms = 400\n";

/// A daemon's command line; the home follows.
const DAEMON_UP: [&str; 4] = ["daemon", "up", "--foreground", "--persistent"];

/// Polls until `check` gives something.
///
/// # Panics
/// When it does not in [`PATIENCE`].
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One identity: configuration and daemon directory in a temp dir.
pub struct Home {
    dir: TempDir,
}

impl Home {
    /// An empty one, with short timers.
    pub fn new() -> Self {
        Self::with_config(QUICK)
    }

    /// One with this `config.toml`.
    pub fn with_config(toml: &str) -> Self {
        // Directly under /tmp: socket paths have room for about 100 bytes.
        let dir = tempfile::Builder::new().prefix("cm").tempdir_in("/tmp").expect("a temp dir");
        let daemon_dir = dir.path().join("daemon");
        std::fs::create_dir(&daemon_dir).expect("creates");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&daemon_dir, private).expect("is ours");
        std::fs::write(daemon_dir.join("config.toml"), toml).expect("writes");
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn daemon_dir(&self) -> PathBuf {
        self.path().join("daemon")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(args).arg("--home").arg(self.path()).env_clear().stdin(Stdio::null());
        command
    }

    /// Runs the command line to its end.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("runs")
    }

    /// Runs the command line; `None` if it has not ended after `limit`, and then it is killed.
    pub fn cli_within(&self, limit: Duration, args: &[&str]) -> Option<Output> {
        let mut command = self.command(args);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
        let mut process = Process { child };
        let deadline = Instant::now() + limit;
        while process.is_running() {
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        process.child.stdout.take()?.read_to_end(&mut stdout).expect("reads");
        process.child.stderr.take()?.read_to_end(&mut stderr).expect("reads");
        let status = process.child.wait().expect("waits");
        Some(Output { status, stdout, stderr })
    }

    /// Runs the command line, which must succeed, and reads its JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.cli(&[args, &["--json"]].concat());
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{args:?}: {out}{err}");
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{args:?}: {out}"))
    }

    /// Makes every mesh of `config.json` reach its broker through `port`.
    pub fn reach_broker_through(&self, port: u16) {
        self.change_meshes(|mesh| mesh["brokerUrl"] = format!("ws://127.0.0.1:{port}/ws").into());
    }

    /// The same for one mesh.
    pub fn reach_broker_of(&self, slug: &str, port: u16) {
        self.change_meshes(|mesh| {
            if mesh["slug"] == slug {
                mesh["brokerUrl"] = format!("ws://127.0.0.1:{port}/ws").into();
            }
        });
    }

    fn change_meshes(&self, change: impl FnMut(&mut Value)) {
        let path = self.path().join("config.json");
        let config = std::fs::read_to_string(&path).expect("reads");
        let mut config: Value = serde_json::from_str(&config).expect("is JSON");
        config["meshes"].as_array_mut().expect("meshes").iter_mut().for_each(change);
        std::fs::write(&path, config.to_string()).expect("writes");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A child that does not outlive its handle.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and reaped.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signals");
        self.wait()
    }

    /// Waits for the end, and says the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        eventually("a process to end", || self.child.try_wait().expect("waits")).code()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("waits").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `claudemesh broker`.
pub struct Broker {
    pub process: Process,
    pub port: u16,
}

impl Broker {
    /// Starts one on `port` (0: any) with its data in `home`.
    pub fn start(home: &Home, port: u16) -> Self {
        Self::start_with(home, port, &[])
    }

    /// The same, with flags of one's own.
    pub fn start_with(home: &Home, port: u16, flags: &[&str]) -> Self {
        let listen = format!("127.0.0.1:{port}");
        let data = home.path().join("broker");
        let data = data.to_str().expect("is UTF-8");
        let args = ["broker", "--listen", &listen, "--data", data, "--json"];
        let mut command = home.command(&[&args, flags].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("is piped");
        BufReader::new(stdout).read_line(&mut line).expect("reads");
        let ready: Value = serde_json::from_str(&line).unwrap_or_default();
        let listen = ready["listen"].as_str().unwrap_or_else(|| panic!("the broker says: {line}"));
        let port = listen.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
        Self { process: Process { child }, port }
    }
}

/// `claudemesh daemon up --foreground`.
pub struct Daemon {
    pub process: Process,
    socket: PathBuf,
}

impl Daemon {
    /// Starts one and waits until its socket answers.
    pub fn start(home: &Home) -> Self {
        Self::start_with(home, &["--no-tcp"])
    }

    /// The same, with flags of one's own.
    pub fn start_with(home: &Home, flags: &[&str]) -> Self {
        let daemon = Self::spawn_with(home, flags);
        daemon.wait_until_it_answers();
        daemon
    }

    /// Starts one and waits for nothing.
    pub fn spawn(home: &Home) -> Self {
        Self::spawn_with(home, &["--no-tcp"])
    }

    fn spawn_with(home: &Home, flags: &[&str]) -> Self {
        Self::spawn_command(home, home.command(&[&DAEMON_UP, flags].concat()))
    }

    /// Starts one as the child of `wrapper`, a program that takes a command line, and waits for
    /// nothing. The process is the wrapper's.
    pub fn spawn_under(home: &Home, wrapper: &[&str]) -> Self {
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(BINARY).args(DAEMON_UP);
        command.arg("--no-tcp").arg("--home").arg(home.path());
        command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        Self::spawn_command(home, command)
    }

    fn spawn_command(home: &Home, mut command: Command) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        let socket = home.daemon_dir().join("daemon.sock");
        Self { process: Process { child }, socket }
    }

    pub fn wait_until_it_answers(&self) {
        eventually("the daemon's socket", || self.try_request(&get("/v1/version")).ok());
    }

    /// Sends raw bytes and reads everything until the daemon closes.
    pub fn try_request(&self, request: &str) -> std::io::Result<Response> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Response::parse(&text(&bytes)).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }

    pub fn get(&self, path: &str) -> Response {
        self.try_request(&get(path)).expect("answers")
    }

    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
        self.try_request(&post(path, headers, &body.to_string())).expect("answers")
    }

    pub fn send(&self, body: &Value) -> Response {
        self.post("/v1/send", &[], body)
    }

    /// The state of a message's row.
    pub fn status(&self, id: &str) -> String {
        let response = self.get(&format!("/v1/messages/{id}"));
        response.json()["status"].as_str().unwrap_or("unknown").to_owned()
    }

    pub fn wait_for_status(&self, id: &str, status: &str) {
        eventually(&format!("{id} to be {status}"), || (self.status(id) == status).then_some(()));
    }

    /// Waits until everybody the message is for has stored it.
    pub fn wait_for_receipt(&self, id: &str) {
        let path = format!("/v1/messages/{id}");
        let delivered = || self.get(&path).json()["receipt"]["delivered"].as_bool();
        eventually("the receipt", || delivered().filter(|it| *it));
    }

    pub fn wait_for_link(&self, state: &str) {
        eventually(&format!("a link that is {state}"), || {
            (self.get("/v1/health").json()["meshes"][0]["link"] == state).then_some(())
        });
    }

    /// Waits until the roster lists a member of this name.
    pub fn wait_for_peer(&self, name: &str) {
        eventually(&format!("a peer called {name}"), || {
            let peers = self.get("/v1/peers").json();
            let peers = peers["peers"].as_array()?.clone();
            peers.iter().any(|peer| peer["displayName"] == name).then_some(())
        });
    }

    /// Everything in the inbox, newest first.
    pub fn inbox(&self) -> Vec<Value> {
        let mut messages = Vec::new();
        let mut path = "/v1/inbox?limit=1000".to_owned();
        loop {
            let page = self.get(&path).json();
            messages.extend(page["items"].as_array().expect("items").clone());
            match page["next_cursor"].as_str() {
                None => return messages,
                Some(cursor) => path = format!("/v1/inbox?limit=1000&cursor={cursor}"),
            }
        }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Writes a raw request and reads the answer until the other side closes.
pub fn exchange(mut stream: impl Read + Write, request: &str) -> Response {
    stream.write_all(request.as_bytes()).expect("writes");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("reads");
    Response::parse(&text(&bytes)).unwrap_or_else(|| panic!("{request}: {}", text(&bytes)))
}

/// A GET on a connection of its own.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
}

/// A POST on a connection of its own.
pub fn post(path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\n{more}content-length: {}\r\n\r\n{body}",
        body.len(),
    )
}

/// An HTTP response, whole.
#[derive(Debug, Clone)]
pub struct Response {
    pub status_line: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    /// A whole answer out of what was read.
    pub fn of(text: &str) -> Self {
        Self::parse(text).unwrap_or_else(|| panic!("no answer: {text}"))
    }

    fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.lines();
        let status_line = lines.next()?.to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Some(Self { status_line, headers, body: body.to_owned() })
    }

    pub fn status(&self) -> u16 {
        self.status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

/// A broker and the meshes' first two members, alice and bob, with one mesh `demo`.
pub struct Mesh {
    pub broker_home: Home,
    pub broker: Broker,
    pub alice: Home,
    pub bob: Home,
}

impl Mesh {
    pub fn new() -> Self {
        Self::with(QUICK, &[])
    }

    /// The same, with this `config.toml` for everybody and these flags for the broker.
    pub fn with(toml: &str, broker_flags: &[&str]) -> Self {
        let home = || Home::with_config(toml);
        let (broker_home, alice, bob) = (home(), home(), home());
        let broker = Broker::start_with(&broker_home, 0, broker_flags);
        let data = broker_home.path().join("broker");
        let data = data.to_str().expect("is UTF-8");
        alice.json(&["mesh", "create", "demo", "--name", "alice", "--data", data]);
        let invite = alice.json(&["mesh", "invite", "demo", "--data", data]);
        bob.json(&["join", invite["link"].as_str().expect("a link"), "--name", "bob"]);
        Self { broker_home, broker, alice, bob }
    }

    /// Stops the broker and starts it again where it was.
    pub fn restart_broker(&mut self) {
        self.broker.process.kill();
        self.broker = Broker::start(&self.broker_home, self.broker.port);
    }
}

/// A TCP relay in front of a broker: it can fall silent, or cut everything.
pub struct Relay {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    target: AtomicU16,
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
