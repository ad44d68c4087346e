//! Big-endian numbers and varints at offsets that may not exist.

/// The byte at `at`.
pub fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// The two bytes at `at`.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let end = at.checked_add(2)?;
    bytes.get(at..end)?.try_into().ok().map(u16::from_be_bytes)
}

/// The four bytes at `at`.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(4)?;
    bytes.get(at..end)?.try_into().ok().map(u32::from_be_bytes)
}

/// The varint at `at` and how many bytes it takes (1 to 9): seven bits a byte, the most
/// significant first, all eight of a ninth byte.
#[inline]
pub fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let rest = bytes.get(at..)?;
    let first = *rest.first()?;
    if first < 0x80 {
        return Some((u64::from(first), 1));
    }
    let mut value = u64::from(first & 0x7f);
    for (place, &byte) in rest.iter().enumerate().take(9).skip(1) {
        if place == 8 {
            return Some((value << 8 | u64::from(byte), 9));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some((value, place + 1));
        }
    }
    None
}

/// A varint as the signed number that a rowid is.
#[inline]
pub fn signed(value: u64) -> i64 {
    i64::from_ne_bytes(value.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_every_length() {
        assert_eq!(varint(&[0], 0), Some((0, 1)));
        assert_eq!(varint(&[0x7f], 0), Some((127, 1)));
        assert_eq!(varint(&[0x81, 0x00], 0), Some((128, 2)));
        assert_eq!(varint(&[0x81, 0x80, 0x00], 0), Some((16_384, 3)));
        assert_eq!(varint(&[0xff; 9], 0).map(|(value, n)| (signed(value), n)), Some((-1, 9)));
        assert_eq!(varint(&[9, 0x81, 0x01], 1), Some((129, 2)));
    }

    #[test]
    fn what_is_cut_off_is_no_number() {
        assert_eq!(varint(&[], 0), None);
        assert_eq!(varint(&[0x80; 8], 0), None);
        assert_eq!(varint(&[1], 1), None);
        assert_eq!(u32_at(&[0; 4], 1), None);
        assert_eq!(u16_at(&[0; 4], usize::MAX), None);
    }
}
