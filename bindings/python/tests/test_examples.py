"""test_examples.py - the programs of examples/python on the demo's base: what they print is what they promise."""
import os
import re
import subprocess
import sys

import pytest

from conftest import BASE, ROOT, TRAIN

EXAMPLES = os.path.join(ROOT, "examples", "python")


def run(name, *arguments, cwd, stdin=""):
    program = [sys.executable, os.path.join(EXAMPLES, name), *arguments]
    done = subprocess.run(program, cwd=cwd, input=stdin, capture_output=True, text=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def numbers(pattern, text):
    return [float(x) for x in re.findall(pattern, text)]


@pytest.fixture(scope="module")
def toured(tmp_path_factory):
    """A folder in which quicktour.py has run, and what it printed."""
    folder = tmp_path_factory.mktemp("tour")
    return folder, run("quicktour.py", cwd=folder)


def test_every_example_is_here():
    assert sorted(n for n in os.listdir(EXAMPLES) if n.endswith(".py")) == [
        "chat.py", "many_adapters.py", "numpy_data.py", "own_loop.py", "quicktour.py"]


def test_quicktour(toured):
    folder, text = toured
    assert "2076352 parameters, of which 108544 are trained" in text
    losses = numbers(r"^step \d+ of 60: loss ([\d.]+)$".replace("^", "(?m)^"), text)
    assert len(losses) == 3 and losses[-1] < 0.5
    assert numbers(r"held-out loss: ([\d.]+)", text)[0] < 0.5
    assert re.search(r"hearties|aboard", text.splitlines()[-1])
    assert sorted(os.listdir(os.path.join(folder, "pirate"))) == ["adapter_config.json", "adapter_model.safetensors"]


def test_chat(toured):
    folder, _ = toured
    one = run("chat.py", "--model", BASE, "--max-new-tokens", "12", "--temperature", "0", cwd=folder, stdin="Hello\n\n")
    two = run("chat.py", "--max-new-tokens", "12", "--temperature", "0", cwd=folder, stdin="Hello\nWhy?\n")
    assert one.strip() and two.startswith(one) and len(two) > len(one)
    plain = run("chat.py", "--plain", "--adapter", "pirate", "--max-new-tokens", "40", "--temperature", "0", cwd=folder,
                stdin="name: Noble Heron | kind: bakery\n")
    assert plain.strip()


def test_own_loop(tmp_path):
    text = run("own_loop.py", BASE, TRAIN, cwd=tmp_path)
    losses = numbers(r"losses ([\d.]+) ", text)
    assert len(losses) == 4 and losses == sorted(losses, reverse=True)
    assert numbers(r"first 50 rows: ([\d.]+)", text)[0] < losses[0]


def test_many_adapters(tmp_path):
    text = run("many_adapters.py", cwd=tmp_path)
    assert max(numbers(r"trained to a loss of ([\d.]+)", text)) < 0.6
    said = {line[:28].strip(): line[28:].strip() for line in text.splitlines()[2:]}
    assert list(said) == ["(the base)", "pirate", "clerk", "0.3 * pirate", "average(pirate:3, clerk:1)", "mostly"]
    assert said["clerk"] == "Registered: Noble Heron, bakery."
    assert "hearties" in said["pirate"] and "hearties" not in said["(the base)"]


def test_numpy_data(tmp_path):
    pytest.importorskip("numpy")
    text = run("numpy_data.py", cwd=tmp_path)
    first, last = numbers(r"([\d.]+) at (?:first|last)", text)
    assert last < first / 2
    assert numbers(r"copied: ([\d.]+)", text)[0] > 0.3
    assert numbers(r"differ by ([-\d.e+]+)", text)[0] < 1e-4
