//! What a misspelt name may have meant.

/// The candidate nearest to `name`, with how many letters to add, drop or change; of several the
/// first. `None` only without candidates.
pub fn nearest<T: AsRef<str>>(
    name: &str,
    candidates: impl IntoIterator<Item = T>,
) -> Option<(usize, T)> {
    let with_distance = |candidate: T| (strsim::levenshtein(name, candidate.as_ref()), candidate);
    candidates.into_iter().map(with_distance).min_by_key(|(distance, _)| *distance)
}
