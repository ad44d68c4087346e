//! R-Trees with damaged nodes, which are primary data. The R-Tree is created again from the entries
//! that are certain. The other entries go to `lost_and_found`, and their number is reported.
//!
//! The shadow table `_node` holds nodes of cells, each an id and its coordinates. `_rowid` has the
//! leaf of each id, and the auxiliary columns. `_parent` has the parent of each node
//! (<https://sqlite.org/rtree.html>, 7.1). Cells of inner nodes look like those of leaves, so an
//! entry is certain only if two tables agree: its cell is in the node that `_rowid` gives, or in a
//! node that is a leaf of the tree below the first node, and `_rowid` has the id or has lost
//! entries. A cell outside of its node's bounding box is invalid.
//!
//! In a geopoly table `_rowid` has the shapes, from which the coordinates follow: each valid shape
//! is an entry.
//!
//! Memory: one node; entries are collected in a temporary table.

use std::iter;

use super::lost_and_found::{LostAndFound, LostRow};
use super::module::Kind;
use super::statement::{Encoding, Statement, quoted};
use crate::engine::{Connection, Error, Result};
use crate::format::Value;

/// Minimum size of a node in bytes: that of a database with pages of 512 bytes.
const LEAST_NODE: i64 = 512 - 64;

/// Size in bytes of a node with 51 cells, SQLite's maximum, of one dimension.
const CELLS_OF_ONE_DIMENSION: i64 = 4 + 51 * 16;

/// Maximum depth of an R-Tree.
const DEEPEST: i64 = 40;

/// Why an entry is in `lost_and_found`.
const UNCERTAIN: &str = "the coordinates of this entry of the R-Tree are lost";

/// The input of [`RTree::rebuild`].
pub(super) struct RTree<'a> {
    pub(super) connection: &'a Connection,
    pub(super) encoding: Encoding,
    /// The virtual table.
    pub(super) name: &'a str,
    pub(super) kind: Kind,
    pub(super) lost: &'a mut LostAndFound,
    /// Root of its `_rowid` in the damaged file.
    pub(super) root: u32,
}

/// The faults that SQLite's `rtreecheck` reports; `None` if there are none.
///
/// # Errors
/// SQLite's, if the check cannot run.
pub(super) fn check(connection: &Connection, name: &str) -> Result<Option<String>> {
    let verdict: String =
        connection.sql()?.query_row("SELECT rtreecheck('main', ?1)", [name], |row| row.get(0))?;
    Ok((verdict != "ok").then(|| verdict.lines().take(3).collect::<Vec<_>>().join("; ")))
}

impl RTree<'_> {
    /// Creates the R-Tree again, in the caller's transaction. Returns the number of entries that
    /// were not certain.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn rebuild(&mut self) -> Result<u64> {
        let sql = self.connection.sql()?;
        let shadow = |which: &str| quoted(&format!("{}_{which}", self.name));
        let (nodes, rowids, parents) = (shadow("node"), shadow("rowid"), shadow("parent"));
        let columns = |table: &str| {
            let count = "SELECT count(*) FROM pragma_table_info(?1)";
            let columns: i64 = sql.query_row(count, [table], |row| row.get(0))?;
            Ok::<_, Error>(usize::try_from(columns).unwrap_or(0))
        };
        let auxiliary = columns(&format!("{}_rowid", self.name))?.saturating_sub(2);
        let size: Option<i64> = sql.query_row(
            &format!("SELECT max(length(data)) FROM main.{nodes} WHERE typeof(data) = 'blob'"),
            [],
            |row| row.get(0),
        )?;
        let size = match size.filter(|&size| size >= LEAST_NODE) {
            Some(size) => size,
            // No node is left: an empty one gets a size that SQLite accepts with any page size.
            None => {
                let page: i64 = sql.query_row("PRAGMA page_size", [], |row| row.get(0))?;
                (page - 64).clamp(LEAST_NODE, CELLS_OF_ONE_DIMENSION)
            }
        };
        // Without a first node SQLite cannot even list the columns.
        sql.execute(
            &format!(
                "INSERT INTO main.{nodes}(nodeno, data) VALUES (1, zeroblob(?1))
                   ON CONFLICT (nodeno) DO UPDATE SET data = excluded.data
                   WHERE typeof(data) <> 'blob' OR length(data) <> ?1"
            ),
            [size],
        )?;
        let aux: String = (0..auxiliary).map(|at| format!(", a{at}")).collect();
        let into = match self.kind {
            Kind::Plain { integers } => {
                let coordinates = columns(self.name)?.saturating_sub(1 + auxiliary);
                self.certain(coordinates, integers, auxiliary)?;
                quoted(self.name)
            }
            Kind::Polygon => {
                sql.execute_batch(&format!(
                    "CREATE TEMP TABLE entries AS
                       SELECT rowid AS id{aux} FROM main.{rowids} WHERE geopoly_blob(a0) NOT NULL;
                     CREATE INDEX temp.entriesById ON entries(id)"
                ))?;
                let mut names = sql.prepare("SELECT name FROM pragma_table_info(?1)")?;
                let names = names.query_map([self.name], |row| row.get::<_, String>(0))?;
                let mut into = format!("{}(rowid", quoted(self.name));
                for name in names {
                    into += &format!(", {}", quoted(&name?));
                }
                into + ")"
            }
        };
        let root = self.root;
        let mut uncertain = 0;
        let select = format!(
            "SELECT rowid, nodeno{aux} FROM main.{rowids} AS r
              WHERE NOT EXISTS (SELECT 1 FROM temp.entries AS e WHERE e.id = r.rowid)"
        );
        Statement::prepare(self.connection, self.encoding, &select)?.each(
            iter::empty(),
            |row| {
                let Value::Integer(id) = row.value(0) else {
                    return Ok(true);
                };
                // As in the stored record, the rowid alias is NULL.
                let rest = (1..2 + auxiliary).map(|at| row.value(at));
                let fields: Vec<Value<'_>> = iter::once(Value::Null).chain(rest).collect();
                let row =
                    LostRow { root, page: 0, rowid: Some(id), fields: &fields, reason: UNCERTAIN };
                self.lost.add(self.connection, self.encoding, row)?;
                uncertain += 1;
                Ok(true)
            },
        )?;
        sql.execute_batch(&format!(
            "DELETE FROM main.{nodes}; DELETE FROM main.{rowids}; DELETE FROM main.{parents};
             INSERT INTO main.{nodes}(nodeno, data) VALUES (1, zeroblob({size}));
             INSERT INTO main.{into} SELECT * FROM temp.entries;
             DROP TABLE temp.entries"
        ))?;
        Ok(uncertain)
    }

    /// Collects the certain entries in a temporary table: id, coordinates, auxiliary columns.
    fn certain(&self, coordinates: usize, integers: bool, auxiliary: usize) -> Result<()> {
        let sql = self.connection.sql()?;
        let shadow = |which: &str| quoted(&format!("{}_{which}", self.name));
        let (nodes, rowids) = (shadow("node"), shadow("rowid"));
        let list = |count: usize, item: &dyn Fn(usize) -> String| {
            (0..count).map(item).collect::<Vec<_>>().join("")
        };
        let cells = list(coordinates, &|at| format!(", x{at}"));
        let holders = list(coordinates, &|_| ", ?".to_owned());
        sql.execute_batch(&format!("CREATE TEMP TABLE cells(id, node{cells})"))?;
        let prepare = |sql: &str| Statement::prepare(self.connection, self.encoding, sql);
        let mut collect = prepare(&format!("INSERT INTO temp.cells VALUES (?, ?{holders})"))?;
        prepare(&format!("SELECT nodeno, data FROM main.{nodes}"))?.each(iter::empty(), |row| {
            let (Value::Integer(node), Value::Blob(data)) = (row.value(0), row.value(1)) else {
                return Ok(true);
            };
            for (id, bytes) in cells_of(data, coordinates) {
                let coordinates = bytes.chunks_exact(4).map(|bytes| coordinate(bytes, integers));
                let head = [Value::Integer(id), Value::Integer(node)];
                collect.run(head.into_iter().chain(coordinates))?;
            }
            Ok(true)
        })?;

        self.drop_strays(coordinates)?;

        // An entry is certain if `_node` and `_rowid` agree. Without auxiliary columns, which only
        // `_rowid` has, it is also certain if its cell is in a proven leaf and the id is nowhere
        // else. An entry with a minimum above its maximum is not: the R-Tree would refuse it.
        let ordered = list(coordinates / 2, &|at| format!(" AND x{} <= x{}", 2 * at, 2 * at + 1));
        let aux = list(auxiliary, &|at| format!(", a{at}"));
        sql.execute_batch(&format!(
            "CREATE TEMP TABLE entries AS
               SELECT r.rowid AS id{cells}{aux} FROM main.{rowids} AS r JOIN temp.cells AS c
                   ON c.id = r.rowid AND c.node = r.nodeno{ordered}
                GROUP BY r.rowid HAVING count(*) = 1;
             CREATE INDEX temp.entriesById ON entries(id)"
        ))?;
        if auxiliary == 0 {
            sql.execute_batch(&format!(
                "INSERT INTO temp.entries
                   SELECT id{cells} FROM temp.cells AS c
                    WHERE node IN (SELECT r.nodeno FROM main.{rowids} AS r JOIN temp.cells AS c
                                      ON c.id = r.rowid AND c.node = r.nodeno)
                      AND NOT EXISTS (SELECT 1 FROM main.{rowids} AS r WHERE r.rowid = c.id){ordered}
                    GROUP BY id HAVING count(*) = 1"
            ))?;
        }
        // A node is a leaf if its depth below the first node is the tree's depth, which the first
        // node has. Its entries count even if `_rowid` gives another node for the id, or lacks the
        // id after losing entries.
        let first: Option<Vec<u8>> = sql.query_row(
            &format!("SELECT max(data) FROM main.{nodes} WHERE nodeno = 1"),
            [],
            |row| row.get(0),
        )?;
        let depth = match first.as_deref() {
            Some([high, low, ..]) => i64::from(u16::from_be_bytes([*high, *low])),
            _ => DEEPEST + 1,
        };
        if auxiliary == 0 && depth <= DEEPEST {
            sql.execute_batch(&format!(
                "CREATE TEMP TABLE leaves AS
                   WITH RECURSIVE walk(node, level) AS (
                     SELECT 1, 0 UNION
                     SELECT c.id, level + 1 FROM walk JOIN temp.cells AS c ON c.node = walk.node
                      WHERE level < {depth})
                   SELECT DISTINCT node FROM walk WHERE level = {depth};
                 INSERT INTO temp.entries
                   SELECT id{cells} FROM temp.cells AS c
                    WHERE node IN (SELECT node FROM temp.leaves){ordered}
                      AND NOT EXISTS (SELECT 1 FROM temp.entries AS e WHERE e.id = c.id)
                      AND (EXISTS (SELECT 1 FROM main.{rowids} AS r WHERE r.rowid = c.id)
                           OR (SELECT count(*) FROM main.{rowids})
                              < (SELECT count(*) FROM temp.cells
                                  WHERE node IN (SELECT node FROM temp.leaves)))
                    GROUP BY id HAVING count(*) = 1;
                 DROP TABLE temp.leaves"
            ))?;
        }
        sql.execute_batch("DROP TABLE temp.cells")?;
        Ok(())
    }

    /// Drops invalid cells, so that they do not conflict with valid ones: duplicates, and cells
    /// outside of their node's bounding box (the zeroed end of a node reads as cells with id 0). A
    /// bounding box is trusted if it contains most of the node's cells.
    fn drop_strays(&self, coordinates: usize) -> Result<()> {
        let list = |count: usize, item: &dyn Fn(usize) -> String| {
            (0..count).map(item).collect::<Vec<_>>().join("")
        };
        let cells = list(coordinates, &|at| format!(", x{at}"));
        let inside = list(coordinates, &|at| {
            format!(" AND c.x{at} {} b.x{at}", if at % 2 == 0 { ">=" } else { "<=" })
        });
        self.connection.sql()?.execute_batch(&format!(
            "DELETE FROM temp.cells WHERE rowid NOT IN
               (SELECT min(rowid) FROM temp.cells GROUP BY id, node{cells});
             CREATE INDEX temp.cellsById ON cells(id, node);
             CREATE INDEX temp.cellsByNode ON cells(node);
             CREATE TEMP TABLE boxed AS
               SELECT c.rowid AS cell, c.node AS node, max(1{inside}) AS inside
                 FROM temp.cells AS c JOIN main.{parents} AS p ON p.nodeno = c.node
                 JOIN temp.cells AS b ON b.id = c.node AND b.node = p.parentnode
                GROUP BY c.rowid;
             DELETE FROM temp.cells WHERE rowid IN (
               SELECT cell FROM temp.boxed WHERE NOT inside AND node IN
                 (SELECT node FROM temp.boxed GROUP BY node HAVING 2 * sum(inside) > count(*)));
             DROP TABLE temp.boxed",
            parents = quoted(&format!("{}_parent", self.name))
        ))?;
        Ok(())
    }
}

/// The cells of a node: id and coordinates. Bytes 2 and 3 are their number.
fn cells_of(node: &[u8], coordinates: usize) -> impl Iterator<Item = (i64, &[u8])> {
    let count = match node {
        [_, _, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    };
    let cells = node.get(4..).unwrap_or_default().chunks_exact(8 + 4 * coordinates);
    // A count that exceeds the node's size is damaged.
    let believed = if count <= cells.len() { count } else { 0 };
    cells.take(believed).filter_map(|cell| {
        let (id, coordinates) = cell.split_first_chunk::<8>()?;
        Some((i64::from_be_bytes(*id), coordinates))
    })
}

fn coordinate(bytes: &[u8], integers: bool) -> Value<'static> {
    let Some(&bytes) = bytes.first_chunk::<4>() else {
        return Value::Null;
    };
    if integers {
        Value::Integer(i32::from_be_bytes(bytes).into())
    } else {
        Value::Real(f32::from_be_bytes(bytes).into())
    }
}
