"""Counting comparisons. A test file calls check/close/equal, each of which prints one line, and ends with main(parts...).

A part that raises is one failure, and the parts after it still run. The last line is `N passed, N failed`. Every part begins
with its own fixed random state, in the libraries that are loaded by then, so that a run compares the same numbers as the last.
"""
import os
import random
import sys
import time
import traceback
import zlib

import numpy as np

# Of the data kept from run to run: the virtual environment and the dequantised model.
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "libpeft")
DATA = os.environ.get("PEFT_TESTDATA", "")
passed = failed = 0


def check(name, good, detail=""):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
    print("%-6s %-72s %s" % ("ok" if good else "FAIL", name, detail), flush=True)
    return bool(good)


def _error(ours, theirs):
    """max |difference| and max |value| of two arrays of one shape."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.size == 0:
        return 0.0, 0.0
    return float(np.abs(ours.reshape(theirs.shape) - theirs).max()), float(np.abs(theirs).max())


def close(name, ours, theirs, tolerance, floor=0.0):
    """max|ours - theirs| <= tolerance * max|theirs| + floor"""
    if np.size(ours) != np.size(theirs):
        return check(name, False, "%s values, expected %s" % (np.shape(ours), np.shape(theirs)))
    error, largest = _error(ours, theirs)
    good = np.isfinite(error) and error <= tolerance * largest + floor
    return check(name, good, "%.1e of %.3g, allowed %.0e" % (error / max(largest, 1e-300), largest, tolerance))


def equal(name, ours, theirs):
    good = ours == theirs
    return check(name, good, "" if good else "%.150s, expected %.150s" % (ours, theirs))


def each_close(name, ours, theirs, tolerance, floor=0.0):
    """The same for dicts of arrays, as one check; the detail names the worst tensor. Both must have the same names."""
    if set(ours) != set(theirs):
        odd = sorted(set(ours) ^ set(theirs))
        return check(name, False, "only one side has %s (%d such)" % (odd[0], len(odd)))
    worst, where, bad, nonzero = 0.0, "", 0, 0
    for key in theirs:
        if np.size(ours[key]) != np.size(theirs[key]):
            return check(name, False, "%s: %s values, expected %s" % (key, np.shape(ours[key]), np.shape(theirs[key])))
        error, largest = _error(ours[key], theirs[key])
        nonzero += largest > floor
        share = error / (tolerance * largest + floor) if largest > 0 or floor > 0 else float(error > 0) * 2
        bad += not share <= 1
        if not share <= worst:
            worst, where = share, key
    detail = "%d tensors, %d not zero, worst %.2g of the allowed in %s" % (len(theirs), nonzero, worst, where)
    return check(name, bad == 0 and len(theirs) > 0, ("%d wrong; " % bad if bad else "") + detail)


def seed(name):
    """The global generators, from which peers draw what a test leaves to them."""
    number = zlib.crc32(name.encode())
    random.seed(number)
    np.random.seed(number)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(number)


def main(*parts):
    for part in parts:
        begun = time.time()
        seed(part.__name__)
        try:
            part()
        except Exception:
            check("%s ended early" % part.__name__, False)
            traceback.print_exc(file=sys.stdout)
        print("       %s: %.1f s" % (part.__name__, time.time() - begun), flush=True)
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(failed != 0)
