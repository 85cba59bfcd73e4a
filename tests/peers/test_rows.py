#!/usr/bin/env python3
"""Compares rows of every task with what transformers makes of the same fields: ids, token types, labels of words, places of
answers and their windows, masks, encoder's and decoder's tokens, truncation from both ends.

Usage: test_rows.py <rows_dump binary>
Needs PEFT_TESTDATA (models/ and data/). A missing Python package is a failure.
"""
import json
import os
import random
import re
import shutil
import sys
import tempfile

import transformers

from toklib import DATA, TOKENIZERS, compare, finish, report, run


def load(name, part="dev", most=400):
    path = os.path.join(DATA, "data", name, part + ".jsonl")
    return [json.loads(line) for line in open(path, encoding="utf-8")][:most]


def rows_of(path, rows, **options):
    """What our reader makes of them, as one set."""
    return json.loads(run(path, *("%s=%s" % (k, v) for k, v in options.items()), lines=rows))


def tokenizers(tmp):
    """name -> (path of ours, fast tokenizer of transformers)"""
    found = {}
    source = os.path.join(TOKENIZERS, "bert-uncased")
    bert = os.path.join(tmp, "bert")
    os.makedirs(bert)
    shutil.copy(os.path.join(source, "vocab.txt"), bert)
    found["bert"] = bert, transformers.BertTokenizerFast(os.path.join(source, "vocab.txt"))
    model = os.path.join(TOKENIZERS, "spm-unigram-test", "test_model.model")
    t5 = transformers.T5TokenizerFast(vocab_file=model, extra_ids=10, add_prefix_space=True)
    t5.save_pretrained(os.path.join(tmp, "t5"))
    found["t5"] = os.path.join(tmp, "t5"), t5
    source = os.path.join(TOKENIZERS, "gpt2")
    gpt2 = transformers.GPT2TokenizerFast(os.path.join(source, "vocab.json"), os.path.join(source, "merges.txt"))
    gpt2.save_pretrained(os.path.join(tmp, "gpt2"))
    found["gpt2"] = os.path.join(tmp, "gpt2"), gpt2
    return found


def cut(fast, side):
    fast.truncation_side = side
    return fast


# ---- texts and pairs -------------------------------------------------------------------------------------------------


def sequence(name, path, fast):
    news = load("ag-news")
    singles = [{"text": r["title"], "label": r["topic"]} for r in news]
    pairs = [{"text": r["title"], "text_pair": r["description"], "label": r["topic"]} for r in news]
    names = list(dict.fromkeys(r["topic"] for r in news))
    for what, rows in (("texts", singles), ("pairs", pairs)):
        for most in (1024, 48, 11):
            for side in ("right", "left"):
                ours = rows_of(path, rows, max_length=most, truncation=side)
                theirs = [cut(fast, side)(r["text"], r.get("text_pair"), truncation=True, max_length=most).encodings[0] for r in rows]
                compare("%s: %s, at most %d from the %s" % (name, what, most, side), rows,
                        [[r["ids"], r["types"]] for r in ours["rows"]], [[e.ids, e.type_ids] for e in theirs])
    cut(fast, "right")
    compare(name + ": names of classes", names, ours["names"], names)
    compare(name + ": classes", rows, [r["label"] for r in ours["rows"]], [names.index(r["topic"]) for r in news])


def words(name, path, fast, tmp):
    rng = random.Random(5)
    if name == "gpt2":
        fast = transformers.GPT2TokenizerFast.from_pretrained(path, add_prefix_space=True)
    rows = []
    for r in load("pubmed-roles") + load("sib200"):
        tokens = re.findall(r"\w+|[^\w\s]", r["text"])
        rows.append({"tokens": tokens, "ner_tags": [rng.randint(0, 8) for _ in tokens]})
    for most in (1024, 20):
        ours = rows_of(path, rows, max_length=most)["rows"]
        theirs = []
        for r in rows:
            e = fast(r["tokens"], is_split_into_words=True, truncation=True, max_length=most)
            labels, before = [], None
            for word in e.word_ids():
                labels.append(-100 if word is None or word == before else r["ner_tags"][word])
                before = word
            theirs.append([e["input_ids"], labels])
        compare("%s: words, at most %d" % (name, most), rows, [[r["ids"], r["labels"]] for r in ours], theirs)
    tags = ["O", "B-X", "I-X"]
    named = [{"tokens": r["tokens"], "labels": [tags[k % 3] for k in r["ner_tags"]]} for r in rows]
    ours = rows_of(path, named)
    expected = [[-100 if k < 0 else tags[k % 3] for k in r["labels"]] for r in rows_of(path, rows)["rows"]]
    compare(name + ": words with names", named, [[-100 if k < 0 else ours["names"][k] for k in r["labels"]] for r in ours["rows"]], expected)


# ---- questions -------------------------------------------------------------------------------------------------------


def questions():
    """Answers that are stretches of words, some missing, some given without their place."""
    rng, rows = random.Random(6), []
    for r in load("pubmedqa", most=150):
        context = r["context"] if rng.random() < 0.7 else r["context"].replace(" a ", " ä ").replace("the", "日本 😀 the")
        spots = [m.span() for m in re.finditer(r"\S+", context)]
        first = rng.randrange(len(spots))
        last = min(first + rng.randint(0, 6), len(spots) - 1)
        start, end = spots[first][0], spots[last][1]
        text, kind = context[start:end], rng.randrange(4)
        answers = {"text": [text], "answer_start": [start]}
        if kind == 1:
            answers = {"text": [], "answer_start": []}
        elif kind == 2:
            answers, start = [text], context.index(text)
        elif kind == 3:
            answers = [{"text": text, "answer_start": start}, {"text": context[:4], "answer_start": 0}]
        rows.append(({"id": r["id"], "question": r["question"], "context": context, "answers": answers},
                     None if kind == 1 else (start, start + len(text))))
    return rows


def place(e, span):
    """First and last token of the answer in a window, as in Hugging Face's course."""
    sequence = e.sequence_ids
    inside = [i for i, s in enumerate(sequence) if s == 1]
    if span is None or not inside:
        return [0, 0]
    first, last = inside[0], inside[-1]
    if e.offsets[first][0] > span[0] or e.offsets[last][1] < span[1]:
        return [0, 0]
    i = first
    while i <= last and e.offsets[i][0] <= span[0]:
        i += 1
    k = last
    while k >= first and e.offsets[k][1] >= span[1]:
        k -= 1
    return [min(i - 1, k + 1), max(i - 1, k + 1)]


def spans(name, path, fast, most=128, stride=32):
    asked = questions()
    ours = rows_of(path, [q for q, _ in asked], max_length=most, doc_stride=stride)["rows"]
    theirs, keys = [], []
    for n, (q, span) in enumerate(asked):
        byte = [len(q["context"][:i].encode()) for i in range(len(q["context"]) + 1)]
        e = fast(q["question"], q["context"], truncation="only_second", max_length=most, stride=stride,
                 return_overflowing_tokens=True, return_offsets_mapping=True)
        for w, x in enumerate(e.encodings):
            offsets = [[byte[o[0]], byte[o[1]]] if s == 1 else [-1, -1] for o, s in zip(x.offsets, x.sequence_ids)]
            theirs.append({"ids": x.ids, "example": n, "types": x.type_ids, "offsets": offsets, "span": place(x, span)})
            keys.append((n, w))
    report("%s: questions become rows" % name, int(len(ours) == len(theirs)), 1, [(len(ours), len(theirs))])
    for row in ours:
        row["offsets"] = [row["offsets"][i:i + 2] for i in range(0, len(row["offsets"]), 2)]
    if name != "bert":
        # In later windows Hugging Face leaves the context its type 1, whatever the template says, and its first token the space
        # before it: types and where tokens begin are compared in first windows only.
        for side in (ours, theirs):
            for row, (_, w) in zip(side, keys):
                if w > 0:
                    row["types"], row["offsets"] = [], [o[1] for o in row["offsets"]]
    for key in ("ids", "example", "types", "offsets", "span"):
        compare("%s: questions, %s" % (name, key), keys, [r[key] for r in ours], [r[key] for r in theirs])


# ---- masked models, embeddings, encoder-decoders, verbalizers ------------------------------------------------------------


def masked(name, path, fast):
    rows = [{"text": r["text"]} for r in load("sib200")]
    ours = rows_of(path, rows, task="masked_lm", max_length=24)["rows"]
    theirs = []
    for r in rows:
        e = fast(r["text"], truncation=True, max_length=24, return_special_tokens_mask=True)
        theirs.append([e["input_ids"], [-100 if s else i for i, s in zip(e["input_ids"], e["special_tokens_mask"])]])
    compare(name + ": masked_lm", rows, [[r["ids"], r["labels"]] for r in ours], theirs)


def embedding(name, path, fast):
    news = load("ag-news")
    rows = [{"anchor": a["title"], "positive": a["description"], "negative": b["title"]} for a, b in zip(news, news[1:])]
    ours = rows_of(path, rows, max_length=16)["rows"]
    theirs = []
    for r in rows:
        parts = [fast(r[k], truncation=True, max_length=16)["input_ids"] for k in ("anchor", "positive", "negative")]
        theirs.append([sum(parts, []), [len(parts[0]), len(parts[1])]])
    compare(name + ": embedding", rows, [[r["ids"], r["part"]] for r in ours], theirs)


def seq2seq(name, path, fast):
    rows = [{"source": r["source"], "target": r["targets"][0]} for r in load("scitldr")]
    rows.append({"source": "a <extra_id_0> b", "target": "<extra_id_0> c <extra_id_1>"})
    for side in ("right", "left"):
        ours = rows_of(path, rows, task="seq2seq_lm", max_length=16, max_source_length=64, truncation=side)["rows"]
        cut(fast, side)
        theirs = [[fast(r["source"], truncation=True, max_length=64)["input_ids"],
                   fast(text_target=r["target"], truncation=True, max_length=16)["input_ids"]] for r in rows]
        compare("%s: seq2seq_lm from the %s" % (name, side), rows, [[r["source"], r["labels"]] for r in ours], theirs)
    templates = rows_of(path, [{"d": "x", "s": ["y"]}], task="seq2seq_lm", prompt_template="summarize: {d}", completion_template="{s.0}")
    compare(name + ": seq2seq_lm with templates", [0], [[templates["rows"][0]["source"], templates["rows"][0]["ids"]]],
            [[fast("summarize: x")["input_ids"], fast("y")["input_ids"]]])
    cut(fast, "right")


def verbalized(name, path, fast):
    says = {"positive": " really good", "negative": " bad"}
    rows = [{"text": r["text"], "label": list(says)[i % 2]} for i, r in enumerate(load("review-sentiment"))]
    ours = rows_of(path, rows, verbalizer='positive=" really good",negative=" bad"', prompt_template="{text}\\nIt was")
    answers = [fast(s)["input_ids"] for s in says.values()]
    prompts = [fast(r["text"] + "\nIt was")["input_ids"] for r in rows]
    right = [list(says).index(r["label"]) for r in rows]
    compare(name + ": verbalizer", rows, [[r["ids"], r["labels"], r["label"]] for r in ours["rows"]],
            [[p + answers[k], [-100] * len(p) + answers[k], k] for p, k in zip(prompts, right)])
    compare(name + ": candidates", [(r, k) for r in rows for k in range(2)],
            [[r["ids"], r["labels"], r["label"]] for r in ours["candidates"]],
            [[p + a, [-100] * len(p) + a, k] for p, k in zip(prompts, right) for a in answers])


def main():
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as tmp:
        found = tokenizers(tmp)
        for name, (path, fast) in found.items():
            sequence(name, path, fast)
            words(name, path, fast, tmp)
            spans(name, path, fast)
            embedding(name, path, fast)
        masked("bert", *found["bert"])
        seq2seq("t5", *found["t5"])
        verbalized("gpt2", *found["gpt2"])
    finish()


if __name__ == "__main__":
    sys.exit(main())
