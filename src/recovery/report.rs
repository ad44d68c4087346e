//! The account of a repair, for a program and for a person.

use std::path::PathBuf;

use serde::Serialize;

use super::salvage::{Salvage, SchemaSource, TableSalvage};
use crate::health::{Finding, Health};

/// How many of a list the text names.
const NAMED: usize = 8;

/// How a repair ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Nothing was wrong, or somebody else had repaired it by the time that it could be locked.
    Healthy,
    /// Full-text indexes were rebuilt; no row was in danger.
    RebuiltFts,
    /// Indexes were rebuilt; no row was in danger.
    Reindexed,
    /// What can be read was put into a new database, whose content is now the file's.
    Salvaged,
    /// Nothing could be read; the content is that of a backup.
    Restored,
}

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum StepKind {
    /// The hot journal of a transaction that was cut off was rolled back.
    HotJournal,
    /// A WAL that is not the file's own was put aside.
    StaleWal,
    /// Full-text indexes were rebuilt.
    Fts,
    /// Indexes were rebuilt.
    Reindex,
    /// What can be read was put into a new database.
    Salvage,
    /// Rows, or everything, were taken from a backup.
    Backup,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What.
    pub step: StepKind,
    /// Whether it was kept.
    pub ok: bool,
    /// What it did, or why it was not kept.
    pub detail: String,
}

/// The damaged original.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preserved {
    /// A copy of the file, byte for byte.
    pub database: PathBuf,
    /// A copy of its WAL, named so that SQLite takes it for the copy's.
    pub wal: Option<PathBuf>,
}

/// What was taken from a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FromBackup {
    /// The backup.
    pub path: PathBuf,
    /// Rows that are in the database now and came from it.
    pub rows: u64,
}

/// The account of a repair.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The file that was to be repaired.
    pub path: PathBuf,
    /// How it ended.
    pub outcome: Outcome,
    /// What was tried, in order.
    pub steps: Vec<Step>,
    /// What was wrong.
    pub before: Health,
    /// The file, or the new one, afterwards.
    pub after: Health,
    /// Where the original is; none where nothing but indexes was touched.
    pub preserved: Option<Preserved>,
    /// What was saved and what was not.
    pub salvage: Option<Salvage>,
    /// What a backup gave.
    pub backup: Option<FromBackup>,
    /// Milliseconds that it took.
    pub elapsed_ms: f64,
    /// All of it for a person, a few lines a table.
    pub text: String,
}

impl Report {
    /// The report with its text.
    #[must_use]
    pub fn told(mut self) -> Self {
        self.text = self.tell();
        self
    }

    fn tell(&self) -> String {
        let mut text = String::new();
        let path = self.path.display();
        let headline = match self.outcome {
            Outcome::Healthy => format!("{path} is in order."),
            Outcome::RebuiltFts => {
                format!("{path} is repaired: full-text indexes were rebuilt. No row was lost.")
            }
            Outcome::Reindexed => {
                format!("{path} is repaired: indexes were rebuilt. No row was lost.")
            }
            Outcome::Salvaged => format!("{path} is repaired from what could be read of it."),
            Outcome::Restored => {
                format!("Nothing could be read of {path}. It holds now what its backup held.")
            }
        };
        line(&mut text, &headline);
        for step in &self.steps {
            let word = if step.ok { "done" } else { "not enough" };
            line(&mut text, &format!("  {}: {word}: {}", step_name(step.step), step.detail));
        }
        if let Some(salvage) = &self.salvage {
            tell_salvage(&mut text, salvage);
        }
        if let Some(backup) = &self.backup {
            let rows = rows(backup.rows);
            line(&mut text, &format!("  {rows} came from {}.", backup.path.display()));
        }
        for finding in &self.after.findings {
            if let Finding::ForeignKeyViolations { table, parent, rows: count, .. } = finding {
                let verb = if *count == 1 { "refers" } else { "refer" };
                line(
                    &mut text,
                    &format!(
                        "  {} of {table} {verb} to rows of {parent} that are not there.",
                        rows(*count)
                    ),
                );
            }
        }
        if let Some(preserved) = &self.preserved {
            let wal = if preserved.wal.is_some() { ", its WAL beside it" } else { "" };
            line(
                &mut text,
                &format!("The damaged original is kept as {}{wal}.", preserved.database.display()),
            );
        }
        text
    }
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn step_name(step: StepKind) -> &'static str {
    match step {
        StepKind::HotJournal => "cut-off transaction",
        StepKind::StaleWal => "foreign WAL",
        StepKind::Fts => "full-text indexes",
        StepKind::Reindex => "indexes",
        StepKind::Salvage => "salvage",
        StepKind::Backup => "backup",
    }
}

/// `1 row`, `2 rows`.
pub(super) fn rows(count: u64) -> String {
    counted(count, "row")
}

/// `1 page`, `2 pages`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{} {noun}s", grouped(count)) }
}

/// `27,399`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The same of a rowid.
fn grouped_rowid(rowid: i64) -> String {
    let sign = if rowid < 0 { "-" } else { "" };
    format!("{sign}{}", grouped(rowid.unsigned_abs()))
}

/// Names of a list for a person, the first few.
fn some(names: &[&str]) -> String {
    let shown = names.get(..NAMED).unwrap_or(names).join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn tell_salvage(text: &mut String, salvage: &Salvage) {
    match salvage.schema_from {
        SchemaSource::File => {}
        SchemaSource::Orphans => line(text, "  The schema was put together from its own pages."),
        SchemaSource::Snapshot => {
            line(text, "  The schema came from the copy that was saved when the file was sound.");
        }
        SchemaSource::None => line(text, "  There was no schema: every row is in lost_and_found."),
    }
    let of_a_person = salvage.tables.iter().filter(|table| !is_derived(salvage, &table.name));
    let (empty, others): (Vec<_>, Vec<_>) = of_a_person.partition(|table| is_empty(table));
    for table in others {
        tell_table(text, table);
    }
    if !empty.is_empty() {
        let names: Vec<_> = empty.iter().map(|table| table.name.as_str()).collect();
        line(text, &format!("  Empty, with nothing lost: {}.", some(&names)));
    }
    if salvage.lost_and_found > 0 {
        let rows = rows(salvage.lost_and_found);
        line(text, &format!("  lost_and_found: {rows} that belong to no table that is known."));
    }
    if !salvage.rebuilt.is_empty() {
        line(text, &format!("  Rebuilt from their content: {}.", salvage.rebuilt.join(", ")));
    }
    for error in &salvage.schema_errors {
        line(text, &format!("  Could not be made again: {error}"));
    }
}

/// Whether the table is one in which a virtual table that was rebuilt keeps its index
/// (<https://sqlite.org/vtab.html#shadow_tables>), and nothing else.
fn is_derived(salvage: &Salvage, name: &str) -> bool {
    const OF_AN_INDEX: [&str; 10] = [
        "data", "idx", "docsize", "config", "segments", "segdir", "stat", "node", "rowid", "parent",
    ];
    name.rsplit_once('_').is_some_and(|(of, part)| {
        OF_AN_INDEX.contains(&part)
            && salvage.rebuilt.iter().any(|rebuilt| rebuilt.eq_ignore_ascii_case(of))
    })
}

/// Whether there was nothing in the table.
fn is_empty(table: &TableSalvage) -> bool {
    let lost = table.pages_lost + table.records_lost + table.duplicates;
    table.rows == 0 && lost == 0 && table.rows_missing.unwrap_or(0) == 0
}

/// Whether as many rows are known to be lost as can be: every rowid that a lost page could hold.
fn is_exact(table: &TableSalvage, missing: u64) -> bool {
    let most: i128 =
        table.gaps.iter().map(|(first, last)| i128::from(*last) - i128::from(*first) + 1).sum();
    most == i128::from(missing) && table.records_lost == 0
}

fn tell_table(text: &mut String, table: &TableSalvage) {
    let mut parts = vec![format!("{} recovered", rows(table.rows))];
    if table.adopted > 0 {
        parts.push(format!("{} of them from pages that had lost their place", table.adopted));
    }
    if table.pages_lost > 0 {
        parts.push(format!("{} lost", counted(table.pages_lost, "page")));
    }
    match table.rows_missing {
        Some(0) if table.pages_lost > 0 => parts.push("no row known to be lost".to_owned()),
        Some(missing) if missing > 0 => {
            let at_least = if is_exact(table, missing) { "" } else { "at least " };
            parts.push(format!("{at_least}{} lost", rows(missing)));
        }
        None if table.pages_lost > 0 => {
            parts.push("how many rows were on them is not known".to_owned());
        }
        _ => {}
    }
    if table.records_lost > 0 {
        parts.push(format!("{} beyond reading", counted(table.records_lost, "record")));
    }
    if table.mended > 0 {
        parts.push(format!("{} read in spite of a damaged header", rows(table.mended)));
    }
    if table.duplicates > 0 {
        parts.push(format!("{} found twice", rows(table.duplicates)));
    }
    if !table.suspects.is_empty() {
        let count = table.suspects.len() as u64;
        parts.push(format!("{} contradicted by an index", rows(count)));
    }
    line(text, &format!("  {}: {}.", table.name, parts.join("; ")));
    if !table.gaps.is_empty() && table.rows_missing != Some(0) {
        let mut gaps: Vec<String> = table
            .gaps
            .iter()
            .take(NAMED)
            .map(|(first, last)| {
                let (from, to) = (grouped_rowid(*first), grouped_rowid(*last));
                match (*first, *last) {
                    (i64::MIN, i64::MAX) => "anything".to_owned(),
                    (i64::MIN, _) => format!("anything up to {to}"),
                    (_, i64::MAX) => format!("{from} and up"),
                    (first, last) if first == last => from,
                    _ => format!("{from} to {to}"),
                }
            })
            .collect();
        if table.gaps.len() > gaps.len() {
            gaps.push(format!("{} more", table.gaps.len() - gaps.len()));
        }
        line(text, &format!("    lost rows had rowids in: {}.", gaps.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> TableSalvage {
        TableSalvage { name: name.to_owned(), ..TableSalvage::default() }
    }

    fn told(salvage: &Salvage) -> Vec<String> {
        let mut text = String::new();
        tell_salvage(&mut text, salvage);
        text.lines().map(|line| line.trim_start().to_owned()).collect()
    }

    #[test]
    fn numbers_have_separators() {
        assert_eq!(rows(0), "0 rows");
        assert_eq!(rows(999), "999 rows");
        assert_eq!(rows(27_399), "27,399 rows");
        assert_eq!(rows(1_234_567), "1,234,567 rows");
        assert_eq!(grouped_rowid(i64::MIN), "-9,223,372,036,854,775,808");
    }

    #[test]
    fn a_number_of_lost_rows_is_a_minimum_unless_it_is_all_that_could_be_lost() {
        let lost = |missing: u64, gaps: &[(i64, i64)]| TableSalvage {
            rows: 27_399,
            pages_lost: 2,
            rows_missing: Some(missing),
            gaps: gaps.to_vec(),
            ..table("log")
        };
        let of = |table: TableSalvage| told(&Salvage { tables: vec![table], ..Salvage::default() });
        assert_eq!(
            of(lost(20, &[(1001, 1010), (2001, 2010)])),
            [
                "log: 27,399 rows recovered; 2 pages lost; 20 rows lost.",
                "lost rows had rowids in: 1,001 to 1,010, 2,001 to 2,010."
            ]
        );
        assert_eq!(
            of(lost(19, &[(1001, 1010), (2001, i64::MAX)])),
            [
                "log: 27,399 rows recovered; 2 pages lost; at least 19 rows lost.",
                "lost rows had rowids in: 1,001 to 1,010, 2,001 and up."
            ]
        );
        assert_eq!(
            of(lost(0, &[(1001, 1010)])),
            ["log: 27,399 rows recovered; 2 pages lost; no row known to be lost."]
        );
    }

    #[test]
    fn tables_of_a_rebuilt_index_are_left_out_and_empty_ones_share_a_line() {
        let rows = |name: &str| TableSalvage { rows: 3, ..table(name) };
        let salvage = Salvage {
            tables: vec![
                rows("tasks"),
                TableSalvage { pages_lost: 4, ..rows("tasks_fts_data") },
                rows("tasks_fts_idx"),
                // What it is an index of.
                rows("tasks_fts_content"),
                // Not rebuilt.
                rows("other_fts_data"),
                table("a"),
                table("b"),
                TableSalvage { pages_lost: 1, ..table("c") },
            ],
            rebuilt: vec!["tasks_fts".to_owned()],
            ..Salvage::default()
        };
        assert_eq!(
            told(&salvage),
            [
                "tasks: 3 rows recovered.",
                "tasks_fts_content: 3 rows recovered.",
                "other_fts_data: 3 rows recovered.",
                "c: 0 rows recovered; 1 page lost; how many rows were on them is not known.",
                "Empty, with nothing lost: a, b.",
                "Rebuilt from their content: tasks_fts.",
            ]
        );
    }
}
