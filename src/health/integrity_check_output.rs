//! Parser of the output of SQLite's integrity checks.
//!
//! `PRAGMA quick_check` and `integrity_check` return lines of English text. The texts are those of
//! the SQLite that this package bundles: `sqlite3BtreeIntegrityCheck` for b-trees, the freelist and
//! the pointer map, the `PRAGMA`'s own program for rows and indexes, and `xIntegrity` of each
//! virtual table module. A line identifies a b-tree by its root page.
//!
//! | line | subject |
//! |---|---|
//! | `Tree R page P[ cell C\| right child]: …` | the table or index with root page R |
//! | `Fragmentation of … on page P`, `Multiple uses for byte … of page P` | the b-tree that has page P, which SQLite does not name |
//! | the same, with `ptr map entry` | the index, or the lists of pages where it is a table's |
//! | `Freelist: …`, `Page N: …`, `max rootpage …` | the lists of pages |
//! | `… index I`, `index I stores …` | index I |
//! | `row not in PRIMARY KEY order for T` | table T |
//! | `NULL value in T.C`, `CHECK constraint failed in T`, … | rows that T's constraints forbid |
//! | `… FTSn table S.T…`, `fts5: … table "T"` | the full-text index of T |
//! | `In RTree S.T:` and the lines below | the R-Tree T |
//!
//! A pure function of text; any thread.

use std::collections::HashSet;

use super::finding::Finding;
use super::schema::{SCHEMA_TABLE, Schema};

/// Subject of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// A table's b-tree.
    Table(String),
    /// An index, and its table.
    Index(String, String),
    /// The freelist, or the pointer map.
    Pages,
    /// A page of a b-tree that the line does not identify.
    SomeTree,
    /// A full-text index.
    FullText(String),
    /// Rows that violate constraints of their own table.
    Constraint(String),
    /// SQLite stopped the check: the file is damaged at an unreported place.
    Unplaced,
}

/// A line, its subject, and the page that it mentions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sorted<'a> {
    pub subject: Subject,
    pub page: Option<u32>,
    pub line: &'a str,
}

/// SQLite's text for `SQLITE_CORRUPT`, which takes the place of a line if a check ends early.
const MALFORMED: &str = "database disk image is malformed";

/// Parses one row of a check's output, which may hold several lines. Empty for `ok`.
pub(super) fn sort<'a>(row: &'a str, schema: &Schema) -> Vec<Sorted<'a>> {
    if row == "ok" {
        return Vec::new();
    }
    if let Some(rest) = row.strip_prefix("In RTree ")
        && let Some((name, lines)) = rest.split_once(":\n")
    {
        let name = name.split_once('.').map_or(name, |(_, table)| table);
        return lines
            .lines()
            .map(|line| Sorted { subject: Subject::Table(name.to_owned()), page: None, line })
            .collect();
    }
    row.lines()
        .filter(|line| !line.starts_with("*** in database "))
        .map(|line| one(line, schema))
        .collect()
}

fn one<'a>(line: &'a str, schema: &Schema) -> Sorted<'a> {
    let (subject, page) = subject(line, schema);
    Sorted { subject, page, line }
}

fn subject(line: &str, schema: &Schema) -> (Subject, Option<u32>) {
    let tree = line.strip_prefix("Tree ").map(|rest| (tree(number(rest), schema), rest));
    if line.contains("ptr map entry") || line.contains("Failed to read ptrmap") {
        // Either the table or the index is wrong. A rebuild of the index corrects both cases.
        return match tree {
            Some((index @ Subject::Index(..), rest)) => (index, after(rest, " page ")),
            _ => (Subject::Pages, after(line, "key=")),
        };
    }
    if let Some((tree, rest)) = tree {
        return (tree, after(rest, " page "));
    }
    if line.starts_with("Freelist: ") {
        return (Subject::Pages, after(line, " page "));
    }
    if let Some(rest) = line.strip_prefix("Page ") {
        return (Subject::Pages, number(rest));
    }
    if line.starts_with("Fragmentation of ") || line.starts_with("Multiple uses for byte ") {
        return (Subject::SomeTree, after(line, " page "));
    }
    if line.starts_with("max rootpage ") || line.starts_with("incremental_vacuum enabled ") {
        return (Subject::Pages, None);
    }
    let subject = index(line, schema)
        .or_else(|| constraint(line, schema))
        .or_else(|| full_text(line, schema))
        .unwrap_or(Subject::Unplaced);
    (subject, None)
}

fn tree(root: Option<u32>, schema: &Schema) -> Subject {
    match schema.by_root(root.unwrap_or(0)) {
        Some(object) if object.kind == "index" => {
            Subject::Index(object.name.clone(), object.table.clone())
        }
        Some(object) => Subject::Table(object.name.clone()),
        // SQLite walks the roots of the schema. If one is not in the schema read here, the schema
        // is damaged.
        None => Subject::Table(SCHEMA_TABLE.to_owned()),
    }
}

/// `row N missing from index I` and its kin.
fn index(line: &str, schema: &Schema) -> Option<Subject> {
    const LEADS: [&str; 4] = [
        "wrong # of entries in index ",
        "non-unique entry in index ",
        " missing from index ",
        " values differ from index ",
    ];
    let name = if let Some(rest) = line.strip_prefix("index ") {
        rest.split_once(" stores an imprecise floating-point value for row ").map(|(name, _)| name)
    } else if line.starts_with("rowid not at end-of-record for row ") {
        line.split_once(" of index ").map(|(_, name)| name)
    } else {
        LEADS.iter().find_map(|lead| {
            let (before, name) = line.split_once(lead)?;
            (before.is_empty() || before.starts_with("row ")).then_some(name)
        })
    }?;
    let table = schema.index(name).map_or_else(String::new, |index| index.table.clone());
    Some(Subject::Index(name.to_owned(), table))
}

/// `NULL value in T.C`, `CHECK constraint failed in T`, `row not in PRIMARY KEY order for T`.
fn constraint(line: &str, schema: &Schema) -> Option<Subject> {
    if let Some(table) = line.strip_prefix("row not in PRIMARY KEY order for ") {
        return Some(Subject::Table(table.to_owned()));
    }
    if let Some(table) = line.strip_prefix("CHECK constraint failed in ") {
        return Some(Subject::Constraint(table.to_owned()));
    }
    let (kind, place) = line.split_once(" value in ")?;
    let is_kind = matches!(kind, "NULL" | "NUMERIC" | "TEXT") || kind.starts_with("non-");
    let table = schema.table_leading(place, |rest| rest.starts_with('.'));
    is_kind.then(|| {
        let named = place.split_once('.').map_or(place, |(table, _)| table);
        Subject::Constraint(table.map_or(named, |table| &table.name).to_owned())
    })
}

/// `malformed inverted index for FTS5 table S.T`, `fts5: corruption in table "T"`, and whatever
/// else a virtual table's module says of itself.
fn full_text(line: &str, schema: &Schema) -> Option<Subject> {
    let named = line.split_once(" table main.").map(|(_, rest)| rest);
    if let Some(rest) = named
        && let Some(table) =
            schema.table_leading(rest, |rest| rest.is_empty() || rest.starts_with(": "))
    {
        return Some(Subject::FullText(table.name.clone()));
    }
    schema
        .virtual_tables()
        .filter(|table| line.contains(&format!("\"{}\"", table.name)))
        .max_by_key(|table| table.name.len())
        .map(|table| Subject::FullText(table.name.clone()))
}

/// The number that `text` starts with.
fn number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end)?.parse().ok()
}

/// The number behind the first `lead`.
fn after(text: &str, lead: &str) -> Option<u32> {
    text.split_once(lead).and_then(|(_, rest)| number(rest))
}

/// Collects findings: one for each subject, in the order of their first lines.
#[derive(Debug, Default)]
pub(super) struct Findings {
    found: Vec<Finding>,
    uncomputed: HashSet<String>,
    /// Lines about pages whose b-tree is not known yet.
    of_some_tree: Vec<(u32, String)>,
}

/// How many of SQLite's lines a finding keeps.
const LINES: usize = 100;

impl Findings {
    /// Adds the lines of a row of a check's output. Returns whether SQLite stopped the check there.
    pub fn add(&mut self, row: &str, schema: &Schema) -> bool {
        let mut gave_up = false;
        for sorted in sort(row, schema) {
            if self.is_hearsay(&sorted) {
                continue;
            }
            gave_up |= sorted.subject == Subject::Unplaced && sorted.line == MALFORMED;
            match sorted.subject {
                Subject::Unplaced if sorted.line == MALFORMED => {}
                // An unknown line: the worst is assumed.
                Subject::Unplaced => self.header(sorted.line),
                Subject::SomeTree => {
                    let line = (sorted.page.unwrap_or(0), sorted.line.to_owned());
                    if !self.of_some_tree.contains(&line) {
                        self.of_some_tree.push(line);
                    }
                }
                subject => self.note(subject, sorted.page, sorted.line),
            }
        }
        gave_up
    }

    /// Tables for which computed values and comparisons are ignored, because functions or
    /// collations of the application take part in them.
    pub fn compute_in_vain(&mut self, tables: HashSet<String>) {
        self.uncomputed = tables;
    }

    fn is_hearsay(&self, sorted: &Sorted<'_>) -> bool {
        match &sorted.subject {
            // Neither the walk of a b-tree nor the count of its entries computes values.
            Subject::Index(_, table) => {
                !sorted.line.starts_with("Tree ")
                    && !is_count(sorted.line)
                    && self.uncomputed.contains(table)
            }
            Subject::Constraint(table) => self.uncomputed.contains(table),
            Subject::Table(table) => {
                sorted.line.starts_with("row not in PRIMARY KEY order ")
                    && self.uncomputed.contains(table)
            }
            Subject::Pages | Subject::SomeTree | Subject::FullText(_) | Subject::Unplaced => false,
        }
    }

    /// Adds a line about `subject`.
    pub fn note(&mut self, subject: Subject, page: Option<u32>, line: &str) {
        let new = match subject {
            Subject::Table(table) => {
                Finding::TableDamage { table, pages: Vec::new(), lines: Vec::new() }
            }
            Subject::Index(index, table) => Finding::IndexDamage {
                index,
                table,
                needs_application: false,
                pages: Vec::new(),
                lines: Vec::new(),
            },
            Subject::Pages => Finding::Freelist { pages: Vec::new(), lines: Vec::new() },
            Subject::FullText(table) => {
                Finding::FtsDamage { table, left_out: None, lines: Vec::new() }
            }
            Subject::Constraint(table) => {
                Finding::ConstraintViolations { table, lines: Vec::new() }
            }
            Subject::Unplaced | Subject::SomeTree => Finding::Header { lines: Vec::new() },
        };
        let at = self.found.iter().position(|old| same_subject(old, &new)).unwrap_or_else(|| {
            self.found.push(new);
            self.found.len() - 1
        });
        let Some(finding) = self.found.get_mut(at) else {
            return;
        };
        let (pages, lines) = match finding {
            Finding::TableDamage { pages, lines, .. }
            | Finding::IndexDamage { pages, lines, .. }
            | Finding::Freelist { pages, lines } => (Some(pages), lines),
            Finding::FtsDamage { lines, .. }
            | Finding::ConstraintViolations { lines, .. }
            | Finding::Header { lines } => (None, lines),
            _ => return,
        };
        if let (Some(pages), Some(page)) = (pages, page)
            && !pages.contains(&page)
        {
            pages.push(page);
        }
        if lines.len() < LINES && !lines.iter().any(|old| old == line) {
            lines.push(line.to_owned());
        }
    }

    /// Adds a line to [`Finding::Header`].
    pub fn header(&mut self, line: &str) {
        self.note(Subject::Unplaced, None, line);
    }

    /// Adds a separate finding.
    pub fn push(&mut self, finding: Finding) {
        self.found.push(finding);
    }

    /// Hands each damaged index to `look`: its name, whether only the application can rebuild it,
    /// and its lines.
    pub fn each_index(&mut self, mut look: impl FnMut(&str, &mut bool, &mut Vec<String>)) {
        for finding in &mut self.found {
            if let Finding::IndexDamage { index, needs_application, lines, .. } = finding {
                look(index, needs_application, lines);
            }
        }
    }

    /// Tables against which SQLite says only that a second b-tree leads to one of their pages.
    pub fn contested_tables(&self) -> Vec<String> {
        let tables = self.found.iter().filter_map(|finding| match finding {
            Finding::TableDamage { table, lines, .. } if lines.iter().all(|it| is_contest(it)) => {
                Some(table.clone())
            }
            _ => None,
        });
        tables.collect()
    }

    /// Whether there is a finding about this table's own b-tree.
    pub fn blames_table(&self, name: &str) -> bool {
        self.found
            .iter()
            .any(|finding| matches!(finding, Finding::TableDamage { table, .. } if table == name))
    }

    /// Whether there is a finding about this table's b-tree, or one of its indexes.
    pub fn has_damage_of(&self, name: &str) -> bool {
        self.found.iter().any(|finding| match finding {
            Finding::TableDamage { table, .. } | Finding::IndexDamage { table, .. } => {
                table == name
            }
            _ => false,
        })
    }

    /// Whether an index is damaged.
    pub fn has_index_damage(&self) -> bool {
        self.found.iter().any(|finding| matches!(finding, Finding::IndexDamage { .. }))
    }

    /// Removes the finding of unreferenced pages if an index is damaged: its damaged page pointed
    /// to them. Not if a table is damaged, because they may belong to the table.
    pub fn explain_leaks(&mut self) {
        let leads_nowhere = |finding: &Finding| matches!(finding, Finding::IndexDamage { pages, .. } if !pages.is_empty());
        if self.has_table_damage() || !self.found.iter().any(leads_nowhere) {
            return;
        }
        self.found.retain(|finding| {
            !matches!(finding, Finding::Freelist { lines, .. }
                if lines.iter().all(|line| line.starts_with("Page ") && line.ends_with(": never used")))
        });
    }

    /// Removes and returns the lines about pages of b-trees that they do not identify.
    pub fn take_lines_of_some_tree(&mut self) -> Vec<(u32, String)> {
        std::mem::take(&mut self.of_some_tree)
    }

    /// The table or index with this page, according to the findings so far.
    pub fn subject_of(&self, page: u32) -> Option<Subject> {
        self.found.iter().find_map(|finding| match finding {
            Finding::TableDamage { table, pages, .. } if pages.contains(&page) => {
                Some(Subject::Table(table.clone()))
            }
            Finding::IndexDamage { index, table, pages, .. } if pages.contains(&page) => {
                Some(Subject::Index(index.clone(), table.clone()))
            }
            _ => None,
        })
    }

    /// Removes findings about an index that rest only on its number of entries, if its table has
    /// lost rows: the table is then the cause. Findings from comparisons are kept.
    pub fn acquit_indexes_of_damaged_tables(&mut self) {
        let damaged: HashSet<String> =
            self.uncomputed.iter().filter(|table| self.blames_table(table)).cloned().collect();
        self.found.retain(|finding| match finding {
            Finding::IndexDamage { table, lines, .. } => {
                !damaged.contains(table) || !lines.iter().all(|line| is_count(line))
            }
            _ => true,
        });
    }

    /// Removes the findings about these tables.
    pub fn acquit(&mut self, tables: &[String]) {
        self.found.retain(|finding| {
            !matches!(finding, Finding::TableDamage { table, .. } if tables.contains(table))
        });
    }

    /// Whether a finding is damage.
    pub fn has_damage(&self) -> bool {
        !self.of_some_tree.is_empty() || self.found.iter().any(Finding::is_damage)
    }

    /// Whether a table's rows cannot all be read.
    pub fn has_table_damage(&self) -> bool {
        self.found.iter().any(|finding| {
            matches!(
                finding,
                Finding::TableDamage { .. }
                    | Finding::Header { .. }
                    | Finding::NotADatabase { .. }
                    | Finding::Locked { .. }
            )
        })
    }

    /// Whether `table`'s full-text index was found damaged.
    pub fn has_full_text_damage(&self, name: &str) -> bool {
        self.found
            .iter()
            .any(|finding| matches!(finding, Finding::FtsDamage { table, .. } if table == name))
    }

    /// Removes the findings about `table`'s full-text index.
    pub fn forget_full_text(&mut self, name: &str) {
        self.found.retain(
            |finding| !matches!(finding, Finding::FtsDamage { table, .. } if table == name),
        );
    }

    /// Adds to the damage of `table`'s full-text index how many rows the index leaves out.
    pub fn set_left_out(&mut self, name: &str, rows: Option<u64>) {
        for finding in &mut self.found {
            if let Finding::FtsDamage { table, left_out, .. } = finding
                && table == name
            {
                *left_out = rows;
            }
        }
    }

    /// All findings, with their pages in ascending order.
    pub fn into_vec(mut self) -> Vec<Finding> {
        for finding in &mut self.found {
            if let Finding::TableDamage { pages, .. }
            | Finding::IndexDamage { pages, .. }
            | Finding::Freelist { pages, .. } = finding
            {
                pages.sort_unstable();
            }
        }
        self.found
    }
}

/// Whether a line says that an index has more or fewer entries than its table has rows.
fn is_count(line: &str) -> bool {
    line.starts_with("wrong # of entries ")
}

/// Whether a line says no more than that a second b-tree leads to a page.
fn is_contest(line: &str) -> bool {
    line.starts_with("Tree ") && line.contains(": 2nd reference to page ")
}

fn same_subject(one: &Finding, other: &Finding) -> bool {
    match (one, other) {
        (Finding::TableDamage { table: a, .. }, Finding::TableDamage { table: b, .. })
        | (Finding::IndexDamage { index: a, .. }, Finding::IndexDamage { index: b, .. })
        | (Finding::FtsDamage { table: a, .. }, Finding::FtsDamage { table: b, .. })
        | (
            Finding::ConstraintViolations { table: a, .. },
            Finding::ConstraintViolations { table: b, .. },
        ) => a == b,
        (Finding::Freelist { .. }, Finding::Freelist { .. })
        | (Finding::Header { .. }, Finding::Header { .. }) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::Object;
    use super::*;

    fn schema() -> Schema {
        let object = |kind: &str, name: &str, table: &str, root| Object {
            kind: kind.to_owned(),
            name: name.to_owned(),
            table: table.to_owned(),
            root,
            sql: String::new(),
        };
        Schema::new([
            object("table", "logs", "logs", 2),
            object("table", "logs.old", "logs.old", 3),
            object("index", "by time", "logs", 4),
            object("table", "words", "words", 0),
            object("table", "places", "places", 0),
        ])
    }

    #[test]
    fn every_line_that_sqlite_writes_has_its_subject() {
        let table = |name: &str| Subject::Table(name.to_owned());
        let index = || Subject::Index("by time".to_owned(), "logs".to_owned());
        let text = || Subject::FullText("words".to_owned());
        let rows = |name: &str| Subject::Constraint(name.to_owned());
        let cases = [
            ("Tree 2 page 30: btreeInitPage() returns error code 11", table("logs"), Some(30)),
            ("Tree 2 page 30 cell 4: Rowid 7 out of order", table("logs"), Some(30)),
            ("Tree 3 page 9 right child: Child page depth differs", table("logs.old"), Some(9)),
            ("Tree 4 page 12 cell 0: 2nd reference to page 13", index(), Some(12)),
            ("Tree 1 page 1: free space corruption", table("sqlite_schema"), Some(1)),
            (
                "Tree 2 page 5 cell 1: Bad ptr map entry key=8 expected=(5,2) got=(3,9)",
                Subject::Pages,
                Some(8),
            ),
            (
                "Tree 4 page 5 cell 1: Bad ptr map entry key=8 expected=(5,2) got=(3,9)",
                index(),
                Some(5),
            ),
            ("Failed to read ptrmap key=77", Subject::Pages, Some(77)),
            ("Freelist: size is 3 but should be 4", Subject::Pages, None),
            ("Freelist: freelist leaf count too big on page 6", Subject::Pages, Some(6)),
            ("Page 41: never used", Subject::Pages, Some(41)),
            ("Fragmentation of 3 bytes reported as 0 on page 96", Subject::SomeTree, Some(96)),
            ("Multiple uses for byte 812 of page 97", Subject::SomeTree, Some(97)),
            ("Page 2: pointer map referenced", Subject::Pages, Some(2)),
            ("max rootpage (9) disagrees with header (8)", Subject::Pages, None),
            ("incremental_vacuum enabled with a max rootpage of zero", Subject::Pages, None),
            ("wrong # of entries in index by time", index(), None),
            ("row 12 missing from index by time", index(), None),
            ("row 12 values differ from index by time", index(), None),
            ("rowid not at end-of-record for row 3 of index by time", index(), None),
            ("non-unique entry in index by time", index(), None),
            ("index by time stores an imprecise floating-point value for row 3", index(), None),
            ("row not in PRIMARY KEY order for logs", table("logs"), None),
            ("NULL value in logs.old.text", rows("logs.old"), None),
            ("NUMERIC value in logs.text", rows("logs"), None),
            ("TEXT value in logs.id", rows("logs"), None),
            ("non-INTEGER value in logs.id", rows("logs"), None),
            ("CHECK constraint failed in logs", rows("logs"), None),
            ("malformed inverted index for FTS5 table main.words", text(), None),
            (
                "unable to validate the inverted index for FTS4 table main.words: SQL logic error",
                text(),
                None,
            ),
            ("fts5: corruption found reading blob 10 from table \"words\"", text(), None),
            ("fts5: checksum mismatch for table \"words\"", text(), None),
            ("database disk image is malformed", Subject::Unplaced, None),
        ];
        for (line, subject, page) in cases {
            assert_eq!(sort(line, &schema()), [Sorted { subject, page, line }], "{line}");
        }
    }

    #[test]
    fn a_row_of_several_lines_is_taken_apart() {
        let row =
            "*** in database main ***\nTree 2 page 3: free space corruption\nPage 9: never used";
        let lines: Vec<_> = sort(row, &schema()).into_iter().map(|sorted| sorted.line).collect();
        assert_eq!(lines, ["Tree 2 page 3: free space corruption", "Page 9: never used"]);
        let row = "In RTree main.places:\nNode 4 missing from database";
        let table = Subject::Table("places".to_owned());
        let line = "Node 4 missing from database";
        assert_eq!(sort(row, &schema()), [Sorted { subject: table, page: None, line }]);
        assert_eq!(sort("ok", &schema()), []);
    }

    #[test]
    fn lines_of_one_subject_make_one_finding() {
        let mut findings = Findings::default();
        for page in (1..=300).rev() {
            findings.add(&format!("Tree 2 page {page}: free space corruption"), &schema());
        }
        assert!(findings.add("database disk image is malformed", &schema()));
        let found = findings.into_vec();
        let [Finding::TableDamage { table, pages, lines }] = &found[..] else {
            panic!("{found:?}");
        };
        assert_eq!(table, "logs");
        assert_eq!(*pages, (1..=300).collect::<Vec<_>>());
        assert_eq!(lines.len(), LINES);
    }
}
