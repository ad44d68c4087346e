//! R-Trees: their nodes are the data. One whose nodes are damaged is made anew of the entries that
//! are certain; what is not goes to `lost_and_found`, and how much is said.
//!
//! The shadow table `_node` holds pages of cells, each an id and its coordinates; `_rowid` says in
//! which leaf an id is, and holds the auxiliary columns; `_parent` leads from node to node
//! (<https://sqlite.org/rtree.html>, 7.1). Cells of inner nodes look like those of leaves, so an
//! entry is certain where both agree: the cell is in the node that `_rowid` says, or in one that
//! the first node leads to as a leaf while `_rowid` has the id, or has lost entries. A cell outside
//! the box that the node above has for its node is none.
//!
//! Of a geopoly table `_rowid` holds the shapes, which say where the cells are: each shape that is
//! one is an entry.
//!
//! Memory: one node; entries are collected in a temporary table.

use std::iter;

use super::lost_and_found::{LostAndFound, LostRow};
use super::module::Kind;
use super::statement::{Encoding, Statement, quoted};
use crate::engine::{Connection, Error, Result};
use crate::format::Value;

/// The least bytes of a node that SQLite takes: those of a database with pages of 512.
const LEAST_NODE: i64 = 512 - 64;

/// Bytes of a node with the most cells, 51, that SQLite makes, of the smallest kind.
const CELLS_OF_ONE_DIMENSION: i64 = 4 + 51 * 16;

/// The deepest R-Tree that SQLite takes.
const DEEPEST: i64 = 40;

/// Why an entry is in `lost_and_found`.
const UNCERTAIN: &str = "the coordinates of this entry of the R-Tree are lost";

/// What making an R-Tree anew reads and writes.
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

/// What SQLite's own check finds wrong; none if nothing.
///
/// # Errors
/// SQLite's, if it cannot even check.
pub(super) fn check(connection: &Connection, name: &str) -> Result<Option<String>> {
    let verdict: String =
        connection.sql()?.query_row("SELECT rtreecheck('main', ?1)", [name], |row| row.get(0))?;
    Ok((verdict != "ok").then(|| verdict.lines().take(3).collect::<Vec<_>>().join("; ")))
}

impl RTree<'_> {
    /// Makes it anew, in the caller's transaction. Answers how many entries were not certain.
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
            // None is left: an empty one of a size that SQLite takes on any page.
            None => {
                let page: i64 = sql.query_row("PRAGMA page_size", [], |row| row.get(0))?;
                (page - 64).clamp(LEAST_NODE, CELLS_OF_ONE_DIMENSION)
            }
        };
        // SQLite needs a first node even to tell the columns.
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
                // As the record is stored: the rowid's alias is NULL in it.
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

    /// Collects the entries that are certain, in a temporary table: id, coordinates, auxiliary
    /// columns.
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

        // Certain: both say so; or, where there is nothing that only `_rowid` has, the cell is in
        // a node that is certainly a leaf and the id is nowhere else.
        // Nor is one certain whose ends are the wrong way round; the R-Tree would refuse it.
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
        // A leaf by its place under the first node, which alone knows the tree's depth: an entry of
        // `_rowid` with another node is no reason against it, nor is none where some are lost.
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

    /// Drops cells that say nothing, so that they stand in no other's way: the same cell again,
    /// and one outside the box that the node above has for its node (a node's lost end reads as
    /// cells of id 0). A box is believed if most of the node's cells are in it.
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
    // A count that the node has no room for is not to be believed.
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
