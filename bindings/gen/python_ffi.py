"""python_ffi.py - writes the lowest layer of the Python package, bindings/python/libpeft/_ffi.py: constants, structures,
callback types and the prototypes of all functions for ctypes.

Text that goes in is bytes; handles are addresses (c_void_p); where a callback is given a text with its length it is a
pointer, since it may hold NUL bytes or end without one.

Left out: finding the library, errors, lifetimes; those are written by hand above this layer."""
import ctype

SIMPLE = {"char": "c_char", "int32_t": "c_int32", "uint32_t": "c_uint32", "int64_t": "c_int64", "uint64_t": "c_uint64",
          "size_t": "c_size_t", "float": "c_float", "double": "c_double", "uint8_t": "c_uint8", "peft_status": "c_int32"}
WIDTH = 118
INTEGERS = ("int32_t", "uint32_t", "int64_t", "uint64_t", "size_t", "uint8_t", "peft_status")
HEAD = '''"""_ffi.py - {head}

The C interface as ctypes sees it: constants, structures, callback types, and `Library`, whose attributes are the functions.
A function is looked up when it is first used, so that a library of an earlier release still loads.

    library = Library(ctypes.CDLL("libpeft.so.0"))
    library.peft_version()

Text goes in as bytes and comes out as bytes or None; handles are addresses as c_void_p has them; `None` is NULL, but for a
callback NULL is its type called without arguments, as in `peft_log_fn()`."""
import ctypes
from ctypes import POINTER, c_char, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from typing import TYPE_CHECKING, Any, Callable, Dict, Final, NamedTuple, Optional, Set, Tuple, Union

VERSION: Final = ({version})
VERSION_STRING: Final = "{text}"
'''
LIBRARY = '''

class Prototype(NamedTuple):
    """Result, arguments, and the first release that has the function."""

    result: Any
    arguments: Tuple[Any, ...]
    since: str


# What mypy is told: a handle or a pointer is an address, a c_void_p, an array, or byref() of something.
Handle = Union[int, c_void_p, None]
Pointer = Any
Check = Callable[[int, Any, Tuple[Any, ...]], Any]


class Library:
    """The functions of a loaded library as attributes. `check` is called with (status, function, arguments) after each call
    that returns a peft_status, and what it returns is the call's value (see errcheck of ctypes)."""

    def __init__(self, library: ctypes.CDLL, check: Optional[Check] = None) -> None:
        self._library = library
        self._check = check
        self._calls: Optional[Set[str]] = None

    def record(self) -> Set[str]:
        """Begins to note which functions are called; the set grows with the calls. For tests."""
        if self._calls is None:
            self._calls = set()
            for name in PROTOTYPES:
                self.__dict__.pop(name, None)
        return self._calls

    def __getattr__(self, name: str) -> Any:
        prototype = PROTOTYPES.get(name)
        if prototype is None:
            raise AttributeError("libpeft %s has no function %s" % (VERSION_STRING, name))
        try:
            function: Any = self._library[name]  # an object of its own: two Library of one CDLL may check differently
        except AttributeError:
            raise AttributeError("the libpeft that is loaded has no function %s, which came with version %s"
                                 % (name, prototype.since)) from None
        function.restype = prototype.result
        function.argtypes = prototype.arguments
        if self._check is not None and name in STATUS_FUNCTIONS:
            function.errcheck = self._check
        bound = function if self._calls is None else _noted(function, name, self._calls)
        self.__dict__[name] = bound
        return bound

    if TYPE_CHECKING:
'''
TAIL = '''

def _noted(function: Any, name: str, calls: Set[str]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        calls.add(name)
        return function(*arguments)

    return call
'''


def callback_type(result, parameters, api):
    """CFUNCTYPE(...) of a callback."""
    pieces = ["None" if result == {"base": "void"} else argument(result, {}, api)]
    names = [p["name"] for p in parameters]
    for i, parameter in enumerate(parameters):
        counted = names[i + 1:i + 2] == ["len"]
        if counted and parameter["type"]["base"] == "char":
            pieces.append("POINTER(c_char)")
        else:
            pieces.append(argument(parameter["type"], {}, api))
    return "ctypes.CFUNCTYPE(%s)" % ", ".join(pieces)


def argument(made, parameter, api):
    """The ctypes expression of a type; a buffer that the library fills must not be given as bytes, which are constant."""
    if made["base"] == "function":
        return callback_type(made["result"], made["parameters"], api)
    made = ctype.decayed(made)
    base, pointers = made["base"], made.get("pointers", [])
    if not pointers:
        return SIMPLE.get(base, base)
    opaque = base == "void" or base in [h["name"] for h in api["handles"]]
    if opaque:
        text, rest = "c_void_p", pointers[1:]
    elif base == "char" and (pointers[0] == "const" or len(pointers) > 1):
        text, rest = "c_char_p", pointers[1:]
    else:
        text, rest = SIMPLE.get(base, base), pointers
    for _ in rest:
        text = "POINTER(%s)" % text
    return text


def hint(made, api, result=False):
    """The type that mypy sees."""
    base, pointers = made["base"], made.get("pointers", [])
    if not pointers and not made.get("array"):
        if base == "void":
            return "None"
        if base in INTEGERS:
            return "int"
        return "float" if base in ("float", "double") else "Pointer"
    if base == "char" and pointers == ["const"]:
        return "Optional[bytes]"
    if base in [h["name"] for h in api["handles"]] and len(pointers) == 1:
        return "Optional[int]" if result else "Handle"
    return "Pointer"


def constants(api):
    out = []
    for group in api["constants"]:
        out.append("")
        if group["doc"]:
            out.append("# %s" % group["doc"])
        for member in group["members"]:
            doc = "  # %s" % member["doc"] if member["doc"] else ""
            out.append("%s: Final = %d%s" % (member["name"], member["value"], doc))
    status = [m for g in api["constants"] if g["group"] == "Status" for m in g["members"]]
    out += ["", "STATUS_NAMES: Final[Dict[int, str]] = {"]
    return out + ['    %s: "%s",' % (m["name"], m["name"]) for m in status] + ["}"]


def structs(api):
    out = []
    for struct in api["structs"]:
        out += ["", "", "class %s(ctypes.Structure):" % struct["name"]]
        first = struct["doc"].split("\n")[0].split(". ")[0].rstrip(".")
        out += ['    """%s."""' % (first or struct["name"]), "", "    _fields_ = ["]
        for field in struct["fields"]:
            doc = "  # %s" % field["doc"] if field["doc"] else ""
            out.append('        ("%s", %s),%s' % (field["name"], argument(field["type"], {}, api), doc))
        out.append("    ]")
    return out


def fold(begin, pieces, end, indent=8):
    """begin, pieces with commas, end: on several lines where one would be too long."""
    line = begin + ", ".join(pieces) + end
    if len(line) <= WIDTH:
        return [line]
    lines, now = [begin], " " * indent
    for i, piece in enumerate(pieces):
        piece += end if i + 1 == len(pieces) else ","
        if len(now) + len(piece) > WIDTH:
            lines.append(now.rstrip())
            now = " " * indent
        now += piece + " "
    return lines + [now.rstrip()]


def prototypes(api):
    out = ["", "", "PROTOTYPES: Final[Dict[str, Prototype]] = {"]
    for function in api["functions"]:
        result = "None" if function["result"] == {"base": "void"} else argument(function["result"], {}, api)
        arguments = [argument(p["type"], p, api) for p in function["parameters"]]
        begin = '    "%s": Prototype(%s, (' % (function["name"], result)
        end = '%s), "%s"),' % ("," if len(arguments) == 1 else "", function.get("since", ""))
        out += fold(begin, arguments, end)
    names = [f["name"] for f in api["functions"] if f["result"] == {"base": "peft_status"}]
    out += ["}", "", "STATUS_FUNCTIONS: Final = frozenset(("]
    return out + ['    "%s",' % name for name in names] + ["))"]


def ordered_types(api):
    """Structures and callbacks, each after what it uses: callbacks that point to a structure come behind it."""
    out = structs(api) + ["", ""]
    for callback in api["callbacks"]:
        text = callback_type(callback["result"], callback["parameters"], api)
        begin = "ctypes.CFUNCTYPE("
        out += fold("%s = %s" % (callback["name"], begin), [text[len(begin):-1]], ")", 4)
    return out


def source(api, head):
    """The text of _ffi.py."""
    numbers = ", ".join(api["version"].split("."))
    out = [HEAD.format(head=head, version=numbers, text=api["version"]).rstrip("\n")]
    out += constants(api) + ordered_types(api) + [LIBRARY.rstrip("\n")]
    for function in api["functions"]:
        out += fold("        %s: Callable[[" % function["name"], [hint(p["type"], api) for p in function["parameters"]],
                    "], %s]" % hint(function["result"], api, True), 12)
    out += [TAIL.strip("\n").join(["\n\n", ""])] + prototypes(api)
    return "\n".join(out) + "\n"
