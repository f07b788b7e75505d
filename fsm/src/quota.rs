//! How full something bounded is (§1.2): a level that rises at its mark, and falls only 2 % below
//! it, so that a store that hovers at a mark does not change its mind with every message.

/// From here on a person is warned, in thousandths of the bound.
pub const WARNING_PERMILLE: u64 = 800;
/// From here on nothing new is taken.
pub const REFUSING_PERMILLE: u64 = 950;
/// How far below its mark a level ends.
pub const HYSTERESIS_PERMILLE: u64 = 20;

/// How full it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing to say.
    #[default]
    Ample,
    /// A person should know.
    Warning,
    /// Nothing new is taken.
    Refusing,
}

impl Level {
    /// The level in one word, as people and programs read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ample => "ok",
            Self::Warning => "warning",
            Self::Refusing => "refusing",
        }
    }

    /// The level after this one, once `used` of `max` bytes are in use.
    #[must_use]
    pub const fn of_use(self, used: u64, max: u64) -> Self {
        if reaches(used, max, self.threshold_of(Self::Refusing)) {
            Self::Refusing
        } else if reaches(used, max, self.threshold_of(Self::Warning)) {
            Self::Warning
        } else {
            Self::Ample
        }
    }

    /// The level after this one, once `free` bytes are left where `reserved` must stay free.
    #[must_use]
    pub const fn of_reserve(self, free: u64, reserved: u64) -> Self {
        let wanted = match self {
            // Wide enough for any disk.
            Self::Refusing => reserved as u128 * (1000 + HYSTERESIS_PERMILLE) as u128 / 1000,
            Self::Ample | Self::Warning => reserved as u128,
        };
        if (free as u128) < wanted { Self::Refusing } else { Self::Ample }
    }

    /// Where `level` begins, seen from this one: one that was reached ends later than it began.
    const fn threshold_of(self, level: Self) -> u64 {
        let threshold = match level {
            Self::Ample => return 0,
            Self::Warning => WARNING_PERMILLE,
            Self::Refusing => REFUSING_PERMILLE,
        };
        if self as u8 >= level as u8 { threshold - HYSTERESIS_PERMILLE + 1 } else { threshold }
    }
}

/// Whether `used` is at least `permille` thousandths of `max`, rounded down to whole ones.
const fn reaches(used: u64, max: u64, permille: u64) -> bool {
    let max = if max == 0 { 1 } else { max };
    used as u128 * 1000 / max as u128 >= permille as u128
}

#[cfg(test)]
mod tests {
    use super::Level::{Ample, Refusing, Warning};

    #[test]
    fn a_level_begins_at_its_mark_and_ends_two_percent_below_it() {
        // Of 1000 bytes, a thousandth is a byte.
        let mut level = Ample;
        for (used, expected) in [
            (0, Ample),
            (799, Ample),
            (800, Warning),
            (781, Warning),
            (780, Ample),
            (799, Ample),
            (949, Warning),
            (950, Refusing),
            (931, Refusing),
            (930, Warning),
            (949, Warning),
            (2000, Refusing),
            (790, Warning),
            (2000, Refusing),
            (0, Ample),
        ] {
            level = level.of_use(used, 1000);
            assert_eq!(level, expected, "{used}");
        }
    }

    #[test]
    fn a_level_never_depends_on_overflow() {
        assert_eq!(Ample.of_use(u64::MAX, u64::MAX), Refusing);
        assert_eq!(Ample.of_use(0, u64::MAX), Ample);
        assert_eq!(Ample.of_use(0, 0), Ample);
        assert_eq!(Ample.of_use(1, 0), Refusing);
        assert_eq!(Refusing.of_reserve(u64::MAX, u64::MAX), Refusing);
        assert_eq!(Refusing.of_reserve(0, 0), Ample);
    }

    #[test]
    fn a_disk_is_trusted_again_only_with_two_percent_to_spare() {
        let mut level = Ample;
        for (free, expected) in [
            (1000, Ample),
            (999, Refusing),
            (1000, Refusing),
            (1019, Refusing),
            (1020, Ample),
            (1000, Ample),
        ] {
            level = level.of_reserve(free, 1000);
            assert_eq!(level, expected, "{free}");
        }
    }
}
