//! One job that C, Python, Rust and the command line do alike: tests/scenario/scenario.txt says what, and its run.sh compares.
//! cargo run --example scenario -- SCENARIO OUT_FOLDER
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use libpeft::{Adapters, Context, Dataset, Model, Options, Session, Tokenizer, Trainer};

type Scenario = HashMap<String, String>;

fn read(path: &str) -> std::io::Result<Scenario> {
    let text = fs::read_to_string(path)?;
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    Ok(lines.map(|(key, value)| (key.to_string(), value.to_string())).collect())
}

/// Words KEY=VALUE as options.
fn options(scenario: &Scenario, key: &str) -> Options {
    let words = scenario[key].split(' ').filter_map(|word| word.split_once('='));
    words.fold(Options::new(), |options, (key, value)| options.text(key, value))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, out] = <[String; 2]>::try_from(args).map_err(|_| "usage: scenario SCENARIO OUT_FOLDER")?;
    let (scenario, out) = (read(&path)?, PathBuf::from(out));
    let ctx = Context::new()?;
    let model = Model::open(&ctx, &scenario["model"], ())?;
    let tokenizer = Tokenizer::open(&ctx, &scenario["model"])?;
    let adapters = Adapters::new(&model)?;
    let seed = scenario["seed"].parse()?;
    adapters.add("default", &scenario["method"], options(&scenario, "adapter.options"), seed)?;
    let mut data = Dataset::new(&ctx, Some(&tokenizer), options(&scenario, "dataset.options"))?;
    data.load_jsonl(&scenario["data"])?;
    let mut trainer = Trainer::new(&adapters, options(&scenario, "trainer.options"))?;
    trainer.add_job("default", Some(&data), None, options(&scenario, "optimizer.options"))?;
    let mut losses = String::new();
    for step in trainer.steps() {
        losses += &format!("{:016x}\n", step?.loss.to_bits());
    }
    fs::write(out.join("losses.txt"), losses)?;
    adapters.save("default", &out, ())?;
    let again = Adapters::new(&model)?;
    again.load("again", &out, ())?;
    let mut session = Session::new(&again, "again", ())?;
    let mut text = String::new();
    for piece in session.stream(&tokenizer, &scenario["prompt"], options(&scenario, "generate.options"))? {
        text += &piece?.text;
    }
    fs::write(out.join("text.txt"), text)?;
    Ok(())
}
