//! What a comparison of a repair's result with the original came to, for a program and a person.

use serde::Serialize;

/// How many tables and objects the text names.
const NAMED: usize = 8;

/// How many rowids of missing rows a table's comparison names.
pub(super) const ROWIDS: usize = 100;

/// A repair's result against what SQLite itself can read of the original.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Every version of a row that SQLite reads is kept, and so is every object of the schema.
    pub holds: bool,
    /// Why nothing could be proven; none where something could.
    pub reason: Option<String>,
    /// Where the header is from with which SQLite reads the original with the fewest faults.
    pub header: HeaderFrom,
    /// By table that SQLite can be led to.
    pub tables: Vec<TableComparison>,
    /// Objects of the schema that the result lacks, or has with another text.
    pub objects: Vec<MissingObject>,
    /// All of it for a person.
    pub text: String,
}

/// Where the header is from under which SQLite reads a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HeaderFrom {
    /// The file's own.
    Own,
    /// The one that most of its pages are sound under.
    Pages,
    /// The copy of the schema that was saved when the file was sound.
    Snapshot,
}

/// One table's comparison. A version is a rowid with its values; for a table without rowids, the
/// values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TableComparison {
    /// The table.
    pub table: String,
    /// SQLite reads it to its end, and its check faults neither it nor one of its indexes. Then
    /// every row has to be in the table.
    pub sound: bool,
    /// Versions that SQLite reads of the original.
    pub rows: u64,
    /// Of them, those that are in the table.
    pub in_table: u64,
    /// Of them, those that are in `lost_and_found` only.
    pub in_lost_and_found: u64,
    /// Of them, those that are nowhere.
    pub missing: u64,
    /// Rows in the table of a sound table that SQLite does not read in the original.
    pub invented: u64,
    /// Rowids of missing ones, at most 100.
    pub missing_rowids: Vec<i64>,
}

/// An object of the original's schema that is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MissingObject {
    /// `table`, `index`, `view` or `trigger`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What is wrong with it in the result.
    pub reason: String,
}

impl TableComparison {
    /// Whether all is kept of the table that has to be.
    pub fn holds(&self) -> bool {
        self.missing == 0 && self.invented == 0 && (!self.sound || self.in_table == self.rows)
    }
}

impl Comparison {
    /// A comparison that proves nothing.
    pub(super) fn unproven(reason: &str, header: HeaderFrom) -> Self {
        let reason = Some(reason.to_owned());
        let (tables, objects) = (Vec::new(), Vec::new());
        Self { holds: false, reason, header, tables, objects, text: String::new() }.judged()
    }

    /// The comparison of an original that has no row.
    pub(super) fn of_nothing(header: HeaderFrom) -> Self {
        let (tables, objects) = (Vec::new(), Vec::new());
        Self { holds: true, reason: None, header, tables, objects, text: String::new() }.judged()
    }

    /// The same, with the reasons why objects could not be made: `errors` of a salvage.
    pub(super) fn explained(mut self, errors: &[String]) -> Self {
        for object in &mut self.objects {
            let of = format!("{} {}: ", object.kind, object.name);
            if let Some(error) = errors.iter().find_map(|error| error.strip_prefix(&of)) {
                object.reason = format!("{} ({error})", object.reason);
            }
        }
        self.judged()
    }

    /// Sets [`Self::holds`] and [`Self::text`] by the rest.
    #[must_use]
    pub(super) fn judged(mut self) -> Self {
        self.holds = self.reason.is_none()
            && self.objects.is_empty()
            && self.tables.iter().all(TableComparison::holds);
        self.text = self.written();
        self
    }

    fn written(&self) -> String {
        if let Some(reason) = &self.reason {
            return format!("What the repair would lose could not be proven: {reason}.");
        }
        if self.holds {
            let rows: u64 = self.tables.iter().map(|table| table.rows).sum();
            let kept: u64 = self.tables.iter().map(|table| table.in_lost_and_found).sum();
            let apart = match kept {
                0 => String::new(),
                1 => ", 1 of them in lost_and_found".to_owned(),
                kept => format!(", {kept} of them in lost_and_found"),
            };
            return format!("The repair keeps all {rows} rows that SQLite reads of it{apart}.");
        }
        let mut lines = vec!["The repair would lose what SQLite itself can read:".to_owned()];
        let lacking: Vec<_> = self.tables.iter().filter(|table| !table.holds()).collect();
        for table in lacking.iter().take(NAMED) {
            let TableComparison { table: name, rows, missing, .. } = table;
            lines.push(if table.invented > 0 {
                format!("  {name}: {} rows of the result were never in it", table.invented)
            } else if *missing > 0 {
                format!("  {name}: {missing} of {rows} rows are nowhere in the result")
            } else {
                let apart = rows - table.in_table;
                format!("  {name}: {apart} of {rows} rows of a sound table leave it")
            });
        }
        if lacking.len() > NAMED {
            lines.push(format!("  and {} more tables", lacking.len() - NAMED));
        }
        for MissingObject { kind, name, reason } in self.objects.iter().take(NAMED) {
            lines.push(format!("  {kind} {name}: {reason}"));
        }
        if self.objects.len() > NAMED {
            lines.push(format!("  and {} more objects", self.objects.len() - NAMED));
        }
        lines.join("\n")
    }
}
