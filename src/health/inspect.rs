//! Runs SQLite's checks on one snapshot of a database.
//!
//! | step | kind |
//! |---|---|
//! | the schema | both |
//! | `PRAGMA quick_check`, or `integrity_check` | quick, or full |
//! | the same check for each table, if SQLite stopped before the end | both |
//! | the same with stub functions and collations, for tables that need those of the application | both |
//! | each b-tree alone, for a table whose check failed | both |
//! | full-text indexes compared with their content | full; FTS3 and FTS4 both, if SQLite's check fails |
//! | `PRAGMA foreign_key_check`, for each table | full |
//!
//! SQLite reports damage in lines of text, unless it fails before it can return a row. The meaning
//! of such an error depends on when it occurs:
//!
//! | error | while the schema is read | later |
//! |---|---|---|
//! | of the system ([`is_of_system`]) | the check fails | the check fails |
//! | contention | [`Finding::Locked`], not damage | the same |
//! | `SQLITE_NOMEM` twice, although memory is left | [`Finding::Header`] | damage of the object that is read |
//! | any other | [`Finding::Header`]: the file can be read, and its schema is malformed | damage of the table that is checked, or the check fails |
//!
//! A failed read is not a finding. SQLite reports failed reads in its lines as well, so the check
//! detects them separately and ends with their error.
//!
//! Progress is an estimate: the pages that SQLite has read, compared with the pages of the file.
//! Each page is read once for its b-tree ("reading pages"), and again for its rows ("comparing
//! rows") unless it is still in the page cache.
//!
//! Called on the thread that owns the connection, which it blocks.

use std::collections::HashSet;
use std::path::Path;
use std::time::Instant;

use rusqlite::ffi;

use super::finding::{CheckKind, Finding, Health};
use super::integrity_check_output::{Findings, Subject};
use super::progress_handler::Watch;
use super::schema::{Object, SCHEMA_TABLE, Schema};
use super::{alone, foreign_keys, full_text, traces};
use crate::engine::stub_functions::{self, StubResult};
use crate::engine::{Class, Connection, Error, Progress, Result, is_memory_left, or_failed};

/// Largest number of lines requested from SQLite. More lines would add no finding, and take long.
const MOST_LINES: u32 = 10_000;

/// The same for checks with stub functions. SQLite ends a check at the last line that it may
/// return, and any number of lines may come from values that the stubs computed.
const ALL_LINES: u32 = i32::MAX.unsigned_abs();

/// Checks one snapshot of the database of `connection`, the WAL included. Inside an open
/// transaction the check reads that transaction's changes, and leaves the transaction open.
///
/// Damage and contention ([`Finding::Locked`]) are findings. The file is not written to.
///
/// # Errors
/// `task`'s; errors that are neither damage nor contention (`SQLITE_IOERR`, `SQLITE_CANTOPEN`,
/// `SQLITE_NOMEM`). If any read failed, the error is `SQLITE_IOERR_READ`, whatever SQLite reported.
pub fn inspect(connection: &Connection, kind: CheckKind, task: &dyn Progress) -> Result<Health> {
    or_failed(connection.path(), || inspected(connection, kind, task))
}

fn inspected(connection: &Connection, kind: CheckKind, task: &dyn Progress) -> Result<Health> {
    let started = Instant::now();
    task.check_cancelled()?;
    let watch = Watch::new(connection, task);
    let mut findings = Findings::default();
    let own_transaction = connection.is_autocommit();
    let mut extent = (0, 0);
    let schema = again(|| {
        if own_transaction && connection.is_autocommit() {
            execute(connection, "BEGIN")?;
        }
        extent = (number(connection, "page_count")?, number(connection, "page_size")?);
        Schema::read(connection)
    });
    let looked = match schema {
        Ok(schema) => {
            watch.of_pages(extent.0);
            look(connection, kind, schema, &watch, &mut findings)
        }
        Err(error) => {
            let error = watch.reason(error);
            if says_of_schema(&error) {
                findings.header(&error.message);
                Ok(())
            } else {
                Err(error)
            }
        }
    };
    if own_transaction && !connection.is_autocommit() {
        // The transaction has only read, so a failed ROLLBACK does no harm.
        drop(execute(connection, "ROLLBACK"));
    }
    if let Err(error) = looked {
        take_error(&mut findings, watch.reason(error))?;
    }
    watch.ended()?;
    watch.finish();
    Ok(Health {
        path: connection.path().to_path_buf(),
        kind,
        ok: false,
        findings: findings.into_vec(),
        pages: extent.0,
        page_size: u32::try_from(extent.1).unwrap_or(0),
        elapsed_ms: started.elapsed().as_secs_f64() * 1000.0,
    }
    .judged())
}

/// Whether an error from reading the schema reports a malformed schema or header: an error of
/// SQLite, except those of the system, contention, and those with a finding of their own.
fn says_of_schema(error: &Error) -> bool {
    let other = matches!(error.class(), Class::Transient | Class::Replaced)
        || error.errcode & 0xff == ffi::SQLITE_NOTADB;
    error.errcode != 0 && !is_of_system(error) && !other
}

/// Whether the system caused an error, independently of the file's content.
fn is_of_system(error: &Error) -> bool {
    matches!(
        error.errcode & 0xff,
        ffi::SQLITE_PERM
            | ffi::SQLITE_NOMEM
            | ffi::SQLITE_READONLY
            | ffi::SQLITE_INTERRUPT
            | ffi::SQLITE_IOERR
            | ffi::SQLITE_FULL
            | ffi::SQLITE_CANTOPEN
            | ffi::SQLITE_NOLFS
            | ffi::SQLITE_AUTH
    ) && error.class() != Class::Corrupt
}

/// Runs `read`, and repeats it once if SQLite reports `SQLITE_NOMEM` although memory is left. A
/// damaged file may hold sizes for which no memory suffices: then SQLite reports the error each
/// time, and it counts as damage.
fn again<T>(mut read: impl FnMut() -> Result<T>) -> Result<T> {
    let is_out = |outcome: &Result<T>| {
        outcome.as_ref().is_err_and(|error| error.errcode & 0xff == ffi::SQLITE_NOMEM)
    };
    let first = read();
    if !is_out(&first) || !is_memory_left() {
        return first;
    }
    match read() {
        Err(error) if error.errcode & 0xff == ffi::SQLITE_NOMEM && is_memory_left() => {
            let message = "SQLite cannot get as much memory as sizes in the file ask for";
            let path = error.path.clone();
            Err(Error { path, ..Error::sqlite(ffi::SQLITE_CORRUPT, message) })
        }
        second => second,
    }
}

/// Adds the finding that an error stands for; returns the error if it is not about the file.
fn take_error(findings: &mut Findings, error: Error) -> Result<()> {
    match error.class() {
        Class::Corrupt if error.errcode & 0xff == ffi::SQLITE_NOTADB => {
            let was_database = error.path.as_deref().is_some_and(traces::are_there);
            findings.push(Finding::NotADatabase { was_database, lines: vec![error.message] });
        }
        Class::Corrupt => findings.header(&error.message),
        Class::Transient if error.errcode & 0xff != ffi::SQLITE_INTERRUPT => {
            findings.push(Finding::Locked { lines: vec![error.message] });
        }
        _ => return Err(error),
    }
    Ok(())
}

/// The health of a file whose check failed with `error` at the start.
///
/// # Errors
/// `error`, if it reports neither damage nor contention.
pub(super) fn unreadable(path: &Path, kind: CheckKind, error: Error) -> Result<Health> {
    let mut findings = Findings::default();
    take_error(&mut findings, error)?;
    let findings = findings.into_vec();
    let path = path.to_path_buf();
    Ok(Health { path, kind, ok: false, findings, pages: 0, page_size: 0, elapsed_ms: 0.0 }.judged())
}

fn look(
    connection: &Connection,
    kind: CheckKind,
    schema: Schema,
    watch: &Watch<'_>,
    findings: &mut Findings,
) -> Result<()> {
    look_at(connection, kind, &schema, watch, findings)?;
    findings.acquit_indexes_of_damaged_tables();
    needs_application(connection, findings)
}

fn look_at(
    connection: &Connection,
    kind: CheckKind,
    schema: &Schema,
    watch: &Watch<'_>,
    findings: &mut Findings,
) -> Result<()> {
    let whole = all_at_once(kind, MOST_LINES, schema, watch, findings);
    if whole.as_ref().is_err_and(is_of_statement) {
        let uncomputed = not_compiled(connection, kind, schema)?;
        if !uncomputed.is_empty() {
            // If one function or collation is unknown, SQLite checks no table at all.
            let statements = schema.statements_of(&uncomputed).collect::<Vec<_>>().join(";\n");
            findings.compute_in_vain(uncomputed);
            return stub_functions::with_stubs(connection, &statements, StubResult::Null, || {
                let whole = all_at_once(kind, ALL_LINES, schema, watch, findings);
                look_on(connection, kind, schema, watch, findings, whole)
            });
        }
    }
    look_on(connection, kind, schema, watch, findings, whole)
}

/// Records for each damaged index whether only its application can rebuild it, because its
/// statement needs a function or a collation that this connection does not have.
fn needs_application(connection: &Connection, findings: &mut Findings) -> Result<()> {
    let sql = connection.sql()?;
    findings.each_index(|index, needs_application, lines| {
        // The statement is prepared, not run.
        let reindex = format!("REINDEX main.{}", identifier(index));
        match sql.prepare(&reindex).map(drop).map_err(Error::from) {
            Err(error) if is_of_statement(&error) => {
                *needs_application = true;
                lines.push(format!("REINDEX: {}", error.message));
            }
            _ => {}
        }
    });
    Ok(())
}

/// Runs SQLite's check of the whole file. Returns whether SQLite stopped early because of damage.
fn all_at_once(
    kind: CheckKind,
    lines: u32,
    schema: &Schema,
    watch: &Watch<'_>,
    findings: &mut Findings,
) -> Result<bool> {
    let mut gave_up = false;
    let sql = format!("PRAGMA main.{}({lines})", pragma_of(kind));
    again(|| watch.texts(&sql, |row| gave_up |= findings.add(row, schema)))?;
    Ok(gave_up)
}

/// The tables whose check SQLite cannot prepare, because they need functions or collations of the
/// application.
fn not_compiled(
    connection: &Connection,
    kind: CheckKind,
    schema: &Schema,
) -> Result<HashSet<String>> {
    let sql = connection.sql()?;
    let pragma = pragma_of(kind);
    let fails = |table: &&Object| {
        let check = format!("PRAGMA main.{pragma}({})", quoted(&table.name));
        sql.prepare(&check).map(drop).map_err(Error::from).is_err_and(|it| is_of_statement(&it))
    };
    Ok(schema.tables().filter(fails).map(|table| table.name.clone()).collect())
}

/// Runs the other steps after SQLite's check of the whole file, whose result is `whole`.
fn look_on(
    connection: &Connection,
    kind: CheckKind,
    schema: &Schema,
    watch: &Watch<'_>,
    findings: &mut Findings,
    whole: Result<bool>,
) -> Result<()> {
    let gave_up = match whole {
        Ok(gave_up) => gave_up,
        // Damage ended the check, or a virtual table cannot be opened (its module or tokenizer is
        // unknown here, or its shadow tables are damaged). The other tables can still be checked.
        Err(error) if is_about_one_table(&error) => true,
        Err(error) => return Err(error),
    };
    place_pages(schema, watch, findings)?;
    if gave_up {
        one_by_one(connection, kind, schema, watch, findings)?;
        place_pages(schema, watch, findings)?;
    }
    settle_contests(connection, schema, watch, findings)?;
    findings.explain_leaks();
    if !findings.has_table_damage() {
        full_text::check(connection, kind, schema, watch, findings)?;
    }
    if kind == CheckKind::Full && !findings.has_table_damage() {
        foreign_keys::check(connection, schema, watch, findings)?;
    }
    Ok(())
}

/// Finds the b-trees of pages that SQLite's lines mention without a b-tree.
fn place_pages(schema: &Schema, watch: &Watch<'_>, findings: &mut Findings) -> Result<()> {
    let lines = findings.take_lines_of_some_tree();
    if lines.is_empty() {
        return Ok(());
    }
    let pages: Vec<u32> = lines.iter().map(|(page, _)| *page).collect();
    let owners = alone::owners(schema, &pages, watch)?;
    for (page, line) in lines {
        if let Some(subject) = findings.subject_of(page) {
            findings.note(subject, Some(page), &line);
            continue;
        }
        let owner = owners.get(&page).copied();
        let subject = owner.map_or(Subject::Unplaced, |owner| match owner.kind.as_str() {
            "index" => Subject::Index(owner.name.clone(), owner.table.clone()),
            _ => Subject::Table(owner.name.clone()),
        });
        findings.note(subject, Some(page), &line);
    }
    Ok(())
}

fn pragma_of(kind: CheckKind) -> &'static str {
    match kind {
        CheckKind::Quick => "quick_check",
        CheckKind::Full => "integrity_check",
    }
}

/// Checks each table separately, to find those whose check fails. SQLite's check of a table also
/// reads its indexes, so [`place`] then reads each b-tree alone to find the damaged one.
fn one_by_one(
    connection: &Connection,
    kind: CheckKind,
    schema: &Schema,
    watch: &Watch<'_>,
    findings: &mut Findings,
) -> Result<()> {
    let pragma = pragma_of(kind);
    let mut anything = false;
    let every = schema.tables().chain(schema.virtual_tables());
    for table in every {
        watch.check_cancelled()?;
        let sql = format!("PRAGMA main.{pragma}({})", quoted(&table.name));
        let mut gave_up = false;
        let checked = again(|| watch.texts(&sql, |row| gave_up |= findings.add(row, schema)));
        match checked {
            Ok(()) if !gave_up => {}
            Ok(()) => {
                let line = "a record is malformed";
                anything |= place(connection, kind, schema, watch, findings, (table, line))?;
            }
            Err(error) if table.is_virtual() && is_about_one_table(&error) => {
                // Only a corruption code counts as damage: this connection may lack its module.
                if matches!(error.class(), Class::Index | Class::Corrupt) {
                    findings.note(Subject::FullText(table.name.clone()), None, &error.message);
                    anything = true;
                }
            }
            Err(error) if error.class() == Class::Corrupt => {
                let blamed = (table, error.message.as_str());
                anything |= place(connection, kind, schema, watch, findings, blamed)?;
            }
            Err(error) if is_about_one_table(&error) => {}
            Err(error) => return Err(error),
        }
    }
    if !anything && !findings.has_damage() && pragma_gave_up_for_damage(watch, pragma)? {
        // The damage is outside of all tables in the schema.
        findings.note(
            Subject::Table(SCHEMA_TABLE.to_owned()),
            None,
            "database disk image is malformed",
        );
    }
    Ok(())
}

/// Finds the b-trees that made the check of `table` end with `line`, and adds them as findings.
/// Returns whether a finding was added.
///
/// The table is damaged only if its own b-tree cannot be read to the end. If all b-trees can be, a
/// comparison failed. Only a full check compares, and always with an index.
fn place(
    connection: &Connection,
    kind: CheckKind,
    schema: &Schema,
    watch: &Watch<'_>,
    findings: &mut Findings,
    (table, line): (&Object, &str),
) -> Result<bool> {
    if table.is_virtual() {
        findings.note(Subject::Table(table.name.clone()), None, line);
        return Ok(true);
    }
    let mut anything = false;
    if let Some(line) = alone::damage(connection, table, watch)? {
        findings.note(Subject::Table(table.name.clone()), None, &line);
        anything = true;
    }
    let indexes: Vec<_> = schema.indexes_of(&table.name).collect();
    for index in &indexes {
        watch.check_cancelled()?;
        if let Some(line) = alone::damage(connection, index, watch)? {
            let subject = Subject::Index(index.name.clone(), index.table.clone());
            findings.note(subject, None, &line);
            anything = true;
        }
    }
    if anything || findings.has_damage_of(&table.name) {
        return Ok(anything);
    }
    if kind == CheckKind::Full && !indexes.is_empty() {
        for index in indexes {
            let subject = Subject::Index(index.name.clone(), index.table.clone());
            findings.note(subject, None, line);
        }
    } else {
        findings.note(Subject::Table(table.name.clone()), None, line);
    }
    Ok(true)
}

/// Removes findings about tables whose only fault is that a second b-tree points to one of their
/// pages, if that can only be an index: SQLite reports the b-tree that it walked last.
///
/// Such a table is sound if its own b-tree, walked first, has no fault and can be read to its end.
/// If an index is damaged, the other b-tree is that index, as its rebuild proves. Otherwise the
/// finding stays.
fn settle_contests(
    connection: &Connection,
    schema: &Schema,
    watch: &Watch<'_>,
    findings: &mut Findings,
) -> Result<()> {
    let contested = findings.contested_tables();
    if contested.is_empty() {
        return Ok(());
    }
    let mut sound = Vec::new();
    for name in contested {
        watch.check_cancelled()?;
        let Some(table) = schema.tables().find(|table| table.name == name) else { continue };
        // In the check of one table SQLite walks the table's b-tree first.
        let mut own = Findings::default();
        let check = format!("PRAGMA main.quick_check({})", quoted(&name));
        let walked = watch.texts(&check, |row| {
            own.add(row, schema);
        });
        match walked {
            Ok(()) => {}
            Err(error) if is_about_one_table(&error) => continue,
            Err(error) => return Err(error),
        }
        if !own.blames_table(&name) && alone::damage(connection, table, watch)?.is_none() {
            sound.push(name);
        }
    }
    if sound.is_empty() {
        return Ok(());
    }
    for index in schema.indexes() {
        watch.check_cancelled()?;
        if let Some(line) = alone::damage(connection, index, watch)? {
            let subject = Subject::Index(index.name.clone(), index.table.clone());
            findings.note(subject, None, &line);
        }
    }
    if findings.has_index_damage() {
        findings.acquit(&sound);
    }
    Ok(())
}

/// Whether the check of the whole file ends with `SQLITE_CORRUPT`, not of a virtual table.
fn pragma_gave_up_for_damage(watch: &Watch<'_>, pragma: &str) -> Result<bool> {
    let mut malformed = false;
    let sql = format!("PRAGMA main.{pragma}");
    match again(|| watch.texts(&sql, |row| malformed |= row != "ok")) {
        Ok(()) => Ok(malformed),
        Err(error) if error.class() == Class::Corrupt => Ok(true),
        Err(error) if is_about_one_table(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an error may concern one table only, so that the others can still be checked.
fn is_about_one_table(error: &Error) -> bool {
    matches!(error.class(), Class::Corrupt | Class::Index) || is_of_statement(error)
}

/// Whether SQLite could not compile a statement.
pub(super) fn is_of_statement(error: &Error) -> bool {
    error.errcode & 0xff == ffi::SQLITE_ERROR
}

/// A name as an SQL string.
pub(super) fn quoted(name: &str) -> String {
    format!("'{}'", name.replace('\'', "''"))
}

/// A name as an SQL identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn execute(connection: &Connection, sql: &str) -> Result<()> {
    connection.sql()?.execute_batch(sql).map_err(|error| Error::from(error).at(connection.path()))
}

fn number(connection: &Connection, pragma: &str) -> Result<u64> {
    let value: i64 = connection
        .sql()?
        .pragma_query_value(Some("main"), pragma, |row| row.get(0))
        .map_err(|error| Error::from(error).at(connection.path()))?;
    Ok(u64::try_from(value).unwrap_or(0))
}
