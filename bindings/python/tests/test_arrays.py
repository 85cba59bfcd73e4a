"""Arrays out, and memory of every kind in."""
import array
import ctypes
import gc
import struct

import numpy
import pytest

import libpeft
from conftest import LLAMA
from libpeft import Array, _buffers, _dlpack


def filled(*shape):
    made = Array(shape)
    made.numpy()[...] = numpy.arange(made.size, dtype=numpy.float32).reshape(shape)
    return made


def test_an_array_is_a_sequence():
    a = filled(2, 3)
    assert (a.shape, a.size, a.ndim, a.nbytes, len(a), a.dtype) == ((2, 3), 6, 2, 24, 2, "float32")
    assert a.tolist() == [[0, 1, 2], [3, 4, 5]] and a[1].tolist() == [3, 4, 5]
    assert a[1, 2] == 5 and a[-1][-1] == 5 and a[0:1].shape == (1, 3) and [row.tolist() for row in a] == a.tolist()
    assert a.reshape(3, 2).tolist() == [[0, 1], [2, 3], [4, 5]] and a.reshape((-1,)).shape == (6,)
    assert list(a.reshape(-1)) == [0, 1, 2, 3, 4, 5]
    assert a.tobytes() == struct.pack("6f", *range(6))
    for bad in (2, -3, (0, 3)):
        with pytest.raises(IndexError):
            a[bad]
    with pytest.raises(TypeError):
        a["x"]
    with pytest.raises(ValueError):
        a[::2]
    with pytest.raises(ValueError):
        a.reshape(4, 2)
    assert "float32" in repr(a)


def test_empty_and_without_dimensions():
    assert Array((0,)).tolist() == [] and Array((2, 0)).tolist() == [[], []] and Array((0, 5)).numpy().shape == (0, 5)
    one = Array(())
    assert one.size == 1 and one[()] == 0
    with pytest.raises(TypeError):
        len(one)


def test_numpy_and_memoryview_share_the_memory():
    a = filled(2, 3)
    n = numpy.asarray(a)
    assert n.dtype == numpy.float32 and n.shape == (2, 3) and n.ctypes.data == a.address
    n[1, 2] = 50
    assert a[1, 2] == 50 and a.view[1, 2] == 50
    a.view[0, 0] = -1
    assert n[0, 0] == -1
    inner = numpy.asarray(a[1])
    assert inner.tolist() == [3, 4, 50]
    del a
    gc.collect()
    assert n[0, 0] == -1 and inner[0] == 3  # the array keeps the memory


def test_dlpack_both_ways():
    a = filled(2, 3)
    n = numpy.from_dlpack(a)
    assert n.tolist() == a.tolist() and n.ctypes.data == a.address
    del a
    gc.collect()
    assert n[1, 2] == 5
    before = len(_dlpack._given)
    del n
    gc.collect()
    assert len(_dlpack._given) == before - 1
    capsule = filled(3).__dlpack__()  # which nobody takes
    assert len(_dlpack._given) == before
    del capsule
    gc.collect()
    assert len(_dlpack._given) == before - 1
    copied = filled(3)
    capsule = copied.__dlpack__(copy=True, max_version=(1, 0))
    copied.view[0] = 9
    assert _dlpack.read(Capsule(capsule), "x").address != copied.address


class Capsule:
    """Something that knows DLPack only, as torch's tensors."""

    def __init__(self, capsule, device=1):
        self.capsule, self.device = capsule, device

    def __dlpack__(self):
        return self.capsule

    def __dlpack_device__(self):
        return (self.device, 0)


def only_dlpack(values):
    return Capsule(numpy.asarray(values).__dlpack__())


def test_dlpack_in():
    found = _buffers.view(only_dlpack(numpy.arange(6, dtype=numpy.int64).reshape(2, 3)), "x")
    assert found.shape == (2, 3) and found.dtype == "int64" and bytes(found.data) == numpy.arange(6).tobytes()
    assert _buffers.floats(only_dlpack(numpy.ones(3, numpy.float32)), "x").n == 3
    with pytest.raises(ValueError, match="CPU"):
        _buffers.view(Capsule(None, device=2), "x")
    with pytest.raises(ValueError, match="contiguous"):
        _buffers.view(only_dlpack(numpy.ones((3, 4), numpy.float32).T), "x")
    with pytest.raises(TypeError, match="DLPack type"):
        _buffers.view(only_dlpack(numpy.ones(3, numpy.complex64)), "x")


def read_ints(values):
    given = _buffers.ints(values, "ids")
    return list((ctypes.c_int32 * given.n).from_address(ctypes.addressof(given.pointer._obj))) if given.n else []


def test_integers_of_every_kind():
    for values in ([1, 2, 3], (1, 2, 3), range(1, 4), array.array("i", [1, 2, 3]), array.array("q", [1, 2, 3]),
                   iter([1, 2, 3]), (c for c in (1, 2, 3)), memoryview(array.array("H", [1, 2, 3])),
                   (ctypes.c_int32 * 3)(1, 2, 3), numpy.arange(1, 4), numpy.arange(1, 4, dtype=numpy.uint8),
                   numpy.arange(1, 4, dtype=numpy.int32), numpy.arange(6, 0, -1)[::-1][:3], {1: "", 2: "", 3: ""}):
        assert read_ints(values) == [1, 2, 3]
    for values in ([], (), numpy.array([], numpy.int64), array.array("i")):
        assert read_ints(values) == []
    in_place = numpy.arange(5, dtype=numpy.int32)
    assert ctypes.addressof(_buffers.ints(in_place, "x").pointer._obj) == in_place.ctypes.data
    in_place.setflags(write=False)
    assert ctypes.addressof(_buffers.ints(in_place, "x").pointer._obj) == in_place.ctypes.data


@pytest.mark.parametrize("values,kind,text", [
    ("123", TypeError, "str"), (b"123", TypeError, "bytes"), (5, TypeError, "int"), (None, TypeError, "NoneType"),
    ([1, 2**31], ValueError, "value 1 of ids is 2147483648"), ([1.5], TypeError, "value 0 of ids is 1.5"),
    (["1"], TypeError, "value 0"), ([[1]], TypeError, "value 0"), (numpy.array([1.0]), TypeError, "float64"),
    (numpy.ones((2, 2), int), ValueError, "one dimension"), (numpy.array([2**40]), ValueError, "1099511627776"),
    (numpy.array([1], ">i4"), TypeError, "byte order"), (numpy.array(["x"]), TypeError, "format"),
    ([-2**31 - 1], ValueError, "32 bits"), (numpy.array([True]), TypeError, "bool"),
])
def test_what_are_no_integers(values, kind, text):
    with pytest.raises(kind, match=text):
        _buffers.ints(values, "ids")


def read_floats(values):
    given = _buffers.floats(values, "x")
    return list((ctypes.c_float * given.n).from_address(ctypes.addressof(given.pointer._obj))) if given.n else []


def test_floats_of_every_kind():
    half = numpy.array([1, 2, 3], numpy.float16)
    for values in ([1, 2.0, 3], ((1,), (2, [3])), array.array("f", [1, 2, 3]), array.array("d", [1, 2, 3]), half,
                   numpy.arange(1, 4), numpy.arange(1, 4, dtype=numpy.float32), filled(4)[1:], numpy.float64([1, 2, 3]),
                   numpy.arange(12, dtype=numpy.float32).reshape(3, 4)[0, 1:], numpy.float32([1, 9, 2, 9, 3, 9])[::2]):
        assert read_floats(values) == [1, 2, 3]
    bfloat = _buffers.View(memoryview(struct.pack("3H", 0x3F80, 0x4000, 0x4040)), (3,), "bfloat16", None)
    assert list(_buffers._unpack(bfloat)) == [1, 2, 3]
    for bad in ("1", 3, None, ["x"], [None]):
        with pytest.raises(TypeError):
            _buffers.floats(bad, "x")
    assert str(read_floats([float("nan")])) == "[nan]"


def test_a_tensor_is_written_in_place_or_by_copy():
    adapters = libpeft.Model.random(LLAMA).adapters()
    tensors = adapters.add("a", r=4, target_modules=["q_proj"]).tensors
    name = next(iter(tensors))
    shape = tensors[name].shape
    value = numpy.arange(shape[0] * shape[1], dtype=numpy.float32).reshape(shape)
    tensors[name] = value
    assert tensors[name].tolist() == value.tolist()
    tensors[name] = value.astype(numpy.float64).T.copy().T * 2  # another type, with gaps
    assert tensors[name].tolist() == (2 * value).tolist()
    tensors[name] = tensors[name]
    assert tensors[name].tolist() == (2 * value).tolist()
    with pytest.raises(libpeft.ShapeError, match="shape"):
        tensors[name] = value.T
    with pytest.raises(libpeft.ShapeError):
        tensors[name] = [1.0, 2.0]
