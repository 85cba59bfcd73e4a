//! Session: logits, evaluation, generation.
use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::sync::Arc;

use libpeft_sys as ffi;

use crate::adapters::Adapters;
use crate::batch::Batch;
use crate::border::{bytes, c_text, caught, check, enter, numbers, resume, text};
use crate::dataset::{Dataset, Metrics};
use crate::error::{Error, Result, Status};
use crate::gate::{Gate, Pass, Turn};
use crate::handle::{Owned, Slot};
use crate::model::Model;
use crate::options::Options;
use crate::rows::RowToken;
use crate::tokenizer::Tokenizer;
use crate::trainer::Canceller;

/// Inference with a model and adapters. One thread at a time uses it; any number of sessions share a model and a set.
pub struct Session {
    slot: Arc<Slot<ffi::peft_session>>,
    pub(crate) raw: Owned<ffi::peft_session>,
    pub(crate) row_tokens: Vec<RowToken>, // that no call has returned yet
    adapters: Option<Adapters>,
    pub(crate) model: Model, // after `raw`: its context has what C calls back
}

/// A token as it is chosen: its id, and the text that it completes, of whole characters, perhaps none. Bytes that are no
/// UTF-8, which a model can choose, are U+FFFD.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Piece {
    /// The id.
    pub id: i32,
    /// The text; empty without a tokenizer.
    pub text: String,
}

impl Session {
    /// A session of the base alone. Options: schema `"session"`.
    pub fn base(model: &Model, options: impl Into<Options>) -> Result<Session> {
        Session::make(model, None, "", options.into())
    }

    /// A session with the adapters of a set that an expression names: `"a"`, `"a, b"`, `"0.5 * a"`, `"average(a:3, b:1)"`,
    /// and so on. Options: schema `"session"`.
    pub fn new(adapters: &Adapters, expression: &str, options: impl Into<Options>) -> Result<Session> {
        Session::make(adapters.model(), Some(adapters), expression, options.into())
    }

    fn make(
        model: &Model,
        adapters: Option<&Adapters>,
        expression: &str,
        options: Options,
    ) -> Result<Session> {
        enter()?;
        let expression = c_text("the expression", expression)?;
        options.with(model.context(), "session", |o| {
            let _turn = adapters.map(|a| a.gate().turn(Turn::Read));
            let set = adapters.map_or(std::ptr::null_mut(), Adapters::as_ptr);
            // SAFETY: all are valid (the set NULL where there is none), the expression ends with a NUL.
            let raw = Owned::make(ffi::peft_session_free, |out| unsafe {
                ffi::peft_session_create(model.as_ptr(), set, expression.as_ptr(), o, out)
            })?;
            let slot = Slot::new(&raw, ffi::peft_session_cancel);
            let row_tokens = Vec::new();
            Ok(Session { slot, raw, row_tokens, adapters: adapters.cloned(), model: model.clone() })
        })
    }

    fn gate(&self) -> Option<&Gate> {
        self.adapters.as_ref().map(|a| a.gate().as_ref())
    }

    pub(crate) fn turn(&self) -> Option<Pass<'_>> {
        self.gate().map(|g| g.turn(Turn::Read))
    }

    /// Other adapters from now on, or the same with other factors; `""`: the base alone. On an error all is as before.
    pub fn set_adapters(&mut self, expression: &str) -> Result<()> {
        enter()?;
        let expression = c_text("the expression", expression)?;
        let _turn = self.turn();
        // SAFETY: the session is valid and ours alone, the expression ends with a NUL.
        check(unsafe { ffi::peft_session_set_adapters(self.raw.as_ptr(), expression.as_ptr()) })
    }

    /// Logits of every token of a batch, [tokens, vocabulary] row-major; with a parallel block [branches, tokens, vocabulary].
    pub fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>> {
        enter()?;
        let _turn = self.turn();
        // SAFETY: both are valid and of this thread; the buffer is as long as its length says.
        numbers(|buf, cap, needed| unsafe {
            ffi::peft_session_logits(self.raw.as_ptr(), batch.as_ptr(), buf, cap, needed)
        })
    }

    /// How well the model says a data set.
    pub fn evaluate(&mut self, data: &Dataset) -> Result<Metrics> {
        enter()?;
        let _turn = self.turn();
        // SAFETY: both are valid and of this thread; the buffer is as long as its length says.
        let json = text(1024, |buf, cap, needed| unsafe {
            ffi::peft_session_evaluate(self.raw.as_ptr(), data.as_ptr(), buf, cap, needed)
        })?;
        Metrics::parse(&json)
    }

    /// What the head of a model with a task computes for each row of a data set, labelled or not, row-major: [rows, labels], of
    /// embeddings [texts, hidden size], of tasks about tokens [tokens, labels].
    pub fn outputs(&mut self, data: &Dataset) -> Result<Vec<f32>> {
        enter()?;
        let _turn = self.turn();
        // SAFETY: both are valid and of this thread; the buffer is as long as its length says.
        numbers(|buf, cap, needed| unsafe {
            ffi::peft_session_outputs(self.raw.as_ptr(), data.as_ptr(), buf, cap, needed)
        })
    }

    /// A handle by which any thread can stop this session's calls.
    pub fn canceller(&self) -> Canceller {
        let slot = self.slot.clone();
        Canceller(Arc::new(move || slot.cancel()))
    }

    // ---- in one call ---------------------------------------------------------------------------------------------------

    /// Continues a text until an end of sequence, a stop string, `max_new_tokens` or the session's `max_length`; returns what
    /// is new. Options: schema `"generate"`.
    pub fn generate(
        &mut self,
        tokenizer: &Tokenizer,
        prompt: &str,
        options: impl Into<Options>,
    ) -> Result<String> {
        self.generate_with(tokenizer, prompt, options, |_, _| ControlFlow::Continue(()))
    }

    /// The same, with a closure that sees each token: its id, and the text that it completes. [`ControlFlow::Break`] ends the
    /// call with [`Status::Callback`].
    pub fn generate_with(
        &mut self,
        tokenizer: &Tokenizer,
        prompt: &str,
        options: impl Into<Options>,
        mut each: impl FnMut(i32, &str) -> ControlFlow<()>,
    ) -> Result<String> {
        let mut made = String::new();
        let mut collect = |id: i32, text: &str| {
            made.push_str(text);
            each(id, text)
        };
        let (s, t, p) = (self.raw.as_ptr(), tokenizer.as_ptr(), prompt.as_ptr().cast());
        let needed = self.generated(options.into(), &mut collect, |o, user, needed| {
            let (none, len) = (std::ptr::null_mut(), prompt.len());
            // SAFETY: all are valid; pointer and length of a text; `user` is what `on_token` takes; no buffer.
            unsafe { ffi::peft_session_generate_text(s, t, p, len, o, Some(on_token), user, none, 0, needed) }
        })?;
        complete(needed.0 + 1, needed.1)?; // C counts its NUL
        Ok(made)
    }

    /// Continues ids by ids. Without a tokenizer there is no text and no stop string.
    pub fn generate_ids(
        &mut self,
        tokenizer: Option<&Tokenizer>,
        ids: &[i32],
        options: impl Into<Options>,
    ) -> Result<Vec<i32>> {
        let mut made = Vec::new();
        let mut collect = |id: i32, _: &str| {
            made.push(id);
            ControlFlow::Continue(())
        };
        let (s, t) = (self.raw.as_ptr(), tokenizer.map_or(std::ptr::null(), Tokenizer::as_ptr));
        let needed = self.generated(options.into(), &mut collect, |o, user, needed| {
            let none = std::ptr::null_mut();
            // SAFETY: all are valid; the ids go with their number; `user` is what `on_token` takes; no buffer.
            unsafe {
                ffi::peft_session_generate(
                    s,
                    t,
                    ids.as_ptr(),
                    ids.len(),
                    o,
                    Some(on_token),
                    user,
                    none,
                    0,
                    needed,
                )
            }
        })?;
        complete(made.len(), needed.1)?;
        Ok(made)
    }

    /// Tokens come by the callback, and so the library is given no buffer: it says at the end that one is too small.
    /// Returns the bytes of text that the callback saw, and what the library says it made.
    fn generated(
        &mut self,
        options: Options,
        each: &mut dyn FnMut(i32, &str) -> ControlFlow<()>,
        call: impl FnOnce(*const ffi::peft_options, *mut c_void, *mut usize) -> ffi::peft_status,
    ) -> Result<(usize, usize)> {
        enter()?;
        options.with(self.model.context(), "generate", |o| {
            let mut tokens = Tokens { each, bytes: 0, gate: self.gate() };
            let mut needed = 0;
            let status = {
                let _turn = self.turn();
                call(o, (&mut tokens as *mut Tokens<'_>).cast(), &mut needed)
            };
            if status == ffi::PEFT_E_BUFFER {
                resume();
            } else {
                check(status)?;
            }
            Ok((tokens.bytes, needed))
        })
    }

    // ---- a token at a time -----------------------------------------------------------------------------------------------

    /// Begins to continue a text; the pieces come from the iterator. They are the same as [`Session::generate`]'s.
    pub fn stream(
        &mut self,
        tokenizer: &Tokenizer,
        prompt: &str,
        options: impl Into<Options>,
    ) -> Result<Stream<'_>> {
        self.start(options.into(), |s, o| {
            // SAFETY: all are valid; pointer and length of a text. The session keeps the tokenizer.
            unsafe {
                ffi::peft_session_start_text(s, tokenizer.as_ptr(), prompt.as_ptr().cast(), prompt.len(), o)
            }
        })
    }

    /// The same from ids.
    pub fn stream_ids(
        &mut self,
        tokenizer: Option<&Tokenizer>,
        ids: &[i32],
        options: impl Into<Options>,
    ) -> Result<Stream<'_>> {
        let t = tokenizer.map_or(std::ptr::null(), Tokenizer::as_ptr);
        self.start(options.into(), |s, o| {
            // SAFETY: all are valid; the ids go with their number. The session keeps the tokenizer.
            unsafe { ffi::peft_session_start(s, t, ids.as_ptr(), ids.len(), o) }
        })
    }

    fn start(
        &mut self,
        options: Options,
        call: impl FnOnce(*mut ffi::peft_session, *const ffi::peft_options) -> ffi::peft_status,
    ) -> Result<Stream<'_>> {
        enter()?;
        options.with(self.model.context(), "generate", |o| {
            let _turn = self.turn();
            check(call(self.raw.as_ptr(), o))
        })?;
        Ok(Stream { session: self, ended: false })
    }

    fn next_piece(&mut self) -> Result<Option<Piece>> {
        enter()?;
        let mut id = -1;
        let _turn = self.turn();
        let s = self.raw.as_ptr();
        // SAFETY: the session is valid and ours alone; the buffer is as long as its length says.
        let mut text =
            bytes(|buf, cap, needed| unsafe { ffi::peft_session_next(s, &mut id, buf, cap, needed) })?;
        text.pop(); // its NUL
        Ok((id >= 0).then(|| Piece { id, text: String::from_utf8_lossy(&text).into_owned() }))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.slot.clear();
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("model", &self.model).field("adapters", &self.adapters).finish()
    }
}

/// Did the callback see all that the library made?
fn complete(seen: usize, needed: usize) -> Result<()> {
    if seen == needed {
        return Ok(());
    }
    Err(Error::new(Status::Internal, format!("the library generated {needed} and told of {seen}")))
}

/// What the token callback finds behind its `user` pointer.
struct Tokens<'a> {
    each: &'a mut dyn FnMut(i32, &str) -> ControlFlow<()>,
    bytes: usize, // of text, so far
    gate: Option<&'a Gate>,
}

unsafe extern "C" fn on_token(user: *mut c_void, id: i32, text: *const c_char, len: usize) -> i32 {
    // SAFETY: `user` is what `generated` gave, which is in the call that calls this.
    let tokens = unsafe { &mut *user.cast::<Tokens<'_>>() };
    let bytes = if text.is_null() {
        &[][..]
    } else {
        // SAFETY: the text is `len` bytes long.
        unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) }
    };
    tokens.bytes += bytes.len();
    let text = String::from_utf8_lossy(bytes);
    let mut call = || caught(true, || (tokens.each)(id, &text).is_break());
    i32::from(match tokens.gate {
        Some(gate) => gate.between(Turn::Read, call),
        None => call(),
    })
}

/// Pieces of a continuation; see [`Session::stream`]. Ends after an error, except that of a canceller, after which the next
/// piece goes on.
#[derive(Debug)]
pub struct Stream<'a> {
    session: &'a mut Session,
    ended: bool,
}

impl Iterator for Stream<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Result<Piece>> {
        if self.ended {
            return None;
        }
        let piece = self.session.next_piece();
        self.ended = match &piece {
            Ok(piece) => piece.is_none(),
            Err(e) => e.status() != Status::Cancelled,
        };
        piece.transpose()
    }
}
