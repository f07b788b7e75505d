//! A process of the demo, which never outlives it.

use crate::Failure;
use claudemesh_base::runtime::Runtime;
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, ExitStatus};
use std::time::Duration;

/// The pause between two looks at something that is about to happen.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How long any single thing may take: far more than it needs, even on a busy machine.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(15);

/// A process of ours. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do, nor to say.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal` and waits for the end.
    pub(super) async fn end(
        mut self,
        signal: Signal,
        runtime: &Runtime,
    ) -> Result<ExitStatus, Failure> {
        // A pid stays ours until it is waited for, which only this function and the drop do.
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            kill_process(pid, signal)
                .map_err(|error| Failure::failed(format!("cannot stop {}: {error}", self.name)))?;
        }
        self.ended(runtime).await
    }

    pub(super) async fn ended(&mut self, runtime: &Runtime) -> Result<ExitStatus, Failure> {
        let deadline = runtime.monotonic() + WAIT_MAX;
        loop {
            let looked = self.child.try_wait();
            let name = &self.name;
            match looked.map_err(|error| Failure::failed(format!("{name}: {error}")))? {
                Some(status) => return Ok(status),
                None if runtime.monotonic() >= deadline => {
                    return Err(Failure::failed(format!("{name} does not end")));
                }
                None => runtime.sleep(POLL_INTERVAL).await,
            }
        }
    }

    pub(super) fn check_runs(&mut self) -> Result<(), Failure> {
        let name = &self.name;
        match self.child.try_wait().map_err(|error| Failure::failed(format!("{name}: {error}")))? {
            None => Ok(()),
            Some(status) => Err(Failure::failed(format!("{name} ended: {status}"))),
        }
    }
}
