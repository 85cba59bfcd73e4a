//! Tensors: element types, descriptions, and those of a caller who makes a model of them.
use std::any::Any;
use std::ffi::CStr;
use std::fmt;
use std::sync::Arc;

use libpeft_sys as ffi;

use crate::error::{Error, Result, Status};

/// Type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, non_camel_case_types)]
pub enum Dtype {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
    /// One that this version of the crate does not know.
    Other(i32),
}

/// Type, number in C, elements of a block, bytes of a block.
const DTYPES: [(Dtype, i32, usize, usize); 11] = [
    (Dtype::F32, ffi::PEFT_DTYPE_F32, 1, 4),
    (Dtype::F16, ffi::PEFT_DTYPE_F16, 1, 2),
    (Dtype::BF16, ffi::PEFT_DTYPE_BF16, 1, 2),
    (Dtype::Q4_0, ffi::PEFT_DTYPE_Q4_0, 32, 18),
    (Dtype::Q4_1, ffi::PEFT_DTYPE_Q4_1, 32, 20),
    (Dtype::Q5_0, ffi::PEFT_DTYPE_Q5_0, 32, 22),
    (Dtype::Q5_1, ffi::PEFT_DTYPE_Q5_1, 32, 24),
    (Dtype::Q8_0, ffi::PEFT_DTYPE_Q8_0, 32, 34),
    (Dtype::Q4_K, ffi::PEFT_DTYPE_Q4_K, 256, 144),
    (Dtype::Q5_K, ffi::PEFT_DTYPE_Q5_K, 256, 176),
    (Dtype::Q6_K, ffi::PEFT_DTYPE_Q6_K, 256, 210),
];

impl Dtype {
    pub(crate) fn from_code(code: i32) -> Dtype {
        DTYPES.iter().find(|d| d.1 == code).map_or(Dtype::Other(code), |d| d.0)
    }

    /// The number that it has in C.
    pub fn code(self) -> i32 {
        match self {
            Dtype::Other(code) => code,
            known => DTYPES.iter().find(|d| d.0 == known).map_or(-1, |d| d.1),
        }
    }

    /// Its name: `"BF16"`; `"?"` for an unknown one.
    pub fn name(self) -> &'static str {
        // SAFETY: never NULL, and static text.
        unsafe { CStr::from_ptr(ffi::peft_dtype_name(self.code())) }.to_str().unwrap_or("?")
    }

    /// Bytes of a tensor with these sizes; `None` where that cannot be said.
    pub(crate) fn bytes(self, dims: &[i64]) -> Option<usize> {
        let (_, _, block, size) = DTYPES.iter().find(|d| d.0 == self)?;
        let (last, rows) = dims.split_last().map_or((1, dims), |(last, rows)| (*last, rows));
        let blocks = usize::try_from(last).ok()?.checked_add(block - 1)? / block;
        rows.iter().try_fold(blocks.checked_mul(*size)?, |n, d| n.checked_mul(usize::try_from(*d).ok()?))
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a tensor is called and how large it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo {
    /// Name, as Hugging Face has it.
    pub name: String,
    /// Type of the elements; an adapter's are F32.
    pub dtype: Dtype,
    /// Sizes, slowest first.
    pub dims: Vec<i64>,
}

impl TensorInfo {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().map(|d| usize::try_from(*d).unwrap_or(0)).product()
    }

    /// Has it no elements?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A tensor of a caller's memory, for [`Model::from_tensors`](crate::Model::from_tensors).
///
/// The data is not copied unless the options say so: a `Vec<u8>`, an `Arc<[u8]>`, a mapped file, whatever lends bytes. It is
/// dropped when the last handle that uses the model goes.
pub struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) dims: Vec<i64>,
    pub(crate) data: *const u8,
    pub(crate) len: usize,
    _owner: Arc<dyn Any + Send + Sync>, // lends `data`
}

// SAFETY: `data` are the bytes of `_owner`, which is Send and Sync, and only read.
unsafe impl Send for Tensor {}
// SAFETY: as above.
unsafe impl Sync for Tensor {}

struct Floats(Vec<f32>);

impl AsRef<[u8]> for Floats {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: any bytes of a float are bytes.
        unsafe {
            std::slice::from_raw_parts(self.0.as_ptr().cast(), std::mem::size_of_val(self.0.as_slice()))
        }
    }
}

impl Tensor {
    /// One of bytes, little-endian, of any alignment; sizes slowest first.
    pub fn new<T: AsRef<[u8]> + Send + Sync + 'static>(
        name: impl Into<String>,
        dtype: Dtype,
        dims: &[i64],
        data: T,
    ) -> Tensor {
        let owner = Arc::new(data);
        // Behind its pointer already: the bytes stay where they are, as long as the owner is only lent.
        let bytes: &[u8] = (*owner).as_ref();
        let (data, len) = (bytes.as_ptr(), bytes.len());
        Tensor { name: name.into(), dtype, dims: dims.to_vec(), data, len, _owner: owner }
    }

    /// One of floats.
    pub fn floats(name: impl Into<String>, dims: &[i64], mut data: Vec<f32>) -> Tensor {
        for v in &mut data {
            *v = f32::from_bits(v.to_bits().to_le()); // nothing, where the machine is little-endian
        }
        Tensor::new(name, Dtype::F32, dims, Floats(data))
    }

    /// The library trusts the pointer: are there as many bytes as the sizes say?
    pub(crate) fn check(&self) -> Result<()> {
        if self.dims.len() > 8 {
            let text =
                format!("tensor \"{}\" has {} dimensions, expected at most 8", self.name, self.dims.len());
            return Err(Error::new(Status::Shape, text));
        }
        match self.dtype.bytes(&self.dims) {
            Some(need) if need == self.len => Ok(()),
            Some(need) => {
                let (name, dims, len) = (&self.name, &self.dims, self.len);
                let text =
                    format!("tensor \"{name}\" of {} {dims:?} has {len} bytes, expected {need}", self.dtype);
                Err(Error::new(Status::Shape, text))
            }
            None => {
                let text = format!(
                    "tensor \"{}\" cannot be of type {} with sizes {:?}",
                    self.name, self.dtype, self.dims
                );
                Err(Error::new(Status::Shape, text))
            }
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, dtype, dims) = (&self.name, &self.dtype, &self.dims);
        f.debug_struct("Tensor").field("name", name).field("dtype", dtype).field("dims", dims).finish()
    }
}
