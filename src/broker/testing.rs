//! A broker without its port, for tests of its parts: a real ledger and a real hub.

use crate::ledger::{Ledger, Member, MemberLedger, Mesh, MeshLedger, SqliteLedger};
use crate::{Broker, Settings, connection};
use claudemesh_base::runtime::Runtime;
use claudemesh_fsm::id::Millis;
use futures_lite::future::or;
use smol::Executor;
use std::sync::Arc;

pub(crate) struct TestBroker {
    pub(crate) parts: Broker,
    pub(crate) connections: Arc<connection::Context>,
    pub(crate) sqlite: SqliteLedger,
    pub(crate) executor: Arc<Executor<'static>>,
    pub(crate) dir: tempfile::TempDir,
}

impl TestBroker {
    /// With a mesh `m`.
    pub(crate) fn new(settings: Settings) -> Self {
        let dir = tempfile::tempdir().expect("a temp dir");
        let executor = Arc::new(Executor::new());
        let runtime = Runtime::real(Arc::clone(&executor));
        let sqlite = SqliteLedger::open(dir.path()).expect("opens");
        let ledger: Arc<dyn Ledger> = Arc::new(sqlite.clone());
        let parts = Broker::new(ledger, settings, dir.path(), "127.0.0.1:1".to_owned(), &runtime);
        let mesh = Mesh {
            id: "m".into(),
            slug: "test".into(),
            owner_pubkey: "0".repeat(64),
            root_key: "r".into(),
            connection_policy: "prefer_newest".into(),
            created_at: Millis(1),
        };
        let connections = Arc::clone(&parts.port.connections);
        let this = Self { parts, connections, sqlite, executor, dir };
        assert!(this.run(this.sqlite.insert_mesh(mesh)).expect("inserts"));
        this
    }

    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        let dispatching = async {
            self.parts.dispatcher.run().await;
            panic!("the dispatcher ended")
        };
        smol::block_on(self.executor.run(or(work, dispatching)))
    }

    pub(crate) fn member(&self, id: &str, pubkey: &str) -> Member {
        self.run(async {
            let added = self.sqlite.add_member("m", id, pubkey, id, "member", Millis(1));
            added.await.expect("adds");
            self.sqlite.member("m", pubkey).await.expect("reads").expect("is there")
        })
    }
}
