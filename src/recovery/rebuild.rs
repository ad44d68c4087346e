//! Indexes and full-text indexes, made again from their tables inside the file: the two kinds of
//! damage that cost no row.
//!
//! What is rebuilt depends on why a repair is made:
//!
//! | found | unasked | a statement met `SQLITE_CORRUPT_VTAB` | asked |
//! |---|---|---|---|
//! | an index is damaged | rebuilt | rebuilt | rebuilt |
//! | the same, and only the application can rebuild it | refused | refused | left to a salvage |
//! | a full-text index is damaged, and leaves no row out | rebuilt | rebuilt | rebuilt |
//! | the same, and it leaves rows out, or that is not known | refused | refused | rebuilt of the rows that it held |
//! | a full-text index is stale, and leaves no row out | left | rebuilt | rebuilt |
//! | the same, and it leaves rows out, or that is not known | left | left | rebuilt of the rows that it held |
//!
//! So no row of the content that an index leaves out gets into it unasked. Refused is the whole
//! repair: the tables are sound, and a salvage could only lose what they hold.
//!
//! One transaction. It is kept only if the whole file passes a full check as the transaction sees
//! it; otherwise it is rolled back, and the file is as it was.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{OpenFlags, OptionalExtension, ffi};

use super::reader::patiently;
use super::report::{OF_AN_INDEX, Step, StepKind, counted};
use super::write_back::SYNCED;
use crate::engine::{Class, Connection, Error, Result, Stage, Task, is_memory_left};
use crate::health::{self, Finding, FullText, Health, Kind};

/// Why a repair is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reason {
    /// A check found damage, or a statement met it.
    #[default]
    Damage,
    /// A statement failed with `SQLITE_CORRUPT_VTAB`: an index of a virtual table may be stale.
    VirtualTable,
    /// A person or a program asked for it.
    Asked,
}

impl Reason {
    /// Whether a person or a program asked for it.
    pub fn is_asked(self) -> bool {
        self == Self::Asked
    }
}

/// What is to be done about a file whose tables are sound.
#[derive(Debug)]
pub(super) enum Way {
    /// Nothing here: nothing is damaged, or something else is.
    None,
    /// To rebuild.
    Rebuild(Plan),
    /// To ask, with the reason.
    Refuse(Error),
}

/// What can be made again.
#[derive(Debug, Default)]
pub(super) struct Plan {
    full_text: Vec<TextIndex>,
    indexes: Vec<String>,
}

/// A full-text index to be made again.
#[derive(Debug)]
struct TextIndex {
    table: String,
    left_out: Option<u64>,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Rebuilt {
    /// It is committed.
    Yes(Vec<Step>),
    /// It was not enough, and was rolled back.
    NotEnough(Vec<Step>),
    /// Somebody has repaired the file in the meantime; nothing was done.
    Overtaken,
}

impl Way {
    /// What is to be done about a file in this state.
    pub fn of(health: &Health, reason: Reason) -> Self {
        let is_asked = reason == Reason::Asked;
        let mut plan = Plan::default();
        let mut refused = None;
        let mut leaks = false;
        for finding in &health.findings {
            match finding {
                Finding::FtsDamage { table, left_out, .. } => {
                    if !is_asked && *left_out != Some(0) {
                        refused = refused.or_else(|| Some(leaves_rows_out(table, *left_out)));
                    }
                    plan.full_text.push(TextIndex { table: table.clone(), left_out: *left_out });
                }
                Finding::FtsStale { table, left_out, .. } => {
                    let is_whole = *left_out == Some(0);
                    if is_asked || (reason == Reason::VirtualTable && is_whole) {
                        let left_out = *left_out;
                        plan.full_text.push(TextIndex { table: table.clone(), left_out });
                    }
                }
                Finding::IndexDamage { index, needs_application, lines, .. } => {
                    if *needs_application && is_asked {
                        return Self::None;
                    }
                    if *needs_application {
                        refused = refused.or_else(|| Some(needs_the_application(index, lines)));
                    }
                    plan.indexes.push(index.clone());
                }
                Finding::Freelist { lines, .. } if lines.iter().all(|line| is_leak(line)) => {
                    leaks = true;
                }
                finding if finding.is_damage() => return Self::None,
                _ => {}
            }
        }
        match refused {
            // Pages that nothing leads to any more may have been the index's. Alone they say
            // nothing of an index.
            _ if leaks && plan.indexes.is_empty() => Self::None,
            Some(error) => Self::Refuse(error.at(&health.path)),
            None if plan.full_text.is_empty() && plan.indexes.is_empty() => Self::None,
            None => Self::Rebuild(plan),
        }
    }

    /// Whether there is something to rebuild.
    pub fn is_rebuild(&self) -> bool {
        matches!(self, Self::Rebuild(_))
    }
}

/// Whether a line says that nothing leads to a page.
fn is_leak(line: &str) -> bool {
    line.starts_with("Page ") && line.ends_with(": never used")
}

fn leaves_rows_out(table: &str, left_out: Option<u64>) -> Error {
    let message = match left_out {
        Some(rows) => format!(
            "the full-text index {table} is damaged, and leaves out {} of its content, perhaps on \
             purpose, so that it is not rebuilt unasked. No row of a table is damaged. \
             recover() rebuilds it of the rows that it holds",
            counted(rows, "row")
        ),
        None => format!(
            "the full-text index {table} is damaged, and it cannot be told which rows of its \
             content it leaves out, so that it is not rebuilt unasked. No row of a table is \
             damaged. recover() rebuilds it of all rows, if it has content"
        ),
    };
    Error::sqlite(ffi::SQLITE_CORRUPT_VTAB, message)
}

fn needs_the_application(index: &str, lines: &[String]) -> Error {
    let why = lines.iter().find_map(|line| line.strip_prefix("REINDEX: ")).unwrap_or_default();
    let message = format!(
        "the index {index} is damaged, and only the application can rebuild it ({why}). No row of \
         a table is damaged. Run REINDEX {} on a connection that has that function or collation \
         (a HardenedDatabase opens the file with onCorruption: 'report'); where REINDEX fails, \
         recover() makes the database anew, and may have to leave this index out",
        quoted(index)
    );
    Error::sqlite(ffi::SQLITE_CORRUPT_INDEX, message)
}

impl Plan {
    /// The tables in which its full-text indexes are kept, in lower case.
    pub fn derived(&self) -> HashSet<String> {
        let names = self
            .full_text
            .iter()
            .flat_map(|index| OF_AN_INDEX.iter().map(|suffix| format!("{}_{suffix}", index.table)));
        names.map(|name| name.to_ascii_lowercase()).collect()
    }

    /// Whether it is about full-text indexes alone.
    pub fn is_full_text(&self) -> bool {
        self.indexes.is_empty()
    }

    /// The indexes.
    pub fn indexes(&self) -> &[String] {
        &self.indexes
    }

    /// The statements, which `connection` is to run.
    ///
    /// # Errors
    /// SQLite's.
    pub fn statements(&self, connection: &Connection) -> Result<Vec<String>> {
        let mut statements = Vec::new();
        for TextIndex { table, left_out } in &self.full_text {
            let held = match left_out {
                Some(0) => None,
                _ => rebuild_of_held(connection, table)?,
            };
            let name = quoted(table);
            statements.push(
                held.unwrap_or_else(|| {
                    format!("INSERT INTO main.{name}({name}) VALUES ('rebuild')")
                }),
            );
        }
        statements.extend(self.indexes.iter().map(|it| format!("REINDEX main.{}", quoted(it))));
        Ok(statements)
    }

    /// Whether a file in this state is as the plan would have it.
    pub fn is_done(&self, health: &Health) -> bool {
        let is_stale = |table: &str| {
            health
                .findings
                .iter()
                .any(|it| matches!(it, Finding::FtsStale { table: stale, .. } if stale == table))
        };
        health.ok && !self.full_text.iter().any(|index| is_stale(&index.table))
    }

    /// What was done, or why not.
    pub fn steps(&self, done: std::result::Result<(), &str>) -> Vec<Step> {
        let text = self.full_text.iter().map(|index| match (done, index.left_out) {
            (Ok(()), Some(rows)) if rows > 0 => {
                format!(
                    "{} (of the rows that it held, without {})",
                    index.table,
                    counted(rows, "row")
                )
            }
            (Ok(()), None) => format!("{} (it is not known which rows it left out)", index.table),
            _ => index.table.clone(),
        });
        [(StepKind::Fts, text.collect()), (StepKind::Reindex, self.indexes.clone())]
            .into_iter()
            .filter(|(_, names): &(StepKind, Vec<String>)| !names.is_empty())
            .map(|(step, names)| Step {
                step,
                ok: done.is_ok(),
                detail: match done {
                    Ok(()) => format!("rebuilt {}", names.join(", ")),
                    Err(reason) => {
                        let count = counted(names.len() as u64, "index");
                        format!("rebuilding {count} ({}) did not do: {reason}", names.join(", "))
                    }
                },
            })
            .collect()
    }
}

/// The statements that make a full-text index again of the rows that it holds; none where it does
/// not know them.
fn rebuild_of_held(connection: &Connection, table: &str) -> Result<Option<String>> {
    let sql: Option<String> = connection
        .sql()?
        .query_row(
            "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1",
            [table],
            |row| row.get(0),
        )
        .optional()?;
    let Some(index) = sql.and_then(|sql| FullText::of(table, &sql)) else { return Ok(None) };
    let rebuild = index.rebuild_of_held(connection)?;
    Ok(index
        .list_of_held()
        .zip(rebuild)
        .map(|(list, rebuild)| format!("{list}; {rebuild}; DROP TABLE temp.fusion_sqlite_held")))
}

/// `name` as SQL has it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Carries `plan` out on the database at `path`, if `reason` still asks for it once the file is
/// locked.
///
/// # Errors
/// `SQLITE_BUSY` where somebody else writes until `until`; those of the disk; `task`'s. The file
/// is then as it was.
pub(super) fn rebuild(
    path: &Path,
    plan: &Plan,
    reason: Reason,
    until: Instant,
    task: &dyn Task,
) -> Result<Rebuilt> {
    let connection = Connection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO)?;
    connection.checkpoint_on_close(false);
    let run = |sql: &str| {
        connection.sql()?.execute_batch(sql).map_err(|error| Error::from(error).at(path))
    };
    // It reads the schema, which whoever closes the file as the last one keeps others from.
    patiently(until, task, || run(SYNCED).and_then(|()| run("PRAGMA temp_store = MEMORY")))?;
    patiently(until, task, || run("BEGIN IMMEDIATE"))?;
    let rebuilt = (|| {
        let before = health::inspect(&connection, Kind::Full, task)?;
        if !Way::of(&before, reason).is_rebuild() {
            return Ok(Rebuilt::Overtaken);
        }
        Ok(match carry_out(plan, &connection, task)? {
            // With auto_vacuum, pages are moved only now.
            Ok(()) => match run("COMMIT") {
                Ok(()) => Rebuilt::Yes(plan.steps(Ok(()))),
                Err(error) => Rebuilt::NotEnough(plan.steps(Err(&says_more(error)?))),
            },
            Err(reason) => Rebuilt::NotEnough(plan.steps(Err(&reason))),
        })
    })();
    if !connection.is_autocommit() {
        // Only where it was not committed. It may have been rolled back already.
        drop(run("ROLLBACK"));
    }
    rebuilt
}

/// Carries `plan` out inside the connection's transaction, and checks what came of it; `Err` inside
/// is why it was not enough.
///
/// # Errors
/// Those of the disk; `task`'s.
pub(super) fn carry_out(
    plan: &Plan,
    connection: &Connection,
    task: &dyn Task,
) -> Result<std::result::Result<(), String>> {
    let run = |sql: &str| {
        let done = connection.sql()?.execute_batch(sql);
        done.map_err(|error| Error::from(error).at(connection.path()))
    };
    let statements = match plan.statements(connection) {
        Ok(statements) => statements,
        Err(error) => return says_more(error).map(Err),
    };
    // SQLite ends a transaction itself where it runs out of memory, as it does over sizes in a
    // damaged file. Whatever were written then would be committed at once.
    let has_ended = || connection.is_autocommit();
    let ended = || Ok(Err("SQLite ended the transaction".to_owned()));
    let total = statements.len() as u64;
    for (done, sql) in (0..).zip(statements) {
        task.go_on()?;
        if has_ended() {
            return ended();
        }
        task.stage(Stage { name: "rebuilding", done, total });
        if let Err(error) = run(&sql) {
            return says_more(error).map(Err);
        }
    }
    let after = health::inspect(connection, Kind::Full, task)?;
    task.go_on()?;
    if has_ended() {
        return ended();
    }
    Ok(if plan.is_done(&after) {
        Ok(())
    } else {
        Err("the file did not pass the check afterwards".to_owned())
    })
}

/// Why rebuilding failed, if that says that the damage is greater than it was believed to be.
///
/// # Errors
/// `error`, where it says something else.
fn says_more(error: Error) -> Result<String> {
    match error.class() {
        Class::Corrupt | Class::Index | Class::Row => Ok(error.message),
        // A function, collation or tokenizer of the application's that is not known here.
        Class::Disk if error.errcode & 0xff == ffi::SQLITE_ERROR => Ok(error.message),
        // Sizes in the index that no memory suffices for.
        Class::Disk if error.errcode & 0xff == ffi::SQLITE_NOMEM && is_memory_left() => {
            Ok(error.message)
        }
        _ => Err(error),
    }
}
