#!/usr/bin/env python3
"""T5 in GGUF files and with its tokenizer: small random T5 (1.0, 1.1, other sizes) models that the library writes, read by itself and by
llama.cpp; files that the gguf package writes with llama.cpp's names, read by the library; a unigram vocabulary that goes along; and
the tool, which trains on texts and generates, beside transformers.

Usage: test_t5_gguf.py (BUILD has libpeft.so, PEFT is the tool, PEFT_TESTDATA has models/)
"""
import ctypes
import json
import os
import shutil
import subprocess
import tempfile

import gguf
import llama_cpp
import numpy as np
import torch
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration, T5TokenizerFast

import hf
import peftlib
from checks import DATA, check, close, equal, main
from test_seq2seq import rows, theirs_logits

TOOL = os.environ.get("PEFT", os.path.join(peftlib.ROOT, "build", "peft"))
SPIECE = os.path.join(DATA, "models", "tokenizers", "spm-unigram-test", "test_model.model")
VOCAB = 320
SIZES = dict(vocab_size=VOCAB, d_model=64, d_kv=24, d_ff=96, num_layers=3, num_heads=4, decoder_start_token_id=0, dropout_rate=0.0)
MODELS = {  # changes; what llama.cpp may differ by, which reads GELU from a table of half floats; None: it does not load such models
    "t5": ({}, 1e-5),
    "t5, fewer decoder layers": (dict(num_decoder_layers=2, relative_attention_num_buckets=16, layer_norm_epsilon=1e-5), 1e-5),
    "t5, more decoder layers": (dict(num_decoder_layers=4, decoder_start_token_id=7), None),
    "t5 1.1": (dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False), 3e-3),
}
F32 = 0  # ggml_type


def make(top, name, seed, **more):
    model = hf.make((T5ForConditionalGeneration, T5Config(**{**SIZES, **MODELS[name][0], **more})), seed)
    path = os.path.join(top, name.replace(" ", "_").replace(",", "") + str(seed))
    model.save_pretrained(path)
    return model, path


class Llama:
    """A model in llama.cpp, whose cache holds floats so that only its arithmetic is compared."""

    def __init__(self, path):
        llama_cpp.llama_backend_init()
        self.keep = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self.keep, ctypes.c_void_p(0))
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError("llama.cpp does not load %s" % path)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.start = llama_cpp.llama_model_decoder_start_token(self.model)

    def close(self):
        llama_cpp.llama_model_free(self.model)

    def _run(self, call, ctx, ids):
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
            batch.seq_id[i][0] = 0
        code = call(ctx, batch)
        llama_cpp.llama_batch_free(batch)
        if code != 0:
            raise RuntimeError("%s says %d" % (call.__name__, code))

    def logits(self, source, target, lora=None):
        p = llama_cpp.llama_context_default_params()
        p.n_ctx = p.n_batch = p.n_ubatch = 256
        p.n_threads = p.n_threads_batch = 1
        p.type_k = p.type_v = F32
        p.flash_attn_type = 0
        ctx = llama_cpp.llama_init_from_model(self.model, p)
        if lora is not None:
            scales, adapters = (ctypes.c_float * 1)(1.0), (llama_cpp.llama_adapter_lora_p_ctypes * 1)(lora)
            llama_cpp.llama_set_adapters_lora(ctx, adapters, 1, scales)
        self._run(llama_cpp.llama_encode, ctx, source)
        self._run(llama_cpp.llama_decode, ctx, target)
        out = [np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(ctx, i), (self.size,)).copy() for i in range(len(target))]
        llama_cpp.llama_free(ctx)
        return np.array(out)

    def encode(self, text):
        raw = text.encode()
        out = (ctypes.c_int32 * (len(raw) + 16))()
        n = llama_cpp.llama_tokenize(self.vocab, raw, len(raw), out, len(out), True, False)
        return list(out[:n])

    def greedy(self, source, count, ends):
        made = [self.start]
        while len(made) <= count and made[-1] != ends:
            made.append(int(self.logits(source, made)[-1].argmax()))
        return made[1:]


def batch(ctx):
    # Distances up to and beyond 128, where buckets end.
    sources, targets = rows(2, (5, 17, 33, 1, 150)), rows(3, (4, 12, 7, 1, 160))
    return sources, targets, peftlib.Batch(ctx, targets, sources=sources)


def in_llama_cpp(name, path, sources, targets, expected, allowed):
    if allowed is None:
        try:
            Llama(path)
            told = "it does"
        except RuntimeError as error:
            told = str(error)
        check("%s: llama.cpp does not load it" % name, "does not load" in told, told if told == "it does" else "")
        return
    model = Llama(path)
    out = np.concatenate([model.logits(s, t) for s, t in zip(sources, targets)])
    model.close()
    close("%s in llama.cpp" % name, out, expected, allowed)


def written():
    with tempfile.TemporaryDirectory() as top:
        ctx = peftlib.Context(threads=1)
        sources, targets, both = batch(ctx)
        for seed, (name, (_, allowed)) in enumerate(MODELS.items()):
            model, path = make(top, name, seed)
            file, again, back = path + ".gguf", path + ".again.gguf", path + ".back"
            base = peftlib.Model(ctx, path)
            peftlib.Adapters(base).merge("", file)
            here = peftlib.Session(base).batch_logits(both).reshape(-1, VOCAB)
            close("%s: logits" % name, here, theirs_logits(model, sources, targets), 1e-5)
            ours = peftlib.Model(ctx, file)
            close("%s: its GGUF" % name, peftlib.Session(ours).batch_logits(both), here, 1e-6)
            in_llama_cpp("%s: its GGUF" % name, file, sources, targets, here, allowed)
            peftlib.Adapters(ours).merge("", again)
            check("%s: its GGUF written again is the same file" % name, open(file, "rb").read() == open(again, "rb").read())
            peftlib.Adapters(ours).merge("", back)
            folder = T5ForConditionalGeneration.from_pretrained(back).eval()
            close("%s: its GGUF as a folder, in transformers" % name, theirs_logits(folder, sources, targets), here, 1e-5)
            equal("%s: that folder's decoder begins alike" % name, folder.config.decoder_start_token_id,
                  model.config.decoder_start_token_id)
            equal("%s: that folder's head is tied, or not" % name, folder.config.tie_word_embeddings, model.config.tie_word_embeddings)
            quantised = path + ".q8.gguf"
            peftlib.Adapters(base).merge("", quantised, dtype="q8_0")
            rough = peftlib.Session(peftlib.Model(ctx, quantised)).batch_logits(both)
            close("%s: as Q8_0" % name, rough, here, 0.1)
            in_llama_cpp("%s: as Q8_0" % name, quantised, sources, targets, rough, allowed and 0.1)
            kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(quantised).tensors}
            equal("%s: types of a table of biases and of a matrix" % name,
                  (kinds["enc.blk.0.attn_rel_b.weight"], kinds["dec.blk.1.cross_attn_o.weight"]), ("F32", "Q8_0"))


def random_lora(set_, name, targets):
    set_.add(name, "lora", {"r": 4, "target_modules": targets})
    rng = np.random.default_rng(4)
    for tensor, shape in set_.shapes(name).items():
        set_.write(name, tensor, (rng.standard_normal(shape) * 0.1).astype(np.float32))


def merged():
    """A LoRA on every matrix, and one on a tied head, which then has a matrix of its own and no factor any more."""
    with tempfile.TemporaryDirectory() as top:
        ctx = peftlib.Context(threads=1)
        sources, targets, both = batch(ctx)
        for name, what in (("t5", "all-linear"), ("t5", "lm_head"), ("t5 1.1", "all-linear")):
            _, path = make(top, name, 11)
            base = peftlib.Model(ctx, path)
            set_ = peftlib.Adapters(base)
            random_lora(set_, "a", what)
            here = peftlib.Session(base, set_, "a").batch_logits(both).reshape(-1, VOCAB)
            plain = peftlib.Session(base).batch_logits(both).reshape(-1, VOCAB)
            check("%s, LoRA on %s: changes the logits" % (name, what), np.abs(here - plain).max() > 0.02 * np.abs(plain).max())
            set_.merge("a", path + ".gguf")
            set_.merge("a", path + ".merged")
            folder = T5ForConditionalGeneration.from_pretrained(path + ".merged").eval()
            close("%s, LoRA on %s: merged folder in transformers" % (name, what), theirs_logits(folder, sources, targets), here, 3e-5)
            equal("%s, LoRA on %s: what the GGUF says of the head" % (name, what),
                  (peftlib.Model(ctx, path + ".gguf").info()["tie_word_embeddings"], "peft.tied_head" in gguf.GGUFReader(path + ".gguf").fields),
                  (name == "t5" and what != "lm_head",) * 2)
            close("%s, LoRA on %s: merged GGUF" % (name, what),
                  peftlib.Session(peftlib.Model(ctx, path + ".gguf")).batch_logits(both), here, 3e-5)
            in_llama_cpp("%s, LoRA on %s: merged GGUF" % (name, what), path + ".gguf", sources, targets, here, MODELS[name][1])


def lora_file():
    """A LoRA file of llama.cpp over a base that is not merged; which a tied head has no place in."""
    with tempfile.TemporaryDirectory() as top:
        ctx = peftlib.Context(threads=1)
        sources, targets, both = batch(ctx)
        for name in ("t5", "t5 1.1"):
            _, path = make(top, name, 20)
            base = peftlib.Model(ctx, path)
            set_ = peftlib.Adapters(base)
            random_lora(set_, "a", "all-linear")
            here = peftlib.Session(base, set_, "a").batch_logits(both).reshape(-1, VOCAB)
            set_.merge("", path + ".gguf")
            set_.save("a", path + ".lora.gguf")
            model = Llama(path + ".gguf")
            lora = llama_cpp.llama_adapter_lora_init(model.model, (path + ".lora.gguf").encode())
            out = np.concatenate([model.logits(s, t, lora) for s, t in zip(sources, targets)])
            model.close()
            close("%s: LoRA file in llama.cpp" % name, out, here, MODELS[name][1])
            other = peftlib.Adapters(peftlib.Model(ctx, path + ".gguf"))
            other.load("a", path + ".lora.gguf")
            close("%s: LoRA file over the GGUF" % name, peftlib.Session(other.model, other, "a").batch_logits(both), here, 1e-5)
        random_lora(set_, "h", "lm_head")
        set_.save("h", path + ".head.gguf")
        equal("t5 1.1: LoRA file of its own head", sorted(t.name for t in gguf.GGUFReader(path + ".head.gguf").tensors),
              ["output.weight.lora_a", "output.weight.lora_b"])
        _, path = make(top, "t5", 20)
        set_ = peftlib.Adapters(peftlib.Model(ctx, path))
        random_lora(set_, "h", "lm_head")
        try:
            set_.save("h", path + ".head.gguf")
            told = "nothing"
        except peftlib.Error as error:
            told = str(error)
        check("t5: no LoRA file of a tied head", told.startswith("PEFT_E_UNSUPPORTED"), told[:90])


def spiece_tokens(size):
    """What llama.cpp's converter writes of a SentencePiece model for a table of `size` rows."""
    spm = SentencePieceProcessor(model_file=SPIECE)
    kind = gguf.TokenType
    tokens, scores = [("[PAD%d]" % i).encode() for i in range(size)], [-10000.0] * size
    types = [kind.UNUSED] * size
    for i in range(spm.vocab_size()):
        tokens[i], scores[i] = spm.id_to_piece(i).encode(), spm.get_score(i)
        types[i] = kind.UNKNOWN if spm.is_unknown(i) else kind.CONTROL if spm.is_control(i) else kind.NORMAL
    return tokens, scores, types


def write_theirs(model, path, tokenizer):
    """A file as llama.cpp's converter makes it: names by the gguf package's own table."""
    c, w = model.config, gguf.GGUFWriter(path, "t5")
    w.add_context_length(512)
    w.add_embedding_length(c.d_model)
    w.add_feed_forward_length(c.d_ff)
    w.add_block_count(c.num_layers)
    w.add_decoder_block_count(c.num_decoder_layers)
    w.add_head_count(c.num_heads)
    w.add_key_length(c.d_kv)
    w.add_value_length(c.d_kv)
    w.add_layer_norm_eps(c.layer_norm_epsilon)
    w.add_relative_attn_buckets_count(c.relative_attention_num_buckets)
    w.add_layer_norm_rms_eps(c.layer_norm_epsilon)
    w.add_decoder_start_token_id(c.decoder_start_token_id)
    if tokenizer:
        spec = sentencepiece_model_pb2.ModelProto()
        spec.ParseFromString(open(SPIECE, "rb").read())
        tokens, scores, types = spiece_tokens(c.vocab_size)
        w.add_tokenizer_model("t5")
        w.add_tokenizer_pre("default")
        w.add_token_list(tokens)
        w.add_token_scores(scores)
        w.add_token_types(types)
        w.add_add_space_prefix(spec.normalizer_spec.add_dummy_prefix)
        w.add_remove_extra_whitespaces(spec.normalizer_spec.remove_extra_whitespaces)
        w.add_precompiled_charsmap(spec.normalizer_spec.precompiled_charsmap)
        w.add_unk_token_id(0)
        w.add_eos_token_id(2)
    else:
        w.add_tokenizer_model("none")
        w.add_vocab_size(c.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5, max(c.num_layers, c.num_decoder_layers))
    tied = model.config.tie_word_embeddings
    for name, value in model.state_dict().items():
        if "embed_tokens" not in name and not (tied and name.startswith("lm_head")):
            w.add_tensor(names.get_name(name, try_suffixes=(".weight",)), value.numpy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def theirs():
    with tempfile.TemporaryDirectory() as top:
        ctx = peftlib.Context(threads=1)
        sources, targets, both = batch(ctx)
        for seed, (name, (_, allowed)) in enumerate(MODELS.items()):
            model, path = make(top, name, 30 + seed)
            write_theirs(model, path + ".gguf", False)
            ours = peftlib.Model(ctx, path + ".gguf")
            expected = theirs_logits(model, sources, targets)
            close("%s: a converter's file" % name, peftlib.Session(ours).batch_logits(both).reshape(-1, VOCAB), expected, 1e-5)
            tied = model.config.tie_word_embeddings
            equal("%s: a converter's file is tied" % name, ours.info()["tie_word_embeddings"], tied)
            # llama.cpp leaves out the factor of tied heads, which does not change the likeliest token.
            times = model.config.d_model ** 0.5 if tied else 1.0
            in_llama_cpp("%s: a converter's file" % name, path + ".gguf", sources, targets, expected * times, allowed)
            peftlib.Adapters(ours).merge("", path + ".own.gguf")
            in_llama_cpp("%s: a converter's file, written again" % name, path + ".own.gguf", sources, targets, expected, allowed)


TEXTS = ["summarize: The sea is grey and the ship is old.", "I saw a girl with a telescope.", "  two   spaces ", "Ｆｕｌｌ ｗｉｄｔｈ ①",
         "don't\tstop", "été 漢字", "one\nline", "a", "translate English to German: good morning"]


def folder_with_tokenizer(top, seed=40, **more):
    """A random T5 with the vocabulary of SPIECE, 10 <extra_id_n> and rows that no token has, and its tokenizer."""
    model, path = make(top, "t5", seed, vocab_size=1024, eos_token_id=2, pad_token_id=0, **more)
    tokenizer = T5TokenizerFast(vocab_file=SPIECE, extra_ids=10, add_prefix_space=True, pad_token="<unk>", eos_token="</s>")
    tokenizer.save_pretrained(path)
    return model, path, tokenizer


def vocabulary():
    with tempfile.TemporaryDirectory() as top:
        ctx = peftlib.Context(threads=1)
        _, path, tokenizer = folder_with_tokenizer(top)
        file = path + ".gguf"
        peftlib.Adapters(peftlib.Model(ctx, path)).merge("", file)
        expected = [tokenizer(t)["input_ids"] for t in TEXTS]
        kept = peftlib.Tokenizer(ctx, path)
        ours = peftlib.Tokenizer(ctx, file)
        flags = peftlib.Tokenizer.BOS_EOS
        equal("folder: ids", [kept.encode(t, flags) for t in TEXTS], expected)
        equal("GGUF: ids", [ours.encode(t, flags) for t in TEXTS], expected)
        model = Llama(file)
        equal("GGUF: ids in llama.cpp", [model.encode(t) for t in TEXTS], expected)
        equal("GGUF: as many tokens as rows", model.size, 1024)
        model.close()
        # From the SentencePiece model alone, and in a converter's file.
        alone = path + ".alone"
        shutil.copytree(path, alone, ignore=shutil.ignore_patterns("tokenizer.json"))
        shutil.copy(SPIECE, os.path.join(alone, "spiece.model"))
        json.dump({"tokenizer_class": "T5Tokenizer", "extra_ids": 10}, open(os.path.join(alone, "tokenizer_config.json"), "w"))
        peftlib.Adapters(peftlib.Model(ctx, alone)).merge("", alone + ".gguf")
        known = [(t, e) for t, e in zip(TEXTS, expected) if tokenizer.unk_token_id not in e]
        check("spiece.model: most texts have known characters only", len(known) >= 5, str(len(known)))
        for what, where in (("spiece.model", alone), ("spiece.model in a GGUF", alone + ".gguf")):
            t = peftlib.Tokenizer(ctx, where)
            equal("%s: ids" % what, [t.encode(s, flags) for s, _ in known], [e for _, e in known])
        peftlib.Adapters(peftlib.Model(ctx, alone)).merge("", path + ".merged")
        check("spiece.model goes along into a merged folder",
              open(os.path.join(path + ".merged", "spiece.model"), "rb").read() == open(SPIECE, "rb").read())
        whole, path = make(top, "t5", 41, vocab_size=1024)
        write_theirs(whole, path + ".gguf", True)
        t = peftlib.Tokenizer(ctx, path + ".gguf")
        equal("a converter's vocabulary: ids", [t.encode(s, flags) for s, _ in known], [e for _, e in known])
        _, path, _ = folder_with_tokenizer(top, 42)
        small = hf.make((T5ForConditionalGeneration, T5Config(**{**SIZES, "vocab_size": 1000})), 42)
        small.save_pretrained(path)
        try:
            peftlib.Adapters(peftlib.Model(ctx, path)).merge("", path + ".gguf")
            told = "nothing"
        except peftlib.Error as error:
            told = str(error)
        check("more tokens than rows are refused", "the tokenizer has 1010 tokens, and the model 1000 rows" in told, told)


def tool(*args):
    done = subprocess.run([TOOL, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError("peft %s: code %d: %s" % (args[0], done.returncode, done.stderr.strip()[-500:]))
    return done.stdout


def generated(model, *more):
    out = []
    for prompt in TEXTS:
        said = json.loads(tool("generate", "--model", model, "--prompt", prompt, "--max-new", "12", "--temperature", "0", "--json", *more))
        out.append(said["text"])
    return out


def with_tool():
    with tempfile.TemporaryDirectory() as top:
        _, path, tokenizer = folder_with_tokenizer(top, 50)
        data = os.path.join(top, "rows.jsonl")
        with open(data, "w", encoding="utf-8") as f:
            for i in range(12):
                f.write(json.dumps({"prompt": TEXTS[i % len(TEXTS)], "completion": "The ship is grey."}) + "\n")
        adapter, merged = os.path.join(top, "adapter"), os.path.join(top, "merged")
        log = os.path.join(top, "log.jsonl")
        tool("train", "--model", path, "--data", data, "--task", "seq2seq_lm", "--method", "lora", "--set", "r=8", "--set",
             "target_modules=all-linear", "--set", "learning_rate=0.05", "--set", "max_steps=3", "--set", "batch_size=4", "--seed", "1",
             "--out", adapter, "--json-log", log, "--quiet")
        losses = [json.loads(line)["loss"] for line in open(log)]
        check("tool: three steps, and the loss falls", len(losses) == 3 and losses[2] < losses[0], str(losses))
        tool("merge", "--model", path, "--adapter", adapter, "--out", merged, "--quiet")
        tool("merge", "--model", path, "--adapter", adapter, "--out", merged + ".gguf", "--quiet")
        model = T5ForConditionalGeneration.from_pretrained(merged).eval()
        again = AutoTokenizer.from_pretrained(merged)
        ids = [torch.tensor([again(t)["input_ids"]]) for t in TEXTS]
        made = [model.generate(x, attention_mask=torch.ones_like(x), max_new_tokens=12, do_sample=False)[0].tolist() for x in ids]
        expected = [again.decode(m, skip_special_tokens=True) for m in made]
        check("tool: the texts are no empty ones", sum(len(t) > 3 for t in expected) > 5, str(expected[:3]))
        equal("tool: text with the adapter is transformers'", generated(path, "--adapter", adapter), expected)
        equal("tool: text of the merged folder", generated(merged), expected)
        equal("tool: text of the merged GGUF", generated(merged + ".gguf"), expected)
        llama = Llama(merged + ".gguf")
        equal("llama.cpp: ids of the merged GGUF", [llama.greedy(llama.encode(t), 12, 2) for t in TEXTS[:4]], [m[1:] for m in made[:4]])
        llama.close()


if __name__ == "__main__":
    main(written, merged, lora_file, theirs, vocabulary, with_tool)
