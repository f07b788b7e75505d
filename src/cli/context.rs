//! What every command works with: the paths, the printer, the runtime, and a way to run a future
//! that Ctrl-C ends.

use super::failure::Failure;
use super::print::Printer;
use crate::client::{self, Client};
use async_signal::{Signal, Signals};
use claudemesh_base::paths::{Inputs, Paths};
use claudemesh_base::runtime::Runtime;
use claudemesh_daemon::join;
use futures_lite::{StreamExt, future};
use smol::Executor;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

/// What one command works with.
pub(super) struct Context {
    pub(super) paths: Paths,
    pub(super) print: Printer,
    pub(super) runtime: Runtime,
    /// The value of `--home`, as it was written.
    pub(super) home: Option<PathBuf>,
    executor: Arc<Executor<'static>>,
}

impl Context {
    pub(super) fn new(print: Printer, home: Option<PathBuf>) -> Result<Self, Failure> {
        let (paths, warnings) = Paths::resolve(&Inputs::from_process(home.clone()))?;
        for warning in warnings {
            print.note(&format!("warning: {warning}"));
        }
        let executor = Arc::new(Executor::new());
        let runtime = Runtime::real(Arc::clone(&executor));
        Ok(Self { paths, print, runtime, home, executor })
    }

    /// Runs `work` to its end, or until Ctrl-C.
    pub(super) fn block_on<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let interrupts = Signals::new([Signal::Int])
            .map_err(|error| Failure::failed(format!("cannot listen for Ctrl-C: {error}")));
        let mut interrupts = interrupts?;
        let interrupted = async {
            interrupts.next().await;
            Err(Failure::interrupted())
        };
        self.run(future::or(work, interrupted))
    }

    /// Runs `work` to its end. `work` listens for signals itself.
    pub(super) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        smol::block_on(self.executor.run(work))
    }

    /// A client of the daemon. Nothing checks that the daemon runs.
    pub(super) fn client(&self) -> Client {
        Client::new(&self.paths, &self.runtime)
    }

    /// A client of the daemon, after a check that the daemon runs and uses the member keys of our
    /// `config.json` (§1): a command must not act as another member.
    pub(super) async fn daemon(&self) -> Result<Client, Failure> {
        let client = self.client();
        let version = client.version().await.map_err(|error| self.explain(error))?;
        for ours in join::joined(&self.paths)? {
            let theirs = version.meshes.iter().find(|mesh| mesh.mesh == ours.slug);
            if theirs.is_some_and(|theirs| theirs.member_pubkey != ours.pubkey) {
                let failure = Failure::failed(format!(
                    "the running daemon speaks in mesh `{}` with another member key than {}",
                    ours.slug,
                    self.paths.config_json().display()
                ));
                return Err(
                    failure.hint("restart it: claudemesh daemon down && claudemesh daemon up")
                );
            }
        }
        Ok(client)
    }

    /// Asks the daemon one question, after the check of [`daemon`](Self::daemon).
    pub(super) fn ask<T>(
        &self,
        question: impl AsyncFnOnce(&Client) -> Result<T, client::Error>,
    ) -> Result<T, Failure> {
        self.block_on(async {
            let client = self.daemon().await?;
            question(&client).await.map_err(|error| self.explain(error))
        })
    }

    /// Turns a client's error into a failure; its hint names the `--home` of this command.
    pub(super) fn explain(&self, error: client::Error) -> Failure {
        match error {
            client::Error::NotRunning => Failure::not_running(self.command("daemon up")),
            other => other.into(),
        }
    }

    /// A command line that a person can copy: it repeats the `--home` of this command.
    pub(super) fn command(&self, words: &str) -> String {
        match &self.home {
            Some(home) => format!("claudemesh {words} --home {}", home.display()),
            None => format!("claudemesh {words}"),
        }
    }

    /// The name that peers see when nobody chose one: the user's.
    pub(super) fn default_name() -> String {
        let named = |variable| std::env::var(variable).ok().filter(|name| !name.trim().is_empty());
        named("USER").or_else(|| named("LOGNAME")).unwrap_or_else(|| "peer".to_owned())
    }
}
