//! The torture engine: callers keep sending while processes are killed and connections cut; then
//! the faults stop, and what every side remembers is held against what was promised (§4.12).
//!
//! A caller counts an id as accepted only when it has read a whole 2xx. Requests that a kill cuts
//! are sent again under the same id by some callers and given up by others.

use crate::support::chance::Chance;
use crate::support::rig::{Broker, Daemon, Home, Mesh, Relay, eventually, post};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the faults may be over before every row must be done.
const SETTLE_MAX: Duration = Duration::from_secs(120);
/// How long a caller waits before it tries again.
const RETRY_PAUSE: Duration = Duration::from_millis(2);
/// How many finished sends are repeated at the end.
const REPEATED: usize = 200;
/// Timers as short as the configuration allows.
const IMPATIENT: &str = "[link]\nbackoff_cap_ms = 100\nack_ms = 1000\nhello_ms = 1000\n\
    negotiation_ms = 1000\n[outbox]\nbackoff_cap_ms = 200\n";

/// What is done to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of the sending daemon, now and then while it starts.
    KillSender,
    /// The same of the receiving one.
    KillReceiver,
    /// The same of the broker.
    KillBroker,
    /// A daemon's connection is cut.
    Cut,
    /// The broker's answers to the sender vanish for a while; then the connection is cut.
    LoseAnswers,
}

/// What to do, how often, and with what chance.
pub struct Plan {
    pub seed: u64,
    pub faults: Vec<(Fault, usize)>,
    /// Callers; every third gives up what is cut.
    pub callers: usize,
    /// Milliseconds between a caller's sends, and between faults.
    pub send_pause_ms: (u64, u64),
    pub fault_pause_ms: (u64, u64),
}

impl Plan {
    pub fn new(seed: u64, faults: &[(Fault, usize)]) -> Self {
        Self {
            seed,
            faults: faults.to_vec(),
            callers: 6,
            send_pause_ms: (2, 12),
            fault_pause_ms: (10, 90),
        }
    }
}

/// What the callers were told: accepted, or unknown.
type Told = BTreeMap<String, bool>;

/// Runs a plan to its end and checks the promises.
///
/// # Panics
/// When one is broken.
pub fn run(plan: &Plan) {
    let begun = Instant::now();
    let mut chance = Chance::new(plan.seed);
    let mut world = World::new();
    let (told, kills) = world.suffer(plan, &mut chance);
    let faults_over = Instant::now();
    let accepted = told.values().filter(|accepted| **accepted).count();
    println!("{kills} faults in {:?}: {accepted} of {} ids accepted", begun.elapsed(), told.len());
    assert!(accepted > kills, "too little was sent to prove anything");
    world.settle();
    world.check(&told);
    println!("settled in {:?}, all in {:?}", faults_over.elapsed(), begun.elapsed());
}

struct World {
    // Dropped first: they dial the relays as long as they live.
    daemons: [Daemon; 2],
    relays: [Relay; 2],
    broker: Broker,
    broker_home: Home,
    homes: [Home; 2],
}

const ALICE: usize = 0;
const BOB: usize = 1;

impl World {
    fn new() -> Self {
        let Mesh { broker_home, broker, alice, bob } = Mesh::new();
        let homes = [alice, bob];
        let relays = [Relay::start(broker.port), Relay::start(broker.port)];
        let start = |(home, relay): (&Home, &Relay)| {
            std::fs::write(home.daemon_dir().join("config.toml"), IMPATIENT).expect("writes");
            home.reach_broker_through(relay.port);
            Daemon::start(home)
        };
        let daemons = [start((&homes[0], &relays[0])), start((&homes[1], &relays[1]))];
        daemons[ALICE].wait_for_peer("bob");
        Self { broker_home, homes, relays, broker, daemons }
    }

    /// Faults in a shuffled order while the callers send. Returns what they were told, and how many
    /// faults there were.
    fn suffer(&mut self, plan: &Plan, chance: &mut Chance) -> (Told, usize) {
        let mut faults: Vec<Fault> =
            plan.faults.iter().flat_map(|(fault, times)| vec![*fault; *times]).collect();
        for at in (1..faults.len()).rev() {
            faults.swap(at, chance.below(at + 1));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let socket = self.daemons[ALICE].socket().to_path_buf();
        let callers: Vec<JoinHandle<Told>> = (0..plan.callers)
            .map(|number| {
                let caller = Caller {
                    number,
                    gives_up: number % 3 == 2,
                    socket: socket.clone(),
                    stop: stop.clone(),
                    pause_ms: plan.send_pause_ms,
                };
                let chance = chance.fork();
                std::thread::spawn(move || caller.run(chance))
            })
            .collect();
        for fault in &faults {
            std::thread::sleep(chance.millis(plan.fault_pause_ms.0, plan.fault_pause_ms.1));
            self.inflict(*fault, chance);
        }
        stop.store(true, Ordering::SeqCst);
        let told = callers.into_iter().flat_map(|caller| caller.join().expect("no broken promise"));
        (told.collect(), faults.len())
    }

    fn inflict(&mut self, fault: Fault, chance: &mut Chance) {
        match fault {
            Fault::KillSender => self.kill_daemon(ALICE, chance),
            Fault::KillReceiver => self.kill_daemon(BOB, chance),
            Fault::KillBroker => {
                self.broker.process.kill();
                // Anywhere: another process may have taken its port.
                self.broker = Broker::start(&self.broker_home, 0);
                self.relays.iter().for_each(|relay| relay.retarget(self.broker.port));
            }
            Fault::Cut => self.relays[chance.below(2)].cut(),
            Fault::LoseAnswers => {
                self.relays[ALICE].set_mute(true);
                std::thread::sleep(chance.millis(5, 60));
                self.relays[ALICE].cut();
                self.relays[ALICE].set_mute(false);
            }
        }
    }

    fn kill_daemon(&mut self, which: usize, chance: &mut Chance) {
        self.daemons[which].process.kill();
        while chance.one_in(5) {
            let mut starting = Daemon::spawn(&self.homes[which]);
            std::thread::sleep(chance.millis(0, 60));
            starting.process.kill();
        }
        self.daemons[which] = Daemon::spawn(&self.homes[which]);
        self.daemons[which].wait_until_it_answers();
    }

    /// Nothing fails any more: every row must end done.
    fn settle(&self) {
        let deadline = Instant::now() + SETTLE_MAX;
        loop {
            let outbox = self.daemons[ALICE].get("/v1/health").json()["outbox"].clone();
            assert_eq!((&outbox["dead"], &outbox["aborted"]), (&json!(0), &json!(0)));
            if outbox["pending"] == 0 && outbox["inflight"] == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "rows are still waiting: {outbox}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn check(&self, told: &Told) {
        let [alice, bob] = &self.daemons;
        let rows = rows(alice);
        let inbox = eventually("every done message to arrive", || {
            Some(bob.inbox()).filter(|inbox| inbox.len() >= rows.len())
        });
        let mut arrived = BTreeMap::new();
        for message in inbox {
            let id = message["client_message_id"].as_str().expect("an id").to_owned();
            assert_eq!(message["body"], body_of(&id), "{id} arrived changed");
            assert!(rows.contains_key(&id), "{id} came from nowhere");
            let twice = arrived.insert(id.clone(), message["broker_message_id"].clone());
            assert!(twice.is_none(), "{id} arrived twice");
        }
        for (id, row) in &rows {
            assert!(told.contains_key(id), "{id} was never sent");
            assert_eq!(row["status"], "done", "{row}");
            assert_eq!(arrived.get(id), Some(&row["broker_message_id"]), "{row}");
        }
        for (id, _) in told.iter().filter(|(_, accepted)| **accepted) {
            assert!(rows.contains_key(id), "{id} was accepted and is lost");
        }
        let step = (rows.len() / REPEATED).max(1);
        for (id, row) in rows.iter().step_by(step) {
            let (status, answer) = whole(alice.socket(), &request_of(id)).expect("answers");
            assert_eq!((status, &answer["duplicate"]), (200, &json!(true)), "{answer}");
            assert_eq!(answer["broker_message_id"], row["broker_message_id"], "{answer}");
        }
        self.check_receipts();
        let unknown = told.values().filter(|accepted| !**accepted).count();
        let surplus = rows.len() + unknown - told.len();
        println!("{} rows; {surplus} of {unknown} unknown ids had been stored", rows.len());
    }

    /// All has arrived; once a link has opened again, every receipt says so.
    fn check_receipts(&self) {
        self.relays[ALICE].cut();
        eventually("every receipt", || {
            let rows = rows(&self.daemons[ALICE]);
            rows.values().all(|row| row["receipt"]["delivered"] == true).then_some(())
        });
    }
}

/// Every row of an outbox, by its id; one row an id.
fn rows(daemon: &Daemon) -> BTreeMap<String, Value> {
    let mut rows = BTreeMap::new();
    let mut path = "/v1/outbox?limit=500".to_owned();
    loop {
        let page = daemon.get(&path).json();
        for row in page["items"].as_array().expect("items") {
            let id = row["client_message_id"].as_str().expect("an id").to_owned();
            assert!(rows.insert(id, row.clone()).is_none(), "two rows of one id: {row}");
        }
        match page["next_cursor"].as_str() {
            None => return rows,
            Some(cursor) => path = format!("/v1/outbox?limit=500&cursor={cursor}"),
        }
    }
}

/// The body that belongs to an id, now and then a long one.
fn body_of(id: &str) -> String {
    let long = id.bytes().map(usize::from).sum::<usize>() % 7 == 0;
    format!("body of {id}{}", if long { "·".repeat(3000) } else { String::new() })
}

fn request_of(id: &str) -> String {
    let body = json!({"to": "bob", "message": body_of(id), "client_message_id": id});
    post("/v1/send", &[], &body.to_string())
}

struct Caller {
    number: usize,
    gives_up: bool,
    socket: PathBuf,
    stop: Arc<AtomicBool>,
    pause_ms: (u64, u64),
}

impl Caller {
    fn run(self, mut chance: Chance) -> Told {
        let mut told = Told::new();
        for number in 0.. {
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            let id = format!("c{}-{number}", self.number);
            let accepted = self.send(&id);
            told.insert(id, accepted);
            std::thread::sleep(chance.millis(self.pause_ms.0, self.pause_ms.1));
        }
        told
    }

    /// Whether the daemon said yes before this caller gave up.
    fn send(&self, id: &str) -> bool {
        let request = request_of(id);
        while !self.stop.load(Ordering::SeqCst) {
            match whole(&self.socket, &request) {
                Ok((200 | 202, _)) => return true,
                // A daemon that is stopping or has too much to do may say so.
                Ok((429 | 503, _)) => {}
                Ok((status, answer)) => panic!("{id}: {status} {answer}"),
                Err(Cut::Unsent) => {}
                Err(Cut::Unanswered) if self.gives_up => return false,
                Err(Cut::Unanswered) => {}
            }
            std::thread::sleep(RETRY_PAUSE);
        }
        false
    }
}

#[derive(Debug)]
enum Cut {
    /// Nothing was written.
    Unsent,
    /// Something was written, and no whole answer came.
    Unanswered,
}

/// One request on a connection of its own; an answer only if all of it came.
fn whole(socket: &Path, request: &str) -> Result<(u16, Value), Cut> {
    let mut stream = UnixStream::connect(socket).map_err(|_| Cut::Unsent)?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(|_| Cut::Unsent)?;
    stream.write_all(request.as_bytes()).map_err(|_| Cut::Unanswered)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map_err(|_| Cut::Unanswered)?;
    parse_whole(&bytes).ok_or(Cut::Unanswered)
}

fn parse_whole(bytes: &[u8]) -> Option<(u16, Value)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    (body.len() == length.parse::<usize>().ok()?)
        .then(|| (status, serde_json::from_str(body).unwrap_or_default()))
}
