#!/usr/bin/env python3
"""Compares WordPiece, unigram and the pipelines of encoders and encoder-decoders with Hugging Face's fast tokenizers and
with SentencePiece: ids, decoded texts, and of pairs also token types, words, places, truncation and windows.

Usage: test_subwords.py <tok_dump binary>
Needs PEFT_TESTDATA (models/ and data/). A missing Python package is a failure.
"""
import json
import math
import os
import random
import shutil
import sys
import tempfile
import unicodedata

os.environ["TOKENIZERS_PARALLELISM"] = "true"

import sentencepiece
import tokenizers as tk
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import convert_slow_tokenizer

from toklib import TOKENIZERS, compare, decode, encode, finish, lines_of_sets, noise, report, run

SPECIAL, ENDS = 1, 2
LINES = lines_of_sets(2000)
# Marks, ligatures, wide and compatibility characters, controls, spaces of all kinds.
PARTS = ["a", "é", "e\u0301", "ﬁ", "ﬁ\u0301", "Ａ", "①", "½", "㎏", "한", "\u1112\u1161\u11ab", "漢字", "字", "カ\u3099", "ﾊﾟ", "İ", "ẞ", "ſ",
         "Σας", "Ǆ", "ñ", "q\u0323\u0307", "ா", "क्षि", "กำ", "\u0600a", "\r\n", "\r", "\n", "\t", " ", "  ", "   ", "\u00a0", "\u3000",
         "\u2028", "\u200b", "\u200d", "\ufeff", "\x00", "\x07", "\x85", "\ufffd", "\ue000", "🤗", "👍🏽", "👩‍👩‍👧", "🇩🇪", "▁", "▁a", ".", ",", "!",
         "?", "'s", "n't", "don't", "can't.", "$9.99", "a-b", "##", "##a", "[", "]", "[CLS]", "[MASK]", "<unk>", "</s>", "word", "Wörter",
         "x" * 101, "`", "^", "~~", "«", "—", "…", "〈", "１２", "3.14", "\U0001d400", "\u0301", "\u20dd"]


def known(c):
    """Whether c is assigned, and Hugging Face's normal forms, which go by an older Unicode, know it as we do."""
    text = "a\u0315" + c + "\u0327"
    return unicodedata.category(c) != "Cn" and normalizers.NFKD().normalize_str(text) == unicodedata.normalize("NFKD", text)


def mixture(count, seed):
    rng = random.Random(seed)
    texts = ["".join(rng.choice(PARTS) for _ in range(rng.randint(1, 10))) for _ in range(count)]
    # Any characters of Unicode 14, whose classes the tables have.
    blocks = [(32, 0x250), (0x250, 0x700), (0x300, 0x370), (0x900, 0x1200), (0x1200, 0x3400), (0xA000, 0xAC00), (0xF900, 0x10000),
              (0x10000, 0x12000), (0x1D000, 0x1D800), (0x1F000, 0x1FB00), (0xE000, 0xE010), (0xE0000, 0xE0200)]
    chars = [[chr(c) for c in range(*b) if known(chr(c))] for b in blocks]
    texts += ["".join(rng.choice(rng.choice(chars)) for _ in range(rng.randint(1, 24))) for _ in range(count // 2)]
    return texts


ODD = mixture(6000, 11) + noise(3000, 12)
ALL = LINES + ODD
# A trainer would make second pieces of these names.
TRAINING = [x for x in LINES if "<unk>" not in x and "</s>" not in x]
ODD_TRAINING = [x for x in ODD if "<unk>" not in x and "</s>" not in x]
SOME = LINES[::20] + ODD[::3]


def plain(t):
    t.no_truncation()
    t.no_padding()
    return t


def ids(t, texts, special=True):
    return [e.ids for e in t.encode_batch(texts, add_special_tokens=special)]


def against(name, path, t, texts=SOME, flags=SPECIAL | ENDS, decoded=True):
    """Our reading of `path` against the tokenizer t: ids, and their text."""
    expected = ids(t, texts)
    compare(name, texts, encode(path, texts, flags), expected)
    if decoded:
        some = [i for i in expected[::7] if "\ufffd" not in t.decode(i)]
        compare(name + ", decoded", some, decode(path, some), [t.decode(i) for i in some])


def written(name, path, tmp, t, texts=SOME):
    """What we write, read by Hugging Face and by ourselves."""
    out = os.path.join(tmp, "out-" + "".join(c if c.isalnum() else "-" for c in name))
    run("hf", path, out)
    again = plain(tk.Tokenizer.from_file(os.path.join(out, "tokenizer.json")))
    expected = ids(t, texts)
    compare(name + ", written, read by tokenizers", texts, ids(again, texts), expected)
    compare(name + ", written, read again", texts, encode(out, texts, 3), expected)
    fast = transformers.AutoTokenizer.from_pretrained(out)
    some = texts[::29]
    compare(name + ", written, read by transformers", some, [fast(s)["input_ids"] for s in some], expected[::29])


def in_gguf(name, path, tmp, t, texts=SOME):
    out = os.path.join(tmp, "out-" + "".join(c if c.isalnum() else "-" for c in name) + ".gguf")
    run("gguf", path, out)
    compare(name + ", as GGUF", texts, encode(out, texts, 3), ids(t, texts))


def byte_at(text):
    """Byte of each character, and the end."""
    at = [0]
    for c in text:
        at.append(at[-1] + len(c.encode()))
    return at


def encoding(e, a, b, pretokenized):
    """A Hugging Face encoding as tok_dump writes ours."""
    out, texts = [], {}
    for id_, type_, part, word, (start, end) in zip(e.ids, e.type_ids, e.sequence_ids, e.word_ids, e.offsets):
        if part is None:
            out.append([id_, type_, -1, -1, 0, 0])
            continue
        word = -1 if word is None else word
        key = (part, word if pretokenized else -1)
        if key not in texts:
            texts[key] = byte_at((a, b)[part][word] if pretokenized else (a, b)[part])
        out.append([id_, type_, part, word, texts[key][start], texts[key][end]])
    return out


def in_order(text):
    """Where a character map drops a control, Hugging Face's places are off by it from there on, and where marks change places,
    theirs stay behind; ours are those of the characters."""
    dropped = any(unicodedata.category(c) == "Cc" and c not in "\t\n\r" for c in text)
    return not dropped and unicodedata.normalize("NFKD", text) == "".join(unicodedata.normalize("NFKD", c) for c in text)


def pairs(name, path, t, seed, texts=SOME, windowed=True):
    """Texts, pairs and words: everything there is to know of each token."""
    rng = random.Random(seed)
    texts = [x for x in texts if in_order(x)]
    picked = [(rng.choice(texts), rng.choice(texts)) for _ in range(1200)]
    jobs = [{"a": a} for a, _ in picked[:600]] + [{"a": a, "b": b} for a, b in picked[600:]]
    got = [json.loads(x) for x in run("pair", path, 3, lines=jobs).rstrip("\n").split("\n")]
    theirs = [encoding(t.encode(j["a"], j.get("b")), j["a"], j.get("b"), False) for j in jobs]
    compare(name + ", pairs", jobs, got, theirs)
    cut = []
    for a, b in picked[:400]:
        cut.append({"a": a, "b": b, "max": rng.randint(6, 40), "truncate": rng.randint(0, 2)})
    got = [json.loads(x) for x in run("pair", path, 3, lines=cut).rstrip("\n").split("\n")]
    theirs = []
    for j in cut:
        t.enable_truncation(j["max"], strategy=("longest_first", "only_first", "only_second")[j["truncate"]])
        try:
            theirs.append(encoding(t.encode(j["a"], j["b"]), j["a"], j["b"], False))
        except Exception:  # a text that is too short to be cut
            theirs.append({"error": True})
    compare(name + ", truncated", cut, got, theirs)
    windows, theirs = [], []
    for a, b in picked[:200]:
        t.enable_truncation(80, stride=5, strategy="only_second")
        question = a[:8]
        try:
            e = t.encode(question, b)
        except Exception:
            continue
        for w, x in enumerate([e] + e.overflowing):
            windows.append({"a": question, "b": b, "max": 80, "truncate": 2, "stride": 5, "window": w})
            theirs.append(encoding(x, question, b, False))
    t.no_truncation()
    got = [json.loads(x) for x in run("pair", path, 3, lines=windows).rstrip("\n").split("\n")]
    # Of later windows Hugging Face leaves the second text its type 1, whatever the template says, and the first token its
    # space: id, part, word and end are compared.
    got, theirs = ([[[x[0]] + x[2:4] + x[5:] for x in e] if j["window"] > 0 else e for e, j in zip(side, windows)]
                   for side in (got, theirs))
    if windowed:
        compare(name + ", windows", windows, got, theirs)
    jobs = [{"a": a.split(" ")[:100]} for a, _ in picked[:400]]
    got = [json.loads(x) for x in run("pair", path, 3, lines=jobs).rstrip("\n").split("\n")]
    theirs = [encoding(t.encode(j["a"], is_pretokenized=True), j["a"], None, True) for j in jobs]
    compare(name + ", in words", jobs, got, theirs)


# ---- WordPiece -------------------------------------------------------------------------------------------------------


def bert(tmp):
    source = os.path.join(TOKENIZERS, "bert-uncased")
    variants = {"bert uncased": {}, "bert cased": {"do_lower_case": False}, "bert accents": {"strip_accents": False},
                "bert cased, no accents": {"do_lower_case": False, "strip_accents": True},
                "bert han": {"tokenize_chinese_chars": False}}
    for n, (name, config) in enumerate(variants.items()):
        folder = os.path.join(tmp, "bert-%d" % n)
        os.makedirs(folder)
        shutil.copy(os.path.join(source, "vocab.txt"), folder)
        json.dump(config, open(os.path.join(folder, "tokenizer_config.json"), "w"))
        fast = transformers.BertTokenizerFast(os.path.join(source, "vocab.txt"), **config)
        t = plain(fast.backend_tokenizer)
        against(name + " from vocab.txt", folder, t, ALL if n == 0 else SOME)
        saved = os.path.join(tmp, "bert-saved-%d" % n)
        fast.save_pretrained(saved)
        against(name + " from tokenizer.json", saved, t, decoded=False)
        if n < 2:
            pairs(name, folder, t, n)
            written(name, folder, tmp, t)
    t = plain(transformers.BertTokenizerFast(os.path.join(source, "vocab.txt")).backend_tokenizer)
    against("bert uncased from GGUF", os.path.join(source, "ggml-vocab-bert-bge.gguf"), t)
    in_gguf("bert uncased", os.path.join(tmp, "bert-0"), tmp, t)
    written("bert uncased from GGUF", os.path.join(source, "ggml-vocab-bert-bge.gguf"), tmp, t)


def trained_wordpiece(tmp):
    """Other pipelines around WordPiece: what comes between the spaces, prefixes, short words only."""
    cases = {
        "whitespace": (None, pre_tokenizers.Whitespace(), "##", 100),
        "split": (normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]), pre_tokenizers.WhitespaceSplit(), "##", 20),
        "punctuation": (normalizers.StripAccents(), pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("contiguous")]), "@@", 100),
        "isolated": (normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Strip()]),
                     pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation(),
                                              pre_tokenizers.Digits(True)]), "", 100),
    }
    for name, (normal, pre, prefix, most) in cases.items():
        t = tk.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        if normal is not None:
            t.normalizer = normal
        t.pre_tokenizer = pre
        t.train_from_iterator(TRAINING[::40], trainers.WordPieceTrainer(
            vocab_size=3000, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], limit_alphabet=200, show_progress=False,
            continuing_subword_prefix=prefix))
        doc = json.loads(t.to_str())
        doc["model"]["max_input_chars_per_word"] = most
        t = tk.Tokenizer.from_str(json.dumps(doc))
        t.decoder = decoders.WordPiece(prefix=prefix, cleanup=name != "split")
        t.add_special_tokens([tk.AddedToken("[MASK]", lstrip=True, normalized=False)])
        t.add_tokens([tk.AddedToken("WORD", normalized=True), tk.AddedToken("Ünit", single_word=True, normalized=True),
                      tk.AddedToken("Raw", normalized=False, rstrip=True)])
        t.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        folder = os.path.join(tmp, "wordpiece-" + name)
        os.makedirs(folder)
        t.save(os.path.join(folder, "tokenizer.json"))
        texts = SOME[::3] + ["a word WORD wOrD", "Ünit ünit units xÜnit U\u0308nit", "Raw   x raw", "x [MASK] y\u3000[MASK]"]
        against("wordpiece " + name, folder, t, texts, decoded=prefix != "")
        pairs("wordpiece " + name, folder, t, 5, texts=texts)
        written("wordpiece " + name, folder, tmp, t, texts)


# ---- unigram ---------------------------------------------------------------------------------------------------------


def converted(model, cls, **config):
    return plain(cls(vocab_file=model, **config).backend_tokenizer)


def train_spm(tmp, name, **more):
    corpus = os.path.join(tmp, "corpus.txt")
    if not os.path.exists(corpus):
        with open(corpus, "w", encoding="utf-8") as f:
            f.write("\n".join(x.replace("\n", " ").replace("\0", "") for x in TRAINING[::12] + PARTS))
    sentencepiece.SentencePieceTrainer.train(
        input=corpus, model_prefix=os.path.join(tmp, name), model_type="unigram", minloglevel=3, max_sentence_length=10000, character_coverage=0.999,
        num_threads=2, **more)
    return os.path.join(tmp, name + ".model")


def as_probable(model, ours, theirs):
    """theirs, where ours has as high a score and the same text: how equal scores are told apart is a matter of rounding, in
    which versions of SentencePiece differ; in what is left Hugging Face's way is tested."""
    score = lambda ids: math.fsum(model.get_score(i) for i in ids)
    text = lambda ids: "".join(model.id_to_piece(i) for i in ids)
    same = len(ours) == len(theirs) and text(ours) == text(theirs) and abs(score(ours) - score(theirs)) < 1e-6 * len(ours) + 1e-6
    return theirs if same else ours


def spm_models(tmp):
    """SentencePiece itself on the .model files."""
    cases = {
        "unigram test model": os.path.join(TOKENIZERS, "spm-unigram-test", "test_model.model"),
        "unigram nmt_nfkc_cf": train_spm(tmp, "cf", vocab_size=3000, normalization_rule_name="nmt_nfkc_cf"),
        "unigram with bytes": train_spm(tmp, "bytes", vocab_size=2500, byte_fallback=True, remove_extra_whitespaces=False),
        "unigram with the user's": train_spm(tmp, "user", vocab_size=2000, add_dummy_prefix=False,
                                             user_defined_symbols=["<x>", "the end", "ﬁx", "…"]),
        "unigram identity": train_spm(tmp, "identity", vocab_size=1500, normalization_rule_name="identity"),
    }
    texts = [t for t in SOME if "\0" not in t] + ["a<x>b <x> c", "the end of the  end", "ﬁx fix ﬁ x", "……", "<x>", " <x> "]
    # The published vectors are of an older SentencePiece.
    rows = [json.loads(x) for x in open(os.path.join(TOKENIZERS, "spm-unigram-test", "vectors.jsonl"), encoding="utf-8")]
    old = [r["text"] for r in rows]
    model = sentencepiece.SentencePieceProcessor(model_file=cases["unigram test model"])
    got = encode(cases["unigram test model"], old)
    compare("vectors: spm-unigram-test", old, [as_probable(model, a, r["ids"]) for a, r in zip(got, rows)], [r["ids"] for r in rows])
    compare("vectors: spm-unigram-test, SentencePiece of today", old, got, model.encode(old))
    for name, path in cases.items():
        model = sentencepiece.SentencePieceProcessor(model_file=path)
        expected, got = model.encode(texts), encode(path, texts)
        compare("sentencepiece: " + name, texts, [as_probable(model, a, b) for a, b in zip(got, expected)], expected)
        known = [i for i in expected[::3] if model.unk_id() not in i]
        compare("sentencepiece: " + name + ", decoded", known, decode(path, known), [model.decode(i) for i in known])
        out = os.path.join(tmp, "out-" + name.replace(" ", "-") + ".gguf")
        run("gguf", path, out)
        compare("sentencepiece: " + name + ", as GGUF", texts, encode(out, texts), got)


def t5(tmp):
    model = os.path.join(TOKENIZERS, "spm-unigram-test", "test_model.model")
    bigger = train_spm(tmp, "t5", vocab_size=4000, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    for name, path in (("t5 test model", model), ("t5", bigger)):
        fast = transformers.T5TokenizerFast(vocab_file=path, extra_ids=10, add_prefix_space=True)
        t = plain(fast.backend_tokenizer)
        folder = os.path.join(tmp, "saved-" + os.path.basename(path))
        fast.save_pretrained(folder)
        texts = ALL if name == "t5" else SOME
        texts = texts + ["a <extra_id_0> b<extra_id_9>c", "</s> x"]
        against(name + " from tokenizer.json", folder, t, texts)
        pairs(name, folder, t, 7)
        written(name, folder, tmp, t)
        # From the model alone: what SentencePiece makes of spaces, and Hugging Face's tokens around it.
        alone = os.path.join(tmp, "alone-" + os.path.basename(path))
        os.makedirs(alone)
        shutil.copy(path, os.path.join(alone, "spiece.model"))
        json.dump({"tokenizer_class": "T5Tokenizer", "extra_ids": 10}, open(os.path.join(alone, "tokenizer_config.json"), "w"))
        smooth = [x for x in (" ".join(s.split()) for s in LINES[::4]) if x]
        whole = [x for x in smooth if t.token_to_id("<unk>") not in t.encode(x).ids]  # SentencePiece writes those otherwise
        against(name + " from spiece.model", alone, t, smooth + ["a <extra_id_3> b"], decoded=False)
        against(name + " from spiece.model, known", alone, t, whole)
        in_gguf(name + " from spiece.model", alone, tmp, t, smooth)
        in_gguf(name + " from tokenizer.json", folder, tmp, t, smooth)
        written(name + " from spiece.model", alone, tmp, t)


def deberta(tmp):
    path = train_spm(tmp, "deberta", vocab_size=3000, pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]",
                     bos_piece="[CLS]", eos_piece="[SEP]", unk_piece="[UNK]")
    for lower in (False, True):
        fast = transformers.DebertaV2TokenizerFast(vocab_file=path, do_lower_case=lower)
        t = plain(fast.backend_tokenizer)
        folder = os.path.join(tmp, "deberta-%d" % lower)
        fast.save_pretrained(folder)
        name = "deberta lower" if lower else "deberta"
        against(name + " from tokenizer.json", folder, t)
        pairs(name, folder, t, 8)
        alone = os.path.join(tmp, "deberta-alone-%d" % lower)
        os.makedirs(alone)
        shutil.copy(path, os.path.join(alone, "spm.model"))
        json.dump({"do_lower_case": lower, "vocab_type": "spm"}, open(os.path.join(alone, "tokenizer_config.json"), "w"))
        json.dump({"model_type": "deberta-v2"}, open(os.path.join(alone, "config.json"), "w"))
        against(name + " from spm.model", alone, t, [x for x in (" ".join(s.split()) for s in LINES[::4]) if x] + ["a [MASK] b"])


def trained_unigram(tmp):
    meta = lambda **k: pre_tokenizers.Metaspace(**k)
    sequence = normalizers.Sequence
    cases = {
        "t5 of old": (None, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), meta()]), False),
        "first": (normalizers.NFKC(), meta(prepend_scheme="first"), False),
        "never, whole": (normalizers.NFKD(), meta(prepend_scheme="never", split=False), False),
        "albert": (sequence([normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(),
                             normalizers.StripAccents(), normalizers.Lowercase(),
                             normalizers.Replace(tk.Regex(" {2,}"), " ")]), meta(), False),
        "nmt": (sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(tk.Regex(" {2,}"), " ")]), meta(), False),
        "punctuation": (sequence([normalizers.Strip(), normalizers.Replace(tk.Regex(r"\s+"), " ")]),
                        pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), meta()]), False),
        "bytes": (sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None, True),
    }
    for name, (normal, pre, bytes_) in cases.items():
        t = tk.Tokenizer(models.Unigram())
        if normal is not None:
            t.normalizer = normal
        if pre is not None:
            t.pre_tokenizer = pre
        t.train_from_iterator(TRAINING[::80] + ODD_TRAINING[::40], trainers.UnigramTrainer(
            vocab_size=1200, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False, max_piece_length=12))
        doc = json.loads(t.to_str())
        if bytes_:
            doc["model"]["vocab"] += [["<0x%02X>" % b, 0.0] for b in range(256)]
            doc["model"]["byte_fallback"] = True
        t = tk.Tokenizer.from_str(json.dumps(doc))
        t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
                                      ) if bytes_ else decoders.Metaspace(prepend_scheme="never" if "never" in name else "always")
        t.add_tokens([tk.AddedToken("Late One", normalized=True), tk.AddedToken("<own>", normalized=False, lstrip=True)])
        t.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s>:1 $B:1 </s>:1", special_tokens=[("<s>", 1), ("</s>", 2)])
        folder = os.path.join(tmp, "unigram-" + name.replace(" ", "-").replace(",", ""))
        os.makedirs(folder)
        t.save(os.path.join(folder, "tokenizer.json"))
        texts = SOME[::4] + ["x Late One y", "late one", "a <own> b", " lead", "trail ", "  "]
        against("unigram " + name, folder, t, texts)
        pairs("unigram " + name, folder, t, 9, texts=texts)
        written("unigram " + name, folder, tmp, t, texts)


# ---- byte-level BPE of encoders and others ----------------------------------------------------------------------------


def families(tmp):
    head = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    tail = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    byte = lambda **k: pre_tokenizers.ByteLevel(add_prefix_space=False, **k)
    split = lambda r: pre_tokenizers.Split(tk.Regex(r), "isolated")
    added = tk.AddedToken
    spaces = [added(" " * n, normalized=True) for n in (24, 12, 6, 4, 3, 2)]
    wrap = lambda a, b, pair: processors.TemplateProcessing(single="%s $A %s" % (a, b), pair=pair, special_tokens=[(a, 0), (b, 2)])
    cases = {
        "roberta": (None, byte(), [added("<mask>", lstrip=True, special=True)],
                    processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)),
        "bart prefix": (None, pre_tokenizers.ByteLevel(add_prefix_space=True), [],
                        processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=True)),
        "modernbert": (normalizers.NFC(), byte(), spaces + [added("[MASK]", lstrip=True, special=True)],
                       wrap("<s>", "</s>", "<s> $A </s> $B </s>")),
        "neox": (normalizers.NFC(), byte(), spaces, processors.ByteLevel(trim_offsets=True, add_prefix_space=False)),
        "qwen3": (normalizers.NFC(), pre_tokenizers.Sequence([split(head + r"\p{N}" + tail), byte(use_regex=False)]),
                  [added("<|im_end|>", special=True), added("<think>")], processors.ByteLevel(trim_offsets=False)),
        "olmo2": (None, pre_tokenizers.Sequence([split(head + r"\p{N}{1,3}" + tail), byte(use_regex=False)]),
                  [added("|||IP_ADDRESS|||", normalized=True)], None),
        "opt": (None, byte(), [], wrap("<s>", "</s>", "<s> $A <s> $B")),
    }
    for name, (normal, pre, more, post) in cases.items():
        t = tk.Tokenizer(models.BPE())
        if normal is not None:
            t.normalizer = normal
        t.pre_tokenizer = pre
        t.train_from_iterator(TRAINING[::30], trainers.BpeTrainer(
            vocab_size=3000, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        t.decoder = decoders.ByteLevel()
        t.add_special_tokens([m for m in more if m.special])
        t.add_tokens([m for m in more if not m.special])
        if post is not None:
            t.post_processor = post
        folder = os.path.join(tmp, "family-" + name.replace(" ", "-"))
        os.makedirs(folder)
        t.save(os.path.join(folder, "tokenizer.json"))
        texts = SOME[::2] + ["a   <mask>b <mask>\u3000<mask>", "x" + " " * 31 + "y", "[MASK] is  [MASK]", "a <think> b", "|||IP_ADDRESS|||x"]
        against("bpe " + name, folder, t, texts)
        pairs("bpe " + name, folder, t, 10, texts=texts, windowed=post is not None)  # else it has no windows of pairs
        written("bpe " + name, folder, tmp, t, texts)


def gpt2_files(tmp):
    """vocab.json and merges.txt with the tokens that RoBERTa, BART and OPT put around a text."""
    source = os.path.join(TOKENIZERS, "gpt2")
    vocab = json.load(open(os.path.join(source, "vocab.json"), encoding="utf-8"))
    for piece in ("<s>", "<pad>", "</s>", "<unk>", "<mask>"):
        vocab[piece] = len(vocab)
    cases = {"roberta": (transformers.RobertaTokenizerFast, {"tokenizer_class": "RobertaTokenizer"}, {}),
             "bart prefix": (transformers.BartTokenizerFast, {"tokenizer_class": "BartTokenizer", "add_prefix_space": True},
                             {"add_prefix_space": True}),
             "opt": (transformers.GPT2TokenizerFast, {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "bos_token": "</s>",
                                                      "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"},
                     {"add_bos_token": True, "bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"})}
    for name, (cls, config, more) in cases.items():
        folder = os.path.join(tmp, "files-" + name.replace(" ", "-"))
        os.makedirs(folder)
        json.dump(vocab, open(os.path.join(folder, "vocab.json"), "w"))
        shutil.copy(os.path.join(source, "merges.txt"), folder)
        fast = cls(os.path.join(folder, "vocab.json"), os.path.join(folder, "merges.txt"), **more)
        json.dump(config, open(os.path.join(folder, "tokenizer_config.json"), "w"))
        t = plain(fast.backend_tokenizer)
        texts = SOME + (["a <mask>b", "x </s> y"] if name != "opt" else ["x </s> y"])
        against("files " + name, folder, t, texts)
        if name != "opt":
            pairs("files " + name, folder, t, 12, texts=texts)


def forms(tmp):
    """All four normal forms, lower case and accents, of every character: through a vocabulary of characters."""
    # U+11938 and two letters that were marks are younger than Hugging Face's normal forms.
    chars = [chr(c) for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000 and c not in (0x11938, 0x1CF2, 0x1CF3)]
    steps = {"NFC": normalizers.NFC(), "NFD": normalizers.NFD(), "NFKC": normalizers.NFKC(), "NFKD": normalizers.NFKD(),
             "Lowercase": normalizers.Lowercase(), "StripAccents": normalizers.StripAccents(),
             "BertNormalizer": normalizers.BertNormalizer(), "Nmt": normalizers.Nmt()}
    letters = [c for c in [*range(33, 127), *range(161, 173), *range(174, 256)]]
    alphabet = [chr(c) for c in letters] + [chr(256 + i) for i in range(256 - len(letters))]
    for name, step in steps.items():
        folder = os.path.join(tmp, "form-" + name)
        os.makedirs(folder)
        json.dump({"normalizer": json.loads(step.__getstate__()), "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
                   "model": {"type": "BPE", "vocab": {c: i for i, c in enumerate(alphabet)}, "merges": []}},
                  open(os.path.join(folder, "tokenizer.json"), "w"))
        texts = ["".join(c + "-" for c in chars[i:i + 64]) for i in range(0, len(chars), 64)] + ODD
        got, good = decode(folder, encode(folder, texts)), [step.normalize_str(t) for t in texts]
        compare("normalizer " + name, texts, got, good)


with tempfile.TemporaryDirectory() as folder:
    for test in (bert, trained_wordpiece, spm_models, t5, deberta, trained_unigram, families, gpt2_files, forms):
        if len(sys.argv) > 2 and test.__name__ not in sys.argv[2:]:
            continue
        try:
            test(folder)
        except Exception as error:
            report("%s: %s: %s" % (test.__name__, type(error).__name__, error), 0, 1)
finish()
