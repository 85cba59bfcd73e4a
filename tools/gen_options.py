#!/usr/bin/env python3
"""Makes docs/options.md from what `peft options --json` says.

    gen_options.py [--check] [PEFT]

PEFT is the tool, build/peft by default. With --check nothing is written; the exit code is 1 where the page is
out of date, or where a method has no row in docs/methods/README.md.
"""
import difflib
import json
import os
import re
import subprocess
import sys

DOCS = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "docs")
PAGE = os.path.join(DOCS, "options.md")
METHODS = os.path.join(DOCS, "methods", "README.md")  # its table has a row for each method, with a link to its page
# One sentence a schema: who takes it. A schema without one is listed all the same.
TAKEN_BY = {
    "trainer": "`peft_trainer_create`; `peft train`, `peft plan`.",
    "dataset": "`peft_dataset_create`; `peft train`, `plan`, `eval`. See [data](data.md).",
    "optimizer": "`peft_trainer_add_job`; `peft train`, `peft plan`.",
    "model": "`peft_model_open`; every command with `--model`. See [models](models.md).",
    "session": "`peft_session_create`; `peft eval`, `peft generate`.",
    "generate": "`peft_session_generate`, `peft_session_generate_text`; `peft generate`.",
    "save": "`peft_adapters_save`; `peft train`, `convert`, `combine`. See [files](files.md).",
    "merge": "`peft_adapters_merge`; `peft merge`. See [files](files.md).",
    "combine": "`peft_adapters_combine`; `peft combine`. See [combining](combine.md).",
    "load": "`peft_adapters_load`; `peft convert`, `peft combine`. Elsewhere the tool has the default.",
}
HEAD = """# Options

<!-- Written by tools/gen_options.py from `peft options --json`: change the tables in lib/, then run it again. -->

An option is a key and a value, checked against one schema. The tool takes them as `--set KEY=VALUE` and finds the schema
by the key; a key that several schemas of a command have, such as `max_length` and `seed`, is set in all of them. In C,
`peft_options_create(ctx, SCHEMA, &options)` makes a set of one schema, and `peft_options_set_int`, `_float`, `_bool`, `_str`,
`_text` and `_json` fill it. Keys are those of Hugging Face where it has them.

| Type | As text (`--set`, `peft_options_set_text`) | As JSON |
|---|---|---|
| int, float | `16`, `2e-4` | number |
| bool | `true`, `false`, `yes`, `no`, `on`, `off`, `1`, `0` | `true`, `false` |
| str | as it is | text |
| size | bytes, or with a unit: `512MiB`, `2GB`, `1.5g` (a bare letter is binary) | number of bytes, or text |
| list | `q_proj,v_proj`, a JSON array, or a pattern (anything with one of `\\^$*+?()[]{}\\|`) | array, or text |
| map | a JSON object: `{"q_proj": 16}` | object |

An unknown key and a value out of range are errors that name the nearest key or the range. `peft options` prints these
tables, `peft options trainer` one of them, `--json` the same for programs (`peft_schema_json` in C).
"""


def cell(text):
    return text.replace("|", "\\|").replace("\n", "\\n")


def number(value):
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        value = int(value)
    return "%g" % value if isinstance(value, float) else str(value)


def default(row):
    value = row["default"]
    if value is None or value == "" or value == {} or value == []:
        return "unset"
    if isinstance(value, bool):
        return "`%s`" % str(value).lower()
    if isinstance(value, (int, float)):
        return "`%s`" % number(value)
    return "`%s`" % (value if isinstance(value, str) else json.dumps(value))


def limits(row):
    if row["choices"]:
        return ", ".join("`%s`" % c for c in row["choices"])
    low, high = row["min"], row["max"]
    if low is None and high is None:
        return ""
    if high is None or high >= 1e9:
        return "%s or more" % number(low)
    return "%s to %s" % (number(low), number(high)) if low is not None else "at most %s" % number(high)


def method_page(method):
    """The page that the table of methods names for this one; None without a row."""
    with open(METHODS, encoding="utf-8") as f:
        for line in f:
            if line.startswith("|") and "`%s`" % method in line:
                link = re.search(r"\]\(([^)#]+)", line)
                return link.group(1) if link else None
    return None


def section(name, rows):
    out = ["", "## " + name, ""]
    taken = TAKEN_BY.get(name)
    if name.startswith("method:"):
        method = name.split(":", 1)[1]
        taken = "`peft_adapters_add` with method \"%s\"; `peft train --method %s`." % (method, method)
        link = method_page(method)
        if link:
            taken += " See [%s](methods/%s)." % (method, link)
    if taken:
        out += [taken, ""]
    if not rows:
        return out + ["No options."]
    out += ["| Key | Type | Default | Range | What it does |", "|---|---|---|---|---|"]
    for row in rows:
        out.append("| `%s` | %s | %s | %s | %s |" % (row["key"], row["type"], cell(default(row)), cell(limits(row)),
                                                     cell(row["help"])))
    return out


def page(schemas):
    lines = [HEAD.rstrip("\n")]
    for name, rows in schemas.items():
        lines += section(name, rows)
    return "\n".join(lines) + "\n"


def main(arguments):
    check = "--check" in arguments
    rest = [a for a in arguments if a != "--check"]
    text = subprocess.run([rest[0] if rest else "build/peft", "options", "--json"], check=True, capture_output=True).stdout
    schemas = json.loads(text)
    new = page(schemas)
    lost = [s for s in schemas if s.startswith("method:") and method_page(s.split(":", 1)[1]) is None]
    for name in lost:
        print("options: docs/methods/README.md has no row with a link for `%s`" % name.split(":", 1)[1])
    if not check:
        with open(PAGE, "w", encoding="utf-8") as f:
            f.write(new)
        return 0
    old = open(PAGE, encoding="utf-8").read() if os.path.exists(PAGE) else ""
    if old == new:
        return 1 if lost else 0
    changes = list(difflib.unified_diff(old.splitlines(), new.splitlines(), "docs/options.md", "peft options", lineterm="", n=0))
    print("\n".join(changes[:12]))
    print("options: docs/options.md is out of date; run: python3 tools/gen_options.py")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
