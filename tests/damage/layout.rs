//! Which page holds what in a sound file: a reader that trusts what it reads.

use std::collections::BTreeMap;

use rusqlite::Connection;

/// What a page is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Interior,
    Leaf,
    Overflow,
    FreeTrunk,
    FreeLeaf,
    PointerMap,
}

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub role: Role,
    /// The table or index that it belongs to; `sqlite_schema` for the schema; empty for none.
    pub owner: String,
    /// Whether it is its b-tree's root.
    pub root: bool,
}

/// A b-tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    pub name: String,
    pub table: bool,
    pub root: u32,
}

/// A part of a row: bytes on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub page: u32,
    pub start: usize,
    pub length: usize,
}

/// A row: where its cell is, then its overflow pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub pieces: Vec<Piece>,
    /// Where in the first piece the record starts; before it are lengths, child and rowid.
    pub record: usize,
}

/// A sound file's pages, page 1 first, and its rows.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    pub page_size: usize,
    pub pages: Vec<Page>,
    /// `sqlite_schema` first.
    pub trees: Vec<Tree>,
    /// By table, in the order of a scan.
    pub rows: BTreeMap<String, Vec<Place>>,
    /// Free pages that list others, in their order.
    pub trunks: Vec<u32>,
}

impl Layout {
    /// Reads `file`, whose schema `connection` knows.
    pub fn of(file: &[u8], connection: &Connection) -> rusqlite::Result<Self> {
        let page_size = match u16::from_be_bytes([file[16], file[17]]) {
            1 => 65_536,
            size => usize::from(size),
        };
        let unknown = Page { role: Role::FreeLeaf, owner: String::new(), root: false };
        let mut reader = Reader {
            file,
            usable: page_size - usize::from(file[20]),
            layout: Self {
                page_size,
                pages: vec![unknown; file.len() / page_size],
                trees: vec![Tree { name: "sqlite_schema".into(), table: true, root: 1 }],
                ..Self::default()
            },
        };
        let mut schema = connection.prepare(
            "SELECT name, type, rootpage FROM sqlite_schema WHERE rootpage > 0 ORDER BY rowid",
        )?;
        let trees = schema.query_map([], |row| {
            Ok(Tree {
                name: row.get(0)?,
                table: row.get::<_, String>(1)? == "table",
                root: row.get(2)?,
            })
        })?;
        for tree in trees {
            reader.layout.trees.push(tree?);
        }
        for tree in reader.layout.trees.clone() {
            reader.tree(&tree, tree.root);
            reader.page_mut(tree.root).root = true;
        }
        reader.freelist();
        reader.pointer_maps();
        Ok(reader.layout)
    }

    /// The numbers of the pages that `wanted` wants.
    pub fn pages_where(&self, wanted: impl Fn(&Page) -> bool) -> Vec<u32> {
        let numbered = self.pages.iter().zip(1..);
        numbered.filter(|(page, _)| wanted(page)).map(|(_, number)| number).collect()
    }

    /// The leaves that hold rows of tables.
    pub fn row_leaves(&self) -> Vec<u32> {
        let mut pages: Vec<u32> =
            self.rows.values().flatten().map(|row| row.pieces[0].page).collect();
        pages.sort_unstable();
        pages.dedup();
        pages
    }

    /// The table with most rows whose root is not its only page, or the one with most rows.
    pub fn largest_table(&self) -> &str {
        let rows = self.rows.iter().max_by_key(|(name, rows)| {
            (
                self.pages_where(|page| page.owner == **name && page.role == Role::Leaf).len(),
                rows.len(),
            )
        });
        rows.map_or("", |(name, _)| name)
    }

    /// The root of a table or index.
    pub fn root(&self, name: &str) -> Option<u32> {
        self.trees.iter().find(|tree| tree.name == name).map(|tree| tree.root)
    }
}

struct Reader<'a> {
    file: &'a [u8],
    usable: usize,
    layout: Layout,
}

impl Reader<'_> {
    fn page(&self, number: u32) -> &[u8] {
        let size = self.layout.page_size;
        &self.file[(number as usize - 1) * size..][..size]
    }

    fn page_mut(&mut self, number: u32) -> &mut Page {
        &mut self.layout.pages[number as usize - 1]
    }

    fn is(&mut self, number: u32, role: Role, owner: &str) {
        *self.page_mut(number) = Page { role, owner: owner.into(), root: false };
    }

    fn tree(&mut self, tree: &Tree, number: u32) {
        let page = self.page(number).to_vec();
        let start = if number == 1 { 100 } else { 0 };
        let (leaf, index) = match page[start] {
            0x0d => (true, false),
            0x05 => (false, false),
            0x0a => (true, true),
            0x02 => (false, true),
            other => panic!("page {number} of {} has flag {other:#x}", tree.name),
        };
        self.is(number, if leaf { Role::Leaf } else { Role::Interior }, &tree.name);
        let cells = usize::from(be16(&page, start + 3));
        let pointers = start + if leaf { 8 } else { 12 };
        for cell in 0..cells {
            let begin = usize::from(be16(&page, pointers + 2 * cell));
            let mut at = begin;
            if !leaf {
                let child = be32(&page, at);
                self.tree(tree, child);
                at += 4;
            }
            if leaf || index {
                let (payload, width) = varint(&page[at..]);
                at += width;
                if !index {
                    at += varint(&page[at..]).1;
                }
                self.cell(tree, number, &page, begin, at, payload as usize, index);
            }
        }
        if !leaf {
            self.tree(tree, be32(&page, start + 8));
        }
    }

    #[allow(clippy::too_many_arguments, reason = "a cell's coordinates")]
    fn cell(
        &mut self,
        tree: &Tree,
        number: u32,
        page: &[u8],
        begin: usize,
        at: usize,
        payload: usize,
        index: bool,
    ) {
        let most = if index { (self.usable - 12) * 64 / 255 - 23 } else { self.usable - 35 };
        let least = (self.usable - 12) * 32 / 255 - 23;
        let local = if payload <= most {
            payload
        } else {
            let fitting = least + (payload - least) % (self.usable - 4);
            if fitting <= most { fitting } else { least }
        };
        let mut pieces = vec![Piece { page: number, start: begin, length: at + local - begin }];
        let mut left = payload - local;
        let mut next = if left > 0 { be32(page, at + local) } else { 0 };
        while left > 0 {
            self.is(next, Role::Overflow, &tree.name);
            let length = left.min(self.usable - 4);
            pieces.push(Piece { page: next, start: 4, length });
            left -= length;
            next = be32(self.page(next), 0);
        }
        if tree.table && tree.name != "sqlite_schema" {
            let rows = self.layout.rows.entry(tree.name.clone()).or_default();
            rows.push(Place { pieces, record: at - begin });
        }
    }

    fn freelist(&mut self) {
        let mut trunk = be32(self.file, 32);
        while trunk != 0 {
            self.is(trunk, Role::FreeTrunk, "");
            self.layout.trunks.push(trunk);
            trunk = be32(self.page(trunk), 0);
        }
    }

    fn pointer_maps(&mut self) {
        if be32(self.file, 52) == 0 {
            return;
        }
        let every = self.usable / 5 + 1;
        for number in (2..=self.layout.pages.len()).step_by(every) {
            self.is(number as u32, Role::PointerMap, "");
        }
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// A number of four bytes.
pub fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn varint(bytes: &[u8]) -> (u64, usize) {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(8).enumerate() {
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return (value, place + 1);
        }
    }
    (value << 8 | u64::from(bytes[8]), 9)
}
