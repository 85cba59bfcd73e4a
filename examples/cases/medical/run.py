#!/usr/bin/env python3
"""Medical text with few rows: LoRA and other small adapters beside full fine-tuning, on two classifications.

    run.py [--data DIR] [--seeds 1] [--threads 2] [--quick] [--only NAME,...] [--out FILE.json] [--page FILE.md]    (kit.py)

1. Roles of sentences in medical abstracts (five labels): 2,000 rows to train on, twice each, over MiniLM with a new head.
2. What whole abstracts are about (five labels), from 1,154 of them.
3. The first task asked of a language model, SmolLM2, whose labels are words that it may say next: no new head, and something to
   say before any training.

What is reported is test.jsonl; docs/cases/medical.md tells what came of it, and which rates were chosen on dev.jsonl.
"""
import os
import sys
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import kit  # noqa: E402
import libpeft  # noqa: E402

# ---- what is trained, and how ---------------------------------------------------------------------------------------

# All projections of the six layers, and the small layer before the classifier (the pooler) not as a LoRA but whole: no one has
# ever trained this base's pooler for anything, so that a classifier over it as it is reads noise.
LORA = dict(r=8, target_modules=["query", "key", "value", "dense"], exclude_modules=["pooler.dense"])
POOLER = dict(modules_to_save=["pooler"])
METHODS = [  # name, method, its options, learning rate
    ("head only", "head", {}, 1e-2),
    ("bottleneck (Pfeiffer)", "pfeiffer", {}, 3e-3),
    ("BitFit, pooler trained", "bitfit", POOLER, 3e-3),
    ("LoRA r 8, pooler frozen", "lora", LORA, 1e-3),
    ("LoRA r 8, pooler trained", "lora", dict(LORA, **POOLER), 1e-3),
    ("full fine-tuning", "full", {}, 2e-4),
]
TASKS = {  # table: data set, rows to train on and to test on, longest row in tokens, methods that are compared
    "roles": ("pubmed-roles", 2000, 1500, 128, [name for name, _, _, _ in METHODS]),
    "abstracts": ("medical-abstracts", None, None, 128, ["head only", "LoRA r 8, pooler trained", "full fine-tuning"]),
}
SEVERAL = ("LoRA r 8, pooler frozen", "LoRA r 8, pooler trained", "full fine-tuning")  # run with every seed on the roles; all else with the first
EPOCHS, BATCH = 2, 16

# What the language model reads and may answer. Its other 49,147 words are not asked for.
PROMPT = "Sentence: {text}\nThis sentence of a medical abstract is about the"
WORDS = {"BACKGROUND": " background", "OBJECTIVE": " aim", "METHODS": " methods", "RESULTS": " results",
         "CONCLUSIONS": " conclusion"}
LM_TRAINED, LM_TESTED, LM_STEPS, LM_BATCH, LM_RATE = 240, 150, 30, 8, 1e-3
SHOWN = 3  # rows that the page shows


def texts(args, table, split):
    name, trained, tested, _, _ = TASKS[table]
    found = kit.rows(args, name, split, trained if split == "train" else tested)
    return [{"text": row["text"], "label": row["label"]} for row in found]


def labels_of(rows):
    """In the order of how frequent they are: the first is the guess to beat."""
    return [label for label, _ in Counter(row["label"] for row in rows).most_common()]


# ---- one run, in a process of its own -------------------------------------------------------------------------------


def classifier(args, table, name, seed):
    """Trains one method over MiniLM from a seed; what it reached on the test rows, and its answers to some of them."""
    method, options, rate = next(m[1:] for m in METHODS if m[0] == name)
    train, test = texts(args, table, "train"), texts(args, table, "test")
    model = libpeft.Model.open(kit.minilm(), task="sequence_classification", labels=labels_of(train), head_seed=seed)
    adapters = model.adapters()
    adapters.add("medical", method, seed=seed, **options)
    data = dict(tokenizer=model.tokenizer, task="sequence_classification",
                max_length=16 if args.quick else TASKS[table][3])
    trainer = libpeft.Trainer(adapters, libpeft.Dataset(train, **data), num_train_epochs=EPOCHS, batch_size=BATCH,
                              max_steps=2 if args.quick else 0, learning_rate=rate, warmup_ratio=0.1, seed=seed)
    before = answers(libpeft.Session(adapters, "medical"), test)
    found = kit.train(trainer)
    session = libpeft.Session(adapters, "medical")
    metrics = session.evaluate(libpeft.Dataset(test, **data))
    found.update(loss=metrics.loss, accuracy=metrics.accuracy, f1=metrics.scores["f1_macro"],
                 bytes=kit.saved_bytes(adapters, "medical"))
    return found, list(zip(shown(test), before, answers(session, test)))


def shown(test):
    """Rows for the page: of different labels, not too long."""
    by_label = {}
    for row in test:
        if 60 < len(row["text"]) < 160 and row["label"] not in by_label:
            by_label[row["label"]] = row
    return list(by_label.values())[:SHOWN] or test[:SHOWN]


def answers(session, test):
    """The label that is likeliest for each shown row, and how likely."""
    said = []
    for scores in session.classify([row["text"] for row in shown(test)]):
        best = max(scores, key=scores.get)
        said.append("%s (%.2f)" % (best, scores[best]))
    return said


def language_model(args, places, method):
    """The roles by SmolLM2's own words; method None: as it is."""
    model = kit.open_smollm2(places)
    data = dict(tokenizer=model.tokenizer, prompt_template=PROMPT, completion_template="{label}", verbalizer=WORDS,
                max_length=32 if args.quick else 128)
    train = kit.rows(args, "pubmed-roles", "train", LM_TRAINED)
    test = libpeft.Dataset(kit.rows(args, "pubmed-roles", "test", LM_TESTED, quick=4), **data)
    adapters = model.adapters()
    found = {"seconds": None, "peak_mib": None, "trainable": 0, "bytes": 0}
    if method is not None:
        adapters.add("roles", method, seed=1, r=8, lora_alpha=16, target_modules="all-linear")
        found = kit.train(libpeft.Trainer(adapters, libpeft.Dataset(train, **data), max_steps=2 if args.quick else LM_STEPS,
                                          batch_size=2 if args.quick else LM_BATCH, learning_rate=LM_RATE, warmup_ratio=0.1, seed=1))
        found["bytes"] = kit.saved_bytes(adapters, "roles")
    metrics = libpeft.Session(adapters, "roles" if method else "").evaluate(test)
    found.update(loss=metrics.loss, accuracy=metrics.accuracy, f1=metrics.scores["f1_macro"])
    return found


# ---- the story ------------------------------------------------------------------------------------------------------


def guess(test):
    """What saying the commonest label always would reach."""
    counts = Counter(row["label"] for row in test)
    share = counts.most_common(1)[0][1] / len(test)
    return {"accuracy": share, "f1": 2 * share / (1 + share) / len(counts), "trainable": 0, "bytes": 0, "seconds": None, "peak_mib": None}


def main():
    args = kit.arguments(__doc__)
    report, examples = kit.Report(args), []
    kit.minilm()
    for table, (_, _, _, _, names) in TASKS.items():
        report.add(table, "the commonest label", guess(texts(args, table, "test")))
        for name in filter(report.wanted, names):
            several = table == "roles" and name in SEVERAL
            runs = [kit.apart(classifier, args, table, name, seed) for seed in (args.seeds if several else args.seeds[:1])]
            report.add(table, name, [numbers for numbers, _ in runs])
            if (table, name) == ("roles", "LoRA r 8, pooler trained"):
                examples = runs[0][1]

    if not args.only or any(name.startswith("SmolLM2") for name in args.only):
        places = kit.smollm2()
        report.add("words", "SmolLM2, as it is", kit.apart(language_model, args, places, None))
        report.add("words", "SmolLM2, LoRA r 8", kit.apart(language_model, args, places, "lora"))

    columns = [("accuracy, %", "accuracy", kit.percent), ("macro F1, %", "f1", kit.percent), ("trained", "trainable", kit.amount),
               ("files", "bytes", kit.size), ("peak memory, MiB", "peak_mib", kit.whole), ("training, s", "seconds", kit.whole)]
    for table in (*TASKS, "words"):
        report.table(table, columns)
    report.text("examples", ["| Sentence | its role | before | after |", "|---|---|---|---|"] + [
        "| %s | %s | %s | %s |" % (kit.quoted(row["text"]), row["label"], before, after) for row, before, after in examples])
    report.write()


if __name__ == "__main__":
    main()
