//! A broker without its port, for tests of its parts: a real ledger and a real hub.

use super::{
    Bounds, Broker, Counters, DiskReserve, Hub, Ledger, LegacyNetwork, RateLimiter, Settings,
};
use crate::ledger::{Member, Mesh};
use claudemesh_base::log::Repeated;
use claudemesh_base::runtime::{Runtime, Slots};
use claudemesh_fsm::id::Millis;
use smol::Executor;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) struct TestBroker {
    pub(crate) broker: Arc<Broker>,
    pub(crate) executor: Arc<Executor<'static>>,
    _dir: tempfile::TempDir,
}

impl TestBroker {
    /// With a mesh `m`.
    pub(crate) fn new(settings: Settings) -> Self {
        let dir = tempfile::tempdir().expect("a temp dir");
        let executor = Arc::new(Executor::new());
        let runtime = Runtime::real(Arc::clone(&executor));
        let counters = Arc::new(Counters::default());
        let bounds = Bounds {
            lease: Duration::from_millis(settings.lease_ms),
            presence_lease: Duration::from_millis(settings.presence_lease_ms),
            connections_max: settings.connections_per_mesh_max,
        };
        let broker = Broker {
            ledger: Ledger::open(dir.path()).expect("opens"),
            hub: Hub::new(bounds, Arc::clone(&counters)).0,
            limiter: settings.rate.map(RateLimiter::new),
            ledger_failing: Repeated::default(),
            reserve: DiskReserve::new(dir.path().to_owned(), settings.disk_reserved_bytes),
            faithful: settings.faithful.then(|| LegacyNetwork::new(settings.rate)),
            counters,
            settings,
            authority: "127.0.0.1:1".to_owned(),
            started_at: runtime.monotonic(),
            sockets: Slots::new(1),
            alive: Mutex::new(None),
            dir: dir.path().to_owned(),
            runtime,
        };
        let mesh = Mesh {
            id: "m".into(),
            slug: "test".into(),
            owner_pubkey: "0".repeat(64),
            root_key: "r".into(),
            connection_policy: "prefer_newest".into(),
            created_at: Millis(1),
        };
        let this = Self { broker: Arc::new(broker), executor, _dir: dir };
        assert!(this.run(this.broker.ledger.insert_mesh(mesh)).expect("inserts"));
        this
    }

    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        smol::block_on(self.executor.run(work))
    }

    pub(crate) fn member(&self, id: &str, pubkey: &str) -> Member {
        let ledger = &self.broker.ledger;
        self.run(async {
            let added = ledger.add_member("m", id, pubkey, id, "member", Millis(1));
            added.await.expect("adds");
            ledger.member("m", pubkey).await.expect("reads").expect("is there")
        })
    }
}
