//! Proves that the WAL next to a database file belongs to another file.
//!
//! A WAL does not identify its database: its salts and its checkpoint number belong to the WAL
//! alone. So the proof is a contradiction. Assume that a WAL is the file's own, and let S be the
//! content of the file when the WAL began. Then
//!
//! 1. each page of the file equals the page in S, or a frame of the WAL;
//! 2. the WAL holds every page that changed after S. So a page that the WAL does not hold is the same
//!    in S, in the file and in the newest version;
//! 3. the change counter in page 1 never decreases. A commit that writes page 1 stores the counter
//!    that it has read, or that number plus one.
//!
//! Each of the following contradicts the assumption:
//!
//! | contradiction | follows from | needs the whole WAL |
//! |---|---|---|
//! | the WAL has pages of another size | the page size of a database in WAL mode does not change | no |
//! | the change counter in the WAL's first page 1 is higher than the file's by two or more | 1, 3 | no |
//! | the file's header is newer than the first in the WAL, and differs from every header in the WAL | 1, 3 | yes |
//! | the WAL's database has pages that neither the WAL nor the file has | 2 | yes |
//! | two or more b-trees of the WAL's schema have roots that the WAL does not hold and that are not roots in the file | 2 | yes |
//!
//! The WAL is whole if its last commit is followed by nothing, or by frames from before its last
//! reset. A WAL that was truncated, or has a damaged frame in its middle, may lack frames that a
//! checkpoint has copied into the file, so rules 1 and 2 do not apply to it.
//!
//! A single fault must not look like a proof: a page may be damaged in memory before it is written
//! to the WAL with a correct checksum. Hence a page 1 counts only if its two copies of the change
//! counter agree, and one row of the schema proves nothing. The caller has verified that the file
//! is sound without the WAL.
//!
//! May call: `engine`, `format`. The thread that owns the connection.

use std::collections::HashSet;

use super::page_map::pages::Pages;
use crate::engine::{Connection, OpenFiles, PageSource, Progress, Result, WalPageIndex};
use crate::format::wal::{FRAME_HEADER, Frame, HEADER, WalHeader};
use crate::format::{Header, Page, header, lock_page};

/// Largest size in bytes of a schema row that is read. A longer row proves nothing.
const LONGEST_ROW: u64 = 1 << 20;

/// How many roots must contradict the file: one damaged page can fake a single one.
const ROOTS: usize = 2;

/// How many resets of the WAL ago the frames behind its last commit may have been written.
const RESETS: u32 = 1 << 20;

/// Returns the proof, as a sentence, that the WAL of `connection` belongs to another file, or
/// `None`. The file must be sound without the WAL, and no connection may write to either of them.
///
/// # Errors
/// A failed read; `task`'s.
pub(super) fn proof(connection: &Connection, task: &dyn Progress) -> Result<Option<String>> {
    let files = OpenFiles::of(connection)?;
    match (files.database(), files.wal()) {
        (Some(database), Some(wal)) => prove(database, wal, task),
        _ => Ok(None),
    }
}

fn prove(
    database: &dyn PageSource,
    wal: &dyn PageSource,
    task: &dyn Progress,
) -> Result<Option<String>> {
    let Some(file) = Header::parse(&bytes(database, 0, header::SIZE)?) else { return Ok(None) };
    let Some(log) = WalHeader::parse(&bytes(wal, 0, HEADER)?) else { return Ok(None) };
    let overlay = WalPageIndex::read(wal, &log, task)?;
    if overlay.is_empty() {
        return Ok(None);
    }
    if log.page_size != file.page_size {
        return Ok(Some(format!(
            "the -wal has pages of {} bytes, and the file has pages of {}",
            log.page_size, file.page_size
        )));
    }
    let header = bytes(database, 0, header::SIZE)?;
    let headers = headers_in(wal, &log, &overlay)?;
    let first = headers.first().and_then(|header| counter(header));
    let now = counter(&header);
    if let (Some(now), Some(first)) = (now, first)
        && now.checked_add(1).is_some_and(|next| next < first)
    {
        return Ok(Some(format!(
            "the first page of the -wal was written at change {first} of its database, and the \
             file is at change {now}"
        )));
    }
    if !is_whole(wal, &log, &overlay)? {
        return Ok(None);
    }
    if let (Some(now), Some(first)) = (now, first)
        && now > first
        && headers.iter().all(|other| counter(other).is_some() && *other != header)
    {
        return Ok(Some(format!(
            "the file is at change {now}, the -wal began at change {first}, and holds no such \
             header"
        )));
    }
    let missing = missing(database, &log, &overlay)?;
    if missing > 0 {
        return Ok(Some(format!(
            "the -wal is of a database of {} pages, {missing} of which are neither in it nor in \
             the file",
            overlay.pages
        )));
    }
    let roots = roots_of(&Pages::new(database, None, task)?)?;
    let in_log = roots_of(&Pages::new(database, Some(wal), task)?)?;
    let strange = in_log.iter().filter(|(_, root)| overlay.frame(*root).is_none());
    let strange: Vec<_> =
        strange.filter(|(_, root)| roots.iter().all(|(_, other)| other != root)).collect();
    let [(name, root), others @ ..] = strange.as_slice() else { return Ok(None) };
    Ok((strange.len() >= ROOTS).then(|| {
        format!(
            "the schema in the -wal has {name} on page {root} and {} more where the file has other \
             things",
            others.len()
        )
    }))
}

/// Reads `count` bytes; fewer only at the end of the storage.
fn bytes(storage: &dyn PageSource, offset: u64, count: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    let read = storage.read_at(&mut bytes, offset)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// The change counter in a header, if its two copies agree.
fn counter(page: &[u8]) -> Option<u32> {
    let header = Header::parse(page)?;
    (header.change_counter == header.version_valid_for).then_some(header.change_counter)
}

/// The header in every committed version of page 1 in the WAL, oldest first.
fn headers_in(
    wal: &dyn PageSource,
    log: &WalHeader,
    overlay: &WalPageIndex,
) -> Result<Vec<Vec<u8>>> {
    let size = FRAME_HEADER + log.page_size as usize;
    let mut headers = Vec::new();
    let mut offset = HEADER as u64;
    while offset < overlay.end {
        if Frame::parse(&bytes(wal, offset, FRAME_HEADER)?).is_some_and(|frame| frame.page == 1) {
            let header = bytes(wal, offset + FRAME_HEADER as u64, header::SIZE)?;
            // Consecutive headers are often equal.
            if headers.last() != Some(&header) {
                headers.push(header);
            }
        }
        offset += size as u64;
    }
    Ok(headers)
}

/// Whether no frame of the WAL is missing behind its last commit.
fn is_whole(wal: &dyn PageSource, log: &WalHeader, overlay: &WalPageIndex) -> Result<bool> {
    let size = (FRAME_HEADER + log.page_size as usize) as u64;
    let end = wal.size()?;
    let mut offset = overlay.end;
    while offset < end {
        let Some(frame) = Frame::parse(&bytes(wal, offset, FRAME_HEADER)?) else {
            return Ok(false);
        };
        // Each reset of the WAL adds one to the first salt, and draws a new second one.
        let resets = log.salts.0.wrapping_sub(frame.salts.0);
        if resets == 0 || resets > RESETS || frame.salts.1 == log.salts.1 {
            return Ok(false);
        }
        offset += size;
    }
    Ok(true)
}

/// Number of pages of the WAL's database that are neither in the WAL nor in the file.
fn missing(database: &dyn PageSource, log: &WalHeader, overlay: &WalPageIndex) -> Result<u32> {
    let in_file = database.size()? / u64::from(log.page_size);
    let in_file = u32::try_from(in_file).unwrap_or(u32::MAX);
    let beyond = in_file.saturating_add(1)..=overlay.pages;
    let is_missing =
        |page: &u32| *page != lock_page(log.page_size) && overlay.frame(*page).is_none();
    Ok(u32::try_from(beyond.filter(is_missing).count()).unwrap_or(u32::MAX))
}

/// Names and roots of the b-trees in a schema, as far as it can be read.
fn roots_of(pages: &Pages<'_>) -> Result<Vec<(String, u32)>> {
    let mut roots = Vec::new();
    let mut seen = HashSet::new();
    let mut ahead = vec![1];
    let mut buffer = vec![0; pages.size()];
    while let Some(number) = ahead.pop() {
        if number == 0 || number > pages.count() || !seen.insert(number) {
            continue;
        }
        pages.read(number, &mut buffer)?;
        let Some(page) = Page::parse(&buffer, pages.usable(), number == 1) else { continue };
        if !page.kind.is_table() {
            continue;
        }
        if page.kind.is_interior() {
            ahead.extend(page.children().map(|(child, _)| child));
            continue;
        }
        for cell in (0..page.cells).filter_map(|index| page.cell(index)) {
            if let Some((kind, name, _, root)) = pages.schema_row(&cell, LONGEST_ROW)
                && matches!(kind.as_str(), "table" | "index")
                && root > 1
            {
                roots.push((name, root));
            }
        }
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::engine::NoProgress;

    /// Numbers that are the same in every run: splitmix64.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % end
        }
    }

    struct Bytes<'a>(&'a [u8]);

    impl PageSource for Bytes<'_> {
        fn size(&self) -> Result<u64> {
            self.0.size()
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
            self.0.read_at(buffer, offset)
        }
    }

    /// A file and its WAL.
    type Pair = (Vec<u8>, Vec<u8>);

    fn open(path: &Path) -> rusqlite::Connection {
        let sql = rusqlite::Connection::open(path).unwrap();
        sql.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0").unwrap();
        sql
    }

    fn pair(path: &Path) -> Pair {
        let wal = crate::engine::sidecar_path(path, "-wal");
        (fs::read(path).unwrap(), fs::read(wal).unwrap_or_default())
    }

    /// A database as `random` has it, closed.
    fn make(path: &Path, random: &mut Random) {
        let sql = open(path);
        let size = 512 << random.below(5);
        sql.execute_batch(&format!(
            "PRAGMA journal_mode = DELETE; PRAGMA page_size = {size}; PRAGMA auto_vacuum = {};
             VACUUM; PRAGMA journal_mode = WAL",
            random.below(3)
        ))
        .unwrap();
        for table in 0..1 + random.below(5) {
            let key = if random.below(2) == 0 { "INTEGER PRIMARY KEY" } else { "TEXT" };
            sql.execute_batch(&format!(
                "CREATE TABLE t{table} (a {key}, b); CREATE INDEX i{table} ON t{table} (b)"
            ))
            .unwrap();
        }
        for _ in 0..3 {
            change(&sql, random);
        }
    }

    /// A transaction of whatever kind.
    fn change(sql: &rusqlite::Connection, random: &mut Random) {
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 't%'";
        let mut statement = sql.prepare(tables).unwrap();
        let names: Vec<String> =
            statement.query_map([], |row| row.get(0)).unwrap().map(|name| name.unwrap()).collect();
        drop(statement);
        let at = usize::try_from(random.below(names.len().max(1) as u64)).unwrap();
        let Some(name) = names.get(at) else {
            return sql.execute_batch("CREATE TABLE t0 (a, b)").unwrap();
        };
        let (rows, length) = (1 + random.below(60), 1 + random.below(300));
        let change = match random.below(12) {
            0..5 => format!(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
                 INSERT INTO {name} (b) SELECT hex(randomblob({length})) FROM n"
            ),
            5..7 => format!("UPDATE {name} SET b = hex(randomblob({length})) WHERE rowid % 3 = 1"),
            7..9 => format!("DELETE FROM {name} WHERE rowid % 4 = {}", rows % 4),
            9 => format!("CREATE TABLE t{} (a, b); INSERT INTO t0 SELECT 1, 2", 10 + rows),
            10 => format!("DROP TABLE {name}"),
            _ => "VACUUM".to_owned(),
        };
        // What makes no sense in this schema is left out.
        drop(sql.execute_batch(&format!("BEGIN; {change}; COMMIT")));
        if !sql.is_autocommit() {
            sql.execute_batch("ROLLBACK").unwrap();
        }
        if change == "VACUUM" {
            sql.execute_batch("VACUUM").unwrap();
        }
    }

    fn proved(pair: &Pair) -> Option<String> {
        prove(&Bytes(&pair.0), &Bytes(&pair.1), &NoProgress).unwrap()
    }

    /// The file as a checkpoint leaves it that is cut off after so many pages, lowest first.
    fn partly_checkpointed((file, wal): &Pair, pages: usize) -> Vec<u8> {
        let Some(log) = WalHeader::parse(wal) else { return file.clone() };
        let overlay = WalPageIndex::read(&Bytes(wal), &log, &NoProgress).unwrap();
        let (mut file, size) = (file.clone(), log.page_size as usize);
        let frames = (1..=overlay.pages).filter_map(|page| Some((page, overlay.frame(page)?)));
        for (page, offset) in frames.take(pages) {
            let (from, to) = (usize::try_from(offset).unwrap(), (page as usize - 1) * size);
            if file.len() < to + size {
                file.resize(to + size, 0);
            }
            file[to..to + size].copy_from_slice(&wal[from..from + size]);
        }
        file
    }

    /// The WAL with noise for one of its frames, and right checksums: a page that was damaged in
    /// memory before it was written.
    fn with_damaged_frame(wal: &[u8], random: &mut Random, keeps: usize) -> Vec<u8> {
        let mut wal = wal.to_vec();
        let log = WalHeader::parse(&wal).unwrap();
        let size = FRAME_HEADER + log.page_size as usize;
        let count = (wal.len() - HEADER) / size;
        let damaged = usize::try_from(random.below(count as u64)).unwrap();
        let mut sums = log.checksum;
        for (number, frame) in wal[HEADER..].chunks_exact_mut(size).enumerate() {
            if number == damaged {
                for byte in frame.iter_mut().skip(FRAME_HEADER + keeps) {
                    *byte = u8::try_from(random.below(256)).unwrap();
                }
            }
            sums = Frame::sum(frame, sums, log.big_endian).unwrap();
            frame[16..20].copy_from_slice(&sums.0.to_be_bytes());
            frame[20..24].copy_from_slice(&sums.1.to_be_bytes());
        }
        wal
    }

    /// For any transactions, any progress of a checkpoint and any damage to the WAL: there is no
    /// proof that a database's own WAL is another file's.
    #[test]
    fn a_files_own_wal_is_never_proven_to_be_anothers() {
        let folder = tempfile::tempdir().unwrap();
        let mut seen = 0;
        for seed in 0..24 {
            let random = &mut Random(seed);
            let path = folder.path().join(format!("{seed}.db"));
            make(&path, random);
            let (one, other) = (open(&path), open(&path));
            let mut states = vec![pair(&path)];
            for _ in 0..12 {
                change(if random.below(3) == 0 { &other } else { &one }, random);
                match random.below(6) {
                    0 => one.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap(),
                    1 => one.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap(),
                    2 => one.execute_batch("PRAGMA wal_checkpoint(RESTART)").unwrap(),
                    _ => {}
                }
                states.push(pair(&path));
            }
            for state in states.into_iter().filter(|(_, wal)| wal.len() > HEADER) {
                let ok = |pair: &Pair, what: &str| {
                    assert_eq!(proved(pair), None, "{seed}, {what}");
                };
                ok(&state, "as it is");
                let pages = usize::try_from(random.below(40)).unwrap();
                for file in [state.0.clone(), partly_checkpointed(&state, pages)] {
                    let whole = partly_checkpointed(&state, usize::MAX);
                    let Some(log) = WalHeader::parse(&state.1) else { continue };
                    for file in [&file, &whole] {
                        ok(&(file.clone(), state.1.clone()), "partly checkpointed");
                        // A frame is damaged in place: the WAL ends before it.
                        let mut wal = state.1.clone();
                        let at = usize::try_from(random.below(wal.len() as u64)).unwrap();
                        let end = (at + 1 + random.below(600) as usize).min(wal.len());
                        wal[at..end].fill(0x5a);
                        ok(&(file.clone(), wal), "damaged in place");
                        // It is cut somewhere but behind a commit.
                        let end = HEADER as u64 + random.below((state.1.len() - HEADER) as u64);
                        let size = FRAME_HEADER as u64 + u64::from(log.page_size);
                        if (end - HEADER as u64).is_multiple_of(size) {
                            continue;
                        }
                        let cut = state.1[..usize::try_from(end).unwrap()].to_vec();
                        ok(&(file.clone(), cut), "cut");
                    }
                    // The file as it was when the WAL began, or while it was checkpointed.
                    for keeps in [0, 100, 300] {
                        let wal = with_damaged_frame(&state.1, random, keeps);
                        ok(&(file.clone(), wal), "damaged before it was written");
                    }
                    seen += 1;
                }
            }
        }
        assert!(seen > 180, "{seen}");
    }

    /// Runs SQL in a session of its own, which leaves no WAL.
    fn session(path: &Path, sql: &str) {
        open(path).execute_batch(sql).unwrap();
    }

    /// SQL that inserts so many rows.
    fn rows(table: &str, count: u32) -> String {
        format!(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
             INSERT INTO {table} (b) SELECT hex(randomblob(90)) FROM n;"
        )
    }

    /// What a checkout, a restore or a sync tool leaves, for each thing that proves it.
    #[test]
    fn a_wal_is_proven_to_be_anothers_by_what_contradicts_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let tables = "CREATE TABLE t (a INTEGER PRIMARY KEY, b); CREATE TABLE u (a, b);
                      CREATE INDEX i ON t (b);";
        for count in [40, 200, 900] {
            let base = folder.path().join(format!("{count}.db"));
            session(&base, &format!("{tables}{}{}", rows("t", count), rows("u", count)));
            let case = |name: &str, sessions_of_file: &[&str], sessions_of_wal: &[&str]| {
                let [file, other] = ["file", "other"].map(|which| {
                    let path = folder.path().join(format!("{count}-{name}-{which}.db"));
                    fs::copy(&base, &path).unwrap();
                    path
                });
                for sql in sessions_of_file {
                    session(&file, sql);
                }
                let (last, before) = sessions_of_wal.split_last().unwrap();
                for sql in before {
                    session(&other, sql);
                }
                let keeps_open = open(&other);
                keeps_open.execute_batch(last).unwrap();
                let (_, wal) = pair(&other);
                assert!(wal.len() > HEADER);
                let (file, none) = pair(&file);
                assert!(none.is_empty());
                let proof = proved(&(file, wal)).unwrap_or_else(|| panic!("{count}, {name}"));
                assert!(proof.contains(name), "{count}, {name}: {proof}");
            };
            let (few, many) = (rows("t", 20), rows("t", 20 * count));
            let size = "PRAGMA journal_mode = DELETE; PRAGMA page_size = 8192; VACUUM;
                        PRAGMA journal_mode = WAL";
            case("has pages of", &[size], &[&few]);
            // A backup of an earlier time was put back.
            case("was written at change", &[], &[&few, &many, &few]);
            // Another branch, on which more was done.
            case("no such header", &[&many, &many, &few], &[&many]);
            // Another branch, on which as much was done, and less was written.
            case(
                "neither in it nor in",
                &[&few],
                &[
                    &many,
                    "UPDATE u SET b = 1 WHERE a IS NULL; DELETE FROM t WHERE a = 1; CREATE TABLE v (a)",
                ],
            );
            let other_schema = "DROP TABLE t; DROP TABLE u; CREATE TABLE w (b);";
            case(
                "where the file has other things",
                &[&format!("BEGIN; {other_schema}{}{}; COMMIT", many, many)
                    .replace("INTO t", "INTO w")],
                &["INSERT INTO u VALUES (1, 2); CREATE TABLE v (a)"],
            );
        }
    }

    /// Two branches of one database with equally many changes: no rule separates them with
    /// certainty.
    #[test]
    fn where_nothing_contradicts_the_file_nothing_is_proven() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("base.db");
        session(&base, &format!("CREATE TABLE t (a INTEGER PRIMARY KEY, b);{}", rows("t", 300)));
        let branch = folder.path().join("branch.db");
        fs::copy(&base, &branch).unwrap();
        session(&branch, &rows("t", 700));
        let keeps_open = open(&base);
        keeps_open.execute_batch(&rows("t", 50)).unwrap();
        let (_, wal) = pair(&base);
        assert_eq!(proved(&(fs::read(&branch).unwrap(), wal)), None);
    }
}
