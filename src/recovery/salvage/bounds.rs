//! Computes the ranges of rowids of the children of a table's interior page.
//!
//! The page's divider keys give the ranges, as far as they ascend. A damaged key may still be in
//! ascending order, and the whole page may be older or newer than its children. So a child outside
//! of its keys is accepted if its rowids join those of the child before or after it without a gap.
//! For any other such child, [`Bounds::hole`] is the range between its neighbours. Pure.

use std::collections::BTreeMap;

use super::ascending;
use super::survey::{Is, Note};
use crate::format::PageKind;

/// A child of the interior page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Child {
    pub(super) page: u32,
    /// Its divider key: its greatest rowid. The last child has none.
    pub(super) key: Option<i64>,
    /// The summary of the child page.
    pub(super) note: Note,
}

impl Child {
    fn has_rows(&self) -> bool {
        matches!(self.note.is, Is::Tree(kind) if kind.is_table()) && self.note.cells > 0
    }
}

/// Least and greatest rowid.
pub(super) type Range = (i64, i64);

/// The rowids that a child may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The range between its divider keys.
    pub(super) range: Range,
    /// For a child outside of its range: the range between the neighbours inside theirs.
    pub(super) hole: Option<Range>,
}

/// The bounds of the children of a page whose own range is `low` to `high`. `is_in` returns whether
/// a child's rowids are in a range.
pub(super) fn of(
    children: &[Child],
    (low, high): Range,
    is_in: &dyn Fn(&Child, Range) -> bool,
) -> Vec<Bounds> {
    let keys = believed(children, (low, high));
    let mut bounds: Vec<Bounds> =
        by_keys(&keys, (low, high)).map(|range| Bounds { range, hole: None }).collect();
    let mut taken: Vec<Option<Range>> = children
        .iter()
        .zip(&bounds)
        .map(|(child, bounds)| {
            let stands = child.has_rows() && is_in(child, bounds.range);
            stands.then(|| interval(child, bounds.range))
        })
        .collect();
    let at = |taken: &[Option<Range>], place: usize| taken.get(place).copied().flatten();
    // The pointers of a torn page are older or newer than its children, so their order says
    // nothing.
    let keys_ascend = keys.iter().zip(children).all(|(key, child)| *key == child.key);
    let mut all: BTreeMap<i64, i64> = taken.iter().flatten().copied().collect();
    // The children outside of their ranges that lie between two accepted children.
    let displaced: Vec<bool> = children
        .iter()
        .zip(&taken)
        .map(|(child, taken)| {
            taken.is_none() && child.has_rows() && around(&all, &child.note, (low, high)).is_some()
        })
        .collect();
    let all_displaced = displaced.iter().filter(|it| **it).count();
    // The loop changes the range of a child only when it reaches that child.
    let free = holes(&taken, (low, high));
    let mut from = low;
    for (((place, child), free), displaced) in children.iter().enumerate().zip(free).zip(displaced)
    {
        let in_order = keys_ascend && all_displaced == usize::from(displaced);
        let between = if in_order { (from.max(free.0), free.1) } else { (low, high) };
        let lone = at(&taken, place).is_none() && child.has_rows();
        let end_before = match place.checked_sub(1) {
            Some(before) => at(&taken, before).map(|(_, end)| end),
            None => low.checked_sub(1),
        };
        let follows = end_before.is_some_and(|end| end.checked_add(1) == Some(child.note.low));
        let precedes = children.get(place + 1).is_some_and(|next| {
            next.has_rows() && child.note.high.checked_add(1) == Some(next.note.low)
        });
        let joins = follows || precedes;
        // One damaged key puts a child outside of only one of its two bounds.
        let begins = bounds.get(place).is_some_and(|it| child.note.low >= it.range.0);
        let ends = child.key.is_none_or(|key| key == child.note.high);
        let explained = lone && (!in_order || begins || ends || joins);
        let hole = around(&all, &child.note, between).filter(|_| explained);
        if let (Some(bounds), Some(hole)) = (bounds.get_mut(place), hole) {
            bounds.hole = Some(hole);
            if joins {
                // No key gives the end of a leaf that is outside of its keys.
                let end = if is_leaf(child) { child.note.high } else { hole.1 };
                bounds.range = (hole.0, end);
                let interval = interval(child, bounds.range);
                all.insert(interval.0, interval.1);
                if let Some(taken) = taken.get_mut(place) {
                    *taken = Some(interval);
                }
            }
        }
        // If the rowids overlap no sibling, they are more likely right than the divider key.
        if let (Some(own), Some(bounds)) = (at(&taken, place), bounds.get_mut(place))
            && !child.note.is_in(bounds.range)
        {
            all.remove(&own.0);
            let (mut low, mut high) = own;
            if around(&all, &child.note, between).is_some() {
                (low, high) = (low.min(child.note.low), high.max(child.note.high));
                bounds.range = (bounds.range.0.min(low), bounds.range.1.max(high));
            }
            all.insert(low, high);
        }
        from = at(&taken, place).map_or(from, |(_, end)| from.max(end.saturating_add(1)));
    }
    // A missing child without a divider key ends where the next child begins.
    let free = holes(&taken, (low, high));
    for (((bounds, key), taken), free) in bounds.iter_mut().zip(&keys).zip(&taken).zip(free) {
        let narrowed = (bounds.range.0.max(free.0), bounds.range.1.min(free.1));
        if key.is_none() && taken.is_none() && narrowed.0 <= narrowed.1 {
            bounds.range = narrowed;
        }
    }
    bounds
}

/// The divider keys that are in the page's own range and ascend. A key that equals its child's
/// greatest rowid is preferred to other keys.
fn believed(children: &[Child], (low, high): Range) -> Vec<Option<i64>> {
    let in_range = |child: &Child| child.key.filter(|key| (low..=high).contains(key));
    let mut keys: Vec<Option<i64>> = children.iter().map(in_range).collect();
    let is_proved = |child: &Child| child.has_rows() && child.key == Some(child.note.high);
    let mut proved: Vec<Option<i64>> = keys.clone();
    for (key, child) in proved.iter_mut().zip(children) {
        *key = key.filter(|_| is_proved(child));
    }
    keep_ascending(&mut proved);
    let mut last = None;
    for (key, proved) in keys.iter_mut().zip(&proved) {
        last = proved.or(last);
        *key = proved.or(key.filter(|key| last.is_none_or(|last| last < *key)));
    }
    let mut next = None;
    for (key, proved) in keys.iter_mut().zip(&proved).rev() {
        next = proved.or(next);
        *key = proved.or(key.filter(|key| next.is_none_or(|next| *key < next)));
    }
    keep_ascending(&mut keys);
    keys
}

/// Keeps only the keys of the longest increasing subsequence.
fn keep_ascending(keys: &mut [Option<i64>]) {
    let known: Vec<i64> = keys.iter().flatten().copied().collect();
    let mut ascend = ascending::longest(&known).into_iter();
    for key in keys {
        *key = key.filter(|_| ascend.next().unwrap_or(false));
    }
}

/// The range of each child by the keys.
fn by_keys(keys: &[Option<i64>], (low, high): Range) -> impl Iterator<Item = Range> {
    let mut ends = Vec::with_capacity(keys.len());
    let mut end = high;
    for key in keys.iter().rev() {
        end = key.unwrap_or(end);
        ends.push(end);
    }
    let mut from = low;
    keys.iter().zip(ends.into_iter().rev()).map(move |(key, end)| {
        let range = (from, end);
        from = key.map_or(from, |key| key.saturating_add(1));
        range
    })
}

fn is_leaf(child: &Child) -> bool {
    child.note.is == Is::Tree(PageKind::TableLeaf)
}

/// The rowids that an accepted child occupies. An interior child may have rows after its last key,
/// so it occupies its range to the end.
fn interval(child: &Child, (low, high): Range) -> Range {
    let end = if is_leaf(child) { child.note.high.min(high) } else { high };
    (child.note.low.max(low), end)
}

/// The free range around the rowids of `note`. `None` if one of those rowids is `taken`.
fn around(taken: &BTreeMap<i64, i64>, note: &Note, (low, high): Range) -> Option<Range> {
    let before = taken.range(..=note.high).next_back().map(|(_, &end)| end);
    let after = taken.range(note.high..).find(|(start, _)| **start > note.high);
    let from = before.map_or(low, |end| low.max(end.saturating_add(1)));
    let end = after.map_or(high, |(&start, _)| high.min(start.saturating_sub(1)));
    note.is_in((from, end)).then_some((from, end))
}

/// For each child, the range between the accepted children before and after it.
fn holes(taken: &[Option<Range>], (low, high): Range) -> Vec<Range> {
    let mut from = low;
    let mut holes: Vec<Range> = Vec::with_capacity(taken.len());
    for range in taken {
        holes.push((from, high));
        from = range.map_or(from, |(_, end)| from.max(end.saturating_add(1)));
    }
    let mut end = high;
    for (hole, range) in holes.iter_mut().zip(taken).rev() {
        hole.1 = end;
        end = range.map_or(end, |(start, _)| end.min(start.saturating_sub(1)));
    }
    holes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(key: Option<i64>, low: i64, high: i64) -> Child {
        let is = Is::Tree(PageKind::TableLeaf);
        Child { page: 0, key, note: Note { is, cells: 10, low, high, ..Note::NOTHING } }
    }

    fn bounds(children: &[Child]) -> Vec<Bounds> {
        of(children, (1, 1000), &|child, range| child.note.is_in(range))
    }

    #[test]
    fn children_are_between_their_keys() {
        let children = [leaf(Some(10), 1, 10), leaf(Some(25), 12, 20), leaf(None, 30, 40)];
        let ranges: Vec<Range> = bounds(&children).iter().map(|it| it.range).collect();
        assert_eq!(ranges, [(1, 10), (11, 25), (26, 1000)]);
    }

    #[test]
    fn a_damaged_key_costs_no_child() {
        for damaged in [2, 14, 500, 2000, -7] {
            let children = [
                leaf(Some(10), 1, 10),
                leaf(Some(damaged), 11, 20),
                leaf(Some(30), 21, 30),
                leaf(None, 31, 40),
            ];
            for (child, bounds) in children.iter().zip(bounds(&children)) {
                assert!(child.note.is_in(bounds.range), "{damaged}: {child:?} {bounds:?}");
            }
        }
    }

    #[test]
    fn of_keys_that_do_not_ascend_the_one_that_differs_from_its_childs_last_rowid_is_damaged() {
        let children = [
            leaf(Some(10), 1, 10),
            leaf(Some(20), 11, 20),
            Child { page: 0, key: Some(19), note: Note::NOTHING },
            leaf(None, 31, 40),
        ];
        let ranges: Vec<Range> = bounds(&children).iter().map(|it| it.range).collect();
        assert_eq!(ranges, [(1, 10), (11, 20), (21, 30), (21, 1000)]);
    }

    #[test]
    fn leaves_that_have_changed_places_are_not_believed() {
        let children = [leaf(Some(10), 11, 20), leaf(Some(20), 1, 10), leaf(None, 21, 30)];
        let bounds = bounds(&children);
        assert_eq!(
            bounds.iter().map(|it| it.range).collect::<Vec<_>>(),
            [(1, 10), (11, 20), (21, 1000)]
        );
    }

    #[test]
    fn a_leaf_that_joins_no_sibling_has_a_hole() {
        let children = [leaf(Some(10), 1, 10), leaf(Some(15), 17, 19), leaf(None, 30, 40)];
        assert_eq!(bounds(&children)[1], Bounds { range: (11, 15), hole: Some((11, 29)) });
        let children = [leaf(Some(10), 1, 10), leaf(Some(15), 7, 9), leaf(None, 30, 40)];
        assert_eq!(bounds(&children)[1], Bounds { range: (11, 15), hole: None });
        let children = [leaf(Some(10), 1, 10), leaf(Some(15), 50, 60), leaf(None, 30, 40)];
        assert_eq!(bounds(&children)[1], Bounds { range: (11, 15), hole: None });
        let children = [leaf(Some(10), 1, 5), leaf(Some(15), 8, 12), leaf(None, 30, 40)];
        assert_eq!(bounds(&children)[1], Bounds { range: (11, 15), hole: None });
    }
}
