//! Sessions: logits, and generation in one call and by pieces.
mod kit;
use std::ops::ControlFlow;

use kit::*;
use libpeft::*;

#[test]
fn logits_have_a_row_for_each_token() {
    let (ctx, model, adapters) = set();
    shake(&adapters, "a", 0.3);
    let mut s = Session::new(&adapters, "a", ()).unwrap();
    let with = logits(&mut s, &ctx);
    assert_eq!(with.len(), 7 * VOCAB);
    let base = logits(&mut Session::base(&model, ()).unwrap(), &ctx);
    assert_ne!(bits(&with), bits(&base));
    s.set_adapters("0 * a").unwrap();
    assert_eq!(bits(&logits(&mut s, &ctx)), bits(&base));
    s.set_adapters("").unwrap();
    assert_eq!(bits(&logits(&mut s, &ctx)), bits(&base));
    refused(s.set_adapters("b"), Status::NotFound, "\"b\"");
    refused(s.set_adapters("stack(a"), Status::Invalid, "");
    s.set_adapters("a").unwrap();
    assert_eq!(bits(&logits(&mut s, &ctx)), bits(&with));
    refused(s.logits(&batch(&ctx, &[&[1; 97]])), Status::Shape, "97");
    refused(s.logits(&batch(&ctx, &[&[260]])), Status::Invalid, "260");
    assert_eq!(s.logits(&Batch::new(&ctx).unwrap()).unwrap(), []);
    refused(Session::new(&adapters, "z", ()), Status::NotFound, "\"z\"");
    refused(Session::new(&adapters, "a\0", ()), Status::Invalid, "NUL at byte 1");
    refused(Session::base(&model, [("max_len", 8)]), Status::Key, "max_length");
    // A tensor that is overwritten counts from the next call on.
    let t = adapters.tensors("a").unwrap();
    for t in t.iter().filter(|t| t.name.contains("lora_B")) {
        adapters.write_tensor("a", &t.name, &vec![0.0; t.len()]).unwrap();
    }
    assert_eq!(bits(&logits(&mut s, &ctx)), bits(&base));
}

#[test]
fn pieces_equal_the_whole() {
    let (ctx, _, adapters) = set();
    shake(&adapters, "a", 0.3);
    let t = tokenizer(&ctx);
    let mut s = Session::new(&adapters, "a", ()).unwrap();
    for (seed, temperature) in [(0, 0.0), (1, 1.5), (2, 3.0)] {
        let o = Options::new().set("max_new_tokens", 40).set("seed", seed).set("temperature", temperature);
        let o = o.set("ignore_eos", true); // without a tokenizer other tokens end a text
        let (mut ids, mut seen) = (Vec::new(), String::new());
        let whole = s
            .generate_with(&t, "Es war ", &o, |id, text| {
                ids.push(id);
                seen.push_str(text);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(seen, whole);
        assert!(!ids.is_empty() && ids.len() <= 40);
        assert_eq!(s.generate(&t, "Es war ", &o).unwrap(), whole);
        let prompt = t.encode("Es war ", Tokenize::SPECIAL).unwrap();
        assert_eq!(s.generate_ids(Some(&t), &prompt, &o).unwrap(), ids);
        let pieces: Vec<Piece> = s.stream(&t, "Es war ", &o).unwrap().collect::<Result<_>>().unwrap();
        assert_eq!(pieces.iter().map(|p| p.id).collect::<Vec<_>>(), ids);
        assert_eq!(pieces.iter().map(|p| p.text.as_str()).collect::<String>(), whole);
        let streamed = s.stream_ids(None, &prompt, &o).unwrap();
        let bare: Vec<Piece> = streamed.collect::<Result<_>>().unwrap();
        assert_eq!(bare.iter().map(|p| p.id).collect::<Vec<_>>(), ids);
        assert!(bare.iter().all(|p| p.text.is_empty()));
    }
}

#[test]
fn generation_ends_where_it_is_told() {
    let (ctx, _, adapters) = set();
    shake(&adapters, "a", 0.3);
    let t = tokenizer(&ctx);
    let mut s = Session::new(&adapters, "a", [("max_length", 24)]).unwrap();
    let o = Options::new().set("temperature", 3.0).set("ignore_eos", true);
    let prompt = [65; 4];
    assert_eq!(s.generate_ids(None, &prompt, &o).unwrap().len(), 20); // up to max_length
    let whole = s.generate(&t, "AAAA", &o).unwrap();
    let letters: Vec<char> = whole.chars().collect();
    let stop: String =
        letters[3..].windows(2).find(|w| w.iter().all(char::is_ascii)).unwrap().iter().collect();
    let cut = s.generate(&t, "AAAA", o.clone().set("stop", [stop.as_str()])).unwrap();
    assert_eq!(cut, whole[..whole.find(&stop).unwrap()]);
    let streamed = s.stream(&t, "AAAA", o.clone().set("stop", [stop.as_str()])).unwrap();
    assert_eq!(streamed.map(|p| p.unwrap().text).collect::<String>(), cut);
    assert_eq!(s.generate(&t, "AAAA", o.clone().set("max_new_tokens", 0)).unwrap(), "");
    assert!(s.stream(&t, "AAAA", o.clone().set("max_new_tokens", 0)).unwrap().next().is_none());
    refused(s.generate_ids(None, &[1; 24], ()), Status::Shape, "24");
    refused(s.generate_ids(None, &[], ()), Status::Invalid, "no tokens");
    refused(s.stream_ids(None, &[260], ()), Status::Invalid, "260");
    refused(s.generate(&t, "A", [("temprature", 1.0)]), Status::Key, "temperature");
    let mut n = 0;
    let stopped = s.generate_with(&t, "AAAA", &o, |_, _| {
        n += 1;
        if n == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    refused(stopped, Status::Callback, "");
    assert_eq!(n, 3);
    let parallel = Session::new(&adapters, "parallel(a, a)", ()).and_then(|mut s| s.generate(&t, "A", ()));
    assert!(parallel.is_err());
}

#[test]
fn a_session_is_cancelled_from_anywhere() {
    let (ctx, _, adapters) = set();
    let t = tokenizer(&ctx);
    let o = Options::new().set("ignore_eos", true).set("max_new_tokens", 30).set("temperature", 2.0);
    let mut s = Session::new(&adapters, "a", ()).unwrap();
    let canceller = s.canceller();
    let whole = s.generate(&t, "AB", &o).unwrap();
    canceller.cancel(); // the next call
    refused(s.generate(&t, "AB", &o), Status::Cancelled, "");
    assert_eq!(s.generate(&t, "AB", &o).unwrap(), whole);
    let from_within = canceller.clone();
    let mut n = 0;
    let stopped = s.generate_with(&t, "AB", &o, |_, _| {
        n += 1;
        from_within.cancel();
        ControlFlow::Continue(())
    });
    refused(stopped, Status::Cancelled, "");
    assert_eq!(n, 1);
    let mut stream = s.stream(&t, "AB", &o).unwrap();
    let mut text = stream.next().unwrap().unwrap().text;
    canceller.cancel();
    refused(stream.next().unwrap(), Status::Cancelled, "");
    text.extend(stream.map(|p| p.unwrap().text)); // it goes on where it was
    assert_eq!(text, whole);
    let data = rows(&ctx, 4);
    std::thread::scope(|scope| {
        let other = canceller.clone();
        scope.spawn(move || other.cancel()).join().unwrap();
    });
    refused(s.evaluate(&data), Status::Cancelled, "");
    assert_eq!(s.evaluate(&data).unwrap().rows, 4);
    drop(s);
    canceller.cancel(); // of nothing
}

#[test]
fn a_new_stream_begins_anew() {
    let (ctx, _, adapters) = set();
    let t = tokenizer(&ctx);
    let mut s = Session::new(&adapters, "a", ()).unwrap();
    let o = Options::new().set("ignore_eos", true).set("max_new_tokens", 8).set("temperature", 2.0);
    let whole = s.generate(&t, "xyz", &o).unwrap();
    s.stream(&t, "xyz", &o).unwrap().next().unwrap().unwrap();
    logits(&mut s, &ctx);
    assert_eq!(s.stream(&t, "xyz", &o).unwrap().map(|p| p.unwrap().text).collect::<String>(), whole);
}

#[test]
fn heads_have_outputs_and_measures() {
    let config = r#"{"architectures":["BertForSequenceClassification"],"model_type":"bert","hidden_size":16,"num_hidden_layers":2,
        "num_attention_heads":2,"intermediate_size":24,"vocab_size":40,"max_position_embeddings":32,"type_vocab_size":2,
        "hidden_act":"gelu","id2label":{"0":"no","1":"yes"}}"#;
    let ctx = context();
    let model = Model::random(&ctx, config, 3).unwrap();
    let mut data = Dataset::new(&ctx, None, [("task", "sequence_classification")]).unwrap();
    for (ids, label) in [("[1,2,3]", "yes"), ("[4,5]", "no"), ("[6,7,8,9]", "yes")] {
        data.add_json(&format!("{{\"input_ids\":{ids},\"label\":\"{label}\"}}")).unwrap();
    }
    let mut s = Session::base(&model, ()).unwrap();
    let outputs = s.outputs(&data).unwrap();
    assert_eq!(outputs.len(), 3 * 2);
    let right = outputs.chunks(2).zip([1, 0, 1]).filter(|(o, label)| (o[1] > o[0]) as i32 == *label).count();
    let found = s.evaluate(&data).unwrap();
    assert_eq!((found.rows, found.tokens), (3, 0));
    assert!((found.accuracy - right as f64 / 3.0).abs() < 1e-6 && found.perplexity.is_nan());
    assert_eq!(found.score("accuracy"), Some(found.accuracy));
    assert_eq!(found.score("exact_match"), None);
    let (_, other, _) = set();
    refused(Session::base(&other, ()).unwrap().outputs(&data), Status::Unsupported, "peft_session_logits");
}
