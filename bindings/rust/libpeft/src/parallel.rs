//! The library's loops on the host's threads.
use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

type Body = unsafe extern "C" fn(*mut c_void, i64, i32);

/// One loop of the library, to be run by the host's threads: each of them calls [`Work::help`].
///
/// Nothing can go wrong for the library: what the threads leave undone, the calling one does after the closure is back.
pub struct Work<'a> {
    body: Body,
    arg: *mut c_void,
    n: i64,
    workers: usize,
    next: AtomicI64,
    joined: AtomicUsize,
    scope: PhantomData<&'a ()>,
}

// SAFETY: the library lets up to `workers` threads call the body at a time with numbers of their own, which `help` gives.
unsafe impl Sync for Work<'_> {}

impl Work<'_> {
    /// Parts of the loop.
    pub fn len(&self) -> usize {
        usize::try_from(self.n).unwrap_or(0)
    }

    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.n <= 0
    }

    /// How many threads may help: those that [`ContextBuilder::threads`](crate::ContextBuilder::threads) says.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Takes parts of the loop until none is left. Further threads than [`Work::workers`] return at once.
    pub fn help(&self) {
        let number = self
            .joined
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |j| (j < self.workers).then_some(j + 1));
        if let Ok(worker) = number {
            self.take(worker);
        }
    }

    fn take(&self, worker: usize) {
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= self.n {
                return;
            }
            // SAFETY: part i is given out once; no other thread has this worker's number while the loop runs.
            unsafe { (self.body)(self.arg, i, worker as i32) };
        }
    }
}

/// Runs a loop of C by a closure, and what the closure left of it.
///
/// # Safety
/// `body`, `arg`, `n` and `workers` are those of a `peft_parallel_for_fn`.
pub(crate) unsafe fn run(
    body: Body,
    arg: *mut c_void,
    n: i64,
    workers: i32,
    f: &(dyn Fn(&Work<'_>) + Send + Sync),
) {
    let work = Work {
        body,
        arg,
        n,
        workers: usize::try_from(workers).unwrap_or(1).max(1),
        next: AtomicI64::new(0),
        joined: AtomicUsize::new(0),
        scope: PhantomData,
    };
    crate::border::hook((), || f(&work));
    // Whoever helped is back, as the closure could only lend `work`: number 0 is free again.
    work.take(0);
}
