//! Trainer: runs, single steps, and the pieces of a step for those who own the loop.
use std::ffi::c_void;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use libpeft_sys as ffi;

use crate::adapters::Adapters;
use crate::batch::Batch;
use crate::border::{c_path, c_text, caught, check, copy_text, enter, numbers, text};
use crate::dataset::{Dataset, Metrics};
use crate::error::{Result, Status};
use crate::gate::{Gate, Turn};
use crate::handle::{Owned, Slot};
use crate::options::Options;

/// One step of a run: what it did.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// Optimiser steps done.
    pub step: u64,
    /// Optimiser steps in all.
    pub max_steps: u64,
    /// Mean over the step's labelled tokens, before its update.
    pub loss: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Norm of the gradient, before clipping.
    pub grad_norm: f64,
    /// Tokens of the step.
    pub tokens: u64,
    /// Tokens a second.
    pub tokens_per_second: f64,
    /// Seconds since the run began.
    pub seconds: f64,
    /// Seconds to its end.
    pub eta_seconds: f64,
    /// Resident part of the base, and the peak of the context's allocator.
    pub peak_bytes: usize,
    /// Loss of the evaluation, where one followed the step.
    pub eval_loss: Option<f64>,
    /// Passes over the data.
    pub epoch: f64,
    /// Adapter expression of the job.
    pub job: String,
}

impl Step {
    /// # Safety
    /// `info` is what the library gives a progress callback.
    unsafe fn read(info: *const ffi::peft_step_info) -> Step {
        // A library that is older than this crate may know fewer fields: those are 0 here.
        // SAFETY: numbers and a pointer, for all of which zeros are values.
        let mut i: ffi::peft_step_info = unsafe { std::mem::zeroed() };
        // SAFETY: as the caller promises; the first field says how many bytes there are.
        unsafe {
            let size = (*info).struct_size.min(std::mem::size_of_val(&i));
            std::ptr::copy_nonoverlapping(
                info.cast::<u8>(),
                (&mut i as *mut ffi::peft_step_info).cast(),
                size,
            );
        }
        // SAFETY: NULL, or a text that ends with a NUL, valid during the callback.
        let job = unsafe { copy_text(i.job) }.unwrap_or_default();
        Step {
            step: i.step as u64,
            max_steps: i.max_steps as u64,
            loss: i.loss,
            learning_rate: i.learning_rate,
            grad_norm: i.grad_norm,
            tokens: i.tokens as u64,
            tokens_per_second: i.tokens_per_second,
            seconds: i.seconds,
            eta_seconds: i.eta_seconds,
            peak_bytes: i.peak_bytes,
            eval_loss: (!i.eval_loss.is_nan()).then_some(i.eval_loss),
            epoch: i.epoch,
            job,
        }
    }
}

/// What a loss of the caller's is given: values of some rows of a pass; see [`Trainer::on_loss`].
#[derive(Debug)]
#[non_exhaustive]
pub struct LossChunk<'a> {
    /// Adapter expression of the job.
    pub job: String,
    /// How many rows there are.
    pub rows: usize,
    /// Values of a row.
    pub columns: usize,
    /// Row after row. In: logits of each token with a label; of other tasks what the head computes of each row or token. Out:
    /// the gradient of the loss by them.
    pub values: &'a mut [f32],
    /// Of each row, which of the pass it is; of a [`Batch`] its number there.
    pub batch_rows: &'a [i64],
    /// Which row of the data it is, as it was loaded.
    pub data_rows: &'a [u64],
    /// Which token of that row, virtual ones counted.
    pub tokens: &'a [i64],
    /// What is right there (of a language model the next token); -100: none.
    pub labels: &'a [i32],
}

type Progress = Box<dyn FnMut(&Step) -> ControlFlow<()> + Send>;
type Loss = Box<dyn FnMut(LossChunk<'_>) -> ControlFlow<(), (f64, f64)> + Send>;
type AllReduce = Box<dyn FnMut(&mut [f32]) -> ControlFlow<()> + Send>;

/// What the callbacks find behind their `user` pointer.
struct Hooks {
    progress: Option<Progress>,
    loss: Option<Loss>,
    all_reduce: Option<AllReduce>,
    last: Option<Step>,
    gate: Arc<Gate>,
}

/// Trains adapters of a set. One thread at a time uses it.
pub struct Trainer {
    slot: Arc<Slot<ffi::peft_trainer>>,
    asked: Arc<AtomicBool>, // a canceller was used, and no step has answered yet
    raw: Owned<ffi::peft_trainer>,
    hooks: *mut Hooks,  // owned; C has the same pointer
    adapters: Adapters, // after `raw`: their context has what C calls back
}

// SAFETY: the C trainer may move; `hooks` are its alone, and what is in them may move.
unsafe impl Send for Trainer {}

impl Trainer {
    /// A trainer over a set, which it keeps. Options: schema `"trainer"`.
    pub fn new(adapters: &Adapters, options: impl Into<Options>) -> Result<Trainer> {
        enter()?;
        options.into().with(adapters.model().context(), "trainer", |o| {
            let _turn = adapters.gate().turn(Turn::Read);
            // SAFETY: set and options are valid.
            let raw = Owned::make(ffi::peft_trainer_free, |out| unsafe {
                ffi::peft_trainer_create(adapters.as_ptr(), o, out)
            })?;
            let hooks = Hooks {
                progress: None,
                loss: None,
                all_reduce: None,
                last: None,
                gate: adapters.gate().clone(),
            };
            let trainer = Trainer {
                slot: Slot::new(&raw, ffi::peft_trainer_cancel),
                asked: Arc::default(),
                raw,
                hooks: Box::into_raw(Box::new(hooks)),
                adapters: adapters.clone(),
            };
            let user = trainer.hooks.cast();
            // SAFETY: the trainer is valid; the hooks are freed after it.
            check(unsafe { ffi::peft_trainer_set_progress(trainer.raw.as_ptr(), Some(on_progress), user) })?;
            Ok(trainer)
        })
    }

    fn turn(&self, turn: Turn) -> crate::gate::Pass<'_> {
        self.adapters.gate().turn(turn)
    }

    /// Adds what is to be trained: an adapter by name or an expression, its data, and the optimiser (schema `"optimizer"`).
    /// `train` may be `None` for those who own the loop. The trainer keeps the data.
    pub fn add_job(
        &mut self,
        adapter: &str,
        train: Option<&Dataset>,
        eval: Option<&Dataset>,
        optimizer: impl Into<Options>,
    ) -> Result<()> {
        enter()?;
        let adapter = c_text("the adapter", adapter)?;
        let (train, eval) = (data_ptr(train), data_ptr(eval));
        optimizer.into().with(self.adapters.model().context(), "optimizer", |o| {
            let _turn = self.turn(Turn::Write);
            // SAFETY: all are valid (data NULL where there is none), the expression ends with a NUL.
            check(unsafe { ffi::peft_trainer_add_job(self.raw.as_ptr(), adapter.as_ptr(), train, eval, o) })
        })
    }

    /// Calls a closure after each step of a run; [`ControlFlow::Break`] ends it with
    /// [`Status::Callback`]. The closure may use other handles, such as a session over the same set.
    pub fn on_step(&mut self, f: impl FnMut(&Step) -> ControlFlow<()> + Send + 'static) {
        // SAFETY: no call runs, so nobody else has the hooks.
        unsafe { (*self.hooks).progress = Some(Box::new(f)) };
    }

    /// Another loss than the task's in training: a closure that replaces the values of a [`LossChunk`] by the gradient of the loss
    /// by them, and returns the loss, a sum over the chunk, and what the step's sum of losses is to be divided by for it, as a
    /// rule its rows. [`ControlFlow::Break`] ends the step as if it had not begun, with [`Status::Callback`]. Evaluation keeps the
    /// task's own loss.
    pub fn on_loss(
        &mut self,
        f: impl FnMut(LossChunk<'_>) -> ControlFlow<(), (f64, f64)> + Send + 'static,
    ) -> Result<()> {
        enter()?;
        let user = self.hooks.cast();
        // SAFETY: the trainer is valid; the hooks are freed after it.
        check(unsafe { ffi::peft_trainer_set_loss(self.raw.as_ptr(), Some(on_loss), user) })?;
        // SAFETY: no call runs, so nobody else has the hooks.
        unsafe { (*self.hooks).loss = Some(Box::new(f)) };
        Ok(())
    }

    /// Makes the trainer one of `size` processes that train together, number `rank` from 0: each takes its part of every batch,
    /// and the closure adds up floats over all of them, in place, the same bits in each. All must have the same model, data,
    /// options and seed. Before the first step, and before [`Trainer::load_checkpoint`]. [`ControlFlow::Break`] ends the step as
    /// if it had not begun, with [`Status::Callback`].
    pub fn on_all_reduce(
        &mut self,
        rank: i32,
        size: i32,
        f: impl FnMut(&mut [f32]) -> ControlFlow<()> + Send + 'static,
    ) -> Result<()> {
        enter()?;
        let (raw, user) = (self.raw.as_ptr(), self.hooks.cast());
        // SAFETY: the trainer is valid; the hooks are freed after it.
        check(unsafe { ffi::peft_trainer_set_all_reduce(raw, rank, size, Some(on_all_reduce), user) })?;
        // SAFETY: no call runs, so nobody else has the hooks.
        unsafe { (*self.hooks).all_reduce = Some(Box::new(f)) };
        Ok(())
    }

    /// What the run will need, before it runs, as JSON: peak bytes, activations, trainable parameters, recomputed segments.
    pub fn plan_json(&mut self) -> Result<String> {
        enter()?;
        let _turn = self.turn(Turn::Read);
        // SAFETY: the trainer is valid and ours alone; the buffer is as long as its length says.
        text(4096, |buf, cap, needed| unsafe {
            ffi::peft_trainer_plan_json(self.raw.as_ptr(), buf, cap, needed)
        })
    }

    /// Trains to the end, evaluating and saving as the options say. After an error, also [`Status::Cancelled`] or a panic
    /// of the closure, all is as after the last good step, and another call goes on from there.
    pub fn run(&mut self) -> Result<()> {
        enter()?;
        let status = {
            let _turn = self.turn(Turn::Write);
            // SAFETY: the trainer is valid and ours alone.
            unsafe { ffi::peft_trainer_run(self.raw.as_ptr()) }
        };
        self.asked.store(false, Ordering::SeqCst); // what was asked of this run does not concern the next
        check(status)
    }

    /// One step of that run, or `None` where there are no more. The steps make the same bits as the run.
    pub fn step(&mut self) -> Result<Option<Step>> {
        enter()?;
        let mut more = 0;
        // SAFETY: no call runs, so nobody else has the hooks.
        unsafe { (*self.hooks).last = None };
        if self.asked.swap(false, Ordering::SeqCst) {
            self.slot.cancel(); // asked for during the last step: it is this one's to answer
        }
        let status = {
            let _turn = self.turn(Turn::Write);
            // SAFETY: the trainer is valid and ours alone.
            unsafe { ffi::peft_trainer_step(self.raw.as_ptr(), &mut more) }
        };
        if status == ffi::PEFT_E_CANCELLED {
            self.asked.store(false, Ordering::SeqCst);
        }
        check(status)?;
        // SAFETY: as above.
        Ok(unsafe { (*self.hooks).last.take() })
    }

    /// The steps of the run that are left.
    ///
    /// ```
    /// # use libpeft::*;
    /// # let config = r#"{"model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    /// #     "num_attention_heads": 2, "vocab_size": 14, "max_position_embeddings": 48}"#;
    /// # let ctx = Context::new()?;
    /// # let model = Model::random(&ctx, config, 1)?;
    /// # let adapters = Adapters::new(&model)?;
    /// # adapters.add("a", "lora", (), 1)?;
    /// # let mut data = Dataset::new(&ctx, None, ())?;
    /// # data.add_json(r#"{"input_ids": [1, 2, 3, 4]}"#)?;
    /// let mut trainer = Trainer::new(&adapters, [("max_steps", 3)])?;
    /// trainer.add_job("a", Some(&data), None, ())?;
    /// for step in trainer.steps() {
    ///     let step = step?;
    ///     println!("{}/{} {:.3}", step.step, step.max_steps, step.loss);
    /// }
    /// # Ok::<(), libpeft::Error>(())
    /// ```
    pub fn steps(&mut self) -> Steps<'_> {
        Steps { trainer: self, failed: false }
    }

    /// For those who own the loop: adds the gradients of a batch; returns the mean loss over its labelled tokens.
    pub fn accumulate(&mut self, batch: &Batch) -> Result<f64> {
        enter()?;
        let mut loss = 0.0;
        let _turn = self.turn(Turn::Write); // AdaLoRA has scratch in the adapter
                                            // SAFETY: both are valid and of this thread.
        check(unsafe { ffi::peft_trainer_accumulate(self.raw.as_ptr(), batch.as_ptr(), &mut loss) })?;
        Ok(loss)
    }

    /// Clips and updates by the gradients accumulated so far, which are the mean over their labelled tokens.
    pub fn apply(&mut self) -> Result<()> {
        enter()?;
        let _turn = self.turn(Turn::Write);
        // SAFETY: the trainer is valid and ours alone.
        check(unsafe { ffi::peft_trainer_apply(self.raw.as_ptr()) })
    }

    /// Gradient accumulated so far of one trainable tensor, in its shape.
    pub fn gradient(&mut self, adapter: &str, tensor: &str) -> Result<Vec<f32>> {
        enter()?;
        let (adapter, tensor) =
            (c_text("the adapter's name", adapter)?, c_text("the tensor's name", tensor)?);
        let t = self.raw.as_ptr();
        // SAFETY: the trainer is valid and ours alone, the names end with a NUL, the buffer is as long as its length says.
        numbers(|buf, cap, needed| unsafe {
            ffi::peft_trainer_gradient_read(t, adapter.as_ptr(), tensor.as_ptr(), buf, cap, needed)
        })
    }

    /// How well the model says a data set under the trainer's adapters.
    pub fn evaluate(&mut self, data: &Dataset) -> Result<Metrics> {
        enter()?;
        let _turn = self.turn(Turn::Read);
        // SAFETY: both are valid and of this thread; the buffer is as long as its length says.
        let json = text(1024, |buf, cap, needed| unsafe {
            ffi::peft_trainer_evaluate(self.raw.as_ptr(), data.as_ptr(), buf, cap, needed)
        });
        if matches!(&json, Err(e) if e.status() == Status::Cancelled) {
            self.asked.store(false, Ordering::SeqCst);
        }
        Metrics::parse(&json?)
    }

    /// A handle by which any thread can stop this trainer.
    pub fn canceller(&self) -> Canceller {
        let (slot, asked) = (self.slot.clone(), self.asked.clone());
        Canceller(Arc::new(move || {
            asked.store(true, Ordering::SeqCst);
            slot.cancel();
        }))
    }

    /// Writes all that a run needs to go on bit for bit. The folder is replaced atomically.
    pub fn save_checkpoint(&mut self, path: impl AsRef<Path>) -> Result<()> {
        enter()?;
        let path = c_path(path.as_ref())?;
        let _turn = self.turn(Turn::Read);
        // SAFETY: the trainer is valid and ours alone, the path ends with a NUL.
        check(unsafe { ffi::peft_trainer_checkpoint_save(self.raw.as_ptr(), path.as_ptr()) })
    }

    /// Reads what [`Trainer::save_checkpoint`] wrote.
    pub fn load_checkpoint(&mut self, path: impl AsRef<Path>) -> Result<()> {
        enter()?;
        let path = c_path(path.as_ref())?;
        let _turn = self.turn(Turn::Write);
        // SAFETY: the trainer is valid and ours alone, the path ends with a NUL.
        check(unsafe { ffi::peft_trainer_checkpoint_load(self.raw.as_ptr(), path.as_ptr()) })
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        self.slot.clear();
        // SAFETY: the library calls them in runs only, and none is under way: they were made by Box::into_raw.
        drop(unsafe { Box::from_raw(self.hooks) });
    }
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer").field("adapters", &self.adapters).finish()
    }
}

fn data_ptr(data: Option<&Dataset>) -> *mut ffi::peft_dataset {
    data.map_or(std::ptr::null_mut(), Dataset::as_ptr)
}

unsafe extern "C" fn on_progress(user: *mut c_void, info: *const ffi::peft_step_info) -> i32 {
    // SAFETY: `user` is what `new` gave; the trainer is in a call, so nobody else has the hooks.
    let hooks = unsafe { &mut *user.cast::<Hooks>() };
    // SAFETY: the library gives its step.
    let step = unsafe { Step::read(info) };
    let Hooks { progress, last, gate, .. } = hooks;
    let stop = gate.between(Turn::Write, || match progress {
        Some(f) => caught(true, || f(&step).is_break()),
        None => false,
    });
    *last = Some(step);
    i32::from(stop)
}

/// # Safety
/// `values` has `n` elements that nobody else uses for that long.
unsafe fn lent<'a, T>(values: *const T, n: usize) -> &'a [T] {
    if n == 0 {
        return &[];
    }
    // SAFETY: the caller says so.
    unsafe { std::slice::from_raw_parts(values, n) }
}

unsafe extern "C" fn on_loss(
    user: *mut c_void,
    chunk: *const ffi::peft_loss_chunk,
    loss: *mut f64,
    weight: *mut f64,
) -> i32 {
    // SAFETY: `user` is what `on_loss` gave; the trainer is in a call, so nobody else has the hooks.
    let Hooks { loss: function, gate, .. } = unsafe { &mut *user.cast::<Hooks>() };
    // SAFETY: the library gives a chunk with all fields of the first version, whose arrays are as long as it says.
    let chunk = unsafe {
        let c = &*chunk;
        let (rows, columns) = (c.rows as usize, c.columns as usize);
        let values = if rows * columns == 0 {
            &mut []
        } else {
            std::slice::from_raw_parts_mut(c.values, rows * columns)
        };
        LossChunk {
            job: copy_text(c.job).unwrap_or_default(),
            rows,
            columns,
            values,
            batch_rows: lent(c.batch_rows, rows),
            data_rows: lent(c.data_rows, rows),
            tokens: lent(c.tokens, rows),
            labels: lent(c.labels, rows),
        }
    };
    let found = gate.between(Turn::Write, || match function {
        Some(f) => caught(ControlFlow::Break(()), || f(chunk)),
        None => ControlFlow::Break(()),
    });
    match found {
        // SAFETY: both are the library's, to be set here.
        ControlFlow::Continue((sum, divisor)) => unsafe {
            *loss = sum;
            *weight = divisor;
            0
        },
        ControlFlow::Break(()) => 1,
    }
}

unsafe extern "C" fn on_all_reduce(user: *mut c_void, values: *mut f32, n: usize) -> i32 {
    // SAFETY: `user` is what `on_all_reduce` gave; the trainer is in a call, so nobody else has the hooks.
    let Hooks { all_reduce, gate, .. } = unsafe { &mut *user.cast::<Hooks>() };
    if n == 0 {
        return 0;
    }
    // SAFETY: the library's own n floats, which nobody else uses meanwhile.
    let values = unsafe { std::slice::from_raw_parts_mut(values, n) };
    i32::from(gate.between(Turn::Write, || match all_reduce {
        Some(f) => caught(true, || f(values).is_break()),
        None => true,
    }))
}

/// The steps that are left of a run; see [`Trainer::steps`]. Ends after an error, except that of a canceller, after which
/// the next step goes on.
#[derive(Debug)]
pub struct Steps<'a> {
    trainer: &'a mut Trainer,
    failed: bool,
}

impl Iterator for Steps<'_> {
    type Item = Result<Step>;

    fn next(&mut self) -> Option<Result<Step>> {
        if self.failed {
            return None;
        }
        let step = self.trainer.step();
        self.failed = matches!(&step, Err(e) if e.status() != Status::Cancelled);
        step.transpose()
    }
}

/// Stops a trainer's run or a session's call, from any thread. It may outlive what it stops, and then does nothing.
#[derive(Clone)]
pub struct Canceller(pub(crate) Arc<dyn Fn() + Send + Sync>);

impl Canceller {
    /// Asks the run, or the call that is under way or else the next one, to end with
    /// [`Status::Cancelled`].
    pub fn cancel(&self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Canceller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Canceller")
    }
}
