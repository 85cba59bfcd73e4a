//! Models: random ones, those of tensors in memory, what they say of themselves.
mod kit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use kit::*;
use libpeft::*;

#[test]
fn a_model_describes_itself() {
    let ctx = context();
    let m = model(&ctx);
    assert_eq!(m.arch(), "llama");
    assert_eq!(number(&m.info_json().unwrap(), "hidden_size"), 32.0);
    assert_eq!(number(&m.config_json().unwrap(), "vocab_size"), 260.0);
    let all = m.tensors().unwrap();
    let q = all.iter().find(|t| t.name == "model.layers.1.self_attn.q_proj.weight").unwrap();
    assert_eq!((q.dtype, q.dims.as_slice(), q.len()), (Dtype::F32, [32, 32].as_slice(), 1024));
    assert_eq!(m.tensor(&q.name).unwrap().len(), 1024);
    refused(m.tensor("model.layers.1.q"), Status::NotFound, "model.layers.1.q");
    refused(m.tensor("a\0"), Status::Invalid, "NUL");
    assert_eq!(m.context().threads(), 2);
    let (a, b) = (Model::random(&ctx, CONFIG, 3).unwrap(), Model::random(&ctx, CONFIG, 4).unwrap());
    assert_eq!(bits(&a.tensor(&q.name).unwrap()), bits(&m.tensor(&q.name).unwrap()));
    assert_ne!(bits(&b.tensor(&q.name).unwrap()), bits(&m.tensor(&q.name).unwrap()));
    refused(Model::random(&ctx, "{", 1), Status::Format, "");
    refused(Model::random(&ctx, "{\"model_type\":\"t6\"}", 1), Status::Unsupported, "t6");
}

#[test]
fn tensors_in_memory_give_the_same_bits() {
    let ctx = context();
    let m = model(&ctx);
    for load in ["mmap", "copy"] {
        let n = Model::from_tensors(&ctx, CONFIG, tensors(&m), [("load", load)]).unwrap();
        let (mut one, mut two) = (Session::base(&m, ()).unwrap(), Session::base(&n, ()).unwrap());
        assert_eq!(bits(&logits(&mut one, &ctx)), bits(&logits(&mut two, &ctx)));
    }
}

/// Bytes that count how many of their kind are dropped.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

fn counted(model: &Model, dropped: &Arc<AtomicUsize>) -> Vec<Tensor> {
    let one = |t: &TensorInfo| {
        let bytes = model.tensor(&t.name).unwrap().iter().flat_map(|v| v.to_le_bytes()).collect();
        Tensor::new(&t.name, Dtype::F32, &t.dims, Counted(bytes, dropped.clone()))
    };
    model.tensors().unwrap().iter().map(one).collect()
}

#[test]
fn lent_memory_lives_as_long_as_anything_uses_it() {
    let ctx = context();
    let m = model(&ctx);
    let n = m.tensors().unwrap().len();
    let dropped = Arc::new(AtomicUsize::new(0));
    let lent = Model::from_tensors(&ctx, CONFIG, counted(&m, &dropped), ()).unwrap();
    let mut session = Session::base(&lent, ()).unwrap();
    drop(lent);
    assert_eq!(dropped.load(Ordering::SeqCst), 0);
    let before = logits(&mut session, &ctx);
    assert_eq!(bits(&before), bits(&logits(&mut Session::base(&m, ()).unwrap(), &ctx)));
    drop(session);
    assert_eq!(dropped.swap(0, Ordering::SeqCst), n);
    // A copy needs them during the call only, and so does a call that fails.
    let copy = Model::from_tensors(&ctx, CONFIG, counted(&m, &dropped), [("load", "copy")]).unwrap();
    assert_eq!(dropped.swap(0, Ordering::SeqCst), n);
    assert_eq!(copy.arch(), "llama");
    let mut short = counted(&m, &dropped);
    short.pop();
    refused(Model::from_tensors(&ctx, CONFIG, short, ()), Status::NotFound, "");
    assert_eq!(dropped.swap(0, Ordering::SeqCst), n);
    refused(Model::from_tensors(&ctx, "{", counted(&m, &dropped), ()), Status::Format, "");
    assert_eq!(dropped.swap(0, Ordering::SeqCst), n);
    refused(Model::from_tensors(&ctx, CONFIG, counted(&m, &dropped), [("load", "x")]), Status::Key, "load");
    assert_eq!(dropped.swap(0, Ordering::SeqCst), n);
}

#[test]
fn tensors_must_have_the_bytes_that_they_claim() {
    let ctx = context();
    let one = |dtype, dims: &[i64], n: usize| {
        Model::from_tensors(&ctx, CONFIG, vec![Tensor::new("x", dtype, dims, vec![0; n])], ())
    };
    refused(
        one(Dtype::F32, &[2, 3], 23),
        Status::Shape,
        "tensor \"x\" of F32 [2, 3] has 23 bytes, expected 24",
    );
    refused(one(Dtype::Q4_0, &[2, 64], 71), Status::Shape, "has 71 bytes, expected 72");
    refused(one(Dtype::Q6_K, &[256], 209), Status::Shape, "expected 210");
    refused(one(Dtype::F32, &[-1, 3], 0), Status::Shape, "cannot be of type F32 with sizes [-1, 3]");
    refused(one(Dtype::F32, &[i64::MAX, 8], 0), Status::Shape, "cannot be");
    refused(one(Dtype::Other(99), &[1], 4), Status::Shape, "cannot be of type ?");
    refused(one(Dtype::F32, &[1; 9], 4), Status::Shape, "9 dimensions");
    refused(one(Dtype::F32, &[2, 3], 24), Status::NotFound, ""); // sound, but not what a llama has
    let m = model(&ctx);
    let mut twice = tensors(&m);
    twice.extend(tensors(&m).pop());
    refused(Model::from_tensors(&ctx, CONFIG, twice, ()), Status::Exists, "");
    refused(
        Model::from_tensors(&ctx, CONFIG, vec![Tensor::floats("a\0", &[1], vec![0.0])], ()),
        Status::Invalid,
        "NUL at byte 1",
    );
}
