//! Rows of a session: texts that are continued together, each with adapters and options of its own.
use std::ffi::c_void;
use std::ptr::null;

use libpeft_sys as ffi;

use crate::border::{c_text, check, enter};
use crate::error::{Result, Status};
use crate::options::Options;
use crate::session::Session;
use crate::tokenizer::Tokenizer;

/// What a row among others got; see [`Session::next_tokens`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RowToken {
    /// The row, as [`Session::add_row`] numbered it.
    pub row: i64,
    /// The token that was chosen; `None` where the row ended without.
    pub id: Option<i32>,
    /// The text that it completes, as of a [`Piece`](crate::Piece).
    pub text: String,
    /// Nothing comes after it.
    pub ended: bool,
    /// Why the row ended without a token: its logits had a NaN or an infinity ([`Status::Numeric`]).
    pub error: Option<Status>,
}

impl Session {
    /// Adds a text to those that the session continues together, one pass of the base for all, and returns its number. It has
    /// adapters of its own: an expression over the session's set (`None`: the session's; `Some("")`: none), which keep acting
    /// as they are now though one of the name is loaded in its place. Options: schema `"generate"`, without beams; with
    /// `hold` it stays after its end, for rows that begin with the same tokens, until it is removed. What it gets is what it
    /// gets alone. [`Status::Busy`] while the session has as many rows, or different expressions, as it can have.
    ///
    /// ```
    /// # use libpeft::*;
    /// # let config = r#"{"model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    /// #     "num_attention_heads": 2, "vocab_size": 14, "max_position_embeddings": 48}"#;
    /// # let ctx = Context::new()?;
    /// # let model = Model::random(&ctx, config, 1)?;
    /// # let adapters = Adapters::new(&model)?;
    /// # adapters.add("fr", "lora", (), 1)?;
    /// # adapters.add("de", "ia3", (), 1)?;
    /// let mut session = Session::new(&adapters, "", ())?;
    /// let fr = session.add_row_ids(Some("fr"), None, &[1, 2, 3], [("max_new_tokens", 8)])?;
    /// let de = session.add_row_ids(Some("0.5 * de"), None, &[4, 5], [("max_new_tokens", 8)])?;
    /// let mut texts = [Vec::new(), Vec::new()];
    /// while let Some(tokens) = session.next_tokens()? {
    ///     for token in tokens {
    ///         texts[usize::from(token.row == de)].extend(token.id);
    ///     }
    /// }
    /// # assert!(fr != de && texts.iter().all(|t| !t.is_empty()));
    /// # Ok::<(), libpeft::Error>(())
    /// ```
    pub fn add_row(
        &mut self,
        expression: Option<&str>,
        tokenizer: &Tokenizer,
        prompt: &str,
        options: impl Into<Options>,
    ) -> Result<i64> {
        let (t, p, len) = (tokenizer.as_ptr(), prompt.as_ptr().cast(), prompt.len());
        self.added(expression, options.into(), |s, e, o, row| {
            // SAFETY: all are valid; pointer and length of a text. The row keeps the tokenizer.
            unsafe { ffi::peft_session_row_add_text(s, e, t, p, len, o, row) }
        })
    }

    /// The same from ids. Without a tokenizer there is no text and no stop string.
    pub fn add_row_ids(
        &mut self,
        expression: Option<&str>,
        tokenizer: Option<&Tokenizer>,
        ids: &[i32],
        options: impl Into<Options>,
    ) -> Result<i64> {
        let t = tokenizer.map_or(null(), Tokenizer::as_ptr);
        self.added(expression, options.into(), |s, e, o, row| {
            // SAFETY: all are valid; the ids go with their number. The row keeps the tokenizer.
            unsafe { ffi::peft_session_row_add(s, e, t, ids.as_ptr(), ids.len(), o, row) }
        })
    }

    fn added(
        &mut self,
        expression: Option<&str>,
        options: Options,
        call: impl FnOnce(
            *mut ffi::peft_session,
            *const std::ffi::c_char,
            *const ffi::peft_options,
            *mut i64,
        ) -> ffi::peft_status,
    ) -> Result<i64> {
        enter()?;
        let expression = expression.map(|e| c_text("the expression", e)).transpose()?;
        let mut row = 0;
        options.with(self.model.context(), "generate", |o| {
            let _turn = self.turn();
            check(call(self.raw.as_ptr(), expression.as_ref().map_or(null(), |e| e.as_ptr()), o, &mut row))
        })?;
        Ok(row)
    }

    /// Goes on with all rows by at most a token each, and returns what they got, rows in the order of addition: nothing while
    /// long prompts are read. `None`: no row has more to come. After an error, also [`Status::Cancelled`], all rows are as
    /// they were, and another call goes on.
    pub fn next_tokens(&mut self) -> Result<Option<Vec<RowToken>>> {
        enter()?;
        let mut left = 0;
        let mut tokens = std::mem::take(&mut self.row_tokens);
        let status = {
            let _turn = self.turn();
            let user = (&mut tokens as *mut Vec<RowToken>).cast();
            // SAFETY: the session is valid and ours alone; `user` is what `on_row` takes, and nobody else has it meanwhile.
            unsafe { ffi::peft_session_rows_next(self.raw.as_ptr(), Some(on_row), user, &mut left) }
        };
        if let Err(e) = check(status) {
            self.row_tokens = tokens; // some rows may have got theirs before it failed: the next call returns them
            return Err(e);
        }
        Ok((left > 0 || !tokens.is_empty()).then_some(tokens))
    }

    /// Takes a row out; it gets nothing any more. [`Status::NotFound`] if it has ended.
    pub fn remove_row(&mut self, row: i64) -> Result<()> {
        enter()?;
        let _turn = self.turn();
        // SAFETY: the session is valid and ours alone.
        check(unsafe { ffi::peft_session_row_remove(self.raw.as_ptr(), row) })
    }
}

/// Only keeps what it is given: user code runs when the library is left, so that it may use the session.
unsafe extern "C" fn on_row(user: *mut c_void, info: *const ffi::peft_row_info) -> i32 {
    // SAFETY: `user` is what `next_tokens` gave, which is in the call that calls this; the library's struct is valid.
    let (tokens, i) = unsafe { (&mut *user.cast::<Vec<RowToken>>(), &*info) };
    let bytes = if i.text.is_null() {
        &[][..]
    } else {
        // SAFETY: the text is `text_len` bytes long.
        unsafe { std::slice::from_raw_parts(i.text.cast::<u8>(), i.text_len) }
    };
    tokens.push(RowToken {
        row: i.row,
        id: (i.id >= 0).then_some(i.id),
        text: String::from_utf8_lossy(bytes).into_owned(),
        ended: i.ended != 0,
        error: (i.status != ffi::PEFT_OK).then(|| Status::from_code(i.status)),
    });
    0
}
