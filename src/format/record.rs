//! A record: its header's serial types, its fields
//! (<https://sqlite.org/fileformat2.html#record_format>).
//!
//! A record is valid only if its header's types fill the header exactly and their contents fill
//! the rest exactly.

use std::cmp::Ordering;

use super::number::{signed, varint};
use super::value::Value;

/// Longest serial type, in bytes, of a value that fits into a readable record.
const LONGEST_TYPE: usize = 5;

/// Bytes of a record's header in which [`with_one_bit`] flips bits.
const LONGEST_HEADER: usize = 64;

/// More fields than SQLite ever lets a record have.
pub const MOST_FIELDS: usize = 32_767;

/// What a serial type says of its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `NULL`.
    Null,
    /// An integer.
    Integer,
    /// A double.
    Real,
    /// Text.
    Text,
    /// Bytes.
    Blob,
}

/// The class of a serial type, and the size of its content in bytes. SQLite never writes the two
/// reserved serial types (10 and 11), and reads them as NULL.
#[inline]
pub fn serial_type(serial: u64) -> (Class, u64) {
    match serial {
        0 | 10 | 11 => (Class::Null, 0),
        1..=4 => (Class::Integer, serial),
        5 => (Class::Integer, 6),
        6 => (Class::Integer, 8),
        7 => (Class::Real, 8),
        8 | 9 => (Class::Integer, 0),
        _ if serial.is_multiple_of(2) => (Class::Blob, (serial - 12) / 2),
        _ => (Class::Text, (serial - 13) / 2),
    }
}

/// Whether a field other than number `but` has a reserved serial type. SQLite never writes one, so
/// the record is damaged even though it can be read.
pub fn has_reserved(payload: &[u8], but: Option<usize>) -> bool {
    let Some((header, mut at)) = header_length(payload) else { return false };
    let mut place = 0;
    while let Some((serial, taken)) = varint(payload, at).filter(|_| at < header) {
        if matches!(serial, 10 | 11) && but != Some(place) {
            return true;
        }
        at += taken;
        place += 1;
    }
    false
}

/// The header length of a record, and the size of the varint that holds it. `None` if the length is
/// impossible.
#[inline]
pub fn header_length(payload: &[u8]) -> Option<(usize, usize)> {
    let (length, taken) = varint(payload, 0)?;
    let length = usize::try_from(length).ok()?;
    // A row has a column at least, so its header has two bytes.
    (length > taken && length <= 9 * MOST_FIELDS).then_some((length, taken))
}

/// Calls `field` with the number and class of each field of a record. `local` is the beginning of
/// the record, `length` its whole length in bytes. Returns the number of fields; `None` if the
/// record is not valid, or `local` ends inside its header.
#[inline]
pub fn classes(local: &[u8], length: u64, mut field: impl FnMut(usize, Class)) -> Option<usize> {
    let (header, mut at) = header_length(local)?;
    let types = local.get(..header)?;
    let mut body = 0_u64;
    let mut count = 0;
    while at < header {
        let (serial, taken) = varint(types, at)?;
        let (class, size) = serial_type(serial);
        field(count, class);
        body = body.checked_add(size)?;
        at += taken;
        count += 1;
    }
    (count <= MOST_FIELDS && body.checked_add(header as u64)? == length).then_some(count)
}

/// Whether the last `count` bytes of a valid record belong to BLOBs only.
pub fn ends_with_blobs(payload: &[u8], count: u64) -> bool {
    let Some((header, mut at)) = header_length(payload) else { return false };
    // Bytes of the BLOBs at the end of the record.
    let mut blobs = 0_u64;
    while at < header {
        let Some((serial, taken)) = varint(payload, at) else { return false };
        at += taken;
        match serial_type(serial) {
            (Class::Blob, size) => blobs = blobs.saturating_add(size),
            (_, 0) => {}
            _ => blobs = 0,
        }
    }
    blobs >= count
}

/// The length of the record that `local` begins with, computed from its header. `None` if the
/// header is not valid, or `local` ends inside it.
pub fn extent(local: &[u8]) -> Option<u64> {
    let (header, mut at) = header_length(local)?;
    let types = local.get(..header)?;
    let mut length = header as u64;
    while at < header {
        let (serial, taken) = varint(types, at)?;
        length = length.checked_add(serial_type(serial).1)?;
        at += taken;
    }
    Some(length)
}

/// Reads the record `payload` into `fields`, which is cleared first. Returns whether the record is
/// valid.
#[inline]
pub fn read<'a>(payload: &'a [u8], fields: &mut Vec<Value<'a>>) -> bool {
    fields.clear();
    read_all(payload, fields).is_some()
}

fn read_all<'a>(payload: &'a [u8], fields: &mut Vec<Value<'a>>) -> Option<()> {
    let (header, mut at) = header_length(payload)?;
    let types = payload.get(..header)?;
    let mut body = header;
    while at < header {
        let (serial, taken) = varint(types, at)?;
        at += taken;
        let (class, size) = serial_type(serial);
        let end = body.checked_add(usize::try_from(size).ok()?)?;
        let content = payload.get(body..end)?;
        body = end;
        fields.push(field(serial, class, content)?);
    }
    (body == payload.len() && fields.len() <= MOST_FIELDS).then_some(())
}

/// Reads a record whose serial type of field number `odd` is damaged. The field's length follows
/// from the payload's length and from the other fields. Puts the fields into `fields`, which is
/// cleared first, with NULL for the damaged one, and returns that field's content. `None` if the
/// record is not valid that way either.
pub fn read_but<'a>(
    payload: &'a [u8],
    odd: usize,
    fields: &mut Vec<Value<'a>>,
) -> Option<&'a [u8]> {
    let as_it_is = read_but_of(payload, odd, None, fields);
    // Damage may also change how many bytes the serial type takes.
    as_it_is.or_else(|| {
        (1..=LONGEST_TYPE).find_map(|taken| read_but_of(payload, odd, Some(taken), fields))
    })
}

/// Repairs a record that does not parse by flipping one bit of its header. The repaired record must
/// have `count` fields and satisfy `is_right`. `None` if no bit or more than one bit does that.
pub fn with_one_bit(
    payload: &[u8],
    count: usize,
    is_right: impl Fn(&[Value<'_>]) -> bool,
) -> Option<Vec<u8>> {
    let (length, taken) = header_length(payload).unwrap_or((1, 1));
    let mut other = payload.to_vec();
    let mut right = None;
    for place in 0..length.max(taken).min(LONGEST_HEADER).min(payload.len()) {
        for bit in 0..8 {
            *other.get_mut(place)? ^= 1 << bit;
            let mut fields = Vec::new();
            let is_one = read(&other, &mut fields)
                && fields.len() == count
                && !has_reserved(&other, None)
                && is_right(&fields);
            if is_one && right.replace((place, bit)).is_some() {
                return None;
            }
            *other.get_mut(place)? ^= 1 << bit;
        }
    }
    let (place, bit) = right?;
    *other.get_mut(place)? ^= 1 << bit;
    Some(other)
}

/// [`read_but`], where the serial type of field number `odd` takes `taken` bytes, or as many as its
/// varint has.
fn read_but_of<'a>(
    payload: &'a [u8],
    odd: usize,
    taken: Option<usize>,
    fields: &mut Vec<Value<'a>>,
) -> Option<&'a [u8]> {
    fields.clear();
    let (header, mut at) = header_length(payload)?;
    let types = payload.get(..header)?;
    let mut serials = Vec::new();
    let mut others = header;
    while at < header && serials.len() <= MOST_FIELDS {
        if serials.len() == odd
            && let Some(taken) = taken
        {
            serials.push(0);
            at += taken;
            continue;
        }
        let (serial, taken) = varint(types, at)?;
        at += taken;
        if serials.len() != odd {
            others = others.checked_add(usize::try_from(serial_type(serial).1).ok()?)?;
        }
        serials.push(serial);
    }
    if at != header {
        return None;
    }
    let length = payload.len().checked_sub(others)?;
    let mut body = header;
    let mut content_of_odd = None;
    for (place, &serial) in serials.iter().enumerate() {
        let (class, size) = match place == odd {
            true => (Class::Null, length),
            false => {
                let (class, size) = serial_type(serial);
                (class, usize::try_from(size).ok()?)
            }
        };
        let content = payload.get(body..body.checked_add(size)?)?;
        body += size;
        if place == odd {
            content_of_odd = Some(content);
        }
        fields.push(field(serial, class, content)?);
    }
    content_of_odd
}

/// Whether `content` is how a record stores `value`, whichever serial type its header gives.
pub fn is_content_of(content: &[u8], value: Value<'_>) -> bool {
    let is_integer = |value: i64| match content.len() {
        0 => matches!(value, 0 | 1),
        1..=4 | 6 | 8 => integer(content) == value,
        _ => false,
    };
    match value {
        Value::Null => content.is_empty(),
        Value::Integer(value) => is_integer(value),
        #[expect(clippy::cast_possible_truncation, reason = "it is compared afterwards")]
        #[expect(clippy::cast_precision_loss, reason = "it is compared afterwards")]
        Value::Real(real) => {
            *content == real.to_be_bytes()
                || (real as i64 as f64 == real && is_integer(real as i64))
        }
        Value::Text(bytes) | Value::Blob(bytes) => content == bytes,
    }
}

fn field(serial: u64, class: Class, content: &[u8]) -> Option<Value<'_>> {
    Some(match class {
        Class::Null => Value::Null,
        Class::Integer if serial >= 8 => Value::Integer(signed(serial - 8)),
        Class::Integer => Value::Integer(integer(content)),
        Class::Real => {
            let real = f64::from_be_bytes(content.try_into().ok()?);
            // SQLite never stores a NaN, and reads one as NULL.
            if real.is_nan() { Value::Null } else { Value::Real(real) }
        }
        Class::Text => Value::Text(content),
        Class::Blob => Value::Blob(content),
    })
}

/// Compares two records by their first fields, as SQLite does with the BINARY collation.
/// `descending` has one entry a compared field. `None` if a payload ends inside one of those
/// fields.
pub fn compare(one: &[u8], other: &[u8], descending: &[bool]) -> Option<Ordering> {
    let (mut one, mut other) = (Fields::of(one)?, Fields::of(other)?);
    for &descending in descending {
        let order = order(one.next()?, other.next()?);
        if order.is_ne() {
            return Some(if descending { order.reverse() } else { order });
        }
    }
    Some(Ordering::Equal)
}

/// Iterates over the fields of a record that may be cut off.
struct Fields<'a> {
    payload: &'a [u8],
    types: &'a [u8],
    at: usize,
    body: usize,
}

impl<'a> Fields<'a> {
    fn of(payload: &'a [u8]) -> Option<Self> {
        let (header, at) = header_length(payload)?;
        Some(Self { payload, types: payload.get(..header)?, at, body: header })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let (serial, taken) = varint(self.types, self.at)?;
        let (class, size) = serial_type(serial);
        let end = self.body.checked_add(usize::try_from(size).ok()?)?;
        let content = self.payload.get(self.body..end)?;
        (self.at, self.body) = (self.at + taken, end);
        field(serial, class, content)
    }
}

fn order(one: Value<'_>, other: Value<'_>) -> Ordering {
    let rank = |value| match value {
        Value::Null => 0,
        Value::Integer(_) | Value::Real(_) => 1,
        Value::Text(_) => 2,
        Value::Blob(_) => 3,
    };
    #[expect(clippy::cast_precision_loss, reason = "integers that far apart from each other")]
    match (one, other) {
        (Value::Integer(one), Value::Integer(other)) => one.cmp(&other),
        (Value::Real(one), Value::Real(other)) => one.total_cmp(&other),
        (Value::Integer(one), Value::Real(other)) => (one as f64).total_cmp(&other),
        (Value::Real(one), Value::Integer(other)) => one.total_cmp(&(other as f64)),
        (Value::Text(one), Value::Text(other)) | (Value::Blob(one), Value::Blob(other)) => {
            one.cmp(other)
        }
        _ => rank(one).cmp(&rank(other)),
    }
}

/// A big-endian two's complement number of up to eight bytes.
fn integer(content: &[u8]) -> i64 {
    let negative = content.first().is_some_and(|byte| byte & 0x80 != 0);
    content.iter().fold(if negative { -1 } else { 0 }, |value, &byte| value << 8 | i64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_every_type() {
        let mut payload = vec![8, 0, 1, 5, 7, 9, 17, 16];
        payload.push(0xfe);
        payload.extend([0xff, 0, 0, 0, 0, 0]);
        payload.extend(1.5_f64.to_be_bytes());
        payload.extend(b"hi");
        payload.extend([1, 2]);
        let mut fields = Vec::new();
        assert!(read(&payload, &mut fields));
        let expected = [
            Value::Null,
            Value::Integer(-2),
            Value::Integer(-(1 << 40)),
            Value::Real(1.5),
            Value::Integer(1),
            Value::Text(b"hi"),
            Value::Blob(&[1, 2]),
        ];
        assert_eq!(fields, expected);
        assert_eq!(classes(&payload, payload.len() as u64, |_, _| {}), Some(7));
        assert_eq!(classes(&payload[..9], payload.len() as u64, |_, _| {}), Some(7));
    }

    #[test]
    fn a_field_with_another_length_than_its_type_says_is_told_by_the_others() {
        // 'ab', 300, 'cd', of which the number's type is damaged: it says four bytes, or nothing.
        let sound = [4, 17, 2, 17, b'a', b'b', 1, 44, b'c', b'd'];
        for serial in [4, 8, 10] {
            let mut payload = sound;
            payload[2] = serial;
            let mut fields = Vec::new();
            assert!(!read(&payload, &mut fields));
            let content = read_but(&payload, 1, &mut fields).unwrap();
            assert_eq!(fields, [Value::Text(b"ab"), Value::Null, Value::Text(b"cd")]);
            assert!(is_content_of(content, Value::Integer(300)));
            assert!(is_content_of(content, Value::Real(300.0)));
            assert!(!is_content_of(content, Value::Integer(301)));
            assert!(!is_content_of(content, Value::Text(b"300")));
        }
        let mut fields = Vec::new();
        assert_eq!(read_but(&[2, 20, 0], 5, &mut fields), None);
        assert_eq!(read_but(&[3, 1, 20, 0], 1, &mut fields), Some(&[][..]));
        assert_eq!(read_but(&[3, 6, 20, 0], 1, &mut fields), None);
        // A type whose bit that says that it goes on was flipped.
        let payload = [3, 1, 0x80 | 15, 7, b'a'];
        assert_eq!(read_but(&payload, 1, &mut fields), Some(&b"a"[..]));
        assert_eq!(fields[0], Value::Integer(7));
    }

    #[test]
    fn a_flipped_bit_of_the_header_is_told_where_only_one_can_have_been() {
        // NULL, 'ab', 7; each bit of the header flipped.
        let sound = [4, 0, 17, 1, b'a', b'b', 7];
        let is_right = |fields: &[Value<'_>]| matches!(fields[1], Value::Text(_));
        let mut mended = 0;
        for bit in 0..32 {
            let mut payload = sound;
            payload[bit / 8] ^= 1 << (bit % 8);
            if read(&payload, &mut Vec::new()) {
                continue;
            }
            if let Some(record) = with_one_bit(&payload, 3, is_right) {
                assert_eq!(record, sound, "bit {bit}");
                mended += 1;
            }
        }
        assert!(mended > 20, "{mended}");
        // Of two fields of one kind either may have been the longer.
        assert_eq!(with_one_bit(&[3, 21, 21, 1, 2, 3, 4, 5, 6], 2, |_| true), None);
        assert_eq!(with_one_bit(&[], 1, |_| true), None);
        assert_eq!(with_one_bit(&[0], 1, |_| true), None);
    }

    #[test]
    fn records_are_in_the_order_of_their_fields() {
        // NULL, 1, 2, 'a', 'b', x'61'.
        let records: [&[u8]; 6] =
            [&[2, 0], &[2, 9], &[2, 1, 2], &[2, 15, b'a'], &[2, 15, b'b'], &[2, 14, b'a']];
        for (place, one) in records.iter().enumerate() {
            for (other, two) in records.iter().enumerate() {
                assert_eq!(compare(one, two, &[false]), Some(place.cmp(&other)));
                assert_eq!(compare(one, two, &[true]), Some(other.cmp(&place)));
            }
        }
        assert_eq!(compare(&[2, 0], &[2, 9], &[]), Some(Ordering::Equal));
        assert_eq!(compare(&[2, 17, b'a'], &[2, 0], &[false]), None);
        assert_eq!(compare(&[2, 0], &[2, 0], &[false, false]), None);
    }

    #[test]
    fn blobs_at_the_end_are_told_from_other_values() {
        // x'0001', 0, NULL, x'02'; then x'00', 'a'.
        let blobs = [5, 16, 8, 0, 14, 0, 1, 2];
        assert!(ends_with_blobs(&blobs, 3) && !ends_with_blobs(&blobs, 4));
        assert!(!ends_with_blobs(&[3, 14, 15, 0, b'a'], 1));
        assert!(ends_with_blobs(&[3, 15, 14, b'a', 0], 1));
        assert!(!ends_with_blobs(&[3, 15, 14, b'a', 0], 2));
    }

    #[test]
    fn a_byte_too_many_or_too_few_is_no_record() {
        let mut fields = Vec::new();
        for payload in [&[2, 1][..], &[2, 1, 0, 0], &[1], &[0], &[], &[3, 1], &[2, 0x81]] {
            assert!(!read(payload, &mut fields), "{payload:?}");
            assert_eq!(classes(payload, payload.len() as u64, |_, _| {}), None, "{payload:?}");
        }
        assert!(read(&[2, 1, 0], &mut fields));
    }

    #[test]
    fn reserved_types_are_read_as_null_and_are_damage() {
        for serial in [10, 11] {
            let payload = [3, serial, 1, 7];
            let mut fields = Vec::new();
            assert!(read(&payload, &mut fields));
            assert_eq!(fields, [Value::Null, Value::Integer(7)]);
            assert!(has_reserved(&payload, None) && !has_reserved(&payload, Some(0)));
            assert!(!has_reserved(&[3, 0, 1, 7], None) && !has_reserved(&[2, 1, 10], None));
        }
    }
}
