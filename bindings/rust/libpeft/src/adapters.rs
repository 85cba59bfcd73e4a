//! Adapters: a set of named adapters over one model.
use std::ffi::CStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use libpeft_sys as ffi;

use crate::border::{c_path, c_text, check, copy_text, enter, numbers, text};
use crate::error::Result;
use crate::gate::{Gate, Turn};
use crate::handle::{Owned, Shared};
use crate::model::Model;
use crate::options::Options;
use crate::tensor::{Dtype, TensorInfo};

/// A set of named adapters. Which of them act is said by the session or the job, never set-wide.
///
/// Any thread may use it: a clone is another handle of the same set. Who reads values (sessions, saving) and who writes them
/// (a training step, [`Adapters::write_tensor`]) take turns, so a session on another thread waits while a step of a trainer
/// over the same set is under way, and the other way round; sets of their own over one model do not wait for each other.
#[derive(Clone)]
pub struct Adapters(Arc<Inner>);

struct Inner {
    raw: Shared<ffi::peft_adapters>,
    gate: Arc<Gate>,
    names: Mutex<()>, // held while a borrowed name is copied, and while one is removed
    model: Model,     // after `raw`: its context has what C calls back
}

impl Adapters {
    /// An empty set over a model.
    pub fn new(model: &Model) -> Result<Adapters> {
        enter()?;
        // SAFETY: the model is valid; the set keeps it.
        let raw = Owned::make(ffi::peft_adapters_free, |out| unsafe {
            ffi::peft_adapters_create(model.as_ptr(), out)
        })?;
        let (gate, names, model) = (Arc::default(), Mutex::default(), model.clone());
        Ok(Adapters(Arc::new(Inner { raw: Shared(raw), gate, names, model })))
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::peft_adapters {
        self.0.raw.as_ptr()
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.0.gate
    }

    /// The model that the set is over.
    pub fn model(&self) -> &Model {
        &self.0.model
    }

    /// Adds a fresh adapter. `method`: one of [`methods`](crate::methods); options: schema `"method:<method>"`; the seed fixes
    /// the initial values.
    pub fn add(&self, name: &str, method: &str, options: impl Into<Options>, seed: u64) -> Result<()> {
        enter()?;
        let (name, c_method) = (c_text("the adapter's name", name)?, c_text("the method", method)?);
        options.into().with(self.0.model.context(), &format!("method:{method}"), |o| {
            let _turn = self.0.gate.turn(Turn::Read);
            // SAFETY: set and options are valid, the names end with a NUL.
            check(unsafe { ffi::peft_adapters_add(self.as_ptr(), name.as_ptr(), c_method.as_ptr(), o, seed) })
        })
    }

    /// Gives an adapter that starts from a text its initial values from these ids. Before training only.
    pub fn init(&self, name: &str, ids: &[i32]) -> Result<()> {
        enter()?;
        let name = c_text("the adapter's name", name)?;
        let _turn = self.0.gate.turn(Turn::Write);
        // SAFETY: the set is valid, the name ends with a NUL, the ids go with their number.
        check(unsafe { ffi::peft_adapters_init(self.as_ptr(), name.as_ptr(), ids.as_ptr(), ids.len()) })
    }

    /// Adds an adapter from a folder of Hugging Face PEFT or AdapterHub, or from a LoRA file of llama.cpp. Options: schema
    /// `"load"`.
    pub fn load(&self, name: &str, path: impl AsRef<Path>, options: impl Into<Options>) -> Result<()> {
        enter()?;
        let (name, path) = (c_text("the adapter's name", name)?, c_path(path.as_ref())?);
        options.into().with(self.0.model.context(), "load", |o| {
            let _turn = self.0.gate.turn(Turn::Read);
            // SAFETY: set and options are valid, name and path end with a NUL.
            check(unsafe { ffi::peft_adapters_load(self.as_ptr(), name.as_ptr(), path.as_ptr(), o) })
        })
    }

    /// Writes an adapter as the library reads it that has its method; as a LoRA file of llama.cpp where the path ends in
    /// `.gguf`. Options: schema `"save"`. Each file is replaced atomically.
    pub fn save(&self, name: &str, path: impl AsRef<Path>, options: impl Into<Options>) -> Result<()> {
        enter()?;
        let (name, path) = (c_text("the adapter's name", name)?, c_path(path.as_ref())?);
        options.into().with(self.0.model.context(), "save", |o| {
            let _turn = self.0.gate.turn(Turn::Read);
            // SAFETY: set and options are valid, name and path end with a NUL.
            check(unsafe { ffi::peft_adapters_save(self.as_ptr(), name.as_ptr(), path.as_ptr(), o) })
        })
    }

    /// Adds the weighted combination of adapters that an expression names: `"a:0.6, b:-0.4"`. Options: schema `"combine"`.
    pub fn combine(&self, name: &str, expression: &str, options: impl Into<Options>) -> Result<()> {
        enter()?;
        let (name, expression) = (c_text("the adapter's name", name)?, c_text("the expression", expression)?);
        options.into().with(self.0.model.context(), "combine", |o| {
            let _turn = self.0.gate.turn(Turn::Read);
            // SAFETY: set and options are valid, the texts end with a NUL.
            check(unsafe { ffi::peft_adapters_combine(self.as_ptr(), name.as_ptr(), expression.as_ptr(), o) })
        })
    }

    /// Writes base plus adapters (an expression, as in [`Session::new`](crate::Session::new)) as a model: a Hugging Face folder,
    /// or a GGUF file where the path ends in `.gguf`. Options: schema `"merge"`.
    pub fn merge(&self, expression: &str, path: impl AsRef<Path>, options: impl Into<Options>) -> Result<()> {
        enter()?;
        let (expression, path) = (c_text("the expression", expression)?, c_path(path.as_ref())?);
        options.into().with(self.0.model.context(), "merge", |o| {
            let _turn = self.0.gate.turn(Turn::Read);
            // SAFETY: set and options are valid, the texts end with a NUL.
            check(unsafe { ffi::peft_adapters_merge(self.as_ptr(), expression.as_ptr(), path.as_ptr(), o) })
        })
    }

    /// Removes an adapter. [`Status::Busy`](crate::Status::Busy) while a session, a trainer or another adapter uses it.
    pub fn remove(&self, name: &str) -> Result<()> {
        enter()?;
        let name = c_text("the adapter's name", name)?;
        let _names = self.names_lock();
        // SAFETY: the set is valid, the name ends with a NUL; nobody has a borrowed name, as we hold the lock.
        check(unsafe { ffi::peft_adapters_remove(self.as_ptr(), name.as_ptr()) })
    }

    fn names_lock(&self) -> MutexGuard<'_, ()> {
        self.0.names.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Number of adapters.
    pub fn len(&self) -> usize {
        if crate::border::in_hook() {
            return 0; // the set may be locked by the call that runs the hook
        }
        // SAFETY: the set is valid; it locks itself.
        unsafe { ffi::peft_adapters_count(self.as_ptr()) }
    }

    /// Is the set empty?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of the adapters, in the order of addition.
    pub fn names(&self) -> Vec<String> {
        if crate::border::in_hook() {
            return Vec::new();
        }
        let _names = self.names_lock();
        // SAFETY: the set is valid; a name lives until it is removed, which takes the lock.
        (0..).map_while(|i| unsafe { copy_text(ffi::peft_adapters_name(self.as_ptr(), i)) }).collect()
    }

    /// A JSON object: method, parameters, bytes, sites, options of one adapter.
    pub fn info_json(&self, name: &str) -> Result<String> {
        enter()?;
        self.info_of(&c_text("the adapter's name", name)?)
    }

    fn info_of(&self, name: &CStr) -> Result<String> {
        let _turn = self.0.gate.turn(Turn::Read);
        // SAFETY: the set is valid, the name ends with a NUL, the buffer is as long as its length says.
        text(8192, |buf, cap, needed| unsafe {
            ffi::peft_adapters_info_json(self.as_ptr(), name.as_ptr(), buf, cap, needed)
        })
    }

    /// The trainable tensors of an adapter, named as in the Hugging Face file without `base_model.model.`.
    pub fn tensors(&self, name: &str) -> Result<Vec<TensorInfo>> {
        enter()?;
        let name = c_text("the adapter's name", name)?;
        let _names = self.names_lock();
        // SAFETY: the set is valid, the name ends with a NUL.
        let n = unsafe { ffi::peft_adapters_tensor_count(self.as_ptr(), name.as_ptr()) };
        if n == 0 {
            self.info_of(&name)?; // is there such an adapter at all?
        }
        let one = |index| {
            let (mut tensor, mut ndim, mut dims) = (std::ptr::null(), 0, [0i64; 8]);
            // SAFETY: as above; 8 sizes.
            check(unsafe {
                let (a, name, dims) = (self.as_ptr(), name.as_ptr(), dims.as_mut_ptr());
                ffi::peft_adapters_tensor_info(a, name, index, &mut tensor, &mut ndim, dims)
            })?;
            // SAFETY: the tensor's name lives until the adapter is removed, which takes the lock.
            let name = unsafe { copy_text(tensor) }.unwrap_or_default();
            let ndim = usize::try_from(ndim).unwrap_or(0).min(8);
            Ok(TensorInfo { name, dtype: Dtype::F32, dims: dims[..ndim].to_vec() })
        };
        (0..n).map(one).collect()
    }

    /// Values of a tensor, row-major.
    pub fn read_tensor(&self, name: &str, tensor: &str) -> Result<Vec<f32>> {
        enter()?;
        let (name, tensor) = (c_text("the adapter's name", name)?, c_text("the tensor's name", tensor)?);
        let _turn = self.0.gate.turn(Turn::Read);
        // SAFETY: the set is valid, the names end with a NUL, the buffer is as long as its length says.
        numbers(|buf, cap, needed| unsafe {
            ffi::peft_adapters_tensor_read(self.as_ptr(), name.as_ptr(), tensor.as_ptr(), buf, cap, needed)
        })
    }

    /// Overwrites a tensor, row-major; sessions see it at their next call.
    pub fn write_tensor(&self, name: &str, tensor: &str, values: &[f32]) -> Result<()> {
        enter()?;
        let (name, tensor) = (c_text("the adapter's name", name)?, c_text("the tensor's name", tensor)?);
        let _turn = self.0.gate.turn(Turn::Write);
        let (a, data, n) = (self.as_ptr(), values.as_ptr(), values.len());
        // SAFETY: the set is valid, the names end with a NUL, the values go with their number; nobody reads them meanwhile.
        check(unsafe { ffi::peft_adapters_tensor_write(a, name.as_ptr(), tensor.as_ptr(), data, n) })
    }
}

impl std::fmt::Debug for Adapters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adapters").field("names", &self.names()).finish()
    }
}
