#!/usr/bin/env python3
"""News of papers in one format: a sentence that says what an abstract says. Prefix-tuning beside prompt-tuning and LoRA.

    run.py [--data DIR] [--seeds 1] [--threads 2] [--quick] [--only NAME,...] [--out FILE.json] [--page FILE.md]

SmolLM2-135M-Instruct reads the first 128 tokens of an abstract and "TLDR:", and is to answer with one sentence. 200 abstracts, each
once. Then, on 40 others: the loss of the true sentence, how much of it the model's own sentence has (ROUGE), and how often what it
writes is in the format at all: one sentence, of a length that such sentences have.

One seed, the first of --seeds: a method takes minutes. Learning rates are the library's own; none was tuned. What is reported is
test.jsonl. docs/cases/news.md tells what came of it.
"""
import os
import re
import statistics
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import kit  # noqa: E402
import libpeft  # noqa: E402

try:
    from rouge_score.rouge_scorer import RougeScorer
except ImportError:
    kit.stop("the package rouge-score is not installed; " + kit.SETUP)

# ---- what is trained, and how ---------------------------------------------------------------------------------------

# What prefixes and prompts start from: the base's own keys and values, or embeddings, of this text.
START = "Read the abstract of a paper and say in one short sentence what its authors found or made:"
COPY = "the abstract's first sentence"
METHODS = [  # name, method, its options, learning rate
    ("SmolLM2, as it is", None, {}, None),
    ("prompt 20", "prompt", dict(num_virtual_tokens=20, prompt_tuning_init="TEXT", prompt_tuning_init_text=START), 1e-2),
    ("prefix 20", "prefix", dict(num_virtual_tokens=20, init_text=START), 1e-2),
    ("LoRA r 16", "lora", dict(r=16, lora_alpha=32, target_modules="all-linear"), 5e-4),
]
STEPS, BATCH, TESTED = 50, 4, 40
SOURCE, WRITTEN = 128, 64  # tokens of an abstract that are read; most that are written
SHOWN = 3                  # rows that the page shows


def prompt(tokenizer, row):
    """An abstract's beginning, and what asks for its summary."""
    return tokenizer.decode(tokenizer.encode(row["source"])[:SOURCE]) + "\nTLDR:"


def dataset(tokenizer, rows):
    """The loss is on the sentence and the mark that ends it; test rows have several, of which the first is taken."""
    return libpeft.Dataset([{"prompt": prompt(tokenizer, row), "completion": " " + row["targets"][0]} for row in rows],
                           tokenizer=tokenizer)


# ---- what is measured -----------------------------------------------------------------------------------------------

SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s+(?=[A-Z\"'(])")


def rouge(texts, rows):
    """Means of F1, each text against the reference with which it has most words in common (the rule of SciTLDR's authors)."""
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    best = []
    for text, row in zip(texts, rows):
        found = [scorer.score(reference, text) for reference in row["targets"]]
        best.append(max(found, key=lambda scores: scores["rouge1"].fmeasure))
    return {name: statistics.fmean(scores[name].fmeasure for scores in best) for name in ("rouge1", "rouge2", "rougeL")}


def usual_lengths(rows):
    """The numbers of words between which 98 of 100 sentences of the training rows are."""
    counts = sorted(len(row["targets"][0].split()) for row in rows)
    return counts[len(counts) // 100], counts[-1 - len(counts) // 100]


def in_format(text, ended, lengths):
    """One sentence, which came to its end by itself, neither shorter nor longer than such sentences are."""
    return ended and not SENTENCE_END.search(text) and lengths[0] <= len(text.split()) <= lengths[1]


def write(session, rows, most):
    """What the model writes for each row, its first line; and whether that came to an end, by the model's mark or a line's end."""
    whole = session.generate_together([prompt(session.tokenizer, row) for row in rows], max_new_tokens=most)
    lines = [text.strip().split("\n")[0] for text in whole]
    return lines, ["\n" in text.strip() or len(session.tokenizer.encode(text)) < most - 1 for text in whole]


def judge(texts, ended, rows, lengths):
    return dict(rouge(texts, rows), words=statistics.fmean(len(text.split()) for text in texts),
                in_format=statistics.fmean(in_format(text, end, lengths) for text, end in zip(texts, ended)))


# ---- one method, in a process of its own ----------------------------------------------------------------------------


def write_and_judge(args, places, name, seed):
    """Trains the method of that name and lets the model write; its numbers and its texts."""
    method, options, rate = next(m[1:] for m in METHODS if m[0] == name)
    train = kit.rows(args, "scitldr", "train", quick=2)
    test = kit.rows(args, "scitldr", "test", quick=2)[:TESTED]
    model = kit.open_smollm2(places)
    adapters, tokenizer = model.adapters(), model.tokenizer
    found = {"seconds": None, "peak_mib": None, "trainable": 0, "bytes": 0}
    if method is not None:
        adapters.add("tldr", method, seed=seed, **options)
        trainer = libpeft.Trainer(adapters, dataset(tokenizer, train), max_steps=1 if args.quick else STEPS, batch_size=BATCH,
                                  learning_rate=rate, warmup_ratio=0.1, seed=seed)
        found = kit.train(trainer)
        trainer.close()
        found["bytes"] = kit.saved_bytes(adapters, "tldr")
    session = libpeft.Session(adapters, "tldr" if method else "")
    found["loss"] = session.evaluate(dataset(tokenizer, test)).loss
    texts, ended = write(session, test, 4 if args.quick else WRITTEN)
    found.update(judge(texts, ended, test, usual_lengths(train)))
    return found, texts


def first_sentence(args):
    """What copying the abstract's first sentence reaches."""
    test = kit.rows(args, "scitldr", "test", quick=2)[:TESTED]
    lengths = usual_lengths(kit.rows(args, "scitldr", "train", quick=2))
    texts = [SENTENCE_END.split(row["source"])[0] for row in test]
    return dict(judge(texts, [True] * len(test), test, lengths), loss=None, seconds=None, peak_mib=None, trainable=0, bytes=0)


# ---- the story ------------------------------------------------------------------------------------------------------


def shown(test):
    """Rows for the page: the first whose abstracts are not too long."""
    return sorted(sorted(range(len(test)), key=lambda i: len(test[i]["source"]))[:SHOWN])


def main():
    args = kit.arguments(__doc__)
    args.seeds = args.seeds[:1]
    test = kit.rows(args, "scitldr", "test", quick=2)[:TESTED]
    report, texts = kit.Report(args), {}
    places = kit.smollm2()
    if report.wanted(COPY):
        report.add("summaries", COPY, first_sentence(args))
    for name in filter(report.wanted, (m[0] for m in METHODS)):
        numbers, texts[name] = kit.apart(write_and_judge, args, places, name, args.seeds[0])
        report.add("summaries", name, numbers)

    report.table("summaries", [
        ("loss by token", "loss", kit.decimal(3)), ("ROUGE-1", "rouge1", kit.percent), ("ROUGE-2", "rouge2", kit.percent),
        ("ROUGE-L", "rougeL", kit.percent), ("in the format, %", "in_format", kit.percent), ("words", "words", kit.whole),
        ("trained", "trainable", kit.amount), ("files", "bytes", kit.size), ("peak memory, MiB", "peak_mib", kit.whole),
        ("training, s", "seconds", kit.whole)])
    lines = []
    for i in shown(test):
        lines += ["*%s*" % kit.quoted(test[i]["source"], 300), "", "| | |", "|---|---|",
                  "| an author or reader | %s |" % kit.quoted(test[i]["targets"][0], 400)]
        lines += ["| %s | %s |" % (name, kit.quoted(said[i], 400)) for name, said in texts.items()] + [""]
    report.text("examples", lines[:-1])
    report.write()


if __name__ == "__main__":
    main()
