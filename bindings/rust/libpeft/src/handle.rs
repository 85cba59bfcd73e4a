//! Handles of C objects: made once, freed once, and which threads may have them.
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use libpeft_sys as ffi;

use crate::border;
use crate::error::Result;

/// One reference to a C object, which may move from thread to thread: the library has no object that is bound to one.
pub(crate) struct Owned<T> {
    ptr: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

// SAFETY: every handle may be used and freed on any thread, by one at a time (peft.h, "Threads").
unsafe impl<T> Send for Owned<T> {}

impl<T> Owned<T> {
    /// Takes what `make` writes.
    pub(crate) fn make(
        free: unsafe extern "C" fn(*mut T),
        make: impl FnOnce(*mut *mut T) -> ffi::peft_status,
    ) -> Result<Owned<T>> {
        let mut out = std::ptr::null_mut();
        let status = make(&mut out);
        // Taken first: what a panicking callback left behind is freed as well.
        let made = NonNull::new(out).map(|ptr| Owned { ptr, free });
        border::check(status)?;
        made.ok_or_else(|| crate::Error::new(crate::Status::Internal, "the library returned no handle"))
    }

    pub(crate) fn as_ptr(&self) -> *mut T {
        self.ptr.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if border::in_hook() {
            return;
        }
        // SAFETY: this is the one reference that `make` took, and nobody has used it up.
        unsafe { (self.free)(self.ptr.as_ptr()) };
        if !std::thread::panicking() {
            border::resume();
        }
    }
}

/// The same for an object that any number of threads may use at once: context, model, tokenizer, adapter set.
pub(crate) struct Shared<T>(pub(crate) Owned<T>);

// SAFETY: only made for objects that the library lets any number of threads use at once (peft.h, "Threads").
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }
}

/// Where cancellers find an object that may be gone.
pub(crate) struct Slot<T> {
    ptr: Mutex<*mut T>,
    cancel: unsafe extern "C" fn(*mut T),
}

// SAFETY: the pointer is used under the lock only, for a call that any thread may make at any time.
unsafe impl<T> Send for Slot<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Slot<T> {}

impl<T> Slot<T> {
    pub(crate) fn new(object: &Owned<T>, cancel: unsafe extern "C" fn(*mut T)) -> Arc<Slot<T>> {
        Arc::new(Slot { ptr: Mutex::new(object.as_ptr()), cancel })
    }

    pub(crate) fn cancel(&self) {
        let ptr = self.ptr.lock().unwrap_or_else(|e| e.into_inner());
        if !ptr.is_null() {
            // SAFETY: the object is not freed before `clear`, which takes the lock.
            unsafe { (self.cancel)(*ptr) };
        }
    }

    /// The object is about to be freed.
    pub(crate) fn clear(&self) {
        *self.ptr.lock().unwrap_or_else(|e| e.into_inner()) = std::ptr::null_mut();
    }
}
