//! `--local`: the embedded broker inside the daemon, and a mesh `local` on it (§17.3).

use super::{DaemonError, LocalBroker};
use crate::clock::Clock;
use crate::config::Settings;
use crate::http::Shutdown;
use crate::paths::Paths;
use smol::Task;

pub(super) async fn start(
    local: LocalBroker,
    paths: &Paths,
    settings: &Settings,
    clock: &Clock,
    stopped: &Shutdown,
) -> Result<Task<()>, DaemonError> {
    let _ = (local, paths, settings, clock, stopped);
    Err(DaemonError::Failed("the embedded broker is not linked yet".to_owned()))
}
