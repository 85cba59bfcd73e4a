"""The public functions of peft.h through ctypes, as far as the peer tests and the benchmark use them.

Test code only: no checks beyond what the library does itself. A status other than PEFT_OK becomes an Error with the text of
peft_last_error(). NumPy is imported where arrays are handed over, so that a process that only trains stays small.
The library is $PEFT_LIB, or libpeft.so in $BUILD, or in build/ of the project.
"""
import ctypes
import json
import os
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint64, c_void_p

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_E_BUFFER = -10


def _open():
    build = os.environ.get("BUILD", os.path.join(ROOT, "build"))
    return ctypes.CDLL(os.environ.get("PEFT_LIB", os.path.join(build, "libpeft.so")))


lib = _open()
for _name in ("peft_last_error", "peft_status_name", "peft_version_string", "peft_context_isa", "peft_model_arch",
              "peft_adapters_name", "peft_method_name", "peft_arch_name"):
    getattr(lib, _name).restype = c_char_p
for _name in ("peft_model_tensor_count", "peft_adapters_tensor_count", "peft_dataset_size", "peft_tokenizer_size"):
    getattr(lib, _name).restype = c_size_t
PROGRESS = ctypes.CFUNCTYPE(c_int32, c_void_p, c_void_p)


class Error(Exception):
    def __init__(self, status):
        self.status = lib.peft_status_name(c_int32(status)).decode()
        super().__init__("%s: %s" % (self.status, lib.peft_last_error().decode()))


class StepInfo(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("step", c_int64), ("max_steps", c_int64), ("loss", c_double),
                ("learning_rate", c_double), ("grad_norm", c_double), ("tokens", c_int64), ("tokens_per_second", c_double),
                ("seconds", c_double), ("eta_seconds", c_double), ("peak_bytes", c_size_t), ("eval_loss", c_double),
                ("epoch", c_double), ("job", c_char_p)]


def _ok(status):
    if status != 0:
        raise Error(status)


def _text(call, *args):
    """A text by the buffer rule."""
    needed = c_size_t()
    status = call(*args, None, c_size_t(0), byref(needed))
    if status not in (0, _E_BUFFER):
        raise Error(status)
    buf = ctypes.create_string_buffer(max(needed.value, 1))
    _ok(call(*args, buf, c_size_t(needed.value), byref(needed)))
    return buf.raw[:needed.value]


def _json(call, *args):
    return json.loads(_text(call, *args).rstrip(b"\0"))


def _floats(call, *args):
    """Floats by the buffer rule, as a NumPy array."""
    import numpy
    needed = c_size_t()
    status = call(*args, None, c_size_t(0), byref(needed))
    if status not in (0, _E_BUFFER):
        raise Error(status)
    out = numpy.empty(needed.value, numpy.float32)
    _ok(call(*args, out.ctypes.data_as(POINTER(c_float)), c_size_t(needed.value), byref(needed)))
    return out


def _tensor_shape(call, *args):
    name, ndim, dims = c_char_p(), c_int32(), (c_int64 * 8)()
    _ok(call(*args[:-1], byref(name), *args[-1], byref(ndim), dims))
    return name.value.decode(), tuple(dims[:ndim.value])


class Handle:
    """A handle with its free function; `keep` holds what must outlive it on this side."""

    def __init__(self, free, *keep):
        self.ptr, self._free, self._keep = c_void_p(), free, keep

    def close(self):
        if self.ptr:
            self._free(self.ptr)
            self.ptr = c_void_p()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()


class Context(Handle):
    def __init__(self, threads=2, isa=None):
        super().__init__(lib.peft_context_free)
        _ok(lib.peft_context_create(None, byref(self.ptr)))
        _ok(lib.peft_context_set_threads(self.ptr, c_int32(threads)))
        if isa is not None:
            _ok(lib.peft_context_set_isa(self.ptr, isa.encode()))

    def isa(self):
        return lib.peft_context_isa(self.ptr).decode()

    def memory(self):
        now, peak = c_size_t(), c_size_t()
        lib.peft_context_memory(self.ptr, byref(now), byref(peak))
        return now.value, peak.value

    def inspect(self, path):
        return _json(lib.peft_inspect_json, self.ptr, path.encode())

    def options(self, schema, values):
        return None if values is None else Options(self, schema, values)


class Options(Handle):
    def __init__(self, ctx, schema, values):
        super().__init__(lib.peft_options_free, ctx)
        _ok(lib.peft_options_create(ctx.ptr, schema.encode(), byref(self.ptr)))
        text = json.dumps(values).encode()
        _ok(lib.peft_options_set_json(self.ptr, text, c_size_t(len(text))))


def _ptr(handle):
    return None if handle is None else handle.ptr


class Model(Handle):
    def __init__(self, ctx, path, **options):
        super().__init__(lib.peft_model_free, ctx)
        self.ctx = ctx
        o = ctx.options("model", options or None)
        _ok(lib.peft_model_open(ctx.ptr, path.encode(), _ptr(o), byref(self.ptr)))

    def info(self):
        return _json(lib.peft_model_info_json, self.ptr)

    def tensors(self):
        """{name: (dtype, shape)}"""
        out = {}
        for i in range(lib.peft_model_tensor_count(self.ptr)):
            dtype = c_int32()
            name, shape = _tensor_shape(lib.peft_model_tensor_info, self.ptr, c_size_t(i), [byref(dtype)])
            out[name] = (dtype.value, shape)
        return out

    def read(self, name):
        return _floats(lib.peft_model_tensor_read, self.ptr, name.encode())


class Tokenizer(Handle):
    SPECIAL, BOS_EOS = 1, 2

    def __init__(self, ctx, path):
        super().__init__(lib.peft_tokenizer_free, ctx)
        _ok(lib.peft_tokenizer_open(ctx.ptr, path.encode(), byref(self.ptr)))

    def encode(self, text, flags=0):
        raw, needed = text.encode(), c_size_t()
        ids = (c_int32 * (len(raw) + 16))()
        _ok(lib.peft_tokenizer_encode(self.ptr, raw, c_size_t(len(raw)), c_int32(flags), ids, c_size_t(len(ids)),
                                      byref(needed)))
        return list(ids[:needed.value])

    def decode(self, ids, flags=0):
        a = (c_int32 * len(ids))(*ids)
        return _text(lib.peft_tokenizer_decode, self.ptr, a, c_size_t(len(ids)), c_int32(flags)).decode()

    def info(self):
        return _json(lib.peft_tokenizer_info_json, self.ptr)


class Adapters(Handle):
    def __init__(self, model):
        super().__init__(lib.peft_adapters_free, model)
        self.ctx, self.model = model.ctx, model
        _ok(lib.peft_adapters_create(model.ptr, byref(self.ptr)))

    def add(self, name, method, options=None, seed=1):
        o = self.ctx.options("method:" + method, options)
        _ok(lib.peft_adapters_add(self.ptr, name.encode(), method.encode(), _ptr(o), c_uint64(seed)))

    def init(self, name, ids):
        _ok(lib.peft_adapters_init(self.ptr, name.encode(), (c_int32 * len(ids))(*ids), c_size_t(len(ids))))

    def load(self, name, path):
        _ok(lib.peft_adapters_load(self.ptr, name.encode(), path.encode(), None))

    def save(self, name, path, **options):
        o = self.ctx.options("save", options or None)
        _ok(lib.peft_adapters_save(self.ptr, name.encode(), path.encode(), _ptr(o)))

    def merge(self, expression, path, **options):
        o = self.ctx.options("merge", options or None)
        _ok(lib.peft_adapters_merge(self.ptr, expression.encode(), path.encode(), _ptr(o)))

    def combine(self, name, expression, **options):
        o = self.ctx.options("combine", options or None)
        _ok(lib.peft_adapters_combine(self.ptr, name.encode(), expression.encode(), _ptr(o)))

    def info(self, name):
        return _json(lib.peft_adapters_info_json, self.ptr, name.encode())

    def shapes(self, name):
        n = lib.peft_adapters_tensor_count(self.ptr, name.encode())
        return dict(_tensor_shape(lib.peft_adapters_tensor_info, self.ptr, name.encode(), c_size_t(i), [])
                    for i in range(n))

    def read(self, name, tensor):
        return _floats(lib.peft_adapters_tensor_read, self.ptr, name.encode(), tensor.encode())

    def write(self, name, tensor, values):
        import numpy
        v = numpy.ascontiguousarray(values, numpy.float32).reshape(-1)
        _ok(lib.peft_adapters_tensor_write(self.ptr, name.encode(), tensor.encode(),
                                           v.ctypes.data_as(POINTER(c_float)), c_size_t(v.size)))


def _rows(rows):
    offsets = [0]
    for row in rows:
        offsets.append(offsets[-1] + len(row))
    flat = [x for row in rows for x in row]
    return (c_int32 * len(flat))(*flat), (c_int64 * len(offsets))(*offsets), c_size_t(len(rows))


class Batch(Handle):
    """rows, labels, types: lists of lists of ids; tasks, row_labels: of each row; spans: pairs; targets: lists of numbers;
    sources: what an encoder reads."""

    def __init__(self, ctx, rows, labels=None, tasks=None, types=None, row_labels=None, spans=None, targets=None,
                 sources=None):
        super().__init__(lib.peft_batch_free, ctx)
        _ok(lib.peft_batch_create(ctx.ptr, byref(self.ptr)))
        for key, values in (("input_ids", rows), ("labels", labels), ("token_type_ids", types)):
            if values is not None:
                _ok(lib.peft_batch_set_i32(self.ptr, key.encode(), *_rows(values)))
        if sources is not None:
            _ok(lib.peft_batch_set_i32(self.ptr, b"source_ids", *_rows(sources)))
        for key, values in (("task_id", tasks), ("row_labels", row_labels), ("spans", spans)):
            if values is not None:
                flat = [x for v in values for x in (v if isinstance(v, (list, tuple)) else [v])]
                _ok(lib.peft_batch_set_i32(self.ptr, key.encode(), (c_int32 * len(flat))(*flat), None, c_size_t(len(values))))
        if targets is not None:
            flat, offsets, n = [x for row in targets for x in row], _rows([[0] * len(row) for row in targets])[1], len(targets)
            _ok(lib.peft_batch_set_f32(self.ptr, b"targets", (c_float * len(flat))(*flat), offsets, c_size_t(n)))


class Dataset(Handle):
    def __init__(self, ctx, tokenizer=None, **options):
        super().__init__(lib.peft_dataset_free, ctx, tokenizer)
        self.ctx = ctx
        o = ctx.options("dataset", options or None)
        _ok(lib.peft_dataset_create(ctx.ptr, _ptr(tokenizer), _ptr(o), byref(self.ptr)))

    def load(self, path):
        _ok(lib.peft_dataset_load_jsonl(self.ptr, path.encode()))
        return self

    def add(self, row):
        text = json.dumps(row).encode()
        _ok(lib.peft_dataset_add_json(self.ptr, text, c_size_t(len(text))))

    def add_rows(self, rows, labels=None):
        batch = Batch(self.ctx, rows, labels)  # named, so that it lives during the call
        _ok(lib.peft_dataset_add(self.ptr, batch.ptr))
        return self

    def info(self):
        return _json(lib.peft_dataset_info_json, self.ptr)

    def size(self):
        return lib.peft_dataset_size(self.ptr)


class Trainer(Handle):
    def __init__(self, adapters, name, train=None, evaluate=None, optimizer=None, **options):
        super().__init__(lib.peft_trainer_free, adapters, train, evaluate)
        self.ctx, self.name, self._progress = adapters.ctx, name, None
        o = self.ctx.options("trainer", options or None)
        p = self.ctx.options("optimizer", optimizer)
        _ok(lib.peft_trainer_create(adapters.ptr, _ptr(o), byref(self.ptr)))
        _ok(lib.peft_trainer_add_job(self.ptr, name.encode(), _ptr(train), _ptr(evaluate), _ptr(p)))

    def plan(self):
        return _json(lib.peft_trainer_plan_json, self.ptr)

    def run(self, each=None):
        """Trains to the end; the steps as a list of dicts. each: called with every one of them."""
        log = []

        def note(_user, info):
            step = StepInfo.from_address(info)
            log.append({k: getattr(step, k) for k, _ in StepInfo._fields_})
            if each is not None:
                each(log[-1])
            return 0

        self._progress = PROGRESS(note)
        _ok(lib.peft_trainer_set_progress(self.ptr, self._progress, None))
        _ok(lib.peft_trainer_run(self.ptr))
        return log

    def accumulate(self, batch):
        loss = c_double()
        _ok(lib.peft_trainer_accumulate(self.ptr, batch.ptr, byref(loss)))
        return loss.value

    def apply(self):
        _ok(lib.peft_trainer_apply(self.ptr))

    def gradient(self, tensor):
        return self.gradient_of(self.name, tensor)

    def gradient_of(self, adapter, tensor):
        return _floats(lib.peft_trainer_gradient_read, self.ptr, adapter.encode(), tensor.encode())

    def evaluate(self, dataset):
        return _json(lib.peft_trainer_evaluate, self.ptr, dataset.ptr)


class Session(Handle):
    def __init__(self, model, adapters=None, expression=None, **options):
        super().__init__(lib.peft_session_free, model, adapters)
        self.ctx = model.ctx
        o = self.ctx.options("session", options or None)
        _ok(lib.peft_session_create(model.ptr, _ptr(adapters), None if expression is None else expression.encode(),
                                    _ptr(o), byref(self.ptr)))

    def logits(self, *rows, tasks=None):
        """[tokens, vocabulary] of the rows, end to end."""
        batch = Batch(self.ctx, rows, tasks=tasks)
        return _floats(lib.peft_session_logits, self.ptr, batch.ptr).reshape(sum(map(len, rows)), -1)

    def batch_logits(self, batch):
        """The same of a batch, flat."""
        return _floats(lib.peft_session_logits, self.ptr, batch.ptr)

    def set_adapters(self, expression):
        _ok(lib.peft_session_set_adapters(self.ptr, expression.encode()))

    def evaluate(self, dataset):
        return _json(lib.peft_session_evaluate, self.ptr, dataset.ptr)

    def generate(self, ids, max_new_tokens, **options):
        o = self.ctx.options("generate", dict(options, max_new_tokens=max_new_tokens))
        a, out, needed = (c_int32 * len(ids))(*ids), (c_int32 * (max_new_tokens + 1))(), c_size_t()
        _ok(lib.peft_session_generate(self.ptr, None, a, c_size_t(len(ids)), o.ptr, None, None, out,
                                      c_size_t(len(out)), byref(needed)))
        return list(out[:needed.value])
