"""Sets of adapters: adding, reading, writing, files, combinations."""
import numpy
import pytest

import libpeft
from conftest import LLAMA, VOCABULARY, rows, shake


def act(adapters, expression):
    return libpeft.Session(adapters, expression).logits([[1, 2, 3, 4]]).numpy()


def test_a_set_is_a_mapping(model):
    adapters = model.adapters()
    assert len(adapters) == 0 and list(adapters) == [] and bool(adapters) and "a" not in adapters
    first = adapters.add("a", method="lora", r=4, target_modules="all-linear")
    adapters.add("größer b", method="ia3")
    assert list(adapters) == ["a", "größer b"] and len(adapters) == 2 and dict(adapters)["a"] == first
    assert first.method == "lora" and first.options["r"] == 4 and first == adapters["a"] and first != adapters["größer b"]
    assert first.parameters == sum(numpy.prod(s) for s in first.tensors.shapes().values())
    assert len({first, adapters["a"]}) == 1 and "'a'" in repr(first) and "größer" in repr(adapters)
    with pytest.raises(ValueError, match="which adapter"):
        adapters.only()
    del adapters["a"]
    assert adapters.only() == "größer b" and adapters.get("a") is None
    with pytest.raises(KeyError, match="größer b"):
        adapters["a"]
    with pytest.raises(libpeft.NotFoundError):
        first.info()
    with pytest.raises(libpeft.NotFoundError):
        adapters.remove("a")
    assert adapters == adapters and adapters != model.adapters() and hash(adapters)


def test_what_cannot_be_added(adapters):
    for name, method, options, kind, text in (
            ("a", "lora", {}, libpeft.ExistsError, "a"), ("b", "lorra", {}, libpeft.UnsupportedError, "did you mean"),
            ("b", "lora", {"rr": 4}, libpeft.OptionError, "did you mean \"r\""),
            ("b", "lora", {"r": 0}, libpeft.OptionError, "r"), ("b", "lora", {"r": 1.5}, libpeft.OptionError, "r"),
            ("b", "lora", {"r": "many"}, libpeft.OptionError, "r"),
            ("b", "lora", {"r": 10**30}, libpeft.OptionError, "64 bits"),
            ("b", "lora", {"lora_alpha": float("nan")}, libpeft.OptionError, "lora_alpha"),
            ("b", "lora", {"lora_alpha": b"3"}, libpeft.OptionError, "bytes"),
            ("b", "lora", {"target_modules": [object()]}, libpeft.OptionError, "object"),
            ("b", "lora", {"target_modules": "no_such"}, libpeft.NotFoundError, "no_such"),
            ("b", "lora", {"bias": "a\0b"}, ValueError, "NUL"), ("b", "lora", {"bias": "\ud800"}, UnicodeEncodeError, "surrogate"),
            ("b,c", "lora", {}, libpeft.InvalidError, "b,c"), ("", "lora", {}, libpeft.InvalidError, "200"),
            ("b\0", "lora", {}, ValueError, "NUL"), (3, "lora", {}, TypeError, "int"), ("b", 3, {}, TypeError, "int"),
            ("b", "lora", {"seed": -1}, ValueError, "seed"), ("b", "lora", {"seed": 2**64}, ValueError, "seed"),
            ("b", "lora", {"seed": True}, TypeError, "bool")):
        with pytest.raises(kind, match=text):
            adapters.add(name, method, **options)
    circle = []
    circle.append(circle)
    with pytest.raises((libpeft.OptionError, ValueError)):
        adapters.add("b", target_modules=circle)
    assert list(adapters) == ["a"]


def test_options_of_pythons_types(model):
    adapters = model.adapters()
    made = adapters.add("a", r=numpy.int64(4), lora_alpha=numpy.float32(2), target_modules=("q_proj", "v_proj"),
                        rank_pattern={"q_proj": 2}, use_rslora=numpy.bool_(True), lora_dropout=None, layers_to_transform=range(1))
    options = made.options
    assert options["r"] == 4 and options["lora_alpha"] == 2 and options["target_modules"] == ["q_proj", "v_proj"]
    assert options["rank_pattern"] == {"q_proj": 2} and options["use_rslora"] is True
    assert options["layers_to_transform"] == [0]
    assert adapters.add("b", target_modules={"v_proj"}, layers_to_transform=numpy.array([1])).options["layers_to_transform"] == [1]


def test_options_by_themselves():
    with libpeft.Options("method:lora", r=4) as o:
        assert o["r"] == 4 and o.to_dict()["lora_alpha"] == 8
        o.set_text("target_modules", "q_proj,v_proj")
        assert o["target_modules"] == ["q_proj", "v_proj"]
        o.update('{"r": 6, "lora_alpha": 3}')
        o["r"] = None
        assert o["r"] == 8 and o["lora_alpha"] == 3
        with pytest.raises(libpeft.FormatError):
            o.update("[]")
        assert "method:lora" in repr(o)
    with libpeft.Options("trainer", {"memory_limit": "1GiB", "shuffle": False}) as o:
        assert o["memory_limit"] == 2**30 and o["shuffle"] is False
        with pytest.raises(libpeft.OptionError):
            o["memory_limit"] = "one"


def test_seeds_and_tensors(model):
    adapters = model.adapters()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        adapters.add(name, r=2, seed=seed)
    values = {name: {t: a.tobytes() for t, a in adapters[name].tensors.items()} for name in adapters}
    assert values["a"] == values["b"] != values["c"]
    tensors = adapters["a"].tensors
    name = next(iter(tensors))
    assert name in tensors and "x" not in tensors and len(tensors) == len(tensors.shapes())
    tensors[name] = tensors[name].numpy() * 2
    assert tensors[name].tobytes() != values["a"][name]
    with pytest.raises(libpeft.NotFoundError, match="did you mean"):
        tensors[name + "s"]
    with pytest.raises(libpeft.NotFoundError):
        tensors[name + "s"] = [1.0]
    with pytest.raises(TypeError):
        del tensors[name]


@pytest.mark.parametrize("place", ["folder", "eine Größe mit Leerzeichen", "file.gguf"])
def test_saved_and_loaded_are_equal(adapters, tmp_path, place):
    shake(adapters["a"])
    adapters["a"].save(tmp_path / place)
    again = adapters.load("again", str(tmp_path / place))
    assert again.method == "lora"
    assert {t: v.tobytes() for t, v in again.tensors.items()} == {t: v.tobytes() for t, v in adapters["a"].tensors.items()}
    assert act(adapters, "again").tobytes() == act(adapters, "a").tobytes()
    with pytest.raises(libpeft.ExistsError):
        adapters.load("again", tmp_path / place)
    with pytest.raises(FileNotFoundError):
        adapters.load("b", tmp_path / "absent")
    with pytest.raises(libpeft.OptionError):
        adapters.save("a", tmp_path / "x", format="pickle")
    with pytest.raises((libpeft.FileError, libpeft.Error)):
        adapters.save("a", "/proc/no/such/place")


def test_expressions_and_combinations(model):
    adapters = model.adapters()
    for i, name in enumerate("ab"):
        shake(adapters.add(name, r=2, target_modules=["q_proj", "v_proj"]), seed=i)
    adapters.combine("sum", {"a": 0.5, "b": -0.25})
    adapters.combine("text", "a:0.5, b:-0.25")
    assert act(adapters, "sum").tobytes() == act(adapters, "text").tobytes()
    assert abs(act(adapters, "sum") - act(adapters, "0.5 * a, b:-0.25")).max() < 1e-5
    with pytest.raises(libpeft.NotFoundError, match="c"):
        adapters.combine("bad", {"c": 1})
    with pytest.raises(libpeft.OptionError, match="type"):
        adapters.combine("bad", {"a": 1}, type="sumup")


def test_remove_what_is_in_use(adapters):
    session = libpeft.Session(adapters["a"])
    with pytest.raises(libpeft.BusyError):
        del adapters["a"]
    session.close()
    del adapters["a"]


def test_starts_from_a_text(demo, model):
    """The model's tokenizer reads the text; without one the ids are given by hand."""
    ids = demo.tokenizer.encode("name area price", bos_eos=True)
    given = dict(num_virtual_tokens=len(ids), prompt_tuning_init="TEXT", prompt_tuning_init_text="name area price")
    adapters = demo.adapters()
    first = adapters.add("p", "prompt", **given)
    embeddings = demo.tensors["model.embed_tokens.weight"].numpy()
    table = next(iter(first.tensors.values())).numpy()
    assert table.tobytes() == embeddings[ids].tobytes()
    own = model.adapters()
    own.add("p", "prompt", **given)
    own.init("p", [7, 8, 9] + [0] * (len(ids) - 3))
    table = next(iter(own["p"].tensors.values())).numpy()
    assert table[:3].tobytes() == model.tensors["model.embed_tokens.weight"].numpy()[7:10].tobytes()
    with pytest.raises(libpeft.Error):
        own.init("p", [VOCABULARY + 1])


def test_every_method_can_be_added_by_its_defaults(model):
    """Those that need no other adapter and no option; each trains one step."""
    done = []
    for method in libpeft.methods():
        adapters = model.adapters()
        try:
            adapters.add("x", method)
        except libpeft.Error as error:
            assert str(error)
            continue
        trainer = libpeft.Trainer(adapters, rows(), max_steps=1)
        assert [step.step for step in trainer] == [1]
        done.append(method)
    assert len(done) >= 15


def test_two_models_do_not_mix(adapters):
    other = libpeft.Model.random(dict(LLAMA, hidden_size=32), 1).adapters()
    with pytest.raises(TypeError):
        libpeft.Session(other, adapters)
    with pytest.raises(libpeft.NotFoundError):
        libpeft.Session(other, "a")
