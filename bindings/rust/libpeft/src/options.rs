//! Options: pairs of key and value, checked by the library where they are used.
use std::fmt::Write as _;

use libpeft_sys as ffi;

use crate::border::{c_text, check, enter, text};
use crate::context::Context;
use crate::error::Result;
use crate::handle::Owned;

/// A value of an option. `From` makes one of numbers, switches, texts and lists of texts.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A whole number; also for a key that takes a float.
    Int(i64),
    /// A float.
    Float(f64),
    /// A switch.
    Bool(bool),
    /// A text; a list by its JSON text.
    Str(String),
    /// A text in the key's own type, as on a command line: `"16"`, `"true"`, `"q_proj,v_proj"`, `"1GiB"`.
    Text(String),
}

macro_rules! whole {
    ($($t:ty),*) => {$(
        impl From<$t> for Value {
            /// What is too large for the library becomes its largest number, which is out of every key's range.
            fn from(v: $t) -> Value {
                Value::Int(i64::try_from(v).unwrap_or(i64::MAX))
            }
        }
    )*};
}
whole!(i32, i64, u32, u64, usize);

impl From<f64> for Value {
    fn from(v: f64) -> Value {
        Value::Float(v)
    }
}

impl From<bool> for Value {
    fn from(v: bool) -> Value {
        Value::Bool(v)
    }
}

impl From<&str> for Value {
    fn from(v: &str) -> Value {
        Value::Str(v.to_string())
    }
}

impl From<String> for Value {
    fn from(v: String) -> Value {
        Value::Str(v)
    }
}

impl From<&[&str]> for Value {
    fn from(list: &[&str]) -> Value {
        Value::Str(json_list(list))
    }
}

impl<const N: usize> From<[&str; N]> for Value {
    fn from(list: [&str; N]) -> Value {
        Value::Str(json_list(&list))
    }
}

fn json_list(list: &[&str]) -> String {
    let mut out = String::from("[");
    for (i, item) in list.iter().enumerate() {
        out.push_str(if i > 0 { ",\"" } else { "\"" });
        for c in item.chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                c if c < ' ' => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out.push(']');
    out
}

/// A set of options, to be given where the library takes one. The function knows the schema: the same value may serve
/// several. Keys are checked there, not here; [`schema_json`](crate::schema_json) lists them.
///
/// ```
/// use libpeft::{Context, Options, Status};
/// let options = Options::new().set("r", 4).set("lora_alpha", 8).set("target_modules", ["q_proj", "v_proj"]);
/// let ctx = Context::new()?;
/// let all = options.resolve(&ctx, "method:lora")?; // as JSON, with the defaults
/// assert!(all.contains("\"r\":4"), "{all}");
/// let wrong = Options::new().set("rr", 4).resolve(&ctx, "method:lora").unwrap_err();
/// assert_eq!(wrong.status(), Status::Key);
/// # Ok::<(), libpeft::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    pairs: Vec<(String, Value)>,
    json: Vec<String>,
}

impl Options {
    /// All defaults.
    pub fn new() -> Options {
        Options::default()
    }

    /// Sets a key; the last value wins.
    pub fn set(mut self, key: impl Into<String>, value: impl Into<Value>) -> Options {
        self.pairs.push((key.into(), value.into()));
        self
    }

    /// Sets a key from text in its own type, as a command line would: `"16"`, `"q_proj,v_proj"`, `"1GiB"`.
    pub fn text(self, key: impl Into<String>, text: impl Into<String>) -> Options {
        self.set(key, Value::Text(text.into()))
    }

    /// Sets every key of a JSON object. Keys that are set one by one come after it.
    pub fn json(mut self, object: impl Into<String>) -> Options {
        self.json.push(object.into());
        self
    }

    /// The whole set under a schema, defaults filled in, as one JSON object.
    pub fn resolve(&self, ctx: &Context, schema: &str) -> Result<String> {
        enter()?;
        let made = self.make(ctx, schema)?;
        // SAFETY: `made` is valid; the buffer is as long as its length says.
        text(4096, |buf, cap, needed| unsafe { ffi::peft_options_get_json(made.as_ptr(), buf, cap, needed) })
    }

    /// Calls `f` with the object in C, or with NULL where all are defaults.
    pub(crate) fn with<T>(
        &self,
        ctx: &Context,
        schema: &str,
        f: impl FnOnce(*const ffi::peft_options) -> Result<T>,
    ) -> Result<T> {
        if self.pairs.is_empty() && self.json.is_empty() {
            return f(std::ptr::null());
        }
        let made = self.make(ctx, schema)?;
        f(made.as_ptr())
    }

    fn make(&self, ctx: &Context, schema: &str) -> Result<Owned<ffi::peft_options>> {
        let name = c_text("the schema", schema)?;
        // SAFETY: the context is valid, the name ends with a NUL.
        let made = Owned::make(ffi::peft_options_free, |out| unsafe {
            ffi::peft_options_create(ctx.as_ptr(), name.as_ptr(), out)
        })?;
        for object in &self.json {
            // SAFETY: pointer and length of a text.
            check(unsafe {
                ffi::peft_options_set_json(made.as_ptr(), object.as_ptr().cast(), object.len())
            })?;
        }
        for (key, value) in &self.pairs {
            set(&made, key, value)?;
        }
        Ok(made)
    }
}

fn set(options: &Owned<ffi::peft_options>, key: &str, value: &Value) -> Result<()> {
    let (o, name) = (options.as_ptr(), c_text("the key", key)?);
    let k = name.as_ptr();
    let status = match value {
        // SAFETY: the set is valid, the key ends with a NUL; so in the lines below, and so do the texts.
        Value::Int(v) => unsafe { ffi::peft_options_set_int(o, k, *v) },
        // SAFETY: as above.
        Value::Float(v) => unsafe { ffi::peft_options_set_float(o, k, *v) },
        // SAFETY: as above.
        Value::Bool(v) => unsafe { ffi::peft_options_set_bool(o, k, i32::from(*v)) },
        Value::Str(v) => {
            let v = c_text(key, v)?;
            // SAFETY: as above.
            unsafe { ffi::peft_options_set_str(o, k, v.as_ptr()) }
        }
        Value::Text(v) => {
            let v = c_text(key, v)?;
            // SAFETY: as above.
            unsafe { ffi::peft_options_set_text(o, k, v.as_ptr()) }
        }
    };
    check(status)
}

impl From<()> for Options {
    /// All defaults.
    fn from((): ()) -> Options {
        Options::new()
    }
}

impl From<&Options> for Options {
    fn from(options: &Options) -> Options {
        options.clone()
    }
}

impl<K: Into<String>, V: Into<Value>, const N: usize> From<[(K, V); N]> for Options {
    fn from(pairs: [(K, V); N]) -> Options {
        pairs.into_iter().collect()
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Options {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Options {
        pairs.into_iter().fold(Options::new(), |options, (key, value)| options.set(key, value))
    }
}
