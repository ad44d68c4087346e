//! The kinds of virtual table modules that a salvage distinguishes. Pure.

use std::collections::HashSet;

use crate::format::sql::{self, Makes, Token, unquoted};
use crate::recovery::salvage::SchemaEntry;

/// The suffixes of these modules' shadow tables (<https://sqlite.org/vtab.html#shadow_tables>).
const SUFFIXES: [&str; 11] = [
    "data", "idx", "content", "docsize", "config", "segments", "segdir", "stat", "node", "rowid",
    "parent",
];

/// Which tables are those of virtual tables.
pub(super) struct OwnTables(HashSet<String>);

impl OwnTables {
    /// Those of the virtual tables of `schema`.
    pub(super) fn of(schema: &[SchemaEntry]) -> Self {
        let known = schema.iter().filter(|entry| {
            let makes = entry.sql.as_deref().and_then(sql::makes);
            makes == Some(Makes::VirtualTable) && Module::of(entry) != Module::Other
        });
        Self(known.map(|entry| entry.name.to_ascii_lowercase()).collect())
    }

    pub(super) fn contain(&self, table: &str) -> bool {
        table.rsplit_once('_').is_some_and(|(of, suffix)| {
            SUFFIXES.iter().any(|it| it.eq_ignore_ascii_case(suffix))
                && self.0.contains(&of.to_ascii_lowercase())
        })
    }
}

/// A module, as far as it has an index that is looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Module {
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
pub(super) enum Kind {
    /// Coordinates.
    Plain {
        /// 32-bit integers instead of floats.
        integers: bool,
    },
    /// What a polygon's shape says already.
    Polygon,
}

impl Module {
    pub(super) fn of(entry: &SchemaEntry) -> Self {
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

    /// Whether the content of the shadow table with that suffix can be derived from other tables.
    pub(super) fn derives(self, suffix: &str) -> bool {
        matches!(self, Self::FullText { content: true, .. })
            && !suffix.eq_ignore_ascii_case("content")
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
