//! The rules the product keeps, each of which can be broken, so that it is seen to matter.

/// What the modelled system does right.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// A request is answered after its commit.
    pub(crate) answers_after_commit: bool,
    /// An id with another body is refused.
    pub(crate) binds_ids: bool,
    /// A late success counts for a pending row alone.
    pub(crate) guards_done: bool,
    /// An expiry counts for the row it was found on alone.
    pub(crate) guards_expiry: bool,
    /// A start makes inflight rows pending.
    pub(crate) recovers: bool,
    /// A start after a power cut doubts every pending row.
    pub(crate) doubts_after_power_cut: bool,
    /// While an answer is owed to an earlier frame of an id, a refusal is that frame's.
    pub(crate) counts_given_up: bool,
    /// The broker looks an id up before it accepts it.
    pub(crate) deduplicates: bool,
    /// The receiver acknowledges after its commit.
    pub(crate) stores_before_ack: bool,
    /// The receiver stores what it has seen only once.
    pub(crate) knows_what_it_saw: bool,
}

impl Rules {
    /// What the product does.
    pub(crate) const KEPT: Self = Self {
        answers_after_commit: true,
        binds_ids: true,
        guards_done: true,
        guards_expiry: true,
        recovers: true,
        doubts_after_power_cut: true,
        counts_given_up: true,
        deduplicates: true,
        stores_before_ack: true,
        knows_what_it_saw: true,
    };
}
