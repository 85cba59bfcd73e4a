"""What test_tokenizers.py and test_subwords.py share: the tokenizer under test as a process, texts, counting.

sys.argv[1] is the tok_dump binary; PEFT_TESTDATA has models/ and data/.
"""
import glob
import json
import os
import random
import subprocess
import sys

DUMP = sys.argv[1]
DATA = os.environ["PEFT_TESTDATA"]
MODELS = os.path.join(DATA, "models")
TOKENIZERS = os.path.join(MODELS, "tokenizers")
passed = failed = 0


def run(*args, lines=None):
    text = None if lines is None else "".join(json.dumps(x) + "\n" for x in lines)
    done = subprocess.run([DUMP, *map(str, args)], input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return done.stdout


def encode(path, texts, flags=0):
    return [json.loads(line) for line in run("ids", path, flags, lines=texts).rstrip("\n").split("\n")]


def decode(path, ids, flags=0):
    return [json.loads(line) for line in run("text", path, flags, lines=ids).rstrip("\n").split("\n")]


def report(name, good, total, examples=()):
    global passed, failed
    print("%-6s %-58s %6d of %6d" % ("ok" if good == total else "FAIL", name, good, total), flush=True)
    for e in list(examples)[:3]:
        print("    " + str(e)[:400])
    passed += good == total
    failed += good != total


def missing(error):
    report("missing: %s" % error, 0, 1)


def compare(name, texts, ours, theirs):
    bad = [(t, a, b) for t, a, b in zip(texts, ours, theirs) if a != b]
    report(name, len(texts) - len(bad), len(texts), bad)


def strings(node):
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for v in node.values():
            yield from strings(v)
    elif isinstance(node, list):
        for v in node:
            yield from strings(v)


def lines_of_sets(most):
    """At most `most` texts of every set, spread over its files: fields of records, lines of plain text."""
    lines = []
    for folder in sorted(glob.glob(os.path.join(DATA, "data", "*", ""))):
        mine = []
        for path in sorted(glob.glob(os.path.join(folder, "*.*"))):
            if path.endswith(".jsonl"):
                for row in open(path, encoding="utf-8"):
                    mine += [s for s in strings(json.loads(row)) if s]
            elif path.endswith(".txt"):
                mine += [s + "\n" for s in open(path, encoding="utf-8").read().split("\n") if s]
        step = max(1, len(mine) // most)
        lines += mine[::step][:most]
    return lines


def data_lines():
    """Lines of every set: 50 of each of its files, from both ends; of a file that is one text its beginning."""
    lines = []
    for path in sorted(glob.glob(os.path.join(DATA, "data", "*", "*.*"))):
        if path.endswith(".jsonl"):
            rows = open(path, encoding="utf-8").read().rstrip("\n").split("\n")
            for row in rows[:25] + rows[25:][-25:]:
                lines += [s for s in strings(json.loads(row)) if s]
        elif path.endswith(".txt"):
            rows = open(path, encoding="utf-8").read().split("\n\n")
            lines += rows[:25] + rows[25:][-25:]
    return [s[:20000] for s in lines]


def noise(count, seed):
    """Texts of characters that the splitting rules tell apart, glued at random."""
    rng = random.Random(seed)
    parts = ["'s", "'S", "'re", "'LL", "’s", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "a", "Zürich", "É", "e\u0301",
             "word", " word", "1", "23", "4567", "½", "²", "٣", "一二", "日本語", "ไทย", "हिन्दी", "한글", "🦙", "👩‍👩‍👧", "...", "--", "!?",
             "$", "+=", "`", "_", "\u0000", "\x1c", "\x85", "\u200b", "\ufeff", "<|x|>", "<", "ſ", "'ſ", "ŉ", "ǅ", "Ⅷ", "\u2028"]
    return ["".join(rng.choice(parts) for _ in range(rng.randint(1, 14))) for _ in range(count)]


def finish():
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(failed != 0)
