//! How much one transaction of the retention flow does: little, because accepts and arrivals wait behind it.

/// Rows that one transaction changes at the most.
pub(super) const ROWS_MAX: usize = 64;
/// A transaction ends once the bodies it takes out weigh this much: every page of them is touched.
const BYTES_MAX: i64 = 1024 * 1024;
/// Rows that are looked at together, on a reader.
pub(super) const SCANNED_MAX: usize = 512;

/// How many of the rows, given what their bodies weigh in bytes, fit one transaction. One always
/// does, or a heavy one would stop everything.
pub(super) fn fitting(weights: impl Iterator<Item = i64>) -> usize {
    let mut sum = 0;
    let fits = |weight: &i64| {
        sum += weight;
        sum <= BYTES_MAX
    };
    weights.take(ROWS_MAX).take_while(fits).count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_bounded_by_rows_and_by_bytes() {
        assert_eq!(fitting(std::iter::repeat_n(10, 1000)), ROWS_MAX);
        assert_eq!(fitting([BYTES_MAX / 2, BYTES_MAX / 2, 1].into_iter()), 2);
        assert_eq!(fitting([BYTES_MAX * 3, 1].into_iter()), 1);
    }
}
