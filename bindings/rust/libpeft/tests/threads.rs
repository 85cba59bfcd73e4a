//! Threads and lifetimes: one model for all, turns over one set, handles dropped in any order.
mod kit;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use kit::*;
use libpeft::*;

#[test]
fn one_model_serves_many_threads() {
    let (ctx, model, adapters) = set();
    shake(&adapters, "a", 0.3);
    let want = bits(&logits(&mut Session::new(&adapters, "a", ()).unwrap(), &ctx));
    let t = tokenizer(&ctx);
    thread::scope(|s| {
        for n in 0..6 {
            let (ctx, model, adapters, t, want) = (&ctx, model.clone(), adapters.clone(), &t, &want);
            s.spawn(move || {
                let mut session = Session::new(&adapters, "a", ()).unwrap();
                for _ in 0..5 {
                    assert_eq!(bits(&logits(&mut session, ctx)), *want);
                    assert_eq!(t.encode("abc", Tokenize::PLAIN).unwrap(), [97, 98, 99]);
                    assert_eq!(model.tensors().unwrap().len(), 21);
                }
                // A set of its own over the same model learns meanwhile.
                let own = Adapters::new(&model).unwrap();
                own.add("x", "lora", (), n).unwrap();
                let mut trainer = Trainer::new(&own, [("max_steps", 3)]).unwrap();
                trainer.add_job("x", Some(&rows(ctx, 4)), None, ()).unwrap();
                assert_eq!(trainer.steps().map(|s| s.unwrap().step).sum::<u64>(), 6);
            });
        }
    });
}

#[test]
fn sessions_and_a_trainer_take_turns_over_one_set() {
    let (ctx, _, adapters) = set();
    let data = rows(&ctx, 8);
    let mut trainer = Trainer::new(&adapters, [("max_steps", 1_000_000)]).unwrap();
    trainer.add_job("a", Some(&data), None, ()).unwrap();
    let (canceller, passes) = (trainer.canceller(), AtomicUsize::new(0));
    thread::scope(|s| {
        for _ in 0..3 {
            let (ctx, adapters, passes, canceller) = (&ctx, adapters.clone(), &passes, canceller.clone());
            s.spawn(move || {
                let mut session = Session::new(&adapters, "a", ()).unwrap();
                let name = adapters.tensors("a").unwrap()[0].name.clone();
                for _ in 0..10 {
                    assert!(logits(&mut session, ctx).iter().all(|v| v.is_finite()));
                    assert!(adapters.read_tensor("a", &name).unwrap().iter().all(|v| v.is_finite()));
                    if passes.fetch_add(1, Ordering::SeqCst) == 29 {
                        canceller.cancel(); // the run has let all of them in
                    }
                }
            });
        }
        refused(trainer.run(), Status::Cancelled, "cancelled after step");
    });
    assert_eq!(passes.load(Ordering::SeqCst), 30);
}

#[test]
fn names_are_safe_while_another_thread_removes_them() {
    let (_, _, adapters) = set();
    let done = AtomicBool::new(false);
    thread::scope(|s| {
        s.spawn(|| {
            for i in 0..200 {
                adapters.add("short lived", "lora", [("r", 1)], i).unwrap();
                adapters.remove("short lived").unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        for _ in 0..2 {
            s.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let names = adapters.names();
                    assert!(names == ["a"] || names == ["a", "short lived"], "{names:?}");
                    if let Ok(tensors) = adapters.tensors("short lived") {
                        assert!(tensors.iter().all(|t| t.name.starts_with("model.layers.")), "{tensors:?}");
                    }
                }
            });
        }
    });
}

#[test]
fn handles_move_between_threads() {
    let (ctx, _, adapters) = set();
    let mut session = Session::new(&adapters, "a", ()).unwrap();
    let want = bits(&logits(&mut session, &ctx));
    let got = thread::spawn(move || bits(&logits(&mut session, &ctx))).join().unwrap();
    assert_eq!(got, want);
    let (ctx, _, adapters) = set();
    let data = rows(&ctx, 4);
    let mut trainer = Trainer::new(&adapters, [("max_steps", 2)]).unwrap();
    trainer.add_job("a", Some(&data), None, ()).unwrap();
    trainer.on_step(|_| ControlFlow::Continue(()));
    // The trainer reads the data there, and the handle is read here.
    thread::scope(|s| {
        let run = s.spawn(move || trainer.run().map(|()| trainer));
        for _ in 0..100 {
            assert_eq!(data.iter().map(|r| r.unwrap().ids.len()).sum::<usize>(), 24);
        }
        assert_eq!(run.join().unwrap().unwrap().evaluate(&data).unwrap().rows, 4);
    });
}

/// One of the handles that hang together.
enum Handle {
    Context(Context),
    Model(Model),
    Tokenizer(Tokenizer),
    Adapters(Adapters),
    Dataset(Dataset),
    Trainer(Box<Trainer>),
    Session(Box<Session>),
}

impl Handle {
    /// Does it still work, whatever else is gone?
    fn check(&mut self) {
        match self {
            Handle::Context(c) => assert_eq!(c.threads(), 1),
            Handle::Model(m) => assert_eq!(m.tensor("model.norm.weight").unwrap().len(), 4),
            Handle::Tokenizer(t) => assert_eq!(t.decode(&[97], Tokenize::PLAIN).unwrap(), "a"),
            Handle::Adapters(a) => assert!(!a.tensors("a").unwrap().is_empty()),
            Handle::Dataset(d) => assert_eq!(d.row(0).unwrap().ids[0], 97),
            Handle::Trainer(t) => assert!(t.plan_json().unwrap().contains("peak_bytes")),
            Handle::Session(s) => assert!(s.stream_ids(None, &[1, 2], ()).unwrap().next().unwrap().is_ok()),
        }
    }
}

/// As small as can be: there are many orders.
const SMALL: &str = r#"{"model_type":"llama","hidden_size":4,"intermediate_size":4,"num_hidden_layers":1,
    "num_attention_heads":1,"vocab_size":260,"max_position_embeddings":8}"#;

fn all_handles(folder: &Folder) -> Vec<Handle> {
    let ctx = Context::builder().threads(1).log(Level::Debug, |_, _| ()).build().unwrap();
    let model = Model::random(&ctx, SMALL, 1).unwrap();
    let tokenizer = Tokenizer::open(&ctx, folder.path("")).unwrap();
    let adapters = Adapters::new(&model).unwrap();
    adapters.add("a", "lora", [("r", 1)], 1).unwrap();
    let mut data = Dataset::new(&ctx, Some(&tokenizer), ()).unwrap();
    data.add_json("{\"text\":\"abc\"}").unwrap();
    let mut trainer = Trainer::new(&adapters, [("max_steps", 1)]).unwrap();
    trainer.add_job("a", Some(&data), None, ()).unwrap();
    let session = Session::new(&adapters, "a", ()).unwrap();
    vec![
        Handle::Context(ctx),
        Handle::Model(model),
        Handle::Tokenizer(tokenizer),
        Handle::Adapters(adapters),
        Handle::Dataset(data),
        Handle::Trainer(Box::new(trainer)),
        Handle::Session(Box::new(session)),
    ]
}

#[test]
fn handles_are_dropped_in_every_order() {
    let folder = Folder::new();
    write_tokenizer(&folder.path(""));
    let mut orders = Vec::new();
    permute(&mut vec![0, 1, 2, 3, 4, 5, 6], 0, &mut orders);
    assert_eq!(orders.len(), 5040);
    // Sanitizers are slow: there every 24th order.
    let every = if std::env::var_os("LIBPEFT_TEST_FEWER").is_some() { 24 } else { 1 };
    for order in orders.iter().step_by(every) {
        let mut handles: Vec<Option<Handle>> = all_handles(&folder).into_iter().map(Some).collect();
        for (gone, i) in order.iter().enumerate() {
            drop(handles[*i].take());
            if gone == 3 {
                handles.iter_mut().flatten().for_each(Handle::check);
            }
        }
    }
}

fn permute(items: &mut Vec<usize>, from: usize, out: &mut Vec<Vec<usize>>) {
    if from == items.len() {
        out.push(items.clone());
    }
    for i in from..items.len() {
        items.swap(from, i);
        permute(items, from + 1, out);
        items.swap(from, i);
    }
}
