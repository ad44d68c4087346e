//! One entry of a log: out of a callback's arguments, and back into an object.

use napi::sys;

use super::argument::read_string;
use super::errors::{ErrorKind, Outcome, Thrown, check};
use super::raw_call::{Call, text};
use super::value::{new_object, null, number_value};
use crate::agent_log::{Entries, Entry, Field, Value, ValueKind};

/// How JavaScript abbreviates an entry: bits of `shape`, the number in front of its values.
mod shape {
    /// `taskId`, `timestamp` and `agent` are those of the entry before.
    pub const SAME_TASK: u32 = 1;
    pub const SAME_TIMESTAMP: u32 = 2;
    pub const SAME_AGENT: u32 = 4;
    /// `detail` and `agent` are NULL.
    pub const NO_DETAIL: u32 = 8;
    pub const NO_AGENT: u32 = 16;
    /// `type` is one that was interned: its number is in the bits from `INTERNED_SHIFT` on.
    pub const INTERNED_TYPE: u32 = 32;
    pub const INTERNED_SHIFT: u32 = 8;
}

/// Reads an entry to the end of `entries`: its shape, its six values, and those of further columns,
/// from argument `first` on. Most of its values are usually known, and need not be read out of V8
/// again.
#[inline]
pub(super) fn read_entry(
    call: &Call<'_>,
    first: usize,
    interned: &[Box<[u8]>],
    entries: &mut Entries,
) -> Outcome<()> {
    let shape = call.number(first)?;
    let is = |bit: u32| shape & bit != 0;
    entries.begin();
    for (field, value) in Field::ALL.into_iter().zip(call.rest(first + 1)) {
        let (same, absent) = match field {
            Field::TaskId => (is(shape::SAME_TASK), false),
            Field::Timestamp => (is(shape::SAME_TIMESTAMP), false),
            Field::Agent => (is(shape::SAME_AGENT), is(shape::NO_AGENT)),
            Field::Detail => (false, is(shape::NO_DETAIL)),
            Field::Text | Field::Type => (false, false),
        };
        if absent {
            // The header says NULL from the start.
            continue;
        }
        if same {
            entries.repeat(field);
            continue;
        }
        let read = entries.value(field, |bytes| {
            if field == Field::Type && is(shape::INTERNED_TYPE) {
                let known = interned.get((shape >> shape::INTERNED_SHIFT) as usize);
                bytes.extend_from_slice(known.map_or(&[][..], |known| known));
                return Ok(());
            }
            read_value(call.env, field, *value, bytes)
        });
        if let Err(thrown) = read {
            entries.abandon();
            return Err(thrown);
        }
    }
    for (index, value) in call.rest(first + 1 + Field::ALL.len()).iter().enumerate() {
        if let Err(thrown) = read_more(call.env, index, *value, entries) {
            entries.abandon();
            return Err(thrown);
        }
    }
    entries.finish();
    Ok(())
}

#[inline]
fn read_value(
    env: sys::napi_env,
    field: Field,
    value: sys::napi_value,
    bytes: &mut Vec<u8>,
) -> Outcome<()> {
    let start = bytes.len();
    if !read_string(env, value, bytes)? {
        return Err(bad_value(
            field,
            if field.is_optional() { "must be a string or null" } else { "must be a string" },
        ));
    }
    if bytes.len() == start && !field.is_optional() && field != Field::Text {
        return Err(bad_value(field, "must not be empty"));
    }
    Ok(())
}

/// Reads the value of further column `index`, as node:sqlite binds it.
fn read_more(
    env: sys::napi_env,
    index: usize,
    value: sys::napi_value,
    entries: &mut Entries,
) -> Outcome<()> {
    let mut kind = 0;
    // SAFETY: `value` is a handle of the running callback; the out-pointers are valid.
    check(unsafe { sys::napi_typeof(env, value, &mut kind) })?;
    let number = |bytes: &mut Vec<u8>, number: [u8; 8]| {
        bytes.extend_from_slice(&number);
        Ok(())
    };
    match kind {
        sys::ValueType::napi_undefined | sys::ValueType::napi_null => {
            entries.more(ValueKind::Null, |_| Ok(()))
        }
        sys::ValueType::napi_string => {
            entries.more(ValueKind::Text, |bytes| read_string(env, value, bytes).map(drop))
        }
        sys::ValueType::napi_number => {
            let mut real = 0.0;
            // SAFETY: as above.
            check(unsafe { sys::napi_get_value_double(env, value, &mut real) })?;
            entries.more(ValueKind::Real, |bytes| number(bytes, real.to_ne_bytes()))
        }
        sys::ValueType::napi_bigint => {
            let (mut integer, mut is_exact) = (0, false);
            // SAFETY: as above.
            check(unsafe {
                sys::napi_get_value_bigint_int64(env, value, &mut integer, &mut is_exact)
            })?;
            if !is_exact {
                return Err(bad_column(index, "must be a bigint of at most 64 bits"));
            }
            entries.more(ValueKind::Integer, |bytes| number(bytes, integer.to_ne_bytes()))
        }
        _ => Err(bad_column(index, "must be a string, a number, a bigint or null")),
    }
}

/// Names the column by `#index`; the call's JavaScript knows its name, and which entry it was.
#[cold]
fn bad_column(index: usize, wanted: &str) -> Thrown {
    Thrown::of(ErrorKind::Type, "ERR_INVALID_ARG_TYPE", format!("#{index} {wanted}"))
}

/// Names the property; the call's JavaScript adds which entry it was.
#[cold]
fn bad_value(field: Field, wanted: &str) -> Thrown {
    Thrown::of(ErrorKind::Type, "ERR_INVALID_ARG_TYPE", format!("{} {wanted}", field.name()))
}

/// The entry as an object; `columns` are the further ones of its log.
pub(super) fn entry_value(
    env: sys::napi_env,
    entry: &Entry<'_>,
    columns: &[String],
) -> Outcome<sys::napi_value> {
    let object = new_object(env)?;
    let set = |name: &str, value| {
        let name = text(env, name.as_bytes())?;
        // SAFETY: the handles were made in the scope that is open.
        check(unsafe { sys::napi_set_property(env, object, name, value) })
    };
    for (field, value) in Field::ALL.into_iter().zip(entry.values) {
        let value = match value {
            Some(bytes) => text(env, bytes)?,
            None => null(env)?,
        };
        set(field.name(), value)?;
    }
    for (column, value) in columns.iter().zip(entry.more) {
        let value = match value {
            Value::Null => null(env)?,
            Value::Text(bytes) => text(env, bytes)?,
            Value::Real(number) => number_value(env, number)?,
            Value::Integer(integer) => {
                let mut value = std::ptr::null_mut();
                // SAFETY: `env` is alive on this thread.
                check(unsafe { sys::napi_create_bigint_int64(env, integer, &mut value) })?;
                value
            }
        };
        set(column, value)?;
    }
    Ok(object)
}
