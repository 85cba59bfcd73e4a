//! A run seen step by step, stopped by the caller when it is good enough; with a checkpoint and an evaluation.
//! cargo run --example steps -- MODEL TRAIN.jsonl HELDOUT.jsonl OUT_FOLDER
use std::path::PathBuf;

use libpeft::{Adapters, Context, Dataset, Model, Options, Tokenizer, Trainer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, train, heldout, out] = <[String; 4]>::try_from(args)
        .map_err(|_| "usage: steps MODEL TRAIN.jsonl HELDOUT.jsonl OUT_FOLDER")?;
    let out = PathBuf::from(out);
    let ctx = Context::new()?;
    let (tokenizer, model) = (Tokenizer::open(&ctx, &model)?, Model::open(&ctx, &model, ())?);
    let adapters = Adapters::new(&model)?;
    adapters.add("house", "lora", Options::new().set("r", 8).set("target_modules", "all-linear"), 1)?;
    let rows = Options::new().set("max_rows", 64);
    let (mut data, mut eval) =
        (Dataset::new(&ctx, Some(&tokenizer), &rows)?, Dataset::new(&ctx, Some(&tokenizer), &rows)?);
    data.load_jsonl(train)?;
    eval.load_jsonl(heldout)?;
    let mut trainer = Trainer::new(&adapters, Options::new().set("max_steps", 40).set("batch_size", 4))?;
    trainer.add_job("house", Some(&data), None, [("learning_rate", 2e-3)])?;
    println!("before: loss {:.4}", trainer.evaluate(&eval)?.loss);
    let mut last = None;
    for step in trainer.steps() {
        let step = step?;
        if step.step % 10 == 0 {
            println!(
                "step {}/{}: loss {:.4}, {:.0} tokens/s",
                step.step, step.max_steps, step.loss, step.tokens_per_second
            );
        }
        let good_enough = step.loss < 0.5;
        last = Some(step);
        if good_enough {
            break;
        }
    }
    trainer.save_checkpoint(out.join("checkpoint"))?; // from here the run could go on
    println!("after {} steps: loss {:.4}", last.map_or(0, |s| s.step), trainer.evaluate(&eval)?.loss);
    adapters.save("house", out.join("adapter"), ())?;
    Ok(())
}
