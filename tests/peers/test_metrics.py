#!/usr/bin/env python3
"""Compares what is measured of predictions with scikit-learn (classes, several labels, errors), SciPy (correlations), seqeval
(entities) and the SQuAD functions of transformers, on seeded random cases with all the rare ones among them.

Usage: test_metrics.py <metrics_dump binary>
"""
import collections
import json
import math
import random
import re
import subprocess
import sys
import warnings

import numpy as np
import scipy.stats
import seqeval.metrics
import sklearn.metrics as sk
from transformers.data.metrics import squad_metrics as squad

from checks import check, equal, main

warnings.filterwarnings("ignore")
DUMP = sys.argv[1]


def dump(cases):
    text = "".join(json.dumps(c) + "\n" for c in cases)
    done = subprocess.run([DUMP], input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return [json.loads(line) for line in done.stdout.rstrip("\n").split("\n")]


def same(ours, theirs, tolerance):
    """Two figures; a figure that is not defined is null here and NaN there."""
    if ours is None or theirs is None or math.isnan(theirs):
        return ours is None and (theirs is None or math.isnan(theirs))
    return abs(ours - theirs) <= tolerance * max(1.0, abs(theirs))


def compare(name, cases, ours, theirs, tolerance=6e-9):
    """Dicts of figures, one a case; ours are written with nine digits."""
    for key in theirs[0]:
        bad = [(o.get(key), t[key], c) for c, o, t in zip(cases, ours, theirs) if key not in o or not same(o[key], t[key], tolerance)]
        values = [t[key] for t in theirs if t[key] is not None and not math.isnan(t[key])]
        spread = "%d cases, %d different values" % (len(theirs), len(set(values)))
        check("%s: %s" % (name, key), not bad and len(ours) == len(theirs), "%.300s" % (bad[0],) if bad else spread)


def prf(truth, predicted, average):
    return sk.precision_recall_fscore_support(truth, predicted, average=average, zero_division=0)[:3]


def sk_figures(truth, predicted):
    figures = {"accuracy": sk.accuracy_score(truth, predicted), "f1_micro": prf(truth, predicted, "micro")[2]}
    figures["precision_macro"], figures["recall_macro"], figures["f1_macro"] = prf(truth, predicted, "macro")
    return figures


def classes():
    rng, cases, theirs = random.Random(1), [], []
    for i in range(200):
        labels = rng.choice([1, 2, 2, 2, 3, 5, 20, 150, 3000])
        n = rng.choice([1, 2, 3, 10, 60, 300])
        used = rng.sample(range(labels), rng.randint(1, labels))  # some classes never occur
        truth = [rng.choice(used) for _ in range(n)]
        right = rng.choice([0.0, 0.3, 0.8, 1.0])
        predicted = [t if rng.random() < right else rng.randrange(labels) for t in truth]
        if i % 10 == 0:
            predicted = [predicted[0]] * n
        rows = [[t, p] for t, p in zip(truth, predicted)]
        if i % 7 == 0:
            rows.insert(rng.randint(0, n), [-100, rng.randrange(labels)])  # without a label
        cases.append({"task": "sequence_classification", "labels": labels, "rows": rows})
        figures = sk_figures(truth, predicted)
        figures["matthews_correlation"] = sk.matthews_corrcoef(truth, predicted)
        theirs.append(figures)
    compare("classes", cases, dump(cases), theirs)


def several():
    rng, cases, theirs = np.random.default_rng(2), [], []
    for i in range(120):
        labels, n = int(rng.choice([2, 3, 6, 28, 100])), int(rng.choice([1, 2, 7, 50]))
        targets = (rng.random((n, labels)) < rng.choice([0.0, 0.05, 0.4, 1.0])).astype(int)
        logits = np.where(rng.random((n, labels)) < rng.choice([0.5, 0.9, 1.0]), 2 * targets - 1, rng.integers(-1, 2, (n, labels)))
        logits = np.float32(logits * rng.random((n, labels)))
        predicted = (logits > 0).astype(int)
        cases.append({"task": "sequence_classification", "problem": 1, "labels": labels,
                      "rows": [[t.tolist(), p.tolist()] for t, p in zip(targets, logits)]})
        figures = sk_figures(targets, predicted)
        figures["precision_micro"], figures["recall_micro"], _ = prf(targets, predicted, "micro")
        theirs.append(figures)
    compare("several labels", cases, dump(cases), theirs)


def correlation(function, truth, predicted):
    """The mean over columns; of one row there is none."""
    if len(truth) < 2:
        return None
    return float(np.mean([function(predicted[:, c], truth[:, c]).statistic for c in range(truth.shape[1])]))


def numbers():
    rng, cases, theirs = np.random.default_rng(3), [], []
    for i in range(240):
        n, columns = int(rng.choice([1, 2, 3, 9, 100, 1000])), int(rng.choice([1, 1, 1, 2, 5]))
        truth = rng.normal(size=(n, columns)) * rng.choice([1e-3, 1, 1e3]) + rng.choice([0, 0, 100])
        predicted = truth + rng.normal(size=(n, columns)) * rng.choice([0.01, 1, 100])
        if i % 3 == 0:  # ties
            truth, predicted = np.round(truth), np.round(predicted)
        if i % 11 == 0:
            predicted[:, int(rng.integers(columns))] = 1.5
        if i % 13 == 0:
            truth[:, 0] = 0
        if i % 50 == 0:
            predicted[0, 0] = np.nan
        truth, predicted = np.float32(truth).astype(np.float64), np.float32(predicted).astype(np.float64)
        missing = np.isnan(predicted).any()
        cases.append({"task": "sequence_classification", "problem": 2, "labels": columns,
                      "rows": [[t.tolist(), [None if math.isnan(x) else x for x in p]] for t, p in zip(truth, predicted)]})
        theirs.append({"mse": None if missing else sk.mean_squared_error(truth, predicted),
                       "mae": None if missing else sk.mean_absolute_error(truth, predicted),
                       "pearson": correlation(scipy.stats.pearsonr, truth, predicted),
                       "spearman": correlation(scipy.stats.spearmanr, truth, predicted)})
    compare("numbers", cases, dump(cases), theirs)


def entities():
    rng, cases, theirs = random.Random(4), [], []
    sets = [["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], ["B", "I", "O"], ["O", "I-A", "B-A"], ["B-X-Y", "I-X-Y", "I-X", "B-X", "O"],
            ["O"] + [t + "-" + k for k in ("a", "b", "c") for t in "BIES"]]
    for i in range(200):
        names = sets[i % len(sets)]
        truth = [[rng.randrange(len(names)) for _ in range(rng.choice([1, 2, 5, 30]))] for _ in range(rng.choice([1, 2, 10]))]
        right = rng.choice([0.2, 0.9, 1.0])
        predicted = [[t if rng.random() < right else rng.randrange(len(names)) for t in row] for row in truth]
        if i % 9 == 0:
            predicted = [[names.index("O")] * len(row) for row in truth]
        if i % 18 == 0:
            truth = predicted
        cases.append({"task": "token_classification", "labels": len(names), "names": names, "rows": list(zip(truth, predicted))})
        flat = [x for row in truth for x in row], [x for row in predicted for x in row]
        tags = [[[names[x] for x in row] for row in side] for side in (truth, predicted)]
        figures = sk_figures(*flat)
        figures["matthews_correlation"] = sk.matthews_corrcoef(*flat)
        figures["entity_precision"] = seqeval.metrics.precision_score(*tags)
        figures["entity_recall"] = seqeval.metrics.recall_score(*tags)
        figures["entity_f1"] = seqeval.metrics.f1_score(*tags)
        theirs.append(figures)
        if abs(seqeval.metrics.accuracy_score(*tags) - figures["accuracy"]) > 1e-12:
            raise RuntimeError("the peers differ")
    compare("tokens", cases, dump(cases), theirs)


WORDS = ["the", "The", "THE", "a", "A", "an", "An", "cat", "Cat", "cats", "1,000", "1000", "U.S.", "us", "it's", "-", "--",
         "–", "€5", "x_y", "(a)", "a-b", "É", "é", "a\u0301", "STRASSE", "Straße", "İzmir", "ΣΑΣ", "σας", "Σ",
         "ΟΔΟΣ.", "ΟΔΟΣ'Α", "ǅ", "²", "a²", "½", "Ⅷ", "北京", "the\u3000", "\u00a0", "\x1c", "\u2028",
         "“the”", "‘a’", "’", "«an»", "🤗", "Ⓐ", "thé", "theatre", "an\u200bt", "\t", "\n", ".", "!?", ""]


def phrase(rng):
    return rng.choice([" ", " ", "", "  "]).join(rng.choice(WORDS) for _ in range(rng.choice([0, 1, 1, 2, 3, 6])))


def version_1(prediction, truth):
    """The first SQuAD's script, which has no rule for texts without words."""
    ours, theirs = (collections.Counter(squad.normalize_answer(x).split()) for x in (prediction, truth))
    common = sum((ours & theirs).values())
    precision, recall = (common / max(sum(x.values()), 1) for x in (ours, theirs))
    return squad.compute_exact(truth, prediction), 2 * precision * recall / (precision + recall) if common else 0.0


def version_2(prediction, answers):
    answers = [x for x in answers if squad.normalize_answer(x)] or [""]
    return max(squad.compute_exact(x, prediction) for x in answers), max(squad.compute_f1(x, prediction) for x in answers)


def match(prediction, answers, nulls):
    if nulls:
        return version_2(prediction, answers)
    scores = [version_1(prediction, x) for x in answers] or [(0, 0)]
    return max(s[0] for s in scores), max(s[1] for s in scores)


def words():
    rng, cases = random.Random(5), []
    for i in range(3000):
        text = phrase(rng)
        answers = [phrase(rng) if rng.random() < 0.5 else text + rng.choice(["", " ", ".", " the", " cat"])
                   for _ in range(rng.randint(0, 3))]
        cases.append({"text": text, "answers": answers, "nulls": i % 2 == 0})
    ours = dump(cases)
    bad = [(c["text"], o[0]) for c, o in zip(cases, ours) if o[0] != squad.normalize_answer(c["text"])]
    check("words: the text that is compared", not bad, "%r" % (bad[0],) if bad else "%d texts" % len(cases))
    for nulls in (False, True):
        theirs = [match(c["text"], c["answers"], nulls) for c in cases]
        for k, key in enumerate(("exact match", "F1")):
            bad = [(c, o, t) for c, o, t in zip(cases, ours, theirs) if c["nulls"] == nulls and abs(o[1 + k] - t[k]) > 1e-12]
            figures = {t[k] for c, t in zip(cases, theirs) if c["nulls"] == nulls}
            check("words: %s, %s" % (key, "SQuAD 2" if nulls else "SQuAD 1"), not bad,
                  "%.300s" % (bad[0],) if bad else "%d different values" % len(figures))


def find_answer(question, nulls):
    """run_qa's rule in full: all spans of the best 20 starts and ends, sorted, none among them."""
    spans, none, zero = [], None, np.float32(0)
    for w in question["windows"]:
        logits = np.asarray(w["logits"], np.float32).reshape(-1, 2)
        offsets = np.asarray(w["offsets"]).reshape(-1, 2)
        at_first = logits[0, 0] + logits[0, 1]
        none = at_first if none is None or at_first < none else none
        best = [sorted(range(len(logits)), key=lambda t: (-logits[t, c], t))[:20] for c in (0, 1)]
        for s in best[0]:
            for e in best[1]:
                if s <= e < s + 30 and offsets[s, 0] >= 0 and offsets[e, 0] >= 0:
                    text = question["context"].encode()[offsets[s, 0]:offsets[e, 1]].decode()
                    spans.append((logits[s, 0] + logits[e, 1], text, logits[s, 0], logits[e, 1]))
    if nulls:
        spans.append((none, "", zero, zero))
    spans = sorted(spans, key=lambda x: -x[0])[:20]
    if not nulls:
        return spans[0][1] if spans else ""
    best = next((x for x in spans if x[1] != ""), None)
    return "" if best is None or none - best[2] - best[3] > 0 else best[1]


def make_question(rng, nulls):
    context = " ".join(rng.choice(WORDS).strip() or "x" for _ in range(rng.randint(1, 80)))
    places = []
    for m in re.finditer(r"\S+", context):
        places.append([len(context[:m.start()].encode()), len(context[:m.end()].encode())])
    windows, first, size = [], 0, rng.choice([5, 40, 100])
    while True:
        before = rng.randint(1, 6)
        part = places[first:first + size]
        offsets = [[-1, -1]] * before + part + [[-1, -1]]
        logits = [[round(rng.gauss(0, 3), rng.choice([0, 3])) for _ in range(2)] for _ in offsets]
        if rng.random() < 0.7:
            logits[0] = [rng.uniform(3, 14), rng.uniform(3, 14)]
        if rng.random() < 0.5:
            s = rng.randrange(before, before + len(part))
            e = min(s + rng.choice([0, 1, 2, 28, 29, 30]), before + len(part) - 1)
            logits[s][0] += 9
            logits[e][1] += 9
        windows.append({"offsets": [x for o in offsets for x in o], "logits": [float(np.float32(x)) for l in logits for x in l]})
        if first + size >= len(places):
            break
        first += max(size // 2, 1)
    answers = []
    for _ in range(rng.randint(0 if nulls else 1, 3)):
        i = rng.randrange(len(places))
        k = min(i + rng.choice([0, 0, 1, 3]), len(places) - 1)
        answers.append(context.encode()[places[i][0]:places[k][1]].decode())
    return {"context": context, "answers": answers, "windows": windows}


def answers():
    rng, cases = random.Random(6), []
    for i in range(30):
        nulls = i % 2 == 1
        questions = [make_question(rng, nulls) for _ in range(20)]
        if nulls:
            questions[rng.randrange(20)]["answers"] = []
        for q in questions:  # half of them have the answer that is found
            text = find_answer(q, nulls)
            if rng.random() < 0.5 and q["answers"] and text:
                q["answers"].append(text + rng.choice(["", ".", " cat"]))
        cases.append({"questions": questions})
    ours = dump(cases)
    theirs, bad, texts = [], [], 0
    for i, (c, o) in enumerate(zip(cases, ours)):
        found = [find_answer(q, i % 2 == 1) for q in c["questions"]]
        bad += [(a, b) for a, b in zip(o["texts"], found) if a != b]
        texts += sum(x != "" for x in found)
        scores = [match(x, q["answers"], i % 2 == 1) for x, q in zip(found, c["questions"])]
        theirs.append({"exact_match": float(np.mean([s[0] for s in scores])), "f1": float(np.mean([s[1] for s in scores]))})
    check("answers: the texts", not bad, "%r" % (bad[0],) if bad else "%d questions, %d with an answer" % (30 * 20, texts))
    compare("answers", cases, ours, theirs)


def vectors():
    rng, cases, theirs = np.random.default_rng(7), [], []
    for n in (1, 2, 3, 64, 768, 4096):
        for _ in range(20):
            a, b = np.float32(rng.normal(size=(2, n)) * rng.choice([1e-4, 1, 1e4]))
            cases.append({"cosine": [a.tolist(), b.tolist()]})
            theirs.append(float(sk.pairwise.cosine_similarity(a[None].astype(np.float64), b[None].astype(np.float64))[0, 0]))
    ours = dump(cases)
    check("cosines", max(abs(a - b) for a, b in zip(ours, theirs)) < 1e-12, "%d pairs" % len(cases))
    lists = [np.round(rng.normal(size=int(rng.integers(1, 9))), 1).tolist() for _ in range(200)]
    equal("candidates", dump([{"candidates": x} for x in lists]), [int(np.argmax(x)) for x in lists])
    cosines = np.float32(ours).astype(np.float64)
    stars = np.float32(np.round(cosines * 3 + rng.normal(size=len(cosines)))).astype(np.float64)
    case = {"task": "embedding", "labels": 0, "rows": np.stack([stars, cosines], 1).tolist()}
    compare("pairs of sentences", [case], dump([case]), [{"spearman": scipy.stats.spearmanr(cosines, stars).statistic,
                                                          "pearson": scipy.stats.pearsonr(cosines, stars).statistic}])


main(classes, several, numbers, entities, words, answers, vectors)
