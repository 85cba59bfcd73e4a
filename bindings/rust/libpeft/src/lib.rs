//! Parameter-efficient fine-tuning of transformers on the CPU: the C library libpeft, made safe.
//!
//! ```no_run
//! use libpeft::{Adapters, Context, Dataset, Model, Session, Tokenizer, Trainer};
//!
//! # fn main() -> libpeft::Result<()> {
//! let ctx = Context::new()?;
//! let model = Model::open(&ctx, "model.gguf", ())?; // or a Hugging Face folder
//! let tokenizer = Tokenizer::open(&ctx, "model.gguf")?;
//! let adapters = Adapters::new(&model)?;
//! adapters.add("house", "lora", [("r", 16)], 1)?;
//! let mut data = Dataset::new(&ctx, Some(&tokenizer), ())?;
//! data.load_jsonl("train.jsonl")?;
//! let mut trainer = Trainer::new(&adapters, [("max_steps", 100)])?;
//! trainer.add_job("house", Some(&data), None, ())?;
//! for step in trainer.steps() {
//!     println!("{:.4}", step?.loss);
//! }
//! adapters.save("house", "adapter", ())?;
//! let mut session = Session::new(&adapters, "house", ())?;
//! for piece in session.stream(&tokenizer, "Once upon a time", ())? {
//!     print!("{}", piece?.text);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Handles
//!
//! Every handle is counted by the library: a session keeps its model and its adapters, whatever is dropped first, so nothing
//! here has a lifetime. [`Context`], [`Model`], [`Tokenizer`] and [`Adapters`] are shared: clone them, use them from any
//! thread. [`Session`], [`Trainer`], [`Dataset`] and [`Batch`] may move to another thread, and are used by one at a time:
//! what changes them takes `&mut self`.
//!
//! # Options
//!
//! Where a function takes options, give `()` for all defaults, pairs `[("r", 16)]`, or [`Options`]. The library checks them;
//! [`schema_json`] lists keys, types, defaults and ranges.
//!
//! # Callbacks
//!
//! A panic in a closure is caught at the border and goes on once the library is left; the handles are whole. Progress and
//! token closures may use all handles but the one that runs. Log, allocator and parallel-for hooks run inside of the
//! library's work: there every call answers [`Status::Busy`].
//!
//! # What does not compile
//!
//! A session is no thing to share between threads; the model is:
//!
//! ```compile_fail,E0277
//! fn shared<T: Sync>() {}
//! shared::<libpeft::Session>();
//! ```
//! ```compile_fail,E0277
//! fn shared<T: Sync>() {}
//! shared::<libpeft::Dataset>();
//! ```
//! ```
//! fn shared<T: Send + Sync + Clone>() {}
//! shared::<libpeft::Context>();
//! shared::<libpeft::Model>();
//! shared::<libpeft::Tokenizer>();
//! shared::<libpeft::Adapters>();
//! shared::<libpeft::Canceller>();
//! fn moved<T: Send>() {}
//! moved::<libpeft::Session>();
//! moved::<libpeft::Trainer>();
//! moved::<libpeft::Dataset>();
//! moved::<libpeft::Batch>();
//! ```
//!
//! While pieces are streamed, the session does nothing else:
//!
//! ```compile_fail,E0499
//! fn two(session: &mut libpeft::Session, tokenizer: &libpeft::Tokenizer) -> libpeft::Result<()> {
//!     let pieces = session.stream(tokenizer, "one", ())?;
//!     let others = session.stream(tokenizer, "two", ())?;
//!     pieces.chain(others).count();
//!     Ok(())
//! }
//! ```
//!
//! Nor can a closure use the session that runs it, or keep what it only borrows, or what is of one thread:
//!
//! ```compile_fail,E0501
//! fn nested(session: &mut libpeft::Session, tokenizer: &libpeft::Tokenizer) -> libpeft::Result<String> {
//!     session.generate_with(tokenizer, "one", (), |_, _| {
//!         let _ = session.set_adapters("");
//!         std::ops::ControlFlow::Continue(())
//!     })
//! }
//! ```
//! ```compile_fail,E0373
//! fn borrowed(trainer: &mut libpeft::Trainer) {
//!     let mut steps = 0;
//!     trainer.on_step(|_| { steps += 1; std::ops::ControlFlow::Continue(()) }); // it lives on in the trainer
//!     println!("{steps}");
//! }
//! ```
//! ```compile_fail,E0277
//! fn of_one_thread(trainer: &mut libpeft::Trainer) {
//!     let seen = std::rc::Rc::new(std::cell::Cell::new(0)); // the trainer may move to another thread
//!     trainer.on_step(move |step| { seen.set(step.step); std::ops::ControlFlow::Continue(()) });
//! }
//! ```
//!
//! To change a handle of one thread takes `&mut`; a handle that is gone is gone:
//!
//! ```compile_fail,E0596
//! fn frozen(trainer: &libpeft::Trainer) -> libpeft::Result<()> {
//!     trainer.run()
//! }
//! ```
//! ```compile_fail,E0382
//! fn gone(session: libpeft::Session) -> libpeft::Result<()> {
//!     drop(session);
//!     session.set_adapters("")
//! }
//! ```
//!
//! And no allocator without a promise:
//!
//! ```compile_fail,E0200
//! struct Mine;
//! impl libpeft::Allocator for Mine {
//!     fn alloc(&self, _: usize, _: usize) -> *mut u8 { std::ptr::null_mut() }
//!     unsafe fn release(&self, _: *mut u8, _: usize) {}
//! }
//! ```
//!
//! # Left out
//!
//! Data for other machines, and JSON: what the library says as JSON comes as text.
#![deny(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]
#![deny(clippy::undocumented_unsafe_blocks)]

mod adapters;
mod batch;
mod border;
mod context;
mod dataset;
mod error;
mod gate;
mod handle;
mod model;
mod options;
mod parallel;
mod rows;
mod session;
mod tensor;
mod tokenizer;
mod trainer;

use std::os::raw::c_char;

use libpeft_sys as ffi;

pub use adapters::Adapters;
pub use batch::Batch;
pub use context::{Allocator, Context, ContextBuilder, Level, Memory};
pub use dataset::{Dataset, Metrics, Row};
pub use error::{Error, Result, Status};
pub use model::Model;
pub use options::{Options, Value};
pub use parallel::Work;
pub use rows::RowToken;
pub use session::{Piece, Session, Stream};
pub use tensor::{Dtype, Tensor, TensorInfo};
pub use tokenizer::{Tokenize, Tokenizer};
pub use trainer::{Canceller, LossChunk, Step, Steps, Trainer};

/// Version of the library that runs: major << 16 | minor << 8 | patch.
pub fn version() -> u32 {
    // SAFETY: takes nothing; any thread may ask.
    unsafe { ffi::peft_version() }
}

/// The same as text: `"0.1.0"`.
pub fn version_string() -> &'static str {
    // SAFETY: static text.
    unsafe { border::static_text(ffi::peft_version_string()) }.unwrap_or("")
}

/// How the library was built, as words `key=value`.
pub fn build_info() -> &'static str {
    // SAFETY: static text.
    unsafe { border::static_text(ffi::peft_build_info()) }.unwrap_or("")
}

/// Methods that are built in: `"lora"`, `"full"`, ...
pub fn methods() -> impl Iterator<Item = &'static str> {
    all(ffi::peft_method_name)
}

/// Architectures: `"llama"`, `"gpt2"`, ...
pub fn architectures() -> impl Iterator<Item = &'static str> {
    all(ffi::peft_arch_name)
}

/// Optimisers: `"adamw"`, `"sgd"`, `"lion"`, ...
pub fn optimizers() -> impl Iterator<Item = &'static str> {
    all(ffi::peft_optimizer_name)
}

/// Option schemas: `"trainer"`, `"method:lora"`, `"generate"`, ...
pub fn schemas() -> impl Iterator<Item = &'static str> {
    all(ffi::peft_schema_name)
}

fn all(name: unsafe extern "C" fn(usize) -> *const c_char) -> impl Iterator<Item = &'static str> {
    // SAFETY: any index is fine; static text, or NULL past the end.
    (0..).map_while(move |i| unsafe { border::static_text(name(i)) })
}

/// A schema as a JSON array of `{"key", "type", "default", "min", "max", "choices", "help"}`.
pub fn schema_json(schema: &str) -> Result<String> {
    let schema = border::c_text("the schema", schema)?;
    // SAFETY: the name ends with a NUL; the buffer is as long as its length says.
    border::text(8192, |buf, cap, needed| unsafe { ffi::peft_schema_json(schema.as_ptr(), buf, cap, needed) })
}
