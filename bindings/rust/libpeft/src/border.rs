//! The border to C: status to `Result`, texts, buffers, and panics, which must not unwind through it.
//!
//! A panic of a callback is caught, kept for its thread, and goes on as soon as the call that ran the callback is back.
//! Hooks (log, allocator, parallel-for, release) run in the middle of the library's work and may call nearly nothing of
//! it, so within them every call answers [`Status::Busy`], and a handle that is dropped there is left to leak.
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{c_char, CStr, CString};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::path::Path;

use libpeft_sys as ffi;

use crate::error::{Error, Result, Status};

thread_local! {
    static PANIC: RefCell<Option<Box<dyn Any + Send>>> = const { RefCell::new(None) };
    static HOOKS: Cell<u32> = const { Cell::new(0) };
}

/// Runs a callback; where it panics, keeps the panic for this thread and returns `otherwise`.
pub(crate) fn caught<T>(otherwise: T, f: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => value,
        Err(payload) => {
            let kept = PANIC.try_with(|p| match &mut *p.borrow_mut() {
                place @ None => {
                    *place = Some(payload);
                    None
                }
                Some(_) => Some(payload), // the first one counts
            });
            if let Ok(Some(later)) = kept {
                if let Err(worse) = catch_unwind(AssertUnwindSafe(|| drop(later))) {
                    std::mem::forget(worse); // a panic's own drop has panicked: no end of it else
                }
            }
            otherwise
        }
    }
}

/// The same for a hook, within which the library may not be called.
pub(crate) fn hook<T>(otherwise: T, f: impl FnOnce() -> T) -> T {
    let _ = HOOKS.try_with(|h| h.set(h.get() + 1));
    let value = caught(otherwise, f);
    let _ = HOOKS.try_with(|h| h.set(h.get() - 1));
    value
}

pub(crate) fn in_hook() -> bool {
    HOOKS.try_with(|h| h.get() > 0).unwrap_or(false)
}

/// What every call begins with that a hook may not make.
pub(crate) fn enter() -> Result<()> {
    if in_hook() {
        return Err(Error::new(
            Status::Busy,
            "the library is called from within a log, allocator, parallel-for or release hook",
        ));
    }
    Ok(())
}

/// Lets a panic go on that a callback began during the call that has just returned.
pub(crate) fn resume() {
    let payload = PANIC.try_with(|p| p.borrow_mut().take()).unwrap_or(None);
    if let Some(payload) = payload {
        resume_unwind(payload);
    }
}

/// What every call ends with.
pub(crate) fn check(status: ffi::peft_status) -> Result<()> {
    resume();
    if status == ffi::PEFT_OK {
        return Ok(());
    }
    Err(Error::last(status))
}

// ---- texts -----------------------------------------------------------------------------------------------------------

/// A name for C, which ends it with a NUL: it can have none inside.
pub(crate) fn c_text(what: &str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|e| {
        Error::new(
            Status::Invalid,
            format!("{what} \"{}\" has a NUL at byte {}", text.escape_debug(), e.nul_position()),
        )
    })
}

/// A path for C, which takes UTF-8.
pub(crate) fn c_path(path: &Path) -> Result<CString> {
    match path.to_str() {
        Some(text) => c_text("the path", text),
        None => Err(Error::new(Status::Invalid, format!("the path \"{}\" is no UTF-8", path.display()))),
    }
}

/// Text of the library's own that lives for ever.
///
/// # Safety
/// `text` is NULL or static, and ends with a NUL.
pub(crate) unsafe fn static_text(text: *const c_char) -> Option<&'static str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}

/// A copy of a borrowed text.
///
/// # Safety
/// `text` is NULL or ends with a NUL, and is valid during the call.
pub(crate) unsafe fn copy_text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

// ---- buffers: (buf, cap, *needed) ---------------------------------------------------------------------------------------

/// Calls until the buffer is large enough; `first` elements to begin with.
fn filled<T: Clone + Default>(
    first: usize,
    mut f: impl FnMut(*mut T, usize, *mut usize) -> ffi::peft_status,
) -> Result<Vec<T>> {
    let mut buf = vec![T::default(); first];
    loop {
        let mut needed = 0;
        let status = f(buf.as_mut_ptr(), buf.len(), &mut needed);
        if status == ffi::PEFT_E_BUFFER && needed > buf.len() {
            resume();
            buf.resize(needed, T::default());
            continue;
        }
        check(status)?;
        buf.truncate(needed);
        return Ok(buf);
    }
}

/// An array, whose size is asked for first: for calls that say it without work.
pub(crate) fn numbers<T: Clone + Default>(
    f: impl FnMut(*mut T, usize, *mut usize) -> ffi::peft_status,
) -> Result<Vec<T>> {
    filled(0, f)
}

/// Bytes, as many as the library counts.
pub(crate) fn bytes(
    mut f: impl FnMut(*mut c_char, usize, *mut usize) -> ffi::peft_status,
) -> Result<Vec<u8>> {
    filled(256, |buf: *mut u8, cap, needed| f(buf.cast(), cap, needed))
}

/// A text, whose NUL the library counts. `first` bytes are tried at once: some calls do all their work for each try.
pub(crate) fn text(
    first: usize,
    mut f: impl FnMut(*mut c_char, usize, *mut usize) -> ffi::peft_status,
) -> Result<String> {
    let mut buf = filled(first, |buf: *mut u8, cap, needed| f(buf.cast(), cap, needed))?;
    buf.pop();
    String::from_utf8(buf).map_err(|_| Error::new(Status::Internal, "the library's text is no UTF-8"))
}
