//! The library itself, options, statuses, tokenizers, batches, data sets.
mod kit;
use kit::*;
use libpeft::*;

#[test]
fn what_is_built_in() {
    let crate_version = env!("CARGO_PKG_VERSION");
    assert_eq!(version_string(), crate_version);
    let number = crate_version.split('.').fold(0, |n, part| n << 8 | part.parse::<u32>().unwrap());
    assert_eq!(version(), number);
    assert!(build_info().starts_with(&format!("version={crate_version} ")), "{}", build_info());
    assert!(methods().any(|m| m == "lora") && methods().any(|m| m == "prefix"));
    assert!(architectures().any(|a| a == "llama"));
    assert_eq!(optimizers().collect::<Vec<_>>(), ["adamw", "sgd", "lion"]);
    for schema in schemas() {
        let json = schema_json(schema).unwrap();
        assert!(json.starts_with('[') && json.contains("\"key\"") || json == "[]", "{schema}: {json}");
    }
    assert!(schemas().any(|s| s == "method:lora"));
    refused(schema_json("trainr"), Status::Key, "trainer");
}

#[test]
fn statuses_and_types_have_names() {
    assert_eq!(Status::NoMemory.name(), "PEFT_E_NOMEM");
    assert_eq!(Status::NoMemory.code(), -2);
    assert_eq!(Status::Internal.to_string(), "PEFT_E_INTERNAL");
    assert_eq!(Status::Other(-99).name(), "PEFT_E_?");
    assert_eq!(Status::Other(-99).code(), -99);
    assert_eq!((Dtype::BF16.name(), Dtype::BF16.code()), ("BF16", 30));
    assert_eq!(Dtype::Q6_K.to_string(), "Q6_K");
    assert_eq!(Dtype::Other(99).name(), "?");
    let error = Model::open(&context(), "/no such file", ()).unwrap_err();
    assert_eq!(error.to_string(), error.message());
    assert_eq!(format!("{error:?}"), format!("PEFT_E_NOT_FOUND: {error}"));
    let boxed: Box<dyn std::error::Error + Send + Sync> = error.into();
    assert!(boxed.to_string().contains("/no such file"), "{boxed}");
}

#[test]
fn options_are_checked_by_the_library() {
    let ctx = context();
    let all = Options::new()
        .json("{\"r\":3,\"use_rslora\":true}")
        .set("r", 4)
        .set("lora_alpha", 8)
        .set("lora_dropout", 0.25)
        .set("use_rslora", false)
        .set("target_modules", ["q_proj", "v\"\\\n_proj"])
        .resolve(&ctx, "method:lora")
        .unwrap();
    assert_eq!(number(&all, "r"), 4.0);
    assert_eq!(number(&all, "lora_alpha"), 8.0);
    assert_eq!(number(&all, "lora_dropout"), 0.25);
    assert!(all.contains("\"use_rslora\":false"), "{all}");
    assert!(all.contains("\"q_proj\"") && all.contains("v\\\"\\\\\\u000a_proj"), "{all}");
    let size =
        Options::new().text("memory_limit", "1GiB").text("batch_size", "3").resolve(&ctx, "trainer").unwrap();
    assert_eq!((number(&size, "memory_limit"), number(&size, "batch_size")), (1073741824.0, 3.0));
    let pairs: Options = vec![("r".to_string(), 5)].into_iter().collect();
    assert_eq!(number(&pairs.resolve(&ctx, "method:lora").unwrap(), "r"), 5.0);
    assert_eq!(pairs, Options::from(&pairs));
    refused(Options::new().set("rr", 4).resolve(&ctx, "method:lora"), Status::Key, "rr");
    refused(Options::new().set("r", 0.5).resolve(&ctx, "method:lora"), Status::Key, "\"r\"");
    refused(Options::new().set("r", u64::MAX).resolve(&ctx, "method:lora"), Status::Key, "\"r\"");
    refused(Options::new().set("r", "x").resolve(&ctx, "method:lora"), Status::Key, "\"r\"");
    refused(Options::new().json("[1]").resolve(&ctx, "trainer"), Status::Format, "");
    refused(Options::new().resolve(&ctx, "method:lor"), Status::Key, "method:lora");
    refused(
        Options::new().set("a\0b", 1).resolve(&ctx, "trainer"),
        Status::Invalid,
        "the key \"a\\0b\" has a NUL at byte 1",
    );
    refused(
        Options::new().set("optimizer", "a\0").resolve(&ctx, "optimizer"),
        Status::Invalid,
        "NUL at byte 1",
    );
    refused(Options::new().resolve(&ctx, "\0"), Status::Invalid, "NUL at byte 0");
}

#[test]
fn tokenizer_text_and_ids() {
    let ctx = context();
    let t = tokenizer(&ctx);
    assert_eq!(t.size(), VOCAB);
    assert_eq!((t.bos_id(), t.eos_id()), (None, Some(256)));
    assert_eq!((t.token_id("<|im_end|>"), t.token_id("none"), t.token_id("a\0")), (Some(258), None, None));
    let text = "Grüße, 文\0 the";
    let ids = t.encode(text, Tokenize::PLAIN).unwrap();
    assert_eq!(ids[..4], [71, 114, 0xc3, 0xbc]);
    assert!(ids.contains(&259), "{ids:?}");
    assert_eq!(t.decode(&ids, Tokenize::PLAIN).unwrap(), text);
    assert_eq!(t.decode(&[71, 0xc3], Tokenize::PLAIN).unwrap(), "G\u{fffd}");
    assert_eq!(t.decode_bytes(&[71, 0xc3], Tokenize::PLAIN).unwrap(), [71, 0xc3]);
    assert_eq!(t.encode([0xff, 0x41], Tokenize::PLAIN).unwrap(), [0xff, 0x41]);
    assert_eq!(t.encode("", Tokenize::PLAIN).unwrap(), []);
    assert_eq!(t.encode("<|end|>", Tokenize::SPECIAL).unwrap(), [256]);
    assert_eq!(t.encode("<|end|>", Tokenize::PLAIN).unwrap().len(), 7);
    assert_eq!(t.encode("a", Tokenize::SPECIAL | Tokenize::BOS_EOS).unwrap(), [97]);
    assert_eq!(t.decode(&[256], Tokenize::SPECIAL).unwrap(), "<|end|>");
    assert_eq!(t.decode(&[256], Tokenize::PLAIN).unwrap(), "");
    let long = "ä".repeat(4000); // longer than the first buffer
    assert_eq!(t.decode(&t.encode(&long, Tokenize::PLAIN).unwrap(), Tokenize::PLAIN).unwrap(), long);
    refused(t.decode(&[260], Tokenize::PLAIN), Status::Invalid, "260");
    let chat = t.chat(r#"[{"role":"user","content":"Hi?"}]"#, true).unwrap();
    assert_eq!(chat, "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n");
    refused(t.chat("{}", false), Status::Format, "");
    assert!(t.info_json().unwrap().contains("\"chatml\""), "{}", t.info_json().unwrap());
    refused(Tokenizer::open(&ctx, "/no such folder"), Status::NotFound, "/no such folder");
    refused(Tokenizer::open(&ctx, "a\0b"), Status::Invalid, "the path \"a\\0b\" has a NUL at byte 1");
}

#[cfg(unix)]
#[test]
fn a_path_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::OsStr::from_bytes(b"/tmp/\xff");
    refused(Model::open(&context(), path, ()), Status::Invalid, "is no UTF-8");
}

#[test]
fn batches_hold_rows_that_fit() {
    let ctx = context();
    let mut b = Batch::new(&ctx).unwrap();
    assert_eq!(b.rows(), 0);
    refused(b.set("labels", &[[1]]), Status::Invalid, "input_ids");
    b.set("input_ids", &[vec![1, 2, 3], vec![4]]).unwrap();
    b.set("labels", &[vec![-100, 2, 3], vec![-100]]).unwrap();
    b.set_floats("loss_weights", &[vec![1.0, 0.5, 0.0], vec![1.0]]).unwrap();
    b.set_per_row("task_id", &[0, 1]).unwrap();
    assert_eq!(b.rows(), 2);
    refused(b.set("labels", &[[1, 2, 3], [4, 5, 6]]), Status::Shape, "row 1");
    refused(b.set("labels", &[[1, 2, 3]]), Status::Shape, "1 rows");
    refused(b.set("input_ids", &[Vec::<i32>::new()]), Status::Invalid, "row 0 is empty");
    refused(b.set("input_ids", &[[-5]]), Status::Invalid, "-5");
    refused(b.set("ids", &[[1]]), Status::Key, "\"ids\"");
    refused(b.set_floats("loss_weights", &[vec![f32::NAN, 0.5, 0.0], vec![1.0]]), Status::Invalid, "value 0");
    refused(b.set_floats("loss_weights", &[[1.0f32]]), Status::Shape, "1 rows");
    refused(b.set_per_row("task_id", &[0]), Status::Shape, "1 values");
    refused(b.set_per_row("input_ids", &[0]), Status::Invalid, "row_offsets");
    refused(b.set("task_id", &[Vec::<i32>::new(), vec![1, 2]]), Status::Shape, "row 0");
    refused(b.set("a\0", &[[1]]), Status::Invalid, "NUL at byte 1");
    assert_eq!(b.rows(), 2); // as it was
    b.clear();
    assert_eq!(b.rows(), 0);
    let none: [Vec<i32>; 0] = [];
    b.set("input_ids", &none).unwrap();
    assert_eq!(b.rows(), 0);
}

#[test]
fn data_sets_hold_what_is_trained() {
    let ctx = context();
    let t = tokenizer(&ctx);
    let mut d = Dataset::new(&ctx, Some(&t), [("max_length", 8)]).unwrap();
    assert!(d.is_empty());
    d.add_json(r#"{"prompt": "ab", "completion": "c"}"#).unwrap();
    assert_eq!(d.row(0).unwrap().ids, [97, 98, 99, 256]);
    assert_eq!(d.row(0).unwrap().labels, [-100, -100, 99, 256]);
    d.add(&batch(&ctx, &[&[1, 2, 3], &[5; 12]])).unwrap();
    assert_eq!(d.len(), 3);
    let rows: Vec<Row> = d.iter().collect::<Result<_>>().unwrap();
    assert_eq!(rows[2].ids, [5; 8]); // cut at max_length
    assert_eq!(number(&d.info_json().unwrap(), "truncated"), 1.0);
    refused(d.row(3), Status::NotFound, "no row 3");
    refused(d.add_json("{"), Status::Format, "");
    let folder = Folder::new();
    std::fs::write(folder.path("rows.jsonl"), "{\"text\":\"x\"}\n{\"text\":\"yz\"}\n").unwrap();
    d.load_jsonl(folder.path("rows.jsonl")).unwrap();
    assert_eq!(d.len(), 5);
    std::fs::write(folder.path("bad.jsonl"), "{\"text\":\"x\"}\n{\"txt\":1}\n").unwrap();
    refused(d.load_jsonl(folder.path("bad.jsonl")), Status::Format, "bad.jsonl line 2");
    refused(d.load_jsonl(folder.path("none.jsonl")), Status::NotFound, "none.jsonl");
    assert_eq!(d.len(), 5);
    assert!(ctx.inspect(folder.path("rows.jsonl")).unwrap().contains("\"data\""));
    assert!(ctx.check(folder.path("rows.jsonl"), None, ()).unwrap().contains("\"ok\":true"));
    assert!(ctx.check(folder.path("bad.jsonl"), None, [("max_errors", 1)]).unwrap().contains("line 2"));
    refused(Dataset::new(&ctx, None, [("max_lenght", 8)]), Status::Key, "max_length");
}
