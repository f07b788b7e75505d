//! What happens to a scenario while there is trouble: mostly callers, sometimes a fault.

use super::super::broker::Mood;
use super::super::daemon::{NAMES, Request, secret};
use super::super::disk::{Plan, Point};
use super::super::net::Weather;
use super::super::world::Rng;
use super::{Life, Scenario};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// From the opening of the last links to the last receipt.
const RECEIPTS_MAX: Duration = Duration::from_secs(30);

impl Scenario {
    /// One thing happens: mostly a caller, sometimes a fault.
    pub(super) fn trouble(&mut self) {
        let index = self.rng.below(2) as usize;
        match self.rng.below(100) {
            0..48 => self.call(index),
            48..62 => self.requeue(index),
            62..78 => self.plan_death(),
            78..84 => self.kill(),
            84..90 => self.around.net.cut_daemon(index),
            90..95 => {
                let permille = if self.rng.permille(500) { 0 } else { self.rng.below(300) };
                let process = self.rng.below(3) as usize;
                self.sched.log(|| format!("disk errors of {process}: {permille}"));
                self.processes[process].disk.set_errors(permille);
            }
            _ => self.jump_clock(index),
        }
    }

    fn call(&mut self, index: usize) {
        let known = &self.requests[index];
        let retry = self.rng.permille(350).then(|| self.rng.pick(known).cloned()).flatten();
        let request = match retry {
            Some(mut again) => {
                if self.rng.permille(250) {
                    again.body.push_str(" (changed)");
                }
                again
            }
            None => {
                self.numbered += 1;
                let number = self.numbered;
                let peer = secret(1 - index).public().to_hex();
                let stranger = secret(8).public().to_hex();
                let to = match self.rng.below(10) {
                    0..4 => peer,
                    4..7 => NAMES[1 - index].to_owned(),
                    7..9 => "*".to_owned(),
                    _ => stranger,
                };
                let meta = self.rng.permille(300).then(|| format!("{{\"n\":{number}}}"));
                Request { id: format!("m{number}"), to, body: format!("text {number}"), meta }
            }
        };
        if let Life::Daemon(daemon) = &mut self.processes[index].life {
            // What became of it may never be known; a retry may follow all the same.
            self.requests[index].push(request.clone());
            daemon.send(request);
        }
    }

    fn requeue(&mut self, index: usize) {
        self.numbered += 1;
        let (new_id, rng) = (format!("r{}", self.numbered), Rng::new(self.rng.next(), 7));
        if let Life::Daemon(daemon) = &mut self.processes[index].life {
            daemon.requeue(new_id, rng);
        }
    }

    fn plan_death(&mut self) {
        let index = self.rng.below(3) as usize;
        let points = [Point::BeforeCommit, Point::AfterCommit, Point::BeforeSend, Point::AfterSend];
        let point = points[self.rng.below(4) as usize];
        let plan = Plan { point, after: self.rng.below(4), power_cut: self.rng.permille(400) };
        self.sched.log(|| format!("planned for {index}: {plan:?}"));
        self.processes[index].disk.arm(plan);
    }

    fn kill(&mut self) {
        let index = self.rng.below(3) as usize;
        let power_cut = self.rng.permille(400);
        if !matches!(self.processes[index].life, Life::Dead) {
            self.processes[index].disk.die(power_cut);
            self.bury(index);
        }
    }

    fn jump_clock(&mut self, index: usize) {
        let hours = self.rng.below(7) as i64 - 3;
        let minutes = self.rng.below(60) as i64;
        let by_ms = (hours * 60 + minutes) * 60_000;
        self.sched.log(|| format!("the clock of {index} jumps by {by_ms} ms"));
        self.processes[index].wall_offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// A receipt that was lost is asked for when a link opens: one more time they all do.
    pub(super) fn ask_for_receipts(&mut self) -> Result<(), String> {
        (0..2).for_each(|daemon| self.around.net.cut_daemon(daemon));
        self.advance(self.sched.now() + RECEIPTS_MAX)
    }

    /// The end of all trouble.
    pub(super) fn calm(&mut self) {
        self.sched.log(|| "calm".into());
        self.around.net.set_weather(Weather::default());
        self.mood = Mood::default();
        for process in &mut self.processes {
            process.disk.calm();
            if let Life::Broker(broker, ..) = &process.life {
                broker.mood.lock().expect("whole").0 = Mood::default();
            }
        }
    }
}
