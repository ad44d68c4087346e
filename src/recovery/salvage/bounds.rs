//! Which rowids the children of a table's interior page may have.
//!
//! That is what the page's keys say, as far as they ascend. But a key may be damaged and still do
//! so, or the whole page be of another time than its children. So a child that is not between its
//! keys is believed where it joins the child before or after it without a gap, and of others it is
//! told where between their neighbours they are. Pure.

use super::ascending;
use super::survey::{Is, Note};
use crate::format::Kind;

/// A child as the page has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Child {
    pub(super) page: u32,
    /// Its greatest rowid, by the page; the last child has none.
    pub(super) key: Option<i64>,
    /// What is noted of the page that is there.
    pub(super) note: Note,
}

impl Child {
    fn has_rows(&self) -> bool {
        matches!(self.note.is, Is::Tree(kind) if kind.is_table()) && self.note.cells > 0
    }
}

/// Least and greatest rowid.
pub(super) type Range = (i64, i64);

/// What a child may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// By its keys.
    pub(super) range: Range,
    /// Where between the children that are in their places the rows of one are that is not.
    pub(super) hole: Option<Range>,
}

/// The bounds of a page's children, whose own are `low` and `high`. `is_in` tells whether a child's
/// rowids are in a range.
pub(super) fn of(
    children: &[Child],
    (low, high): Range,
    is_in: &dyn Fn(&Child, Range) -> bool,
) -> Vec<Bounds> {
    let mut bounds: Vec<Bounds> =
        by_keys(children, (low, high)).map(|range| Bounds { range, hole: None }).collect();
    let mut taken: Vec<Option<Range>> = children
        .iter()
        .zip(&bounds)
        .map(|(child, bounds)| {
            let stands = child.has_rows() && is_in(child, bounds.range);
            stands.then(|| interval(child, bounds.range))
        })
        .collect();
    let at = |taken: &[Option<Range>], place: usize| taken.get(place).copied().flatten();
    for (place, child) in children.iter().enumerate() {
        if at(&taken, place).is_some() || !child.has_rows() {
            continue;
        }
        let Some(hole) = hole(&taken, place, &child.note, (low, high)) else { continue };
        let Some(bounds) = bounds.get_mut(place) else { continue };
        bounds.hole = Some(hole);
        let end_before = match place.checked_sub(1) {
            Some(before) => at(&taken, before).map(|(_, end)| end),
            None => low.checked_sub(1),
        };
        let follows = end_before.is_some_and(|end| end.checked_add(1) == Some(child.note.low));
        let precedes = children.get(place + 1).is_some_and(|next| {
            next.has_rows() && child.note.high.checked_add(1) == Some(next.note.low)
        });
        if follows || precedes {
            // Of a leaf nothing says where it should end.
            let end = if is_leaf(child) { child.note.high } else { hole.1 };
            bounds.range = (hole.0, end);
            if let Some(taken) = taken.get_mut(place) {
                *taken = Some(interval(child, bounds.range));
            }
        }
    }
    bounds
}

/// What the keys say, as far as they are in the page's own range and ascend.
fn by_keys(children: &[Child], (low, high): Range) -> impl Iterator<Item = Range> {
    let mut keys: Vec<Option<i64>> =
        children.iter().map(|child| child.key.filter(|key| (low..=high).contains(key))).collect();
    let known: Vec<i64> = keys.iter().flatten().copied().collect();
    let mut ascend = ascending::longest(&known).into_iter();
    for key in &mut keys {
        *key = key.filter(|_| ascend.next().unwrap_or(false));
    }
    let mut ends = Vec::with_capacity(keys.len());
    let mut end = high;
    for key in keys.iter().rev() {
        end = key.unwrap_or(end);
        ends.push(end);
    }
    let mut from = low;
    keys.into_iter().zip(ends.into_iter().rev()).map(move |(key, end)| {
        let range = (from, end);
        from = key.map_or(from, |key| key.saturating_add(1));
        range
    })
}

fn is_leaf(child: &Child) -> bool {
    child.note.is == Is::Tree(Kind::TableLeaf)
}

/// What a child that is in its place takes of the page's rowids. Behind an interior page's last key
/// there are more rows.
fn interval(child: &Child, (low, high): Range) -> Range {
    let end = if is_leaf(child) { child.note.high.min(high) } else { high };
    (child.note.low.max(low), end)
}

/// The rowids between those that the children before and after number `place` have taken, if those
/// of `note` are among them.
fn hole(taken: &[Option<Range>], place: usize, note: &Note, (low, high): Range) -> Option<Range> {
    let mut hole = (low, high);
    for (other, &(start, end)) in
        taken.iter().enumerate().filter_map(|(at, it)| Some((at, it.as_ref()?)))
    {
        if other < place {
            hole.0 = hole.0.max(end.saturating_add(1));
        } else {
            hole.1 = hole.1.min(start.saturating_sub(1));
        }
    }
    note.is_in(hole).then_some(hole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(key: Option<i64>, low: i64, high: i64) -> Child {
        let is = Is::Tree(Kind::TableLeaf);
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
    fn leaves_that_have_changed_places_are_not_believed() {
        let children = [leaf(Some(10), 11, 20), leaf(Some(20), 1, 10), leaf(None, 21, 30)];
        let bounds = bounds(&children);
        assert_eq!(
            bounds.iter().map(|it| it.range).collect::<Vec<_>>(),
            [(1, 10), (11, 20), (21, 1000)]
        );
    }

    #[test]
    fn a_leaf_that_joins_nothing_is_told_its_hole() {
        let children = [leaf(Some(10), 1, 10), leaf(Some(15), 17, 19), leaf(None, 30, 40)];
        assert_eq!(bounds(&children)[1], Bounds { range: (11, 15), hole: Some((11, 29)) });
        let children = [leaf(Some(10), 1, 10), leaf(Some(15), 7, 9), leaf(None, 30, 40)];
        assert_eq!(bounds(&children)[1], Bounds { range: (11, 15), hole: None });
        let children = [leaf(Some(10), 1, 10), leaf(Some(15), 50, 60), leaf(None, 30, 40)];
        assert_eq!(bounds(&children)[1], Bounds { range: (11, 15), hole: None });
    }
}
