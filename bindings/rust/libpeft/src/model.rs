//! Model: a frozen base, shared by all that use it.
use std::any::Any;
use std::ffi::{c_void, CString};
use std::os::raw::c_char;
use std::path::Path;
use std::sync::Arc;

use libpeft_sys as ffi;

use crate::border::{c_path, c_text, check, copy_text, enter, hook, numbers, static_text, text};
use crate::context::Context;
use crate::error::Result;
use crate::handle::{Owned, Shared};
use crate::options::Options;
use crate::tensor::{Dtype, Tensor, TensorInfo};

/// A frozen base model: mapped from its file, in the types that the file has, never written. Immutable; a clone is another
/// handle of the same model.
///
/// ```
/// use libpeft::{Context, Model};
/// let config = r#"{"model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
///     "num_attention_heads": 2, "vocab_size": 14, "max_position_embeddings": 48}"#;
/// let model = Model::random(&Context::new()?, config, 1)?;
/// assert_eq!(model.arch(), "llama");
/// # Ok::<(), libpeft::Error>(())
/// ```
#[derive(Clone)]
pub struct Model(Arc<Inner>);

struct Inner {
    raw: Shared<ffi::peft_model>,
    ctx: Context, // after `raw`: it has what C calls back
}

impl Model {
    /// Opens a Hugging Face folder or a GGUF file. Options: schema `"model"`. A mapped file is trusted not to shrink; for
    /// storage that may change set `load` to `"copy"`.
    pub fn open(ctx: &Context, path: impl AsRef<Path>, options: impl Into<Options>) -> Result<Model> {
        enter()?;
        let path = c_path(path.as_ref())?;
        options.into().with(ctx, "model", |o| {
            // SAFETY: context and options are valid, the path ends with a NUL.
            Model::make(ctx, |out| unsafe { ffi::peft_model_open(ctx.as_ptr(), path.as_ptr(), o, out) })
        })
    }

    /// A model with seeded random weights from the text of a Hugging Face config.json.
    pub fn random(ctx: &Context, config: &str, seed: u64) -> Result<Model> {
        enter()?;
        // SAFETY: the context is valid; pointer and length of a text.
        Model::make(ctx, |out| unsafe {
            ffi::peft_model_create_random(ctx.as_ptr(), config.as_ptr().cast(), config.len(), seed, out)
        })
    }

    /// A model of tensors in memory, with the text of a Hugging Face config.json. Tensors that the architecture does not use
    /// are ignored. Options: schema `"model"`; `load` = `"copy"` copies the data and drops the tensors before the call returns.
    pub fn from_tensors(
        ctx: &Context,
        config: &str,
        tensors: Vec<Tensor>,
        options: impl Into<Options>,
    ) -> Result<Model> {
        enter()?;
        let names: Vec<CString> =
            tensors.iter().map(|t| c_text("the tensor's name", &t.name)).collect::<Result<_>>()?;
        tensors.iter().try_for_each(Tensor::check)?;
        let names: Vec<*const c_char> = names.iter().map(|n| n.as_ptr()).collect();
        let dtypes: Vec<i32> = tensors.iter().map(|t| t.dtype.code()).collect();
        let ndims: Vec<i32> = tensors.iter().map(|t| t.dims.len() as i32).collect(); // at most 8
        let dims: Vec<i64> =
            tensors.iter().flat_map(|t| (0..8).map(move |i| t.dims.get(i).copied().unwrap_or(1))).collect();
        let data: Vec<*const c_void> = tensors.iter().map(|t| t.data.cast()).collect();
        let n = tensors.len();
        options.into().with(ctx, "model", |o| {
            let user = Box::into_raw(Box::new(tensors)).cast::<c_void>();
            // SAFETY: n entries each (8 sizes), which live during the call; the data is as long as its sizes say, and lives
            // until `on_release` drops the tensors, which the library calls once, also if it fails.
            Model::make(ctx, |out| unsafe {
                ffi::peft_model_create_from_tensors(
                    ctx.as_ptr(),
                    config.as_ptr().cast(),
                    config.len(),
                    names.as_ptr(),
                    dtypes.as_ptr(),
                    ndims.as_ptr(),
                    dims.as_ptr(),
                    data.as_ptr(),
                    n,
                    o,
                    Some(on_release),
                    user,
                    out,
                )
            })
        })
    }

    fn make(
        ctx: &Context,
        make: impl FnOnce(*mut *mut ffi::peft_model) -> ffi::peft_status,
    ) -> Result<Model> {
        let raw = Owned::make(ffi::peft_model_free, make)?;
        Ok(Model(Arc::new(Inner { raw: Shared(raw), ctx: ctx.clone() })))
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::peft_model {
        self.0.raw.as_ptr()
    }

    /// The context that it was made with.
    pub fn context(&self) -> &Context {
        &self.0.ctx
    }

    /// Name of the architecture: `"llama"`.
    pub fn arch(&self) -> &'static str {
        // SAFETY: the model is valid; the names are static text.
        unsafe { static_text(ffi::peft_model_arch(self.as_ptr())) }.unwrap_or("")
    }

    /// A JSON object: architecture, sizes, types, bytes, and the modules that adapters can be put on (`"sites"`).
    pub fn info_json(&self) -> Result<String> {
        enter()?;
        // SAFETY: the model is valid; the buffer is as long as its length says.
        text(8192, |buf, cap, needed| unsafe { ffi::peft_model_info_json(self.as_ptr(), buf, cap, needed) })
    }

    /// The model's config in Hugging Face's keys, as JSON.
    pub fn config_json(&self) -> Result<String> {
        enter()?;
        // SAFETY: the model is valid; the buffer is as long as its length says.
        text(2048, |buf, cap, needed| unsafe { ffi::peft_model_config_json(self.as_ptr(), buf, cap, needed) })
    }

    /// All tensors, in Hugging Face's names and shapes whatever the file was.
    pub fn tensors(&self) -> Result<Vec<TensorInfo>> {
        enter()?;
        // SAFETY: the model is valid.
        let n = unsafe { ffi::peft_model_tensor_count(self.as_ptr()) };
        (0..n).map(|index| self.tensor_info(index)).collect()
    }

    fn tensor_info(&self, index: usize) -> Result<TensorInfo> {
        let (mut name, mut dtype, mut ndim, mut dims) = (std::ptr::null(), 0, 0, [0i64; 8]);
        // SAFETY: the model is valid; 8 sizes.
        check(unsafe {
            ffi::peft_model_tensor_info(
                self.as_ptr(),
                index,
                &mut name,
                &mut dtype,
                &mut ndim,
                dims.as_mut_ptr(),
            )
        })?;
        // SAFETY: the name lives as long as the model.
        let name = unsafe { copy_text(name) }.unwrap_or_default();
        let ndim = usize::try_from(ndim).unwrap_or(0).min(8);
        Ok(TensorInfo { name, dtype: Dtype::from_code(dtype), dims: dims[..ndim].to_vec() })
    }

    /// A tensor as floats, dequantised, row-major.
    pub fn tensor(&self, name: &str) -> Result<Vec<f32>> {
        enter()?;
        let name = c_text("the tensor's name", name)?;
        // SAFETY: the model is valid, the name ends with a NUL, the buffer is as long as its length says.
        numbers(|buf, cap, needed| unsafe {
            ffi::peft_model_tensor_read(self.as_ptr(), name.as_ptr(), buf, cap, needed)
        })
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("arch", &self.arch()).finish()
    }
}

unsafe extern "C" fn on_release(user: *mut c_void) {
    // SAFETY: the box that `from_tensors` gave; the library calls this once.
    let tensors: Box<dyn Any> = unsafe { Box::from_raw(user.cast::<Vec<Tensor>>()) };
    hook((), move || drop(tensors));
}
