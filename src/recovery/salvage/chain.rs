//! Overflow chains: the overflow pages of records that do not fit on their b-tree page.
//!
//! A chain is valid if and only if
//!
//! 1. it has as many pages as the record's length requires, and the last one has no link (a wrong
//!    last link is accepted if the rest of the chain is as it must be: SQLite never follows it),
//! 2. none of its pages is a b-tree page or was zeroed (the last page of a BLOB may be all zeros,
//!    if no other page was zeroed, or zeros precede it), and
//! 3. none of its pages belongs to another record, unless that record's chain is less likely.
//!
//! An overflow page does not name its record. How SQLite allocates decides which of two chains owns
//! a shared page, and whether two pages were swapped: the pages of a chain usually follow each
//! other in the file, and zeros follow the content of the last one.
//!
//! In a file without any such fault every complete chain is accepted. The pages of a chain that is
//! valid in place, and that no other chain has, are never swapped.
//!
//! The survey has the links, so a broken chain costs no reads. Memory: one record, two bits a page,
//! and an entry a contested page.

use std::collections::{HashMap, HashSet};

use super::leaf;
use super::pages::Pages;
use super::survey::{Is, Note, Survey};
use super::tree::{Owner, Owners};
use crate::engine::{Progress, Result};
use crate::format::Cell;

/// The longest record that SQLite makes.
const LONGEST: u64 = 1_000_000_000;

/// The least number of zeros before an all-zero last page that make the page part of the content.
const ZEROS: usize = 8;

/// Maximum number of suspicious pages that are kept, of each kind.
const MOST_ODD: usize = 10_000;

/// Follows and reads overflow chains.
pub(super) struct Chains<'a> {
    pages: &'a Pages<'a>,
    survey: &'a Survey,
    /// The number of links that may still be followed: many damaged cells may claim one long chain.
    budget: u64,
    found: Vec<u32>,
    /// Pages of the records that were read.
    taken: Bits,
    clues: Clues,
}

/// The facts that follow from all chains together.
#[derive(Debug, Default, Clone)]
pub(super) struct Clues {
    /// For each page in several chains: the best likelihood, and the number of chains that have it.
    contested: HashMap<u32, (u8, u32)>,
    /// Pairs of swapped pages, in both directions.
    swapped: HashMap<u32, u32>,
    /// B-tree pages to which a chain leads.
    pub(super) broken_at: Vec<u32>,
    /// Last pages with bytes behind the content that are copies of another page. Set only if almost
    /// all chains of the file end with zeros.
    copies: HashSet<u32>,
    /// Pages were zeroed.
    zeroed: bool,
    /// A chain is broken, or pages were swapped: a chain that looks complete may be wrong, too.
    suspicious: bool,
}

/// The result of one pass over all chains.
#[derive(Default)]
struct Looked {
    /// The number of complete chains.
    all: usize,
    /// Chains whose content does not end where the record does: how the chain ends, its last page,
    /// and where the content should end on it.
    ends: Vec<(End, u32, i64)>,
    /// Pages in more than one complete chain.
    contested: HashMap<u32, (u8, u32)>,
    /// B-tree pages to which a chain leads.
    broken_at: Vec<u32>,
    /// Last pages that have a link, and the link.
    link_on: Vec<(u32, u32)>,
    /// Pages before the last one that have no link.
    end_early: HashSet<u32>,
    any_broken: bool,
}

impl Looked {
    /// Pairs of pages that may have been swapped: either the content of each ends where that of the
    /// other should, or one is a last page with a link to the page after the other, which ends its
    /// chain too early.
    fn exchanged(&self, survey: &Survey) -> HashMap<u32, u32> {
        let partner = |one: &(End, u32, i64)| {
            let mut others = self.ends.iter().filter(|other| {
                other.1 != one.1
                    && survey.note(other.1).high + 1 == one.2
                    && survey.note(one.1).high + 1 == other.2
            });
            others.next().filter(|_| others.next().is_none()).map(|other| other.1)
        };
        let exchanged = self.ends.iter().filter_map(|one| Some((one.1, partner(one)?)));
        let linked = self.link_on.iter().filter_map(|&(page, next)| {
            let other = next.saturating_sub(1);
            self.end_early.contains(&other).then_some([(page, other), (other, page)])
        });
        exchanged.chain(linked.flatten()).collect()
    }
}

/// A bit for each page.
struct Bits(Vec<u64>);

impl Bits {
    fn new(count: u32) -> Self {
        Self(vec![0; count as usize / 64 + 1])
    }

    /// Sets a page's bit, and returns whether it was set before.
    fn set(&mut self, page: u32) -> bool {
        let Some(word) = self.0.get_mut(page as usize / 64) else { return true };
        let was = *word >> (page % 64) & 1 == 1;
        *word |= 1 << (page % 64);
        was
    }

    fn get(&self, page: u32) -> bool {
        self.0.get(page as usize / 64).is_some_and(|word| word >> (page % 64) & 1 == 1)
    }
}

/// How the last page of a chain ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The last byte of the content is not zero, and only zeros follow it.
    Exact,
    /// Zeros where content should be.
    Short,
    /// Bytes other than zero behind the content.
    Dirty,
}

/// The state of a record's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    /// The record is complete, and no sign of damage was found.
    Whole,
    /// The chain is complete but suspicious: the record counts only if its text is valid text.
    Odd,
    /// The last page is all zeros, this many of them content: they must belong to BLOBs.
    Zeros(usize),
    /// The chain is not valid.
    Broken,
}

impl<'a> Chains<'a> {
    pub(super) fn new(pages: &'a Pages<'a>, survey: &'a Survey, clues: Clues) -> Self {
        let count = pages.layout.count;
        let budget = 16 * u64::from(count) + 1024;
        Self { pages, survey, budget, found: Vec::new(), taken: Bits::new(count), clues }
    }

    /// Reads the whole payload of `cell` into `payload`, if its chain is valid. The chain's pages
    /// then belong to this record.
    pub(super) fn payload(
        &mut self,
        cell: &Cell<'_>,
        owners: &Owners,
        payload: &mut Vec<u8>,
    ) -> Payload {
        if !self.follow(cell, owners) || self.found.iter().any(|&page| self.taken.get(page)) {
            return Payload::Broken;
        }
        let end = self.end(cell);
        let loses = |place: usize, page: &u32| match self.clues.contested.get(page) {
            Some(&(most, count)) => self.likelihood(place, end, owners) < most || count > 1,
            None => false,
        };
        if self.found.iter().enumerate().any(|(place, page)| loses(place, page))
            || self.found.last().is_some_and(|last| self.clues.copies.contains(last))
        {
            return Payload::Broken;
        }
        payload.clear();
        payload.extend_from_slice(cell.local);
        let last = self.found.last().map_or(Is::Other, |&last| self.note(last).is);
        let usable = self.pages.layout.usable;
        let mut rest = usize::try_from(cell.length).unwrap_or(0).saturating_sub(cell.local.len());
        for &page in &self.found {
            let count = rest.min(usable - 4);
            let Some(bytes) = self.pages.read(self.actual(page)) else { return Payload::Broken };
            let Some(content) = bytes.get(4..4 + count) else { return Payload::Broken };
            payload.extend_from_slice(content);
            rest -= count;
        }
        for &page in &self.found {
            self.taken.set(page);
        }
        let in_order = self.found.windows(2).all(follows);
        if rest == 0 && !self.clues.suspicious && !self.clues.zeroed {
            // Without any damage to overflow pages, an unusual chain is what was stored.
            return Payload::Whole;
        }
        if rest == 0 && last == Is::Nothing {
            let content = self.content_end(cell).saturating_sub(4);
            return Payload::Zeros(usize::try_from(content).unwrap_or(0));
        }
        match (rest, end) {
            (0, End::Exact) if in_order => Payload::Whole,
            (0, _) => Payload::Odd,
            _ => Payload::Broken,
        }
    }

    /// The page that has the content of `page`: its partner, if the two were swapped.
    fn actual(&self, page: u32) -> u32 {
        self.clues.swapped.get(&page).copied().unwrap_or(page)
    }

    fn note(&self, page: u32) -> Note {
        self.survey.note(self.actual(page))
    }

    /// Collects the pages of a cell's chain. Returns whether the chain is complete.
    fn follow(&mut self, cell: &Cell<'_>, owners: &Owners) -> bool {
        self.found.clear();
        if cell.length > LONGEST {
            return false;
        }
        let a_page = (self.pages.layout.usable - 4) as u64;
        let wanted = (cell.length - cell.local.len() as u64).div_ceil(a_page);
        if wanted > u64::from(self.pages.layout.count) {
            return false;
        }
        let mut next = cell.overflow;
        for _ in 0..wanted {
            let note = self.note(next);
            if note.is == Is::Nothing
                && self.found.len() as u64 + 1 == wanted
                && self.may_be_zeros(cell, next)
            {
                self.found.push(next);
                return true;
            }
            if note.is != Is::Other || matches!(owners.get(next), Owner::Tree(_)) {
                return false;
            }
            let Some(budget) = self.budget.checked_sub(1) else { return false };
            self.budget = budget;
            self.found.push(next);
            let Ok(link) = u32::try_from(note.low) else { return false };
            next = link;
        }
        let in_order = self.found.windows(2).all(follows);
        // A link beyond the end of the database leads to no chain: only the link is damaged.
        let likely = match self.end(cell) {
            End::Exact => in_order || next > self.pages.layout.count,
            End::Short => next > self.pages.layout.count,
            End::Dirty => false,
        };
        if next != 0 && !likely {
            return false;
        }
        // A loop: the same page twice.
        let mut sorted = self.found.clone();
        sorted.sort_unstable();
        sorted.windows(2).all(|pair| pair.first() != pair.last())
    }

    /// Whether an all-zero page may be the last page of the chain so far.
    fn may_be_zeros(&self, cell: &Cell<'_>, page: u32) -> bool {
        let usable = self.pages.layout.usable;
        let zeros_before = match self.found.last() {
            // `high` is the offset of the page's last byte that is not zero.
            Some(&last) => self.note(last).high < i64::try_from(usable - ZEROS).unwrap_or(0),
            None => cell.local.iter().rev().take(ZEROS).all(|byte| *byte == 0),
        };
        (zeros_before || !self.clues.zeroed) && self.pages.read(page).is_some()
    }

    /// The offset at which the content of the chain should end on its last page.
    fn content_end(&self, cell: &Cell<'_>) -> i64 {
        let a_page = (self.pages.layout.usable - 4) as u64;
        let rest = (cell.length - cell.local.len() as u64) % a_page;
        i64::try_from(4 + if rest == 0 { a_page } else { rest }).unwrap_or(i64::MAX)
    }

    fn end(&self, cell: &Cell<'_>) -> End {
        let Some(&last) = self.found.last() else { return End::Short };
        match (self.note(last).high + 1).cmp(&self.content_end(cell)) {
            std::cmp::Ordering::Less => End::Short,
            std::cmp::Ordering::Equal => End::Exact,
            std::cmp::Ordering::Greater => End::Dirty,
        }
    }

    /// How likely page number `place` of the chain belongs to it. Comparable between chains.
    fn likelihood(&self, place: usize, end: End, owners: &Owners) -> u8 {
        let before = place.checked_sub(1).and_then(|before| self.found.get(before..=place));
        let link = before.map_or(4, |pair| if follows(pair) { 6 } else { 0 });
        let in_order = self.found.windows(2).all(follows);
        let likely = link + 2 * u8::from(in_order) + u8::from(end == End::Exact);
        2 * likely + u8::from(!self.has_better(place, owners))
    }

    /// Whether the page before number `place` of the chain could as well link to the page that
    /// follows it in the file, which no other chain has.
    fn has_better(&self, place: usize, owners: &Owners) -> bool {
        let before = place.checked_sub(1).and_then(|before| self.found.get(before..=place));
        let Some(&[last, next]) = before else { return false };
        let mut other = last.saturating_add(1);
        for _ in place..self.found.len() {
            let note = self.note(other);
            if other == next || note.is != Is::Other || owners.get(other) != Owner::None {
                return false;
            }
            other = u32::try_from(note.low).unwrap_or(u32::MAX);
        }
        other == 0
    }

    /// Follows the chains of all records on `leaves`, to detect wrong ones. Swapped pages are
    /// looked for only if other pages are known to be `misplaced`, because an unusual chain can be
    /// right. Likewise all-zero pages count as damaged only if pages were `zeroed`.
    ///
    /// # Errors
    /// `task`'s.
    pub(super) fn clues(
        pages: &'a Pages<'a>,
        survey: &'a Survey,
        owners: &mut Owners,
        leaves: &[u32],
        misplaced: bool,
        zeroed: bool,
        task: &dyn Progress,
    ) -> Result<Clues> {
        let clues = Clues { zeroed, ..Clues::default() };
        let mut chains = Self::new(pages, survey, clues);
        let mut looked = chains.look(owners, leaves, task)?;
        let crossed = crossed(survey);
        let crosses = !crossed.is_empty();
        if misplaced {
            let mut pairs = crossed;
            pairs.extend(looked.exchanged(survey));
            chains.clues.swapped = chains.proved(pairs, &looked, owners, leaves, task)?;
            if !chains.clues.swapped.is_empty() {
                chains.taken = Bits::new(pages.layout.count);
                looked = chains.look(owners, leaves, task)?;
            }
            let dirty = looked.ends.iter().filter(|end| end.0 == End::Dirty);
            if looked.all >= 20 && dirty.clone().count() * 50 <= looked.all {
                chains.clues.copies = copies(pages, survey, dirty.map(|&(_, last, _)| last));
            }
        }
        for page in 1..=pages.layout.count {
            if chains.taken.get(page) {
                owners.set(page, Owner::Chain);
            }
        }
        let Looked { any_broken, broken_at, mut contested, .. } = looked;
        chains.clues.suspicious = misplaced || any_broken || !contested.is_empty() || crosses;
        if !contested.is_empty() {
            chains.each(owners, leaves, task, |chains, cell, complete| {
                if !complete {
                    return;
                }
                let end = chains.end(cell);
                for (place, page) in chains.found.iter().enumerate() {
                    if let Some((most, count)) = contested.get_mut(page) {
                        let likely = chains.likelihood(place, end, owners);
                        match likely.cmp(most) {
                            std::cmp::Ordering::Less => {}
                            std::cmp::Ordering::Equal => *count += 1,
                            std::cmp::Ordering::Greater => (*most, *count) = (likely, 1),
                        }
                    }
                }
            })?;
        }
        chains.clues.contested = contested;
        chains.clues.broken_at = broken_at;
        Ok(chains.clues)
    }

    /// Follows all chains once, and marks their pages as taken.
    fn look(&mut self, owners: &Owners, leaves: &[u32], task: &dyn Progress) -> Result<Looked> {
        let mut looked = Looked::default();
        self.each(owners, leaves, task, |chains, cell, complete| {
            let last = chains.found.last().copied();
            let link = last.map_or(i64::from(cell.overflow), |last| chains.note(last).low);
            let next = u32::try_from(link).unwrap_or(0);
            let odd = looked.link_on.len() + looked.end_early.len();
            if let Some(last) = last.filter(|_| odd < MOST_ODD) {
                match (complete, next) {
                    (true, 0) | (false, 1..) => {}
                    (true, _) => looked.link_on.push((last, next)),
                    (false, 0) => _ = looked.end_early.insert(last),
                }
            }
            if !complete {
                looked.any_broken = true;
                let leads_to_tree = matches!(chains.note(next).is, Is::Tree(_));
                if leads_to_tree && looked.broken_at.len() < MOST_ODD {
                    looked.broken_at.push(next);
                }
                return;
            }
            looked.all += 1;
            for place in 0..chains.found.len() {
                let Some(&page) = chains.found.get(place) else { continue };
                if chains.taken.set(page) && looked.contested.len() < MOST_ODD {
                    looked.contested.insert(page, (0, 0));
                }
            }
            let end = chains.end(cell);
            if let Some(&last) = chains.found.last().filter(|_| end != End::Exact)
                && looked.ends.len() < MOST_ODD
            {
                looked.ends.push((end, last, chains.content_end(cell)));
            }
        })?;
        Ok(looked)
    }

    /// The `pairs` of pages that were provably swapped. No chain that is valid in place contains
    /// one of them. Each chain that does contain one is broken without the swap, or does not end
    /// where its record's length requires, and is valid with it.
    fn proved(
        &mut self,
        mut pairs: HashMap<u32, u32>,
        looked: &Looked,
        owners: &Owners,
        leaves: &[u32],
        task: &dyn Progress,
    ) -> Result<HashMap<u32, u32>> {
        if pairs.is_empty() {
            return Ok(pairs);
        }
        let mut firm = Bits::new(self.pages.layout.count);
        self.each(owners, leaves, task, |chains, cell, complete| {
            if complete && chains.is_whole(cell) {
                let uncontested = |page: &&u32| !looked.contested.contains_key(*page);
                for &page in chains.found.iter().filter(uncontested) {
                    firm.set(page);
                }
            }
        })?;
        let all = pairs.clone();
        pairs.retain(|page, other| {
            all.get(other) == Some(page) && !firm.get(*page) && !firm.get(*other)
        });
        let (mut fit, mut unfit) = (HashSet::new(), HashSet::new());
        self.clues.swapped = pairs;
        self.each(owners, leaves, task, |chains, cell, complete| {
            let swapped = &chains.clues.swapped;
            let mut touched =
                chains.found.iter().filter(|page| swapped.contains_key(page)).peekable();
            if touched.peek().is_some() {
                let whole = complete && chains.is_whole(cell);
                if whole { &mut fit } else { &mut unfit }.extend(touched);
            }
        })?;
        let mut proved = std::mem::take(&mut self.clues.swapped);
        let of =
            |set: &HashSet<u32>, page: u32, other: u32| set.contains(&page) || set.contains(&other);
        proved.retain(|&page, &mut other| of(&fit, page, other) && !of(&unfit, page, other));
        Ok(proved)
    }

    /// Whether the complete chain has no further link and ends where its record does.
    fn is_whole(&self, cell: &Cell<'_>) -> bool {
        self.found.last().is_some_and(|&last| self.note(last).low == 0)
            && self.end(cell) == End::Exact
    }

    /// Calls `each` with each cell that has a chain, after following it, and whether the chain is
    /// complete.
    fn each(
        &mut self,
        owners: &Owners,
        leaves: &[u32],
        task: &dyn Progress,
        mut each: impl FnMut(&mut Self, &Cell<'_>, bool),
    ) -> Result<()> {
        for &page in leaves {
            if !self.survey.note(page).overflows {
                continue;
            }
            task.check_cancelled()?;
            let Some(bytes) = self.pages.read(page) else { continue };
            let usable = self.pages.layout.usable;
            let Some(page) = leaf::open(&bytes, usable, page == 1) else { continue };
            for cell in leaf::cells(&page).cells.iter().filter(|cell| cell.overflow != 0) {
                let complete = self.follow(cell, owners);
                each(self, cell, complete);
            }
        }
        Ok(())
    }
}

/// Whether the second of two pages follows the first in the file.
fn follows(pair: &[u32]) -> bool {
    matches!(pair, [one, two] if one.checked_add(1) == Some(*two))
}

/// The pages among `some` that have the same bytes as another overflow page.
fn copies(pages: &Pages<'_>, survey: &Survey, some: impl Iterator<Item = u32>) -> HashSet<u32> {
    let mut alike: HashMap<(i64, i64), Vec<u32>> = HashMap::new();
    for page in some {
        let note = survey.note(page);
        alike.entry((note.low, note.high)).or_default().push(page);
    }
    let mut copies = HashSet::new();
    for (other, note) in survey.iter().filter(|(_, note)| note.is == Is::Other) {
        for &page in alike.get(&(note.low, note.high)).into_iter().flatten() {
            if page != other
                && let (Some(one), Some(other)) = (pages.read(page), pages.read(other))
                && *one == *other
            {
                copies.insert(page);
            }
        }
    }
    copies
}

/// Pairs of overflow pages that each link to the page after the other: they were swapped.
fn crossed(survey: &Survey) -> HashMap<u32, u32> {
    let mut crossed = HashMap::new();
    for (page, note) in survey.iter() {
        let other = u32::try_from(note.low).unwrap_or(0).saturating_sub(1);
        if note.is != Is::Other || other <= page {
            continue;
        }
        let there = survey.note(other);
        if there.is == Is::Other && there.low == i64::from(page) + 1 && crossed.len() < MOST_ODD {
            crossed.insert(page, other);
            crossed.insert(other, page);
        }
    }
    crossed
}
