//! A broker and the first two members of its mesh.

use super::home::QUICK;
use super::{Broker, Home};

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
