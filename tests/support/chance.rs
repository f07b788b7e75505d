//! Repeatable chance: one seed, printed, makes a whole run again. Nothing secret comes from here.

use std::time::Duration;

/// The variable that makes a run again.
const SEED: &str = "CLAUDEMESH_SEED";

/// The seed of this run: the one asked for, or a new one. Printed, so that a failure shows it.
pub fn seed() -> u64 {
    let asked = std::env::var(SEED).ok().map(|text| text.parse().expect("a decimal seed"));
    let seed = asked.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.expect("after 1970").as_nanos() as u64 % 1_000_000_007
    });
    println!("seed {seed} (again with {SEED}={seed})");
    seed
}

/// SplitMix64.
#[derive(Clone)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another source, of its own.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(from * 1000 + self.next() % ((to - from) * 1000))
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// Text with much that is special somewhere.
    pub fn text(&mut self, chars_max: usize) -> String {
        const SPECIAL: &[char] = &[
            '\0',
            '\n',
            '\r',
            '\t',
            '"',
            '\\',
            '/',
            '%',
            '&',
            '=',
            '?',
            '#',
            '@',
            '*',
            '.',
            ':',
            ';',
            '{',
            '}',
            '[',
            ']',
            '<',
            '>',
            '\u{7f}',
            '\u{85}',
            '\u{202e}',
            '\u{feff}',
            'é',
            '✔',
            '\u{10ffff}',
            ' ',
            '\'',
            '`',
            '$',
        ];
        let chars = self.below(chars_max + 1);
        let mut character = || match self.below(3) {
            0 => *self.pick(SPECIAL),
            _ => char::from(b'a' + self.below(26) as u8),
        };
        (0..chars).map(|_| character()).collect()
    }
}
