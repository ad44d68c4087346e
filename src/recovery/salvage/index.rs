//! The damaged file's indexes, entry by entry, for comparing them with the new tables.

use super::chain::Clues;
use super::pages::Pages;
use super::rows::Rows;
use super::survey::Survey;
use super::target::IndexSource;
use super::tree::{Owners, Tree};
use crate::engine::Result;
use crate::format::Value;

/// The b-trees of a file's indexes.
pub(super) struct Indexes<'a> {
    pub(super) pages: &'a Pages<'a>,
    pub(super) survey: &'a Survey,
    pub(super) owners: &'a Owners,
    pub(super) clues: Clues,
    /// As the header has it.
    pub(super) encoding: u8,
    pub(super) trees: Vec<Tree>,
}

impl IndexSource for Indexes<'_> {
    fn entries(&self, root: u32, entry: &mut dyn FnMut(&[Value<'_>]) -> Result<()>) -> Result<()> {
        let Some(tree) = self.trees.iter().find(|tree| tree.root == root) else { return Ok(()) };
        let mut rows = Rows::new(self.pages, self.survey, self.clues.clone(), self.encoding);
        for &page in &tree.pages {
            rows.each(page, self.owners, None, &mut |it| {
                if it.doubtful { Ok(()) } else { entry(it.fields) }
            })?;
        }
        Ok(())
    }
}
