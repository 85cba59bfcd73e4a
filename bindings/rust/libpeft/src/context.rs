//! Context: allocator, threads, instruction set, log. It is set up once, by a builder, and shared afterwards.
use std::ffi::{c_char, c_void, CStr};
use std::path::Path;
use std::sync::Arc;

use libpeft_sys as ffi;

use crate::border::{c_path, c_text, check, enter, hook, static_text, text};
use crate::error::{Error, Result, Status};
use crate::handle::{Owned, Shared};
use crate::model::Model;
use crate::options::Options;
use crate::parallel::{self, Work};

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is not as it should be.
    Warn,
    /// What happens.
    Info,
    /// What happens inside.
    Debug,
}

impl Level {
    fn from_code(code: i32) -> Level {
        match code {
            ffi::PEFT_LOG_ERROR => Level::Error,
            ffi::PEFT_LOG_WARN => Level::Warn,
            ffi::PEFT_LOG_INFO => Level::Info,
            _ => Level::Debug,
        }
    }

    fn code(self) -> i32 {
        match self {
            Level::Error => ffi::PEFT_LOG_ERROR,
            Level::Warn => ffi::PEFT_LOG_WARN,
            Level::Info => ffi::PEFT_LOG_INFO,
            Level::Debug => ffi::PEFT_LOG_DEBUG,
        }
    }
}

/// Where the library's memory comes from, in place of `malloc`. A panic in it is as if there were no memory.
///
/// # Safety
/// `alloc` returns NULL or memory of `size` bytes, aligned to `align` (a power of two), that nobody else uses until
/// `release` gets it back. Both may be called from several threads at once. They may not call this crate.
pub unsafe trait Allocator: Send + Sync + 'static {
    /// Memory of `size` bytes, or NULL.
    fn alloc(&self, size: usize, align: usize) -> *mut u8;
    /// Takes memory back.
    ///
    /// # Safety
    /// `ptr` came from `alloc` with the same size, and is used no more.
    unsafe fn release(&self, ptr: *mut u8, size: usize);
}

type Log = Box<dyn Fn(Level, &str) + Send + Sync>;
type ParallelFor = Box<dyn Fn(&Work<'_>) + Send + Sync>;

/// What C calls back, behind its `user` pointer; as long as the context in C can live.
#[derive(Default)]
struct Hooks {
    allocator: Option<Box<dyn Allocator>>,
    log: Option<(Level, Log)>,
    parallel_for: Option<ParallelFor>,
}

/// What a context is made with. See [`Context::builder`].
#[derive(Default)]
#[must_use]
pub struct ContextBuilder {
    threads: u32,
    isa: Option<String>,
    hooks: Hooks,
}

impl ContextBuilder {
    /// Threads of sessions and trainers: 1 to 1024; 0, the default, for one a CPU. No result depends on it.
    pub fn threads(mut self, n: u32) -> ContextBuilder {
        self.threads = n;
        self
    }

    /// Instruction set: `"generic"`, `"avx2"`, `"avx512"`, `"avx512bf16"`, `"neon"`, or `"auto"`, the best of this CPU, which is the default.
    pub fn isa(mut self, name: &str) -> ContextBuilder {
        self.isa = Some(name.to_string());
        self
    }

    /// Sends messages of up to a level to a closure, from the thread that caused them.
    pub fn log(mut self, level: Level, f: impl Fn(Level, &str) + Send + Sync + 'static) -> ContextBuilder {
        self.hooks.log = Some((level, Box::new(f)));
        self
    }

    /// Where all memory of what is made with the context comes from.
    pub fn allocator(mut self, allocator: impl Allocator) -> ContextBuilder {
        self.hooks.allocator = Some(Box::new(allocator));
        self
    }

    /// Runs the library's loops on the host's threads: the closure lets any number of them call [`Work::help`], and waits
    /// for them. They should be free to help: a thread that waits in a call of this crate is not.
    ///
    /// ```
    /// let ctx = libpeft::Context::builder()
    ///     .threads(4)
    ///     .parallel_for(|work| {
    ///         std::thread::scope(|s| {
    ///             for _ in 0..work.workers() {
    ///                 s.spawn(|| work.help());
    ///             }
    ///         })
    ///     })
    ///     .build()?;
    /// # Ok::<(), libpeft::Error>(())
    /// ```
    pub fn parallel_for(mut self, f: impl Fn(&Work<'_>) + Send + Sync + 'static) -> ContextBuilder {
        self.hooks.parallel_for = Some(Box::new(f));
        self
    }

    /// Makes the context. [`Status::Version`] if the library that runs is not one of this crate's version.
    pub fn build(self) -> Result<Context> {
        enter()?;
        check_version()?;
        let threads = i32::try_from(self.threads).unwrap_or(i32::MAX);
        let isa = self.isa.as_deref().map(|name| c_text("the instruction set", name)).transpose()?;
        let hooks = Arc::new(self.hooks);
        let user = Arc::as_ptr(&hooks) as *mut c_void;
        let alloc = ffi::peft_allocator { alloc: Some(on_alloc), release: Some(on_release), user };
        let chosen = if hooks.allocator.is_some() { &alloc as *const _ } else { std::ptr::null() };
        // SAFETY: the allocator is copied; its `user` lives as long as the context, see `Inner`.
        let raw =
            Owned::make(ffi::peft_context_free, |out| unsafe { ffi::peft_context_create(chosen, out) })?;
        let ctx = Context(Arc::new(Inner { raw: Shared(raw), hooks }));
        ctx.set_up(threads, isa.as_deref(), user)?;
        Ok(ctx)
    }
}

/// Makes all else: models, tokenizers, data sets. A clone is another handle of the same context.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    raw: Shared<ffi::peft_context>, // freed before the hooks: the fields are dropped in this order
    hooks: Arc<Hooks>,
}

impl Context {
    /// One with as many threads as the process has CPUs, the best instruction set, `malloc` and no log.
    pub fn new() -> Result<Context> {
        Context::builder().build()
    }

    /// For a context with other threads, instruction set, log, allocator or thread pool.
    pub fn builder() -> ContextBuilder {
        ContextBuilder::default()
    }

    /// Before anyone else can have the context: these calls are for one thread at a time.
    fn set_up(&self, threads: i32, isa: Option<&CStr>, user: *mut c_void) -> Result<()> {
        let ctx = self.as_ptr();
        // SAFETY: the context is valid and of this thread alone, here and below.
        check(unsafe { ffi::peft_context_set_threads(ctx, threads) })?;
        if let Some(name) = isa {
            // SAFETY: as above; the name ends with a NUL.
            check(unsafe { ffi::peft_context_set_isa(ctx, name.as_ptr()) })?;
        }
        if let Some((level, _)) = &self.0.hooks.log {
            // SAFETY: as above; `user` are the hooks, which live as long as the context.
            check(unsafe { ffi::peft_context_set_log(ctx, level.code(), Some(on_log), user) })?;
        }
        if self.0.hooks.parallel_for.is_some() {
            // SAFETY: as above.
            check(unsafe { ffi::peft_context_set_parallel_for(ctx, Some(on_parallel_for), user) })?;
        }
        Ok(())
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::peft_context {
        self.0.raw.as_ptr()
    }

    /// How many threads sessions and trainers have.
    pub fn threads(&self) -> u32 {
        // SAFETY: the context is valid; any thread may ask.
        u32::try_from(unsafe { ffi::peft_context_threads(self.as_ptr()) }).unwrap_or(0)
    }

    /// Name of the instruction set in use: `"avx2"`.
    pub fn isa(&self) -> &'static str {
        // SAFETY: the context is valid; the names are static text.
        unsafe { static_text(ffi::peft_context_isa(self.as_ptr())) }.unwrap_or("")
    }

    /// Bytes that the context has outstanding now, and had at most. Mapped model files are not in it.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory { now: 0, peak: 0 };
        // SAFETY: the context is valid; any thread may ask.
        unsafe { ffi::peft_context_memory(self.as_ptr(), &mut memory.now, &mut memory.peak) };
        memory
    }

    /// Lets the peak of [`Context::memory`] begin anew at what is outstanding.
    pub fn reset_memory_peak(&self) {
        // SAFETY: the context is valid; any thread may ask.
        unsafe { ffi::peft_context_memory_reset_peak(self.as_ptr()) };
    }

    /// What a path holds, as a JSON object with `"kind"`: `"model"`, `"adapter"`, `"tokenizer"` or `"data"`.
    pub fn inspect(&self, path: impl AsRef<Path>) -> Result<String> {
        enter()?;
        let path = c_path(path.as_ref())?;
        // SAFETY: the context is valid, the path ends with a NUL, the buffer is as long as its length says.
        text(4096, |buf, cap, needed| unsafe {
            ffi::peft_inspect_json(self.as_ptr(), path.as_ptr(), buf, cap, needed)
        })
    }

    /// All that is wrong with what a path holds, as a JSON object with `"ok"`, `"errors"` and `"warnings"`. `base`: the model of an
    /// adapter, or that rows of data are for. Options: schema `"check"`.
    pub fn check(
        &self,
        path: impl AsRef<Path>,
        base: Option<&Model>,
        options: impl Into<Options>,
    ) -> Result<String> {
        enter()?;
        let path = c_path(path.as_ref())?;
        let base = base.map_or(std::ptr::null(), |m| m.as_ptr().cast_const());
        options.into().with(self, "check", |o| {
            // SAFETY: the handles are valid or NULL, the path ends with a NUL, the buffer is as long as its length says.
            text(1 << 18, |buf, cap, needed| unsafe {
                ffi::peft_check_json(self.as_ptr(), path.as_ptr(), base, o, buf, cap, needed)
            })
        })
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("threads", &self.threads()).field("isa", &self.isa()).finish()
    }
}

/// Bytes of a context's allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Outstanding now.
    pub now: usize,
    /// Outstanding at most, since the beginning or [`Context::reset_memory_peak`].
    pub peak: usize,
}

/// A shared library may be newer than this crate, of the same line: before 1.0 of the same minor version.
fn check_version() -> Result<()> {
    let runs = crate::version();
    let (major, minor, patch) = (runs >> 16, runs >> 8 & 0xff, runs & 0xff);
    let (want_major, want_minor) = (ffi::PEFT_VERSION_MAJOR, ffi::PEFT_VERSION_MINOR);
    let fits = major == want_major && if major == 0 { minor == want_minor } else { minor >= want_minor };
    if fits {
        return Ok(());
    }
    let text =
        format!("the library is version {major}.{minor}.{patch}, this crate needs {want_major}.{want_minor}");
    Err(Error::new(Status::Version, text))
}

// ---- what C calls ------------------------------------------------------------------------------------------------------

/// # Safety
/// `user` is the `Hooks` of a context that lives.
unsafe fn hooks<'a>(user: *mut c_void) -> &'a Hooks {
    // SAFETY: as the caller promises.
    unsafe { &*user.cast::<Hooks>() }
}

unsafe extern "C" fn on_alloc(user: *mut c_void, size: usize, align: usize) -> *mut c_void {
    // SAFETY: `user` is what `build` gave.
    match unsafe { hooks(user) }.allocator.as_ref() {
        Some(a) => hook(std::ptr::null_mut(), || a.alloc(size, align)).cast(),
        None => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn on_release(user: *mut c_void, ptr: *mut c_void, size: usize) {
    // SAFETY: `user` is what `build` gave.
    if let Some(a) = unsafe { hooks(user) }.allocator.as_ref() {
        // SAFETY: the library gives back what `alloc` gave, with its size.
        hook((), || unsafe { a.release(ptr.cast(), size) });
    }
}

unsafe extern "C" fn on_log(user: *mut c_void, level: i32, message: *const c_char) {
    // SAFETY: `user` is what `build` gave; the message ends with a NUL.
    let (hooks, message) = unsafe { (hooks(user), CStr::from_ptr(message)) };
    if let Some((_, log)) = &hooks.log {
        hook((), || log(Level::from_code(level), &message.to_string_lossy()));
    }
}

unsafe extern "C" fn on_parallel_for(
    user: *mut c_void,
    n: i64,
    workers: i32,
    body: Option<unsafe extern "C" fn(*mut c_void, i64, i32)>,
    arg: *mut c_void,
) {
    // SAFETY: `user` is what `build` gave.
    let hooks = unsafe { hooks(user) };
    if let (Some(f), Some(body)) = (&hooks.parallel_for, body) {
        // SAFETY: these are the arguments of a peft_parallel_for_fn.
        unsafe { parallel::run(body, arg, n, workers, f.as_ref()) };
    }
}
