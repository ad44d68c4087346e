//! Closing a connection, completely and without touching what is not its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;
use std::ptr;
use std::time::Duration;

use fusion_sqlite::engine::Connection;
use rusqlite::{OpenFlags, ffi};

fn open(path: &Path) -> Connection {
    Connection::open(path, OpenFlags::default(), Duration::ZERO).unwrap()
}

fn prepare(connection: &Connection, sql: &std::ffi::CStr) -> *mut ffi::sqlite3_stmt {
    let mut statement = ptr::null_mut();
    // SAFETY: the connection is open, the SQL NUL-terminated, the out-pointer valid.
    let rc = unsafe {
        ffi::sqlite3_prepare_v2(
            connection.raw(),
            sql.as_ptr(),
            -1,
            &raw mut statement,
            ptr::null_mut(),
        )
    };
    assert_eq!(rc, ffi::SQLITE_OK);
    statement
}

#[test]
fn virtual_tables_finalise_their_own_statements() {
    let mut connection = open(Path::new(":memory:"));
    connection
        .sql()
        .unwrap()
        .execute_batch(
            "CREATE VIRTUAL TABLE f USING fts5(body);
             INSERT INTO f VALUES ('one'), ('two');
             CREATE VIRTUAL TABLE r USING rtree(id, a, b);
             INSERT INTO r VALUES (1, 2, 3)",
        )
        .unwrap();
    connection.close().unwrap();
    assert!(connection.raw().is_null());
    connection.close().unwrap();
}

#[test]
fn a_statement_that_is_left_keeps_the_connection_open() {
    let mut connection = open(Path::new(":memory:"));
    let statement = prepare(&connection, c"SELECT 1");
    assert_eq!(connection.close().unwrap_err().errcode, ffi::SQLITE_BUSY);
    assert!(!connection.raw().is_null());
    // SAFETY: the statement is alive, and this is its end.
    unsafe { ffi::sqlite3_finalize(statement) };
    connection.close().unwrap();
}
