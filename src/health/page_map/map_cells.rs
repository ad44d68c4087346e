//! The state of each page, in 4 bytes, and the runs of equal pages.

use std::collections::BTreeMap;

use super::{DamagedPage, LISTED_PAGES, Owner, Role, Run};

/// Marks a page without an owner.
const NO_OWNER: u16 = u16::MAX;

/// Largest number of owners. Further b-trees are not walked.
pub const OWNERS: usize = NO_OWNER as usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MapCell {
    owner: u16,
    role: Role,
    damaged: bool,
}

impl MapCell {
    /// Rank of the state: of the pages that share a cell, the one with the highest rank is shown.
    fn badness(self) -> u8 {
        match self {
            Self { damaged: true, .. } => 3,
            Self { role: Role::Missing, .. } => 2,
            Self { role: Role::Orphan, .. } => 1,
            _ => 0,
        }
    }
}

/// Result of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageClaim {
    /// The page now belongs to the claimant.
    Granted,
    /// The page now belongs to the claimant, but the file ends before it.
    Missing,
    /// The page was claimed before.
    Taken,
    /// The database has no page of that number.
    Nowhere,
}

/// The states of all pages of a file. Numbers of pages that the file does not have are ignored.
#[derive(Debug)]
pub struct MapCells {
    cells: Vec<MapCell>,
    damaged: BTreeMap<u32, &'static str>,
}

impl MapCells {
    /// `pages` pages, none of them claimed.
    pub fn new(pages: u32) -> Self {
        let cell = MapCell { owner: NO_OWNER, role: Role::Orphan, damaged: false };
        Self { cells: vec![cell; pages as usize], damaged: BTreeMap::new() }
    }

    /// Number of pages.
    pub fn pages(&self) -> u32 {
        u32::try_from(self.cells.len()).unwrap_or(u32::MAX)
    }

    fn cell(&mut self, page: u32) -> Option<&mut MapCell> {
        self.cells.get_mut((page as usize).checked_sub(1)?)
    }

    /// Claims a page for `owner`, if it is unclaimed.
    pub fn claim(&mut self, page: u32, owner: Option<u16>, role: Role) -> PageClaim {
        let owner = owner.unwrap_or(NO_OWNER);
        match self.cell(page) {
            Some(cell) if cell.role == Role::Orphan => {
                *cell = MapCell { owner, role, ..*cell };
                PageClaim::Granted
            }
            Some(cell) if cell.role == Role::Missing && cell.owner == NO_OWNER => {
                cell.owner = owner;
                PageClaim::Missing
            }
            Some(_) => PageClaim::Taken,
            None => PageClaim::Nowhere,
        }
    }

    /// Whether the page is unclaimed.
    pub fn is_orphan(&self, page: u32) -> bool {
        let cell = (page as usize).checked_sub(1).and_then(|at| self.cells.get(at));
        cell.is_some_and(|cell| cell.role == Role::Orphan)
    }

    /// Sets the role of a page.
    pub fn set_role(&mut self, page: u32, role: Role) {
        if let Some(cell) = self.cell(page) {
            cell.role = role;
        }
    }

    /// Marks a page as damaged. The first reason is kept.
    pub fn damage(&mut self, page: u32, reason: &'static str) {
        let Some(cell) = self.cell(page) else { return };
        cell.damaged = true;
        let full = self.damaged.len() >= LISTED_PAGES;
        if !full || self.damaged.contains_key(&page) {
            self.damaged.entry(page).or_insert(reason);
        }
    }

    /// Number of damaged pages.
    pub fn damaged_pages(&self) -> u64 {
        self.cells.iter().filter(|cell| cell.damaged).count() as u64
    }

    /// The first damaged pages.
    pub fn damaged(&self) -> Vec<DamagedPage> {
        let owner = |page: u32| {
            let cell = self.cells.get((page as usize).checked_sub(1)?)?;
            (cell.owner != NO_OWNER).then_some(cell.owner)
        };
        self.damaged
            .iter()
            .map(|(page, reason)| DamagedPage { page: *page, owner: owner(*page), reason })
            .collect()
    }

    /// Number of pages of each role.
    pub fn roles(&self) -> BTreeMap<Role, u64> {
        let mut roles = BTreeMap::new();
        for cell in &self.cells {
            *roles.entry(cell.role).or_default() += 1;
        }
        roles
    }

    /// Counts the pages of each owner.
    pub fn count(&self, owners: &mut [Owner]) {
        for cell in &self.cells {
            let Some(owner) = owners.get_mut(usize::from(cell.owner)) else { continue };
            if cell.role == Role::Missing {
                owner.missing_pages += 1;
                continue;
            }
            owner.pages += 1;
            owner.interior_pages += u64::from(cell.role == Role::Interior);
            owner.overflow_pages += u64::from(cell.role == Role::Overflow);
            owner.damaged_pages += u64::from(cell.damaged);
        }
    }

    /// The runs, made of at most `resolution` cells, and the number of pages in a cell.
    pub fn runs(&self, resolution: u64) -> (Vec<Run>, u64) {
        let pages = self.cells.len() as u64;
        let per_cell = pages.div_ceil(resolution.max(1)).max(1);
        let size = usize::try_from(per_cell).unwrap_or(usize::MAX);
        let mut runs: Vec<(MapCell, u64)> = Vec::new();
        for cells in self.cells.chunks(size) {
            // The first page of the highest rank: `max_by_key` returns the last of its maxima.
            let Some(worst) = cells.iter().rev().max_by_key(|cell| cell.badness()) else {
                continue;
            };
            match runs.last_mut() {
                Some((cell, length)) if cell == worst => *length += cells.len() as u64,
                _ => runs.push((*worst, cells.len() as u64)),
            }
        }
        let mut first = 1;
        let runs = runs
            .into_iter()
            .map(|(cell, pages)| {
                let owner = (cell.owner != NO_OWNER).then_some(cell.owner);
                let run = Run { first, pages, owner, role: cell.role, damaged: cell.damaged };
                first += pages;
                run
            })
            .collect();
        (runs, per_cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_pages_that_share_a_cell_the_worst_is_shown() {
        let mut cells = MapCells::new(10);
        for page in 1..=9 {
            assert_eq!(cells.claim(page, Some(0), Role::Leaf), PageClaim::Granted);
        }
        cells.damage(5, "bad");
        let (runs, per_cell) = cells.runs(5);
        assert_eq!(per_cell, 2);
        let shown: Vec<_> =
            runs.iter().map(|it| (it.first, it.pages, it.role, it.damaged)).collect();
        assert_eq!(
            shown,
            [
                (1, 4, Role::Leaf, false),
                (5, 2, Role::Leaf, true),
                (7, 2, Role::Leaf, false),
                (9, 2, Role::Orphan, false),
            ]
        );
        assert_eq!(cells.damaged_pages(), 1);
    }

    #[test]
    fn a_page_is_claimed_once_and_only_if_it_exists() {
        let mut cells = MapCells::new(2);
        cells.set_role(1, Role::Missing);
        assert_eq!(cells.claim(0, None, Role::Leaf), PageClaim::Nowhere);
        assert_eq!(cells.claim(2, None, Role::Leaf), PageClaim::Granted);
        assert_eq!(cells.claim(2, Some(1), Role::Leaf), PageClaim::Taken);
        assert_eq!(cells.claim(3, None, Role::Leaf), PageClaim::Nowhere);
        assert_eq!(cells.claim(1, Some(1), Role::Leaf), PageClaim::Missing);
        assert_eq!(cells.claim(1, Some(1), Role::Leaf), PageClaim::Taken);
        assert_eq!(cells.runs(9).0.first().map(|run| run.role), Some(Role::Missing));
    }
}
