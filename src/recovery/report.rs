//! The report of a repair, as data and as text.
//!
//! [`Totals`] are the sums of the numbers that the text gives for each table. A row counts as lost
//! only if an index of the damaged file names it, and neither the file nor a backup has it. If a
//! table lost pages or records and no index gives the number of lost rows, the text says that the
//! number is unknown; it never says that no row was lost.

use std::path::PathBuf;

use serde::Serialize;

use super::comparison::Comparison;
use super::salvage::{Salvage, SchemaSource, TableSalvage};
use crate::engine::shown;
use crate::health::{Finding, Health};

/// How many of a list the text names.
const NAMED: usize = 8;

/// How a repair ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RepairOutcome {
    /// Nothing was wrong, or another process had repaired the file before this one locked it.
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

/// The kind of a repair step.
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

/// One step of a repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The kind of step.
    pub step: StepKind,
    /// Whether its result was kept.
    pub ok: bool,
    /// What the step did, or why its result was not kept.
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
    /// Those rows by table. Tables that got no row are left out.
    pub tables: Vec<Filled>,
}

impl FromBackup {
    /// The rows that `tables` got from the backup at `path`.
    pub(super) fn new(path: PathBuf, tables: Vec<Filled>) -> Self {
        Self { path, rows: tables.iter().map(|table| table.rows).sum(), tables }
    }
}

/// Rows of one table that a backup gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Filled {
    /// The table.
    pub name: String,
    /// Rows that are in it now and came from the backup.
    pub rows: u64,
    /// How many of them an index of the damaged file names.
    pub named: u64,
}

/// The numbers of rows over all tables. Shadow tables with the index of a rebuilt virtual table do
/// not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Rows that were read from the damaged file and are in their tables.
    pub recovered: u64,
    /// Rows that were read from it and are in `lost_and_found`.
    pub lost_and_found: u64,
    /// Rows that a backup gave.
    pub from_backup: u64,
    /// Rows that are known to be lost: a lower bound of what is lost. 0: no row is known to be
    /// lost, and each table that lost pages or records has an index that proves it. `None`:
    /// something is lost, and the number of rows is unknown.
    pub known_lost: Option<u64>,
}

impl Totals {
    pub(super) fn of(
        outcome: RepairOutcome,
        salvage: Option<&Salvage>,
        backup: Option<&FromBackup>,
    ) -> Self {
        let losses = salvage.iter().flat_map(|salvage| {
            of_a_person(salvage).map(|table| Loss::of(table, filled(backup, &table.name)))
        });
        // Without a schema, or without anything, there is no table to miss rows in.
        let mut is_unknown = outcome == RepairOutcome::Restored
            || salvage.is_some_and(|salvage| salvage.schema_from == SchemaSource::None);
        let mut known = 0;
        for loss in losses {
            known += loss.known;
            is_unknown |= loss.is_unknown;
        }
        Self {
            recovered: salvage.map_or(0, |salvage| recovered(salvage).0),
            lost_and_found: salvage.map_or(0, |salvage| salvage.lost_and_found),
            from_backup: backup.map_or(0, |backup| backup.rows),
            known_lost: (known > 0 || !is_unknown).then_some(known),
        }
    }

    fn sentence(self) -> String {
        let lost = match self.known_lost {
            Some(0) => "no row is known to be lost".to_owned(),
            Some(1) => "1 row is known to be lost".to_owned(),
            Some(lost) => format!("{} are known to be lost", rows(lost)),
            None => "how many rows are lost is not known".to_owned(),
        };
        let mut parts = vec![format!("{} recovered", rows(self.recovered))];
        if self.lost_and_found > 0 {
            parts.push(format!("{} moved to lost_and_found", rows(self.lost_and_found)));
        }
        if self.from_backup > 0 {
            parts.push(format!("{} taken from a backup", rows(self.from_backup)));
        }
        format!("In all: {}; {lost}.", parts.join(", "))
    }
}

/// The rows that a table got from a backup.
fn filled<'a>(backup: Option<&'a FromBackup>, name: &str) -> Option<&'a Filled> {
    backup?.tables.iter().find(|table| table.name == name)
}

/// The number of rows in the application's tables, and the number of those tables. Shadow tables
/// with a rebuilt index do not count.
pub(super) fn recovered(salvage: &Salvage) -> (u64, u64) {
    let rows = of_a_person(salvage).map(|table| table.rows);
    rows.fold((0, 0), |(sum, tables), rows| (sum + rows, tables + 1))
}

/// The tables, without the shadow tables of a rebuilt index.
fn of_a_person(salvage: &Salvage) -> impl Iterator<Item = &TableSalvage> {
    salvage.tables.iter().filter(|table| !is_derived(salvage, &table.name))
}

/// The known loss of one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Loss {
    /// Rows that an index names, and that neither the file nor the backup has.
    known: u64,
    /// No other row can be lost.
    is_exact: bool,
    /// Pages or records were lost, and the number of rows is unknown.
    is_unknown: bool,
}

impl Loss {
    fn of(table: &TableSalvage, filled: Option<&Filled>) -> Self {
        let is_damaged = table.pages_lost > 0 || table.records_lost > 0;
        let Some(missing) = table.rows_missing else {
            return Self { known: 0, is_exact: false, is_unknown: is_damaged };
        };
        let (rows, named) = filled.map_or((0, 0), |filled| (filled.rows, filled.named));
        // The list of missing rowids is bounded. Rows of the backup that it does not name may be
        // among the missing rows that did not fit into it.
        let unlisted = missing.saturating_sub(table.missing.len() as u64);
        let others = rows.saturating_sub(named).min(unlisted);
        let known = missing.saturating_sub(named).saturating_sub(others);
        Self {
            known,
            is_exact: others == 0 && is_exact(table, missing),
            is_unknown: known == 0 && is_damaged && !table.index_is_whole,
        }
    }
}

/// The report of a repair.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The damaged file.
    pub path: PathBuf,
    /// The new file of a recovery into another one; `None`: `path` itself was repaired.
    pub to: Option<PathBuf>,
    /// How the repair ended.
    pub outcome: RepairOutcome,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The health before the repair.
    pub before: Health,
    /// The health of the repaired file, or of the new one.
    pub after: Health,
    /// The copy of the original; `None` if only indexes were rebuilt.
    pub preserved: Option<Preserved>,
    /// What the salvage found and what it lost; `None` without a salvage.
    pub salvage: Option<Salvage>,
    /// What was taken from a backup.
    pub backup: Option<FromBackup>,
    /// The comparison with what SQLite itself can read of the original; `None` if there was none.
    pub comparison: Option<Comparison>,
    /// The numbers of rows.
    pub totals: Totals,
    /// The duration in milliseconds.
    pub elapsed_ms: f64,
    /// The whole report as text, a few lines a table.
    pub text: String,
}

impl Report {
    /// Fills in the totals and the text.
    #[must_use]
    pub fn with_text(mut self) -> Self {
        self.totals = Totals::of(self.outcome, self.salvage.as_ref(), self.backup.as_ref());
        for step in &mut self.steps {
            step.detail = shown(&step.detail).into_owned();
        }
        self.text = self.render();
        self
    }

    fn headline(&self) -> String {
        let path = self.path.display();
        if let Some(to) = &self.to {
            let to = to.display();
            return match self.outcome {
                RepairOutcome::Restored => format!(
                    "Nothing could be read of {path}, which was not changed. {to} holds what its \
                     backup holds."
                ),
                _ => format!("What could be read of {path} is in {to}. {path} was not changed."),
            };
        }
        // The step of a WAL that was put aside says which rows may be missing.
        let aside = self.steps.iter().any(|step| step.step == StepKind::StaleWal && step.ok);
        let lost = if aside { "" } else { " No row was lost." };
        match self.outcome {
            RepairOutcome::Healthy => format!("{path} is in order."),
            RepairOutcome::RebuiltFts => {
                format!("{path} is repaired: full-text indexes were rebuilt.{lost}")
            }
            RepairOutcome::Reindexed => format!("{path} is repaired: indexes were rebuilt.{lost}"),
            RepairOutcome::Salvaged => format!("{path} is repaired from what could be read of it."),
            RepairOutcome::Restored => {
                format!("Nothing could be read of {path}. It holds now what its backup held.")
            }
        }
    }

    fn render(&self) -> String {
        let mut text = String::new();
        line(&mut text, &self.headline());
        for step in &self.steps {
            let word = if step.ok { "done" } else { "not enough" };
            line(&mut text, &format!("  {}: {word}: {}", step_name(step.step), step.detail));
        }
        if let Some(salvage) = &self.salvage {
            render_salvage(&mut text, salvage, self.backup.as_ref());
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
            let wal = if preserved.wal.is_some() { ", its WAL next to it" } else { "" };
            line(
                &mut text,
                &format!("The damaged original is kept as {}{wal}.", preserved.database.display()),
            );
        }
        if let Some(comparison) = &self.comparison {
            comparison.text.lines().for_each(|it| line(&mut text, it));
        }
        if self.salvage.is_some() || self.backup.is_some() {
            line(&mut text, &self.totals.sentence());
        }
        text
    }
}

/// Adds a line. Control characters are escaped, so that a name cannot act on a terminal.
fn line(text: &mut String, line: &str) {
    text.push_str(&shown(line));
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

/// The first few names of a list, as text.
fn some(names: &[&str]) -> String {
    let shown = names.get(..NAMED).unwrap_or(names).join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn render_salvage(text: &mut String, salvage: &Salvage, backup: Option<&FromBackup>) {
    match salvage.schema_from {
        SchemaSource::File => {}
        SchemaSource::Orphans => line(text, "  The schema was put together from its own pages."),
        SchemaSource::Snapshot => {
            line(text, "  The schema came from the copy that was saved when the file was sound.");
        }
        SchemaSource::None => line(text, "  There was no schema: every row is in lost_and_found."),
    }
    let is_empty = |table: &&TableSalvage| is_empty(table, filled(backup, &table.name));
    let (empty, others): (Vec<_>, Vec<_>) = of_a_person(salvage).partition(is_empty);
    for table in others {
        render_table(text, table, filled(backup, &table.name));
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

/// The suffixes of the shadow tables in which a virtual table keeps its index
/// (<https://sqlite.org/vtab.html#shadow_tables>).
pub(super) const OF_AN_INDEX: [&str; 10] =
    ["data", "idx", "docsize", "config", "segments", "segdir", "stat", "node", "rowid", "parent"];

/// Whether `name` is a shadow table of a rebuilt virtual table, and holds nothing but its index
/// (<https://sqlite.org/vtab.html#shadow_tables>).
pub(super) fn is_derived(salvage: &Salvage, name: &str) -> bool {
    name.rsplit_once('_').is_some_and(|(of, part)| {
        OF_AN_INDEX.contains(&part)
            && salvage.rebuilt.iter().any(|rebuilt| rebuilt.eq_ignore_ascii_case(of))
    })
}

/// Whether the table had no row.
fn is_empty(table: &TableSalvage, filled: Option<&Filled>) -> bool {
    let lost = table.pages_lost + table.records_lost + table.duplicates;
    table.rows == 0 && lost == 0 && table.rows_missing.unwrap_or(0) == 0 && filled.is_none()
}

/// Whether every row that a lost page could hold is known to be lost.
fn is_exact(table: &TableSalvage, missing: u64) -> bool {
    let most: i128 =
        table.gaps.iter().map(|(first, last)| i128::from(*last) - i128::from(*first) + 1).sum();
    most == i128::from(missing) && table.records_lost == 0
}

fn render_table(text: &mut String, table: &TableSalvage, filled: Option<&Filled>) {
    let mut parts = vec![format!("{} recovered", rows(table.rows))];
    if table.adopted > 0 {
        let adopted = grouped(table.adopted);
        parts.push(format!("{adopted} of them from pages that had lost their place"));
    }
    if table.pages_lost > 0 {
        parts.push(format!("{} lost", counted(table.pages_lost, "page")));
    }
    if let Some(filled) = filled {
        parts.push(format!("{} from the backup", rows(filled.rows)));
    }
    let loss = Loss::of(table, filled);
    if loss.known > 0 {
        let at_least = if loss.is_exact { "" } else { "at least " };
        parts.push(format!("{at_least}{} lost", rows(loss.known)));
    } else if loss.is_unknown {
        let which = if filled.is_some() { "more rows are" } else { "rows are" };
        parts.push(format!("how many {which} lost is not known"));
    } else if table.pages_lost > 0 {
        parts.push("no row known to be lost".to_owned());
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
    let gaps: Vec<_> = table.gaps.iter().filter_map(|gap| rowids(*gap, &table.missing)).collect();
    if !gaps.is_empty() && (loss.known > 0 || loss.is_unknown) {
        let gaps: Vec<_> = gaps.iter().map(String::as_str).collect();
        line(text, &format!("    lost rows had rowids in: {}.", some(&gaps)));
    }
}

/// A range of rowids as text. `None` if the range has no information: all rowids, or only those
/// below 1 if no index names such a row.
fn rowids((first, last): (i64, i64), missing: &[i64]) -> Option<String> {
    match (first, last) {
        (i64::MIN, i64::MAX) => None,
        (i64::MIN, _) => {
            let says = last > 0 || missing.iter().any(|rowid| *rowid <= last);
            says.then(|| format!("up to {last}"))
        }
        (_, i64::MAX) => Some(format!("{first} and up")),
        _ if first == last => Some(first.to_string()),
        _ => Some(format!("{first} to {last}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::CheckKind;

    fn table(name: &str) -> TableSalvage {
        TableSalvage { name: name.to_owned(), ..TableSalvage::default() }
    }

    fn report(
        outcome: RepairOutcome,
        salvage: Option<Salvage>,
        backup: Option<FromBackup>,
    ) -> Report {
        let health = Health {
            path: PathBuf::from("a.db"),
            kind: CheckKind::Full,
            ok: true,
            findings: Vec::new(),
            pages: 0,
            page_size: 0,
            elapsed_ms: 0.0,
        };
        Report {
            path: PathBuf::from("a.db"),
            to: None,
            outcome,
            steps: Vec::new(),
            before: health.clone(),
            after: health,
            preserved: None,
            salvage,
            backup,
            comparison: None,
            totals: Totals::default(),
            elapsed_ms: 0.0,
            text: String::new(),
        }
        .with_text()
    }

    fn rendered(salvage: &Salvage) -> Vec<String> {
        let mut text = String::new();
        render_salvage(&mut text, salvage, None);
        text.lines().map(|line| line.trim_start().to_owned()).collect()
    }

    #[test]
    fn numbers_of_rows_have_separators() {
        assert_eq!(rows(0), "0 rows");
        assert_eq!(rows(999), "999 rows");
        assert_eq!(rows(27_399), "27,399 rows");
        assert_eq!(rows(1_234_567), "1,234,567 rows");
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
        let of =
            |table: TableSalvage| rendered(&Salvage { tables: vec![table], ..Salvage::default() });
        assert_eq!(
            of(lost(20, &[(1001, 1010), (2001, 2010)])),
            [
                "log: 27,399 rows recovered; 2 pages lost; 20 rows lost.",
                "lost rows had rowids in: 1001 to 1010, 2001 to 2010."
            ]
        );
        assert_eq!(
            of(lost(19, &[(1001, 1010), (2001, i64::MAX)])),
            [
                "log: 27,399 rows recovered; 2 pages lost; at least 19 rows lost.",
                "lost rows had rowids in: 1001 to 1010, 2001 and up."
            ]
        );
        assert_eq!(
            of(TableSalvage { index_is_whole: true, ..lost(0, &[(1001, 1010)]) }),
            ["log: 27,399 rows recovered; 2 pages lost; no row known to be lost."]
        );
        // An index that lost pages itself does not say that there was no row.
        assert_eq!(
            of(lost(0, &[(1001, 1010)])),
            [
                "log: 27,399 rows recovered; 2 pages lost; how many rows are lost is not known.",
                "lost rows had rowids in: 1001 to 1010."
            ]
        );
    }

    #[test]
    fn rowids_below_1_are_named_only_where_an_index_names_one() {
        let named = |gap, missing: &[i64]| rowids(gap, missing);
        assert_eq!(named((i64::MIN, 0), &[7]), None);
        assert_eq!(named((i64::MIN, 0), &[-7, 7]), Some("up to 0".to_owned()));
        assert_eq!(named((i64::MIN, 1000), &[]), Some("up to 1000".to_owned()));
        assert_eq!(named((i64::MIN, i64::MAX), &[7]), None);
        assert_eq!(named((7, 7), &[]), Some("7".to_owned()));
        assert_eq!(named((-7, i64::MAX), &[]), Some("-7 and up".to_owned()));
    }

    #[test]
    fn rows_that_a_backup_gave_are_not_lost() {
        let lost = TableSalvage {
            rows: 100,
            pages_lost: 1,
            rows_missing: Some(3),
            missing: vec![11, 12, 13],
            index_is_whole: true,
            gaps: vec![(11, 20)],
            ..table("log")
        };
        let filled = |rows, named| {
            let tables = vec![Filled { name: "log".to_owned(), rows, named }];
            let salvage = Salvage { tables: vec![lost.clone()], ..Salvage::default() };
            let backup = FromBackup::new(PathBuf::from("b.db"), tables);
            report(RepairOutcome::Salvaged, Some(salvage), Some(backup))
        };
        let all = filled(3, 3);
        assert_eq!(all.totals.known_lost, Some(0));
        assert!(
            all.text.contains("3 rows from the backup; no row known to be lost."),
            "{}",
            all.text
        );
        assert!(!all.text.contains("lost rows had rowids"), "{}", all.text);
        let some = filled(9, 2);
        assert_eq!(some.totals.known_lost, Some(1));
        assert!(some.text.contains("at least 1 row lost") || some.text.contains("; 1 row lost"));
    }

    #[test]
    fn a_recovery_into_a_new_file_names_both_and_repairs_neither() {
        let report = Report {
            to: Some(PathBuf::from("new.db")),
            ..report(RepairOutcome::Salvaged, Some(Salvage::default()), None)
        }
        .with_text();
        let first = report.text.lines().next();
        assert_eq!(first, Some("What could be read of a.db is in new.db. a.db was not changed."));
        assert!(!report.text.contains("repaired"));
    }

    #[test]
    fn names_cannot_act_on_a_terminal_nor_begin_a_line() {
        let name = "a\u{1b}]52;c;x\u{7}\u{1b}[2J\nIn all: everything is fine\u{202e}\u{9b}1m\u{7f}";
        let salvage = Salvage {
            tables: vec![
                TableSalvage { rows: 1, ..table(name) },
                table(name),
                TableSalvage { rows: 1, pages_lost: 1, ..table(name) },
            ],
            rebuilt: vec![name.to_owned()],
            schema_errors: vec![format!("CREATE TABLE {name}: no")],
            ..Salvage::default()
        };
        let mut report = report(RepairOutcome::Salvaged, Some(salvage), None);
        report.path = PathBuf::from(name);
        report.steps = vec![Step { step: StepKind::Fts, ok: true, detail: name.to_owned() }];
        let report = report.with_text();
        assert!(report.text.lines().all(|line| shown(line) == line), "{:?}", report.text);
        assert_eq!(report.text.lines().filter(|line| line.starts_with("In all")).count(), 1);
        assert_eq!(report.steps[0].detail, shown(name));
        assert_eq!(report.path, PathBuf::from(name));
    }

    /// Numbers that a generator draws: splitmix64.
    struct Draw(u64);

    impl Draw {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut it = self.0;
            it = (it ^ it >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            it = (it ^ it >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (it ^ it >> 31) % bound
        }

        fn often(&mut self, most: u64) -> u64 {
            if self.below(3) == 0 { 0 } else { self.below(most) }
        }
    }

    fn any_table(draw: &mut Draw, name: &str) -> TableSalvage {
        let listed: Vec<i64> = (0..draw.often(6)).map(|at| i64::try_from(at).unwrap()).collect();
        let unlisted = draw.often(3);
        let is_indexed = draw.below(3) > 0;
        let gap = |draw: &mut Draw| {
            let low = i64::try_from(draw.below(3000)).unwrap() - 1000;
            let high = low + i64::try_from(draw.below(2000)).unwrap();
            (if draw.below(4) == 0 { i64::MIN } else { low }, high)
        };
        TableSalvage {
            rows: draw.often(100_000),
            pages_lost: draw.often(30),
            rows_missing: is_indexed.then(|| listed.len() as u64 + unlisted),
            missing: if is_indexed { listed } else { Vec::new() },
            index_is_whole: is_indexed && draw.below(2) == 0,
            gaps: (0..draw.often(3)).map(|_| gap(draw)).collect(),
            records_lost: draw.often(4),
            duplicates: draw.often(4),
            ..table(name)
        }
    }

    /// The number before `noun` in each part of the lines that are about a table.
    fn numbers(text: &str, noun: &str) -> u64 {
        text.lines()
            .filter(|line| line.starts_with("  table-"))
            .flat_map(|line| line.trim_end_matches('.').split([':', ';']))
            .filter_map(|part| {
                let part = part.trim().trim_start_matches("at least ");
                let number = part.strip_suffix(noun)?.trim_end();
                let number =
                    number.strip_suffix(" rows").or_else(|| number.strip_suffix(" row"))?;
                number.replace(',', "").parse::<u64>().ok()
            })
            .sum()
    }

    #[test]
    fn the_numbers_of_the_text_and_of_the_totals_agree() {
        let mut draw = Draw(7);
        for round in 0..2000 {
            let mut salvage = Salvage { lost_and_found: draw.often(5000), ..Salvage::default() };
            let mut tables = Vec::new();
            for at in 0..draw.below(6) {
                let table = any_table(&mut draw, &format!("table-{at}"));
                let named = draw.below(table.missing.len() as u64 + 1);
                let others =
                    if table.gaps.is_empty() || table.index_is_whole { 0 } else { draw.often(50) };
                if named + others > 0 {
                    tables.push(Filled { name: table.name.clone(), rows: named + others, named });
                }
                salvage.tables.push(table);
            }
            // A rebuilt index is derived from its table: its lost pages cost no row.
            salvage.rebuilt.push("table-fts".to_owned());
            salvage.tables.push(any_table(&mut draw, "table-fts_data"));
            let backup = (draw.below(2) == 0)
                .then(|| FromBackup::new(PathBuf::from("backup"), std::mem::take(&mut tables)));
            let report = report(RepairOutcome::Salvaged, Some(salvage), backup);
            let (text, totals) = (&report.text, report.totals);
            assert_eq!(numbers(text, "recovered"), totals.recovered, "{round}: {text}");
            assert_eq!(numbers(text, "from the backup"), totals.from_backup, "{round}: {text}");
            assert_eq!(numbers(text, "lost"), totals.known_lost.unwrap_or(0), "{round}: {text}");
            let unknown = text.contains("rows are lost is not known\n")
                || text.lines().any(|it| it.starts_with("  table-") && it.contains("is not known"));
            // The totals are unknown only if no table has a number of lost rows.
            assert_eq!(
                totals.known_lost.is_none(),
                unknown && numbers(text, "lost") == 0,
                "{round}: {text}"
            );
            let last = text.lines().last().unwrap();
            assert_eq!(last, totals.sentence(), "{round}");
            for (number, what) in [
                (totals.recovered, "recovered"),
                (totals.lost_and_found, "moved to lost_and_found"),
                (totals.from_backup, "taken from a backup"),
            ] {
                let says = last.contains(&format!("{} {what}", rows(number)));
                assert!(says || number == 0, "{round}: {last}");
            }
            if totals.known_lost == Some(0) {
                assert!(last.ends_with("; no row is known to be lost."), "{last}");
                assert!(!text.contains(" rows lost") && !text.contains("is not known"), "{text}");
            } else {
                assert!(!last.contains("no row is known"), "{last}");
            }
        }
    }

    #[test]
    fn what_cannot_be_counted_is_said_not_to_be_known() {
        let nothing = report(
            RepairOutcome::Restored,
            None,
            Some(FromBackup::new(
                PathBuf::from("backup"),
                vec![Filled { name: "log".to_owned(), rows: 3000, named: 0 }],
            )),
        );
        assert_eq!(nothing.totals.from_backup, 3000);
        assert_eq!(nothing.totals.known_lost, None);
        assert!(nothing.text.ends_with("how many rows are lost is not known.\n"));
        let of_no_table =
            Salvage { schema_from: SchemaSource::None, lost_and_found: 12, ..Salvage::default() };
        assert_eq!(
            report(RepairOutcome::Salvaged, Some(of_no_table), None).totals.known_lost,
            None
        );
        let healthy = report(RepairOutcome::Healthy, None, None);
        assert_eq!(healthy.totals, Totals { known_lost: Some(0), ..Totals::default() });
        assert_eq!(healthy.text, "a.db is in order.\n");
    }
    #[test]
    fn tables_of_a_rebuilt_index_are_left_out_and_empty_ones_share_a_line() {
        let rows = |name: &str| TableSalvage { rows: 3, ..table(name) };
        let salvage = Salvage {
            tables: vec![
                rows("tasks"),
                TableSalvage { pages_lost: 4, ..rows("tasks_fts_data") },
                rows("tasks_fts_idx"),
                // The content of the index, which is not derived.
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
            rendered(&salvage),
            [
                "tasks: 3 rows recovered.",
                "tasks_fts_content: 3 rows recovered.",
                "other_fts_data: 3 rows recovered.",
                "c: 0 rows recovered; 1 page lost; how many rows are lost is not known.",
                "Empty, with nothing lost: a, b.",
                "Rebuilt from their content: tasks_fts.",
            ]
        );
    }
}
