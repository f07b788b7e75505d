//! How a number of bytes is written for a person: in answers, in logs and on the screen alike.

const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
const STEP: u64 = 1024;

/// A number of bytes with its unit, rounded down to one decimal.
#[must_use]
pub fn size(bytes: u64) -> String {
    if bytes < STEP {
        return format!("{bytes} B");
    }
    let (mut unit_bytes, mut unit) = (STEP, 0);
    while unit + 1 < UNITS.len() && bytes / unit_bytes >= STEP {
        unit_bytes *= STEP;
        unit += 1;
    }
    let (whole, rest) = (bytes / unit_bytes, bytes % unit_bytes);
    // In u128: ten times a PiB's rest does not always fit.
    match (u128::from(rest) * 10 / u128::from(unit_bytes), UNITS[unit]) {
        (0, unit) => format!("{whole} {unit}"),
        (tenths, unit) => format!("{whole}.{tenths} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_short_and_never_rounded_up() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1535, "1.4 KiB"),
            (64 << 20, "64 MiB"),
            (5 << 30, "5 GiB"),
            ((5 << 30) - 1, "4.9 GiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
    }
}
