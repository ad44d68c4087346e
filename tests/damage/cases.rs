//! The damage.

use std::collections::{BTreeMap, HashMap};

use super::layout::{Page, Role, be32};
use super::random::Random;
use super::sound::Sound;
use super::truth::Rows;

/// A kind of damage.
pub struct Case {
    pub name: &'static str,
    /// Does it, or answers that the file has nothing that it could be done to.
    apply: fn(&mut Damage<'_>) -> bool,
    /// What the salvager is given, and must reach.
    pub wanted: Wanted,
}

/// What is wanted of a salvage beyond being no worse than `.recover`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    NoWorse,
    /// Every row that is still in the file.
    Everything,
    /// 99 % of the rows that are still in the file.
    Most,
    /// The same where there is a snapshot of the schema.
    MostBySnapshot,
}

impl Wanted {
    /// Whether the salvage is tried without and with a snapshot; otherwise without only, as
    /// `.recover` has none either.
    pub fn snapshots(self) -> &'static [bool] {
        if self == MostBySnapshot { &[false, true] } else { &[false] }
    }
}

use Wanted::{Everything, Most, MostBySnapshot, NoWorse};

/// Every kind.
pub const CASES: &[Case] = &[
    case("sound", |_| true, Everything),
    case("20 pages zeroed", |damage| damage.zero_random(20), NoWorse),
    case("64 tail pages zeroed", |damage| damage.zero_tail(64), NoWorse),
    case("page headers flipped", |damage| damage.flip_headers(), NoWorse),
    case("cell pointers flipped", |damage| damage.flip_pointers(), NoWorse),
    case("payloads flipped", |damage| damage.flip_payloads(), NoWorse),
    case("bits flipped anywhere", |damage| damage.flip_anywhere(), NoWorse),
    case("10 page pairs swapped", |damage| damage.swap_pairs(10), NoWorse),
    case("10 pages over others", |damage| damage.duplicate(10), NoWorse),
    case("truncated to 60 %", |damage| damage.truncate(60), NoWorse),
    case("page 1 zeroed", |damage| damage.zero_first(), MostBySnapshot),
    case("page 1 overwritten", |damage| damage.overwrite_first(), MostBySnapshot),
    case("schema root lost", |damage| damage.zero_schema_root(), MostBySnapshot),
    case("schema leaf lost", |damage| damage.zero_schema_leaf(), MostBySnapshot),
    case("table root zeroed", |damage| damage.zero_table_root(), Most),
    case("table root overwritten", |damage| damage.overwrite_table_root(), Most),
    case("index root zeroed", |damage| damage.zero_index_root(), Everything),
    case("pages torn", |damage| damage.tear(), NoWorse),
    case("overflow link zeroed", |damage| damage.overflow_link(|_, _| 0), NoWorse),
    case("overflow link into another chain", |damage| damage.overflow_crossed(), NoWorse),
    case(
        "overflow link in a loop",
        |damage| damage.overflow_link(|chain, link| chain[link]),
        NoWorse,
    ),
    case("freelist in a loop", |damage| damage.freelist_loop(), Everything),
    case("freelist of pages in use", |damage| damage.freelist_lies(), Everything),
    case("WAL with pages of other places", |damage| damage.misplaced_wal(), NoWorse),
    case("WAL of another file", |damage| damage.foreign_wal(), NoWorse),
    case("WAL cut in a frame", |damage| damage.cut_wal(), Everything),
    case("checkpoint lost", |damage| damage.lose_checkpoint(0), Everything),
    case("checkpoint half done", |damage| damage.lose_checkpoint(50), Everything),
    case("everything, 1", |damage| damage.everything(), NoWorse),
    case("everything, 2", |damage| damage.everything(), NoWorse),
    case("everything, 3", |damage| damage.everything(), NoWorse),
];

const fn case(name: &'static str, apply: fn(&mut Damage<'_>) -> bool, wanted: Wanted) -> Case {
    Case { name, apply, wanted }
}

/// A damaged database, and what is true of it.
pub struct Damaged<'a> {
    pub file: Vec<u8>,
    pub wal: Option<Vec<u8>>,
    /// The rows that the database had.
    pub rows: &'a Rows,
    /// Its AUTOINCREMENT sequences.
    pub sequences: &'a [(String, i64)],
    /// How many of the rows are still there, byte for byte, wherever that is.
    pub in_file: BTreeMap<String, usize>,
    /// Whether bytes of rows were changed (or overflow pages put in other places, which is the
    /// same to the row), so that false rows cannot be told from true ones by the file alone.
    pub payload_changed: bool,
    /// Whether the header and the schema are as they were.
    pub schema_intact: bool,
    /// What was done, for a person.
    pub done: Vec<String>,
}

impl Case {
    /// Damages `sound`; none where it has nothing to be damaged so. `seed` picks the places.
    pub fn damage<'a>(&self, sound: &'a Sound, seed: u64) -> Option<Damaged<'a>> {
        let size = sound.page_size();
        let mut damage = Damage {
            sound,
            random: Random::named(&format!("{} {}", sound.name, self.name), seed),
            pages: sound.file.chunks(size).map(<[u8]>::to_vec).collect(),
            from: (1..=(sound.file.len() / size) as u32).collect(),
            wal: None,
            rows: &sound.rows,
            sequences: &sound.sequences,
            intact: false,
            other_schema: false,
            payload_changed: false,
            done: Vec::new(),
        };
        (self.apply)(&mut damage).then(|| damage.finish())
    }
}

/// A damage being done.
struct Damage<'a> {
    sound: &'a Sound,
    random: Random,
    pages: Vec<Vec<u8>>,
    /// Whose content each page has, with or without changes since; 0 for nobody's.
    from: Vec<u32>,
    wal: Option<Vec<u8>>,
    rows: &'a Rows,
    sequences: &'a [(String, i64)],
    /// Whether every row is there, whatever [`Self::pages`] say: in the WAL.
    intact: bool,
    /// Whether the WAL has a schema of its own.
    other_schema: bool,
    payload_changed: bool,
    done: Vec<String>,
}

impl<'a> Damage<'a> {
    fn finish(self) -> Damaged<'a> {
        let schema_pages = self.sound.layout.pages_where(|page| page.owner == "sqlite_schema");
        let schema_intact = self.intact
            || schema_pages.iter().all(|&page| {
                let number = page as usize - 1;
                // The freelist's fields of the header are not the schema's.
                let own = |bytes: &[u8]| [&bytes[..32], &bytes[40..]].concat();
                self.pages.get(number).is_some_and(|now| own(now) == own(self.original(page)))
            });
        Damaged {
            in_file: self.rows_in_file(),
            file: self.pages.concat(),
            wal: self.wal,
            rows: self.rows,
            sequences: self.sequences,
            payload_changed: self.payload_changed,
            schema_intact: schema_intact && !self.other_schema,
            done: self.done,
        }
    }

    fn rows_in_file(&self) -> BTreeMap<String, usize> {
        if self.intact {
            return self.rows.iter().map(|(table, rows)| (table.clone(), rows.len())).collect();
        }
        let mut copies: HashMap<u32, Vec<usize>> = HashMap::new();
        for (place, &from) in self.from.iter().enumerate() {
            copies.entry(from).or_default().push(place);
        }
        let mut counts = BTreeMap::new();
        for (table, rows) in &self.sound.layout.rows {
            if !self.rows.contains_key(table) {
                continue;
            }
            let kept = rows.iter().filter(|row| {
                row.pieces.iter().all(|piece| {
                    let range = piece.start..piece.start + piece.length;
                    let was = &self.original(piece.page)[range.clone()];
                    let copies = copies.get(&piece.page).into_iter().flatten();
                    copies.clone().any(|&place| &self.pages[place][range.clone()] == was)
                })
            });
            counts.insert(table.clone(), kept.count());
        }
        // A virtual table's rows are in tables of its own, whose rows are not its: all or none.
        for (table, rows) in
            self.rows.iter().filter(|(table, _)| !self.sound.layout.rows.contains_key(*table))
        {
            let own = format!("{table}_");
            let whole = self.pages_where(|page| page.owner.starts_with(&own)).iter().all(|&page| {
                copies
                    .get(&page)
                    .into_iter()
                    .flatten()
                    .any(|&place| self.pages[place] == self.original(page))
            });
            counts.insert(table.clone(), if whole { rows.len() } else { 0 });
        }
        counts
    }

    fn original(&self, page: u32) -> &'a [u8] {
        let size = self.sound.page_size();
        &self.sound.file[(page as usize - 1) * size..][..size]
    }

    fn pages_where(&self, wanted: impl Fn(&Page) -> bool) -> Vec<u32> {
        self.sound.layout.pages_where(wanted)
    }

    fn page(&mut self, number: u32) -> &mut Vec<u8> {
        &mut self.pages[number as usize - 1]
    }

    fn say(&mut self, what: String) {
        self.done.push(what);
    }

    fn zero(&mut self, number: u32) {
        self.page(number).fill(0);
        self.from[number as usize - 1] = 0;
        self.say(format!("zeroed {number}"));
    }

    /// The content of an overflow page says nothing of whose it is.
    fn changes_payload(&mut self, pages: &[u32]) {
        let pages = pages.iter().map(|&page| &self.sound.layout.pages[page as usize - 1]);
        self.payload_changed |= pages.clone().any(|page| page.role == Role::Overflow);
    }

    fn copy(&mut self, from: u32, to: u32) {
        self.changes_payload(&[to]);
        self.pages[to as usize - 1] = self.pages[from as usize - 1].clone();
        self.from[to as usize - 1] = self.from[from as usize - 1];
        self.say(format!("{from} over {to}"));
    }

    fn flip(&mut self, number: u32, byte: usize) {
        let bit = self.random.below(8);
        self.page(number)[byte] ^= 1 << bit;
        self.say(format!("page {number} byte {byte} bit {bit} flipped"));
    }

    /// Pages but the first, at most an eighth of the file, so that there is something left.
    fn some_pages(&mut self, count: usize) -> Vec<u32> {
        let all: Vec<u32> = (2..=self.pages.len() as u32).collect();
        let count = count.min(all.len() / 8).max(1);
        self.random.sample(&all, count)
    }

    fn some_leaves(&mut self, count: usize) -> Vec<u32> {
        let all = self.pages_where(|page| page.role == Role::Leaf && page.owner != "sqlite_schema");
        let count = count.min(all.len() / 8).max(1);
        self.random.sample(&all, count)
    }

    fn zero_random(&mut self, count: usize) -> bool {
        for page in self.some_pages(count) {
            self.zero(page);
        }
        true
    }

    fn zero_tail(&mut self, count: usize) -> bool {
        let pages = self.pages.len() as u32;
        let count = (count as u32).min(pages / 4).max(1);
        for page in pages - count + 1..=pages {
            self.zero(page);
        }
        true
    }

    fn flip_headers(&mut self) -> bool {
        for page in self.some_leaves(10) {
            let byte = self.random.below(8);
            self.flip(page, byte);
        }
        true
    }

    fn flip_pointers(&mut self) -> bool {
        for page in self.some_leaves(10) {
            let cells =
                usize::from(u16::from_be_bytes([self.original(page)[3], self.original(page)[4]]));
            if cells > 0 {
                let byte = 8 + self.random.below(2 * cells);
                self.flip(page, byte);
            }
        }
        true
    }

    fn flip_payloads(&mut self) -> bool {
        let rows: Vec<_> = self.sound.layout.rows.values().flatten().cloned().collect();
        for row in self.random.sample(&rows, 20) {
            let piece = row.pieces[self.random.below(row.pieces.len())];
            let skipped = if piece == row.pieces[0] { row.record } else { 0 };
            if piece.length > skipped {
                let byte = piece.start + skipped + self.random.below(piece.length - skipped);
                self.flip(piece.page, byte);
            }
        }
        self.payload_changed = true;
        true
    }

    fn flip_anywhere(&mut self) -> bool {
        for _ in 0..40 {
            let page = 1 + self.random.below(self.pages.len()) as u32;
            let start = if page == 1 { 100 } else { 0 };
            let byte = start + self.random.below(self.sound.page_size() - start);
            self.flip(page, byte);
        }
        self.payload_changed = true;
        true
    }

    fn swap_pairs(&mut self, count: usize) -> bool {
        let pages = self.some_pages(2 * count);
        for pair in pages.chunks_exact(2) {
            self.changes_payload(pair);
            let (a, b) = (pair[0] as usize - 1, pair[1] as usize - 1);
            self.pages.swap(a, b);
            self.from.swap(a, b);
            self.say(format!("{} and {} swapped", pair[0], pair[1]));
        }
        pages.len() >= 2
    }

    fn duplicate(&mut self, count: usize) -> bool {
        let pages = self.some_pages(2 * count);
        for pair in pages.chunks_exact(2) {
            self.copy(pair[0], pair[1]);
        }
        pages.len() >= 2
    }

    fn truncate(&mut self, percent: usize) -> bool {
        let pages = self.pages.len() * percent / 100;
        self.pages.truncate(pages);
        self.from.truncate(pages);
        self.say(format!("{pages} pages left"));
        true
    }

    fn zero_first(&mut self) -> bool {
        self.zero(1);
        true
    }

    fn overwrite_first(&mut self) -> bool {
        let leaves = self.sound.layout.row_leaves();
        let leaf = *self.random.pick(&leaves);
        self.copy(leaf, 1);
        true
    }

    fn zero_schema_root(&mut self) -> bool {
        self.page(1)[100..].fill(0);
        self.say("page 1 zeroed behind the file's header".into());
        true
    }

    fn zero_schema_leaf(&mut self) -> bool {
        let leaves = self.pages_where(|page| {
            page.owner == "sqlite_schema" && page.role == Role::Leaf && !page.root
        });
        if leaves.is_empty() {
            return false;
        }
        let leaf = *self.random.pick(&leaves);
        self.zero(leaf);
        true
    }

    fn table_root(&self) -> Option<u32> {
        let layout = &self.sound.layout;
        let root = layout.root(layout.largest_table())?;
        (layout.pages[root as usize - 1].role == Role::Interior).then_some(root)
    }

    fn zero_table_root(&mut self) -> bool {
        let Some(root) = self.table_root() else { return false };
        self.zero(root);
        true
    }

    fn overwrite_table_root(&mut self) -> bool {
        let Some(root) = self.table_root() else { return false };
        let owner = self.sound.layout.pages[root as usize - 1].owner.clone();
        let others =
            self.pages_where(|page| page.role == Role::Leaf && page.owner != owner && !page.root);
        if others.is_empty() {
            return false;
        }
        let other = *self.random.pick(&others);
        self.copy(other, root);
        true
    }

    fn zero_index_root(&mut self) -> bool {
        let trees = self.sound.layout.trees.iter().filter(|tree| !tree.table);
        let roots: Vec<u32> = trees.map(|tree| tree.root).collect();
        if roots.is_empty() {
            return false;
        }
        let root = *self.random.pick(&roots);
        self.zero(root);
        true
    }

    fn tear(&mut self) -> bool {
        let size = self.sound.page_size();
        let changed: Vec<u32> = (2..=(self.sound.earlier.len() / size) as u32)
            .filter(|&page| self.earlier(page) != self.original(page))
            .filter(|&page| self.sound.layout.pages[page as usize - 1].role != Role::PointerMap)
            .collect();
        for page in self.random.sample(&changed, 5) {
            let half = (size / 2).max(256);
            let earlier = self.earlier(page)[half..].to_vec();
            self.page(page)[half..].copy_from_slice(&earlier);
            self.say(format!("page {page} torn at {half}"));
        }
        // A row that lies across the tear is of two times.
        self.payload_changed = true;
        !changed.is_empty()
    }

    fn earlier(&self, page: u32) -> &'a [u8] {
        let size = self.sound.page_size();
        &self.sound.earlier[(page as usize - 1) * size..][..size]
    }

    /// The overflow pages of rows that have at least two.
    fn chains(&self) -> Vec<Vec<u32>> {
        let rows = self.sound.layout.rows.values().flatten();
        rows.map(|row| row.pieces[1..].iter().map(|piece| piece.page).collect::<Vec<_>>())
            .filter(|chain| chain.len() >= 2)
            .collect()
    }

    /// Sets the link of five rows' chains to what `to` makes of the chain and the link's place.
    fn overflow_link(&mut self, to: fn(&[u32], usize) -> u32) -> bool {
        let chains = self.chains();
        for chain in self.random.sample(&chains, 5) {
            let link = self.random.below(chain.len() - 1);
            let next = to(&chain, link);
            self.link(chain[link], next);
        }
        !chains.is_empty()
    }

    fn link(&mut self, page: u32, next: u32) {
        self.page(page)[..4].copy_from_slice(&next.to_be_bytes());
        self.say(format!("overflow page {page} links to {next}"));
    }

    fn overflow_crossed(&mut self) -> bool {
        let chains = self.chains();
        for pair in self.random.sample(&chains, 6).chunks_exact(2) {
            let link = self.random.below(pair[0].len() - 1);
            let other = 1 + self.random.below(pair[1].len() - 1);
            self.link(pair[0][link], pair[1][other]);
        }
        chains.len() >= 2
    }

    fn freelist_loop(&mut self) -> bool {
        let Some(&last) = self.sound.layout.trunks.last() else { return false };
        let first = self.sound.layout.trunks[0];
        self.page(last)[..4].copy_from_slice(&first.to_be_bytes());
        self.page(first)[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        self.say(format!(
            "freelist trunk {last} links to {first}, which counts {} pages",
            u32::MAX
        ));
        true
    }

    /// The freelist's first trunk names pages of tables.
    fn freelist_lies(&mut self) -> bool {
        let Some(&trunk) = self.sound.layout.trunks.first() else { return false };
        let leaves = self.sound.layout.row_leaves();
        let named = self.random.sample(&leaves, 10);
        let count = be32(self.page(trunk), 4).clamp(1, 10);
        self.page(trunk)[4..8].copy_from_slice(&count.to_be_bytes());
        for (place, page) in named.iter().take(count as usize).enumerate() {
            self.page(trunk)[8 + 4 * place..][..4].copy_from_slice(&page.to_be_bytes());
        }
        self.say(format!("freelist trunk {trunk} names {named:?}"));
        true
    }

    /// A WAL of this file when its pages were others.
    fn misplaced_wal(&mut self) -> bool {
        // Frames for the first pages with pages from the middle of the file, well summed.
        if self.pages.len() <= 12 {
            return false;
        }
        let size = self.sound.page_size();
        let middle = self.pages.len() / 2;
        let frames: Vec<(u32, Vec<u8>)> = (0..4)
            .map(|place| {
                (place as u32 * 3 + 2, self.pages[(middle + place) % self.pages.len()].clone())
            })
            .collect();
        self.wal = Some(wal(size, &frames, self.pages.len() as u32));
        // Where the frames are taken for the file's own, those pages are lost.
        for (page, _) in &frames {
            self.from[*page as usize - 1] = 0;
        }
        self.say("a WAL with other content for pages 2, 5, 8 and 11".into());
        true
    }

    /// The WAL of another file, left behind when this one was put in its place.
    fn foreign_wal(&mut self) -> bool {
        let frame = 24 + self.sound.page_size();
        for head in self.sound.foreign_wal[32..].chunks_exact(frame) {
            if let Some(from) = self.from.get_mut(be32(head, 0) as usize - 1) {
                *from = 0;
            }
        }
        self.wal = Some(self.sound.foreign_wal.clone());
        self.other_schema = true;
        true
    }

    fn cut_wal(&mut self) -> bool {
        if self.sound.commits.windows(2).any(|pair| pair[0].end == pair[1].end) {
            return false;
        }
        let size = self.sound.page_size();
        self.pages = self.sound.earlier.chunks(size).map(<[u8]>::to_vec).collect();
        let kept = 1 + self.random.below(self.sound.commits.len() - 2);
        let end = self.sound.commits[kept].end;
        let next = self.sound.commits[kept + 1].end;
        // In the last frame of the next transaction, whose commit is in it.
        let cut = next - 1 - self.random.below(size.min(next - end - 1));
        self.wal = Some(self.sound.wal[..cut].to_vec());
        self.rows = &self.sound.commits[kept].rows;
        self.sequences = &self.sound.commits[kept].sequences;
        self.intact = true;
        self.say(format!(
            "WAL of {} bytes cut to {cut}; its commit {kept} ends at {end}",
            self.sound.wal.len()
        ));
        true
    }

    /// The database's file has `percent` % of the pages that the WAL has.
    fn lose_checkpoint(&mut self, percent: usize) -> bool {
        let size = self.sound.page_size();
        let mut pages: Vec<Vec<u8>> = self.sound.earlier.chunks(size).map(<[u8]>::to_vec).collect();
        let changed: Vec<usize> = (0..self.pages.len())
            .filter(|&place| pages.get(place).is_none_or(|page| *page != self.pages[place]))
            .collect();
        let written = self.random.sample(&changed, changed.len() * percent / 100);
        for &place in &written {
            if place >= pages.len() {
                pages.resize(place + 1, vec![0; size]);
            }
            pages[place].clone_from(&self.pages[place]);
            // And the last of them only in half.
            if Some(&place) == written.last() {
                pages[place][size / 2..].fill(0);
            }
        }
        self.say(format!("{} of {} pages checkpointed", written.len(), changed.len()));
        self.pages = pages;
        self.wal = Some(self.sound.wal.clone());
        self.intact = true;
        true
    }

    fn everything(&mut self) -> bool {
        for page in self.some_pages(4) {
            self.zero(page);
        }
        self.swap_pairs(2);
        self.duplicate(2);
        for page in self.some_leaves(3) {
            let byte = self.random.below(8);
            self.flip(page, byte);
        }
        self.flip_payloads();
        self.overflow_link(|_, _| 0);
        self.overflow_crossed();
        self.freelist_loop();
        self.zero_index_root();
        if self.random.below(2) == 0 {
            self.zero_table_root();
        }
        if self.random.below(2) == 0 {
            self.truncate(85);
        }
        true
    }
}

/// A WAL of one transaction, with sums that hold.
fn wal(page_size: usize, frames: &[(u32, Vec<u8>)], pages: u32) -> Vec<u8> {
    let mut wal = Vec::new();
    for word in [0x377f_0683, 3_007_000, page_size as u32, 7, 0x5a17_0001, 0x5a17_0002] {
        wal.extend_from_slice(&u32::to_be_bytes(word));
    }
    let mut sums = (0, 0);
    add(&mut sums, &wal);
    wal.extend_from_slice(&sums.0.to_be_bytes());
    wal.extend_from_slice(&sums.1.to_be_bytes());
    for (place, (number, page)) in frames.iter().enumerate() {
        let commit = if place + 1 == frames.len() { pages } else { 0 };
        let head = [number.to_be_bytes(), commit.to_be_bytes()].concat();
        add(&mut sums, &head);
        add(&mut sums, page);
        wal.extend_from_slice(&head);
        for word in [0x5a17_0001, 0x5a17_0002, sums.0, sums.1] {
            wal.extend_from_slice(&u32::to_be_bytes(word));
        }
        wal.extend_from_slice(page);
    }
    wal
}

/// SQLite's sum of a WAL whose magic number is odd: big-endian words.
fn add(sums: &mut (u32, u32), bytes: &[u8]) {
    for pair in bytes.chunks_exact(8) {
        sums.0 = sums.0.wrapping_add(be32(pair, 0)).wrapping_add(sums.1);
        sums.1 = sums.1.wrapping_add(be32(pair, 4)).wrapping_add(sums.0);
    }
}
