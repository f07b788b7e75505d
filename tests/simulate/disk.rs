//! What happens to a process's files: commits that fail, crashes around a commit or a send, and
//! the image of the files that the next incarnation starts from.
//!
//! A crash leaves every committed byte. A power cut leaves each write-ahead log as long as it was
//! at its last synced commit. Nothing is closed in order either way.

use super::world::Rng;
use claudemesh_base::db::{Durability, Error, Faults, Kind};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// Where a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    BeforeCommit,
    AfterCommit,
    BeforeSend,
    AfterSend,
}

/// A death that is planned: at the `after + 1`st passage of `point`.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub point: Point,
    pub after: u64,
    pub power_cut: bool,
}

/// The files of one incarnation of one process.
pub struct Disk {
    pub dir: PathBuf,
    names: &'static [&'static str],
    /// Where the next incarnation's files go.
    next_dir: PathBuf,
    /// A mutant: this file's synced commits are not synced.
    unsynced: Option<&'static str>,
    state: Mutex<State>,
}

struct State {
    rng: Rng,
    alive: bool,
    plan: Option<Plan>,
    errors_permille: u64,
    /// The length of each write-ahead log that a power cut cannot take away.
    synced: BTreeMap<String, u64>,
    commits: u64,
    power_cut: bool,
}

impl Disk {
    pub fn new(
        dir: PathBuf,
        next_dir: PathBuf,
        names: &'static [&'static str],
        unsynced: Option<&'static str>,
        synced: BTreeMap<String, u64>,
        rng: Rng,
    ) -> Arc<Self> {
        fs::create_dir_all(&dir).expect("a directory for the files");
        let state = State {
            rng,
            alive: true,
            plan: None,
            errors_permille: 0,
            synced,
            commits: 0,
            power_cut: false,
        };
        Arc::new(Self { dir, names, next_dir, unsynced, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }

    /// Whether the process lives: what it does otherwise, nobody sees.
    pub fn is_alive(&self) -> bool {
        self.lock().alive
    }

    /// How many commits stand.
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    /// Whether it died by a power cut.
    pub fn was_power_cut(&self) -> bool {
        self.lock().power_cut
    }

    /// The stores were opened: what their logs held is in the databases now, and synced.
    pub fn opened(&self) {
        self.lock().synced.clear();
    }

    /// What the next incarnation need not fear for: after a crash, what was synced before it;
    /// after a power cut, all that is left.
    pub fn inherited(&self) -> BTreeMap<String, u64> {
        let state = self.lock();
        if !state.power_cut {
            return state.synced.clone();
        }
        self.names.iter().map(|name| ((*name).to_owned(), u64::MAX)).collect()
    }

    pub fn arm(&self, plan: Plan) {
        self.lock().plan = Some(plan);
    }

    pub fn set_errors(&self, permille: u64) {
        self.lock().errors_permille = permille;
    }

    /// Calm: no errors, no planned death.
    pub fn calm(&self) {
        let mut state = self.lock();
        state.plan = None;
        state.errors_permille = 0;
    }

    /// Passes a point where the process may die; says whether it lives.
    pub fn passes(&self, point: Point) -> bool {
        let mut state = self.lock();
        match &mut state.plan {
            Some(plan) if plan.point == point && plan.after == 0 => {
                let power_cut = plan.power_cut;
                self.end(&mut state, power_cut);
            }
            Some(plan) if plan.point == point => plan.after -= 1,
            _ => {}
        }
        state.alive
    }

    /// The end, here and now.
    pub fn die(&self, power_cut: bool) {
        self.end(&mut self.lock(), power_cut);
    }

    /// Copies a database and its log; `false` if the log went away meanwhile.
    fn take_image(&self, name: &str, wal: &str) -> bool {
        let copy = |file: &str| fs::copy(self.dir.join(file), self.next_dir.join(file));
        let had_log = self.dir.join(wal).exists();
        if self.dir.join(name).exists() {
            copy(name).expect("copies the image");
        }
        match copy(wal) {
            Err(error) if error.kind() == ErrorKind::NotFound => !had_log,
            copied => copied.is_ok(),
        }
    }

    fn end(&self, state: &mut State, power_cut: bool) {
        if !std::mem::replace(&mut state.alive, false) {
            return;
        }
        state.power_cut = power_cut;
        fs::create_dir_all(&self.next_dir).expect("a directory for the image");
        for name in self.names {
            let wal = format!("{name}-wal");
            // A log that goes away in between was folded into the database: both are taken anew.
            while !self.take_image(name, &wal) {}
            let image = self.next_dir.join(&wal);
            if power_cut && image.exists() {
                let synced = state.synced.get(*name).copied().unwrap_or(0);
                let file = fs::OpenOptions::new().write(true).open(&image).expect("opens");
                let length = file.metadata().expect("has a length").len();
                file.set_len(synced.min(length)).expect("shortens");
            }
        }
    }
}

impl Faults for Disk {
    fn before_commit(&self, _: &Path, _: Durability) -> Result<(), Error> {
        if !self.passes(Point::BeforeCommit) {
            return Err(Error::new(Kind::Closed, "the process is dead"));
        }
        let mut state = self.lock();
        let chance = state.errors_permille;
        if state.rng.permille(chance) {
            let kind = if state.rng.permille(500) { Kind::Full } else { Kind::Io };
            return Err(Error::new(kind, "a simulated disk error"));
        }
        Ok(())
    }

    fn after_commit(&self, path: &Path, durability: Durability) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut state = self.lock();
        state.commits += 1;
        if durability == Durability::Synced && self.unsynced != Some(name.as_str()) {
            let mut wal = path.as_os_str().to_owned();
            wal.push("-wal");
            let length = fs::metadata(wal).map_or(0, |metadata| metadata.len());
            state.synced.insert(name, length);
        }
        drop(state);
        self.passes(Point::AfterCommit);
    }
}
