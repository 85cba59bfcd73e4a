//! Data set: rows to train on or to evaluate, and what an evaluation says.
use std::path::Path;

use libpeft_sys as ffi;

use crate::batch::Batch;
use crate::border::{c_path, check, enter, numbers, text};
use crate::context::Context;
use crate::error::{Error, Result, Status};
use crate::handle::Owned;
use crate::options::Options;
use crate::tokenizer::Tokenizer;

/// Rows in memory. Once a trainer uses them, none can be added.
pub struct Dataset {
    raw: Owned<ffi::peft_dataset>,
    _ctx: Context, // after `raw`: it has what C calls back
}

/// One row of a data set as it is trained.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// Token ids.
    pub ids: Vec<i32>,
    /// What the model must say at each, before the shift; -100 for no loss.
    pub labels: Vec<i32>,
}

impl Dataset {
    /// An empty data set. The tokenizer is kept; `None` for rows of `input_ids`. Options: schema `"dataset"`.
    pub fn new(ctx: &Context, tokenizer: Option<&Tokenizer>, options: impl Into<Options>) -> Result<Dataset> {
        enter()?;
        let tokenizer = tokenizer.map_or(std::ptr::null(), Tokenizer::as_ptr);
        options.into().with(ctx, "dataset", |o| {
            // SAFETY: context, tokenizer (or NULL) and options are valid.
            let raw = Owned::make(ffi::peft_dataset_free, |out| unsafe {
                ffi::peft_dataset_create(ctx.as_ptr(), tokenizer, o, out)
            })?;
            Ok(Dataset { raw, _ctx: ctx.clone() })
        })
    }

    pub(crate) fn as_ptr(&self) -> *mut ffi::peft_dataset {
        self.raw.as_ptr()
    }

    /// Adds rows from JSON Lines: `{"text"}`, `{"prompt", "completion"}`, `{"messages"}`, `{"input_ids"[, "labels"]}`, or any
    /// fields through the templates of the options. If a row is bad, nothing is added.
    pub fn load_jsonl(&mut self, path: impl AsRef<Path>) -> Result<()> {
        enter()?;
        let path = c_path(path.as_ref())?;
        // SAFETY: the data set is valid and ours alone, the path ends with a NUL.
        check(unsafe { ffi::peft_dataset_load_jsonl(self.as_ptr(), path.as_ptr()) })
    }

    /// Adds one row, the text of a JSON object as in a line of the file.
    pub fn add_json(&mut self, json: &str) -> Result<()> {
        enter()?;
        // SAFETY: the data set is valid and ours alone; pointer and length of a text.
        check(unsafe { ffi::peft_dataset_add_json(self.as_ptr(), json.as_ptr().cast(), json.len()) })
    }

    /// Adds the rows of a batch, cut at `max_length`.
    pub fn add(&mut self, rows: &Batch) -> Result<()> {
        enter()?;
        // SAFETY: both are valid and of this thread.
        check(unsafe { ffi::peft_dataset_add(self.as_ptr(), rows.as_ptr()) })
    }

    /// Number of rows, after packing.
    pub fn len(&self) -> usize {
        // SAFETY: the data set is valid.
        unsafe { ffi::peft_dataset_size(self.as_ptr()) }
    }

    /// Are there no rows?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One row. [`Status::NotFound`] past the end.
    pub fn row(&self, index: usize) -> Result<Row> {
        enter()?;
        let d = self.as_ptr();
        let none = std::ptr::null_mut();
        // SAFETY: the data set is valid; the buffer is as long as its length says.
        let ids =
            numbers(|buf, cap, needed| unsafe { ffi::peft_dataset_row(d, index, buf, none, cap, needed) })?;
        let (mut again, mut labels, mut needed) = (ids.clone(), vec![0; ids.len()], 0);
        // SAFETY: as above; both buffers have this length.
        check(unsafe {
            ffi::peft_dataset_row(d, index, again.as_mut_ptr(), labels.as_mut_ptr(), again.len(), &mut needed)
        })?;
        Ok(Row { ids, labels })
    }

    /// All rows.
    pub fn iter(&self) -> impl Iterator<Item = Result<Row>> + '_ {
        (0..self.len()).map(move |i| self.row(i))
    }

    /// A JSON object: rows, tokens, labelled tokens, longest row, truncated rows.
    pub fn info_json(&self) -> Result<String> {
        enter()?;
        // SAFETY: the data set is valid; the buffer is as long as its length says.
        text(512, |buf, cap, needed| unsafe { ffi::peft_dataset_info_json(self.as_ptr(), buf, cap, needed) })
    }
}

impl std::fmt::Debug for Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataset").field("rows", &self.len()).finish()
    }
}

/// How well a model says the labels of a data set.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// Mean loss of the labelled tokens or rows.
    pub loss: f64,
    /// Its exponential for a language model, else NaN.
    pub perplexity: f64,
    /// Share of labelled tokens or rows that the model gets right; NaN for tasks without.
    pub accuracy: f64,
    /// Labelled tokens; 0 for tasks about rows.
    pub tokens: u64,
    /// Rows.
    pub rows: u64,
    /// All of it as JSON: what the task is measured by has keys of its own (`f1_macro`, `pearson`, `exact_match`, ...).
    pub json: String,
}

impl Metrics {
    /// A measure of the task by its key, such as `f1_macro`; NaN where it is not defined, `None` where the task has none.
    pub fn score(&self, key: &str) -> Option<f64> {
        number(&self.json, key).ok()
    }
}

impl Metrics {
    pub(crate) fn parse(json: &str) -> Result<Metrics> {
        Ok(Metrics {
            loss: number(json, "loss")?,
            perplexity: number(json, "perplexity").unwrap_or(f64::NAN),
            accuracy: number(json, "accuracy").unwrap_or(f64::NAN),
            tokens: number(json, "tokens").unwrap_or(0.0) as u64,
            rows: number(json, "rows")? as u64,
            json: json.to_string(),
        })
    }
}

/// A number of a flat JSON object. A `null` stands for one that JSON cannot write.
fn number(json: &str, key: &str) -> Result<f64> {
    let after =
        json.split_once(&format!("\"{key}\"")).and_then(|(_, rest)| rest.trim_start().strip_prefix(':'));
    let word = after.and_then(|rest| rest.split([',', '}']).next()).map(str::trim);
    match word {
        Some("null") => Ok(f64::NAN),
        Some(word) => {
            word.parse().map_err(|_| Error::new(Status::Internal, format!("\"{key}\" is {word} in {json}")))
        }
        None => Err(Error::new(Status::Internal, format!("no \"{key}\" in {json}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_flat_object() {
        let json = r#"{"loss":0.5,"perplexity": null , "accuracy":1e-2,"tokens":12,"rows":3}"#;
        let m = Metrics::parse(json).unwrap();
        assert_eq!((m.loss, m.accuracy, m.tokens, m.rows), (0.5, 0.01, 12, 3));
        assert!(m.perplexity.is_nan());
        assert_eq!(Metrics::parse("{}").unwrap_err().message(), "no \"loss\" in {}");
        assert_eq!(number("{\"a\":x}", "a").unwrap_err().message(), "\"a\" is x in {\"a\":x}");
    }
}
