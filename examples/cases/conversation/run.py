#!/usr/bin/env python3
"""Conversation: replies of an assistant that say what they must, and what customers want. Prompts and P-tuning beside LoRA.

    run.py [--data DIR] [--seeds 1] [--threads 2] [--quick] [--only NAME,...] [--out FILE.json] [--page FILE.md]

1. Replies: SmolLM2-135M-Instruct reads the last turns of a dialogue and the acts that the next reply is to express, such as
   CONFIRM(city=London), and says it. 192 replies, each once; one seed, the first of --seeds, as a method takes minutes.
2. Intents: what a customer of a bank wants, one of 77 intents, over MiniLM. 2,000 rows, four times each.

Learning rates of replies are the library's own, LoRA's twice that; those of intents are a first guess. None was tuned. What is
reported is test.jsonl. docs/cases/conversation.md tells what came of it.
"""
import os
import statistics
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import kit  # noqa: E402
import libpeft  # noqa: E402

try:
    from sacrebleu import corpus_bleu
except ImportError:
    kit.stop("the package sacrebleu is not installed; " + kit.SETUP)

# ---- replies: what is trained, and how ------------------------------------------------------------------------------

# What prompts start from: the embeddings of this text's tokens.
START = "The system answers the user in one or two short sentences and says every value of the acts:"
BASE = "SmolLM2, as it is"
REPLIERS = [  # name, method, its options, learning rate
    (BASE, None, {}, None),
    ("prompt 20, N(0, 1)", "prompt", dict(num_virtual_tokens=20, prompt_tuning_init="RANDOM"), 1e-2),
    ("prompt 20", "prompt", dict(num_virtual_tokens=20, prompt_tuning_init="TEXT", prompt_tuning_init_text=START), 1e-2),
    ("P-tuning 20", "ptuning", dict(num_virtual_tokens=20, init="text", init_text=START), 1e-3),
    ("LoRA r 8", "lora", dict(r=8, lora_alpha=16, target_modules="all-linear"), 1e-3),
]
STEPS, BATCH, TESTED, WRITTEN = 48, 4, 60, 48
SHOWN = 3  # dialogues that the page shows


def prompt(row):
    """The dialogue so far, what the reply is to express, and whose turn it is."""
    turns = ["%s: %s" % (turn["speaker"].capitalize(), turn["text"]) for turn in row["history"]]
    return "\n".join([*turns, "Acts: " + ", ".join(row["acts"]), "System:"])


def replies(tokenizer, rows):
    return libpeft.Dataset([{"prompt": prompt(row), "completion": " " + row["response"]} for row in rows], tokenizer=tokenizer)


def values(row):
    """What the reply must say word for word: of acts such as INFORM(price=$20), not yes and no, nor names of intents."""
    found = [act.split("=", 1)[1].rstrip(")") for act in row["acts"] if "=" in act and not act.startswith("OFFER_INTENT")]
    return [value.lower() for value in found if value not in ("True", "False", "dontcare")]


def judge(texts, rows):
    """BLEU, the share of replies that miss a value among those that must say one, and the share of values that are missed."""
    missed = [[value not in text.lower() for value in values(row)] for text, row in zip(texts, rows) if values(row)]
    return {"bleu": corpus_bleu(texts, [[row["response"] for row in rows]]).score / 100,
            "missed": statistics.fmean(map(any, missed)), "values_missed": statistics.fmean(sum(missed, []))}


def replier(args, places, name, seed):
    """Trains the method of that name and lets the model reply, in a process of its own; numbers and replies."""
    method, options, rate = next(m[1:] for m in REPLIERS if m[0] == name)
    train, test = kit.rows(args, "sgd-responses", "train", quick=2), kit.rows(args, "sgd-responses", "test", TESTED, quick=2)
    model = kit.open_smollm2(places)
    adapters, tokenizer = model.adapters(), model.tokenizer
    found = {"seconds": None, "peak_mib": None, "trainable": 0, "bytes": 0}
    if method is not None:
        adapters.add("replies", method, seed=seed, **options)
        trainer = libpeft.Trainer(adapters, replies(tokenizer, train), max_steps=1 if args.quick else STEPS,
                                  batch_size=BATCH, learning_rate=rate, warmup_ratio=0.1, seed=seed)
        found = kit.train(trainer)
        trainer.close()
        found["bytes"] = kit.saved_bytes(adapters, "replies")
    session = libpeft.Session(adapters, "replies" if method else "")
    found["loss"] = session.evaluate(replies(tokenizer, test)).loss
    whole = session.generate_together([prompt(row) for row in test], max_new_tokens=4 if args.quick else WRITTEN)
    texts = [text.strip().split("\n")[0] for text in whole]
    found.update(judge(texts, test))
    return found, texts


# ---- intents --------------------------------------------------------------------------------------------------------

POOLER = dict(modules_to_save=["pooler"])  # no one has trained it: a classifier over it as it is reads noise
NEAREST = "nearest mean vector, nothing trained"
CLASSIFIERS = [  # name, method, its options, learning rate
    ("head only", "head", {}, 1e-2),
    ("prompt 10", "prompt", dict(num_virtual_tokens=10), 1e-2),
    ("P-tuning 10", "ptuning", dict(num_virtual_tokens=10), 1e-2),
    ("P-tuning v2 10, pooler trained", "ptuning_v2", dict(num_virtual_tokens=10, **POOLER), 5e-3),
    ("LoRA r 8, pooler trained", "lora", dict(r=8, target_modules=["query", "key", "value", "dense"],
                                              exclude_modules=["pooler.dense"], **POOLER), 2e-3),
]
TRAINED, EPOCHS, INTENT_BATCH = 2000, 4, 16


def questions(args, split, count=None):
    return [{"text": row["text"], "label": row["intent"]} for row in kit.rows(args, "banking77", split, count)]


def intents(args):
    """All of them, from the whole file: a model has its labels before it has rows."""
    return sorted({row["intent"] for row in kit.rows(args, "banking77", "train", quick=10**9)})


def classifier(args, name, seed):
    """Trains the method of that name over MiniLM, in a process of its own."""
    method, options, rate = next(m[1:] for m in CLASSIFIERS if m[0] == name)
    model = libpeft.Model.open(kit.minilm(), task="sequence_classification", labels=intents(args), head_seed=seed)
    adapters = model.adapters()
    adapters.add("intents", method, seed=seed, **options)
    data = dict(tokenizer=model.tokenizer, task="sequence_classification", max_length=64)
    trainer = libpeft.Trainer(adapters, libpeft.Dataset(questions(args, "train", TRAINED), **data), num_train_epochs=EPOCHS,
                              max_steps=3 if args.quick else 0, batch_size=INTENT_BATCH, learning_rate=rate, warmup_ratio=0.1, seed=seed)
    found = kit.train(trainer)
    metrics = libpeft.Session(adapters, "intents").evaluate(libpeft.Dataset(questions(args, "test"), **data))
    return dict(found, loss=metrics.loss, accuracy=metrics.accuracy, f1=metrics.scores["f1_macro"],
                bytes=kit.saved_bytes(adapters, "intents"))


def nearest(args):
    """MiniLM as what it was made for: a question has the intent to whose questions' mean vector it is nearest. Nothing is trained."""
    session = libpeft.Model.open(kit.minilm(), task="embedding").session()
    train, test = questions(args, "train", TRAINED), questions(args, "test")
    sums = {}
    for row, vector in zip(train, session.embed([row["text"] for row in train]).tolist()):
        sums[row["label"]] = [a + b for a, b in zip(sums.get(row["label"], [0.0] * len(vector)), vector)]
    means = {label: [x / sum(y * y for y in total) ** 0.5 for x in total] for label, total in sums.items()}
    right = []
    for row, vector in zip(test, session.embed([row["text"] for row in test]).tolist()):
        right.append(row["label"] == max(means, key=lambda label: sum(a * b for a, b in zip(means[label], vector))))
    return {"accuracy": statistics.fmean(right), "f1": None, "trainable": 0, "bytes": 0, "seconds": None, "peak_mib": None}


# ---- the story ------------------------------------------------------------------------------------------------------


def talk(args, report):
    """The replies' table, and some of the replies."""
    test, places, said = kit.rows(args, "sgd-responses", "test", TESTED, quick=2), kit.smollm2(), {}
    for name in filter(report.wanted, (m[0] for m in REPLIERS)):
        numbers, said[name] = kit.apart(replier, args, places, name, args.seeds[0])
        report.add("replies", name, numbers)
    picked = [i for i, row in enumerate(test) if len(values(row)) > 1 and len(row["history"]) == 3][::4][:SHOWN] or [0]
    lines = []
    for i in picked:
        lines += ["| %s | %s |" % (turn["speaker"].capitalize(), kit.quoted(turn["text"], 300)) for turn in test[i]["history"]]
        lines += ["| *acts* | %s |" % kit.quoted(", ".join(test[i]["acts"]), 300), "| *reply of the data* | %s |" % kit.quoted(
            test[i]["response"], 300)]
        lines += ["| **%s** | %s |" % (name, kit.quoted(texts[i], 300)) for name, texts in said.items()]
        lines += ["", "| | |", "|---|---|"]
    report.text("examples", ["| | |", "|---|---|"] + lines[:-3])


def main():
    args = kit.arguments(__doc__)
    report = kit.Report(args)
    kit.minilm()
    talk(args, report)
    if report.wanted(NEAREST):
        report.add("intents", NEAREST, kit.apart(nearest, args))
    for name in filter(report.wanted, (m[0] for m in CLASSIFIERS)):
        report.add("intents", name, [kit.apart(classifier, args, name, seed) for seed in args.seeds])

    cost = [("trained", "trainable", kit.amount), ("files", "bytes", kit.size), ("peak memory, MiB", "peak_mib", kit.whole),
            ("training, s", "seconds", kit.whole)]
    report.table("replies", [("loss by token", "loss", kit.decimal(3)), ("BLEU", "bleu", kit.percent),
                             ("replies that miss a value, %", "missed", kit.percent),
                             ("values missed, %", "values_missed", kit.percent)] + cost)
    report.table("intents", [("accuracy, %", "accuracy", kit.percent), ("macro F1, %", "f1", kit.percent)] + cost)
    report.write()


if __name__ == "__main__":
    main()
