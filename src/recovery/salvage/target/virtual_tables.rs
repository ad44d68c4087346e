//! Virtual tables: put back without running their modules, whose shadow tables are there already;
//! afterwards what an index can be derived from anew is.
//!
//! | module | its index |
//! |---|---|
//! | `fts5`, `fts4`, `fts3` | rebuilt from the content, its own or another table's; one without content (`content=''`) is kept as it was salvaged |
//! | `rtree`, `rtree_i32` | its nodes are the data: checked, and made anew of what is certain |
//! | `geopoly` | checked, and said if it is damaged |
//! | others | kept as they were salvaged |

use std::path::Path;
use std::time::Duration;

use rusqlite::{OpenFlags, ffi};

use super::lost_and_found::LostAndFound;
use super::rtree::RTree;
use super::schema;
use super::sql::{self, Makes, Token, unquoted};
use super::statement::{Encoding, quoted};
use super::watch::watched;
use crate::engine::{Connection, Error, Result, Stage, Task};
use crate::recovery::salvage::SchemaEntry;

/// The virtual tables of `schema`.
fn among(schema: &[SchemaEntry]) -> impl Iterator<Item = &SchemaEntry> {
    schema.iter().filter(|entry| {
        entry.kind == "table"
            && entry.sql.as_deref().and_then(sql::makes) == Some(Makes::VirtualTable)
    })
}

/// Writes the virtual tables into the schema and answers them; what cannot be put back is said in
/// `errors`. They exist for connections that are opened afterwards.
///
/// # Errors
/// Those of writing the file.
pub(super) fn put_back<'s>(
    connection: &Connection,
    schema: &'s [SchemaEntry],
    errors: &mut Vec<String>,
) -> Result<Vec<&'s SchemaEntry>> {
    let mut put_back = Vec::new();
    for entry in among(schema) {
        if let Err(error) = is_readable(entry) {
            errors.push(format!("table {}: {}", entry.name, error.message));
            continue;
        }
        let sql = connection.sql()?;
        let taken: bool = sql.query_row(
            "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema
                             WHERE name = ?1 COLLATE NOCASE AND type IN ('table', 'index', 'view'))",
            [&entry.name],
            |row| row.get(0),
        )?;
        if taken {
            errors.push(format!("table {}: there is one of that name", entry.name));
            continue;
        }
        schema::writable(connection, || {
            sql.execute(
                "INSERT INTO main.sqlite_schema(type, name, tbl_name, rootpage, sql)
                 VALUES ('table', ?1, ?1, 0, ?2)",
                [Some(&entry.name), entry.sql.as_ref()],
            )?;
            Ok(())
        })?;
        put_back.push(entry);
    }
    Ok(put_back)
}

/// Whether SQLite can read the entry in a schema, as one statement that makes this table: one that
/// it cannot read makes the whole file unreadable.
fn is_readable(entry: &SchemaEntry) -> Result<()> {
    let scratch = Connection::open(Path::new(":memory:"), OpenFlags::default(), Duration::ZERO)?;
    let sql = scratch.sql()?;
    schema::writable(&scratch, || {
        sql.execute(
            "INSERT INTO sqlite_schema(type, name, tbl_name, rootpage, sql)
             VALUES ('table', ?1, ?1, 0, ?2)",
            [Some(&entry.name), entry.sql.as_ref()],
        )?;
        Ok(())
    })?;
    let found: i64 = sql.query_row(
        "SELECT count(*) FROM pragma_table_list
          WHERE schema = 'main' AND type = 'virtual' AND name = ?1",
        [&entry.name],
        |row| row.get(0),
    )?;
    if found == 1 {
        Ok(())
    } else {
        Err(Error::sqlite(ffi::SQLITE_ERROR, "the statement is another's"))
    }
}

/// What [`derive`] did.
#[derive(Debug, Default)]
pub(super) struct Derived {
    pub(super) rebuilt: Vec<String>,
    pub(super) errors: Vec<String>,
}

/// Rebuilds the indexes that can be derived from content, and looks at those that cannot. The
/// connection was opened after [`put_back`]'s was closed.
///
/// # Errors
/// Those of writing the file; `task`'s.
pub(super) fn derive(
    connection: &Connection,
    encoding: Encoding,
    schema: &[SchemaEntry],
    tables: &[&SchemaEntry],
    lost: &mut LostAndFound,
    task: &dyn Task,
) -> Result<Derived> {
    let mut derived = Derived::default();
    let total = tables.len() as u64;
    for (done, &entry) in (0..).zip(tables) {
        task.stage(Stage { name: "full-text", done, total });
        let outcome = watched(connection, task, || match Module::of(entry) {
            Module::FullText { content: true, five } => {
                let name = quoted(&entry.name);
                let mut rebuild = format!("INSERT INTO main.{name}({name}) VALUES ('rebuild')");
                if five {
                    // FTS5 does not open a table without the version of its index's format, not
                    // even to rebuild it. The rebuilt index has the one that is written here.
                    let config = quoted(&format!("{}_config", entry.name));
                    rebuild = format!(
                        "INSERT OR REPLACE INTO main.{config}(k, v) VALUES ('version', 4); {rebuild}"
                    );
                }
                let sql = connection.sql()?;
                atomically(connection, || Ok(sql.execute_batch(&rebuild)?))?;
                derived.rebuilt.push(entry.name.clone());
                Ok(())
            }
            Module::RTree { kind } => {
                let Err(error) = RTree::check(connection, &entry.name).and_then(|wrong| {
                    wrong
                        .map_or(Ok(()), |wrong| Err(Error::sqlite(ffi::SQLITE_CORRUPT_VTAB, wrong)))
                }) else {
                    return Ok(());
                };
                let (Kind::Plain { integers }, true) = (kind, schema::is_of_statement(&error))
                else {
                    return Err(error);
                };
                let rowids = format!("{}_rowid", entry.name);
                let root = schema.iter().find(|it| it.name == rowids).map_or(0, |it| it.root);
                let name = &entry.name;
                let uncertain = lost.in_transaction(|lost| {
                    let mut tree = RTree { connection, encoding, name, integers, lost, root };
                    atomically(connection, || tree.rebuild())
                })?;
                derived.rebuilt.push(entry.name.clone());
                derived.errors.push(format!(
                    "table {name}: its nodes were damaged ({}); {uncertain} of its entries have \
                     lost their coordinates",
                    error.message
                ));
                Ok(())
            }
            Module::FullText { content: false, .. } | Module::Other => Ok(()),
        });
        match outcome {
            Err(error) if schema::is_of_statement(&error) => {
                derived.errors.push(format!("table {}: {}", entry.name, error.message));
            }
            outcome => outcome?,
        }
    }
    task.stage(Stage { name: "full-text", done: total, total });
    Ok(derived)
}

/// Runs `work` in a transaction of its own.
fn atomically<R>(connection: &Connection, work: impl FnOnce() -> Result<R>) -> Result<R> {
    let sql = connection.sql()?;
    sql.execute_batch("BEGIN IMMEDIATE")?;
    match work() {
        Ok(done) => {
            sql.execute_batch("COMMIT")?;
            Ok(done)
        }
        Err(error) => {
            if !connection.is_autocommit() {
                sql.execute_batch("ROLLBACK")?;
            }
            Err(error)
        }
    }
}

/// What a virtual table's module is to a salvage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Module {
    FullText {
        /// Whether there is content to rebuild the index from.
        content: bool,
        /// It is an FTS5 table.
        five: bool,
    },
    RTree {
        kind: Kind,
    },
    Other,
}

/// What an R-Tree's cells hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Coordinates.
    Plain {
        /// 32-bit integers instead of floats.
        integers: bool,
    },
    /// What a polygon's shape says already.
    Polygon,
}

impl Module {
    fn of(entry: &SchemaEntry) -> Self {
        let text = entry.sql.as_deref().unwrap_or_default();
        let mut tokens = sql::tokens(text).skip_while(|token| !token.is("USING")).skip(1);
        let Some(module) = tokens.next() else {
            return Self::Other;
        };
        let module = unquoted(module.text).to_ascii_lowercase();
        match module.as_str() {
            "fts3" | "fts4" | "fts5" => {
                Self::FullText { content: !is_contentless(tokens), five: module == "fts5" }
            }
            "rtree" => Self::RTree { kind: Kind::Plain { integers: false } },
            "rtree_i32" => Self::RTree { kind: Kind::Plain { integers: true } },
            "geopoly" => Self::RTree { kind: Kind::Polygon },
            _ => Self::Other,
        }
    }
}

/// Whether the arguments of a full-text table have `content=` with nothing in it.
fn is_contentless<'a>(tokens: impl Iterator<Item = Token<'a>>) -> bool {
    let tokens: Vec<&str> = tokens.map(|token| token.text).collect();
    tokens.windows(4).any(|window| match window {
        ["(" | ",", option, "=", value] => {
            option.eq_ignore_ascii_case("content")
                && (unquoted(value).is_empty() || matches!(*value, "," | ")"))
        }
        _ => false,
    })
}
