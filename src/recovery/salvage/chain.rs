//! Overflow chains: the rest of records that are longer than their page has room for.
//!
//! A chain counts if and only if
//!
//! 1. it has as many pages as the record's length asks for, the last of which links to none,
//! 2. none of them is a b-tree's page or another record's, and
//! 3. none of them has been zeroed.
//!
//! Links are taken from the survey, so that a broken chain costs no reading. Memory: one record.

use super::pages::Pages;
use super::survey::{Is, Survey};
use super::tree::{Owner, Owners};
use crate::format::Cell;

/// The longest record that SQLite makes.
const LONGEST: u64 = 1_000_000_000;

/// Follows chains.
pub(super) struct Chains<'a> {
    pages: &'a Pages<'a>,
    survey: &'a Survey,
    /// Links that may still be followed: many cells may claim one long chain.
    budget: u64,
    found: Vec<u32>,
}

impl<'a> Chains<'a> {
    pub(super) fn new(pages: &'a Pages<'a>, survey: &'a Survey) -> Self {
        let budget = 16 * u64::from(pages.layout.count) + 1024;
        Self { pages, survey, budget, found: Vec::new() }
    }

    /// Puts the whole payload of `cell` into `payload`, if its chain counts. Its pages are the
    /// record's then.
    pub(super) fn payload(
        &mut self,
        cell: &Cell<'_>,
        owners: &mut Owners,
        payload: &mut Vec<u8>,
    ) -> bool {
        if !self.follow(cell, owners) {
            return false;
        }
        payload.clear();
        payload.extend_from_slice(cell.local);
        let usable = self.pages.layout.usable;
        let mut rest = usize::try_from(cell.length).unwrap_or(0).saturating_sub(cell.local.len());
        for &page in &self.found {
            let count = rest.min(usable - 4);
            let Some(bytes) = self.pages.read(page) else { return false };
            let Some(content) = bytes.get(4..4 + count) else { return false };
            payload.extend_from_slice(content);
            rest -= count;
        }
        for &page in &self.found {
            owners.set(page, Owner::Chain);
        }
        rest == 0
    }

    /// Lists the pages of a cell's chain.
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
            let note = self.survey.note(next);
            if note.is != Is::Other || matches!(owners.get(next), Owner::Tree(_) | Owner::Chain) {
                return false;
            }
            let Some(budget) = self.budget.checked_sub(1) else { return false };
            self.budget = budget;
            self.found.push(next);
            let Ok(link) = u32::try_from(note.low) else { return false };
            next = link;
        }
        if next != 0 {
            return false;
        }
        // A loop: the same page twice.
        let mut sorted = self.found.clone();
        sorted.sort_unstable();
        sorted.windows(2).all(|pair| pair.first() != pair.last())
    }
}
