//! What belongs to the addon's own realm: the global object in which Node loaded the addon.
//!
//! The package's JavaScript may be loaded many times in one thread, into realms that come and go.
//! What must outlive them is made here, once an environment, by `realm.js`: the memory of the
//! reports, and the functions that the native side calls for itself. On the environment's thread.

use std::ptr;

use napi::sys;

use super::errors::{Outcome, check};
use super::value::{call, get};

const SCRIPT: &str = include_str!("realm.js");

/// See the module's documentation.
#[derive(Debug)]
pub struct Realm {
    env: sys::napi_env,
    /// What the script evaluated to, for the environment's whole life.
    object: sys::napi_ref,
}

impl Realm {
    /// Runs the script.
    ///
    /// # Errors
    /// N-API's.
    pub(super) fn create(env: sys::napi_env) -> Outcome<Self> {
        let (mut script, mut object, mut reference) =
            (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        // SAFETY: `env` is the environment that is being registered, on its thread.
        unsafe {
            check(sys::napi_create_string_utf8(
                env,
                SCRIPT.as_ptr().cast(),
                SCRIPT.len().cast_signed(),
                &mut script,
            ))?;
            check(sys::napi_run_script(env, script, &mut object))?;
            check(sys::napi_create_reference(env, object, 1, &mut reference))?;
        }
        Ok(Self { env, object: reference })
    }

    /// What `realm.js` evaluated to.
    ///
    /// # Errors
    /// N-API's.
    pub fn object(&self) -> Outcome<sys::napi_value> {
        let mut object = ptr::null_mut();
        // SAFETY: the reference was made in `create` and is not deleted.
        check(unsafe { sys::napi_get_reference_value(self.env, self.object, &mut object) })?;
        Ok(object)
    }

    /// Calls the function `name` of the script's object.
    ///
    /// # Errors
    /// N-API's, and what the function throws.
    pub(super) fn call(
        &self,
        name: &std::ffi::CStr,
        argument: sys::napi_value,
    ) -> Outcome<sys::napi_value> {
        let function = get(self.env, self.object()?, name)?;
        call(self.env, function, &[argument])
    }

    /// The memory of the report: `length` bytes, for the environment's whole life.
    ///
    /// # Errors
    /// N-API's.
    pub(super) fn report(&self) -> Outcome<(*mut std::ffi::c_void, usize)> {
        let view = self.call(c"view", get(self.env, self.object()?, c"report")?)?;
        let (mut data, mut length) = (ptr::null_mut(), 0);
        // SAFETY: `view` is a handle of the open scope. The script's object keeps the memory, which
        // is shared and so never detached or moved.
        check(unsafe {
            sys::napi_get_typedarray_info(
                self.env,
                view,
                ptr::null_mut(),
                &mut length,
                &mut data,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        })?;
        Ok((data, length))
    }
}
