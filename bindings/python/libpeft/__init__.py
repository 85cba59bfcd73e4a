"""libpeft - parameter-efficient fine-tuning of transformers on the CPU.

    import libpeft

    model = libpeft.Model.open("path/to/model")            # a Hugging Face folder or a GGUF file
    adapters = model.adapters()
    adapters.add("fr", method="lora", r=16, target_modules="all-linear")
    for step in libpeft.Trainer(adapters, "train.jsonl", learning_rate=1e-3, max_steps=100):
        print(step.step, step.loss)
    adapters["fr"].save("fr")                              # a folder of Hugging Face PEFT
    print(libpeft.Session(adapters["fr"]).generate("Once upon a time"))

Needs nothing but Python; takes and gives arrays of NumPy, torch and others without copies. Keywords that a class or function
does not name are options, which the library checks: libpeft.options("method:lora") lists them.
"""
from ._adapters import Adapter, Adapters, AdapterTensors
from ._array import Array
from ._callbacks import Step
from ._context import Context, Memory, check, context, inspect, memory
from ._dataset import Batch, Dataset, Example
from ._errors import (BusyError, CallbackError, CancelledError, Error, ExistsError, FileError, FormatError, InternalError,
                      InvalidError, MissingFileError, NotFoundError, NumericError, OptionError, OutOfMemoryError,
                      ShapeError, TooSmallError, UnsupportedError, VersionError)
from ._ffi import VERSION_STRING as __version__
from ._hooks import LossChunk
from ._model import Model, Raw, TensorInfo, Tensors
from ._options import Options
from ._schema import Option, architectures, build_info, methods, optimizers, options, schemas, status_name, version, version_string
from ._rows import Row, RowToken
from ._session import Pieces, Session, Token, Tokens
from ._tokenizer import Tokenizer
from ._trainer import Metrics, Trainer

__all__ = [
    "Adapter", "AdapterTensors", "Adapters", "Array", "Batch", "BusyError", "CallbackError", "CancelledError", "Context",
    "Dataset", "Error", "Example", "ExistsError", "FileError", "FormatError", "InternalError", "InvalidError", "LossChunk",
    "Memory", "Metrics", "MissingFileError", "Model", "NotFoundError", "NumericError", "Option", "OptionError", "Options",
    "OutOfMemoryError", "Pieces", "Raw", "Row", "RowToken", "Session", "ShapeError", "Step", "TensorInfo", "Tensors", "Token",
    "Tokenizer", "Tokens", "TooSmallError", "Trainer", "UnsupportedError", "VersionError", "__version__", "architectures", "build_info",
    "check", "context", "inspect", "memory", "methods", "optimizers", "options", "schemas", "status_name", "version",
    "version_string",
]

for _name in __all__:  # as users see them: libpeft.Model, not libpeft._model.Model
    if hasattr(globals()[_name], "__module__") and isinstance(globals()[_name], type):
        globals()[_name].__module__ = "libpeft"
del _name
