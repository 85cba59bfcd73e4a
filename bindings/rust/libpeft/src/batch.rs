//! Batch: rows for a data set, a forward pass or an accumulation.
use libpeft_sys as ffi;

use crate::border::{c_text, check, enter};
use crate::context::Context;
use crate::error::Result;
use crate::handle::Owned;

/// Rows of token ids, with labels and weights if they have them.
///
/// ```
/// use libpeft::{Batch, Context};
/// let mut batch = Batch::new(&Context::new()?)?;
/// batch.set("input_ids", &[vec![1, 2, 3], vec![4, 5]])?;
/// batch.set("labels", &[[-100, 2, 3].as_slice(), &[-100, 5]])?; // -100: no loss
/// assert_eq!(batch.rows(), 2);
/// # Ok::<(), libpeft::Error>(())
/// ```
pub struct Batch {
    raw: Owned<ffi::peft_batch>,
    _ctx: Context, // after `raw`: it has what C calls back
}

impl Batch {
    /// An empty batch.
    pub fn new(ctx: &Context) -> Result<Batch> {
        enter()?;
        // SAFETY: the context is valid.
        let raw =
            Owned::make(ffi::peft_batch_free, |out| unsafe { ffi::peft_batch_create(ctx.as_ptr(), out) })?;
        Ok(Batch { raw, _ctx: ctx.clone() })
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::peft_batch {
        self.raw.as_ptr()
    }

    /// Takes all rows out and keeps the memory.
    pub fn clear(&mut self) {
        // SAFETY: the batch is valid, and ours alone.
        unsafe { ffi::peft_batch_clear(self.as_ptr()) };
    }

    /// Copies rows of whole numbers in: `"input_ids"` first, then `"labels"` of the same lengths, where -100 marks a token
    /// without loss and the others are what the model must say there. Without labels every token but a row's first is one.
    pub fn set<R: AsRef<[i32]>>(&mut self, key: &str, rows: &[R]) -> Result<()> {
        enter()?;
        let key = c_text("the key", key)?;
        let (data, offsets) = pack(rows);
        // SAFETY: the batch is valid, the key ends with a NUL, the offsets are those of `data`.
        check(unsafe {
            ffi::peft_batch_set_i32(self.as_ptr(), key.as_ptr(), data.as_ptr(), offsets.as_ptr(), rows.len())
        })
    }

    /// Copies rows of numbers in: `"loss_weights"`, one a token, by which its loss is multiplied.
    pub fn set_floats<R: AsRef<[f32]>>(&mut self, key: &str, rows: &[R]) -> Result<()> {
        enter()?;
        let key = c_text("the key", key)?;
        let (data, offsets) = pack(rows);
        // SAFETY: the batch is valid, the key ends with a NUL, the offsets are those of `data`.
        check(unsafe {
            ffi::peft_batch_set_f32(self.as_ptr(), key.as_ptr(), data.as_ptr(), offsets.as_ptr(), rows.len())
        })
    }

    /// Copies one value a row in: `"task_id"`.
    pub fn set_per_row(&mut self, key: &str, values: &[i32]) -> Result<()> {
        enter()?;
        let (key, none) = (c_text("the key", key)?, std::ptr::null());
        // SAFETY: the batch is valid, the key ends with a NUL; without offsets the library reads one value a row.
        check(unsafe {
            ffi::peft_batch_set_i32(self.as_ptr(), key.as_ptr(), values.as_ptr(), none, values.len())
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        // SAFETY: the batch is valid.
        unsafe { ffi::peft_batch_rows(self.as_ptr()) }
    }
}

/// Rows end to end, and where each begins.
fn pack<T: Copy, R: AsRef<[T]>>(rows: &[R]) -> (Vec<T>, Vec<i64>) {
    let mut data = Vec::new();
    let mut offsets = vec![0];
    for row in rows {
        data.extend_from_slice(row.as_ref());
        offsets.push(data.len() as i64);
    }
    (data, offsets)
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("rows", &self.rows()).finish()
    }
}
