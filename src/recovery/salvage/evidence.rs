//! Decides by index entries whether a page holds rows of a table. An index has the rowid (or key)
//! of each row, and some of its values.
//!
//! If a column has few values, an index agrees with a row by chance. So agreement is weighted in
//! bits of information: the rarer the entry's key in the index, the more bits. An index that is not
//! partial also proves that rows do not exist: an intact one excludes every row without an entry; a
//! damaged one excludes the rows whose entries would be on its remaining pages. And a page whose
//! records are not in the order of a WITHOUT ROWID table does not belong to that table.
//!
//! Memory: for each page in question, the hashes of [`ROWS`] rows, and their keys in each index
//! that has lost pages.

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

/// Maximum number of rows of a page that are looked up.
const ROWS: usize = 16;

/// Maximum number of rows with the same rowid or key that are looked up: a page has few copies.
const MOST_ALIKE: usize = 64;

/// Bits from which rows are confirmed: one page in 65,536 agrees that much by chance.
const CERTAIN: u32 = 16;

/// Additional bits for a key that has more than small numbers: a row of another table is unlikely
/// to have it.
const SPECIAL: u32 = 3;

/// Number of counters of an index's keys. Keys that share a counter count as equal.
const COUNTERS: usize = 4096;

/// The verdict of a table's indexes on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Verdict {
    /// Confirmed: the indexes have the page's rows.
    Own {
        /// One index has most of the rows that were looked up.
        mostly: bool,
    },
    /// Contradicted: the indexes have the page's rowids with other values, or lack them.
    Others {
        /// The number of indexes that contradict.
        by: u32,
    },
    /// No index has any of the page's rows, while an index that seems intact has rows of other
    /// pages in question.
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

/// The number of a table, and a page that could hold its rows.
pub(super) type Question = (usize, u32);

/// The indexes of a file that can be queried.
pub(super) struct Evidence<'a> {
    pages: &'a Pages<'a>,
    survey: &'a Survey,
    shapes: &'a [Shape],
    indexes: Vec<Index<'a>>,
}

struct Index<'a> {
    shape: &'a IndexShape,
    tree: &'a Tree,
    /// The index has an entry for every row of its table: not partial, and no page lost.
    whole: bool,
}

/// The score of a page in question.
#[derive(Default)]
struct Tally {
    /// The number of rows on the page, and the number that are looked up.
    rows: u64,
    asked: u32,
    agreeing: u32,
    contradicting: u32,
    bits: u32,
    /// For the index that is being read: the rows that it has, the rows that it contradicts or
    /// lacks, and the keys of the rows that agree.
    named: u32,
    denied: u32,
    keys: Vec<(usize, bool)>,
    /// An index has most of the rows that are looked up.
    mostly: bool,
    /// The number of indexes that contradict most of the rows.
    against: u32,
    /// The number of indexes that seem intact and have only rows of other pages.
    silent: u32,
}

/// A row that is looked up.
struct Row {
    page: u32,
    /// The hashes of its fields.
    sums: Vec<u64>,
    /// Its keys in the indexes that have lost pages, by the index's number.
    keys: Vec<(usize, SortKey)>,
    /// The index that is being read has an entry for it.
    named: bool,
}

/// The rows by their table and the hash of their rowid or key.
type Rows = HashMap<(usize, u64), Vec<Row>>;

/// The rows of one query, which reads each index once.
#[derive(Default)]
pub(super) struct Asked {
    rows: Rows,
    tallies: HashMap<Question, Tally>,
}

impl<'a> Evidence<'a> {
    /// Takes each index with its b-tree.
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

    /// The number of a table's indexes that can be queried.
    pub(super) fn witnesses(&self, table: usize) -> usize {
        self.indexes.iter().filter(|index| index.shape.table == table).count()
    }

    /// Returns the verdict on each page in question. A page without evidence has no verdict.
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
        // The page's own order contradicts the table.
        verdicts.extend(unsorted.into_iter().map(|it| (it, Verdict::Others { by: 1 })));
        verdicts
    }

    /// Adds one row of a table to the query, under `number` in place of its page.
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

    /// Runs the query.
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

    /// Reads one index, and scores the rows by its entries.
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
        // The positions of the rowid or key in an entry.
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
                    // An equal rowid alone is weak evidence. An equal key of a WITHOUT ROWID table
                    // counts as agreement.
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
                unnamed.push(Unnamed { key, page: row.page, reported: false });
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

/// The statistics of one index's entries.
struct Heard {
    /// The number of entries, in all and by key.
    total: u32,
    counters: Vec<u32>,
    /// All entries could be read, and the index is intact.
    whole: bool,
}

impl Heard {
    /// Updates the score of each of the table's pages in question.
    fn conclude(&self, tallies: &mut [&mut Tally]) {
        let knows_some = tallies.iter().any(|tally| tally.named > 0);
        // An index whose root was overwritten may have lost most of its entries without a trace.
        // A missing entry in such an index proves nothing.
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
            // A few of the rows may be damaged.
            Some(Verdict::Own { mostly: self.mostly })
        } else if self.silent > 0 && self.agreeing == 0 {
            Some(Verdict::Missing)
        } else {
            None
        }
    }
}

/// Whether an entry has the values of a row. `None` if the row has none of those fields: it is
/// older than the columns, or the values are computed.
fn agrees(parts: &[Part], entry: &[Value<'_>], sums: &[u64]) -> Option<bool> {
    let own = parts.iter().zip(entry).filter_map(|(part, value)| match part {
        Part::Field(field) => Some((sums.get(*field)?, value)),
        Part::Rowid | Part::Computed => None,
    });
    own.map(|(&own, value)| own == sum(value)).reduce(|all, one| all && one)
}

/// Calls `row` with the rowid and the fields of at most `most` records of `page`. Skips records
/// with overflow pages and unreadable ones. Returns whether it skipped none.
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

/// Whether two tables are unlikely to have rows with this same value.
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

/// A hash of a value. Numbers that compare equal have equal hashes.
fn sum(value: &Value<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match value {
        Value::Null => 0_u8.hash(&mut hasher),
        Value::Integer(integer) => (1_u8, integer).hash(&mut hasher),
        // SQLite may store a whole number of a REAL column as an integer.
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
