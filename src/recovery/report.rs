//! The account of a repair, for a program and for a person.

use std::path::PathBuf;

use serde::Serialize;

use super::salvage::{Salvage, SchemaSource, TableSalvage};
use crate::health::{Finding, Health};

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
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
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
    for table in &salvage.tables {
        tell_table(text, table);
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

fn tell_table(text: &mut String, table: &TableSalvage) {
    let mut parts = vec![format!("{} recovered", rows(table.rows))];
    if table.adopted > 0 {
        parts.push(format!("{} of them from pages that had lost their place", table.adopted));
    }
    if table.pages_lost > 0 {
        parts.push(format!("{} lost", counted(table.pages_lost, "page")));
    }
    match table.rows_missing {
        Some(0) if table.pages_lost > 0 => parts.push("no row lost".to_owned()),
        Some(missing) if missing > 0 => parts.push(format!("{} lost", rows(missing))),
        None if table.pages_lost > 0 => {
            parts.push("how many rows were on them is not known".to_owned());
        }
        _ => {}
    }
    if table.records_lost > 0 {
        parts.push(format!("{} beyond reading", counted(table.records_lost, "record")));
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
            .take(8)
            .map(
                |(first, last)| {
                    if first == last { first.to_string() } else { format!("{first} to {last}") }
                },
            )
            .collect();
        if table.gaps.len() > gaps.len() {
            gaps.push(format!("{} more", table.gaps.len() - gaps.len()));
        }
        line(text, &format!("    lost rows had rowids in: {}.", gaps.join(", ")));
    }
}
