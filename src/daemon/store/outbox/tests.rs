//! What an operator can do to rows, and how finished ones grow small, on a real database.

mod full;
mod indices;
mod operator;
mod shrinking;

use super::*;
use claudemesh_base::db::{Durability, Kind, Tx};
use claudemesh_fsm::accept::AcceptDecision;
use claudemesh_fsm::envelope::{Destination, Draft, Priority, Recipient};
use claudemesh_fsm::id::{BrokerMessageId, Fingerprint, RowId};
use claudemesh_fsm::outbox::{Ack, Inflight, Row};
use smol::future::block_on;

const MESH: &str = "demo";
/// When everything here begins: 2024-11-22.
const START_MS: i64 = 1_732_238_266_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const FOREVER: Millis = Millis(i64::MAX);

/// An outbox in a directory of its own.
struct Bench {
    dir: tempfile::TempDir,
    outbox: Outbox,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temp dir");
        let outbox = open(&dir);
        Self { dir, outbox }
    }

    /// The same file, as the next start finds it.
    fn reopen(&mut self) {
        self.outbox.close();
        self.outbox = open(&self.dir);
    }

    /// A row that waits; its row id is `row-<id>`.
    fn accept(&self, id: &str) -> AcceptOutcome {
        self.accept_body(id, b"hola")
    }

    fn accept_body(&self, id: &str, body: &[u8]) -> AcceptOutcome {
        block_on(self.outbox.accept(new_row(id, body))).expect("accepts")
    }

    /// What a retry is told: the same request, another one, and one that names another mesh.
    fn answers(&self, id: &str) -> [AcceptOutcome; 3] {
        let existing = |fingerprint, mesh: Option<&str>| {
            let NewRow { key, envelope, .. } = new_row(id, b"hola");
            let key = RequestKey { explicit_mesh: mesh.map(str::to_owned), ..key };
            let draft = Draft { fingerprint, ..envelope.draft };
            block_on(self.outbox.existing(key, draft)).expect("reads").expect("has a row")
        };
        let (same, other) = (Fingerprint::new([7; 32]), Fingerprint::new([8; 32]));
        [existing(same, Some(MESH)), existing(other, None), existing(same, Some("work"))]
    }

    /// Claims the only rows that are due.
    fn claim(&self) -> Vec<Row<Inflight>> {
        let claimed = self.outbox.claim_due(MESH, FOREVER, Millis(i64::MIN), 100);
        block_on(claimed).expect("claims").rows
    }

    fn done(&self, id: &str) {
        self.accept(id);
        let row = self.claim().pop().expect("a row");
        let done = block_on(self.outbox.store(row.acked(ack(id))));
        assert!(done.expect("stores").is_some());
    }

    fn dead(&self, id: &str) {
        self.accept(id);
        let row = self.claim().pop().expect("a row");
        let dead = block_on(self.outbox.store(row.refused("blocked".into())));
        assert!(dead.expect("stores").is_some());
    }

    /// A row that waits again, and whose attempt was never answered.
    fn unanswered(&self, id: &str) {
        self.accept(id);
        let row = self.claim().pop().expect("a row");
        let lost = block_on(self.outbox.store(row.lost("silence".into(), FOREVER)));
        assert!(lost.expect("stores").is_some());
    }

    fn abort(&self, id: &str) -> AbortOutcome {
        self.abort_at(id, Millis(START_MS))
    }

    fn abort_at(&self, id: &str, now: Millis) -> AbortOutcome {
        let id = RowId::trusted(format!("row-{id}"));
        let request = AbortRequest { id, aborted_by: "alice".into(), now };
        block_on(self.outbox.abort(request)).expect("answers")
    }

    fn requeue(&self, id: &str, new_id: &str) -> RequeueOutcome {
        block_on(self.outbox.requeue(requeue_of(id, new_id))).expect("answers")
    }

    fn view(&self, id: &str) -> RowView {
        let id = ClientMessageId::trusted(id.to_owned());
        block_on(self.outbox.view(&id)).expect("reads").expect("has a row")
    }

    /// Runs a statement behind everybody's back.
    fn tamper(&self, sql: &'static str) {
        let job = move |tx: &Tx<'_>| tx.execute(sql, &[]);
        let done = self.outbox.db.write(Durability::Relaxed, job, |_: &Result<usize, Error>| ());
        block_on(done).expect("runs");
    }

    fn integer(&self, sql: &'static str) -> i64 {
        let read = self.outbox.db.read(move |tx| tx.query_row(sql, &[], |row| row.int(0)));
        block_on(read).expect("reads").expect("a row")
    }
}

fn open(dir: &tempfile::TempDir) -> Outbox {
    let path = dir.path().join("outbox.db");
    Outbox::open(&path, Driver::Threaded, Arc::new(|_| ())).expect("opens")
}

fn ack(id: &str) -> Ack {
    Ack {
        broker_message_id: BrokerMessageId::trusted(format!("broker-{id}")),
        history_id: Some(format!("history-{id}")),
        delivered_at: Millis(START_MS + 1),
        recipients: Some(1),
    }
}

fn new_row(id: &str, body: &[u8]) -> NewRow {
    let key = "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394".to_owned();
    let recipient = Recipient { routing_key: key.clone(), member_key: key };
    let draft = Draft {
        destination: Destination::Member("bob".into()),
        priority: Priority::Next,
        meta: Some("{\"ticket\":42}".into()),
        reply_to_id: Some("m0".into()),
        mentions: Vec::new(),
        payload: body.to_vec(),
        fingerprint: Fingerprint::new([7; 32]),
    };
    NewRow {
        id: RowId::trusted(format!("row-{id}")),
        key: ClientMessageId::trusted(id.to_owned()).into(),
        envelope: draft.address(MESH, |_| Ok::<_, ()>(recipient)).expect("an envelope"),
        enqueued_at: Millis(START_MS),
    }
}

fn requeue_of(id: &str, new_id: &str) -> RequeueRequest {
    RequeueRequest {
        id: RowId::trusted(format!("row-{id}")),
        new_id: RowId::trusted(format!("row-{new_id}")),
        new_client_message_id: ClientMessageId::trusted(new_id.to_owned()),
        patch: None,
        check_size: Box::new(|_, _| Ok(())),
        aborted_by: "alice".into(),
        now: Millis(START_MS),
        force: false,
    }
}
