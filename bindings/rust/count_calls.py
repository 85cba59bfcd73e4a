"""count_calls.py CALLS.json API.json - says which functions of the header no test of the Rust crates has called.

CALLS.json is what `gcov --json-format --stdout` writes, one object a line, of the files of lib/api compiled with --coverage: the
counts are of executed calls. They come from outside: run_tests.sh makes sure that no file of the library uses a public function of
another."""
import json
import sys

calls = {}
for line in open(sys.argv[1], encoding="utf-8"):
    if line.strip():
        for file in json.loads(line)["files"]:
            for function in file["functions"]:
                name = function["name"]
                calls[name] = calls.get(name, 0) + function["execution_count"]
names = [function["name"] for function in json.load(open(sys.argv[2], encoding="utf-8"))["functions"]]
missing = [name for name in names if calls.get(name, 0) == 0]
for name in missing:
    print("no test calls %s%s" % (name, "" if name in calls else ", and no file of lib/api defines it"))
print("%d of %d functions called, %d calls" % (len(names) - len(missing), len(names), sum(calls.get(n, 0) for n in names)))
sys.exit(1 if missing or not names else 0)
