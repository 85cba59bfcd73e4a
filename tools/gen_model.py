#!/usr/bin/env python3
"""Writes a Llama model folder with seeded random weights: config.json and model.safetensors (float32).

Usage: tools/gen_model.py --out FOLDER [--seed N] [--vocab N --hidden N --layers N --heads N --kv-heads N ...]

Matrices are N(0, 0.55^2 / columns), those that write to the residual stream smaller by sqrt(2 layers), the embedding, which
is the head too, N(0, 0.03^2), gains 1. Needs the standard library only; the same seed gives the same bytes.
"""
import argparse
import array
import json
import os
import random
import struct
import sys


def config(a):
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": a.vocab, "hidden_size": a.hidden, "num_hidden_layers": a.layers,
        "num_attention_heads": a.heads, "num_key_value_heads": a.kv_heads, "head_dim": a.hidden // a.heads,
        "intermediate_size": a.intermediate, "max_position_embeddings": a.context, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True,
        "bos_token_id": 0, "eos_token_id": 2, "torch_dtype": "float32",
    }


def tensors(a):
    """Name, shape and standard deviation (None: all 1) of each tensor, in the order of the file."""
    dim, kv, wide = a.hidden, a.hidden // a.heads * a.kv_heads, a.intermediate
    into, back = 0.55, 0.55 / (2 * a.layers) ** 0.5
    yield "model.embed_tokens.weight", [a.vocab, dim], 0.03
    for i in range(a.layers):
        at = "model.layers.%d." % i
        yield at + "input_layernorm.weight", [dim], None
        yield at + "self_attn.q_proj.weight", [dim, dim], into / dim ** 0.5
        yield at + "self_attn.k_proj.weight", [kv, dim], into / dim ** 0.5
        yield at + "self_attn.v_proj.weight", [kv, dim], into / dim ** 0.5
        yield at + "self_attn.o_proj.weight", [dim, dim], back / dim ** 0.5
        yield at + "post_attention_layernorm.weight", [dim], None
        yield at + "mlp.gate_proj.weight", [wide, dim], into / dim ** 0.5
        yield at + "mlp.up_proj.weight", [wide, dim], into / dim ** 0.5
        yield at + "mlp.down_proj.weight", [dim, wide], back / wide ** 0.5
    yield "model.norm.weight", [dim], None


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--out", required=True, help="folder to write to")
    for name, default in (("seed", 1), ("vocab", 2048), ("hidden", 192), ("layers", 6), ("heads", 6), ("kv-heads", 2),
                          ("intermediate", 512), ("context", 512)):
        p.add_argument("--" + name, type=int, default=default)
    a = p.parse_args()
    rng = random.Random(a.seed)
    header, data, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, shape, std in tensors(a):
        count = shape[0] * (shape[1] if len(shape) == 2 else 1)
        values = array.array("f", [1.0] * count if std is None else (rng.gauss(0.0, std) for _ in range(count)))
        if sys.byteorder == "big":
            values.byteswap()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 4 * count]}
        at += 4 * count
        data.append(values.tobytes())
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(a.out, exist_ok=True)
    with open(os.path.join(a.out, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data))
    with open(os.path.join(a.out, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config(a), f, indent=2)
        f.write("\n")
    print("%d parameters" % (at // 4))


if __name__ == "__main__":
    main()
