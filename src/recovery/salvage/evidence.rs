//! What the indexes say of a page that could be a table's: an index has each row's rowid (or key),
//! and some of its values.
//!
//! An index agrees with a row by chance, too, where a column has few values. So agreement counts
//! by what it tells, in bits: the rarer the entry's key in the index, the more. An index that
//! leaves no row out also tells which rows there are not: if it is whole, all that it does not
//! have, else those whose entries would be on the pages that it has left. And a page whose records
//! are not in a WITHOUT ROWID table's order is not that table's.
//!
//! Memory: of each page that is asked about [`ROWS`] rows' sums, and their keys in each index that
//! is not whole.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::absent::{self, Unnamed};
use super::fit;
use super::leaf;
use super::pages::Pages;
use super::survey::Survey;
use super::target::{IndexShape, Part, Shape};
use super::tree::Tree;
use crate::format::{Cell, SortKey, Value, record};

/// Rows of a page that are looked up.
const ROWS: usize = 16;

/// Rows with one rowid or key that are looked up: copies of a page are few.
const MOST_ALIKE: usize = 64;

/// Bits that make rows a table's own: one page in 65,536 agrees that much by chance.
const CERTAIN: u32 = 16;

/// Bits for a key that is not made of small numbers only: nobody else's row would have it.
const SPECIAL: u32 = 3;

/// Counters of how often keys are in an index; keys that share one count as the same.
const COUNTERS: usize = 4096;

/// What a table's indexes say of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Verdict {
    /// They have rows of it.
    Own {
        /// One of them has most of those that were asked about.
        mostly: bool,
    },
    /// They have its rowids with other values, or not at all.
    Others {
        /// How many of them.
        by: u32,
    },
    /// None has any of its rows, while one that seems whole has rows of other pages that were asked
    /// about.
    Missing,
}

impl Verdict {
    pub(super) fn is_own(self) -> bool {
        matches!(self, Self::Own { .. })
    }

    pub(super) fn is_others(self) -> bool {
        matches!(self, Self::Others { .. })
    }
}

/// Pages and the tables, by their places, that they could be of.
pub(super) type Question = (usize, u32);

/// The indexes of a file, as witnesses.
pub(super) struct Evidence<'a> {
    pages: &'a Pages<'a>,
    survey: &'a Survey,
    shapes: &'a [Shape],
    indexes: Vec<Index<'a>>,
}

struct Index<'a> {
    shape: &'a IndexShape,
    tree: &'a Tree,
    /// What it does not have is not in its table.
    whole: bool,
}

/// What the indexes say of a page so far.
#[derive(Default)]
struct Tally {
    /// Rows of the page, and those of them that are asked about.
    rows: u64,
    asked: u32,
    agreeing: u32,
    contradicting: u32,
    bits: u32,
    /// By the index that is being read: rows that it has, those that it has not or otherwise, and
    /// the keys of those that agree.
    named: u32,
    denied: u32,
    keys: Vec<(usize, bool)>,
    /// An index has most of the rows that are asked about.
    mostly: bool,
    /// Indexes that contradict more rows than they have.
    against: u32,
    /// Indexes that seem whole, and have only rows of other pages.
    silent: u32,
}

/// A row that is asked about.
struct Row {
    page: u32,
    /// The sums of its fields.
    sums: Vec<u64>,
    /// Its keys in the indexes that are not whole, by their places.
    keys: Vec<(usize, SortKey)>,
    /// The index that is being read has it.
    named: bool,
}

/// The rows by their table and the sum of their rowid or key.
type Rows = HashMap<(usize, u64), Vec<Row>>;

/// What is asked of the indexes at once.
#[derive(Default)]
pub(super) struct Asked {
    rows: Rows,
    tallies: HashMap<Question, Tally>,
}

impl<'a> Evidence<'a> {
    /// The witnesses: each index with its b-tree.
    pub(super) fn new(
        pages: &'a Pages<'a>,
        survey: &'a Survey,
        shapes: &'a [Shape],
        indexes: impl Iterator<Item = (&'a IndexShape, &'a Tree)>,
    ) -> Self {
        let sound = |tree: &Tree| {
            tree.lost.is_empty() && tree.pages.iter().all(|&page| survey.note(page).sound)
        };
        let index = |(shape, tree): (&'a IndexShape, &'a Tree)| {
            (!tree.pages.is_empty()).then(|| {
                let whole = !shape.partial && sound(tree);
                Index { shape, tree, whole }
            })
        };
        Self { pages, survey, shapes, indexes: indexes.filter_map(index).collect() }
    }

    /// How many indexes of a table can be asked.
    pub(super) fn witnesses(&self, table: usize) -> usize {
        self.indexes.iter().filter(|index| index.shape.table == table).count()
    }

    /// Asks about pages.
    pub(super) fn ask(&self, questions: &[Question]) -> HashMap<Question, Verdict> {
        let mut asked = Asked::default();
        let mut unsorted = Vec::new();
        for &(table, page) in questions {
            let Some(shape) = self.shapes.get(table) else { continue };
            if shape.without_rowid && !fit::is_sorted(self.pages, page, shape) {
                unsorted.push((table, page));
                continue;
            }
            if self.witnesses(table) == 0 {
                continue;
            }
            let tally = asked.tallies.entry((table, page)).or_default();
            tally.rows = u64::from(self.survey.note(page).cells);
            records(self.pages, page, ROWS, &mut |rowid, fields| {
                self.add(&mut asked, shape, (table, page), rowid, fields);
            });
        }
        let mut verdicts = self.judge(asked);
        // The page contradicts it itself.
        verdicts.extend(unsorted.into_iter().map(|it| (it, Verdict::Others { by: 1 })));
        verdicts
    }

    /// Asks about one row of a table as well, under a number in place of its page's.
    pub(super) fn ask_about(&self, asked: &mut Asked, (table, number): Question, row: &Cell<'_>) {
        let mut fields = Vec::new();
        if let Some(shape) = self.shapes.get(table)
            && row.overflow == 0
            && record::read(row.local, &mut fields)
        {
            self.add(asked, shape, (table, number), row.rowid, &fields);
            asked.tallies.entry((table, number)).or_default().rows = 1;
        }
    }

    fn add(
        &self,
        asked: &mut Asked,
        shape: &Shape,
        (table, page): Question,
        rowid: i64,
        fields: &[Value<'_>],
    ) {
        let identity = if shape.without_rowid {
            sum_of(fields.iter().take(shape.key_fields))
        } else {
            sum(&Value::Integer(rowid))
        };
        let alike = asked.rows.entry((table, identity)).or_default();
        if alike.len() >= MOST_ALIKE {
            return;
        }
        let rowid = Value::Integer(rowid);
        let key = |(place, index): (usize, &Index<'_>)| {
            let of = index.shape;
            let value = |part: &Part| match part {
                Part::Field(field) => fields.get(*field),
                Part::Rowid => Some(&rowid),
                Part::Computed => None,
            };
            (of.table == table && !of.partial && !index.whole)
                .then(|| (place, SortKey::of(of.parts.iter().map_while(value), &of.descending)))
        };
        let row = Row {
            page,
            sums: fields.iter().map(sum).collect(),
            keys: self.indexes.iter().enumerate().filter_map(key).collect(),
            named: false,
        };
        alike.push(row);
        asked.tallies.entry((table, page)).or_default().asked += 1;
    }

    /// Answers what was asked.
    pub(super) fn judge(&self, asked: Asked) -> HashMap<Question, Verdict> {
        let Asked { mut rows, mut tallies } = asked;
        let tables: HashSet<usize> = tallies.keys().map(|(table, _)| *table).collect();
        for (place, index) in self.indexes.iter().enumerate() {
            if tables.contains(&index.shape.table) {
                self.hear(place, index, &mut rows, &mut tallies);
            }
        }
        let verdict = |(question, tally): (Question, Tally)| Some((question, tally.verdict()?));
        tallies.into_iter().filter_map(verdict).collect()
    }

    /// Lets one index say what it has of the rows.
    fn hear(
        &self,
        place: usize,
        index: &Index<'_>,
        rows: &mut Rows,
        tallies: &mut HashMap<Question, Tally>,
    ) {
        let table = index.shape.table;
        let Some(shape) = self.shapes.get(table) else { return };
        let parts = &index.shape.parts;
        // Where in an entry that is which tells the row.
        let identity: Option<Vec<usize>> = if shape.without_rowid {
            let at = |field| parts.iter().position(|part| *part == Part::Field(field));
            (0..shape.key_fields).map(at).collect()
        } else {
            parts.iter().rposition(|part| *part == Part::Rowid).map(|at| vec![at])
        };
        let Some(identity) = identity else { return };
        let mut heard = Heard { total: 0, counters: vec![0; COUNTERS], whole: index.whole };
        for &page in &index.tree.pages {
            heard.whole &= records(self.pages, page, usize::MAX, &mut |_, entry| {
                if entry.len() != parts.len() {
                    return;
                }
                let key: Vec<&Value<'_>> = entry
                    .iter()
                    .enumerate()
                    .filter_map(|(at, value)| (!identity.contains(&at)).then_some(value))
                    .collect();
                let counter = usize::try_from(sum_of(key.iter().copied())).unwrap_or(0) % COUNTERS;
                heard.total = heard.total.saturating_add(1);
                if let Some(counter) = heard.counters.get_mut(counter) {
                    *counter = counter.saturating_add(1);
                }
                let row = match identity.as_slice() {
                    &[at] if !shape.without_rowid => entry.get(at).map_or(0, sum),
                    places => sum_of(places.iter().filter_map(|&at| entry.get(at))),
                };
                for row in rows.get_mut(&(table, row)).into_iter().flatten() {
                    let Some(tally) = tallies.get_mut(&(table, row.page)) else { continue };
                    tally.named += 1;
                    row.named = true;
                    // That there is such a rowid tells little; that there is such a key, something.
                    match agrees(parts, entry, &row.sums).or(shape.without_rowid.then_some(true)) {
                        Some(true) => {
                            tally.agreeing += 1;
                            tally.keys.push((counter, key.iter().any(|value| is_special(value))));
                        }
                        Some(false) => tally.denied += 1,
                        None => {}
                    }
                }
            });
        }
        let mut unnamed = Vec::new();
        for row in rows.iter_mut().filter(|((of, _), _)| *of == table).flat_map(|(_, rows)| rows) {
            if !std::mem::take(&mut row.named)
                && let Some(at) = row.keys.iter().position(|(of, _)| *of == place)
            {
                let (_, key) = row.keys.swap_remove(at);
                unnamed.push(Unnamed { key, page: row.page, told: false });
            }
        }
        let entries = (index.tree.pages.as_slice(), index.shape.descending.as_slice());
        absent::find(self.pages, self.survey, entries, unnamed, &mut |page| {
            if let Some(tally) = tallies.get_mut(&(table, page)) {
                tally.denied += 1;
            }
        });
        let of_table = tallies.iter_mut().filter(|((of, _), _)| *of == table);
        heard.conclude(&mut of_table.map(|(_, tally)| tally).collect::<Vec<_>>());
    }
}

/// What was heard of one index's entries.
struct Heard {
    /// How many there are, and with which keys.
    total: u32,
    counters: Vec<u32>,
    /// All of them could be read.
    whole: bool,
}

impl Heard {
    /// Tells all pages of the table that were asked about what follows.
    fn conclude(&self, tallies: &mut [&mut Tally]) {
        let knows_some = tallies.iter().any(|tally| tally.named > 0);
        // Of an index that has lost most of its entries without a trace (its root was written over)
        // nothing follows from what it does not have.
        let rows: u64 = tallies.iter().map(|tally| tally.rows).sum();
        let denies = self.whole && u64::from(self.total) * 2 >= rows;
        for tally in tallies {
            tally.mostly |= tally.keys.len() * 2 > tally.asked as usize;
            for (counter, special) in tally.keys.drain(..) {
                let count = self.counters.get(counter).copied().unwrap_or(self.total).max(1);
                tally.bits +=
                    (self.total / count).max(1).ilog2() + if special { SPECIAL } else { 0 };
            }
            if denies {
                tally.denied += tally.asked.saturating_sub(tally.named);
            }
            tally.silent += u32::from(self.whole && knows_some && tally.named == 0);
            tally.against += u32::from(tally.denied * 2 > tally.asked);
            tally.contradicting += tally.denied;
            (tally.named, tally.denied) = (0, 0);
        }
    }
}

impl Tally {
    fn verdict(&self) -> Option<Verdict> {
        if self.contradicting > self.agreeing {
            Some(Verdict::Others { by: self.against.max(1) })
        } else if self.contradicting * 8 <= self.agreeing && self.bits >= CERTAIN {
            // One row of many may have been damaged.
            Some(Verdict::Own { mostly: self.mostly })
        } else if self.silent > 0 && self.agreeing == 0 {
            Some(Verdict::Missing)
        } else {
            None
        }
    }
}

/// Whether an entry has the values of a row; none if the row is too old for all of them, or they
/// are computed.
fn agrees(parts: &[Part], entry: &[Value<'_>], sums: &[u64]) -> Option<bool> {
    let own = parts.iter().zip(entry).filter_map(|(part, value)| match part {
        Part::Field(field) => Some((sums.get(*field)?, value)),
        Part::Rowid | Part::Computed => None,
    });
    own.map(|(&own, value)| own == sum(value)).reduce(|all, one| all && one)
}

/// Tells `row` the rowid and the fields of records that are all on `page`: of at most `most`.
/// Whether it could tell all of those.
fn records(
    pages: &Pages<'_>,
    page: u32,
    most: usize,
    row: &mut dyn FnMut(i64, &[Value<'_>]),
) -> bool {
    let Some(bytes) = pages.read(page) else { return false };
    let Some(view) = leaf::open(&bytes, pages.layout.usable, page == 1) else { return false };
    let cells = leaf::cells(&view).cells;
    let step = cells.len().div_ceil(most).max(1);
    let mut fields = Vec::new();
    let mut all = true;
    for cell in cells.iter().step_by(step) {
        if cell.overflow == 0 && record::read(cell.local, &mut fields) {
            row(cell.rowid, &fields);
        } else {
            all = false;
        }
    }
    all
}

/// Whether a value is unlikely to be in two rows of different tables.
fn is_special(value: &Value<'_>) -> bool {
    match value {
        Value::Null => false,
        Value::Integer(integer) => integer.unsigned_abs() > 1 << 20,
        Value::Real(_) => true,
        Value::Text(bytes) | Value::Blob(bytes) => bytes.len() >= 8,
    }
}

fn sum_of<'v>(values: impl Iterator<Item = &'v Value<'v>>) -> u64 {
    values.fold(0, |all, value| all.rotate_left(7) ^ sum(value))
}

/// Tells values apart well enough.
fn sum(value: &Value<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match value {
        Value::Null => 0_u8.hash(&mut hasher),
        Value::Integer(integer) => (1_u8, integer).hash(&mut hasher),
        // A column's whole numbers may be stored in either way.
        #[expect(clippy::cast_possible_truncation, reason = "it saturates, and then differs")]
        Value::Real(real) if *real == (*real as i64) as f64 => {
            (1_u8, *real as i64).hash(&mut hasher);
        }
        Value::Real(real) => (2_u8, real.to_bits()).hash(&mut hasher),
        Value::Text(text) => (3_u8, text).hash(&mut hasher),
        Value::Blob(blob) => (4_u8, blob).hash(&mut hasher),
    }
    hasher.finish()
}
