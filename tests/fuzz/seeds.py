#!/usr/bin/env python3
"""seeds.py OUT - writes what fuzzing may begin from: OUT/corpus/TARGET/NAME, for `make fuzz` and then keep.py to choose from.

Texts come from the unit tests' sources, as the preprocessor leaves them; adapters and models are written by the library, through its
Python binding (LIBPEFT_LIBRARY, PYTHONPATH=bindings/python); binary files by hand. Always the same files.
"""
import hashlib
import json
import pathlib
import re
import struct
import subprocess
import sys
import tempfile

CUT = "\n%%\n"
OUT = pathlib.Path(sys.argv[1])


def put(target, content):
    data = content.encode() if isinstance(content, str) else content
    if len(data) <= 4096:
        folder = OUT / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ("seed-" + hashlib.sha1(data).hexdigest()[:12])).write_bytes(data)


# ---- texts of the unit tests ---------------------------------------------------------------------------------------


def literals(pattern):
    """All string literals of the tests, joined as the compiler does, macros replaced."""
    escapes = {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}

    def unescape(m):
        if m.group(1):
            return chr(int(m.group(1), 16))
        return escapes.get(m.group(2), m.group(2))

    for path in sorted(pathlib.Path("tests/unit").glob(pattern)):
        text = subprocess.run(["cc", "-E", "-P", "-Iinclude", "-Ilib", "-Itests", path], check=True, capture_output=True).stdout.decode()
        for run in re.findall(r'(?:"(?:[^"\\\n]|\\.)*"\s*)+', text):
            parts = re.findall(r'"((?:[^"\\\n]|\\.)*)"', run)
            raw = "".join(re.sub(r"\\(?:x([0-9A-Fa-f]{1,2})|(.))", unescape, p) for p in parts)
            if all(ord(c) < 256 for c in raw):
                yield raw.encode("latin-1")


def texts():
    for s in set(literals("text_*_test.c")):
        if s.startswith(b"{") and b'"model"' in s:
            put("tokenizer", b"j" + s + CUT.encode() + b'{"eos_token":"</s>","add_bos_token":true}' + CUT.encode() + b"ab <s>")
            put("tokenizer", b"j" + s + CUT.encode() * 2 + b" a\xc3\xa9 12 Ab's")
        if b"<|" in s or b"[INST]" in s or b"<start_of_turn>" in s:
            put("tokenizer", b'c[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":"b"}]' + CUT.encode() + s)
    for s in set(literals("*_test.c")):
        if s.startswith(b'{"model_type"') or s.startswith(b'{"architectures"'):
            put("config", s)
        if s.startswith((b"{", b"[")) and len(s) < 600:
            put("json", s)
    tasks = {b"source": "seq2seq_lm", b"anchor": "embedding", b"question": "question_answering", b"tokens": "token_classification"}
    for s in set(literals("train_rows*_test.c")) | set(literals("train_answers_test.c")):
        if s.startswith(b"{") and b"'" not in s[:3]:
            task = next((t for k, t in tasks.items() if b'"' + k + b'"' in s), None)
            put("jsonl", json.dumps({"task": task} if task else {}).encode() + CUT.encode() + s + b"\n")
            put("jsonl", b'{"task":"masked_lm","max_length":6}' + CUT.encode() + s + b"\n" + s)
    for options, rows in (
        ({"prompt_template": "{a.0}: {b}\\n{{", "completion_template": " {c}"}, '{"a":["x"],"b":1.5,"c":"ab"}\n{"a":[true],"b":null,"c":"c"}'),
        ({"verbalizer": {"yes": " a", "no": " b"}}, '{"text":"ab","label":"yes"}\n{"prompt":"abc","label":1}'),
        ({"packing": True, "max_length": 5}, '{"text":"ab"}\n{"text":"abc ab"}\n\n{"input_ids":[1,2,3,4,5,6]}'),
        ({"truncation": "left", "max_length": 3, "loss_on": "all"}, '{"prompt":"ab ab","completion":"abc"}'),
        ({}, '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}'),
        ({"task": "sequence_classification"}, '{"text":"a","text_pair":"b","label":[1,0.5]}\n{"text":"a","label":0.25}'),
    ):
        put("jsonl", json.dumps(options) + CUT + rows)


# ---- small languages and files of text -------------------------------------------------------------------------------


def small():
    for text in ("a", "a, b", "0.5 * a", "a:0.5, b:-1", "stack(a, n)", "average(a:3, b:1)", "split(a:2, b)", "parallel(a, n)", "p, a",
                 "batch_split(a:1, b:1)", "fuse(n, n)", "freeze(a), b", "stack(average(a, b), parallel(n, i))", "a:1e308", "-0 * i", ""):
        put("expression", "e" + text)
        put("expression", "c" + text)
    for pattern in ("q_proj,v_proj", "all-linear", '["q_proj"]', r".*\.[0-1]\.self_attn\.(q|v)_proj", "model.layers.(0|1).mlp.+", "^.*k_proj$",
                    "[^a-m]{2,5}_proj", r"\w+?\d*", "(a*)*b", "a{0,3}?[]x]", "lm_head"):
        put("expression", "t" + pattern)
        put("expression", "r" + pattern + CUT + "model.layers.0.self_attn.q_proj")
    for jobs in (
        {"jobs": [{"name": "a", "method": "lora", "data": "rows.jsonl", "options": {"r": 4, "target_modules": ["q_proj"]}}]},
        {"jobs": [{"name": "a", "adapter": "dir", "compose": "b, a", "data": "d", "eval": "e", "share": 2}],
         "adapters": {"b": {"method": "lora", "options": {"rank_pattern": {"q": 2}}}}, "options": {"max_steps": 10, "x": None}},
        {"jobs": [{"name": "a/b", "data": ""}], "job": 1},
    ):
        put("jobs", json.dumps(jobs))
        put("jobs", json.dumps(jobs, indent=2).replace('"a"', '"\\u0061\\ud83d\\ude00"'))
    schema, number, lines = "", -1, []
    for line in pathlib.Path("docs/options.md").read_text().splitlines() + ["## end"]:
        if line.startswith("## "):
            if lines:
                put("options", chr(ord("A") + number) + "\n".join(lines))
            schema, lines, number = line[3:], [], number + 1
        m = re.match(r"\| `(\w+)` \| (\w+) \| (`[^|]*`|unset) ", line)
        if m and schema:
            lines.append(f"{m[1]}={m[3].strip('`').replace('unset', 'a')}")
            lines += {"list": [m[1] + '=a,b', m[1] + '=["x", 3]'], "map": [m[1] + '={"a": 2}', m[1] + '=a=x,b="y z"'], "size": [m[1] + "=1.5GiB"],
                      "int": [m[1] + "=i-1", json.dumps({m[1]: 3})], "float": [m[1] + "=f0.5"]}.get(m[2], [m[1] + "=sx"])
    state = {"version": 1, "adapter": "x", "method": "lora", "optimizer": "adamw", "parameters": 32, "rows": 3, "tokens": 9, "seed": 42,
             "step": 1, "optimizer_step": 1, "epoch": 0, "position": 2, "layout": 7777, "data": 8888, "order": 1, "accumulated_rows": 0,
             "state": 0, "worse": 0, "best_loss": None, "accumulated": 0, "accumulated_loss": 0}
    for change in ({}, {"step": 4, "position": 3}, {"best_loss": 1.5}, {"version": 2, "jobs": []}, {"step": 2**63 - 1}, {"state": 2}):
        put("checkpoint", "s" + json.dumps({**state, **change}).replace("7777", "@L").replace("8888", "@D"))


def calls():
    """Lives of the machine of api.c, in its own code."""
    rows = [7, 0, 0, 1, 7, 0, 0, 1, 7, 0, 1, 1]
    data = [6, 0, 1, 2] + rows
    trainer = [0, 0, 0, 9, 0, 0, 1, 10, 0, 0, 0, 0, 0, 2]
    batch = [8, 0, 2, 0, 0, 3, 2, 1, 2, 3, 4, 5]
    for model in range(4):
        for method in range(0, 30, 3):
            add = [1, 0, method, 0, 1, 1, 0, 0]
            put("api", bytes([model] + add + data + trainer + [10, 0, 1, 11, 0, 2, 12, 0, 7, 10, 0, 8, 10, 0, 6, 17, 0]))
            put("api", bytes([model] + add + batch + [13, 0, 2, 2, 14, 0, 3, 0, 0, 15, 0, 3, 3, 2, 2, 16, 0, 3, 5, 2, 16, 0, 2, 6, 2, 0, 0, 2, 3, 1, 0, 2]))
            put("api", bytes([model] + add + [2, 0, method % 4, 2, 3, 2, method % 4, 2, 4, 0, method % 2, 2, 5, 2, 1, 2, 2, 18, 0, 5, 18, 0, 6]))
        put("api", bytes([model, 1, 0, 0, 0, 13, 0, 2, 2] + [14, 0, 3, 8, 0, 0, 4, 2, 2] * 3 + [14, 0, 3, 8, 2, 14, 0, 3, 8, 3, 14, 0, 0, 8, 1, 0]))
        put("api", bytes([model, 1, 0, 0, 0] + batch + [0, 0, 1, 9, 0, 0, 1, 10, 0, 0, 0, 0, 0, 2, 10, 0, 3, 0, 10, 0, 4, 10, 0, 5, 0]))


# ---- binary files ----------------------------------------------------------------------------------------------------


def safetensors(tensors, metadata=None):
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def gguf(values, tensors=()):
    def string(s):
        raw = s if isinstance(s, bytes) else s.encode()
        return struct.pack("<Q", len(raw)) + raw

    def value(v):
        if isinstance(v, bool):
            return struct.pack("<I?", 7, v)
        if isinstance(v, int):
            return struct.pack("<II", 4, v)
        if isinstance(v, float):
            return struct.pack("<If", 6, v)
        if isinstance(v, list):
            items = [value(x) for x in v]
            kind = 5 if v and isinstance(v[0], int) else struct.unpack("<I", items[0][:4])[0] if items else 8
            return struct.pack("<IIQ", 9, kind, len(v)) + b"".join(x[4:] for x in items)
        return struct.pack("<I", 8) + string(v)

    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)) + b"".join(string(k) + value(v) for k, v in values.items())
    data = b""
    for name, kind, dims, content in tensors:
        out += string(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims) + struct.pack("<IQ", kind, len(data))
        data += content + b"\0" * (-len(content) % 32)
    return out + b"\0" * (-len(out) % 32) + data


def spiece(model_type, pieces, more=b""):
    def field(number, wire, content):
        return bytes([number << 3 | wire]) + content

    def message(number, content):
        return field(number, 2, bytes([len(content) & 127 | 128, len(content) >> 7]) + content)

    out = b""
    for text, score, kind in pieces:
        out += message(1, message(1, text.encode()) + field(2, 5, struct.pack("<f", score)) + field(3, 0, bytes([kind])))
    return out + message(2, field(3, 0, bytes([model_type]))) + message(3, field(3, 0, b"\1") + field(4, 0, b"\1") + more)


def binaries():
    put("safetensors", safetensors({"a": ("F32", [2, 3], bytes(24)), "b": ("BF16", [], bytes(2)), "c": ("I64", [1], bytes(8))}, {"format": "pt"}))
    put("safetensors", safetensors({"w": ("F16", [0, 4], b""), "x": ("F8_E4M3", [4], bytes(4)), "y": ("BOOL", [1, 1, 3], bytes(3))}))
    put("safetensors", safetensors({}))
    tokens = ["<unk>", "<s>", "</s>", "<0x61>", "\u2581", "a", "b", "\u2581a", "ab"]
    kinds = [2, 3, 3, 6, 1, 1, 1, 1, 1]
    for model, extra in (("llama", {}), ("t5", {}), ("gpt2", {"tokenizer.ggml.merges": ["a b", "\u2581 a"], "tokenizer.ggml.pre": "llama-bpe"}),
                         ("bert", {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.token_type_count": 2})):
        values = {"general.architecture": "llama", "tokenizer.ggml.model": model, "tokenizer.ggml.tokens": tokens,
                  "tokenizer.ggml.scores": [-float(i) for i in range(9)], "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.bos_token_id": 1,
                  "tokenizer.ggml.eos_token_id": 2, "tokenizer.chat_template": "<|im_start|>system\nx<|im_end|>", **extra}
        put("tokenizer", b"g" + gguf(values))
        put("gguf", gguf(values))
    put("gguf", gguf({"general.alignment": 32, "a": [1.5, 2.0], "b": [True], "c": [], "d": ["x", ""], "e": [1, 2]},
                     [("t", 0, [2, 2], bytes(16)), ("q", 8, [32], bytes(34)), ("k", 12, [256], bytes(144))]))
    for kind in (1, 2):
        pieces = list(zip(tokens, [0, 0, 0, 0, -2, -3, -3, -1, -1.5], kinds))
        charsmap = struct.pack("<I", 16) + bytes(16) + b"\0a\0"
        for more in (b"", bytes([2 << 3 | 2, len(charsmap)]) + charsmap):
            put("tokenizer", b"s{}" + CUT.encode() + b" ab a" + CUT.encode() + spiece(kind, pieces, more))
    put("tokenizer", 'v{"a":0,"b":1,"ab":2,"\u0120":3,"<x>":4}' + CUT + "#version: 0.2\na b\n" + CUT + '{"eos_token":{"content":"<x>"}}' + CUT + "ab <x>")
    put("tokenizer", "b" + "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "ab", "!", "\u4e2d"]) + CUT +
        '{"do_lower_case":false,"tokenizer_class":"BertTokenizer"}' + CUT + "AB a! \u4e2d")


# ---- what the library writes -----------------------------------------------------------------------------------------

# As in fuzz.c.
LLAMA = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "vocab_size": 14, "max_position_embeddings": 48, "rms_norm_eps": 1e-5, "hidden_act": "silu",
         "eos_token_id": 12, "tie_word_embeddings": False}
GPT2 = {"model_type": "gpt2", "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 48, "vocab_size": 14,
        "activation_function": "gelu_new", "bos_token_id": 12, "eos_token_id": 12}
CHOICES = {"r": 1, "init_r": 2, "target_r": 1, "tinit": 0, "tfinal": 1, "total_step": 3, "layers_to_transform": [0], "num_virtual_tokens": 1, "encoder_hidden_size": 2,
           "reduction_factor": 8, "leave_out": [1], "token_indices": [3],
           "prefix_length": 1, "bottleneck_size": 2, "boft_block_size": 2,
           "oft_block_size": 4, "phm_dim": 2, "num_tasks": 2}


def written():
    import libpeft  # only here: the rest needs no library

    work = pathlib.Path(tempfile.mkdtemp())
    for letter, config in (("l", LLAMA), ("2", GPT2)):
        model = libpeft.Model.random(config, 3)
        for method in libpeft.methods():
            adapters = model.adapters()
            known = {o.key for o in libpeft.options("method:" + method)}
            options = {k: v for k, v in CHOICES.items() if k in known}
            for some in (options, {k: v for k, v in options.items() if k != "layers_to_transform"}, {}):
                place = work / f"{letter}-{method}-{len(some)}"
                try:
                    adapters.add("x", method, **some)
                    adapters["x"].save(place)
                except libpeft.Error:
                    continue
                pack(letter, place)
                try:
                    adapters["x"].save(work / "x.gguf")
                    put("adapter", b"g" + letter.encode() + (work / "x.gguf").read_bytes())
                except libpeft.Error:
                    pass
                break
    tiny = {**LLAMA, "intermediate_size": 8, "num_hidden_layers": 1}
    adapters = libpeft.Model.random(tiny, 1).adapters()
    adapters.add("x", r=1)  # changes nothing yet: the file is the model's own
    adapters.merge(work / "m.gguf", dtype="float16")
    put("gguf", (work / "m.gguf").read_bytes())


def pack(letter, place):
    """A folder of an adapter as one input."""
    names = {p.name: p.read_bytes() for p in place.iterdir()}
    cut = CUT.encode()
    if "adapter_model.safetensors" in names:
        put("adapter", b"h" + letter.encode() + names["adapter_config.json"] + cut + names["adapter_model.safetensors"])
        put("safetensors", names["adapter_model.safetensors"])
    if "adapter.safetensors" in names:
        head = names.get("head_config.json", b"")
        put("adapter", b"a" + letter.encode() + names["adapter_config.json"] + cut + head + cut + names["adapter.safetensors"])


for part in (texts, small, calls, binaries, written):
    part()
