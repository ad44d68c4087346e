//! A column's value, as a record holds it.

/// What a record's field holds. Text is in the database's encoding, byte for byte as stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// `NULL`.
    Null,
    /// A signed integer of whatever stored width.
    Integer(i64),
    /// An IEEE 754 double.
    Real(f64),
    /// Text, in the database's encoding.
    Text(&'a [u8]),
    /// Bytes.
    Blob(&'a [u8]),
}
