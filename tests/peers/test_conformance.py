#!/usr/bin/env python3
"""The conformance matrix: every registered method on every architecture, over rows with and without padding and over quantised
bases, against its peer. Logits of every token, the gradient of every trained tensor, and the losses of five steps.

docs/conformance.md is written by this file (--write); without the option the committed text must be what it would write. So that
the text is the same on every machine it has orders of magnitude, and a committed one stands while what is measured is near it.

    test_conformance.py [--write] [--only "TITLE[;TITLE...]"] [--bases "TITLE[;TITLE...]"]
"""
import logging
import math
import os
import re
import sys
import tempfile
import time
import traceback
import warnings

import numpy as np
import torch

import checks
import conform
import conform_sides as sides
import peftlib
from checks import check, equal, main

DOC = os.path.join(peftlib.ROOT, "docs", "conformance.md")
# What is allowed, and the least that the table shows.
LOGITS, GRADIENTS, LOSSES = 1e-5, 1e-4, 1e-4
LEAST = 1e-7
FLOOR, STEPS = 1e-7, 5
only = wanted_bases = None


def apart(ours, theirs, floor=0.0):
    """max |difference| over max |value| and a floor."""
    ours, theirs = np.asarray(ours, np.float64).reshape(-1), np.asarray(theirs, np.float64).reshape(-1)
    if ours.size != theirs.size:
        raise ValueError("%d values, expected %d" % (ours.size, theirs.size))
    worst = np.abs(ours - theirs).max() / max(np.abs(theirs).max() + floor, 1e-300)
    return float(worst) if np.isfinite(worst) else math.inf


def trained(setup):
    return {n: p for n, p in setup.names.items() if n not in setup.frozen}


def gradients(setup, trainer):
    """The largest deviation over the tensors, and the tensor."""
    worst = (0.0, "")
    for name, p in trained(setup).items():
        theirs = torch.zeros_like(p) if p.grad is None else p.grad
        there = setup.theirs(name, theirs)
        worst = max(worst, (apart(trainer.gradient_of(setup.holder, name), there, FLOOR / GRADIENTS), name))
    return worst


def five_steps(setup, trainer, optimizer, data, alone, mine, wanted):
    """From the gradients of the first step on: the losses of all, on both sides."""
    ctx = setup.adapters.ctx
    for step in range(STEPS):
        if step > 0:
            value = data.loss(setup.forward, alone)
            wanted.append(value.item())
            mine.append(trainer.accumulate(data.batch(ctx, labels=True)))
            if setup.step_loss is None:
                value.backward()
        if setup.step_loss is not None:
            optimizer.zero_grad()
            setup.step_loss(data).backward()
        optimizer.step()
        setup.after(step)
        optimizer.zero_grad()
        trainer.apply()


def measure(setup, base, kind, alone):
    """(logits, gradients, losses) apart, and what is wrong besides."""
    data, ctx = sides.Data(base, kind), setup.adapters.ctx
    alone, faults = alone and kind == "padded", []
    odd = sorted(set(trained(setup)) ^ set(setup.adapters.shapes(setup.holder)))
    if odd:
        faults.append("names: only one side has %s (%d such)" % (odd[0], len(odd)))
    session = peftlib.Session(base.ours, setup.adapters, setup.acts)
    with torch.no_grad():
        theirs = torch.cat(data.outputs(setup.forward, alone)).numpy()
        plain = torch.cat(data.outputs(sides.caller(base.model), alone=False)).numpy()
    logits = apart(session.batch_logits(data.batch(ctx)), theirs)
    if apart(theirs, plain) < 1e-3:
        faults.append("the adapter does not act")
    parameters = list(trained(setup).values())
    optimizer = setup.optimizer(parameters)
    optimizer.zero_grad()
    value = data.loss(setup.forward, alone)
    value.backward()
    trainer = peftlib.Trainer(setup.adapters, setup.job, batch_size=len(data.rows), max_length=data.longest(), max_steps=STEPS,
                              optimizer=setup.ours)
    mine = [trainer.accumulate(data.batch(ctx, labels=True))]
    wanted = [value.item()]
    gradient, where = gradients(setup, trainer)
    five_steps(setup, trainer, optimizer, data, alone, mine, wanted)
    losses = max(abs(a - b) / abs(b) for a, b in zip(mine, wanted))
    if abs(wanted[-1] - wanted[0]) < 3 * LOSSES * wanted[0]:
        faults.append("the steps change nothing: %s" % wanted)
    return (logits, gradient, losses), faults, where


class Cell:
    """What the table says of one comparison; note: why it is not the plain one, or is not there."""

    def __init__(self, state, note=None, apart=None):
        self.state, self.note, self.apart = state, note, apart


def column(title, build, base, kind, case, note):
    """One comparison, and its line in the log."""
    try:
        torch.manual_seed(base.seed)
        found, faults, where = measure(build(base), base, kind, case.alone)
    except Exception as error:
        check(title, False, "%s: %s" % (type(error).__name__, str(error)[:300]))
        if only is not None or wanted_bases is not None:
            traceback.print_exc(file=sys.stdout)
        return Cell("FAIL")
    good = not faults and found[0] <= LOGITS and found[1] <= GRADIENTS and found[2] <= LOSSES
    check(title, good, "logits %.1e, gradients %.1e, losses %.1e%s" % (*found, "; ".join([""] + faults + ([] if good else [where]))))
    return Cell("ok" if good else "FAIL", note, found)


def is_refused(case, base):
    """A hole must still be one."""
    try:
        case.refused[base.title](base)
        check("%s, %s: refused" % (case.title, base.title), False, "not any more")
    except Exception as error:
        check("%s, %s: refused" % (case.title, base.title), True, str(error)[:60].replace("\n", " "))


def run_case(case, bases, changed):
    """The cells of a row."""
    cells = []
    for base in bases:
        build, note = case.special.get(base.title, (case.build, None))
        if base.title in case.refused:
            is_refused(case, base)
        base = changed.get((case.title, base.title), base)
        for kind in sides.LENGTHS if base.title in sides.BOTH_ROWS else ("padded",):
            said = note or (case.alone if kind == "padded" else None)
            title = "%s, %s, %s rows" % (case.title, base.title, kind)
            cells.append(Cell("—", note) if build is None else column(title, build, base, kind, case, said))
    return cells


def same_defaults(bases):
    """Modules that are adapted where none are said."""
    for method, cls, options in conform.DEFAULTS:
        odd, seen = {}, 0
        for base in bases:
            theirs, ours = conform.default_targets(base, method, cls, **options)
            seen += isinstance(theirs, list)
            if theirs != "refused" and theirs != ours and (base.title, method) not in conform.MORE_DEFAULTS:
                odd[base.title] = theirs, ours
        least = 6 if wanted_bases is None else 0
        check("%s: default modules of %d families" % (method, seen), not odd and seen >= least, str(odd)[:300] if odd else "")


def make_bases(ctx, top):
    bases = [sides.Base(ctx, top, title, pair, 9000 + 10 * i) for i, (title, pair) in enumerate(sides.ARCHS)]
    pair = sides.ARCHS[0][1]
    bases += [sides.Base(ctx, top, t.upper(), pair, 9050 + i, dtype=t) for i, t in enumerate(sides.TYPES)]
    changed = {}
    for case in conform.CASES:
        for title, other in case.changes.items():
            kind = title.lower() if title.lower() in sides.TYPES else None
            folder = os.path.join(top, case.method)
            os.makedirs(folder, exist_ok=True)
            changed[case.title, title] = sides.Base(ctx, folder, title, other, 9090, dtype=kind)
    return bases, changed


# ---- the text

HEAD = """# Conformance

Every method of the library against a library that also has it, on small random models (two layers, width 32; Mistral and Gemma with
windows of 6 tokens, Qwen3 and Gemma with heads of 16 columns) whose every tensor is random, with adapters whose every tensor is
random too, in float32, dropout 0, eager attention: HF PEFT %s, AdapterHub's adapters %s, torch %s.
`tests/peers/test_conformance.py` writes this file and checks it on each `make check-peers`. The modules that PEFT adapts where none
are named are compared too; where it has no default for a family, the rows name them.

One `ok` is three comparisons: the logits of every token within 1e-5 of the largest, the gradient of every trained tensor within
1e-4 of its largest (and 1e-7 for those that are zero in theory), and the losses of five steps of AdamW, at a constant rate of 5e-3
without clipping and decay, within 1e-4. Rows are of *equal* length, or of unequal length, as in all columns that do not say it: then
the peer pads and masks, and libpeft packs. *Q8_0* and *Q4_0* are Llama in GGUF files that `peft merge` wrote; the peer has the values
that libpeft reads of them. The three columns at the end are the largest deviations of a row as orders of magnitude, as shares in the
same sense. What is not a plain comparison, or is not there, has a number, explained below.

BERT, RoBERTa, DistilBERT and ModernBERT are classifiers of tokens with 5 labels, whose head every adapter trains along; what a token
is labelled with is compared in place of the next one, and rows are padded and masked, in ModernBERT with a window of 4 on either side.

T5 and BART read a source and the tokens before those of a target, both of unequal lengths; what is compared is what the decoder says
of the target. T5 is of version 1.1 (gated units, a head of its own), as Flan-T5 is. Version 1.0's tied head, passes with a cache and
files both ways are in `tests/peers/test_seq2seq_adapters.py`.

AdapterHub's library has classes for Llama, Mistral, GPT-2, BERT, RoBERTa, DistilBERT, T5 and BART. The other families are given to it
through its plug-in interface, its hooks at what attention and feed-forward give to the residual stream; `tests/peers/hub_plugin.py`
says what is added to it.

"""
COLUMNS = [c for title, _ in sides.ARCHS for c in ([title + " equal", "padded"] if title in sides.BOTH_ROWS else [title])]
COLUMNS += [t.upper() for t in sides.TYPES]


def committed():
    """{row title: its three orders of magnitude} of the file as it is."""
    out = {}
    if os.path.exists(DOC):
        with open(DOC, encoding="utf-8") as f:
            for line in f:
                cells = [c.strip() for c in line.strip().strip("|").split("|")]
                if len(cells) == len(COLUMNS) + 5 and cells[-1].startswith("1e-"):
                    out[cells[0]] = [float(c) for c in cells[-3:]]
    return out


def order(value, before):
    """The power of ten above; the committed one where the value is within three times of its range."""
    exact = 10.0 ** math.ceil(math.log10(max(value, LEAST)) - 1e-9)
    if before is not None and value <= 3 * before and (value >= before / 30 or before <= LEAST):
        exact = before
    return "1e-%02d" % round(-math.log10(exact))


def text(table):
    notes, before, lines = [], {} if "--write" in sys.argv else committed(), []

    def mark(words, what):
        if what is None:
            return words
        if what not in notes:
            notes.append(what)
        return "%s [%d]" % (words, notes.index(what) + 1)

    for case, cells in table:
        worst = [max((c.apart[k] for c in cells if c.apart), default=0.0) for k in range(3)]
        title = case.title.replace(case.method, "`%s`" % case.method, 1)
        was = before.get(title, [None] * 3)
        row = [title, mark(case.peer, case.note)] + [mark(c.state, c.note) for c in cells]
        lines.append("| " + " | ".join(row + [order(w, b) for w, b in zip(worst, was)]) + " |")
    head = HEAD % tuple(version(n) for n in ("peft", "adapters", "torch"))
    names = ["Method", "Peer"] + COLUMNS + ["Logits", "Gradients", "Losses"]
    out = head + "| " + " | ".join(names) + " |\n|" + "---|" * len(names) + "\n" + "\n".join(lines) + "\n\n"
    return out + "".join("%d. %s.\n" % (i + 1, n) for i, n in enumerate(notes))


def version(package):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "requirements.txt"), encoding="utf-8") as f:
        found = re.search(r"^%s==(\S+)" % package, f.read(), re.M)
    return found.group(1) if found else torch.__version__.split("+")[0]


def registered():
    out = []
    while (name := peftlib.lib.peft_method_name(peftlib.c_size_t(len(out)))) is not None:
        out.append(name.decode())
    return out


def compare_text(written):
    if "--write" in sys.argv and checks.failed == 0:
        with open(DOC, "w", encoding="utf-8") as f:
            f.write(written)
        print("       written: %s" % DOC)
        return
    there = ""
    if os.path.exists(DOC):
        with open(DOC, encoding="utf-8") as f:
            there = f.read()
    odd = [a for a, b in zip(written.splitlines(), there.splitlines()) if a != b]
    check("docs/conformance.md is what this test writes (else: --write)", written == there, (odd or [""])[0][:200])


def matrix():
    ctx, begun = peftlib.Context(threads=1), time.time()
    torch.set_num_threads(1)  # so small are the models
    logging.disable(logging.WARNING)  # the peers' about adapters that are not active yet, and about Conv1D
    warnings.simplefilter("ignore")
    methods = registered()
    equal("methods without a row, rows without a method", sorted(set(methods) ^ {c.method for c in conform.CASES}), [])
    table = []
    with tempfile.TemporaryDirectory() as top:
        bases, changed = make_bases(ctx, top)
        bases = [b for b in bases if wanted_bases is None or b.title in wanted_bases]
        if only is None:
            same_defaults([b for b in bases if not b.quantised])
        for i, case in enumerate(c for c in conform.CASES if only is None or c.title in only):
            table.append((case, run_case(case, bases, changed)))
            print("       %d of %d rows, %.0f s" % (i + 1, len(conform.CASES), time.time() - begun), flush=True)
    table.sort(key=lambda row: methods.index(row[0].method))
    written = text(table)
    if only is None and wanted_bases is None:
        compare_text(written)
    else:
        print(written)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    if "--only" in sys.argv:
        only = sys.argv[sys.argv.index("--only") + 1].split(";")
    if "--bases" in sys.argv:
        wanted_bases = sys.argv[sys.argv.index("--bases") + 1].split(";")
    main(matrix)
