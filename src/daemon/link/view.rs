//! What a link says about itself: its view for `status`, and its log lines.

use crate::port::LinkView;
use claudemesh_base::wire::features::{Feature as WireFeature, FeatureResponse};
use claudemesh_fsm::link::{Cause, LinkState, Refused, Waiting};
use claudemesh_fsm::negotiate::{Feature, Negotiated, Offer, Param};
use serde_json::Value;
use std::time::Duration;

/// The view of a link that is tried again; `close_code` is what led here.
pub(super) fn waiting(waiting: &Waiting, close_code: Option<u16>) -> LinkView {
    LinkView {
        reason: Some(waiting.reason().to_owned()),
        remedy: waiting.remedy().map(str::to_owned),
        close_code,
        ..LinkView::plain(LinkState::Waiting)
    }
}

/// The view of a link that stays down; `feature` is the one that a negotiation failed on.
pub(super) fn refused(refused: &Refused, feature: Option<String>) -> LinkView {
    LinkView {
        reason: Some(refused.reason().to_owned()),
        remedy: Some(refused.remedy().to_owned()),
        close_code: refused.close_code(),
        feature,
        ..LinkView::plain(LinkState::Refused)
    }
}

/// The view of an open link.
pub(super) fn open(negotiated: &Negotiated) -> LinkView {
    LinkView {
        // The one note a person must see in `status` (§15).
        reason: if negotiated.legacy { negotiated.notes.first().cloned() } else { None },
        features: negotiated.features.clone(),
        legacy_broker: negotiated.legacy,
        ..LinkView::plain(LinkState::Open)
    }
}

/// A broker's answer, as the decision takes it.
pub(super) fn offer(response: FeatureResponse) -> Offer {
    let feature = |(name, feature): (String, WireFeature)| Feature {
        name,
        params: feature.params.into_iter().map(|(name, value)| (name, param(value))).collect(),
    };
    Offer {
        features: response.supported.into_iter().map(feature).collect(),
        missing_required: response.missing_required,
    }
}

fn param(value: Value) -> Param {
    match value {
        Value::Bool(flag) => Param::Bool(flag),
        Value::String(text) => Param::Text(text),
        // `30.5` days are not a whole number, and nothing rounds them.
        Value::Number(number) => number.as_i64().map_or(Param::Other, Param::Int),
        Value::Null | Value::Array(_) | Value::Object(_) => Param::Other,
    }
}

/// Says a condition once, and counts it from then on, until the link has been open for a while: one
/// that opens and falls at once is one condition, not two lines every time.
#[derive(Default)]
pub(super) struct OutageLog {
    /// As many as there are causes, at the most.
    logged: Vec<Cause>,
    times: u32,
    /// Since when it is open, on the monotonic clock.
    open_since: Option<Duration>,
    /// Whether a line said that it is open after the last line that said it is not.
    logged_open: bool,
}

impl OutageLog {
    /// The link is down again, at `now`; having been open for `stable_after` ends what was before.
    pub(super) fn down(
        &mut self,
        mesh: &str,
        waiting: &Waiting,
        now: Duration,
        stable_after: Duration,
    ) {
        let open_for = self.open_since.take().map(|since| now.saturating_sub(since));
        if open_for.is_some_and(|open_for| open_for >= stable_after) {
            *self = Self::default();
        }
        self.times = self.times.saturating_add(1);
        let (reason, retry_ms) = (waiting.reason(), waiting.delay_ms());
        if self.logged.contains(&waiting.cause()) {
            tracing::debug!(mesh, reason, retry_ms, times = self.times, "link still down");
        } else {
            let remedy = waiting.remedy();
            tracing::warn!(mesh, reason, remedy, retry_ms, "link down");
            self.logged.push(waiting.cause());
            self.logged_open = false;
        }
    }

    /// It is open, at `now`.
    pub(super) fn over(&mut self, mesh: &str, negotiated: &Negotiated, now: Duration) {
        self.open_since = Some(now);
        let Negotiated { features, retention, concurrent, notes, legacy, .. } = negotiated;
        let down_times = self.times;
        if self.logged_open {
            tracing::debug!(mesh, down_times, "link open again");
            return;
        }
        self.logged_open = true;
        tracing::info!(
            mesh,
            down_times,
            ?features,
            ?retention,
            ?concurrent,
            ?notes,
            legacy,
            "link open"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_are_whole_numbers() {
        let of = |json: &str| param(serde_json::from_str(json).expect("json"));
        assert_eq!(of("365"), Param::Int(365));
        assert_eq!(of("true"), Param::Bool(true));
        assert_eq!(of("\"permanent\""), Param::Text("permanent".into()));
        for other in ["365.0", "1e3", "18446744073709551615", "null", "[]", "{}"] {
            assert_eq!(of(other), Param::Other, "{other}");
        }
    }
}
