"""What tests/cases/run.sh asks of Python; exit code 1 and a last line that says why.

    check.py rows CASE FILE.json PAGE.md    the case's rows are all there, with finite numbers, and its page has a place for each table
    check.py kit                            means, deviations, cells and the page of examples/cases/kit.py
"""
import json
import math
import os
import re
import sys
import tempfile
from types import SimpleNamespace

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "examples", "cases"))
# By case and table: names of the rows, and the numbers that each must have.
ROWS = {
    "medical": {
        "roles": (["the commonest label", "head only", "bottleneck (Pfeiffer)", "BitFit, pooler trained", "LoRA r 8, pooler frozen",
                   "LoRA r 8, pooler trained", "full fine-tuning"], ["accuracy", "f1", "trainable", "bytes"]),
        "abstracts": (["the commonest label", "head only", "LoRA r 8, pooler trained", "full fine-tuning"], ["accuracy", "f1"]),
        "words": (["SmolLM2, as it is", "SmolLM2, LoRA r 8"], ["loss", "accuracy", "f1", "bytes"]),
    },
    "markets": {
        "markets": (["Pfeiffer, together", "Pfeiffer, one by one", "Pfeiffer, pooler trained, together", "Houlsby, together", "Compacter, together",
                     "LoRA, pooler trained, together", "one model, fully fine-tuned"],
                    ["app", "clothing", "sentiment", "trainable", "bytes", "peak_mib", "seconds"]),
        "new": (["the adapter of the English reviews, as it is", "the adapter of the English reviews, trained on",
                 "Pfeiffer, from nothing", "fusion of the three", "fusion of the three, on sentiment and its 400 rows"],
                ["accuracy", "trainable"]),
        "untouched": (["a market is added", "a market is taken away"], ["others", "files", "answers"]),
        "languages": (["adapter of English", "adapter of German", "adapter of French", "adapter of Spanish"], ["en", "de", "fr", "es"]),
    },
    "news": {
        "summaries": (["the abstract's first sentence", "SmolLM2, as it is", "prompt 20", "prefix 20", "LoRA r 16"],
                      ["rouge1", "rouge2", "rougeL", "in_format", "words", "trainable", "bytes"]),
    },
    "conversation": {
        "replies": (["SmolLM2, as it is", "prompt 20, N(0, 1)", "prompt 20", "P-tuning 20", "LoRA r 8"],
                    ["loss", "bleu", "missed", "values_missed", "trainable", "bytes"]),
        "intents": (["nearest mean vector, nothing trained", "head only", "prompt 10", "P-tuning 10", "P-tuning v2 10, pooler trained",
                     "LoRA r 8, pooler trained"], ["accuracy", "trainable", "bytes"]),
    },
}


def need(good, why):
    if not good:
        print(why)
        sys.exit(1)


def rows(case, file, page):
    with open(file, encoding="utf-8") as f:
        found = json.load(f)
    need(found["case"] == case and found["quick"] is True, "the file says %s, quick %s" % (found["case"], found["quick"]))
    by_name = {(row["table"], row["method"]): row for row in found["rows"]}
    for key, row in by_name.items():
        for name, value in row.items():
            need(value is None or isinstance(value, str) or math.isfinite(value), "%s: %s is %s" % (key, name, value))
    for table, (names, numbers) in ROWS.get(case, {}).items():
        have = [method for t, method in by_name if t == table]
        need(sorted(have) == sorted(names), "table %s has %s, expected %s" % (table, have, names))
        for name in names:
            row = by_name[table, name]
            for number in numbers:
                need(isinstance(row.get(number), (int, float)), "%s, %s has no number %s" % (table, name, number))
    need(by_name, "there are no rows")
    with open(page, encoding="utf-8") as f:
        places = re.findall(r"<!-- table: (.*?) -->", f.read())
    for table in {table for table, _ in by_name}:
        need(places.count(table) == 1, "%s has %d places for the table %s" % (page, places.count(table), table))
    if case == "markets":
        for name in ("a market is added", "a market is taken away"):
            row = by_name["untouched", name]
            need(row["files"] == row["others"] == row["answers"], "%s: of %s other markets %s files and %s answers are the same" % (
                name, row["others"], row["files"], row["answers"]))


def kit():
    import kit as shared

    with tempfile.TemporaryDirectory() as top:
        page, out = os.path.join(top, "page.md"), os.path.join(top, "out.json")
        with open(page, "w", encoding="utf-8") as f:
            f.write("# Case\n<!-- table: one -->\nold\n<!-- end -->\nbetween\n<!-- table: two -->\n<!-- end -->\nend\n")
        args = SimpleNamespace(only=[], quick=False, out=out, page=page, case="test", threads=1, seeds=[1, 2], on="test")
        report = shared.Report(args)
        report.add("one", "a", [{"accuracy": 0.5, "seconds": 10, "bytes": 1500000}, {"accuracy": 0.6, "seconds": 20, "bytes": 1500000}])
        report.add("one", "b", {"accuracy": 0.25, "seconds": None, "bytes": 2048})
        report.table("one", [("accuracy", "accuracy", shared.percent), ("s", "seconds", shared.whole), ("files", "bytes", shared.size)])
        report.text("two", ["a text"])
        report.write()
        table = "| | accuracy | s | files |\n|---|---|---|---|\n| a | 55.0 ± 7.1 | 15 | 1.4 MiB |\n| b | 25.0 | - | 2 KiB |"
        with open(page, encoding="utf-8") as f:
            now = f.read()
        need(now == "# Case\n<!-- table: one -->\n%s\n<!-- end -->\nbetween\n<!-- table: two -->\na text\n<!-- end -->\nend\n" % table,
             "the page became %r" % now)
        with open(out, encoding="utf-8") as f:
            written = json.load(f)["rows"]
        need(written[0]["accuracy"] == 0.55 and written[0]["runs"] == 2, "the first row became %s" % written[0])
        report.text("three", ["no place"])
        try:
            report.write()
        except SystemExit as error:
            need(error.code == 1, "a table without a place ends with %s" % error.code)
        else:
            need(False, "a table without a place was accepted")
    need([shared.amount(n) for n in (5, 1925, 22715141)] == ["5", "1.93 k", "22.7 M"], "amounts are written wrong")
    need(shared.quoted("a|b\n c" + "x" * 200, 10) == "a\\|b cxxxx…", "cells are %r" % shared.quoted("a|b\n c" + "x" * 200, 10))


if __name__ == "__main__":
    {"rows": rows, "kit": kit}[sys.argv[1]](*sys.argv[2:])
