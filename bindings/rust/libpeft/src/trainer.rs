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

type Progress = Box<dyn FnMut(&Step) -> ControlFlow<()> + Send>;

/// What the progress callback finds behind its `user` pointer.
struct Hooks {
    progress: Option<Progress>,
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
            let hooks = Hooks { progress: None, last: None, gate: adapters.gate().clone() };
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
    let Hooks { progress, last, gate } = hooks;
    let stop = gate.between(Turn::Write, || match progress {
        Some(f) => caught(true, || f(&step).is_break()),
        None => false,
    });
    *last = Some(step);
    i32::from(stop)
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
