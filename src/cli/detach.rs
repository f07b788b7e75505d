//! Starts the daemon in the background and waits until it answers (§8).
//!
//! The child is this same program with `--foreground`, in a process group of its own, so that
//! Ctrl-C in this terminal does not reach it. What it writes to standard error before it opens its
//! log goes to `daemon.stderr`, and is shown here when the start fails.

use super::print::Tone;
use super::{Context, Failure, exit, status, up};
use claudemesh_base::paths::{Paths, PathsError, check_socket_path, ensure_private_dir};
use claudemesh_base::runtime;
use claudemesh_daemon::api::bodies::Health;
use claudemesh_daemon::lock;
use claudemesh_fsm::id::Millis;
use serde_json::json;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long the socket may take to answer, and every link to open or fail once.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two looks at a daemon that starts or stops.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How many lines of the log are shown when the start fails.
const LOG_LINES_SHOWN: usize = 5;
/// How much of the end of the log is read for them, in bytes.
const LOG_TAIL_BYTES: u64 = 16 * 1024;
/// The words with which the daemon reports a damaged store.
const DAMAGED: &str = "outbox.db is damaged";
const PRIVATE_FILE_MODE: u32 = 0o600;

/// Starts `claudemesh <args>` and reports the outcome, unless a daemon runs already. `choice` is
/// printed before the start.
pub(super) fn start(
    context: &Context,
    args: &[OsString],
    choice: Option<&str>,
) -> Result<u8, Failure> {
    if lock::running(&context.paths).map_err(Failure::failed)?.is_some() {
        return report_running(context);
    }
    ensure_private_dir(&context.paths.daemon_dir)?;
    check_socket_path(&context.paths.socket())?;
    if let Some(choice) = choice {
        context.print.note(choice);
    }
    let mut child = spawn(&context.paths, args)?;
    let health = context.block_on(wait(context, &mut child))?;
    let pid = health.pid;
    let links: Vec<_> = health.meshes.iter().map(|mesh| json!(mesh)).collect();
    let value =
        json!({ "ok": true, "running": true, "started": true, "pid": pid, "meshes": links });
    context.print.answer(&value, || {
        let text = context.print.paint(Tone::Good, &format!("daemon up, pid {pid}"));
        match health.meshes.is_empty() {
            true => format!("{text}\n{}", status::NO_MESH),
            false => format!("{text}\n{}", status::link_lines(&health)),
        }
    })
}

/// Reports the daemon that runs already; that is no failure.
pub(super) fn report_running(context: &Context) -> Result<u8, Failure> {
    let health = context.block_on(async {
        // It may have taken the lock a moment ago.
        let deadline = context.runtime.monotonic() + START_TIMEOUT;
        loop {
            match context.client().health().await {
                Ok(health) => return Ok(health),
                Err(error) if context.runtime.monotonic() >= deadline => {
                    let failure = Failure::failed(format!(
                        "a daemon holds {} and does not answer: {error}",
                        context.paths.lock().display()
                    ));
                    return Err(failure.hint("see `claudemesh daemon status`"));
                }
                Err(_) => context.runtime.sleep(POLL_INTERVAL).await,
            }
        }
    })?;
    let since = since(context, &health);
    let pid = health.pid;
    let value =
        json!({ "ok": true, "running": true, "started": false, "pid": pid, "since": since });
    context.print.answer(&value, || format!("daemon already running, pid {pid}, since {since}"))
}

fn since(context: &Context, health: &Health) -> String {
    let uptime_ms = i64::try_from(health.uptime_seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
    runtime::iso(Millis(context.runtime.now().0.saturating_sub(uptime_ms)))
}

/// Where the child's standard error goes.
fn stderr_file(paths: &Paths) -> PathBuf {
    paths.log().with_extension("stderr")
}

fn spawn(paths: &Paths, args: &[OsString]) -> Result<Child, Failure> {
    let file = stderr_file(paths);
    let stderr = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(PRIVATE_FILE_MODE)
        .open(&file)
        .map_err(|error| PathsError::io("write", &file, error))?;
    let program = std::env::current_exe()
        .map_err(|error| Failure::failed(format!("cannot find this program: {error}")))?;
    Command::new(&program)
        .args(args)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .process_group(0)
        .spawn()
        .map_err(|error| Failure::failed(format!("cannot run {}: {error}", program.display())))
}

/// Waits until every link has opened or failed once. A link that has done neither in time is only
/// reported.
async fn wait(context: &Context, child: &mut Child) -> Result<Health, Failure> {
    let client = context.client();
    let deadline = context.runtime.monotonic() + START_TIMEOUT;
    loop {
        let health = client.health().await;
        let is_over = context.runtime.monotonic() >= deadline;
        let is_long_over = context.runtime.monotonic() >= deadline + START_TIMEOUT;
        match health {
            // It is about to end by itself (§15); only its exit code says why.
            Ok(health) if is_refused_everywhere(&health) && !is_long_over => {}
            Ok(health) if is_over || health.meshes.iter().all(|mesh| is_settled(&mesh.link)) => {
                return Ok(health);
            }
            Ok(_) => {}
            Err(_) => {
                if let Some(status) = child.try_wait().map_err(Failure::failed)? {
                    return child_exited(context, status.code()).await;
                }
                if is_over {
                    let seconds = START_TIMEOUT.as_secs();
                    let message = format!("the daemon did not answer within {seconds} s");
                    return Err(with_recent_output(context, Failure::failed(message)));
                }
            }
        }
        context.runtime.sleep(POLL_INTERVAL).await;
    }
}

/// What it means that the child ended: with 0, another daemon was started first, which is as good.
async fn child_exited(context: &Context, code: Option<i32>) -> Result<Health, Failure> {
    match code {
        Some(0) => Ok(context.client().health().await.map_err(|error| context.explain(error))?),
        code => {
            let exit = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::FAILED);
            let output = last_lines(&stderr_file(&context.paths));
            let damage = output.iter().find(|line| line.contains(DAMAGED));
            if let Some(damage) = damage.filter(|_| exit == exit::CONFLICT) {
                return Err(up::damaged(context, damage.trim_start_matches("error: ")));
            }
            let failure = Failure::new(exit, "daemon_did_not_start", "the daemon did not start");
            Err(with_recent_output(context, failure))
        }
    }
}

fn is_refused_everywhere(health: &Health) -> bool {
    !health.meshes.is_empty() && health.meshes.iter().all(|mesh| mesh.link == "refused")
}

fn is_settled(link: &str) -> bool {
    !matches!(link, "offline" | "dialing" | "greeting" | "negotiating")
}

/// Adds what the child wrote to standard error, or else the end of its log.
fn with_recent_output(context: &Context, mut failure: Failure) -> Failure {
    let output = last_lines(&stderr_file(&context.paths));
    // `error: ` is printed in front of the whole; its own would repeat it.
    let output: Vec<_> = output
        .iter()
        .filter(|line| !line.starts_with('{'))
        .map(|l| l.trim_start_matches("error: "))
        .collect();
    if output.is_empty() {
        let log = last_lines(&context.paths.log());
        if !log.is_empty() {
            failure.message += &format!("; its log ends with\n{}", log.join("\n"));
        }
    } else {
        failure.message += &format!(":\n{}", output.join("\n"));
    }
    failure.hint(format!("the log is {}", context.paths.log().display()))
}

fn last_lines(file: &std::path::Path) -> Vec<String> {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(file)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    // Without a file there is nothing to show.
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].to_vec()
}
