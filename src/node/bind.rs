//! JavaScript values to SQL parameters.
//!
//! | JavaScript | SQL |
//! |---|---|
//! | `null` | NULL |
//! | number | REAL, also when it is whole: a column's INTEGER affinity converts it |
//! | bigint | INTEGER |
//! | boolean | INTEGER 0 or 1 |
//! | string | TEXT, UTF-8, by length; a lone surrogate becomes U+FFFD |
//! | typed array, `DataView`, `ArrayBuffer` | BLOB |
//!
//! All values are read before the first is bound: no JavaScript runs, and no buffer can be
//! detached, while SQLite has a pointer.

use std::ffi::{c_char, c_int, c_uchar};
use std::ptr;

use napi::sys;
use rusqlite::ffi;

use super::errors::{ErrorKind, Outcome, Thrown, check};

/// Room for text and blobs that is kept from call to call, at most.
const KEPT: usize = 1 << 20;
/// Room that a string is offered at least before its length is asked for.
const OFFERED: usize = 256;

/// The values of one call, with the bytes of text and blobs side by side.
#[derive(Debug, Default)]
pub struct Parameters {
    values: Vec<Value>,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text { start: usize, length: usize },
    Blob { start: usize, length: usize },
}

impl Parameters {
    /// Forgets the values, and the room for them if it grew large.
    pub fn clear(&mut self) {
        self.values.clear();
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
    }

    /// Reads `args` as the values of the parameters from 1 on, of which there are `count`.
    ///
    /// # Errors
    /// node:sqlite's, for the first that cannot be bound.
    #[inline]
    pub fn read(
        &mut self,
        env: sys::napi_env,
        args: &[sys::napi_value],
        count: usize,
    ) -> Outcome<()> {
        for (index, value) in args.iter().enumerate() {
            let value = self.value(env, *value, index + 1)?;
            if index >= count {
                return Err(Thrown::sqlite(ffi::SQLITE_RANGE));
            }
            self.values.push(value);
        }
        Ok(())
    }

    #[inline]
    fn value(
        &mut self,
        env: sys::napi_env,
        value: sys::napi_value,
        index: usize,
    ) -> Outcome<Value> {
        let mut kind = 0;
        // SAFETY: here and below, `value` is a handle of the running callback in `env`, and the
        // out-pointers lead to locals of the type that the function writes.
        check(unsafe { sys::napi_typeof(env, value, &mut kind) })?;
        Ok(match kind {
            sys::ValueType::napi_string => self.text(env, value)?,
            sys::ValueType::napi_number => {
                let mut number = 0.0;
                // SAFETY: as above.
                check(unsafe { sys::napi_get_value_double(env, value, &mut number) })?;
                Value::Real(number)
            }
            sys::ValueType::napi_null => Value::Null,
            sys::ValueType::napi_bigint => {
                let (mut number, mut lossless) = (0, false);
                // SAFETY: as above.
                check(unsafe {
                    sys::napi_get_value_bigint_int64(env, value, &mut number, &mut lossless)
                })?;
                if !lossless {
                    return Err(Thrown::of(
                        ErrorKind::Type,
                        "ERR_INVALID_ARG_VALUE",
                        "BigInt value is too large to bind.",
                    ));
                }
                Value::Integer(number)
            }
            sys::ValueType::napi_boolean => {
                let mut flag = false;
                // SAFETY: as above.
                check(unsafe { sys::napi_get_value_bool(env, value, &mut flag) })?;
                Value::Integer(i64::from(flag))
            }
            sys::ValueType::napi_object => match buffer(env, value)? {
                Some((start, length)) => self.blob(start, length),
                None => return Err(unbindable(index)),
            },
            _ => return Err(unbindable(index)),
        })
    }

    fn text(&mut self, env: sys::napi_env, value: sys::napi_value) -> Outcome<Value> {
        let start = self.bytes.len();
        self.bytes.reserve(OFFERED);
        loop {
            let room = self.bytes.spare_capacity_mut();
            let offered = room.len();
            let mut length = 0;
            // SAFETY: N-API writes at most `offered` bytes, a NUL included, at `room`.
            check(unsafe {
                sys::napi_get_value_string_utf8(
                    env,
                    value,
                    room.as_mut_ptr().cast(),
                    offered,
                    &mut length,
                )
            })?;
            // A text that was cut ends less than one character, of up to 4 bytes, and the NUL
            // before the end.
            if length + 5 < offered {
                // SAFETY: N-API has initialised `length` bytes from `start` on.
                unsafe { self.bytes.set_len(start + length) };
                return Ok(Value::Text { start, length });
            }
            // SAFETY: with no buffer, N-API only reports the length.
            check(unsafe {
                sys::napi_get_value_string_utf8(env, value, ptr::null_mut(), 0, &mut length)
            })?;
            self.bytes.reserve(length + 8);
        }
    }

    fn blob(&mut self, data: *const u8, length: usize) -> Value {
        if data.is_null() {
            return Value::Null;
        }
        let start = self.bytes.len();
        // SAFETY: `data` has `length` readable bytes, which no JavaScript can take away during
        // this native call; a SharedArrayBuffer's may change meanwhile, and any are copied.
        unsafe {
            self.bytes.reserve(length);
            ptr::copy_nonoverlapping(data, self.bytes.as_mut_ptr().add(start), length);
            self.bytes.set_len(start + length);
        }
        Value::Blob { start, length }
    }

    /// The bytes of all values, one after the other.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The bytes of all values, one after the other, and a NUL.
    pub fn terminated(&mut self) -> &[u8] {
        self.bytes.push(0);
        &self.bytes
    }

    /// Binds the values. Unless `copy`, SQLite keeps pointers into `self`: the bindings must be
    /// cleared before `self` changes.
    ///
    /// # Safety
    /// `statement` is prepared, not running, used by this thread alone, and has nothing bound;
    /// without `copy`, the caller clears its bindings before it changes or drops `self`.
    ///
    /// # Errors
    /// SQLite's, TOOBIG say.
    #[inline]
    pub unsafe fn bind(&self, statement: *mut ffi::sqlite3_stmt, copy: bool) -> Result<(), c_int> {
        for (index, value) in (1..).zip(&self.values) {
            if !matches!(value, Value::Null) {
                // SAFETY: the caller vouches for `statement`, and clears the bindings.
                unsafe { self.bind_one(statement, index, *value, copy) }?;
            }
        }
        Ok(())
    }

    /// As [`Self::bind`], for a statement that has `held` bound: binds what differs. There are as
    /// many in `held` as the statement has parameters.
    ///
    /// # Safety
    /// As [`Self::bind`]'s, but for what is bound; [`Held::release`] counts as clearing. After an
    /// error, `held` is not to be used.
    ///
    /// # Errors
    /// SQLite's, TOOBIG say.
    pub unsafe fn bind_changes(
        &self,
        statement: *mut ffi::sqlite3_stmt,
        copy: bool,
        held: &mut [Held],
    ) -> Result<(), c_int> {
        let values = self.values.iter().copied().chain(std::iter::repeat(Value::Null));
        for ((index, held), value) in (1..).zip(held).zip(values) {
            let new = match value {
                Value::Null => Held::Nothing,
                Value::Integer(number) => Held::Integer(number),
                Value::Real(number) => Held::Real(number.to_bits()),
                Value::Text { .. } | Value::Blob { .. } => Held::Bytes,
            };
            if *held == new && new != Held::Bytes {
                continue;
            }
            // SAFETY: the caller vouches for `statement`, and clears the bindings.
            unsafe { self.bind_one(statement, index, value, copy) }?;
            *held = new;
        }
        Ok(())
    }

    /// # Safety
    /// As [`Self::bind`]'s.
    #[inline]
    unsafe fn bind_one(
        &self,
        statement: *mut ffi::sqlite3_stmt,
        index: c_int,
        value: Value,
        copy: bool,
    ) -> Result<(), c_int> {
        let destructor = if copy { ffi::SQLITE_TRANSIENT() } else { ffi::SQLITE_STATIC() };
        // SAFETY: the caller vouches for `statement`; start and length of a value are those of
        // bytes that `self` holds, whose vector is never null.
        let code = unsafe {
            let at = |start: usize| self.bytes.as_ptr().add(start);
            match value {
                Value::Null => ffi::sqlite3_bind_null(statement, index),
                Value::Integer(number) => ffi::sqlite3_bind_int64(statement, index, number),
                Value::Real(number) => ffi::sqlite3_bind_double(statement, index, number),
                Value::Text { start, length } => ffi::sqlite3_bind_text64(
                    statement,
                    index,
                    at(start).cast::<c_char>(),
                    length as u64,
                    destructor,
                    ffi::SQLITE_UTF8 as c_uchar,
                ),
                Value::Blob { start, length } => ffi::sqlite3_bind_blob64(
                    statement,
                    index,
                    at(start).cast(),
                    length as u64,
                    destructor,
                ),
            }
        };
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(code) }
    }
}

/// What stays bound to a parameter between calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// NULL.
    Nothing,
    /// An integer.
    Integer(i64),
    /// The bits of a real.
    Real(u64),
    /// Text or a blob, until [`Held::release`].
    Bytes,
}

impl Held {
    /// Makes `statement`, which has `held` bound, forget text and blobs.
    ///
    /// # Safety
    /// `statement` is prepared, not running and used by this thread alone.
    pub unsafe fn release(statement: *mut ffi::sqlite3_stmt, held: &mut [Self]) {
        for (index, held) in (1..).zip(held) {
            if *held == Self::Bytes {
                // SAFETY: the caller's. It cannot fail: the parameter exists and nothing runs.
                unsafe { ffi::sqlite3_bind_null(statement, index) };
                *held = Self::Nothing;
            }
        }
    }
}

/// Where the bytes of a typed array, `DataView` or `ArrayBuffer` are. A detached view is empty;
/// a detached `ArrayBuffer` has a null pointer, as in node:sqlite, where it binds NULL.
pub(super) fn buffer(
    env: sys::napi_env,
    value: sys::napi_value,
) -> Outcome<Option<(*const u8, usize)>> {
    let mut data = ptr::null_mut();
    let mut length = 0;
    let mut is = false;
    // SAFETY: `value` is a handle of the running callback in `env`; the out-pointers lead to
    // locals, or are null where N-API allows it.
    unsafe {
        check(sys::napi_is_typedarray(env, value, &mut is))?;
        if is {
            let mut kind = 0;
            check(sys::napi_get_typedarray_info(
                env,
                value,
                &mut kind,
                &mut length,
                &mut data,
                ptr::null_mut(),
                ptr::null_mut(),
            ))?;
            return Ok(Some((
                present(data),
                if data.is_null() { 0 } else { length * width(kind) },
            )));
        }
        check(sys::napi_is_dataview(env, value, &mut is))?;
        if is {
            check(sys::napi_get_dataview_info(
                env,
                value,
                &mut length,
                &mut data,
                ptr::null_mut(),
                ptr::null_mut(),
            ))?;
            return Ok(Some((present(data), if data.is_null() { 0 } else { length })));
        }
        check(sys::napi_is_arraybuffer(env, value, &mut is))?;
        if is {
            check(sys::napi_get_arraybuffer_info(env, value, &mut data, &mut length))?;
            return Ok(Some((data.cast_const().cast(), length)));
        }
    }
    Ok(None)
}

/// A pointer that SQLite does not take for NULL.
fn present(data: *mut std::ffi::c_void) -> *const u8 {
    if data.is_null() { ptr::NonNull::dangling().as_ptr() } else { data.cast_const().cast() }
}

/// Bytes an element of a typed array.
fn width(kind: sys::napi_typedarray_type) -> usize {
    use sys::TypedarrayType as ErrorKind;
    match kind {
        ErrorKind::int16_array | ErrorKind::uint16_array => 2,
        ErrorKind::int32_array | ErrorKind::uint32_array | ErrorKind::float32_array => 4,
        ErrorKind::float64_array | ErrorKind::bigint64_array | ErrorKind::biguint64_array => 8,
        // napi_float16_array, which napi::sys does not name yet.
        11 => 2,
        _ => 1,
    }
}

#[cold]
fn unbindable(index: usize) -> Thrown {
    Thrown::of(
        ErrorKind::Type,
        "ERR_INVALID_ARG_TYPE",
        format!("Provided value cannot be bound to SQLite parameter {index}."),
    )
}
