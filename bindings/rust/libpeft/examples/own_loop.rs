//! The caller's own loop over a model of the caller's own tensors: batches in, gradients, update; no file is read or written.
//! cargo run --example own_loop
use libpeft::{Adapters, Batch, Context, Dtype, Model, Result, Session, Tensor, Trainer};

const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "vocab_size": 32, "max_position_embeddings": 32}"#;

/// Where the tensors would come from another framework: here, from a model with random weights.
fn tensors(ctx: &Context) -> Result<Vec<Tensor>> {
    let model = Model::random(ctx, CONFIG, 1)?;
    let one = |t: &libpeft::TensorInfo| {
        let data = model.tensor(&t.name)?;
        let bytes: Vec<u8> = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        Ok(Tensor::new(&t.name, Dtype::F32, &t.dims, bytes))
    };
    model.tensors()?.iter().map(one).collect()
}

fn main() -> Result<()> {
    let ctx = Context::new()?;
    let model = Model::from_tensors(&ctx, CONFIG, tensors(&ctx)?, ())?;
    let adapters = Adapters::new(&model)?;
    adapters.add("a", "lora", [("r", 8)], 1)?;
    let mut trainer = Trainer::new(&adapters, [("max_length", 8)])?;
    trainer.add_job("a", None, None, [("learning_rate", 0.02)])?;
    let mut batch = Batch::new(&ctx)?;
    let (mut first, mut loss) = (None, 0.0);
    for step in 0..60 {
        // Two micro-batches a step; each row counts up from another number.
        loss = 0.0;
        for half in 0..2 {
            let rows: Vec<Vec<i32>> =
                (0..4).map(|r| (0..8).map(|i| (step * 8 + half * 4 + r + i) % 32).collect()).collect();
            batch.set("input_ids", &rows)?;
            loss += trainer.accumulate(&batch)? / 2.0;
        }
        if step == 0 {
            let name = &adapters.tensors("a")?[1].name;
            let norm = trainer.gradient("a", name)?.iter().map(|g| g * g).sum::<f32>().sqrt();
            println!("gradient of {name}: norm {norm:.4}");
        }
        trainer.apply()?;
        first.get_or_insert(loss);
    }
    println!("loss {:.4}, after 60 steps {loss:.4}", first.unwrap_or(loss));
    let next =
        Session::new(&adapters, "a", ())?.generate_ids(None, &[3, 4, 5, 6], [("max_new_tokens", 4)])?;
    println!("3 4 5 6 -> {next:?}");
    Ok(())
}
