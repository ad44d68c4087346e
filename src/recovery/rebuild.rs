//! Rebuilds indexes and full-text indexes from their tables, inside the file. These are the two
//! kinds of damage that cost no row.
//!
//! What is rebuilt depends on the [`Reason`] of the repair:
//!
//! | state | `Damage` | `VirtualTable` | `Asked` |
//! |---|---|---|---|
//! | an index is damaged | rebuilt | rebuilt | rebuilt |
//! | … that only the application can rebuild | refused | refused | left to a salvage |
//! | a full-text index is damaged, and holds every row | rebuilt | rebuilt | rebuilt |
//! | … and leaves rows out, or that is unknown | refused | refused | rebuilt, same rows |
//! | a full-text index is stale, and holds every row | left | rebuilt | rebuilt |
//! | … and leaves rows out, or that is unknown | left | left | rebuilt, same rows |
//!
//! "Same rows": the index is rebuilt from the rows that it held, and from all rows if it does not
//! know which it held. A row that an index leaves out, perhaps on purpose, is never added to it
//! unless a person asked for the repair. "Refused" ends the whole repair: the tables are sound, and
//! a salvage could only lose rows.
//!
//! A rebuild is one transaction. It is committed only if the whole file passes a full check inside
//! the transaction; otherwise it is rolled back, and the file is unchanged.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{OpenFlags, OptionalExtension, ffi};

use super::reader::patiently;
use super::report::{OF_AN_INDEX, Step, StepKind, counted};
use super::write_back::SYNCED;
use crate::engine::{Class, Connection, Error, Progress, Result, Stage, is_memory_left};
use crate::health::{self, CheckKind, Finding, FullText, Health};

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

/// What this module can do for a file.
#[derive(Debug)]
pub(super) enum Way {
    /// Nothing: the file is sound, or more than indexes is damaged.
    None,
    /// The damage is repaired by rebuilding.
    Rebuild(Plan),
    /// A person has to ask for the repair; the error gives the reason.
    Refuse(Error),
}

/// The indexes to rebuild.
#[derive(Debug, Default)]
pub(super) struct Plan {
    full_text: Vec<TextIndex>,
    indexes: Vec<String>,
}

/// A full-text index to rebuild, and the number of rows that it leaves out, if known.
#[derive(Debug)]
struct TextIndex {
    table: String,
    left_out: Option<u64>,
}

/// How a rebuild ended.
#[derive(Debug)]
pub(super) enum Rebuilt {
    /// It is committed.
    Yes(Vec<Step>),
    /// The file did not pass the check, and the transaction was rolled back.
    NotEnough(Vec<Step>),
    /// Another connection had repaired the file before the write lock was taken. Nothing was done.
    Overtaken,
}

impl Way {
    /// What this module can do for a file with this health.
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
            // Unreferenced pages are expected of a damaged index that is rebuilt. Without one they
            // are damage of another kind.
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

/// Whether a line of the integrity check reports an unreferenced page.
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
            "the full-text index {table} is damaged, and it is unknown which rows of its content \
             it leaves out, so that it is not rebuilt unasked. No row of a table is damaged. \
             recover() rebuilds it of all rows, if it has content"
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
         recover() rebuilds the whole database, and may have to leave this index out",
        quoted(index)
    );
    Error::sqlite(ffi::SQLITE_CORRUPT_INDEX, message)
}

impl Plan {
    /// The names of the shadow tables of its full-text indexes, in lower case.
    pub fn derived(&self) -> HashSet<String> {
        let names = self
            .full_text
            .iter()
            .flat_map(|index| OF_AN_INDEX.iter().map(|suffix| format!("{}_{suffix}", index.table)));
        names.map(|name| name.to_ascii_lowercase()).collect()
    }

    /// Whether the plan rebuilds full-text indexes only.
    pub fn is_full_text(&self) -> bool {
        self.indexes.is_empty()
    }

    /// The indexes.
    pub fn indexes(&self) -> &[String] {
        &self.indexes
    }

    /// The statements of the plan, for `connection` to run.
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

    /// Whether a file with this health is what the plan should achieve.
    pub fn is_done(&self, health: &Health) -> bool {
        let is_stale = |table: &str| {
            health
                .findings
                .iter()
                .any(|it| matches!(it, Finding::FtsStale { table: stale, .. } if stale == table))
        };
        health.ok && !self.full_text.iter().any(|index| is_stale(&index.table))
    }

    /// The report's steps: what was rebuilt, or why it failed.
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

/// The statements that rebuild a full-text index from the rows that it holds. `None` if those rows
/// are unknown.
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

/// `name` as a quoted SQL identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Carries out `plan` on the database at `path`. A check under the write lock decides first whether
/// `reason` still calls for a rebuild.
///
/// # Errors
/// `SQLITE_BUSY` if another connection has the write lock until `until`; those of the disk;
/// `task`'s. The file is then unchanged.
pub(super) fn rebuild(
    path: &Path,
    plan: &Plan,
    reason: Reason,
    until: Instant,
    task: &dyn Progress,
) -> Result<Rebuilt> {
    let connection = Connection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO)?;
    connection.checkpoint_on_close(false);
    let run = |sql: &str| {
        connection.sql()?.execute_batch(sql).map_err(|error| Error::from(error).at(path))
    };
    // The PRAGMAs read the schema. A connection that closes as the last one blocks reads meanwhile.
    patiently(until, task, || run(SYNCED).and_then(|()| run("PRAGMA temp_store = MEMORY")))?;
    patiently(until, task, || run("BEGIN IMMEDIATE"))?;
    let rebuilt = (|| {
        let before = health::inspect(&connection, CheckKind::Full, task)?;
        if !Way::of(&before, reason).is_rebuild() {
            return Ok(Rebuilt::Overtaken);
        }
        Ok(match carry_out(plan, &connection, task)? {
            // With auto_vacuum, COMMIT moves pages, and can fail over a damaged one.
            Ok(()) => match run("COMMIT") {
                Ok(()) => Rebuilt::Yes(plan.steps(Ok(()))),
                Err(error) => Rebuilt::NotEnough(plan.steps(Err(&says_more(error)?))),
            },
            Err(reason) => Rebuilt::NotEnough(plan.steps(Err(&reason))),
        })
    })();
    if !connection.is_autocommit() {
        // SQLite may have rolled the transaction back already.
        drop(run("ROLLBACK"));
    }
    rebuilt
}

/// Carries out `plan` inside the connection's transaction, and checks the result. The inner `Err`
/// says why the rebuild was not enough.
///
/// # Errors
/// Those of the disk; `task`'s.
pub(super) fn carry_out(
    plan: &Plan,
    connection: &Connection,
    task: &dyn Progress,
) -> Result<std::result::Result<(), String>> {
    let run = |sql: &str| {
        let done = connection.sql()?.execute_batch(sql);
        done.map_err(|error| Error::from(error).at(connection.path()))
    };
    let statements = match plan.statements(connection) {
        Ok(statements) => statements,
        Err(error) => return says_more(error).map(Err),
    };
    // SQLite rolls a transaction back when it runs out of memory, which a damaged length can cause.
    // Without a transaction each further statement would commit at once.
    let has_ended = || connection.is_autocommit();
    let ended = || Ok(Err("SQLite ended the transaction".to_owned()));
    let total = statements.len() as u64;
    for (done, sql) in (0..).zip(statements) {
        task.check_cancelled()?;
        if has_ended() {
            return ended();
        }
        task.stage(Stage { name: "rebuilding", done, total });
        if let Err(error) = run(&sql) {
            return says_more(error).map(Err);
        }
    }
    let after = health::inspect(connection, CheckKind::Full, task)?;
    task.check_cancelled()?;
    if has_ended() {
        return ended();
    }
    Ok(if plan.is_done(&after) {
        Ok(())
    } else {
        Err("the file did not pass the check afterwards".to_owned())
    })
}

/// The message of an error that shows that more than the index is damaged.
///
/// # Errors
/// `error`, if it has another cause.
fn says_more(error: Error) -> Result<String> {
    match error.class() {
        Class::Corrupt | Class::Index | Class::Row => Ok(error.message),
        // A function, collation or tokenizer that only the application has.
        Class::Disk if error.errcode & 0xff == ffi::SQLITE_ERROR => Ok(error.message),
        // A damaged length in the index: the system itself has memory left.
        Class::Disk if error.errcode & 0xff == ffi::SQLITE_NOMEM && is_memory_left() => {
            Ok(error.message)
        }
        _ => Err(error),
    }
}
