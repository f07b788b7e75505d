//! One seed: two daemons, a broker and their callers through a stretch of trouble, then calm, then
//! the checkers.

#[path = "trouble.rs"]
mod trouble;

use super::broker::{self, Broker, Mood};
use super::checkers::{self, Book, End, Fields};
use super::daemon::{Daemon, FILES, Request, Surroundings, secret};
use super::disk::Disk;
use super::mutants::{self, Mutant};
use super::net::{Net, Weather};
use super::world::{Owner, ProcessClock, Rng, Sched, Step};
use smol::Task;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The broker's place among the processes.
const BROKER: usize = 2;
/// How long there is trouble.
const TROUBLE: Duration = Duration::from_secs(60);
/// How long after it everything must have ended.
const CALM_MAX: Duration = Duration::from_secs(20 * 60);
/// How often the outboxes are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a seed came to.
pub struct Report {
    pub verdict: Result<(), String>,
    pub log_hash: (u64, u64),
    /// Accepted sends, deaths, commits: that the seed did something.
    pub told: usize,
    pub deaths: u64,
    pub commits: u64,
}

enum Life {
    Daemon(Daemon),
    Broker(Broker, Vec<Task<()>>, Owner),
    Dead,
}

struct Process {
    life: Life,
    disk: Arc<Disk>,
    incarnation: u64,
    back_at: Duration,
    /// How often the host's power came back.
    boot: u64,
    wall_offset_ms: Arc<AtomicI64>,
}

struct Scenario {
    seed: u64,
    rng: Rng,
    sched: Arc<Sched>,
    around: Surroundings,
    mutant: Option<Mutant>,
    root: PathBuf,
    processes: Vec<Process>,
    requests: [Vec<Request>; 2],
    looked: [Vec<Fields>; 2],
    /// Whether the power was cut since the last look, and ever.
    power_cut: [bool; 2],
    power_cuts: [bool; 2],
    done_with: BTreeMap<(usize, String), String>,
    mood: Mood,
    deaths: u64,
    commits: u64,
    numbered: u64,
}

/// Runs one seed.
pub fn run(seed: u64, mutant: Option<Mutant>, is_verbose: bool) -> Report {
    let base = Path::new("/dev/shm");
    let base = if base.is_dir() { base.to_path_buf() } else { std::env::temp_dir() };
    let root = tempfile::Builder::new().prefix("mesh-sim-").tempdir_in(base).expect("a directory");
    let mut scenario = Scenario::new(seed, mutant, is_verbose, root.path());
    let verdict = scenario.play();
    let told = scenario.around.book.lock().expect("whole").told.len();
    for process in &mut scenario.processes {
        scenario.commits += process.disk.commits();
    }
    Report {
        verdict,
        log_hash: scenario.sched.log_hash(),
        told,
        deaths: scenario.deaths,
        commits: scenario.commits,
    }
}

impl Scenario {
    fn new(seed: u64, mutant: Option<Mutant>, is_verbose: bool, root: &Path) -> Self {
        let sched = Sched::new(seed, is_verbose);
        let ack_early = mutant == Some(Mutant::AckBeforeCommit);
        let net = Net::new(sched.clone(), Rng::new(seed, 2), ack_early);
        let around = Surroundings {
            sched: sched.clone(),
            net,
            book: Arc::default(),
            no_recovery: mutant == Some(Mutant::NoRecovery),
        };
        let mut scenario = Self {
            seed,
            rng: Rng::new(seed, 3),
            sched,
            around,
            mutant,
            root: root.to_path_buf(),
            processes: Vec::new(),
            requests: Default::default(),
            looked: Default::default(),
            power_cut: [false; 2],
            power_cuts: [false; 2],
            done_with: BTreeMap::new(),
            mood: Mood::default(),
            deaths: 0,
            commits: 0,
            numbered: 0,
        };
        for index in 0..=BROKER {
            let disk = scenario.disk(index, 0, BTreeMap::new());
            let wall_offset_ms = Arc::new(AtomicI64::new(0));
            let life = Life::Dead;
            let back_at = Duration::ZERO;
            scenario.processes.push(Process {
                life,
                disk,
                incarnation: 0,
                back_at,
                boot: 0,
                wall_offset_ms,
            });
        }
        scenario
    }

    fn disk(&self, index: usize, incarnation: u64, synced: BTreeMap<String, u64>) -> Arc<Disk> {
        let dir = |incarnation: u64| self.root.join(format!("{index}-{incarnation}"));
        let names = if index == BROKER { &[broker::FILE] } else { FILES };
        let unsynced = (self.mutant == Some(Mutant::UnsyncedAccepts)).then_some("outbox.db");
        let rng = Rng::new(self.seed, 100 + incarnation * 8 + index as u64);
        Disk::new(dir(incarnation), dir(incarnation + 1), names, unsynced, synced, rng)
    }

    fn play(&mut self) -> Result<(), String> {
        let rng = &mut self.rng;
        let weather = Weather {
            lost: rng.below(80),
            doubled: rng.below(60),
            slow: rng.below(200),
            cut: rng.below(40),
            survives: rng.below(1000),
        };
        self.mood = Mood {
            busy: rng.below(60),
            rate_limited: rng.below(30),
            offline: rng.below(40),
            refused: rng.below(60),
        };
        self.around.net.set_weather(weather);
        let mut next_trouble = Duration::from_secs(1);
        let mut next_look = LOOK_EVERY;
        while self.sched.now() < TROUBLE {
            self.revive()?;
            let limit = next_trouble.min(next_look).min(TROUBLE);
            self.advance(limit)?;
            if self.sched.now() >= next_trouble {
                self.trouble();
                next_trouble = self.sched.now() + self.rng.ms(50, 1500);
            }
            if self.sched.now() >= next_look {
                self.look()?;
                next_look += LOOK_EVERY;
            }
        }
        self.calm();
        while !self.is_quiet() && self.sched.now() < TROUBLE + CALM_MAX {
            self.revive()?;
            self.advance(self.sched.now() + Duration::from_secs(1))?;
            self.look()?;
        }
        self.ask_for_receipts().and_then(|()| self.end())
    }

    /// Runs whoever is ready, and time, until `limit` or until somebody may be revived.
    fn advance(&mut self, limit: Duration) -> Result<(), String> {
        let net = self.around.net.clone();
        let dead = self.processes.iter().filter(|p| matches!(p.life, Life::Dead));
        let limit = dead.map(|process| process.back_at).fold(limit, Ord::min);
        loop {
            while let Some(arrival) = net.pop() {
                let late = net.arrive(arrival);
                if let (Some((daemon, late)), Some(Mutant::UnguardedDone)) = (late, self.mutant) {
                    mutants::unguarded_done(&self.processes[daemon].disk.dir, &late);
                }
            }
            let until = net.next_at().map_or(limit, |at| at.min(limit));
            match self.sched.step(until) {
                Step::Ran(owner) => {
                    let process = &self.processes[owner.process];
                    let is_current = process.incarnation == owner.incarnation;
                    if is_current && !process.disk.is_alive() {
                        self.bury(owner.process);
                        return Ok(());
                    }
                }
                Step::Woke => {}
                Step::Idle if self.sched.now() >= limit => return Ok(()),
                Step::Idle => {}
            }
        }
    }

    /// Takes a dead process's tasks and handles away; it comes back later, from its files.
    fn bury(&mut self, index: usize) {
        let was_power_cut = self.processes[index].disk.was_power_cut();
        self.sched.log(|| format!("process {index} dies, power cut: {was_power_cut}"));
        self.deaths += 1;
        self.commits += self.processes[index].disk.commits();
        let back_in = self.rng.ms(50, 4000);
        let process = &mut self.processes[index];
        process.back_at = self.sched.now() + back_in;
        process.boot += u64::from(was_power_cut && self.mutant != Some(Mutant::SameBoot));
        if index != BROKER {
            self.power_cut[index] |= was_power_cut;
            self.power_cuts[index] |= was_power_cut;
        }
        self.end_life(index);
        self.processes[index].incarnation += 1;
        let incarnation = self.processes[index].incarnation;
        let synced = self.processes[index].disk.inherited();
        self.processes[index].disk = self.disk(index, incarnation, synced);
    }

    /// Lets go of all that a process held, its connections too.
    fn end_life(&mut self, index: usize) {
        match std::mem::replace(&mut self.processes[index].life, Life::Dead) {
            Life::Daemon(daemon) => {
                self.around.net.cut_daemon(index);
                daemon.end();
            }
            Life::Broker(broker, tasks, owner) => {
                self.around.net.set_broker(None);
                drop(tasks);
                drop(broker);
                self.sched.bury(owner);
            }
            Life::Dead => {}
        }
    }

    fn revive(&mut self) -> Result<(), String> {
        (0..=BROKER).try_for_each(|index| self.revive_one(index))
    }

    fn revive_one(&mut self, index: usize) -> Result<(), String> {
        let process = &self.processes[index];
        if !matches!(process.life, Life::Dead) || self.sched.now() < process.back_at {
            return Ok(());
        }
        let incarnation = process.incarnation;
        let owner = Owner { process: index, incarnation };
        let entropy = Rng::new(self.seed, 1000 + incarnation * 8 + index as u64);
        let (disk, wall) = (process.disk.clone(), process.wall_offset_ms.clone());
        self.sched.log(|| format!("process {index} starts"));
        if index == BROKER {
            self.processes[index].life = self.start_broker(owner, disk, wall, entropy);
            return Ok(());
        }
        let (boot, around) = (process.boot, self.around.clone());
        match Daemon::start(index, owner, boot, disk.clone(), wall, entropy, around) {
            Ok(daemon) => self.processes[index].life = Life::Daemon(daemon),
            Err(error) => {
                self.sched.log(|| format!("process {index} cannot start: {error}"));
                disk.die(false);
            }
        }
        // A disk error or a death during the start itself: somebody starts it again.
        if !disk.is_alive() {
            self.bury(index);
            return Ok(());
        }
        disk.opened();
        checkers::started(&checkers::outbox(&disk.dir))?;
        self.look_at(index)
    }

    fn start_broker(
        &self,
        owner: Owner,
        disk: Arc<Disk>,
        wall_offset_ms: Arc<AtomicI64>,
        entropy: Rng,
    ) -> Life {
        let sched = self.sched.clone();
        let mood = Arc::new(Mutex::new((self.mood, entropy.clone())));
        let rng = Mutex::new(entropy);
        let runtime = ProcessClock { sched, owner, wall_offset_ms, entropy: rng }.into_clock();
        let broker = Broker {
            db: Broker::open(&disk),
            disk,
            net: self.around.net.clone(),
            runtime: runtime.clone(),
            keys: [0, 1].map(|daemon| secret(daemon).public().to_hex()),
            conns: Arc::default(),
            mood,
            no_dedupe: self.mutant == Some(Mutant::NoDedupe),
        };
        let (to_broker, frames) = smol::channel::unbounded();
        let tasks = vec![
            runtime.spawn(broker.clone().run(frames)),
            runtime.spawn(broker.clone().run_leases()),
        ];
        broker.disk.opened();
        self.around.net.set_broker(Some(to_broker));
        Life::Broker(broker, tasks, owner)
    }

    fn look(&mut self) -> Result<(), String> {
        (0..2).try_for_each(|index| self.look_at(index))
    }

    fn look_at(&mut self, index: usize) -> Result<(), String> {
        if !matches!(self.processes[index].life, Life::Daemon(_)) {
            return Ok(());
        }
        let rows = checkers::outbox(&self.processes[index].disk.dir);
        let was_power_cut = std::mem::take(&mut self.power_cut[index]);
        let before = std::mem::take(&mut self.looked[index]);
        // What only a look saw was promised to nobody: a power cut may take a row whose
        // requeue or accept was not answered, but those are synced before they can be seen.
        checkers::history(&before, &rows, was_power_cut)?;
        checkers::denied(index, &rows, &self.broker_table("message"))?;
        for row in rows.iter().filter(|row| row["status"] == "done") {
            let key = (index, row["id"].clone());
            let first =
                self.done_with.entry(key).or_insert_with(|| row["broker_message_id"].clone());
            if *first != row["broker_message_id"] {
                return Err(format!("invariant 4: done with {first} before: {row:?}"));
            }
        }
        self.looked[index] = rows;
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        if self.processes.iter().any(|process| matches!(process.life, Life::Dead)) {
            return false;
        }
        let waits = |rows: &Vec<Fields>| {
            rows.iter().any(|row| ["pending", "inflight"].contains(&row["status"].as_str()))
        };
        self.around.net.next_at().is_none()
            && !self.looked.iter().any(waits)
            && self.broker_table("delivery").is_empty()
    }

    fn broker_table(&self, name: &str) -> Vec<Fields> {
        let path = self.processes[BROKER].disk.dir.join(broker::FILE);
        // Daemons start first.
        if !path.exists() {
            return Vec::new();
        }
        checkers::table(&path, &format!("SELECT * FROM {name}"))
    }

    fn end(&mut self) -> Result<(), String> {
        self.look()?;
        let book: std::sync::MutexGuard<'_, Book> = self.around.book.lock().expect("whole");
        let dir = |index: usize| self.processes[index].disk.dir.clone();
        let inbox =
            |index: usize| checkers::table(&dir(index).join("inbox.db"), "SELECT * FROM inbox");
        let end = End {
            book: &book,
            outboxes: [checkers::outbox(&dir(0)), checkers::outbox(&dir(1))],
            done_with: &self.done_with,
            power_cuts: self.power_cuts,
            inboxes: [inbox(0), inbox(1)],
            messages: self.broker_table("message"),
            deliveries: self.broker_table("delivery"),
            receipts: [checkers::receipts(&dir(0)), checkers::receipts(&dir(1))],
        };
        end.check()
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        (0..=BROKER).for_each(|index| self.end_life(index));
        self.around.net.end();
    }
}
