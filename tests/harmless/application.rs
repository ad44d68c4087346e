//! What an application brings to its databases and a repair does not have: functions, aggregates,
//! collations, tokenizers.

use std::cmp::Ordering;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering as Memory};

use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Result, ffi};

/// Registers all of it.
pub fn register(connection: &Connection) -> Result<()> {
    functions(connection)?;
    connection.create_collation("unicase", unicase)?;
    connection.create_collation("icu_de", |one: &str, other: &str| unicase(other, one))?;
    tokenizers(connection)
}

fn functions(connection: &Connection) -> Result<()> {
    let steady = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    let any = FunctionFlags::SQLITE_UTF8;
    let text = |context: &Context<'_>, at: usize| -> Result<String> {
        Ok(match context.get_raw(at) {
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            ValueRef::Integer(number) => number.to_string(),
            _ => String::new(),
        })
    };
    connection.create_scalar_function("title_sort", 1, steady, move |context| {
        let title = text(context, 0)?;
        Ok(title.strip_prefix("The ").map_or(title.clone(), |rest| format!("{rest}, The")))
    })?;
    connection.create_scalar_function("slug", 1, steady, move |context| {
        Ok(text(context, 0)?.to_lowercase().replace(' ', "-"))
    })?;
    connection.create_scalar_function("is_hidden", 1, steady, |context| {
        Ok(matches!(context.get_raw(0), ValueRef::Integer(number) if number % 5 == 0))
    })?;
    let made = AtomicU64::new(1);
    connection.create_scalar_function("uuid4", 0, any, move |_| {
        Ok(format!("00000000-{:012x}", made.fetch_add(1, Memory::Relaxed)))
    })?;
    connection.create_scalar_function("books_list_filter", 1, any, |_| Ok(true))?;
    connection.create_aggregate_function("sortconcat", 2, any, Joined)?;
    connection.create_aggregate_function("concat_all", 1, any, Joined)?;
    geometry(connection, steady)
}

/// Geometry: a header of 8 bytes and a box, 4 little-endian doubles.
fn geometry(connection: &Connection, flags: FunctionFlags) -> Result<()> {
    connection.create_scalar_function("ST_Box", 4, flags, |context| {
        let mut blob = b"GP\0\x03\0\0\x10\xe6".to_vec();
        for at in 0..4 {
            blob.extend(context.get::<f64>(at)?.to_le_bytes());
        }
        Ok(blob)
    })?;
    connection.create_scalar_function("ST_IsEmpty", 1, flags, |context| {
        Ok(match context.get_raw(0) {
            ValueRef::Blob(blob) => Some(blob.len() < 40),
            _ => None,
        })
    })?;
    for (at, name) in ["ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY"].into_iter().enumerate() {
        connection.create_scalar_function(name, 1, flags, move |context| {
            Ok(match context.get_raw(0) {
                ValueRef::Blob(blob) => blob
                    .get(8 + 8 * at..16 + 8 * at)
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(f64::from_le_bytes),
                _ => None,
            })
        })?;
    }
    Ok(())
}

/// The last arguments of all rows, with commas.
struct Joined;

impl Aggregate<Vec<String>, Value> for Joined {
    fn init(&self, _: &mut Context<'_>) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn step(&self, context: &mut Context<'_>, parts: &mut Vec<String>) -> Result<()> {
        parts.push(context.get(context.len() - 1)?);
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, parts: Option<Vec<String>>) -> Result<Value> {
        Ok(parts.map_or(Value::Null, |parts| Value::Text(parts.join(", "))))
    }
}

fn unicase(one: &str, other: &str) -> Ordering {
    one.to_lowercase().cmp(&other.to_lowercase())
}

/// `kana` of FTS5 and FTS4: tokenizers of SQLite's under a name that it does not know.
fn tokenizers(connection: &Connection) -> Result<()> {
    // SAFETY: the connection is open; this operation takes an int and a pointer that may be null.
    unsafe {
        ffi::sqlite3_db_config(
            connection.handle(),
            ffi::SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER,
            1,
            ptr::null_mut::<i32>(),
        );
    }
    connection
        .query_row("SELECT fts3_tokenizer('kana', fts3_tokenizer('simple'))", [], |_| Ok(()))?;
    let mut api: *mut ffi::fts5_api = ptr::null_mut();
    // SAFETY: the statement lives until it is finalized, and `api` for as long; FTS5 writes its
    // address there (https://sqlite.org/fts5.html#extending_fts5). The tokenizer that is found is
    // a plain struct of functions without data of its own, which FTS5 copies.
    unsafe {
        let mut statement = ptr::null_mut();
        let sql = c"SELECT fts5(?1)";
        let db = connection.handle();
        ffi::sqlite3_prepare_v2(db, sql.as_ptr(), -1, &raw mut statement, ptr::null_mut());
        let kind = c"fts5_api_ptr";
        ffi::sqlite3_bind_pointer(statement, 1, (&raw mut api).cast(), kind.as_ptr(), None);
        ffi::sqlite3_step(statement);
        ffi::sqlite3_finalize(statement);
        let (find, create) = ((*api).xFindTokenizer.unwrap(), (*api).xCreateTokenizer.unwrap());
        let mut data = ptr::null_mut();
        let mut tokenizer: ffi::fts5_tokenizer = std::mem::zeroed();
        let found = find(api, c"ascii".as_ptr(), &raw mut data, &raw mut tokenizer);
        assert_eq!(found, ffi::SQLITE_OK, "FTS5 has the tokenizer `ascii`");
        let made = create(api, c"kana".as_ptr(), data, &raw mut tokenizer, None);
        assert_eq!(made, ffi::SQLITE_OK);
    }
    Ok(())
}
