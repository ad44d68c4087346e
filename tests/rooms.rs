//! The order of the rooms: what src/lib.rs says of it is so.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The rooms from the top to the bottom, as the table in src/lib.rs has them.
fn rooms() -> Vec<String> {
    let lib = fs::read_to_string(sources().join("lib.rs")).unwrap();
    let name = |line: &str| Some(line.strip_prefix("//! | [`")?.split_once('`')?.0.to_owned());
    lib.lines().filter_map(name).collect()
}

/// Every file of Rust below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

/// The rooms that a line of code names from the crate's root.
fn named(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    code.split("crate::").skip(1).filter_map(|rest| {
        rest.split(|letter: char| letter != '_' && !letter.is_alphanumeric()).next()
    })
}

#[test]
fn every_room_is_in_the_table() {
    let lib = fs::read_to_string(sources().join("lib.rs")).unwrap();
    let mut modules: Vec<_> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let mut rooms = rooms();
    modules.sort_unstable();
    rooms.sort_unstable();
    assert_eq!(modules, rooms);
}

#[test]
fn a_room_imports_from_those_below_it_only() {
    let rooms = rooms();
    let floor = |name: &str| rooms.iter().position(|room| room == name);
    let mut imports = 0;
    for (at, room) in rooms.iter().enumerate() {
        for file in files(&sources().join(room)) {
            for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
                for name in named(line) {
                    let place = format!("{}:{}: {line}", file.display(), number + 1);
                    // A group of them would hide which.
                    let other =
                        floor(name).unwrap_or_else(|| panic!("no room is named in {place}"));
                    assert!(other >= at, "{room} is below {name}: {place}");
                    imports += usize::from(other > at);
                }
            }
        }
    }
    assert!(imports > 0, "nothing was read");
}

#[test]
fn only_the_top_room_knows_node() {
    for file in files(&sources()).iter().filter(|file| !file.starts_with(sources().join("node"))) {
        for line in fs::read_to_string(file).unwrap().lines() {
            let code = line.split("//").next().unwrap_or_default();
            assert!(!code.contains("napi"), "{}: {line}", file.display());
        }
    }
}

/// Lines of code below `src` that have one of `calls`, but for tests, as `file: line`.
fn lines_with(calls: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files(&sources()) {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code = code.split("#[cfg(all(test").next().unwrap_or_default();
        let name = file.strip_prefix(sources()).unwrap().display().to_string();
        for line in code.lines() {
            let line = line.split("//").next().unwrap_or_default().trim();
            if calls.iter().any(|call| line.contains(call)) {
                found.push(format!("{name}: {line}"));
            }
        }
    }
    found
}

#[test]
fn files_are_opened_to_be_read_in_one_place() {
    let all = lines_with(&["File::open(", "fs::copy(", "fs::read("]);
    let allowed = |line: &&String| {
        // Folders, which are synced or locked; what the kernel makes; a type that calls that place.
        [
            "directory",
            "folder",
            "parent",
            "/proc/",
            "PrivateFile::open(",
            "SqliteFile::open(",
            "StillFile::open(",
        ]
        .iter()
        .any(|word| line.contains(word))
            || line.starts_with("engine/regular.rs: ")
            || line.starts_with("recovery/work_dir.rs: let folder")
    };
    let others: Vec<_> = all.iter().filter(|line| !allowed(line)).collect();
    assert!(others.is_empty(), "use engine::open_file: {others:#?}");
    assert!(all.len() > others.len(), "nothing was read");
}

#[test]
fn files_are_renamed_and_paths_resolved_in_one_place() {
    for (call, place) in [
        ("fs::rename(", "engine/rename.rs: "),
        ("fs::canonicalize(", "engine/canonical.rs: "),
        (".canonicalize()", "engine/canonical.rs: "),
    ] {
        let others: Vec<_> =
            lines_with(&[call]).into_iter().filter(|line| !line.starts_with(place)).collect();
        assert!(others.is_empty(), "{call} is for {place}{others:#?}");
    }
    assert!(!lines_with(&["fs::rename("]).is_empty(), "nothing was read");
}

#[test]
fn files_are_made_in_one_place() {
    let calls = ["create_new(", "File::create", ".create(true)", "fs::write(", "DirBuilder::new"];
    let others: Vec<_> = lines_with(&calls)
        .into_iter()
        // The probe for locks has no name, and lies in a folder for temporary files.
        // A lock file of Windows has no content.
        .filter(|line| {
            let places = ["engine/likeness.rs: ", "engine/locks.rs: ", "engine/file_lock.rs: "];
            !places.iter().any(|place| line.starts_with(place))
        })
        .collect();
    assert!(others.is_empty(), "use engine::Likeness: {others:#?}");
}
