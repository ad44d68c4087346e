//! Affinities: the affinity of a declared type, and the values that a column with it can hold
//! (<https://sqlite.org/datatype3.html>, 3.1). Pure.

use super::statement::Encoding;
use crate::format::Value;

/// A column's affinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// Stores every value unchanged.
    Blob,
    /// Converts numbers to text.
    Text,
    /// Converts text that looks like a number.
    Numeric,
    /// As numeric.
    Integer,
    /// Doubles, stored as integers where that loses nothing.
    Real,
}

impl Affinity {
    /// The affinity of a declared type. In a `strict` table `ANY` converts nothing.
    pub(in crate::recovery) fn of_type(declared: &str, strict: bool) -> Self {
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

    /// A type name with this affinity.
    pub(in crate::recovery) fn declared(self) -> &'static str {
        match self {
            Self::Blob => "BLOB",
            Self::Text => "TEXT",
            Self::Numeric => "NUMERIC",
            Self::Integer => "INTEGER",
            Self::Real => "REAL",
        }
    }

    /// Whether such a column stores `value` unchanged. SQLite writes no other value there, so a
    /// record with another value belongs to another table.
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

/// The ASCII character of a UTF-16 code unit; 0xff for any other.
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
    // To SQLite a NUL is the end, whatever follows.
    matches!(rest.next(), None | Some(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::types::Value as Sql;

    /// What SQLite makes of a value in a column of each type, against what is said of it here.
    #[test]
    fn a_value_is_kept_exactly_if_sqlite_stores_it_as_it_is() {
        let texts = [
            "",
            " ",
            "1",
            " 1",
            "1 ",
            "+1",
            "-1",
            "--1",
            "1.",
            ".1",
            ".",
            "-.",
            "1.5",
            "1e5",
            "1e",
            "1e+5",
            "1E-05",
            "1e+",
            "1 e5",
            "0x10",
            "abc",
            "1a",
            "12:30",
            "2026-01-02",
            "1_000",
            "9223372036854775807",
            "9223372036854775808",
            "1e999",
            "\t\n\u{b}\u{c}\r7",
            "Inf",
            "1\0",
            "\u{a0}1",
            "ä",
            "00",
            "1.0",
            "NaN",
            "1,5",
            "+",
            "e5",
            "١",
        ];
        let numbers = [0.0, -0.0, 0.5, 5.0, 1e15, 9.2e18, 1e19, -1e19, f64::INFINITY, 1e-300];
        let mut values: Vec<Sql> = texts.iter().map(|&text| Sql::Text(text.to_owned())).collect();
        values.extend(numbers.map(Sql::Real));
        values.extend([0, -5, i64::MAX, i64::MIN].map(Sql::Integer));
        values.extend([Sql::Null, Sql::Blob(b"1".to_vec())]);

        for (name, encoding) in [
            ("UTF-8", Encoding::Utf8),
            ("UTF-16le", Encoding::Utf16le),
            ("UTF-16be", Encoding::Utf16be),
        ] {
            let db = rusqlite::Connection::open_in_memory().unwrap();
            db.execute_batch(&format!("PRAGMA encoding = '{name}'")).unwrap();
            for declared in [
                "",
                "BLOB",
                "TEXT",
                "VARCHAR(9)",
                "CLOB",
                "NUMERIC",
                "DECIMAL(1,2)",
                "DATE",
                "ANY",
                "INTEGER",
                "BIGINT",
                "CHARINT",
                "FLOATING POINT",
                "REAL",
                "DOUBLE",
                "STRING",
            ] {
                db.execute_batch(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t(a {declared})"))
                    .unwrap();
                let affinity = Affinity::of_type(declared, false);
                for value in &values {
                    db.execute("DELETE FROM t", []).unwrap();
                    db.execute("INSERT INTO t VALUES (?1)", [value]).unwrap();
                    let (stored, bytes): (Sql, Option<Vec<u8>>) = db
                        .query_row("SELECT a, CAST(a AS BLOB) FROM t", [], |row| {
                            Ok((row.get(0)?, row.get(1)?))
                        })
                        .unwrap();
                    let text = match &stored {
                        Sql::Text(_) => bytes.clone().unwrap(),
                        _ => encoded(value, encoding),
                    };
                    let given = match value {
                        Sql::Null => Value::Null,
                        Sql::Integer(number) => Value::Integer(*number),
                        Sql::Real(number) => Value::Real(*number),
                        Sql::Text(_) => Value::Text(&text),
                        Sql::Blob(blob) => Value::Blob(blob),
                    };
                    // A REAL column's integers are its doubles.
                    let same = match (&stored, value, affinity) {
                        (Sql::Real(stored), Sql::Real(given), _) => *stored == *given,
                        (Sql::Real(_), Sql::Integer(_), Affinity::Real) => true,
                        (stored, given, _) => stored == given,
                    };
                    assert_eq!(
                        affinity.keeps(given, encoding),
                        same,
                        "{name} {declared} {value:?} {stored:?}"
                    );
                }
            }
        }
    }

    fn encoded(value: &Sql, encoding: Encoding) -> Vec<u8> {
        let Sql::Text(text) = value else { return Vec::new() };
        match encoding {
            Encoding::Utf8 => text.clone().into_bytes(),
            Encoding::Utf16le => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Encoding::Utf16be => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        }
    }

    #[test]
    fn any_is_no_number_in_a_strict_table() {
        assert_eq!(Affinity::of_type("ANY", true), Affinity::Blob);
        assert_eq!(Affinity::of_type("any", false), Affinity::Numeric);
    }
}
