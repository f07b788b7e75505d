//! The broker of the simulation: the product's own dedupe decision over a small durable store, one
//! synced transaction per message, answers and pushes only after its commit (§17.1).

use super::disk::{Disk, Point};
use super::net::{Frame, Net, Way};
use super::world::Rng;
use claudemesh_base::db::{Db, Driver, Durability, Error, Migrations, Tx};
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire;
use claudemesh_fsm::dedupe::{self, DedupeDecision, DedupeEntry};
use claudemesh_fsm::id::{BrokerMessageId, Fingerprint, Millis};
use std::sync::{Arc, Mutex};
use std::time::Duration;

static SCHEMA: Migrations = Migrations {
    name: "broker",
    steps: &["CREATE TABLE message (id TEXT PRIMARY KEY, sender INTEGER NOT NULL, \
              cmid TEXT NOT NULL, fingerprint BLOB NOT NULL, target TEXT NOT NULL, \
              frame TEXT NOT NULL); \
              CREATE TABLE dedupe (sender INTEGER NOT NULL, cmid TEXT NOT NULL, \
              fingerprint BLOB NOT NULL, message TEXT NOT NULL, PRIMARY KEY (sender, cmid)); \
              CREATE TABLE delivery (message TEXT NOT NULL, recipient INTEGER NOT NULL, \
              PRIMARY KEY (message, recipient))"],
    adoption: None,
};
pub const FILE: &str = "broker.db";
/// How often what was not acknowledged is pushed again.
const LEASE: Duration = Duration::from_secs(5);

/// How unwilling the broker is, in thousandths of all new messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mood {
    pub busy: u64,
    pub rate_limited: u64,
    pub offline: u64,
    pub refused: u64,
}

/// One life of the broker.
#[derive(Clone)]
pub struct Broker {
    pub db: Db,
    pub disk: Arc<Disk>,
    pub net: Arc<Net>,
    pub runtime: Runtime,
    /// The daemons' keys, in hex.
    pub keys: [String; 2],
    /// Which connection each daemon is on.
    pub conns: Arc<Mutex<[Option<u64>; 2]>>,
    pub mood: Arc<Mutex<(Mood, Rng)>>,
    /// A mutant: ids are not deduplicated.
    pub no_dedupe: bool,
}

enum Outcome {
    Took { id: String, code: u16, recipients: Vec<usize> },
    Refused { code: Option<u16>, words: &'static str },
}

type Mail = (String, usize, String);

impl Broker {
    pub fn open(disk: &Arc<Disk>) -> Db {
        Db::open(&disk.dir.join(FILE), &SCHEMA, Driver::Inline(disk.clone())).expect("opens")
    }

    /// Serves what arrives.
    pub async fn run(self, frames: smol::channel::Receiver<(u64, Frame)>) {
        while let Ok((conn, frame)) = frames.recv().await {
            let Some(daemon) = self.net.daemon_of(conn) else { continue };
            match frame {
                // One of a connection that is cut already comes too late to be answered.
                Frame::Hello if !self.net.is_open(conn) => {}
                Frame::Hello => {
                    self.conns.lock().expect("whole")[daemon] = Some(conn);
                    self.push_waiting(daemon).await;
                }
                Frame::Send(send) => self.take(conn, daemon, *send).await,
                Frame::ClientAck(ack) => self.acknowledged(daemon, ack).await,
                Frame::ReceiptsRequest(request) => self.tell_receipts(conn, daemon, request).await,
                Frame::Ack(_) | Frame::Push(_) | Frame::Receipts(_) => {}
            }
        }
    }

    /// Pushes again what nobody acknowledged.
    pub async fn run_leases(self) {
        loop {
            self.runtime.sleep(LEASE).await;
            for daemon in 0..2 {
                self.push_waiting(daemon).await;
            }
        }
    }

    fn say(&self, conn: u64, frame: Frame) {
        if self.disk.passes(Point::BeforeSend) {
            self.net.send(conn, Way::ToDaemon, frame);
            self.disk.passes(Point::AfterSend);
        }
    }

    async fn take(&self, conn: u64, sender: usize, send: wire::SendFrame) {
        let name = send.id.clone().unwrap_or_default();
        let recipients = self.route(sender, &send.target_spec);
        let new_id = self.runtime.mint_id();
        let refusal = self.refusal(&send.target_spec);
        let skip_dedupe = self.no_dedupe;
        let job =
            move |tx: &Tx<'_>| accept(tx, sender, &send, new_id, recipients, refusal, skip_dedupe);
        let stored = self.db.write(Durability::Synced, job, |_: &Result<Outcome, Error>| ()).await;
        // Every message of this mesh of two is for one.
        let answer = wire::AckFrame { id: name, recipients: Some(1), ..wire::AckFrame::default() };
        let (answer, recipients) = match stored {
            Ok(Outcome::Took { id, code, recipients }) => {
                let history_id = Some(format!("h-{id}"));
                let code = Some(code);
                (
                    wire::AckFrame { message_id: id, queued: true, code, history_id, ..answer },
                    recipients,
                )
            }
            Ok(Outcome::Refused { code, words }) => {
                (wire::AckFrame { error: Some(words.into()), code, ..answer }, Vec::new())
            }
            Err(_) => {
                let error = Some("the ledger cannot be written".into());
                (wire::AckFrame { error, code: Some(503), ..answer }, Vec::new())
            }
        };
        let pushed = answer.message_id.clone();
        self.say(conn, Frame::Ack(Box::new(answer)));
        for recipient in recipients {
            self.push_some(recipient, Some(pushed.clone())).await;
        }
    }

    fn route(&self, sender: usize, target: &str) -> Vec<usize> {
        if target == "*" {
            return vec![1 - sender];
        }
        (0..2).filter(|daemon| self.keys[*daemon] == target && *daemon != sender).collect()
    }

    fn refusal(&self, target: &str) -> Option<(Option<u16>, &'static str)> {
        if target != "*" && !self.keys.iter().any(|key| key == target) {
            return Some((Some(403), "blocked by recipient grants (sender lacks dm capability)"));
        }
        let mut guard = self.mood.lock().expect("whole");
        let (mood, rng) = &mut *guard;
        let die = rng.below(1000);
        let marks = [mood.busy, mood.rate_limited, mood.offline, mood.refused];
        let answers = [
            (Some(503), "busy"),
            (Some(429), "rate limit: slow down"),
            (None, "no connected peer for target"),
            (Some(413), "payload too large"),
        ];
        let mut sum = 0;
        for (mark, answer) in marks.into_iter().zip(answers) {
            sum += mark;
            if die < sum {
                return Some(answer);
            }
        }
        None
    }

    async fn push_waiting(&self, daemon: usize) {
        self.push_some(daemon, None).await;
    }

    async fn push_some(&self, daemon: usize, only: Option<String>) {
        let Some(conn) = self.conns.lock().expect("whole")[daemon] else { return };
        if !self.net.is_open(conn) {
            return;
        }
        let query = move |tx: &Tx<'_>| {
            let sql = "SELECT m.id, m.sender, m.frame FROM delivery d JOIN message m \
                       ON m.id = d.message WHERE d.recipient = ? AND (?2 IS NULL OR m.id = ?2) \
                       ORDER BY m.rowid";
            let params = [(daemon as i64).into(), only.as_deref().into()];
            tx.query(sql, &params, |row| Ok((row.text(0)?, row.int(1)? as usize, row.text(2)?)))
        };
        let waiting: Result<Vec<Mail>, Error> = self.db.read(query).await;
        for (id, sender, frame) in waiting.unwrap_or_default() {
            let Ok(send) = serde_json::from_str::<wire::SendFrame>(&frame) else { continue };
            let key = self.keys[sender].clone();
            let push = wire::PushFrame {
                message_id: id,
                sender_pubkey: key.clone(),
                sender_member_pubkey: Some(key),
                priority: send.priority,
                nonce: send.nonce,
                ciphertext: send.ciphertext,
                ext_nonce: send.ext_nonce,
                ext_ciphertext: send.ext_ciphertext,
                target_spec: Some(send.target_spec),
                reply_to_id: send.reply_to_id,
                client_message_id: send.client_message_id,
                request_fingerprint: send.request_fingerprint,
                ..wire::PushFrame::default()
            };
            self.say(conn, Frame::Push(Box::new(push)));
        }
    }

    async fn acknowledged(&self, daemon: usize, ack: wire::ClientAck) {
        let Some(id) = ack.broker_message_id else { return };
        let job = move |tx: &Tx<'_>| {
            let sql = "DELETE FROM delivery WHERE message = ? AND recipient = ?";
            if tx.execute(sql, &[(&id).into(), (daemon as i64).into()])? == 0 {
                return Ok(None);
            }
            let sql = "SELECT sender, cmid FROM message WHERE id = ?";
            tx.query_row(sql, &[(&id).into()], |row| Ok((row.int(0)? as usize, row.text(1)?)))
        };
        let stored = self.db.write(Durability::Relaxed, job, |_: &Result<_, Error>| ()).await;
        let Ok(Some((sender, cmid))) = stored else { return };
        if let Some(conn) = self.conns.lock().expect("whole")[sender] {
            let receipts = vec![receipt(cmid, true)];
            self.say(conn, Frame::Receipts(wire::ReceiptsFrame { receipts, request_id: None }));
        }
    }

    async fn tell_receipts(&self, conn: u64, sender: usize, request: wire::ReceiptsRequest) {
        let wire::ReceiptsRequest { ids, request_id } = request;
        let query = move |tx: &Tx<'_>| {
            let sql = "SELECT NOT EXISTS (SELECT 1 FROM delivery d WHERE d.message = m.id) \
                       FROM message m WHERE m.sender = ? AND m.cmid = ?";
            let mut receipts = Vec::new();
            for id in ids {
                let key = [(sender as i64).into(), (&id).into()];
                let is_stored = tx.query_row(sql, &key, |row| Ok(row.int(0)? != 0))?;
                receipts.extend(is_stored.map(|is_stored| receipt(id, is_stored)));
            }
            Ok(receipts)
        };
        let told: Result<Vec<wire::Receipt>, Error> = self.db.read(query).await;
        if let Ok(receipts) = told {
            self.say(conn, Frame::Receipts(wire::ReceiptsFrame { receipts, request_id }));
        }
    }
}

fn receipt(client_message_id: String, is_stored: bool) -> wire::Receipt {
    wire::Receipt { client_message_id, recipients: 1, stored: is_stored.into(), expired: 0 }
}

fn accept(
    tx: &Tx<'_>,
    sender: usize,
    send: &wire::SendFrame,
    new_id: String,
    recipients: Vec<usize>,
    refusal: Option<(Option<u16>, &'static str)>,
    skip_dedupe: bool,
) -> Result<Outcome, Error> {
    let cmid = send.client_message_id.clone().unwrap_or_default();
    let fingerprint = send.request_fingerprint.as_deref().and_then(Fingerprint::from_hex);
    let key = [(sender as i64).into(), (&cmid).into()];
    let sql = "SELECT fingerprint, message FROM dedupe WHERE sender = ? AND cmid = ?";
    let seen = tx.query_row(sql, &key, |row| {
        Ok(DedupeEntry {
            fingerprint: Fingerprint::from_slice(&row.blob(0)?)
                .ok_or_else(|| Error::corrupt("a fingerprint"))?,
            broker_message_id: BrokerMessageId::trusted(row.text(1)?),
            history_id: None,
            history_available: true,
            first_seen_at: Millis(0),
            recipients: Some(1),
            expires_at: None,
        })
    })?;
    match dedupe::decide(seen.filter(|_| !skip_dedupe), fingerprint) {
        DedupeDecision::Duplicate(seen) => {
            let id = seen.broker_message_id.into_string();
            return Ok(Outcome::Took { id, code: 200, recipients: Vec::new() });
        }
        DedupeDecision::Mismatch { .. } => {
            return Ok(Outcome::Refused { code: Some(409), words: dedupe::ERROR });
        }
        DedupeDecision::First | DedupeDecision::Undeduplicated => {}
    }
    if let Some((code, words)) = refusal {
        return Ok(Outcome::Refused { code, words });
    }
    let bytes = fingerprint.map(|fingerprint| *fingerprint.as_bytes()).unwrap_or_default();
    let frame = serde_json::to_string(send).map_err(Error::corrupt)?;
    let message = [
        (&new_id).into(),
        (sender as i64).into(),
        (&cmid).into(),
        bytes[..].into(),
        (&send.target_spec).into(),
        (&frame).into(),
    ];
    tx.execute("INSERT INTO message VALUES (?, ?, ?, ?, ?, ?)", &message)?;
    let dedupe = [(sender as i64).into(), (&cmid).into(), bytes[..].into(), (&new_id).into()];
    tx.execute("INSERT OR REPLACE INTO dedupe VALUES (?, ?, ?, ?)", &dedupe)?;
    for recipient in &recipients {
        let delivery = [(&new_id).into(), (*recipient as i64).into()];
        tx.execute("INSERT INTO delivery VALUES (?, ?)", &delivery)?;
    }
    Ok(Outcome::Took { id: new_id, code: 201, recipients })
}
