//! A batch of entries: one arena of bytes.
//!
//! An entry is its six column values in the order of [`Field`], followed by the values of the
//! additional columns that the log's options name:
//!
//! | offset | size | content |
//! |---|---|---|
//! | 0 | 6 × 4 | length in bytes of each value, native byte order; `u32::MAX` means NULL |
//! | 24 | 4 | total length in bytes of the additional values; `u32::MAX` means none |
//! | 28 | sum of the lengths | the values, UTF-8, without terminators |
//! | | | the additional values: kind ([`ValueKind`], 1 byte), length (4 bytes), content |
//!
//! Entries follow each other without padding. A JavaScript thread fills the arena. The writer reads
//! it and binds the values in place: text is copied once, out of V8.

use std::ops::Range;

/// Columns of an entry, in the order of the arena and of the INSERT's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `taskId`, required.
    TaskId,
    /// `timestamp`, required.
    Timestamp,
    /// `text`, required.
    Text,
    /// `type`, required.
    Type,
    /// `detail`, may be NULL.
    Detail,
    /// `agent`, may be NULL.
    Agent,
}

impl Field {
    /// All fields in order.
    pub const ALL: [Self; 6] =
        [Self::TaskId, Self::Timestamp, Self::Text, Self::Type, Self::Detail, Self::Agent];

    /// The column's and the JavaScript property's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TaskId => "taskId",
            Self::Timestamp => "timestamp",
            Self::Text => "text",
            Self::Type => "type",
            Self::Detail => "detail",
            Self::Agent => "agent",
        }
    }

    /// Whether the value may be absent.
    pub const fn is_optional(self) -> bool {
        matches!(self, Self::Detail | Self::Agent)
    }
}

const HEADER: usize = 4 * (Field::ALL.len() + 1);
const NULL: u32 = u32::MAX;

/// Entries in an arena. See the module's documentation.
#[derive(Debug, Default)]
pub struct Entries {
    bytes: Vec<u8>,
    rows: usize,
    /// Start of the entry that is being written; `bytes.len()` between entries.
    open: usize,
    /// Range of the value that each field was given last.
    latest: [Option<(usize, usize)>; 6],
}

/// Type of an additional column's value, in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    /// No content.
    Null = 0,
    /// 8 bytes, native byte order.
    Integer = 1,
    /// 8 bytes, native byte order.
    Real = 2,
    /// UTF-8.
    Text = 3,
}

/// An additional column's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// NULL
    Null,
    /// INTEGER
    Integer(i64),
    /// REAL
    Real(f64),
    /// TEXT
    Text(&'a [u8]),
}

/// Values of the additional columns, in the order of the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct More<'a>(&'a [u8]);

impl<'a> Iterator for More<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let (kind, rest) = self.0.split_first()?;
        let (length, rest) = rest.split_at_checked(4)?;
        let length = u32::from_ne_bytes(length.try_into().ok()?);
        let (content, rest) = rest.split_at_checked(length as usize)?;
        self.0 = rest;
        Some(match *kind {
            kind if kind == ValueKind::Integer as u8 => {
                Value::Integer(i64::from_ne_bytes(content.try_into().ok()?))
            }
            kind if kind == ValueKind::Real as u8 => {
                Value::Real(f64::from_ne_bytes(content.try_into().ok()?))
            }
            kind if kind == ValueKind::Text as u8 => Value::Text(content),
            _ => Value::Null,
        })
    }
}

/// One entry's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// By [`Field`]; `None` is NULL.
    pub values: [Option<&'a [u8]>; 6],
    /// Values of the additional columns.
    pub more: More<'a>,
}

/// A place between two entries of an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    offset: usize,
    /// Entries before this place.
    pub row: usize,
}

impl Entries {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether the arena has no entry.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes in the arena, headers included, which count against the queue's limit.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Empties the arena and keeps its memory, up to a bound.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(1 << 20);
        self.rows = 0;
        self.open = 0;
        self.latest = [None; 6];
    }

    /// Makes room for `bytes` more.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Begins an entry; its values follow in order, then [`Self::finish`] or [`Self::abandon`].
    pub fn begin(&mut self) {
        self.open = self.bytes.len();
        self.bytes.extend_from_slice(&[0xff; HEADER]);
    }

    /// Appends the value of `field` by letting `write` extend the arena.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn value<E>(
        &mut self,
        field: Field,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        write(&mut self.bytes)?;
        let end = self.bytes.len();
        let length = u32::try_from(end.saturating_sub(start)).unwrap_or(NULL);
        if let Some(latest) = self.latest.get_mut(field as usize) {
            *latest = Some((start, end));
        }
        self.set_length(self.open + 4 * field as usize, length);
        Ok(())
    }

    /// Appends the value of the next additional column, after those of all fields. `write` extends
    /// the arena by its content.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn more<E>(
        &mut self,
        kind: ValueKind,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[kind as u8, 0, 0, 0, 0]);
        write(&mut self.bytes)?;
        let length = self.bytes.len().saturating_sub(start);
        self.set_length(start + 1, u32::try_from(length.saturating_sub(5)).unwrap_or(NULL));
        let at = self.open + 4 * Field::ALL.len();
        let before = match self.length(at) {
            None | Some(NULL) => 0,
            Some(before) => before as usize,
        };
        self.set_length(at, u32::try_from(before + length).unwrap_or(NULL));
        Ok(())
    }

    fn length(&self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(self.bytes.get(at..at + 4)?.try_into().ok()?))
    }

    fn set_length(&mut self, at: usize, length: u32) {
        if let Some(slot) = self.bytes.get_mut(at..at + 4) {
            slot.copy_from_slice(&length.to_ne_bytes());
        }
    }

    /// Appends the value that `field` was given last in this arena.
    pub fn repeat(&mut self, field: Field) {
        let latest = self.latest.get(field as usize).copied().flatten();
        let Some((start, end)) = latest.filter(|(_, end)| *end <= self.bytes.len()) else { return };
        let range = start..end;
        let copied: Result<(), std::convert::Infallible> = self.value(field, |bytes| {
            bytes.extend_from_within(range);
            Ok(())
        });
        match copied {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }

    /// Completes the entry that was begun.
    pub fn finish(&mut self) {
        self.rows += 1;
        self.open = self.bytes.len();
    }

    /// Removes the entry that was begun and not finished.
    pub fn abandon(&mut self) {
        self.bytes.truncate(self.open);
        self.latest = [None; 6];
    }

    /// Appends one entry without additional columns.
    pub fn push(&mut self, values: [Option<&[u8]>; 6]) {
        self.copy(&Entry { values, more: More::default() });
    }

    /// Appends a copy of `entry`.
    pub fn copy(&mut self, entry: &Entry<'_>) {
        let Entry { values, more } = *entry;
        self.begin();
        for (field, value) in Field::ALL.into_iter().zip(values) {
            if let Some(value) = value {
                let copied: Result<(), std::convert::Infallible> = self.value(field, |bytes| {
                    bytes.extend_from_slice(value);
                    Ok(())
                });
                match copied {
                    Ok(()) => {}
                    Err(never) => match never {},
                }
            }
        }
        if !more.0.is_empty() {
            self.bytes.extend_from_slice(more.0);
            let length = u32::try_from(more.0.len()).unwrap_or(NULL);
            self.set_length(self.open + 4 * Field::ALL.len(), length);
        }
        self.finish();
    }

    /// Appends all entries of `other`.
    pub fn append(&mut self, other: &Self) {
        let shift = self.bytes.len();
        let shifted = |(start, end)| (start + shift, end + shift);
        for (latest, other) in self.latest.iter_mut().zip(other.latest) {
            *latest = other.map(shifted).or(*latest);
        }
        self.bytes.extend_from_slice(&other.bytes);
        self.rows += other.rows;
        self.open = self.bytes.len();
    }

    /// Bytes from `from` to the end.
    pub fn bytes_from(&self, from: Position) -> usize {
        self.bytes.len().saturating_sub(from.offset)
    }

    /// The entry at `position`, and the place after it; `None` at the end.
    pub fn at(&self, position: Position) -> Option<(Entry<'_>, Position)> {
        let header = self.bytes.get(position.offset..position.offset + HEADER)?;
        let mut offset = position.offset + HEADER;
        let mut values = [None; 6];
        for (value, length) in values.iter_mut().zip(header.chunks_exact(4)) {
            let length = u32::from_ne_bytes(length.try_into().ok()?);
            if length != NULL {
                let range: Range<usize> = offset..offset + length as usize;
                offset = range.end;
                *value = Some(self.bytes.get(range)?);
            }
        }
        let mut more = More::default();
        let length = self.length(position.offset + 4 * Field::ALL.len())?;
        if length != NULL {
            let range: Range<usize> = offset..offset + length as usize;
            offset = range.end;
            more = More(self.bytes.get(range)?);
        }
        Some((Entry { values, more }, Position { offset, row: position.row + 1 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<'a>(text: &'a str, detail: Option<&'a str>) -> [Option<&'a [u8]>; 6] {
        [
            Some(b"FN-1"),
            Some(b"2026"),
            Some(text.as_bytes()),
            Some(b"text"),
            detail.map(str::as_bytes),
            None,
        ]
    }

    #[test]
    fn entries_come_back_as_they_went_in() {
        let mut entries = Entries::default();
        entries.push(row("", None));
        entries.push(row("nul \0 and \u{1F980}", Some("")));
        let (first, next) = entries.at(Position::default()).unwrap();
        assert_eq!(first.values, row("", None));
        let (second, end) = entries.at(next).unwrap();
        assert_eq!(second.values, row("nul \0 and \u{1F980}", Some("")));
        assert_eq!(end.row, 2);
        assert!(entries.at(end).is_none());
        assert_eq!(entries.bytes_from(end), 0);
    }

    #[test]
    fn a_value_can_be_the_one_that_was_given_last() {
        let mut entries = Entries::default();
        let mut other = Entries::default();
        other.push(row("first", None));
        other.push(row("second", Some("detail")));
        entries.push(row("zeroth", None));
        entries.append(&other);
        entries.begin();
        for field in [Field::TaskId, Field::Timestamp, Field::Text, Field::Type, Field::Detail] {
            entries.repeat(field);
        }
        entries.finish();
        let mut position = Position::default();
        let mut last = None;
        while let Some((entry, next)) = entries.at(position) {
            last = Some(entry.values);
            position = next;
        }
        assert_eq!((position.row, last), (4, Some(row("second", Some("detail")))));
    }

    #[test]
    fn values_of_further_columns_come_back_as_they_went_in() {
        let mut entries = Entries::default();
        entries.push(row("none", None));
        entries.begin();
        for field in Field::ALL {
            let write = |bytes: &mut Vec<u8>| {
                bytes.extend_from_slice(b"x");
                Ok::<(), ()>(())
            };
            entries.value(field, write).unwrap();
        }
        let write = |content: &[u8]| {
            let content = content.to_vec();
            move |bytes: &mut Vec<u8>| {
                bytes.extend_from_slice(&content);
                Ok::<(), ()>(())
            }
        };
        entries.more(ValueKind::Integer, write(&i64::MIN.to_ne_bytes())).unwrap();
        entries.more(ValueKind::Null, write(b"")).unwrap();
        entries.more(ValueKind::Real, write(&1.5_f64.to_ne_bytes())).unwrap();
        entries.more(ValueKind::Text, write(b"nul \0")).unwrap();
        entries.finish();
        entries.push(row("after", None));
        let mut copies = Entries::default();
        let mut position = Position::default();
        while let Some((entry, next)) = entries.at(position) {
            copies.copy(&entry);
            position = next;
        }
        for entries in [&entries, &copies] {
            let (first, next) = entries.at(Position::default()).unwrap();
            assert_eq!(first.more.count(), 0);
            let (second, next) = entries.at(next).unwrap();
            let more: Vec<_> = second.more.collect();
            let expected =
                [Value::Integer(i64::MIN), Value::Null, Value::Real(1.5), Value::Text(b"nul \0")];
            assert_eq!(more, expected);
            let (third, _) = entries.at(next).unwrap();
            assert_eq!((third.values, third.more.count()), (row("after", None), 0));
        }
    }

    #[test]
    fn an_abandoned_entry_leaves_no_trace() {
        let mut entries = Entries::default();
        entries.push(row("kept", None));
        let bytes = entries.byte_len();
        entries.begin();
        entries
            .value::<()>(Field::TaskId, |bytes| {
                bytes.extend_from_slice(b"half");
                Ok(())
            })
            .unwrap();
        entries.abandon();
        assert_eq!((entries.len(), entries.byte_len()), (1, bytes));
        entries.push(row("next", None));
        let (_, second) = entries.at(Position::default()).unwrap();
        assert_eq!(entries.at(second).unwrap().0.values, row("next", None));
    }
}
