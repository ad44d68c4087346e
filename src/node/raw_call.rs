//! How a JavaScript call enters Rust: arguments, panics, exceptions.

use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::rc::Rc;

use napi::sys;

use super::environment::Environment;
use super::errors::{ErrorKind, Outcome, Thrown, check, throw};

/// Arguments that are kept without allocating.
const INLINE: usize = 16;

/// A callback as N-API calls it.
pub type Raw = unsafe extern "C" fn(sys::napi_env, sys::napi_callback_info) -> sys::napi_value;

/// A running call from JavaScript.
#[derive(Debug)]
pub struct Call<'a> {
    /// The calling thread's N-API environment.
    pub env: sys::napi_env,
    /// What that thread has open.
    pub environment: &'a Rc<Environment>,
    /// The arguments.
    pub args: &'a [sys::napi_value],
}

impl Call<'_> {
    /// The arguments from `index` on.
    #[inline]
    pub fn rest(&self, index: usize) -> &[sys::napi_value] {
        self.args.get(index..).unwrap_or_default()
    }

    /// Argument `index`.
    ///
    /// # Errors
    /// `ERR_INVALID_ARG_TYPE` if there are fewer.
    #[inline]
    pub fn arg(&self, index: usize) -> Outcome<sys::napi_value> {
        self.args.get(index).copied().ok_or_else(missing)
    }

    /// Argument `index` as the number of a connection or statement.
    ///
    /// # Errors
    /// `ERR_INVALID_ARG_TYPE` if it is no number.
    #[inline]
    pub fn number(&self, index: usize) -> Outcome<u32> {
        let mut number = 0;
        // SAFETY: the argument is a handle of the running callback.
        let status = unsafe { sys::napi_get_value_uint32(self.env, self.arg(index)?, &mut number) };
        if status == sys::Status::napi_ok { Ok(number) } else { Err(missing()) }
    }

    /// Argument `index` as a boolean; anything else is `false`.
    #[inline]
    pub fn flag(&self, index: usize) -> bool {
        let mut flag = false;
        if let Some(value) = self.args.get(index) {
            // SAFETY: the argument is a handle of the running callback. A value that is no
            // boolean leaves `flag` as it is.
            unsafe { sys::napi_get_value_bool(self.env, *value, &mut flag) };
        }
        flag
    }

    /// `undefined`.
    #[inline]
    pub fn undefined(&self) -> Outcome<sys::napi_value> {
        Ok(ptr::null_mut())
    }
}

#[cold]
fn missing() -> Thrown {
    Thrown::of(
        ErrorKind::Type,
        "ERR_INVALID_ARG_TYPE",
        "fusion-sqlite's native functions are for its own JavaScript",
    )
}

/// Runs `body` for a call from JavaScript: reads the arguments, throws what it returns as an
/// error, and keeps a panic from crossing into Node.
///
/// # Safety
/// `env` and `info` are those that N-API passed to a callback made by [`export`].
#[inline]
pub unsafe fn enter(
    env: sys::napi_env,
    info: sys::napi_callback_info,
    body: impl FnOnce(&Call<'_>) -> Outcome<sys::napi_value>,
) -> sys::napi_value {
    let mut inline = [ptr::null_mut(); INLINE];
    let mut argc = INLINE;
    let mut data = ptr::null_mut();
    // SAFETY: `inline` has room for `argc` handles; the caller vouches for `env` and `info`.
    let status = unsafe {
        sys::napi_get_cb_info(env, info, &mut argc, inline.as_mut_ptr(), ptr::null_mut(), &mut data)
    };
    if status != sys::Status::napi_ok || data.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: `export` passed a leaked `Rc` of this environment, which is never freed; it is
    // only used on the thread of `env`. ManuallyDrop: the count belongs to `export`.
    let environment = unsafe { std::mem::ManuallyDrop::new(Rc::from_raw(data.cast())) };
    let many: Vec<sys::napi_value>;
    let args = if let Some(args) = inline.get(..argc) {
        args
    } else {
        let mut room = vec![ptr::null_mut(); argc];
        // SAFETY: `room` has room for `argc` handles.
        unsafe {
            sys::napi_get_cb_info(
                env,
                info,
                &mut argc,
                room.as_mut_ptr(),
                ptr::null_mut(),
                ptr::null_mut(),
            );
        }
        many = room;
        &many
    };
    let call = Call { env, environment: &environment, args };
    match catch_unwind(AssertUnwindSafe(|| body(&call))) {
        Ok(Ok(value)) => return value,
        Ok(Err(Thrown::Pending)) => {}
        Ok(Err(Thrown::Error(exception))) => {
            // What JavaScript threw while SQLite called it is the reason for SQLite's error.
            let mut pending = false;
            // SAFETY: `env` is the running callback's.
            unsafe { sys::napi_is_exception_pending(env, &mut pending) };
            if !pending {
                throw(env, &exception);
            }
        }
        Err(_) => {
            if let Thrown::Error(exception) = Thrown::of(
                ErrorKind::Plain,
                "ERR_FUSION_INTERNAL",
                "internal error in fusion-sqlite: a native call panicked",
            ) {
                throw(env, &exception);
            }
        }
    }
    ptr::null_mut()
}

/// Makes the raw callback `$name` of the function `$body`.
macro_rules! callback {
    ($body:path) => {{
        unsafe extern "C" fn raw(
            env: napi::sys::napi_env,
            info: napi::sys::napi_callback_info,
        ) -> napi::sys::napi_value {
            // SAFETY: N-API calls this with the environment and info of the call.
            unsafe { $crate::node::raw_call::enter(env, info, $body) }
        }
        raw
    }};
}
pub(crate) use callback;

/// Adds `function` to `exports` under `name`.
///
/// # Errors
/// When Node could not create it.
pub fn export(
    env: sys::napi_env,
    exports: sys::napi_value,
    name: &CStr,
    function: Raw,
    environment: &Rc<Environment>,
) -> napi::Result<()> {
    // JavaScript may call the callback for as long as it can reach it, and N-API does not report
    // when that ends: so this count is never released. What it keeps is small, and empty once the
    // thread has ended.
    let data = Rc::into_raw(Rc::clone(environment)).cast_mut().cast::<c_void>();
    let mut value = ptr::null_mut();
    // SAFETY: `env` and `exports` are those of the module's registration.
    let status = unsafe {
        let status = sys::napi_create_function(
            env,
            name.as_ptr(),
            name.count_bytes().cast_signed(),
            Some(function),
            data,
            &mut value,
        );
        if status == sys::Status::napi_ok {
            sys::napi_set_named_property(env, exports, name.as_ptr(), value)
        } else {
            status
        }
    };
    if status == sys::Status::napi_ok {
        Ok(())
    } else {
        Err(napi::Error::from_status(napi::Status::from(status)))
    }
}

/// A JavaScript string of UTF-8 text; what is not UTF-8 becomes U+FFFD.
///
/// # Errors
/// `ERR_STRING_TOO_LONG`, if it is longer than V8's strings can be.
#[inline]
pub fn text(env: sys::napi_env, bytes: &[u8]) -> Outcome<sys::napi_value> {
    let mut value = ptr::null_mut();
    let start = bytes.as_ptr().cast::<c_char>();
    let length = bytes.len().cast_signed();
    // SAFETY: `bytes` is readable for its length during the call; `env` is the caller's.
    let status = unsafe {
        // V8 copies Latin-1 without decoding it, and ASCII is the same in both.
        if bytes.is_ascii() {
            sys::napi_create_string_latin1(env, start, length, &mut value)
        } else {
            sys::napi_create_string_utf8(env, start, length, &mut value)
        }
    };
    if status == sys::Status::napi_generic_failure && bytes.len() > LONGEST {
        return Err(too_long());
    }
    check(status)?;
    Ok(value)
}

/// Bytes up to which a text is a string in every V8: 2^28 - 16 UTF-16 units, on 32-bit systems.
const LONGEST: usize = (1 << 28) - 16;

#[cold]
fn too_long() -> Thrown {
    Thrown::of(
        ErrorKind::Plain,
        "ERR_STRING_TOO_LONG",
        "Cannot create a string longer than the buffer.constants.MAX_STRING_LENGTH of this Node: read \
         the text in parts, with substr(), or as a blob, with CAST(… AS BLOB)",
    )
}
