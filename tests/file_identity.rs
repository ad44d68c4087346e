//! A path that leads to another file, to none, or that is one of two names.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::sync::Arc;
use std::time::Duration;

#[cfg(unix)]
use fusion_sqlite::engine::{Class, FileId, Presence};
use fusion_sqlite::engine::{Connection, Error, FileSystem, Profile};
use rusqlite::OpenFlags;

fn open(path: &Path) -> Connection {
    Connection::open(path, OpenFlags::default(), Duration::ZERO).unwrap()
}

fn open_hardened(path: &Path, profile: &Profile) -> Result<Connection, Error> {
    Connection::open_hardened(path, OpenFlags::default(), profile)
}

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.sqlite");
    (directory, path)
}

#[cfg(unix)] // Windows does not let an open database be replaced or deleted.
#[test]
fn a_file_renamed_over_an_open_database_is_noticed() {
    let (directory, path) = directory();
    let database = open_hardened(&path, &Profile::default()).unwrap();
    database.check_identity().unwrap();
    database.file().unwrap().check_identity().unwrap();
    assert!(!database.has_moved().unwrap());

    let other = directory.path().join("restored");
    std::fs::copy(&path, &other).unwrap();
    std::fs::rename(&other, &path).unwrap();

    let error = database.check_identity().unwrap_err();
    assert_eq!(error.code, "ERR_FUSION_REPLACED");
    assert_eq!(error.class(), Class::Replaced);
    assert_eq!(error.path.as_deref(), Some(database.path()));
    assert!(database.file().unwrap().check_identity().is_err());
    assert!(database.has_moved().unwrap());
    let id = database.file().unwrap().id;
    assert_eq!(id.presence(&path).unwrap(), Presence::Replaced);
}

#[cfg(unix)]
#[test]
fn a_deleted_file_is_noticed_and_so_is_its_return() {
    let (directory, path) = directory();
    let database = open_hardened(&path, &Profile::default()).unwrap();
    let away = directory.path().join("away");
    std::fs::rename(&path, &away).unwrap();
    let error = database.check_identity().unwrap_err();
    assert_eq!(error.code, "ERR_FUSION_UNLINKED");
    assert_eq!(error.class(), Class::Replaced);
    std::fs::rename(&away, &path).unwrap();
    database.check_identity().unwrap();
}

#[test]
fn a_second_name_is_refused_unless_the_profile_allows_it() {
    let (directory, path) = directory();
    drop(open_hardened(&path, &Profile::default()).unwrap());
    let other = directory.path().join("other.sqlite");
    std::fs::hard_link(&path, &other).unwrap();

    let error = open_hardened(&path, &Profile::default()).unwrap_err();
    assert_eq!(error.code, "ERR_FUSION_HARD_LINKS");
    assert!(error.message.contains("2 names"), "{error}");
    let allowed = Profile { allow_hard_links: true, ..Profile::default() };
    open_hardened(&path, &allowed).unwrap();
    // Plain connections follow node:sqlite.
    open(&path);
    std::fs::remove_file(other).unwrap();
    open_hardened(&path, &Profile::default()).unwrap();
}

#[cfg(unix)]
#[test]
fn a_symbolic_link_is_the_same_file() {
    let (directory, path) = directory();
    let link = directory.path().join("link.sqlite");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let direct = open_hardened(&path, &Profile::default()).unwrap();
    let linked = open_hardened(&link, &Profile::default()).unwrap();
    assert!(Arc::ptr_eq(direct.file().unwrap(), linked.file().unwrap()));
    assert_eq!(FileId::of(&link).unwrap(), direct.file().unwrap().id);
}

#[test]
fn a_database_without_a_file_is_always_in_place() {
    let memory = open_hardened(Path::new(":memory:"), &Profile::default()).unwrap();
    memory.check_identity().unwrap();
    assert!(!memory.has_moved().unwrap());
}

#[test]
fn the_file_system_of_a_file_to_be_made_is_its_directorys() {
    let (directory, path) = directory();
    let file_system = FileSystem::of(&path).unwrap();
    assert_eq!(file_system, FileSystem::of(directory.path()).unwrap());
    assert!(!file_system.network, "{file_system}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_known_file_system_has_a_name() {
    let file_system = FileSystem::of(Path::new("/dev/shm/absent")).unwrap();
    assert_eq!(file_system.to_string(), "tmpfs (local)");
}
