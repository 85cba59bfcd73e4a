"""Every public function of the library was called by the tests before this one (which runs last, by its name)."""
import json
import os

import pytest

from conftest import ROOT, called


def test_every_function_was_called(request):
    ran = {item.fspath.basename for item in request.session.items}
    present = {name for name in os.listdir(os.path.dirname(os.path.abspath(__file__))) if name.startswith("test_")}
    if ran != present:
        pytest.skip("a part of the tests was asked for")
    with open(os.path.join(ROOT, "bindings", "api.json"), encoding="utf-8") as file:
        public = {function["name"] for function in json.load(file)["functions"]}
    assert public - called == set() and len(public) > 100
