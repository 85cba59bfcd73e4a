//! Adapters and trainers: what is learnt, saved, merged, cancelled.
mod kit;
use std::ops::ControlFlow;
use std::sync::{Arc, Barrier, Mutex};

use kit::*;
use libpeft::*;

fn trainer(adapters: &Adapters, data: &Dataset, steps: u32) -> Trainer {
    let options = Options::new().set("max_steps", steps).set("batch_size", 4);
    let mut trainer = Trainer::new(adapters, options).unwrap();
    trainer.add_job("a", Some(data), None, [("learning_rate", 0.05)]).unwrap();
    trainer
}

fn values(adapters: &Adapters) -> Vec<u32> {
    let all = adapters.tensors("a").unwrap();
    all.iter().flat_map(|t| bits(&adapters.read_tensor("a", &t.name).unwrap())).collect()
}

#[test]
fn losses_fall_and_steps_equal_the_run() {
    let (ctx, _, adapters) = set();
    let data = rows(&ctx, 8);
    let mut t = trainer(&adapters, &data, 30);
    let plan = t.plan_json().unwrap();
    assert!(number(&plan, "peak_bytes") > 0.0 && number(&plan, "trainable_parameters") > 0.0, "{plan}");
    let before = t.evaluate(&data).unwrap();
    assert_eq!((before.rows, before.tokens), (8, 40));
    assert!((before.perplexity - before.loss.exp()).abs() < 1e-6 * before.perplexity, "{before:?}");
    let steps: Vec<Step> = t.steps().collect::<Result<_>>().unwrap();
    assert_eq!(steps.len(), 30);
    for (i, s) in steps.iter().enumerate() {
        assert_eq!((s.step, s.max_steps, s.tokens), (i as u64 + 1, 30, 24));
        assert!(
            s.loss.is_finite() && s.grad_norm > 0.0 && s.learning_rate >= 0.0 && s.peak_bytes > 0,
            "{s:?}"
        );
        assert_eq!((s.eval_loss, s.job.as_str()), (None, "a"));
    }
    assert!(steps[29].loss < 0.95 * steps[0].loss, "{} to {}", steps[0].loss, steps[29].loss);
    let after = t.evaluate(&data).unwrap();
    assert!(after.loss < before.loss, "{after:?}");
    assert!(t.steps().next().is_none()); // no more

    let (ctx, _, other) = set();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut t = trainer(&other, &rows(&ctx, 8), 30);
    let log = seen.clone();
    t.on_step(move |s| {
        log.lock().unwrap().push(s.loss.to_bits());
        ControlFlow::Continue(())
    });
    t.run().unwrap();
    assert_eq!(*seen.lock().unwrap(), steps.iter().map(|s| s.loss.to_bits()).collect::<Vec<_>>());
    assert_eq!(values(&other), values(&adapters));
}

#[test]
fn evaluations_come_with_their_steps() {
    let (ctx, _, adapters) = set();
    let (data, eval) = (rows(&ctx, 8), rows(&ctx, 3));
    let mut t = Trainer::new(&adapters, [("max_steps", 4), ("eval_steps", 2)]).unwrap();
    t.add_job("a", Some(&data), Some(&eval), ()).unwrap();
    let evals: Vec<bool> = t.steps().map(|s| s.unwrap().eval_loss.is_some()).collect();
    assert_eq!(evals, [false, true, false, true]);
    let direct = Session::new(&adapters, "a", ()).unwrap().evaluate(&eval).unwrap();
    assert_eq!(direct.loss, t.evaluate(&eval).unwrap().loss);
}

#[test]
fn the_caller_may_own_the_loop() {
    let (ctx, _, adapters) = set();
    let mut t = Trainer::new(&adapters, [("max_length", 16)]).unwrap();
    t.add_job("a", None, None, [("optimizer", "sgd")]).unwrap();
    let mut b = batch(&ctx, &[&[1, 2, 3, 4], &[5, 6, 7]]);
    let name = "model.layers.0.self_attn.q_proj.lora_B.weight";
    let names: Vec<String> = adapters.tensors("a").unwrap().into_iter().map(|t| t.name).collect();
    assert!(names.iter().any(|n| n == name), "{names:?}");
    let loss = t.accumulate(&b).unwrap();
    assert!(loss > 0.0 && loss.is_finite());
    let gradient = t.gradient("a", name).unwrap();
    assert_eq!(gradient.len(), 32 * 4);
    assert!(gradient.iter().any(|g| *g != 0.0));
    // The gradient says how the loss changes.
    let (i, largest) = gradient.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).unwrap();
    let at = |step: f32| {
        let mut v = adapters.read_tensor("a", name).unwrap();
        v[i] += step;
        adapters.write_tensor("a", name, &v).unwrap();
        let mut other = Trainer::new(&adapters, [("max_length", 16)]).unwrap();
        other.add_job("a", None, None, ()).unwrap();
        let loss = other.accumulate(&b).unwrap();
        v[i] -= step;
        adapters.write_tensor("a", name, &v).unwrap();
        loss
    };
    let slope = (at(0.05) - at(-0.05)) / 0.1;
    assert!((slope - f64::from(*largest)).abs() < 0.05 * slope.abs(), "{slope} and {largest}");
    let before = adapters.read_tensor("a", name).unwrap();
    t.apply().unwrap();
    assert_ne!(bits(&before), bits(&adapters.read_tensor("a", name).unwrap()));
    refused(t.apply(), Status::Invalid, "");
    refused(t.gradient("a", "none"), Status::NotFound, "none");
    b.set("input_ids", &[vec![1; 17]]).unwrap();
    refused(t.accumulate(&b), Status::Shape, "16 tokens a row");
    b.set("input_ids", &[[260, 1]]).unwrap();
    refused(t.accumulate(&b), Status::Shape, "260");
    b.clear();
    refused(t.accumulate(&b), Status::Invalid, "");
    refused(t.run(), Status::Invalid, "no training data");
}

#[test]
fn adapters_save_and_load_the_same_bits() {
    let (ctx, _, adapters) = set();
    trainer(&adapters, &rows(&ctx, 8), 3).run().unwrap();
    let folder = Folder::new();
    adapters.save("a", folder.path("einer"), ()).unwrap();
    adapters.load("b", folder.path("einer"), ()).unwrap();
    assert_eq!(adapters.names(), ["a", "b"]);
    assert_eq!((adapters.len(), adapters.is_empty()), (2, false));
    for t in adapters.tensors("a").unwrap() {
        let (one, two) =
            (adapters.read_tensor("a", &t.name).unwrap(), adapters.read_tensor("b", &t.name).unwrap());
        assert_eq!((bits(&one), one.len()), (bits(&two), t.len()), "{}", t.name);
    }
    assert!(ctx.inspect(folder.path("einer")).unwrap().contains("\"adapter\""));
    adapters.save("a", folder.path("a.gguf"), ()).unwrap();
    adapters.load("c", folder.path("a.gguf"), ()).unwrap();
    adapters.combine("d", "a:0.5, c:0.5", ()).unwrap();
    let (mut a, mut d) =
        (Session::new(&adapters, "a", ()).unwrap(), Session::new(&adapters, "d", ()).unwrap());
    let (one, two) = (logits(&mut a, &ctx), logits(&mut d, &ctx));
    assert!(one.iter().zip(&two).all(|(x, y)| (x - y).abs() < 1e-5));
    assert_eq!(number(&adapters.info_json("a").unwrap(), "r"), 4.0);
    refused(adapters.remove("a"), Status::Busy, "\"a\"");
    drop(a);
    adapters.remove("a").unwrap();
    assert_eq!(adapters.names(), ["b", "c", "d"]);
    refused(adapters.save("a", folder.path("x"), ()), Status::NotFound, "\"a\"");
    refused(adapters.load("e", folder.path("x"), ()), Status::NotFound, "");
    refused(adapters.load("b", folder.path("einer"), ()), Status::Exists, "\"b\"");
    refused(adapters.save("b", folder.path("y"), [("format", "zip")]), Status::Key, "format");
}

#[test]
fn a_merged_model_is_base_and_adapter() {
    let (ctx, _, adapters) = set();
    shake(&adapters, "a", 0.2);
    let folder = Folder::new();
    adapters.merge("a", folder.path("merged"), ()).unwrap();
    let merged = Model::open(&ctx, folder.path("merged"), [("load", "copy")]).unwrap();
    let one = logits(&mut Session::new(&adapters, "a", ()).unwrap(), &ctx);
    let two = logits(&mut Session::base(&merged, ()).unwrap(), &ctx);
    let none = logits(&mut Session::base(adapters.model(), ()).unwrap(), &ctx);
    let far = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    let scale = one.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    assert!(far(&one, &two) < 1e-5 * scale, "{} of {scale}", far(&one, &two));
    assert!(far(&one, &none) > 1e-3 * scale);
    assert!(ctx.inspect(folder.path("merged")).unwrap().contains("\"model\""));
    refused(adapters.merge("b", folder.path("m"), ()), Status::NotFound, "\"b\"");
}

#[test]
fn misuse_of_adapters_is_refused() {
    let (_, _, adapters) = set();
    refused(adapters.add("a", "lora", (), 1), Status::Exists, "\"a\"");
    refused(adapters.add("b", "lora", [("r", 0)], 1), Status::Key, "\"r\"");
    refused(adapters.add("b", "lora", [("target_modules", "nothing")], 1), Status::NotFound, "nothing");
    refused(adapters.add("b", "lorra", (), 1), Status::Unsupported, "lora");
    refused(adapters.add("b\0", "lora", (), 1), Status::Invalid, "NUL at byte 1");
    refused(adapters.add("b,c", "lora", (), 1), Status::Invalid, "b,c");
    refused(adapters.info_json("z"), Status::NotFound, "\"z\"");
    refused(adapters.tensors("z"), Status::NotFound, "\"z\"");
    refused(adapters.read_tensor("a", "z"), Status::NotFound, "\"z\"");
    let name = adapters.tensors("a").unwrap()[0].name.clone();
    refused(adapters.write_tensor("a", &name, &[0.0]), Status::Shape, "1 are given");
    refused(adapters.init("a", &[1, 2]), Status::Unsupported, "");
    adapters
        .add(
            "p",
            "prompt",
            Options::new()
                .set("num_virtual_tokens", 3)
                .set("prompt_tuning_init", "TEXT")
                .set("prompt_tuning_init_text", "say"),
            1,
        )
        .unwrap();
    adapters.init("p", &[1, 2, 3]).unwrap();
    let (first, embedding) = (adapters.tensors("p").unwrap()[0].name.clone(), "model.embed_tokens.weight");
    let table = adapters.model().tensor(embedding).unwrap();
    assert_eq!(bits(&adapters.read_tensor("p", &first).unwrap()), bits(&table[32..4 * 32])); // rows 1 to 3
    refused(Trainer::new(&adapters, [("max_stepps", 1)]), Status::Key, "max_steps");
    let mut t = Trainer::new(&adapters, ()).unwrap();
    refused(t.add_job("z", None, None, ()), Status::NotFound, "\"z\"");
    refused(t.add_job("a", None, None, [("optimizer", "adm")]), Status::Key, "optimizer");
}

#[test]
fn a_checkpoint_goes_on_bit_for_bit() {
    let folder = Folder::new();
    let (ctx, _, whole) = set();
    trainer(&whole, &rows(&ctx, 8), 6).run().unwrap();
    let (ctx, _, first) = set();
    let mut t = trainer(&first, &rows(&ctx, 8), 6);
    for step in t.steps().take(3) {
        step.unwrap();
    }
    t.save_checkpoint(folder.path("half way")).unwrap();
    let (ctx, _, second) = set();
    let mut t = trainer(&second, &rows(&ctx, 8), 6);
    refused(t.load_checkpoint(folder.path("none")), Status::NotFound, "none");
    t.load_checkpoint(folder.path("half way")).unwrap();
    assert_eq!(t.steps().map(|s| s.unwrap().step).collect::<Vec<_>>(), [4, 5, 6]);
    assert_eq!(values(&second), values(&whole));
}

#[test]
fn a_trainer_is_cancelled_from_anywhere() {
    let (ctx, _, adapters) = set();
    let data = rows(&ctx, 8);
    let mut t = trainer(&adapters, &data, 5);
    let canceller = t.canceller();
    canceller.cancel();
    refused(t.run(), Status::Cancelled, "cancelled after step 0");
    let from_within = canceller.clone();
    t.on_step(move |s| {
        if s.step == 2 {
            from_within.cancel();
        }
        ControlFlow::Continue(())
    });
    refused(t.run(), Status::Cancelled, "cancelled after step 2");
    canceller.cancel();
    let mut steps = t.steps();
    refused(steps.next().unwrap(), Status::Cancelled, "after step 2");
    assert_eq!(steps.next().unwrap().unwrap().step, 3);
    canceller.cancel(); // between two steps
    refused(steps.next().unwrap(), Status::Cancelled, "after step 3");
    canceller.cancel();
    refused(t.evaluate(&data), Status::Cancelled, "");
    assert_eq!(t.steps().map(|s| s.unwrap().step).collect::<Vec<_>>(), [4, 5]);
    drop(t);
    canceller.cancel(); // of nothing

    let mut t = trainer(&adapters, &data, 1_000_000);
    let canceller = t.canceller();
    std::thread::scope(|s| {
        s.spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            canceller.cancel();
        });
        refused(t.run(), Status::Cancelled, "cancelled after step");
    });
    let canceller = t.canceller();
    std::thread::scope(|s| {
        s.spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            canceller.cancel();
        });
        let end = t.steps().find(|s| s.is_err()).unwrap();
        refused(end, Status::Cancelled, "cancelled after step");
    });
    assert!(t.step().unwrap().is_some()); // it goes on
}

#[test]
fn a_data_set_in_use_takes_no_rows() {
    let (ctx, _, adapters) = set();
    let mut data = rows(&ctx, 8);
    let t = trainer(&adapters, &data, 1);
    refused(data.add_json("{\"input_ids\":[1,2]}"), Status::Busy, "");
    assert_eq!(data.row(0).unwrap().ids.len(), 6);
    drop(t);
    data.add_json("{\"input_ids\":[1,2]}").unwrap();
}

/// What the library computes itself.
fn cross_entropy(c: LossChunk<'_>) -> ControlFlow<(), (f64, f64)> {
    let mut loss = 0.0;
    for (row, &label) in c.values.chunks_exact_mut(c.columns).zip(c.labels) {
        let most = row.iter().copied().fold(f32::MIN, f32::max);
        let total: f32 = row.iter().map(|x| (x - most).exp()).sum();
        loss += f64::from(most + total.ln() - row[label as usize]);
        row.iter_mut().for_each(|x| *x = (*x - most).exp() / total);
        row[label as usize] -= 1.0;
    }
    ControlFlow::Continue((loss, c.rows as f64))
}

fn hooked(steps: u32) -> (Adapters, Trainer) {
    let (ctx, _, adapters) = set();
    let mut t = Trainer::new(&adapters, [("max_steps", steps), ("batch_size", 4)]).unwrap();
    t.add_job("a", Some(&rows(&ctx, 10)), None, ()).unwrap();
    (adapters, t)
}

/// Between values of adapters, as bits.
fn distance(a: &[u32], b: &[u32]) -> f32 {
    assert!(a.len() == b.len() && !a.is_empty());
    a.iter().zip(b).map(|(&x, &y)| (f32::from_bits(x) - f32::from_bits(y)).abs()).fold(0.0, f32::max)
}

#[test]
fn a_loss_of_the_callers_is_the_tasks() {
    let ((plain, mut one), (own, mut two)) = (hooked(5), hooked(5));
    two.on_loss(cross_entropy).unwrap();
    one.run().unwrap();
    two.run().unwrap();
    assert!(distance(&values(&plain), &values(&own)) < 1e-5);
    let (_, mut t) = hooked(5);
    t.on_loss(|_| ControlFlow::Break(())).unwrap();
    refused(t.run(), Status::Callback, "the loss callback ended step 1");
    let (_, mut t) = hooked(5);
    t.on_loss(|c| panic!("{} rows of {}", c.rows, c.job)).unwrap();
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| t.run())).unwrap_err();
    assert_eq!(payload.downcast_ref::<String>().unwrap(), "20 rows of a");
}

#[test]
fn two_processes_learn_as_one() {
    let (plain, mut one) = hooked(5);
    one.run().unwrap();
    let barrier = Arc::new(Barrier::new(2));
    let parts = Arc::new(Mutex::new([Vec::new(), Vec::new()]));
    let ends: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..2)
            .map(|rank| {
                let (barrier, parts) = (barrier.clone(), parts.clone());
                scope.spawn(move || {
                    let (adapters, mut t) = hooked(5);
                    t.on_all_reduce(rank, 2, move |mine| {
                        parts.lock().unwrap()[rank as usize] = mine.to_vec();
                        barrier.wait();
                        let both = parts.lock().unwrap().clone();
                        for (x, (a, b)) in mine.iter_mut().zip(both[0].iter().zip(&both[1])) {
                            *x = a + b;
                        }
                        barrier.wait();
                        ControlFlow::Continue(())
                    })
                    .unwrap();
                    t.run().unwrap();
                    values(&adapters)
                })
            })
            .collect();
        started.into_iter().map(|s| s.join().unwrap()).collect()
    });
    assert_eq!(ends[0], ends[1]);
    assert!(distance(&values(&plain), &ends[0]) < 1e-5);
    let (_, mut t) = hooked(5);
    refused(t.on_all_reduce(2, 2, |_| ControlFlow::Continue(())), Status::Invalid, "process 2 of 2");
    t.on_all_reduce(1, 2, |_| ControlFlow::Break(())).unwrap();
    refused(t.run(), Status::Callback, "the all-reduce callback ended step 1");
}
