//! A trunk page of the freelist (<https://sqlite.org/fileformat2.html#the_freelist>).

use super::number::u32_at;

/// A trunk page.
#[derive(Debug, Clone, Copy)]
pub struct Trunk<'a> {
    /// The next trunk page; 0 after the last.
    pub next: u32,
    leaves: &'a [u8],
}

impl<'a> Trunk<'a> {
    /// The trunk page that `bytes` are, of which `usable` are SQLite's, in a file of `pages`
    /// pages, if it could be one: every page that it names is in the file.
    pub fn parse(bytes: &'a [u8], usable: usize, pages: u32) -> Option<Self> {
        let bytes = bytes.get(..usable).unwrap_or(bytes);
        let next = u32_at(bytes, 0)?;
        let count = usize::try_from(u32_at(bytes, 4)?).ok()?;
        let leaves = bytes.get(8..8_usize.checked_add(count.checked_mul(4)?)?)?;
        let trunk = Self { next, leaves };
        let sound = (next == 0 || (2..=pages).contains(&next))
            && trunk.leaves().all(|leaf| (2..=pages).contains(&leaf));
        sound.then_some(trunk)
    }

    /// What is left of a trunk page whose count is damaged: the pages that it names up to the
    /// first that cannot be one, `most` at most. None if its link is no page either.
    pub fn remains(bytes: &'a [u8], usable: usize, pages: u32, most: usize) -> Option<Self> {
        let bytes = bytes.get(..usable).unwrap_or(bytes);
        let next = u32_at(bytes, 0)?;
        let all = Self { next, leaves: bytes.get(8..)? };
        let count = all.leaves().take(most).take_while(|leaf| (2..=pages).contains(leaf)).count();
        let trunk = Self { next, leaves: all.leaves.get(..4 * count)? };
        (next == 0 || (2..=pages).contains(&next)).then_some(trunk)
    }

    /// The free pages that it names.
    pub fn leaves(&self) -> impl Iterator<Item = u32> + 'a {
        self.leaves.chunks_exact(4).filter_map(|chunk| u32_at(chunk, 0))
    }

    /// How many those are.
    pub fn len(&self) -> usize {
        self.leaves.len() / 4
    }

    /// Whether it names none.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trunk_names_pages_of_the_file() {
        let mut bytes = vec![0; 512];
        bytes[3] = 9;
        bytes[7] = 2;
        bytes[11] = 5;
        bytes[15] = 6;
        let trunk = Trunk::parse(&bytes, 512, 9).unwrap();
        assert_eq!((trunk.next, trunk.leaves().collect::<Vec<_>>()), (9, vec![5, 6]));
        assert!(Trunk::parse(&bytes, 512, 8).is_none());
        bytes[4] = 0xff;
        assert!(Trunk::parse(&bytes, 512, 9).is_none());
        let remains = |pages, most| {
            Trunk::remains(&bytes, 512, pages, most).map(|trunk| trunk.leaves().collect::<Vec<_>>())
        };
        assert_eq!(remains(9, 10), Some(vec![5, 6]));
        assert_eq!(remains(9, 1), Some(vec![5]));
        assert_eq!(remains(8, 10), None);
    }
}
