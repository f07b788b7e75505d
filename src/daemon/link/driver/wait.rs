//! The link while it has no connection: it waits for its turn, or for an operator.

use super::LinkDriver;
use crate::link::commands::LinkCommand;
use crate::link::view;
use claudemesh_fsm::link::{Cause, Dialing, Refused, Waiting};
use std::time::Duration;

impl LinkDriver {
    /// Waits for its turn, for somebody who asks, or for the host to wake from sleep; `None` when
    /// it is time to stop.
    pub(super) async fn wait(&mut self, waiting: Waiting) -> Option<Dialing> {
        let (now, stable_after) = (self.runtime.monotonic(), self.config.timers.stable_after);
        self.outage_log.down(&self.config.mesh_id, &waiting, now, stable_after);
        self.down(view::waiting(&waiting, self.close_code));
        let until = now.saturating_add(Duration::from_millis(waiting.delay_ms()));
        self.suspend.forget(&self.runtime);
        loop {
            // A long wait looks up as often as an open link pings.
            let left = until.saturating_sub(self.runtime.monotonic());
            let look = left.min(self.config.timers.ping_every);
            match self.runtime.timeout(look, self.commands.wait()).await {
                Some(LinkCommand::Stop) => return None,
                Some(LinkCommand::Redial) => return Some(waiting.redial()),
                None if left <= look || self.suspend.has_suspended(&self.runtime) => {
                    return Some(waiting.redial());
                }
                None => {}
            }
        }
    }

    /// Stays down until an operator acts; `None` when it is time to stop.
    pub(super) async fn wait_refused(&mut self, refused: Refused) -> Option<Dialing> {
        let (reason, remedy) = (refused.reason(), refused.remedy());
        if refused.cause() == Cause::Revoked {
            let by_close = || refused.close_code().map(|code| format!("close {code}"));
            let via = self.revoked_via.take().or_else(by_close).unwrap_or_default();
            self.observer.revoked(&via);
        }
        let offer = self.offer.take();
        tracing::warn!(mesh = %self.config.mesh_id, reason, remedy, offer, "link refused");
        let feature = self.feature.take();
        self.down(view::refused(&refused, feature));
        match self.commands.wait().await {
            LinkCommand::Stop => None,
            LinkCommand::Redial => Some(refused.reset().dial()),
        }
    }
}
