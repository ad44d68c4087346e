//! A prefix of a record's sort key, as bytes whose order is the records' order.

use super::Value;

/// Maximum length of a key, in bytes.
const LONGEST: usize = 48;

/// A double represents every integer up to this one exactly.
const EXACT: u64 = 1 << 53;

/// The first fields of a record, encoded such that bytes sort as SQLite sorts the fields with the
/// BINARY collation. Records that differ only behind that prefix have equal keys: their order is
/// unknown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SortKey(Box<[u8]>);

impl SortKey {
    /// The key of `fields`. `descending` has one entry a field.
    pub fn of<'v>(fields: impl Iterator<Item = &'v Value<'v>>, descending: &[bool]) -> Self {
        let mut bytes = Vec::with_capacity(LONGEST);
        for (field, &descending) in fields.zip(descending) {
            let from = bytes.len();
            let exact = encode(*field, &mut bytes);
            if descending {
                bytes.iter_mut().skip(from).for_each(|byte| *byte = !*byte);
            }
            if !exact || bytes.len() >= LONGEST {
                break;
            }
        }
        bytes.truncate(LONGEST);
        Self(bytes.into_boxed_slice())
    }

    /// Whether it certainly sorts before `other`.
    pub fn is_before(&self, other: &Self) -> bool {
        let differ = self.0.iter().zip(&other.0).find(|(one, other)| one != other);
        differ.is_some_and(|(one, other)| one < other)
    }
}

/// Appends a value, cut to what a key keeps of it. Returns whether the encoding is unique to this
/// value.
fn encode(value: Value<'_>, bytes: &mut Vec<u8>) -> bool {
    match value {
        Value::Null => bytes.push(0),
        Value::Integer(integer) => {
            #[expect(clippy::cast_precision_loss, reason = "then the order is not known")]
            encode_real(integer as f64, bytes);
            return integer.unsigned_abs() <= EXACT;
        }
        #[expect(clippy::cast_precision_loss, reason = "it is a power of two")]
        Value::Real(real) => {
            encode_real(real, bytes);
            return real.abs() <= EXACT as f64;
        }
        Value::Text(text) => encode_bytes(2, text, bytes),
        Value::Blob(blob) => encode_bytes(3, blob, bytes),
    }
    true
}

fn encode_real(real: f64, bytes: &mut Vec<u8>) {
    // SQLite sorts -0.0 and 0.0 as equal.
    let bits = (real + 0.0).to_bits();
    let sign = 1 << 63;
    let sorted = if bits & sign == 0 { bits | sign } else { !bits };
    bytes.push(1);
    bytes.extend(sorted.to_be_bytes());
}

/// Escapes zero bytes, so that the end of a value sorts before every continuation of it.
fn encode_bytes(rank: u8, value: &[u8], bytes: &mut Vec<u8>) {
    bytes.push(rank);
    for &byte in value.iter().take(LONGEST) {
        bytes.push(byte);
        if byte == 0 {
            bytes.push(0xff);
        }
    }
    bytes.extend([0, 0]);
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;
    use rusqlite::types::ValueRef;

    use super::*;

    const VALUES: &str = "(NULL), (0), (-0.0), (1), (-1), (1.5), (-1.5), (9007199254740993), \
        (9007199254740992), (9007199254740992.0), (-9223372036854775808), (9e999), (-9e999), \
        (''), ('a'), ('ab'), ('b'), ('a' || char(0)), ('a' || char(0, 0)), ('a' || char(1)), \
        ('ä'), (x''), (x'00'), (x'0000'), (x'00ff'), (x'ff'), (x'61'), \
        (printf('%050d', 1)), (printf('%050d', 2)), ('0')";

    fn value<'v>(value: ValueRef<'v>) -> Value<'v> {
        match value {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(integer) => Value::Integer(integer),
            ValueRef::Real(real) => Value::Real(real),
            ValueRef::Text(text) => Value::Text(text),
            ValueRef::Blob(blob) => Value::Blob(blob),
        }
    }

    #[test]
    fn what_is_before_another_is_so_in_sqlite() {
        let sql = Connection::open_in_memory().unwrap();
        sql.execute_batch(&format!(
            "CREATE TABLE v(v); INSERT INTO v VALUES {VALUES};
             CREATE TABLE pairs(a, b); INSERT INTO pairs SELECT v.v, w.v FROM v, v AS w;
             CREATE TABLE sorted AS SELECT a, b, dense_rank() OVER (ORDER BY a, b DESC) AS place
             FROM pairs"
        ))
        .unwrap();
        let mut rows = sql.prepare("SELECT a, b, place FROM sorted").unwrap();
        let mut rows = rows.query([]).unwrap();
        let mut keys = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            let fields = [value(row.get_ref(0).unwrap()), value(row.get_ref(1).unwrap())];
            let key = SortKey::of(fields.iter(), &[false, true]);
            keys.push((key, row.get::<_, i64>(2).unwrap()));
        }
        let mut ordered = 0;
        for (one, place) in &keys {
            for (other, behind) in &keys {
                assert!(!one.is_before(other) || place < behind, "{one:?} {other:?}");
                ordered += u32::from(one.is_before(other));
            }
        }
        // The keys order most of the pairs.
        let all = keys.len() * (keys.len() - 1) / 2;
        assert!(ordered as usize * 10 > all * 9, "{ordered} of {all}");
    }
}
