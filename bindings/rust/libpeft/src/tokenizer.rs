//! Tokenizer: text to ids and back.
use std::ops::BitOr;
use std::path::Path;
use std::sync::Arc;

use libpeft_sys as ffi;

use crate::border::{bytes, c_path, c_text, enter, numbers, text};
use crate::context::Context;
use crate::error::Result;
use crate::handle::{Owned, Shared};

/// How special tokens are dealt with; values are joined by `|`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokenize(i32);

impl Tokenize {
    /// As if there were none.
    pub const PLAIN: Tokenize = Tokenize(0);
    /// When encoding: recognise them in the text. When decoding: write them.
    pub const SPECIAL: Tokenize = Tokenize(ffi::PEFT_TOKENIZE_SPECIAL);
    /// When encoding: add what the tokenizer's file says to add (BOS, EOS).
    pub const BOS_EOS: Tokenize = Tokenize(ffi::PEFT_TOKENIZE_BOS_EOS);
}

impl BitOr for Tokenize {
    type Output = Tokenize;
    fn bitor(self, other: Tokenize) -> Tokenize {
        Tokenize(self.0 | other.0)
    }
}

/// A tokenizer. Immutable; a clone is another handle of the same one.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

struct Inner {
    raw: Shared<ffi::peft_tokenizer>,
    _ctx: Context, // after `raw`: it has what C calls back
}

impl Tokenizer {
    /// Opens the tokenizer of a folder (tokenizer.json, vocab.json with merges.txt, or tokenizer.model), one of these files,
    /// or a GGUF file.
    pub fn open(ctx: &Context, path: impl AsRef<Path>) -> Result<Tokenizer> {
        enter()?;
        let path = c_path(path.as_ref())?;
        // SAFETY: the context is valid, the path ends with a NUL.
        let raw = Owned::make(ffi::peft_tokenizer_free, |out| unsafe {
            ffi::peft_tokenizer_open(ctx.as_ptr(), path.as_ptr(), out)
        })?;
        Ok(Tokenizer(Arc::new(Inner { raw: Shared(raw), _ctx: ctx.clone() })))
    }

    pub(crate) fn as_ptr(&self) -> *const ffi::peft_tokenizer {
        self.0.raw.as_ptr()
    }

    /// Size of the vocabulary: ids are below it.
    pub fn size(&self) -> usize {
        // SAFETY: the tokenizer is valid.
        unsafe { ffi::peft_tokenizer_size(self.as_ptr()) }
    }

    /// Id of a token as the vocabulary spells it.
    pub fn token_id(&self, token: &str) -> Option<i32> {
        let token = c_text("the token", token).ok()?;
        // SAFETY: the tokenizer is valid, the token ends with a NUL.
        some(unsafe { ffi::peft_tokenizer_token_id(self.as_ptr(), token.as_ptr()) })
    }

    /// Id of the token that begins a text.
    pub fn bos_id(&self) -> Option<i32> {
        // SAFETY: the tokenizer is valid.
        some(unsafe { ffi::peft_tokenizer_bos_id(self.as_ptr()) })
    }

    /// Id of the token that ends a text.
    pub fn eos_id(&self) -> Option<i32> {
        // SAFETY: the tokenizer is valid.
        some(unsafe { ffi::peft_tokenizer_eos_id(self.as_ptr()) })
    }

    /// Text to ids. Any bytes are accepted; those that are no UTF-8 become byte or unknown tokens.
    pub fn encode(&self, text: impl AsRef<[u8]>, flags: Tokenize) -> Result<Vec<i32>> {
        enter()?;
        let text = text.as_ref();
        // SAFETY: the tokenizer is valid; pointers go with their lengths.
        numbers(|buf, cap, needed| unsafe {
            ffi::peft_tokenizer_encode(
                self.as_ptr(),
                text.as_ptr().cast(),
                text.len(),
                flags.0,
                buf,
                cap,
                needed,
            )
        })
    }

    /// Ids to text; what is no UTF-8 (half of a character) becomes U+FFFD.
    pub fn decode(&self, ids: &[i32], flags: Tokenize) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.decode_bytes(ids, flags)?).into_owned())
    }

    /// Ids to text as it is, which may begin or end in the middle of a character.
    pub fn decode_bytes(&self, ids: &[i32], flags: Tokenize) -> Result<Vec<u8>> {
        enter()?;
        // SAFETY: the tokenizer is valid; pointers go with their lengths.
        bytes(|buf, cap, needed| unsafe {
            ffi::peft_tokenizer_decode(self.as_ptr(), ids.as_ptr(), ids.len(), flags.0, buf, cap, needed)
        })
    }

    /// Messages, a JSON array of `{"role", "content"}`, as the model's chat format writes them;
    /// `generation_prompt` appends what opens the assistant's turn.
    pub fn chat(&self, messages_json: &str, generation_prompt: bool) -> Result<String> {
        enter()?;
        let (json, len) = (messages_json.as_ptr().cast(), messages_json.len());
        let open = i32::from(generation_prompt);
        // SAFETY: the tokenizer is valid; pointers go with their lengths.
        text(1024, |buf, cap, needed| unsafe {
            ffi::peft_tokenizer_chat(self.as_ptr(), json, len, open, buf, cap, needed)
        })
    }

    /// A JSON object: kind, size, special ids, pre-tokenizer, chat template.
    pub fn info_json(&self) -> Result<String> {
        enter()?;
        // SAFETY: the tokenizer is valid; the buffer is as long as its length says.
        text(4096, |buf, cap, needed| unsafe {
            ffi::peft_tokenizer_info_json(self.as_ptr(), buf, cap, needed)
        })
    }
}

fn some(id: i32) -> Option<i32> {
    (id >= 0).then_some(id)
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("size", &self.size()).finish()
    }
}
