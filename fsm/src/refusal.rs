//! What a broker's "no" means for the row (§4.6): try again, or never.
//!
//! Brokers of today's network answer in prose and without a code; ours adds one. Both are read
//! here, once. Rate limits and offline recipients never kill a row, whatever code they come with.

/// A broker's refusal of one send: never, or not now. Match it: the two lead to different states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendRefusal {
    /// Never, for this message (§4.6, phase C).
    Permanent,
    /// Not now (§4.6, phase B).
    Transient(TransientRefusal),
}

/// Why a broker cannot take a message just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransientRefusal {
    /// Too many messages: slow the whole link down.
    RateLimited,
    /// The recipient has no connection: wait for it.
    RecipientOffline,
    /// The broker cannot just now.
    Busy,
}

impl SendRefusal {
    /// Reads a refusal from its `code` and whether it is `permanent`, when the broker said, and its
    /// words.
    #[must_use]
    pub fn classify(code: Option<u16>, permanent: Option<bool>, reason: &str) -> Self {
        let says = |needle: &str| contains_ignoring_case(reason, needle);
        // It knows its own mind, and its words may quote the caller's.
        if permanent == Some(true) && code.is_some_and(|code| code != 429) {
            return Self::Permanent;
        }
        if code == Some(429) || says("rate limit") || says("rate_limit") {
            return Self::Transient(TransientRefusal::RateLimited);
        }
        if says("no connected peer") || says("recipient_offline") || says("not online") {
            return Self::Transient(TransientRefusal::RecipientOffline);
        }
        match permanent {
            Some(true) => return Self::Permanent,
            Some(false) => return Self::Transient(TransientRefusal::Busy),
            None => {}
        }
        match code {
            Some(400 | 401 | 403 | 404 | 409 | 410 | 413 | 422) => Self::Permanent,
            Some(_) => Self::Transient(TransientRefusal::Busy),
            None if says("payload too large") || says("blocked by recipient") => Self::Permanent,
            None => Self::Transient(TransientRefusal::Busy),
        }
    }
}

impl TransientRefusal {
    /// Whether the attempt counts towards the back-off.
    #[must_use]
    pub const fn counts_as_attempt(self) -> bool {
        !matches!(self, Self::RateLimited)
    }
}

fn contains_ignoring_case(text: &str, needle: &str) -> bool {
    text.as_bytes().windows(needle.len()).any(|part| part.eq_ignore_ascii_case(needle.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_answers_of_todays_network_are_understood() {
        let cases = [
            (
                "rate limit: max 60 msg/min (burst 10) — slow down",
                SendRefusal::Transient(TransientRefusal::RateLimited),
            ),
            ("payload too large: 70000 bytes > MAX_MESSAGE_BYTES=65536", SendRefusal::Permanent),
            (
                "no connected peer for target (not online, or targetSpec is your own key without another session)",
                SendRefusal::Transient(TransientRefusal::RecipientOffline),
            ),
            ("blocked by recipient grants (sender lacks dm capability)", SendRefusal::Permanent),
            ("something nobody has seen before", SendRefusal::Transient(TransientRefusal::Busy)),
        ];
        for (reason, expected) in cases {
            assert_eq!(SendRefusal::classify(None, None, reason), expected, "{reason}");
        }
    }

    #[test]
    fn a_code_never_makes_a_rate_limit_or_an_offline_recipient_final() {
        assert_eq!(
            SendRefusal::classify(Some(403), None, "rate limit: slow down"),
            SendRefusal::Transient(TransientRefusal::RateLimited)
        );
        assert_eq!(
            SendRefusal::classify(Some(404), None, "no connected peer"),
            SendRefusal::Transient(TransientRefusal::RecipientOffline)
        );
        assert_eq!(
            SendRefusal::classify(Some(409), None, "idempotency_key_reused"),
            SendRefusal::Permanent
        );
        assert_eq!(
            SendRefusal::classify(Some(503), None, "later"),
            SendRefusal::Transient(TransientRefusal::Busy)
        );
        let limited = SendRefusal::classify(None, Some(true), "rate limit");
        assert_eq!(limited, SendRefusal::Transient(TransientRefusal::RateLimited));
    }

    #[test]
    fn a_broker_that_says_whether_it_is_permanent_is_believed() {
        assert_eq!(SendRefusal::classify(Some(503), Some(true), "never"), SendRefusal::Permanent);
        let quoting = "unknown topic: rate_limit-alerts";
        assert_eq!(SendRefusal::classify(Some(404), Some(true), quoting), SendRefusal::Permanent);
        let passing = SendRefusal::classify(Some(409), Some(false), "not now");
        assert_eq!(passing, SendRefusal::Transient(TransientRefusal::Busy));
    }
}
