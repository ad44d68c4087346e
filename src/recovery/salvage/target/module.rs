//! What a virtual table's module is to a salvage. Pure.

use super::sql::{self, Token, unquoted};
use crate::recovery::salvage::SchemaEntry;

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

    /// Whether what the virtual table's own table of that suffix holds follows from other tables.
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
