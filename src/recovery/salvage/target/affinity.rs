//! Affinities: which a declared type has, and which values a column of one can hold
//! (<https://sqlite.org/datatype3.html>, 3.1). Pure.

use super::statement::Encoding;
use crate::format::Value;

/// A column's affinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// Whatever was given.
    Blob,
    /// Text, unless it is a BLOB or NULL.
    Text,
    /// Numbers where they look like ones.
    Numeric,
    /// As numeric.
    Integer,
    /// Doubles, stored as integers where that loses nothing.
    Real,
}

impl Affinity {
    /// Of a declared type; `strict` in a STRICT table, where `ANY` is no number.
    pub(super) fn of_type(declared: &str, strict: bool) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |part: &str| declared.contains(part);
        if strict && declared == "ANY" {
            Self::Blob
        } else if has("INT") {
            Self::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Self::Text
        } else if declared.is_empty() || has("BLOB") {
            Self::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Self::Real
        } else {
            Self::Numeric
        }
    }

    /// Whether `value` can be stored in such a column and be the same afterwards. SQLite writes
    /// no other value there, so one that is there all the same belongs elsewhere.
    pub(super) fn keeps(self, value: Value<'_>, encoding: Encoding) -> bool {
        match (self, value) {
            (Self::Blob, _) | (_, Value::Null | Value::Blob(_)) => true,
            (Self::Text, value) => matches!(value, Value::Text(_)),
            (_, Value::Text(text)) => !is_number(text, encoding),
            (Self::Real, _) | (_, Value::Integer(_)) => true,
            (_, Value::Real(number)) => !is_integer(number),
        }
    }
}

/// Whether SQLite would store this double of a numeric column as an integer.
fn is_integer(number: f64) -> bool {
    // Both bounds are doubles; between them every integral double is an i64.
    number.trunc() == number
        && number > -9_223_372_036_854_775_808.0
        && number < 9_223_372_036_854_775_807.0
}

/// Whether SQLite would store this text of a numeric column as a number: blanks, a sign, digits
/// with a point, an exponent, blanks.
fn is_number(text: &[u8], encoding: Encoding) -> bool {
    match encoding {
        Encoding::Utf8 => is_decimal(text.iter().copied()),
        Encoding::Utf16le => is_decimal(text.chunks_exact(2).map(|unit| ascii(unit, 0, 1))),
        Encoding::Utf16be => is_decimal(text.chunks_exact(2).map(|unit| ascii(unit, 1, 0))),
    }
}

/// The ASCII character of a code unit, or a byte that is none.
fn ascii(unit: &[u8], low: usize, high: usize) -> u8 {
    match (unit.get(low), unit.get(high)) {
        (Some(&low), Some(0)) => low,
        _ => 0xff,
    }
}

fn is_decimal(characters: impl Iterator<Item = u8>) -> bool {
    let mut rest = characters.peekable();
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r');
    while rest.next_if(blank).is_some() {}
    rest.next_if(|byte| matches!(byte, b'+' | b'-'));
    let mut digits = 0_usize;
    while rest.next_if(u8::is_ascii_digit).is_some() {
        digits += 1;
    }
    if rest.next_if_eq(&b'.').is_some() {
        while rest.next_if(u8::is_ascii_digit).is_some() {
            digits += 1;
        }
    }
    if digits == 0 {
        return false;
    }
    if rest.next_if(|byte| matches!(byte, b'e' | b'E')).is_some() {
        rest.next_if(|byte| matches!(byte, b'+' | b'-'));
        if rest.next_if(u8::is_ascii_digit).is_none() {
            return false;
        }
        while rest.next_if(u8::is_ascii_digit).is_some() {}
    }
    while rest.next_if(blank).is_some() {}
    rest.next().is_none()
}
