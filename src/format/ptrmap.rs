//! Which page points to a page, in auto-vacuum files
//! (<https://sqlite.org/fileformat2.html#pointer_map_or_ptrmap_pages>).

use super::lock_page;
use super::number::{byte, u32_at};

/// What a page is, by its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The root of a b-tree.
    Root,
    /// On the freelist.
    Free,
    /// The first page of an overflow chain; the b-tree page whose cell points to it.
    FirstOverflow(u32),
    /// Another page of one; the page before it.
    Overflow(u32),
    /// A page of a b-tree; its parent.
    Child(u32),
}

/// Entries a page.
fn entries(usable: usize) -> u32 {
    u32::try_from(usable / 5).unwrap_or(0).max(1)
}

/// The pointer-map page that has `page`'s entry; `page` itself if it is one.
pub fn page_for(page: u32, page_size: u32, usable: usize) -> u32 {
    let group = entries(usable) + 1;
    let map = (page.saturating_sub(2) / group).saturating_mul(group).saturating_add(2);
    if map == lock_page(page_size) { map + 1 } else { map }
}

/// Whether `page` is a pointer-map page of an auto-vacuum file.
pub fn is_map(page: u32, page_size: u32, usable: usize) -> bool {
    page >= 2 && page_for(page, page_size, usable) == page
}

/// `page`'s entry on the pointer-map page `map`, whose bytes are `bytes`.
pub fn entry(bytes: &[u8], map: u32, page: u32) -> Option<Entry> {
    let place = usize::try_from(page.checked_sub(map)?.checked_sub(1)?).ok()?.checked_mul(5)?;
    let parent = u32_at(bytes, place.checked_add(1)?)?;
    match byte(bytes, place)? {
        1 => Some(Entry::Root),
        2 => Some(Entry::Free),
        3 => Some(Entry::FirstOverflow(parent)),
        4 => Some(Entry::Overflow(parent)),
        5 => Some(Entry::Child(parent)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_where_the_document_says() {
        // 1,024-byte pages have 204 entries: pages 2, 207, 412, ….
        assert!(is_map(2, 1024, 1024));
        assert!(!is_map(3, 1024, 1024));
        assert!(is_map(207, 1024, 1024));
        assert_eq!(page_for(206, 1024, 1024), 2);
        assert_eq!(page_for(208, 1024, 1024), 207);
        assert!(!is_map(1, 1024, 1024));
    }

    #[test]
    fn an_entry_names_the_parent() {
        let mut bytes = vec![0; 512];
        bytes[5..10].copy_from_slice(&[5, 0, 0, 1, 2]);
        assert_eq!(entry(&bytes, 2, 4), Some(Entry::Child(258)));
        assert_eq!(entry(&bytes, 2, 3), None);
        assert_eq!(entry(&bytes, 2, 2), None);
        assert_eq!(entry(&bytes, 2, 1000), None);
    }
}
