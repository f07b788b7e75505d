//! Repeatable chance: one seed, printed, makes a whole run again. Nothing secret comes from here.

use std::time::Duration;

/// The variable that makes another run: a seed, or `random` for a new one.
const SEED: &str = "CLAUDEMESH_SEED";
/// The seed of every run that asks for no other, so that a commit passes or fails the same way
/// wherever it is tested.
const FIXED: u64 = 20_250_615;

/// The seed of this run. Printed, so that a failure shows it.
pub fn seed() -> u64 {
    let seed = match std::env::var(SEED).as_deref() {
        Err(_) => FIXED,
        Ok("random") => fastrand::u64(..),
        Ok(asked) => asked.parse().expect("a decimal seed, or `random`"),
    };
    println!("seed {seed} (again with {SEED}={seed})");
    seed
}

/// Seeded dice.
#[derive(Clone)]
pub struct Chance(fastrand::Rng);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Another source, of its own.
    pub fn fork(&mut self) -> Self {
        Self(self.0.fork())
    }

    pub fn next(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// Less than `end`, or 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end.max(1))
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(self.0.u64(from * 1000..to * 1000))
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
