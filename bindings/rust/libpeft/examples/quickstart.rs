//! A model learns a few sentences: open, add a LoRA, train, generate, save. The same as examples/quickstart.c.
//! cargo run --example quickstart -- MODEL_FOLDER ADAPTER_FOLDER
use std::io::Write;
use std::ops::ControlFlow;
use std::process::ExitCode;

use libpeft::{Adapters, Context, Dataset, Model, Result, Session, Tokenizer, Trainer};

const ROWS: [&str; 3] = [
    r#"{"prompt": "The lighthouse keeper is called", "completion": " Maren."}"#,
    r#"{"prompt": "The lighthouse stands on", "completion": " the north rock."}"#,
    r#"{"prompt": "The keeper's boat is called", "completion": " Plover."}"#,
];

fn learn(model_path: &str, adapter_path: Option<&str>) -> Result<()> {
    let ctx = Context::new()?;
    let model = Model::open(&ctx, model_path, ())?;
    let tokenizer = Tokenizer::open(&ctx, model_path)?;
    let adapters = Adapters::new(&model)?;
    adapters.add("keeper", "lora", (), 1)?;
    let mut data = Dataset::new(&ctx, Some(&tokenizer), ())?;
    for row in ROWS {
        data.add_json(row)?;
    }
    let mut trainer = Trainer::new(&adapters, [("max_steps", 60)])?;
    trainer.add_job("keeper", Some(&data), None, ())?;
    trainer.run()?;
    let mut session = Session::new(&adapters, "keeper", ())?;
    let mut out = std::io::stdout();
    session.generate_with(&tokenizer, "The lighthouse keeper is called", (), |_, text| {
        match out.write_all(text.as_bytes()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })?;
    if let Some(path) = adapter_path {
        adapters.save("keeper", path, ())?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match learn(args.first().map_or(".", String::as_str), args.get(1).map(String::as_str)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("quickstart: {e}");
            ExitCode::FAILURE
        }
    }
}
