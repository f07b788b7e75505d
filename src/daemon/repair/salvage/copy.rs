//! Copying one table, row by row, around what cannot be read.

use super::source::{self, Source};
use super::{Judgement, Note, Rules, Saved, SavedRow, target};
use claudemesh_base::db::{Error, Kind};
use sqlite::Value;
use std::collections::HashSet;

/// How many rows are looked up by their number at the most, in one table.
const LOOKUPS_MAX: i64 = 20_000_000;
/// No row of ours takes less, so that a file's size bounds the numbers of its rows.
const ROW_BYTES_MIN: u64 = 32;

/// One table on its way from the old database to the new one.
pub(super) struct TableCopy<'a> {
    pub(super) rules: &'a Rules,
    pub(super) into: target::Table<'a>,
    /// The numbers of the rows that were read.
    pub(super) numbers: HashSet<i64>,
    pub(super) saved: Saved,
}

impl TableCopy<'_> {
    /// A table whose rows have numbers.
    pub(super) fn by_number(
        &mut self,
        source: &Source,
        table: &target::Shape,
    ) -> Result<(), Error> {
        let known = source.numbers_in_indexes(table);
        let bytes = source.bytes();
        let limit = i64::try_from(bytes / ROW_BYTES_MIN).unwrap_or(i64::MAX).min(LOOKUPS_MAX);
        let mut reader = match source.reader(table) {
            Ok(reader) => reader,
            Err(error) => {
                let first = known.numbers.iter().min().copied().unwrap_or(0);
                let last = known.numbers.iter().max().copied().unwrap_or(0);
                self.note_lost(first, last, &error);
                return Ok(());
            }
        };
        let mut next = i64::MIN;
        let mut is_whole = false;
        // Each round gets behind one damaged place; a file has no more of them than rows.
        for _ in 0..=limit {
            let (numbers, damage) = reader.scan(next);
            let last = numbers.last().copied();
            for number in numbers {
                if let Ok(Some(found)) = reader.look_up(number) {
                    self.take_found(number, found)?;
                }
            }
            let Some(error) = damage else {
                is_whole = next == i64::MIN;
                break;
            };
            next = last.map_or(next.max(1), |last| last.saturating_add(1).max(next)).max(1);
            let Some(found) = self.skip(&mut reader, next, limit, &known)? else {
                tracing::debug!(%error, table = table.name, "nothing can be read behind here");
                break;
            };
            next = found.saturating_add(1);
        }
        if is_whole && known.numbers.is_subset(&self.numbers) {
            return Ok(());
        }
        self.sweep(&mut reader, &known, limit)
    }

    /// Looks rows up one by one from `next` on, until one can be read.
    fn skip(
        &mut self,
        reader: &mut source::Reader<'_>,
        next: i64,
        limit: i64,
        known: &source::Known,
    ) -> Result<Option<i64>, Error> {
        let last = self.plausible(known, limit).1;
        for number in next..=last {
            if let Ok(Some(found)) = reader.look_up(number) {
                self.take_found(number, found)?;
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Looks up every row that no scan met.
    fn sweep(
        &mut self,
        reader: &mut source::Reader<'_>,
        known: &source::Known,
        limit: i64,
    ) -> Result<(), Error> {
        let (first, last) = self.plausible(known, limit);
        let outside = known.numbers.iter().filter(|number| !(first..=last).contains(*number));
        let outside: Vec<i64> = outside.copied().collect();
        for number in (first..=last).chain(outside) {
            if self.numbers.contains(&number) {
                continue;
            }
            let is_known = known.numbers.contains(&number);
            match reader.look_up(number) {
                Ok(Some(found)) => self.take_found(number, found)?,
                Ok(None) if is_known => {
                    self.note_lost(number, number, &"an index knows it, the table does not");
                }
                // Where an index could be read to its end, it says which rows there were.
                Err(error) if is_known || !known.is_complete => {
                    self.note_lost(number, number, &error);
                }
                Ok(None) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Between which numbers rows may be, as far as anything could be read. An index that could be
    /// read to its end says it; otherwise the size of the file bounds them.
    fn plausible(&self, known: &source::Known, limit: i64) -> (i64, i64) {
        let found = || self.numbers.iter().chain(&known.numbers).copied().filter(|n| *n >= 1);
        let first = found().min().unwrap_or(1);
        let farthest = first.saturating_add(limit);
        if !known.is_complete {
            return (1.max(first - limit), farthest);
        }
        (first, found().filter(|number| *number <= farthest).max().unwrap_or(farthest))
    }

    /// A table whose rows have keys alone: from both ends up to the damage.
    pub(super) fn by_key(&mut self, source: &Source, table: &target::Shape) -> Result<(), Error> {
        for backwards in [false, true] {
            let mut place = 0;
            let scanned = source.scan_keys(table, backwards, &mut |values| {
                place += 1;
                self.take(place, values)
            })?;
            match scanned {
                Ok(()) => return Ok(()),
                Err(error) if backwards => self.note_lost(0, 0, &error),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn take_found(&mut self, number: i64, found: source::Found) -> Result<(), Error> {
        let is_told = self.saved.mended.len() + self.saved.refused.len();
        self.take(number, found.values)?;
        if !found.is_whole && is_told == self.saved.mended.len() + self.saved.refused.len() {
            let why = "parts of it cannot be read".to_owned();
            self.saved.mended.push(Note { first: number, last: number, why });
        }
        Ok(())
    }

    fn take(&mut self, number: i64, values: Vec<Value>) -> Result<(), Error> {
        let has_numbers = self.into.has_numbers();
        if has_numbers && !self.numbers.insert(number) {
            return Ok(());
        }
        let mut row = SavedRow { names: self.into.names(), values };
        let note = |why| Note { first: number, last: number, why };
        match (self.rules.judge)(&self.saved.table, &mut row) {
            Judgement::Sound => {}
            Judgement::Repaired(why) => self.saved.mended.push(note(why)),
            Judgement::Refused(why) => {
                self.saved.refused.push(note(why));
                return Ok(());
            }
        }
        match self.into.insert(&row.values) {
            Ok(is_new) => self.saved.rows += u64::from(is_new),
            Err(error) if error.kind() == Kind::Constraint => {
                self.saved.refused.push(note(error.to_string()));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn note_lost(&mut self, first: i64, last: i64, why: &dyn std::fmt::Display) {
        let why = why.to_string();
        match self.saved.lost.last_mut() {
            Some(note) if note.last + 1 == first && note.why == why => note.last = last,
            _ => self.saved.lost.push(Note { first, last, why }),
        }
    }
}
