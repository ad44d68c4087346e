//! Values for JavaScript, made in the scope that is open.

use std::ffi::CStr;
use std::ptr;

use napi::sys;
use serde_json::{Map, Value};

use super::errors::{Outcome, check};
use super::raw_call::text;

pub(super) fn number_value(env: sys::napi_env, number: f64) -> Outcome<sys::napi_value> {
    let mut value = ptr::null_mut();
    // SAFETY: `env` is alive on this thread.
    check(unsafe { sys::napi_create_double(env, number, &mut value) })?;
    Ok(value)
}

pub(super) fn null(env: sys::napi_env) -> Outcome<sys::napi_value> {
    let mut value = ptr::null_mut();
    // SAFETY: `env` is alive on this thread.
    check(unsafe { sys::napi_get_null(env, &mut value) })?;
    Ok(value)
}

pub(super) fn undefined(env: sys::napi_env) -> Outcome<sys::napi_value> {
    let mut value = ptr::null_mut();
    // SAFETY: `env` is alive on this thread.
    check(unsafe { sys::napi_get_undefined(env, &mut value) })?;
    Ok(value)
}

pub(super) fn new_object(env: sys::napi_env) -> Outcome<sys::napi_value> {
    let mut value = ptr::null_mut();
    // SAFETY: `env` is alive on this thread.
    check(unsafe { sys::napi_create_object(env, &mut value) })?;
    Ok(value)
}

pub(super) fn new_array(env: sys::napi_env) -> Outcome<sys::napi_value> {
    let mut value = ptr::null_mut();
    // SAFETY: `env` is alive on this thread.
    check(unsafe { sys::napi_create_array(env, &mut value) })?;
    Ok(value)
}

pub(super) fn set(
    env: sys::napi_env,
    object: sys::napi_value,
    name: &CStr,
    value: sys::napi_value,
) -> Outcome<()> {
    // SAFETY: the handles were made in the scope that is open.
    check(unsafe { sys::napi_set_named_property(env, object, name.as_ptr(), value) })
}

pub(super) fn set_element(
    env: sys::napi_env,
    array: sys::napi_value,
    index: u32,
    value: sys::napi_value,
) -> Outcome<()> {
    // SAFETY: the handles were made in the scope that is open.
    check(unsafe { sys::napi_set_element(env, array, index, value) })
}

pub(super) fn boolean(env: sys::napi_env, value: bool) -> Outcome<sys::napi_value> {
    let mut boolean = ptr::null_mut();
    // SAFETY: `env` is alive on this thread.
    check(unsafe { sys::napi_get_boolean(env, value, &mut boolean) })?;
    Ok(boolean)
}

/// The property `name` of `object`.
pub(super) fn get(
    env: sys::napi_env,
    object: sys::napi_value,
    name: &CStr,
) -> Outcome<sys::napi_value> {
    let mut value = ptr::null_mut();
    // SAFETY: the handles are those of the scope that is open.
    check(unsafe { sys::napi_get_named_property(env, object, name.as_ptr(), &mut value) })?;
    Ok(value)
}

/// Calls `function`, which may run anything.
pub(super) fn call(
    env: sys::napi_env,
    function: sys::napi_value,
    arguments: &[sys::napi_value],
) -> Outcome<sys::napi_value> {
    let this = undefined(env)?;
    let mut result = ptr::null_mut();
    // SAFETY: the handles are those of the scope that is open.
    check(unsafe {
        sys::napi_call_function(
            env,
            this,
            function,
            arguments.len(),
            arguments.as_ptr(),
            &mut result,
        )
    })?;
    Ok(result)
}

/// Sets each field of a JSON object as a property of `object`.
pub(super) fn set_fields(
    env: sys::napi_env,
    object: sys::napi_value,
    fields: &Map<String, Value>,
) -> Outcome<()> {
    for (name, field) in fields {
        let (name, field) = (text(env, name.as_bytes())?, json_value(env, field)?);
        // SAFETY: the handles were made in the scope that is open.
        check(unsafe { sys::napi_set_property(env, object, name, field) })?;
    }
    Ok(())
}

/// What `JSON.parse` returns for `json`.
fn json_value(env: sys::napi_env, json: &Value) -> Outcome<sys::napi_value> {
    match json {
        Value::Null => null(env),
        Value::Bool(value) => boolean(env, *value),
        Value::Number(number) => number_value(env, number.as_f64().unwrap_or(f64::NAN)),
        Value::String(string) => text(env, string.as_bytes()),
        Value::Array(values) => {
            let array = new_array(env)?;
            for (index, value) in (0..).zip(values) {
                set_element(env, array, index, json_value(env, value)?)?;
            }
            Ok(array)
        }
        Value::Object(fields) => {
            let object = new_object(env)?;
            set_fields(env, object, fields)?;
            Ok(object)
        }
    }
}
