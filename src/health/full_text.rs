//! Compares full-text indexes with their external content (`content='…'`).
//!
//! Such an index may leave rows out on purpose, for example if its triggers have a WHEN clause that
//! skips rows marked as deleted. So there are three results:
//!
//! | the index | finding |
//! |---|---|
//! | holds some or all of the rows, and its entries match their text | none |
//! | has entries of rows that were deleted, or whose text has changed | [`FtsStale`], not damage |
//! | fails its module's own check, or a statement, with `SQLITE_CORRUPT_VTAB` | [`FtsDamage`] |
//!
//! An index easily becomes stale: `INSERT OR REPLACE` fires no delete trigger unless
//! `recursive_triggers` is on.
//!
//! SQLite's checks verify that an FTS5 index is well-formed, and do not read external content. FTS5
//! can compare all rows with all entries, but only as a write (`'integrity-check'` with rank 1,
//! <https://sqlite.org/fts5.html#the_integrity_check_command>). If the connection already holds the
//! write lock, this command runs first, inside a savepoint that is rolled back.
//!
//! Otherwise this module compares two sides, for the rows that the index holds (listed by
//! `%_docsize`):
//!
//! * a sum over all tokens (term, row, column, position) of the index, read through `fts5vocab`,
//!   with the sum over the tokens that the same tokenizer finds in the rows' text;
//! * the sizes that FTS5 has stored (`%_docsize`, and the averages in `%_data`,
//!   <https://sqlite.org/fts5.html#fts5_data_structures>) with the sizes of that text.
//!
//! The text is indexed in a temporary contentless table one mebibyte at a time, so neither memory
//! nor disk use depends on the table's size. Without `%_docsize` (`columnsize=0`) the rows are
//! those that have tokens in the index, which needs a temporary table of their rowids.
//!
//! The check of FTS3 and FTS4 compares all rows with all entries, so it fails for an index that
//! leaves rows out. Its failure is reported as damage only if a scan of the index's terms fails, or
//! if no row is left out. In the other cases FTS4 compares a temporary copy of the index with the
//! rows that the index holds.
//!
//! [`FtsStale`]: super::Finding::FtsStale
//! [`FtsDamage`]: super::Finding::FtsDamage
//!
//! Called on the thread of the check.

use std::hash::{DefaultHasher, Hash, Hasher};

use rusqlite::types::{Value, ValueRef};
use rusqlite::{OptionalExtension, ffi};

use super::finding::{CheckKind, Finding};
use super::inspect::{execute, identifier, quoted};
use super::integrity_check_output::{Findings, Subject};
use super::progress_handler::Watch;
use super::schema::Schema;
use crate::engine::{Class, Connection, Error, Result};
use crate::format::number::varint;

/// Row of `%_data` in which FTS5 stores its totals: the number of rows, and of tokens per column.
const AVERAGES: i64 = 1;

/// Bytes of text that are indexed at a time.
const PORTION: usize = 1 << 20;

/// Examines each full-text index, and corrects the findings of SQLite's check about it.
pub(super) fn check(
    connection: &Connection,
    kind: CheckKind,
    schema: &Schema,
    watch: &Watch<'_>,
    findings: &mut Findings,
) -> Result<()> {
    for table in schema.virtual_tables() {
        watch.check_cancelled()?;
        let Some(index) = FullText::of(&table.name, &table.sql) else {
            continue;
        };
        let failed = findings.has_full_text_damage(&table.name);
        let is_asked = match &index.content {
            // SQLite's checks compare no FTS5 index with external content; nor does a quick check.
            Content::External(_) if index.is_five() => kind == CheckKind::Full,
            Content::External(_) | Content::Own | Content::None => failed,
        };
        if !is_asked {
            continue;
        }
        let said = in_savepoint(connection, || index.examine(connection, kind, failed));
        match said.map_err(|error| watch.reason(error)) {
            Ok(Said::Nothing) => {}
            Ok(Said::Sound) => findings.forget_full_text(&table.name),
            Ok(Said::Damaged { left_out }) => findings.set_left_out(&table.name, left_out),
            Ok(Said::Stale { rows, lines }) => {
                findings.forget_full_text(&table.name);
                let Rows { gone, left_out } = rows;
                let table = table.name.clone();
                findings.push(Finding::FtsStale { table, gone, left_out, lines });
            }
            Err(error) if error.class() == Class::Index => {
                findings.note(Subject::FullText(table.name.clone()), None, &error.message);
                let rows = index.rows(connection);
                findings.set_left_out(&table.name, rows.ok().and_then(|rows| rows.left_out));
            }
            // An index that cannot be compared is skipped: its tokenizer is unknown to this
            // connection, or its content table does not exist. That is not damage.
            Err(error) if error.errcode & 0xff == ffi::SQLITE_ERROR => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Runs `work`, which may create temporary tables, in a savepoint that is rolled back.
fn in_savepoint<R>(connection: &Connection, work: impl FnOnce() -> Result<R>) -> Result<R> {
    execute(connection, "SAVEPOINT fusion_sqlite_full_text")?;
    let done = work();
    let ended =
        execute(connection, "ROLLBACK TO fusion_sqlite_full_text; RELEASE fusion_sqlite_full_text");
    // Some errors have ended the savepoint.
    let done = done?;
    ended?;
    Ok(done)
}

/// Whether the connection holds the write lock of its database.
fn may_write(connection: &Connection) -> bool {
    // SAFETY: the connection is open or null, which SQLite answers with -1.
    unsafe { ffi::sqlite3_txn_state(connection.raw(), c"main".as_ptr()) == ffi::SQLITE_TXN_WRITE }
}

/// Result for an index.
#[derive(Debug)]
enum Said {
    /// The findings of SQLite's check stay.
    Nothing,
    /// Sound: findings of SQLite's check are removed.
    Sound,
    /// Damaged, as SQLite's check found.
    Damaged { left_out: Option<u64> },
    /// Well-formed, and stale.
    Stale { rows: Rows, lines: Vec<String> },
}

/// The rows of an index against those of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Rows that it holds, and that are not in its content.
    pub gone: u64,
    /// Rows of its content that it does not hold. None where that cannot be counted.
    pub left_out: Option<u64>,
}

/// Where a full-text index has its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In its own tables: all of it is in the index.
    Own,
    /// Nowhere: the index cannot be rebuilt.
    None,
    /// In this table or view.
    External(String),
}

/// The module of a full-text index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// FTS3 or FTS4.
    Four,
    Five,
}

impl Version {
    /// The column of `%_docsize` with the row's number.
    fn id(self) -> &'static str {
        match self {
            Self::Four => "docid",
            Self::Five => "id",
        }
    }
}

/// A full-text index, by its statement.
#[derive(Debug, PartialEq, Eq)]
pub struct FullText {
    name: String,
    version: Version,
    content: Content,
    /// The column of external content with the row's number.
    rowid: String,
    /// Whether it has a table of its rows' sizes, which lists the rows.
    has_sizes: bool,
    /// The arguments that say what is kept of a text: columns (FTS5), tokenizer, detail,
    /// columnsize.
    arguments: Vec<String>,
}

impl FullText {
    /// The index of the virtual table `name` that `sql` makes; none if it makes another.
    pub fn of(name: &str, sql: &str) -> Option<Self> {
        let (module, arguments) = module(sql)?;
        let is = |module: &str, names: &[&str]| {
            names.iter().any(|name| module.eq_ignore_ascii_case(name))
        };
        let version = match module {
            "" => return None,
            module if is(module, &["fts5"]) => Version::Five,
            module if is(module, &["fts3", "fts4"]) => Version::Four,
            _ => return None,
        };
        let mut index = Self {
            name: name.to_owned(),
            version,
            content: Content::Own,
            rowid: "rowid".to_owned(),
            has_sizes: !is(module, &["fts3"]),
            arguments: Vec::new(),
        };
        for argument in arguments {
            index.take(argument);
        }
        Some(index)
    }

    fn take(&mut self, argument: &str) {
        let option = argument.split_once('=').map(|(key, value)| {
            let key = key.trim().to_ascii_lowercase();
            (key, unquoted(value.trim()))
        });
        let key = option.as_ref().map_or("", |(key, _)| key.as_str());
        let value = option.as_ref().map_or("", |(_, value)| value.as_str());
        match (self.version, key) {
            (_, "content") if value.is_empty() => self.content = Content::None,
            (_, "content") => self.content = Content::External(value.to_owned()),
            (Version::Five, "content_rowid") => self.rowid = value.to_owned(),
            // Extra indexes, which say nothing that the index does not say.
            (Version::Five, "prefix") => {}
            (Version::Five, "columnsize") => {
                self.has_sizes = value != "0";
                self.arguments.push(argument.to_owned());
            }
            (Version::Five, _) => self.arguments.push(argument.to_owned()),
            (Version::Four, "matchinfo") => {
                self.has_sizes = !value.eq_ignore_ascii_case("fts3");
                self.arguments.push(argument.to_owned());
            }
            (Version::Four, "prefix" | "order" | "languageid" | "notindexed") => {
                self.arguments.push(argument.to_owned());
            }
            (Version::Four, _) => {
                let word = argument.get(.."tokenize".len()).unwrap_or_default();
                if word.eq_ignore_ascii_case("tokenize") {
                    self.arguments.push(argument.to_owned());
                }
            }
        }
    }

    /// One of its own tables.
    fn own(&self, suffix: &str) -> String {
        format!("main.{}", identifier(&format!("{}_{suffix}", self.name)))
    }

    fn is_five(&self) -> bool {
        self.version == Version::Five
    }

    /// Where its text is.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The statement that lists the rows that the index holds in a temporary table,
    /// `fusion_sqlite_held`. None where it has no such list.
    pub fn list_of_held(&self) -> Option<String> {
        self.has_sizes.then(|| {
            format!(
                "CREATE TEMP TABLE fusion_sqlite_held AS SELECT {} AS id FROM {}",
                self.version.id(),
                self.own("docsize")
            )
        })
    }

    /// The statements that rebuild the index from the rows of its external content that
    /// `fusion_sqlite_held` lists, so that rows which the index left out stay left out. `None` if
    /// its content is not external.
    ///
    /// # Errors
    /// SQLite's.
    pub fn rebuild_of_held(&self, connection: &Connection) -> Result<Option<String>> {
        let Content::External(content) = &self.content else { return Ok(None) };
        let sql = connection.sql()?;
        let columns = columns(sql, &self.name).map_err(Error::from)?.join(", ");
        let (name, content, rowid) =
            (identifier(&self.name), identifier(content), identifier(&self.rowid));
        let (empty, number) = match self.version {
            Version::Five => {
                (format!("INSERT INTO main.{name}({name}) VALUES ('delete-all')"), "rowid")
            }
            Version::Four => {
                let own = ["segments", "segdir", "docsize", "stat"];
                (own.map(|own| format!("DELETE FROM {}", self.own(own))).join("; "), "docid")
            }
        };
        Ok(Some(format!(
            "{empty};
             INSERT INTO main.{name}({number}, {columns})
             SELECT {rowid}, {columns} FROM main.{content}
              WHERE {rowid} IN (SELECT id FROM temp.fusion_sqlite_held)"
        )))
    }

    /// The column of external content with the row's number, as an identifier.
    pub fn rowid(&self) -> String {
        identifier(&self.rowid)
    }

    /// Whether the index passes its module's own check, apart from rows that it leaves out.
    ///
    /// # Errors
    /// SQLite's.
    pub fn is_sound(&self, connection: &Connection) -> Result<bool> {
        let at = |error: rusqlite::Error| Error::from(error).at(connection.path());
        let check = format!("PRAGMA main.integrity_check({})", quoted(&self.name));
        let verdict: String =
            connection.sql()?.query_row(&check, [], |row| row.get(0)).map_err(at)?;
        match &self.content {
            _ if verdict == "ok" => Ok(true),
            Content::External(content) if !self.is_five() => in_savepoint(connection, || {
                let said = self.examine_four(connection, CheckKind::Full, content)?;
                Ok(matches!(said, Said::Sound | Said::Stale { .. }))
            }),
            _ => Ok(false),
        }
    }

    /// Which rows it holds, against those of its content.
    ///
    /// # Errors
    /// SQLite's.
    pub fn rows(&self, connection: &Connection) -> Result<Rows> {
        in_savepoint(connection, || self.count(connection))
    }

    /// [`Self::rows`]; may leave the temporary table of [`Self::list_held`].
    fn count(&self, connection: &Connection) -> Result<Rows> {
        let content = match &self.content {
            Content::Own => return Ok(Rows { gone: 0, left_out: Some(0) }),
            Content::None => return Ok(Rows { gone: 0, left_out: None }),
            Content::External(content) => identifier(content),
        };
        let at = |error: rusqlite::Error| Error::from(error).at(connection.path());
        let sql = connection.sql()?;
        let count = |statement: &str| -> Result<u64> {
            let count: i64 = sql.query_row(statement, [], |row| row.get(0)).map_err(at)?;
            Ok(u64::try_from(count).unwrap_or(0))
        };
        let rowid = identifier(&self.rowid);
        let (id, held) = match (self.has_sizes, self.version) {
            (true, version) => (version.id(), self.own("docsize")),
            (false, Version::Five) => {
                self.list_held(connection)?;
                ("id", "temp.fusion_sqlite_held".to_owned())
            }
            (false, Version::Four) => return Ok(Rows { gone: 0, left_out: None }),
        };
        let both = count(&format!(
            "SELECT count(*) FROM {held} WHERE {id} IN (SELECT {rowid} FROM main.{content})"
        ))?;
        let gone = count(&format!("SELECT count(*) FROM {held}"))?.saturating_sub(both);
        let left_out = if self.has_sizes {
            count(&format!("SELECT count(*) FROM main.{content}"))?.saturating_sub(both)
        } else {
            // A row without text has no tokens.
            let columns = columns(sql, &self.name).map_err(at)?;
            let lengths: Vec<_> =
                columns.iter().map(|column| format!("ifnull(length({column}), 0)")).collect();
            count(&format!(
                "SELECT count(*) FROM main.{content} WHERE {rowid} NOT IN (SELECT {id} FROM {held}) \
                 AND {} > 0",
                lengths.join(" + ")
            ))?
        };
        Ok(Rows { gone, left_out: Some(left_out) })
    }

    /// Lists the rows that have tokens in the index, in a temporary table.
    fn list_held(&self, connection: &Connection) -> Result<()> {
        execute(
            connection,
            &format!(
                "CREATE VIRTUAL TABLE temp.fusion_sqlite_tokens USING \
                 fts5vocab('main', {}, 'instance');
                 CREATE TEMP TABLE fusion_sqlite_held (id INTEGER PRIMARY KEY);
                 INSERT OR IGNORE INTO fusion_sqlite_held SELECT doc FROM fusion_sqlite_tokens",
                quoted(&self.name),
            ),
        )
    }

    fn examine(&self, connection: &Connection, kind: CheckKind, failed: bool) -> Result<Said> {
        let content = match &self.content {
            Content::External(content) => content,
            Content::Own | Content::None => {
                let left_out = self.count(connection)?.left_out;
                return Ok(Said::Damaged { left_out });
            }
        };
        if !self.is_five() {
            return self.examine_four(connection, kind, content);
        }
        if failed {
            // Which rows a damaged index holds may be beyond counting.
            let left_out = self.rows(connection).ok().and_then(|rows| rows.left_out);
            return Ok(Said::Damaged { left_out });
        }
        if may_write(connection) && self.ask(connection)? {
            return Ok(Said::Nothing);
        }
        let rows = self.count(connection)?;
        let mut lines = lines_of(rows, content);
        if lines.is_empty() && !self.compare(connection, content)? {
            lines.push(format!("it does not say of its rows what {content} says of them"));
        }
        Ok(if lines.is_empty() { Said::Nothing } else { Said::Stale { rows, lines } })
    }

    /// Examines an FTS3 or FTS4 index that, according to SQLite's check, differs from its content.
    fn examine_four(
        &self,
        connection: &Connection,
        kind: CheckKind,
        content: &str,
    ) -> Result<Said> {
        let scan = format!(
            "CREATE VIRTUAL TABLE temp.fusion_sqlite_terms USING fts4aux(main, {})",
            quoted(&self.name)
        );
        execute(connection, &scan)?;
        let scanned = connection.sql()?.query_row(
            "SELECT count(*) FROM temp.fusion_sqlite_terms WHERE occurrences < 0",
            [],
            |_| Ok(()),
        );
        let scanned = scanned.map_err(|error| Error::from(error).at(connection.path()));
        let is_damage = match scanned {
            Ok(()) => false,
            Err(error) if matches!(error.class(), Class::Index | Class::Corrupt) => true,
            Err(error) => return Err(error),
        };
        if kind == CheckKind::Quick {
            // Comparing is a full check's.
            return Ok(if is_damage { Said::Nothing } else { Said::Sound });
        }
        let rows = self.count(connection)?;
        if is_damage || rows.left_out == Some(0) {
            return Ok(Said::Damaged { left_out: rows.left_out });
        }
        let mut lines = lines_of(rows, content);
        if lines.is_empty() && !(self.has_sizes && self.compare_four(connection, content)?) {
            lines.push(format!("it does not say of its rows what {content} says of them"));
        }
        Ok(if lines.is_empty() { Said::Sound } else { Said::Stale { rows, lines } })
    }

    /// Lets FTS4 compare a copy of the index with the rows that the index holds.
    fn compare_four(&self, connection: &Connection, content: &str) -> Result<bool> {
        let sql = connection.sql()?;
        let mut arguments = columns(sql, &self.name).map_err(Error::from)?;
        arguments.extend(self.arguments.iter().cloned());
        execute(
            connection,
            &format!(
                "CREATE TEMP VIEW fusion_sqlite_rows AS SELECT rowid AS rowid, * \
                 FROM main.{content} WHERE rowid IN (SELECT docid FROM {sizes});
                 CREATE VIRTUAL TABLE temp.fusion_sqlite_copy USING \
                 fts4({arguments}, content='fusion_sqlite_rows');
                 INSERT INTO temp.fusion_sqlite_copy_segments SELECT * FROM {segments};
                 INSERT INTO temp.fusion_sqlite_copy_segdir SELECT * FROM {segdir}",
                content = identifier(content),
                arguments = arguments.join(", "),
                sizes = self.own("docsize"),
                segments = self.own("segments"),
                segdir = self.own("segdir"),
            ),
        )?;
        let ask = "INSERT INTO temp.fusion_sqlite_copy(fusion_sqlite_copy) \
                   VALUES ('integrity-check')";
        agrees(execute(connection, ask))
    }

    /// Lets FTS5 compare all rows of its content with all entries.
    fn ask(&self, connection: &Connection) -> Result<bool> {
        let name = identifier(&self.name);
        let sql = format!("INSERT INTO main.{name}({name}, rank) VALUES ('integrity-check', 1)");
        agrees(execute(connection, &sql))
    }

    /// Compares the rows that an FTS5 index holds, all of which are in its content, with their
    /// text.
    fn compare(&self, connection: &Connection, content: &str) -> Result<bool> {
        let at = |error: rusqlite::Error| Error::from(error).at(connection.path());
        let sql = connection.sql()?;
        execute(
            connection,
            &format!(
                "CREATE VIRTUAL TABLE temp.fusion_sqlite_text USING fts5({}, content='');
                 CREATE VIRTUAL TABLE temp.fusion_sqlite_expected USING \
                 fts5vocab('temp', 'fusion_sqlite_text', 'instance');
                 CREATE VIRTUAL TABLE temp.fusion_sqlite_found USING \
                 fts5vocab('main', {}, 'instance')",
                self.arguments.join(", "),
                quoted(&self.name),
            ),
        )?;
        let columns = columns(sql, &self.name).map_err(at)?;
        let mut expected = Tokens::default();
        let mut totals = Totals::default();
        let held =
            if self.has_sizes { self.own("docsize") } else { "temp.fusion_sqlite_held".to_owned() };
        let mut read = sql
            .prepare(&format!(
                "SELECT {rowid}, {} FROM main.{} WHERE {rowid} IN (SELECT id FROM {held})",
                columns.join(", "),
                identifier(content),
                rowid = identifier(&self.rowid),
            ))
            .map_err(at)?;
        let mut index = sql
            .prepare(&format!(
                "INSERT INTO temp.fusion_sqlite_text(rowid, {}) VALUES (?{})",
                columns.join(", "),
                ", ?".repeat(columns.len())
            ))
            .map_err(at)?;
        let mut rows = read.query([]).map_err(at)?;
        let mut bytes = 0;
        while let Some(row) = rows.next().map_err(at)? {
            let mut values: Vec<Value> = Vec::with_capacity(columns.len() + 1);
            for column in 0..=columns.len() {
                values.push(row.get(column).map_err(at)?);
            }
            bytes += values.iter().map(size).sum::<usize>();
            index.execute(rusqlite::params_from_iter(values)).map_err(at)?;
            if bytes >= PORTION {
                bytes = 0;
                if !self.has_sizes_of_portion(sql).map_err(at)? {
                    return Ok(false);
                }
                expected.add(sql, "fusion_sqlite_expected").map_err(at)?;
                totals.add(&Totals::of(sql, "temp", "fusion_sqlite_text").map_err(at)?);
                sql.execute(
                    "INSERT INTO temp.fusion_sqlite_text(fusion_sqlite_text) VALUES ('delete-all')",
                    [],
                )
                .map_err(at)?;
            }
        }
        if !self.has_sizes_of_portion(sql).map_err(at)? {
            return Ok(false);
        }
        expected.add(sql, "fusion_sqlite_expected").map_err(at)?;
        totals.add(&Totals::of(sql, "temp", "fusion_sqlite_text").map_err(at)?);
        let mut found = Tokens::default();
        found.add(sql, "fusion_sqlite_found").map_err(at)?;
        let stored = Totals::of(sql, "main", &self.name).map_err(at)?;
        Ok(found == expected
            && stored.tokens == totals.tokens
            && (!self.has_sizes || stored.rows == self.rows_with_size(sql).map_err(at)?))
    }

    /// Whether this index has stored the same sizes for the rows of the temporary index.
    fn has_sizes_of_portion(&self, sql: &rusqlite::Connection) -> rusqlite::Result<bool> {
        if !self.has_sizes {
            return Ok(true);
        }
        let sizes = identifier(&format!("{}_docsize", self.name));
        sql.query_row(
            &format!(
                "SELECT NOT EXISTS (SELECT * FROM temp.fusion_sqlite_text_docsize AS expected \
                 LEFT JOIN main.{sizes} AS found USING (id) WHERE found.sz IS NOT expected.sz)"
            ),
            [],
            |row| row.get(0),
        )
    }

    fn rows_with_size(&self, sql: &rusqlite::Connection) -> rusqlite::Result<u64> {
        let sizes = identifier(&format!("{}_docsize", self.name));
        let rows: i64 =
            sql.query_row(&format!("SELECT count(*) FROM main.{sizes}"), [], |row| row.get(0))?;
        Ok(u64::try_from(rows).unwrap_or(0))
    }
}

/// What there is to say about rows that are gone.
fn lines_of(rows: Rows, content: &str) -> Vec<String> {
    match rows.gone {
        0 => Vec::new(),
        1 => vec![format!("it has entries of 1 row that is not in {content}")],
        gone => vec![format!("it has entries of {gone} rows that are not in {content}")],
    }
}

/// Whether a module found its index to agree with the content.
fn agrees(said: Result<()>) -> Result<bool> {
    match said {
        Ok(()) => Ok(true),
        Err(error) if error.class() == Class::Index => Ok(false),
        Err(error) => Err(error),
    }
}

/// The totals that FTS5 stores for an index.
#[derive(Debug, Default)]
struct Totals {
    rows: u64,
    /// By column.
    tokens: Vec<u64>,
}

impl Totals {
    /// The stored totals of the index `name`; zero if it has not stored any.
    fn of(sql: &rusqlite::Connection, schema: &str, name: &str) -> rusqlite::Result<Self> {
        let data = identifier(&format!("{name}_data"));
        let record: Option<Vec<u8>> = sql
            .query_row(
                &format!("SELECT block FROM {schema}.{data} WHERE id = ?"),
                [AVERAGES],
                |row| row.get(0),
            )
            .optional()?;
        let record = record.unwrap_or_default();
        let mut at = 0;
        let mut numbers = std::iter::from_fn(|| {
            let (number, length) = varint(&record, at)?;
            at += length;
            Some(number)
        });
        Ok(Self { rows: numbers.next().unwrap_or(0), tokens: numbers.collect() }.trimmed())
    }

    fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        let columns = self.tokens.len().max(other.tokens.len());
        self.tokens.resize(columns, 0);
        for (sum, tokens) in self.tokens.iter_mut().zip(&other.tokens) {
            *sum = sum.wrapping_add(*tokens);
        }
    }

    /// Without columns at the end that have no tokens: an empty index may leave them out.
    fn trimmed(mut self) -> Self {
        while self.tokens.last() == Some(&0) {
            self.tokens.pop();
        }
        self
    }
}

/// The columns of a table, as identifiers; hidden ones are not among them.
fn columns(sql: &rusqlite::Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = sql.prepare(&format!("PRAGMA main.table_info({})", quoted(table)))?;
    let names = statement.query_map([], |row| row.get::<_, String>(1))?;
    names.map(|name| Ok(identifier(&name?))).collect()
}

fn size(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
        _ => 8,
    }
}

/// A sum over tokens that does not depend on their order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tokens {
    count: u64,
    sum: u64,
}

impl Tokens {
    fn add(&mut self, sql: &rusqlite::Connection, vocabulary: &str) -> rusqlite::Result<()> {
        let mut statement =
            sql.prepare(&format!("SELECT term, doc, col, offset FROM temp.{vocabulary}"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mut hasher = DefaultHasher::new();
            for column in 0..4 {
                match row.get_ref(column)? {
                    ValueRef::Integer(value) => value.hash(&mut hasher),
                    ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.hash(&mut hasher),
                    ValueRef::Null | ValueRef::Real(_) => hasher.write_u8(0),
                }
            }
            self.count += 1;
            self.sum = self.sum.wrapping_add(hasher.finish());
        }
        Ok(())
    }
}

/// Module and arguments of `CREATE VIRTUAL TABLE … USING module(arguments)`, as SQLite's parser
/// splits them: at commas outside of parentheses and quotes.
fn module(sql: &str) -> Option<(&str, Vec<&str>)> {
    let open = positions(sql).find(|(_, depth, c)| *depth == 0 && *c == '(').map(|it| it.0);
    let Some(open) = open else {
        return Some((module_name(sql)?, Vec::new()));
    };
    let close = sql.rfind(')')?;
    let inside = sql.get(open + 1..close)?;
    let mut arguments = Vec::new();
    let mut start = 0;
    for (at, _, _) in positions(inside).filter(|(_, depth, c)| *depth == 0 && *c == ',') {
        arguments.push(inside.get(start..at)?.trim());
        start = at + 1;
    }
    arguments.push(inside.get(start..)?.trim());
    Some((module_name(sql.get(..open)?)?, arguments))
}

/// The last word.
fn module_name(text: &str) -> Option<&str> {
    let name = text.trim_end().rsplit(char::is_whitespace).next()?;
    Some(name.trim_matches(['"', '`', '[', ']', '\'', ';']))
}

/// Characters outside of quotes, each with the parentheses that are open before it.
fn positions(sql: &str) -> impl Iterator<Item = (usize, usize, char)> {
    let mut quote = None;
    let mut depth = 0_usize;
    sql.char_indices().filter_map(move |(at, c)| {
        if let Some(end) = quote {
            // A doubled quote opens the next part of the same text.
            if c == end {
                quote = None;
            }
            return None;
        }
        let before = depth;
        match c {
            '\'' | '"' | '`' => quote = Some(c),
            '[' => quote = Some(']'),
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        Some((at, before, c))
    })
}

fn unquoted(value: &str) -> String {
    let mut characters = value.chars();
    let (first, last) = (characters.next(), characters.next_back());
    let inside = characters.as_str();
    match (first, last) {
        (Some('['), Some(']')) => inside.to_owned(),
        (Some(quote @ ('\'' | '"' | '`')), Some(end)) if quote == end => {
            inside.replace(&format!("{quote}{quote}"), &quote.to_string())
        }
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(sql: &str) -> FullText {
        FullText::of("words", sql).unwrap()
    }

    #[test]
    fn arguments_are_split_as_sqlite_splits_them() {
        let index = index(
            "CREATE VIRTUAL TABLE \"words (1)\" USING FTS5 (text, 'de, tail' UNINDEXED, \
             tokenize = 'unicode61 tokenchars ''(,''', content = \"my logs\", content_rowid=[id], \
             prefix='2,3')",
        );
        assert_eq!(index.content, Content::External("my logs".to_owned()));
        assert_eq!(index.rowid, "id");
        assert_eq!(
            index.arguments,
            ["text", "'de, tail' UNINDEXED", "tokenize = 'unicode61 tokenchars ''(,'''"]
        );
    }

    #[test]
    fn where_the_text_is_is_read_from_the_statement() {
        let content = |sql: &str| index(sql).content;
        let logs = || Content::External("logs".to_owned());
        assert_eq!(content("CREATE VIRTUAL TABLE words USING fts5(text)"), Content::Own);
        assert_eq!(
            content("CREATE VIRTUAL TABLE words USING fts5(text, content='')"),
            Content::None
        );
        assert_eq!(content("CREATE VIRTUAL TABLE words USING fts4(text, content=logs)"), logs());
        assert_eq!(content("CREATE VIRTUAL TABLE words USING fts4(content=\"logs\")"), logs());
        assert_eq!(content("CREATE VIRTUAL TABLE words USING fts3"), Content::Own);
        assert_eq!(FullText::of("words", "CREATE VIRTUAL TABLE words USING rtree(a, b, c)"), None);
    }
}
