//! Frames of one connection that were given up although their answers may still come.
//!
//! Answers are matched by id, so the answer to an attempt that timed out would pass for the answer
//! to the next one of the same id. This remembers how many answers of an id are owed to earlier
//! frames. It is bounded both ways: a broker that never answers does not fill it, and does not keep
//! the answers to later attempts from counting for ever.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How many frames are remembered at the most; the oldest is forgotten first. Four times what is in
/// flight by default.
const FRAMES_MAX: usize = 1024;
/// How long a frame is remembered, as a multiple of how long an answer was waited for. Less than
/// the longest back-off, so that a row whose refusals were taken for late ones gets to hear one.
const KEPT_FACTOR: u32 = 4;

/// The frames, oldest first.
pub(super) struct AbandonedSends {
    frames: VecDeque<Frame>,
    kept: Duration,
}

struct Frame {
    id: Arc<str>,
    forgotten_at: Duration,
}

impl AbandonedSends {
    /// For a connection on which answers are waited for as long as `ack_max`.
    pub(super) fn new(ack_max: Duration) -> Self {
        Self { frames: VecDeque::new(), kept: ack_max.saturating_mul(KEPT_FACTOR) }
    }

    /// A frame is given up at `now`.
    pub(super) fn add(&mut self, id: Arc<str>, now: Duration) {
        if self.frames.len() >= FRAMES_MAX {
            self.frames.pop_front();
        }
        self.frames.push_back(Frame { id, forgotten_at: now.saturating_add(self.kept) });
    }

    /// An answer for `id` came: whether it is owed to an earlier frame, which then is owed no more.
    pub(super) fn answered(&mut self, id: &str) -> bool {
        let found = self.frames.iter().position(|frame| &*frame.id == id);
        found.is_some_and(|at| self.frames.remove(at).is_some())
    }

    /// No answer for `id` matters any more.
    pub(super) fn forget_id(&mut self, id: &str) {
        self.frames.retain(|frame| &*frame.id != id);
    }

    /// Forgets what was given up so long before `now` that no answer is expected.
    pub(super) fn forget(&mut self, now: Duration) {
        while self.frames.front().is_some_and(|frame| frame.forgotten_at <= now) {
            self.frames.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACK_MAX: Duration = Duration::from_secs(15);

    #[test]
    fn as_many_answers_are_owed_as_frames_were_given_up() {
        let mut abandoned = AbandonedSends::new(ACK_MAX);
        for id in ["a", "b", "a"] {
            abandoned.add(id.into(), Duration::ZERO);
        }
        assert!(abandoned.answered("a") && abandoned.answered("a") && !abandoned.answered("a"));
        assert!(abandoned.answered("b") && !abandoned.answered("b"));
        abandoned.add("a".into(), Duration::ZERO);
        abandoned.add("a".into(), Duration::ZERO);
        abandoned.forget_id("a");
        assert!(!abandoned.answered("a"));
    }

    #[test]
    fn a_broker_that_never_answers_is_forgotten_by_time_and_by_number() {
        let mut abandoned = AbandonedSends::new(ACK_MAX);
        abandoned.add("silent".into(), Duration::ZERO);
        abandoned.forget(ACK_MAX * KEPT_FACTOR - Duration::from_millis(1));
        assert_eq!(abandoned.frames.len(), 1);
        abandoned.forget(ACK_MAX * KEPT_FACTOR);
        assert!(!abandoned.answered("silent"));
        for number in 0..=FRAMES_MAX {
            abandoned.add(number.to_string().into(), Duration::ZERO);
        }
        assert_eq!(abandoned.frames.len(), FRAMES_MAX);
        assert!(!abandoned.answered("0") && abandoned.answered("1"));
    }
}
