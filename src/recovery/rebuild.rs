//! Indexes and full-text indexes, made again from their tables inside the file: the two kinds of
//! damage that cost no row.
//!
//! One transaction. It is kept only if the whole file passes a full check as the transaction sees
//! it; otherwise it is rolled back, and the file is as it was.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{OpenFlags, ffi};

use super::reader::patiently;
use super::report::{Step, StepKind, counted};
use crate::engine::{Class, Connection, Error, Result, Stage, Task, is_memory_left};
use crate::health::{self, Finding, Health, Kind};

/// What can be made again.
#[derive(Debug, Default)]
pub(super) struct Plan {
    full_text: Vec<String>,
    indexes: Vec<String>,
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

impl Plan {
    /// What would repair a file in this state; none where something else is damaged as well.
    pub fn of(health: &Health) -> Option<Self> {
        let mut plan = Self::default();
        for finding in health.findings.iter().filter(|finding| finding.is_damage()) {
            match finding {
                Finding::FtsDamage { table, .. } => plan.full_text.push(table.clone()),
                Finding::IndexDamage { index, .. } => plan.indexes.push(index.clone()),
                _ => return None,
            }
        }
        (!plan.full_text.is_empty() || !plan.indexes.is_empty()).then_some(plan)
    }

    /// Whether it is about full-text indexes alone.
    pub fn is_full_text(&self) -> bool {
        self.indexes.is_empty()
    }

    fn statements(&self) -> Vec<String> {
        let full_text = self.full_text.iter().map(|table| {
            let name = quoted(table);
            format!("INSERT INTO main.{name}({name}) VALUES ('rebuild')")
        });
        let indexes = self.indexes.iter().map(|index| format!("REINDEX main.{}", quoted(index)));
        full_text.chain(indexes).collect()
    }

    fn steps(&self, ok: bool, reason: &str) -> Vec<Step> {
        let names = [(StepKind::Fts, &self.full_text), (StepKind::Reindex, &self.indexes)];
        names
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(step, names)| Step {
                step,
                ok,
                detail: if ok {
                    format!("rebuilt {}", names.join(", "))
                } else {
                    let count = counted(names.len() as u64, "index");
                    format!("rebuilding {count} ({}) did not do: {reason}", names.join(", "))
                },
            })
            .collect()
    }
}

/// `name` as SQL has it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Carries `plan` out on the database at `path`, if it is still damaged once it is locked.
///
/// # Errors
/// `SQLITE_BUSY` where somebody else writes until `until`; those of the disk; `task`'s. The file
/// is then as it was.
pub(super) fn rebuild(
    path: &Path,
    plan: &Plan,
    until: Instant,
    task: &dyn Task,
) -> Result<Rebuilt> {
    let connection = Connection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO)?;
    connection.checkpoint_on_close(false);
    let run = |sql: &str| {
        connection.sql()?.execute_batch(sql).map_err(|error| Error::from(error).at(path))
    };
    let settings =
        "PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY";
    // It reads the schema, which whoever closes the file as the last one keeps others from.
    patiently(until, task, || run(settings))?;
    patiently(until, task, || run("BEGIN IMMEDIATE"))?;
    let total = plan.statements().len() as u64;
    let rebuilt = (|| {
        if health::inspect(&connection, Kind::Full, task)?.ok {
            return Ok(Rebuilt::Overtaken);
        }
        // SQLite ends a transaction itself where it runs out of memory, as it does over sizes in a
        // damaged file. Whatever were written then would be committed at once.
        let has_ended = || connection.is_autocommit();
        let ended = || Ok(Rebuilt::NotEnough(plan.steps(false, "SQLite ended the transaction")));
        for (done, sql) in (0..).zip(plan.statements()) {
            task.go_on()?;
            task.stage(Stage { name: "rebuilding", done, total });
            if has_ended() {
                return ended();
            }
            if let Err(error) = run(&sql) {
                return Ok(Rebuilt::NotEnough(plan.steps(false, &says_more(error)?)));
            }
        }
        let after = health::inspect(&connection, Kind::Full, task)?;
        if has_ended() {
            return ended();
        }
        task.go_on()?;
        if !after.ok {
            let reason = "the file did not pass the check afterwards";
            return Ok(Rebuilt::NotEnough(plan.steps(false, reason)));
        }
        run("COMMIT")?;
        Ok(Rebuilt::Yes(plan.steps(true, "")))
    })();
    if !connection.is_autocommit() {
        // Only where it was not committed. It may have been rolled back already.
        drop(run("ROLLBACK"));
    }
    rebuilt
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
