#!/usr/bin/env python3
"""Writes a Llama model folder with seeded random weights: config.json and model.safetensors (float32).

Usage: tools/gen_model.py --out FOLDER [--seed N] [--vocab N --hidden N --layers N --heads N --kv-heads N ...]

Matrices are N(0, 0.55^2 / columns), those that write to the residual stream N(0, 0.5^2 / (2 layers columns)), the embedding,
which is the head too, N(0, 0.1^2), gains 1, the last 0.3. One circuit is laid out beforehand, that of the induction heads
(Olsson et al., 2022, arXiv:2209.11895): a head of layer 0 looks one token back and passes on what it sees, two heads of layer 1
look for places whose previous token is the present one and pass on what follows there. Training finds such heads by itself,
but needs far more text for it than two CPU cores get through in half an hour. They are trained like everything else.

Needs the standard library only; the same seed gives the same bytes.
"""
import argparse
import array
import json
import math
import os
import random
import struct
import sys

SCALE = 0.1                         # standard deviation of the stream at its beginning
SHARP, MATCH, PASS = 0.9, 2.2, 60.0 # strength of the steps of the circuit: position, content, what is passed on


def config(a):
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": a.vocab, "hidden_size": a.hidden, "num_hidden_layers": a.layers,
        "num_attention_heads": a.heads, "num_key_value_heads": a.kv_heads, "head_dim": a.hidden // a.heads,
        "intermediate_size": a.intermediate, "max_position_embeddings": a.context, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True,
        "bos_token_id": 0, "eos_token_id": 2, "torch_dtype": "float32",
    }


def gauss(rng, count, std):
    return array.array("f", (rng.gauss(0.0, std) for _ in range(count)))


def identity(a, to, dims):
    """Rows of `dims` numbers, the i-th with a 1 at to + i."""
    rows = array.array("f", bytes(4 * a.hidden * dims))
    for i in range(dims):
        rows[i * a.hidden + to + i] = 1.0
    return rows


def look_back(a, q, k, v, o, seen):
    """Layer 0, head 0: q and k meet one token back by the angles of the fastest three rotations. What is seen there, in the
    projection `seen`, goes to the last dimensions of the stream, which the embedding leaves free."""
    dim, size = a.hidden, a.hidden // a.heads
    for rows in (q, k):
        rows[:size * dim] = array.array("f", bytes(4 * size * dim))
    for i in range(3):
        angle = 10000.0 ** (-2.0 * i / size)
        k[i * dim] = SHARP
        q[i * dim], q[(i + size // 2) * dim] = SHARP * math.cos(angle), -SHARP * math.sin(angle)
    v[:size * dim] = seen
    for i in range(size):
        for head in range(a.heads):
            for j in range(size):
                o[(dim - size + i) * dim + head * size + j] = SCALE if head == 0 and i == j else 0.0


def look_up(a, q, k, v, o, seen):
    """Layer 1, the first query head of each key head: the present token, in the projection `seen`, meets what look_back wrote
    at a place, and the token there is passed on to the prediction."""
    dim, size, group = a.hidden, a.hidden // a.heads, a.heads // a.kv_heads
    for kv in range(a.kv_heads):
        head = kv * group
        q[head * size * dim:(head + 1) * size * dim] = array.array("f", (MATCH * x for x in seen))
        k[kv * size * dim:(kv + 1) * size * dim] = array.array("f", (MATCH * x for x in identity(a, dim - size, size)))
        for i in range(size):
            row = v[(kv * size + i) * dim:][:dim]
            for out in range(1, dim - size):
                o[out * dim + head * size + i] = PASS * SCALE * row[out]


def attention(rng, a, layer, seen):
    """q, k, v and o of a layer."""
    dim, kv = a.hidden, a.hidden // a.heads * a.kv_heads
    into, back = 0.55 / dim ** 0.5, 5 * SCALE / (2 * a.layers * dim) ** 0.5
    q, k, v, o = gauss(rng, dim * dim, into), gauss(rng, kv * dim, into), gauss(rng, kv * dim, into), gauss(rng, dim * dim, back)
    if layer == 0:
        look_back(a, q, k, v, o, seen)
    elif layer == 1:
        look_up(a, q, k, v, o, seen)
    return q, k, v, o


def embedding(rng, a):
    """The first dimension is the same for all tokens, so that a head can look at a position whatever stands there; the last
    are left to look_back."""
    rows, size = array.array("f"), a.hidden // a.heads
    for _ in range(a.vocab):
        rows.append(6.0 * SCALE)
        rows += gauss(rng, a.hidden - size - 1, SCALE)
        rows += gauss(rng, size, 0.1 * SCALE)
    return rows


def seen_part(rng, a):
    """A random projection of the token part of the stream; only in the slow rotations, whose angles differ little between
    places of a record."""
    size, rows = a.hidden // a.heads, array.array("f")
    for i in range(size):
        std = 1.0 / (a.hidden - size) ** 0.5 if i % (size // 2) >= 6 else 0.0
        rows += array.array("f", [0.0]) + gauss(rng, a.hidden - size - 1, std) + array.array("f", bytes(4 * size))
    return rows


def tensors(rng, a):
    """Name, shape and values of each tensor, in the order of the file."""
    dim, kv, wide, ones = a.hidden, a.hidden // a.heads * a.kv_heads, a.intermediate, array.array("f", [1.0] * a.hidden)
    seen = seen_part(rng, a)
    yield "model.embed_tokens.weight", [a.vocab, dim], embedding(rng, a)
    for i in range(a.layers):
        at = "model.layers.%d." % i
        q, k, v, o = attention(rng, a, i, seen)
        yield at + "input_layernorm.weight", [dim], ones
        yield at + "self_attn.q_proj.weight", [dim, dim], q
        yield at + "self_attn.k_proj.weight", [kv, dim], k
        yield at + "self_attn.v_proj.weight", [kv, dim], v
        yield at + "self_attn.o_proj.weight", [dim, dim], o
        yield at + "post_attention_layernorm.weight", [dim], ones
        yield at + "mlp.gate_proj.weight", [wide, dim], gauss(rng, wide * dim, 0.55 / dim ** 0.5)
        yield at + "mlp.up_proj.weight", [wide, dim], gauss(rng, wide * dim, 0.55 / dim ** 0.5)
        yield at + "mlp.down_proj.weight", [dim, wide], gauss(rng, wide * dim, 5 * SCALE / (2 * a.layers * wide) ** 0.5)
    yield "model.norm.weight", [dim], array.array("f", [0.03 / SCALE] * dim)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--out", required=True, help="folder to write to")
    for name, default in (("seed", 1), ("vocab", 2048), ("hidden", 192), ("layers", 4), ("heads", 6), ("kv-heads", 2),
                          ("intermediate", 512), ("context", 512)):
        p.add_argument("--" + name, type=int, default=default)
    a = p.parse_args()
    rng = random.Random(a.seed)
    header, data, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, shape, values in tensors(rng, a):
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 4 * len(values)]}
        at += 4 * len(values)
        if sys.byteorder == "big":
            values = array.array("f", values)
            values.byteswap()
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
