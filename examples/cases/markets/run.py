#!/usr/bin/env python3
"""Many markets of one shop: a small adapter for each over one MiniLM, trained together or one by one, added and taken away.

    run.py [--data DIR] [--seeds 1] [--threads 2] [--quick] [--only NAME,...] [--out FILE.json] [--page FILE.md]    (kit.py)

1. Three markets, 400 rows each, twice: do reviews of an app report a problem, ask for something, or neither; is a piece of clothing
   recommended or not; does a sentence praise or complain? Adapters of AdapterHub's kinds, and one model fine-tuned on all three.
2. A market that is new and has 100 rows: reviews of the app in French, by an adapter of their own, or a fusion of what is there.
3. A market is added and one is taken away: files and answers of the others, to the bit.
4. A language each: topics of sentences in English, German, French and Spanish.

What is reported is test.jsonl; docs/cases/markets.md tells what came of it, and which rates were chosen on dev.jsonl.
"""
import hashlib
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import kit  # noqa: E402
import libpeft  # noqa: E402

# ---- the markets ----------------------------------------------------------------------------------------------------


# The shop asks one question in all of its markets, and takes each market's own labels as answers to it. (One base has one list of
# labels: a list of all markets' own names would have each adapter learn first which of them its market never has.)
LABELS = ["problem", "request", "fine"]
APP = {"problem_report": "problem", "feature_request": "request", "irrelevant": "fine"}


def app(lang):
    return ("app-reviews", lambda row: row["lang"] == lang and len(row["labels"]) == 1,
            lambda row: (row["text"], APP[row["labels"][0]]))


MARKETS = {  # data set, which of its rows, text and label of a row
    "app": app("en"),
    "clothing": ("clothing-reviews", None, lambda row: ((row["title"] + ". " + row["text"]).lstrip(". "),
                                                        "fine" if row["recommended"] else "problem")),
    "sentiment": ("review-sentiment", None, lambda row: (row["text"], "fine" if row["label"] == "positive" else "problem")),
    "app, French": app("fr"),
}
THREE, NEW = ["app", "clothing", "sentiment"], "app, French"
LANGUAGES = {"en": "English", "de": "German", "fr": "French", "es": "Spanish"}

TRAINED, NEW_TRAINED, LANGUAGE_TRAINED = 400, 100, 200  # rows of a market
EPOCHS, BATCH, NEW_STEPS, LENGTH = 2, 8, 50, 160        # NEW_STEPS: four passes over 100 rows

POOLER = dict(modules_to_save=["pooler"])  # no one has trained it: a classifier over it as it is reads noise
METHODS = {  # name: its parts, each a method and its options; learning rate
    "Pfeiffer": ([("pfeiffer", {})], 2e-3),
    "Pfeiffer, pooler trained": ([("pfeiffer", {}), ("ln_tuning", POOLER)], 2e-3),
    "Houlsby": ([("houlsby", {})], 2e-3),
    "Compacter": ([("compacter", dict(reduction_factor=16))], 1e-2),
    "LoRA, pooler trained": ([("lora", dict(r=8, target_modules=["query", "key", "value", "dense"], exclude_modules=["pooler.dense"],
                                            **POOLER))], 1e-3),
}
FULL_RATE, FUSION_RATE = 2e-4, 5e-4


def reviews(args, market, split, count=None):
    name, keep, parts = MARKETS[market]
    found = [parts(row) for row in kit.rows(args, name, split, count, keep)]
    return [{"text": text, "label": label} for text, label in found]


class Shop:
    """MiniLM with a new head, and a set of adapters over it, each with a head of its own."""

    def __init__(self, args, seed, labels=LABELS):
        self.args, self.seed = args, seed
        self.model = libpeft.Model.open(kit.minilm(), task="sequence_classification", labels=labels, head_seed=seed)
        self.adapters = self.model.adapters()

    def add(self, market, name):
        """An adapter of METHODS for a market; one of several parts is a union."""
        parts, _ = METHODS[name]
        names = [market] if len(parts) == 1 else ["%s by %s" % (market, method) for method, _ in parts]
        for part, (method, options) in zip(names, parts):
            self.adapters.add(part, method, seed=self.seed, **options)
        if len(parts) > 1:
            self.adapters.add(market, "union", parts=names)

    def data(self, rows):
        return libpeft.Dataset(rows, tokenizer=self.model.tokenizer, task="sequence_classification",
                               max_length=16 if self.args.quick else LENGTH)

    def trainer(self, jobs, rate, **options):
        """A trainer of (expression, rows) jobs, of BATCH rows a step each."""
        options.setdefault("num_train_epochs", EPOCHS)
        if self.args.quick:
            options["max_steps"] = 2
        optimizer = dict(learning_rate=rate, warmup_ratio=0.1)
        (first, rows), *others = jobs
        trainer = libpeft.Trainer(self.adapters, self.data(rows), adapter=first, batch_size=BATCH * len(jobs), seed=self.seed,
                                  **options, **optimizer)
        for expression, rows in others:
            trainer.add_job(expression, self.data(rows), **optimizer)
        return trainer

    def accuracy(self, expression, rows):
        return libpeft.Session(self.adapters, expression).evaluate(self.data(rows)).accuracy


# ---- runs, each in a process of its own -----------------------------------------------------------------------------


def markets(args, name, chosen, seed, shelf=None):
    """Adapters of one method for the chosen markets, trained together; shelf: a folder that they are saved in."""
    rate, shop = METHODS[name][1], Shop(args, seed)
    for market in chosen:
        shop.add(market, name)
    found = kit.train(shop.trainer([(m, reviews(args, m, "train", TRAINED)) for m in chosen], rate))
    found["bytes"] = kit.saved_bytes(shop.adapters, *chosen)
    for market in chosen if shelf else ():
        shop.adapters.save(market, os.path.join(shelf, market))
    found.update({m: shop.accuracy(m, reviews(args, m, "test")) for m in chosen})
    return found


def one_by_one(args, name, seed):
    """The same, each market in a process of its own; times, parameters and files add up, the largest peak counts."""
    runs = [kit.apart(markets, args, name, [market], seed) for market in THREE]
    found = {key: sum(run[key] for run in runs) for key in ("seconds", "trainable", "bytes")}
    found["peak_mib"] = max(run["peak_mib"] for run in runs)
    for market, run in zip(THREE, runs):
        found[market] = run[market]
    return found


def joint(args, seed):
    """One model for all markets, every weight trained on the rows of all: three times the updates of an adapter."""
    shop = Shop(args, seed)
    shop.adapters.add("all", "full")
    rows = [row for market in THREE for row in reviews(args, market, "train", TRAINED)]
    found = kit.train(shop.trainer([("all", rows)], FULL_RATE))
    found["bytes"] = kit.saved_bytes(shop.adapters, "all")
    found.update({market: shop.accuracy("all", reviews(args, market, "test")) for market in THREE})
    return found


def new_market(args, shelf, seed):
    """100 rows of a market that no adapter has seen, and 400 of one that one has: alone and by fusion."""
    rate, shop = METHODS["Pfeiffer"][1], Shop(args, seed)
    for market in THREE:
        shop.adapters.load(market, os.path.join(shelf, market))
    few, test = reviews(args, NEW, "train", NEW_TRAINED), reviews(args, NEW, "test")
    rows = {"the adapter of the English reviews, as it is": {"accuracy": shop.accuracy("app", test), "trainable": 0}}

    shop.add("alone", "Pfeiffer")
    found = kit.train(shop.trainer([("alone", few)], rate, max_steps=NEW_STEPS))
    rows["Pfeiffer, from nothing"] = dict(found, accuracy=shop.accuracy("alone", test))

    shop.adapters.add("fused", "fusion", seed=seed, adapters=THREE)
    found = kit.train(shop.trainer([("fused", few)], FUSION_RATE, max_steps=NEW_STEPS))
    rows["fusion of the three"] = dict(found, accuracy=shop.accuracy("fused", test))

    shop.adapters.add("on-sentiment", "fusion", seed=seed, adapters=THREE)
    found = kit.train(shop.trainer([("on-sentiment", reviews(args, "sentiment", "train", TRAINED))], FUSION_RATE))
    accuracy = shop.accuracy("on-sentiment", reviews(args, "sentiment", "test"))
    rows["fusion of the three, on sentiment and its 400 rows"] = dict(found, accuracy=accuracy)

    found = kit.train(shop.trainer([("app", few)], rate, max_steps=NEW_STEPS))
    rows["the adapter of the English reviews, trained on"] = dict(found, accuracy=shop.accuracy("app", test))
    return rows


def digest(folder):
    """Of all files of a folder, names and bytes."""
    found = hashlib.sha256()
    for top, _, files in sorted(os.walk(folder)):
        for file in sorted(files):
            with open(os.path.join(top, file), "rb") as f:
                found.update(file.encode() + b"\0" + f.read())
    return found.hexdigest()


def come_and_go(args, shelf, seed):
    """Markets come and go in a shop that is open: what the others' files and answers are before and after, and shown answers."""
    rate = METHODS["Pfeiffer"][1]
    shop, shown = Shop(args, seed), {m: reviews(args, m, "test", 20) for m in THREE}
    for market in THREE:
        shop.add(market, "Pfeiffer")

    def state():
        """Each market's files and answers."""
        with tempfile.TemporaryDirectory() as top:
            found = {}
            for market in filter(shop.adapters.__contains__, THREE):
                shop.adapters.save(market, os.path.join(top, market))
                session = libpeft.Session(shop.adapters, market)
                found[market] = digest(os.path.join(top, market)), session.classify([row["text"] for row in shown[market]])
            return found

    fresh = state()
    for market in THREE:
        shop.adapters.load(market, os.path.join(shelf, market), replace=True)
    trained = state()
    begun = time.perf_counter()
    shop.add("new", "Pfeiffer")
    shop.trainer([("new", reviews(args, NEW, "train", NEW_TRAINED))], rate, max_steps=NEW_STEPS).run()
    seconds, grown = time.perf_counter() - begun, state()
    del shop.adapters["clothing"]
    left = state()
    found = {"a market is added": {"others": len(trained), "seconds": seconds,
                                   "files": sum(grown[m][0] == trained[m][0] for m in trained),
                                   "answers": sum(grown[m][1] == trained[m][1] for m in trained)},
             "a market is taken away": {"others": len(left), "seconds": 0.0,
                                        "files": sum(left[m][0] == trained[m][0] for m in left),
                                        "answers": sum(left[m][1] == trained[m][1] for m in left)}}
    examples = [(m, shown[m][0], fresh[m][1][0], trained[m][1][0]) for m in THREE]
    return found, examples


def languages(args, seed):
    """An adapter each, trained together, on its own language and on the others'."""
    def topics(lang, split, count=None):
        return [{"text": r["text"], "label": r["label"]} for r in kit.rows(args, "sib200", split, count, lambda r: r["lang"] == lang)]

    rate = METHODS["Pfeiffer"][1]
    labels = sorted({row["label"] for row in topics("en", "test")})
    shop = Shop(args, seed, labels)
    for lang in LANGUAGES:
        shop.add(lang, "Pfeiffer")
    train = {lang: topics(lang, "train", LANGUAGE_TRAINED) for lang in LANGUAGES}
    found = kit.train(shop.trainer([(lang, [row for row in train[lang] if row["label"] in labels]) for lang in LANGUAGES], rate))
    rows = {}
    for lang, title in LANGUAGES.items():
        rows["adapter of " + title] = {other: shop.accuracy(lang, topics(other, "test")) for other in LANGUAGES}
    rows["adapter of English"].update(seconds=found["seconds"], peak_mib=found["peak_mib"])
    return rows


# ---- the story ------------------------------------------------------------------------------------------------------


def by_row(runs):
    """Runs that each have several rows: the runs of each row."""
    return {row: [run[row] for run in runs] for row in runs[0]}


def main():
    args = kit.arguments(__doc__)
    report, first = kit.Report(args), args.seeds[:1]
    kit.minilm()
    with tempfile.TemporaryDirectory() as top:
        shelves = {seed: os.path.join(top, str(seed)) for seed in args.seeds}
        report.add("markets", "Pfeiffer, together", [kit.apart(markets, args, "Pfeiffer", THREE, s, shelves[s]) for s in args.seeds])
        if report.wanted("one by one"):
            report.add("markets", "Pfeiffer, one by one", [one_by_one(args, "Pfeiffer", seed) for seed in first])
        for name, seeds in (("Pfeiffer, pooler trained", args.seeds), ("Houlsby", first), ("Compacter", first),
                            ("LoRA, pooler trained", first)):
            if report.wanted(name):
                report.add("markets", name + ", together", [kit.apart(markets, args, name, THREE, seed) for seed in seeds])
        if report.wanted("full"):
            report.add("markets", "one model, fully fine-tuned", [kit.apart(joint, args, seed) for seed in args.seeds])
        if report.wanted("new"):
            for row, runs in by_row([kit.apart(new_market, args, shelves[s], s) for s in args.seeds]).items():
                report.add("new", row, runs)
        found, examples = kit.apart(come_and_go, args, shelves[first[0]], first[0])
    for row, numbers in found.items():
        report.add("untouched", row, numbers)
    if report.wanted("languages"):
        for row, numbers in kit.apart(languages, args, first[0]).items():
            report.add("languages", row, numbers)
    tables(report, examples)
    report.write()


def tables(report, examples):
    costs = [("trained", "trainable", kit.amount), ("files", "bytes", kit.size), ("peak memory, MiB", "peak_mib", kit.whole),
             ("training, s", "seconds", kit.whole)]
    report.table("markets", [(m + ", %", m, kit.percent) for m in THREE] + costs)
    report.table("new", [("accuracy, %", "accuracy", kit.percent), costs[0], costs[3]])
    report.table("untouched", [("other markets", "others", kit.whole), ("with the same files", "files", kit.whole),
                               ("with the same answers", "answers", kit.whole), ("s", "seconds", kit.whole)])
    report.table("languages", [(title + ", %", lang, kit.percent) for lang, title in LANGUAGES.items()])
    best = lambda scores: "%s (%.2f)" % max(((label, p) for label, p in scores.items()), key=lambda pair: pair[1])  # noqa: E731
    report.text("examples", ["| Market | review | its label | before | after |", "|---|---|---|---|---|"] + [
        "| %s | %s | %s | %s | %s |" % (market, kit.quoted(row["text"]), row["label"], best(before), best(after))
        for market, row, before, after in examples])


if __name__ == "__main__":
    main()
