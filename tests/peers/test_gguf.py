#!/usr/bin/env python3
"""Every GGUF tensor type against the gguf package's own dequantisation and against transformers over those values.

K-quants cannot be made by that package, so that their blocks are random bits with scales of a sensible size.
"""
import tempfile

import gguf
import numpy as np
import torch

import hf
import peftlib
from checks import close, each_close, main
from smollm2 import hf_name, unpermute

Q = gguf.GGMLQuantizationType
TYPES = [Q.F32, Q.F16, Q.BF16, Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q4_K, Q.Q5_K, Q.Q6_K]
# Half-precision scales in a block: their offsets, and the size that keeps the weights near 0.05.
SCALES = {Q.Q4_K: ((0, 2), 1e-4), Q.Q5_K: ((0, 2), 5e-5), Q.Q6_K: ((208,), 3e-5)}
HIDDEN, INNER, LAYERS, HEADS, KV, VOCAB = 256, 512, 2, 4, 2, 320


def blocks(rng, shape, kind):
    """Random content of a tensor: what the file holds."""
    if kind not in SCALES:
        return gguf.quantize((rng.standard_normal(shape) * 0.05).astype(np.float32), kind)
    per, size = gguf.GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, (shape[0], shape[1] // per, size), dtype=np.uint8)
    offsets, scale = SCALES[kind]
    for at in offsets:
        half = (scale * rng.uniform(0.5, 1.5, raw.shape[:2])).astype(np.float16)
        raw[:, :, at:at + 2] = half.view(np.uint8).reshape(*raw.shape[:2], 2)
    return raw.reshape(shape[0], -1)


def shapes():
    out = {"token_embd.weight": (VOCAB, HIDDEN), "output.weight": (VOCAB, HIDDEN), "output_norm.weight": (HIDDEN,)}
    head = HIDDEN // HEADS
    for i in range(LAYERS):
        for name, shape in (("attn_norm", (HIDDEN,)), ("ffn_norm", (HIDDEN,)), ("attn_q", (HIDDEN, HIDDEN)),
                            ("attn_k", (KV * head, HIDDEN)), ("attn_v", (KV * head, HIDDEN)),
                            ("attn_output", (HIDDEN, HIDDEN)), ("ffn_gate", (INNER, HIDDEN)), ("ffn_up", (INNER, HIDDEN)),
                            ("ffn_down", (HIDDEN, INNER))):
            out["blk.%d.%s.weight" % (i, name)] = shape
    return out


def write(path, kind, seed):
    """A Llama whose matrices are of one type; its tensors by transformers' names, dequantised."""
    rng, tensors = np.random.default_rng(seed), {}
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(256)
    w.add_embedding_length(HIDDEN)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(INNER)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(HIDDEN // HEADS)
    w.add_rope_freq_base(10000.0)
    w.add_vocab_size(VOCAB)
    for name, shape in shapes().items():
        if len(shape) == 1:
            values = (1 + 0.1 * rng.standard_normal(shape)).astype(np.float32)
            w.add_tensor(name, values)
        else:
            data = blocks(rng, shape, kind)
            values = gguf.dequantize(data, kind).astype(np.float32)
            w.add_tensor(name, data, raw_dtype=None if kind in (Q.F32, Q.F16) else kind)
            if ".attn_q." in name or ".attn_k." in name:
                values = unpermute(values, HEADS if ".attn_q." in name else KV)
        tensors[hf_name(name)] = values.reshape(shape)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return tensors


def every_type():
    cls, config = hf.llama(hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
                           num_key_value_heads=KV, vocab_size=VOCAB, rms_norm_eps=1e-5)
    with tempfile.TemporaryDirectory() as top:
        for seed, kind in enumerate(TYPES):
            path = "%s/%s.gguf" % (top, kind.name)
            tensors = write(path, kind, seed)
            theirs = hf.make((cls, config), seed)
            theirs.load_state_dict({n: torch.from_numpy(np.ascontiguousarray(t)) for n, t in tensors.items()})
            theirs.save_pretrained(top + "/base")
            model = peftlib.Model(peftlib.Context(threads=2), path)
            each_close(kind.name + ": values of every tensor", {n: model.read(n) for n in model.tensors()}, tensors, 2e-7)
            rows, labels = hf.random_rows(seed)
            for i, row in enumerate(rows):  # 37, 64 and 9 tokens: packed and direct paths of the products
                close("%s: logits of %d tokens" % (kind.name, len(row)), peftlib.Session(model).logits(row),
                      hf.logits(theirs, row), 1e-5)
            lora = hf.add_lora(theirs, seed, r=4, target_modules="all-linear")
            lora.save_pretrained(top + "/adapter")
            adapters = peftlib.Adapters(model)
            adapters.load("a", top + "/adapter")
            trainer = peftlib.Trainer(adapters, "a", batch_size=3, max_length=64, max_steps=1)
            loss = trainer.accumulate(peftlib.Batch(model.ctx, rows, labels))
            expected, grads = hf.gradients(lora, rows, labels)
            close(kind.name + ": loss", loss, expected, 1e-5)
            each_close(kind.name + ": gradients", {n: trainer.gradient(n) for n in grads}, grads, 1e-4, 1e-7)


if __name__ == "__main__":
    main(every_type)
