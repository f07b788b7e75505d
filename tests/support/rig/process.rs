//! Brokers and daemons as child processes.

use super::home::BINARY;
use super::http::{Response, get, post};
use super::{Home, PATIENCE, eventually, text, unused_port};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A daemon's command line; the home follows.
const DAEMON_UP: [&str; 4] = ["daemon", "up", "--foreground", "--persistent"];

/// A child that does not outlive its handle.
pub struct Process {
    pub(super) child: Child,
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
    /// Starts one on `port` (0: an unused one) with its data in `home`.
    pub fn start(home: &Home, port: u16) -> Self {
        Self::start_with(home, port, &[])
    }

    /// The same, with flags of one's own.
    pub fn start_with(home: &Home, port: u16, flags: &[&str]) -> Self {
        let port = if port == 0 { unused_port() } else { port };
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

    /// Waits until the link of the first mesh is in this state.
    pub fn wait_for_link(&self, state: &str) {
        self.get_once("/v1/health", &format!("a link that is {state}"), |health| {
            health["meshes"][0]["link"] == state
        });
    }

    /// What `/v1/health` says of one mesh.
    pub fn mesh(&self, slug: &str) -> Value {
        let health = self.get("/v1/health").json();
        let meshes = health["meshes"].as_array().expect("meshes");
        meshes.iter().find(|mesh| mesh["mesh"] == slug).cloned().unwrap_or_default()
    }

    /// Waits until the link of one mesh is in this state, and says what it says then.
    pub fn wait_for_link_of(&self, slug: &str, state: &str) -> Value {
        eventually(&format!("{slug} to be {state}"), || {
            Some(self.mesh(slug)).filter(|mesh| mesh["link"] == state)
        })
    }

    /// The first answer to a GET whose body `is_so`: one that a test may pin, because nothing can
    /// happen between the look and the answer.
    pub fn get_once(&self, path: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Response {
        eventually(what, || Some(self.get(path)).filter(|answer| is_so(&answer.json())))
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
