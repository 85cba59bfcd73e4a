//! What the tests share: a small model with random weights, a tokenizer of bytes, rows, folders.
#![allow(dead_code)]
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use libpeft::*;

pub const CONFIG: &str = r#"{"model_type":"llama","hidden_size":32,"intermediate_size":48,"num_hidden_layers":2,
    "num_attention_heads":4,"num_key_value_heads":2,"vocab_size":260,"max_position_embeddings":96,"rms_norm_eps":1e-5,
    "hidden_act":"silu","bos_token_id":null,"eos_token_id":256,"tie_word_embeddings":false}"#;
pub const VOCAB: usize = 260;

pub fn context() -> Context {
    Context::builder().threads(2).build().unwrap()
}

pub fn model(ctx: &Context) -> Model {
    Model::random(ctx, CONFIG, 3).unwrap()
}

/// Context, model, and a set with the LoRA "a".
pub fn set() -> (Context, Model, Adapters) {
    let ctx = context();
    let model = model(&ctx);
    let adapters = Adapters::new(&model).unwrap();
    adapters.add("a", "lora", [("r", 4)], 1).unwrap();
    (ctx, model, adapters)
}

/// Writes values to every tensor, so that the adapter changes something.
pub fn shake(adapters: &Adapters, name: &str, size: f32) {
    for (k, t) in adapters.tensors(name).unwrap().iter().enumerate() {
        let noise = |i: usize| size * (((i * 37 + k * 11) % 101) as f32 / 50.0 - 1.0);
        adapters.write_tensor(name, &t.name, &(0..t.len()).map(noise).collect::<Vec<_>>()).unwrap();
    }
}

/// All tensors of a model as floats in memory.
pub fn tensors(model: &Model) -> Vec<Tensor> {
    let all = model.tensors().unwrap();
    all.iter().map(|t| Tensor::floats(&t.name, &t.dims, model.tensor(&t.name).unwrap())).collect()
}

/// Rows of ids that are easy to learn: row r counts up from r.
pub fn rows(ctx: &Context, n: usize) -> Dataset {
    let mut data = Dataset::new(ctx, None, ()).unwrap();
    for r in 0..n {
        let ids: Vec<String> = (0..6).map(|i| ((r + i) % 20).to_string()).collect();
        data.add_json(&format!("{{\"input_ids\":[{}]}}", ids.join(","))).unwrap();
    }
    data
}

pub fn batch(ctx: &Context, rows: &[&[i32]]) -> Batch {
    let mut batch = Batch::new(ctx).unwrap();
    batch.set("input_ids", rows).unwrap();
    batch
}

pub fn logits(session: &mut Session, ctx: &Context) -> Vec<f32> {
    session.logits(&batch(ctx, &[&[1, 2, 3, 4], &[9, 8, 7]])).unwrap()
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// A number of a JSON text, by its key.
pub fn number(json: &str, key: &str) -> f64 {
    let rest = json.split_once(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key} in {json}")).1;
    rest.trim_start().split([',', '}', ']']).next().unwrap().parse().unwrap()
}

/// An error of this kind whose message has these words.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T>, status: Status, words: &str) {
    let error = result.expect_err("an error");
    assert_eq!(error.status(), status, "{error:?}");
    assert!(error.message().contains(words), "\"{words}\" is not in {error:?}");
}

/// A folder of the test's own, which goes at its end; its name has blanks and more than ASCII.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("libpeft test {} {} Ünï 文", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A byte-level tokenizer: 256 bytes, then <|end|> 256, <|im_start|> 257, <|im_end|> 258, " the" 259.
pub fn write_tokenizer(folder: &Path) {
    let mut spare = 255;
    let mut letter = |b: u32| match b {
        33..=126 | 161..=172 | 174..=255 => b,
        _ => {
            spare += 1;
            spare
        }
    };
    let spell = |c: u32| match c {
        34 => "\\\"".to_string(),
        92 => "\\\\".to_string(),
        c => char::from_u32(c).unwrap().to_string(),
    };
    let vocab: Vec<String> = (0..256).map(|b| format!("\"{}\":{b}", spell(letter(b)))).collect();
    let added: Vec<String> = ["<|end|>", "<|im_start|>", "<|im_end|>"]
        .iter()
        .enumerate()
        .map(|(i, t)| format!("{{\"id\":{},\"content\":\"{t}\",\"special\":true}}", 256 + i))
        .collect();
    let json = format!(
        r#"{{"version":"1.0","added_tokens":[{}],"normalizer":null,
        "pre_tokenizer":{{"type":"ByteLevel","add_prefix_space":false,"use_regex":true}},"post_processor":null,
        "decoder":{{"type":"ByteLevel"}},"model":{{"type":"BPE","vocab":{{{},"Ġt":259}},"merges":["Ġ t"]}}}}"#,
        added.join(","),
        vocab.join(",")
    );
    fs::write(folder.join("tokenizer.json"), json).unwrap();
    let config = r#"{"eos_token":"<|end|>","chat_template":"{{'<|im_start|>' + message['role']}}"}"#;
    fs::write(folder.join("tokenizer_config.json"), config).unwrap();
}

pub fn tokenizer(ctx: &Context) -> Tokenizer {
    let folder = Folder::new();
    write_tokenizer(&folder.0);
    Tokenizer::open(ctx, &folder.0).unwrap()
}
