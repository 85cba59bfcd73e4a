"""options.py - reads the option schemas from the tool, for api.json, and makes docs/options.md of them.

The tables behind them are in lib/; `peft options --json` prints what `peft_schema_json` gives. Left out: any knowledge of a
single key. Which call and which command takes a schema is a sentence here, TAKEN_BY."""
import json
import os
import re
import subprocess

METHODS = "docs/methods/README.md"  # its table has a row for each method, with a link to its page
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

<!-- FIRST -->

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


class Failed(Exception):
    """The tool cannot be asked; the text says what to do."""


def read(tool):
    """{schema: [row, ...]} in the tool's order."""
    try:
        done = subprocess.run([tool, "options", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as e:
        raise Failed("cannot run %s: %s (build it: make)" % (tool, e.strerror))
    if done.returncode:
        raise Failed("%s options --json: %s" % (tool, done.stderr.decode("utf-8", "replace").strip()))
    return json.loads(done.stdout.decode("utf-8"))

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


def method_page(method, root):
    """The page that the table of methods names for this one; None without a row."""
    with open(os.path.join(root, METHODS), encoding="utf-8") as f:
        for line in f:
            if line.startswith("|") and "`%s`" % method in line:
                link = re.search(r"\]\(([^)#]+)", line)
                return link.group(1) if link else None
    return None


def without_page(schemas, root):
    """Methods that the table does not have."""
    methods = [name.split(":", 1)[1] for name in schemas if name.startswith("method:")]
    return [method for method in methods if method_page(method, root) is None]


def section(name, rows, root):
    out = ["", "## " + name, ""]
    taken = TAKEN_BY.get(name)
    if name.startswith("method:"):
        method = name.split(":", 1)[1]
        taken = "`peft_adapters_add` with method \"%s\"; `peft train --method %s`." % (method, method)
        link = method_page(method, root)
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


def page(schemas, root, first):
    """The text of docs/options.md."""
    lines = [HEAD.replace("FIRST", first).rstrip("\n")]
    for name, rows in schemas.items():
        lines += section(name, rows, root)
    return "\n".join(lines) + "\n"
