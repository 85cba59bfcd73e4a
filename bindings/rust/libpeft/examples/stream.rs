//! Text as it comes, from several threads at once: one model, one adapter, a session each, and a button to stop one.
//! cargo run --example stream -- MODEL [ADAPTER] < PROMPTS, one a line
use std::io::BufRead;
use std::thread;

use libpeft::{Adapters, Context, Model, Options, Result, Session, Status, Tokenizer};

fn answer(adapters: &Adapters, tokenizer: &Tokenizer, prompt: &str) -> Result<String> {
    let expression = adapters.names().join(", ");
    let mut session = Session::new(adapters, &expression, ())?;
    let stop = session.canceller(); // could be given to any thread
    let mut text = String::new();
    for piece in session.stream(tokenizer, prompt, Options::new().set("max_new_tokens", 64))? {
        match piece {
            Ok(piece) => text.push_str(&piece.text),
            Err(e) if e.status() == Status::Cancelled => break,
            Err(e) => return Err(e),
        }
        if text.contains('\n') {
            stop.cancel();
        }
    }
    Ok(text)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let path = args.first().ok_or("usage: stream MODEL [ADAPTER] < PROMPTS")?;
    let ctx = Context::builder().threads(1).build()?; // a thread for each session
    let (model, tokenizer) = (Model::open(&ctx, path, ())?, Tokenizer::open(&ctx, path)?);
    let adapters = Adapters::new(&model)?;
    if let Some(adapter) = args.get(1) {
        adapters.load("it", adapter, ())?;
    }
    let prompts: Vec<String> = std::io::stdin().lock().lines().collect::<std::io::Result<_>>()?;
    let answers: Vec<Result<String>> = thread::scope(|scope| {
        let (adapters, tokenizer) = (&adapters, &tokenizer);
        let threads: Vec<_> =
            prompts.iter().map(|prompt| scope.spawn(move || answer(adapters, tokenizer, prompt))).collect();
        threads.into_iter().map(|t| t.join().expect("a thread that answers")).collect()
    });
    for (prompt, answer) in prompts.iter().zip(answers) {
        println!("{prompt}{}", answer?.trim_end());
    }
    Ok(())
}
