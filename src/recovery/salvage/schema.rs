//! Finds the schema of a damaged file: in its own b-tree, on orphan pages, in a snapshot.

use super::SchemaSource;
use super::chain::{Chains, Clues, Payload};
use super::fit;
use super::leaf;
use super::pages::Pages;
use super::snapshot::{SchemaEntry, Snapshot};
use super::survey::{Note, Survey};
use super::tree::{Owner, Owners, Walk};
use crate::engine::{Progress, Result};
use crate::format::record::{self, Class};
use crate::format::{PageKind, Value, sql};

/// Maximum number of entries, far above that of real schemas. SQLite takes a minute to make so many
/// tables (four times that for twice as many).
const MOST: usize = 20_000;

/// The schema that was found.
#[derive(Debug, Default)]
pub(super) struct Schema {
    pub(super) entries: Vec<SchemaEntry>,
    pub(super) from: SchemaSource,
    /// The file's own schema table was intact.
    pub(super) whole: bool,
    /// No entry seems to be missing: the database had no other tables.
    pub(super) complete: bool,
}

/// Finds the schema. The owner number of its b-tree is 0.
///
/// If the file and the snapshot have the same schema cookie, the snapshot is the file's schema
/// without damage.
///
/// # Errors
/// `task`'s.
pub(super) fn find(
    pages: &Pages<'_>,
    survey: &Survey,
    owners: &mut Owners,
    header: &Snapshot,
    snapshot: Option<&Snapshot>,
    task: &dyn Progress,
) -> Result<Schema> {
    let encoding = header.encoding;
    let fits = |page: u32, note: &Note| is_schema(note) || fit::most(pages, page, is_schema);
    let walk = Walk { pages, survey, owners, task, number: 0, fits: &fits, descending: &[] };
    let tree = walk.tree(1, true)?;
    let chains = Chains::new(pages, survey, Clues::default());
    let mut reader = Reader { pages, chains, encoding, entries: Vec::new(), whole: true };
    for &page in &tree.pages {
        reader.page(page, owners);
    }
    let whole = reader.whole && tree.lost.is_empty();
    if whole {
        let entries = reader.entries();
        let of_version = |it: &&Snapshot| it.schema_cookie == header.schema_cookie;
        let schema = |entries, from| Schema { entries, from, whole, complete: true };
        return Ok(match snapshot.filter(of_version) {
            Some(snapshot) if snapshot.schema != entries => {
                schema(snapshot.schema.clone(), SchemaSource::Snapshot)
            }
            _ => schema(entries, SchemaSource::File),
        });
    }
    for (page, note) in survey.iter() {
        let orphan = note.is_filled(PageKind::TableLeaf) && owners.get(page) == Owner::None;
        let fits = || is_schema(note) || fit::most(pages, page, is_schema);
        if orphan && fits() && reader.page(page, owners) {
            owners.set(page, Owner::Tree(0));
        }
    }
    let mut entries = reader.entries();
    let mut from = if entries.is_empty() { SchemaSource::None } else { SchemaSource::Orphans };
    for entry in snapshot.into_iter().flat_map(|snapshot| &snapshot.schema) {
        if !entries.iter().any(|found| found.kind == entry.kind && found.name == entry.name) {
            entries.push(entry.clone());
            from = SchemaSource::Snapshot;
        }
    }
    Ok(Schema { entries, from, whole, complete: snapshot.is_some() })
}

/// Whether a page could hold rows of `sqlite_schema`.
fn is_schema(note: &Note) -> bool {
    let seen = |column, class| note.types.seen(column, class);
    let text = |column| {
        ![Class::Null, Class::Integer, Class::Real, Class::Blob]
            .into_iter()
            .any(|class| seen(column, class))
    };
    note.cells == 0
        || note.fields == (5, 5)
            && text(0)
            && text(1)
            && text(2)
            && ![Class::Real, Class::Text, Class::Blob].into_iter().any(|class| seen(3, class))
            && ![Class::Real, Class::Integer, Class::Blob].into_iter().any(|class| seen(4, class))
}

/// Resolves a damaged name by a majority of its copies. A table's entry has the name three times.
/// Any other entry has it twice, and the one in the statement wins.
fn agreeing(mut entry: SchemaEntry) -> SchemaEntry {
    let Some(name) = entry.sql.as_deref().and_then(sql::name_made) else { return entry };
    let said = name.unquoted();
    if matches!(entry.kind.as_str(), "table" | "view") {
        if said == entry.name {
            entry.table = said;
        } else if said == entry.table {
            entry.name = said;
        } else if entry.name == entry.table
            && let Some(sql) = &mut entry.sql
        {
            let quoted = format!("\"{}\"", entry.name.replace('"', "\"\""));
            sql.replace_range(name.start..name.end, &quoted);
        }
    } else {
        entry.name = said;
    }
    entry
}

struct Reader<'a> {
    pages: &'a Pages<'a>,
    chains: Chains<'a>,
    encoding: u8,
    entries: Vec<(i64, SchemaEntry)>,
    /// Every record so far was an entry.
    whole: bool,
}

impl Reader<'_> {
    /// The entries by rowid, each object once.
    fn entries(&mut self) -> Vec<SchemaEntry> {
        let mut found = std::mem::take(&mut self.entries);
        found.sort_by_key(|(rowid, _)| *rowid);
        let mut entries: Vec<SchemaEntry> = Vec::with_capacity(found.len());
        let mut names = std::collections::HashSet::new();
        for (_, entry) in found {
            if names.insert((entry.kind.clone(), entry.name.clone())) {
                entries.push(entry);
            }
        }
        entries
    }

    /// Reads a page's entries. Returns whether all of its records are entries.
    fn page(&mut self, number: u32, owners: &Owners) -> bool {
        let usable = self.pages.layout.usable;
        let Some(bytes) = self.pages.read(number) else { return false };
        let Some(page) = leaf::open(&bytes, usable, number == 1) else { return false };
        let found = leaf::cells(&page);
        let mut all = found.sound;
        let mut payload = Vec::new();
        for cell in &found.cells {
            let local = if cell.overflow == 0 {
                cell.local
            } else if self.chains.payload(cell, owners, &mut payload) != Payload::Broken {
                &payload
            } else {
                all = false;
                continue;
            };
            let mut fields = Vec::new();
            let entry = record::read(local, &mut fields).then(|| self.entry(&fields)).flatten();
            match entry {
                Some(entry) if self.entries.len() < MOST => self.entries.push((cell.rowid, entry)),
                _ => all = false,
            }
        }
        self.whole &= all;
        all
    }

    /// A record as a schema entry, if SQLite could have written it.
    fn entry(&self, fields: &[Value<'_>]) -> Option<SchemaEntry> {
        let &[kind, name, table, root, sql] = fields else { return None };
        // A damaged serial type can make text a BLOB with the same bytes.
        let text = |value| match value {
            Value::Text(bytes) | Value::Blob(bytes) => Some(self.text(bytes)),
            _ => None,
        };
        let (kind, name, table) = (text(kind)?, text(name)?, text(table)?);
        let root = match root {
            Value::Integer(root) => u32::try_from(root).ok()?,
            Value::Null => 0,
            _ => return None,
        };
        let sql = match sql {
            Value::Null => None,
            sql => Some(text(sql)?),
        };
        let created = sql
            .as_ref()
            .is_none_or(|sql| sql.get(..6).is_some_and(|word| word.eq_ignore_ascii_case("create")));
        let plausible = match kind.as_str() {
            "table" => sql.is_some(),
            "index" => root != 0,
            "view" | "trigger" => root == 0 && sql.is_some(),
            _ => false,
        };
        let entry = SchemaEntry { kind, name, table, root, sql };
        (plausible && created).then(|| agreeing(entry))
    }

    /// Decodes text, with U+FFFD in place of damaged characters. A damaged type name is better than
    /// no table.
    fn text(&self, bytes: &[u8]) -> String {
        let units = |of: fn([u8; 2]) -> u16| {
            let units = bytes.chunks_exact(2).map(|pair| of(pair.try_into().unwrap_or_default()));
            String::from_utf16_lossy(&units.collect::<Vec<_>>())
        };
        match self.encoding {
            2 => units(u16::from_le_bytes),
            3 => units(u16::from_be_bytes),
            _ => String::from_utf8_lossy(bytes).into_owned(),
        }
    }
}
