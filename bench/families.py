#!/usr/bin/env python3
"""Training speed of each family beside Llama's, for each floating-point operation: no architecture may be on a slow path.

Every family gets a model of random weights and like size (hidden 576, 9 heads, 4 layers, 8192 tokens in the vocabulary) and LoRA
r = 16 on all linear layers, in one process. A turn is a step of Llama and a step of the family; a figure is the median of the turns'
ratios of operations a second, with the operations that the trainer's plan counts. Rows are one of 512 tokens; encoder-decoders read
256 and write 256, encoders predict masked tokens. Needs Python and the library, nothing else.

    families.py [--turns 7] [--threads 1] [--only NAME,...] [--out FILE]
"""
import argparse
import os
import random
import statistics
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "bindings", "python"))
os.environ.setdefault("LIBPEFT_LIBRARY", os.path.join(os.environ.get("BUILD", os.path.join(ROOT, "build")), "libpeft.so"))
import libpeft  # noqa: E402

TOKENS, VOCABULARY, LAYERS = 512, 8192, 4
SIZES = dict(vocab_size=VOCABULARY, hidden_size=576, num_hidden_layers=LAYERS, num_attention_heads=9, intermediate_size=1536,
             max_position_embeddings=TOKENS)
GROUPS = dict(SIZES, num_key_value_heads=3)
GPT2 = dict(vocab_size=VOCABULARY, n_embd=576, n_layer=LAYERS, n_head=9, n_positions=TOKENS)
GEMMA = dict(GROUPS, head_dim=64, sliding_window=TOKENS)
DISTIL = dict(vocab_size=VOCABULARY, dim=576, n_layers=LAYERS, n_heads=9, hidden_dim=2304, max_position_embeddings=TOKENS)
ENCODER = dict(SIZES, intermediate_size=2304)
T5 = dict(vocab_size=VOCABULARY, d_model=576, d_kv=64, d_ff=1536, num_layers=LAYERS, num_heads=9, decoder_start_token_id=0)
BART = dict(vocab_size=VOCABULARY, d_model=576, encoder_layers=LAYERS, decoder_layers=LAYERS, encoder_attention_heads=9,
            decoder_attention_heads=9, encoder_ffn_dim=2304, decoder_ffn_dim=2304, max_position_embeddings=TOKENS)
FAMILIES = {
    "llama": GROUPS, "mistral": GROUPS, "gpt2": GPT2, "qwen2": GROUPS, "qwen3": dict(GROUPS, head_dim=64), "gemma2": GEMMA,
    "gemma3_text": GEMMA, "phi3": dict(GROUPS, pad_token_id=0), "olmo2": GROUPS, "gpt_neox": dict(ENCODER, rotary_pct=0.25),
    "opt": dict(vocab_size=VOCABULARY, hidden_size=576, num_hidden_layers=LAYERS, num_attention_heads=9, ffn_dim=2304,
                max_position_embeddings=TOKENS, word_embed_proj_dim=576),
    "stablelm": GROUPS,
    "bert": dict(ENCODER, architectures=["BertForMaskedLM"]),
    "roberta": dict(ENCODER, max_position_embeddings=TOKENS + 2, pad_token_id=1, architectures=["RobertaForMaskedLM"]),
    "distilbert": dict(DISTIL, architectures=["DistilBertForMaskedLM"]),
    "modernbert": dict(SIZES, architectures=["ModernBertForMaskedLM"]),
    "t5": dict(T5, feed_forward_proj="relu"), "mt5": dict(T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False), "bart": BART,
}


def numbers(seed, count):
    draw = random.Random(seed)
    return [draw.randrange(5, VOCABULARY) for _ in range(count)]


class Side:
    """A family's trainer over one batch."""

    def __init__(self, name, context):
        self.model = libpeft.Model.random(dict(FAMILIES[name], model_type=name), seed=1, context=context)
        adapter = libpeft.Adapters(self.model).add("a", "lora", r=16, target_modules="all-linear")
        if name in ("t5", "mt5", "bart"):
            row = {"input_ids": numbers(1, TOKENS // 2), "labels": numbers(2, TOKENS // 2)}
        else:
            row = {"input_ids": numbers(1, TOKENS), "labels": numbers(1, TOKENS)}
        self.trainer = libpeft.Trainer(adapter, [row], batch_size=1, max_steps=10**6, max_length=TOKENS)
        self.operations = self.trainer.plan()["flops_per_step"]
        for _ in range(2):  # the first allocates
            self.trainer.step()

    def turn(self):
        """Operations a second of one step."""
        begun = time.perf_counter()
        self.trainer.step()
        return self.operations / (time.perf_counter() - begun)


def compare(name, llama, context, turns):
    side = llama if name == "llama" else Side(name, context)
    speeds, ratios = [], []
    for _ in range(turns):
        usual = llama.turn()
        speeds.append(side.turn())
        ratios.append(speeds[-1] / usual)
    return side.operations, statistics.median(speeds), statistics.median(ratios), min(ratios), max(ratios)


def report(rows, threads):
    out = ["# Training speed by family", "",
           "Written by `make bench-families` (`bench/families.py`): LoRA r = 16 on all linear layers of models of random weights and like",
           "size, one row of %d tokens (encoder-decoders: half read, half written), %d thread%s, libpeft %s. A ratio is the median of turns in"
           % (TOKENS, threads, "" if threads == 1 else "s", libpeft.__version__),
           "which a step of Llama and one of the family alternate, of operations a second; operations are those of the trainer's plan.", "",
           "| family | GFLOP of a step | GFLOP/s | beside Llama (range) |", "|---|---|---|---|"]
    out += ["| %s | %.1f | %.1f | %.2f (%.2f-%.2f) |" % (name, o / 1e9, s / 1e9, r, low, high) for name, (o, s, r, low, high) in rows]
    return "\n".join(out) + "\n"


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--turns", type=int, default=7)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--only", default="")
    p.add_argument("--out")
    args = p.parse_args()
    context = libpeft.Context(threads=args.threads)
    llama, rows = Side("llama", context), []
    for name in args.only.split(",") if args.only else FAMILIES:
        rows.append((name, compare(name, llama, context, args.turns)))
        print("%-12s %.2f" % (name, rows[-1][1][2]), file=sys.stderr)
    text = report(rows, args.threads)
    print(text)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as f:
            f.write(text)


if __name__ == "__main__":
    main()
