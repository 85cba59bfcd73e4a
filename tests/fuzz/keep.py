#!/usr/bin/env python3
"""keep.py OUT TARGET - puts the best of what runs of a fuzz target found into its corpus: those that together reach the most.

Files seed-* (seeds.py) and found-* (what broke something once) stay. To them come, by libFuzzer's list of what each input reaches
(-merge=1), those that add the most a byte, up to MOST files and ROOM bytes; others of the corpus go.
"""
import hashlib
import pathlib
import re
import subprocess
import sys

MOST, ROOM, LONGEST = 36, 20_000, 4096
WORDS = re.compile(rb"TO" rb"DO|FIX" rb"ME|XX" rb"X|HA" rb"CK|/(wo" rb"rk|root|home|Users)/")  # house rules of text, in any file


def reached(out, target, folders):
    """{path: set of features} as the target's merge tells."""
    control, empty = out / f"{target}.control", out / "tmp" / f"{target}-merge"
    control.unlink(missing_ok=True)
    empty.mkdir(parents=True, exist_ok=True)
    for old in empty.iterdir():
        old.unlink()
    subprocess.run([out / "run" / target, "-merge=1", "-max_len=4096", f"-merge_control_file={control}", empty, *folders], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = control.read_text().splitlines()
    count = int(lines[0])
    paths, features = lines[2 : 2 + count], {}
    for line in lines[2 + count :]:
        word = line.split()
        if word[0] == "FT":
            features[paths[int(word[1])]] = set(word[2:])
    return features


def main():
    out, target = pathlib.Path(sys.argv[1]), sys.argv[2]
    corpus = pathlib.Path("tests/fuzz/corpus") / target
    features = reached(out, target, [corpus, out / "corpus" / target])
    kept = [p for p in corpus.iterdir() if p.name.startswith(("seed-", "found-"))]
    have = set().union(*(features.get(str(p), set()) for p in kept))
    pool = {p: f for p, f in features.items() if not pathlib.Path(p).name.startswith(("seed-", "found-"))}
    content = {p: pathlib.Path(p).read_bytes() for p in pool}
    pool = {p: f for p, f in pool.items() if len(content[p]) <= LONGEST and not WORDS.search(content[p])}
    chosen, size = [], 0
    while pool and len(chosen) < MOST:
        best = max(pool, key=lambda p: (len(pool[p] - have) / (len(content[p]) + 64), p))
        gain = pool.pop(best) - have
        if not gain:
            break
        if size + len(content[best]) > ROOM:
            continue
        chosen.append(best)
        size += len(content[best])
        have |= gain
    for old in corpus.iterdir():
        if old not in kept:
            old.unlink()
    for path in chosen:
        (corpus / hashlib.sha1(content[path]).hexdigest()[:12]).write_bytes(content[path])
    print(f"ok     {target}: {len(kept)} and {len(chosen)} files, {size} bytes, {len(have)} features")


if __name__ == "__main__":
    main()
