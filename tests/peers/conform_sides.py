"""What each comparison of the conformance matrix is made of: the families, a small random model of each on both sides, the rows that
both read, and how a peer is called with them.

Decoders read rows and are compared with the next token; classifiers of tokens are compared where a token is; T5 and BART read a source
and the tokens before those of a target, lengths of their own each, and are compared with the target.
"""
import copy
import os

import torch

import hf
import peftlib
import test_seq2seq

RATE = 5e-3
IDS = [7, 3, 299]  # the rows of trained tokens
TASKS = [1, 0, 2]
LENGTHS = {"equal": (13, 13, 13), "padded": (11, 20, 14)}
SOURCES = (17, 9, 13)
SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
ADAMW = dict(learning_rate=RATE, lr_scheduler_type="constant", max_grad_norm=0, weight_decay=0)
# As Flan-T5 is: gated units, a head of its own.
T5 = dict(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
# Its table gives the padding token no gradient, which no row may have.
BART = dict(d_model=32, encoder_ffn_dim=64, decoder_ffn_dim=64, encoder_layers=2, decoder_layers=2, vocab_size=hf.VOCAB + 1,
            pad_token_id=hf.VOCAB)
ARCHS = [
    ("Llama", hf.llama(**SIZES)),
    ("Mistral", hf.mistral(sliding_window=6, **SIZES)),
    ("GPT-2", hf.gpt2(n_embd=32, n_layer=2)),
    ("Qwen2", hf.qwen2(**SIZES)),
    ("Qwen3", hf.qwen3(**SIZES)),
    ("Gemma 2", hf.gemma2(**dict(SIZES, sliding_window=6))),
    ("Gemma 3", hf.gemma3(**dict(SIZES, sliding_window=6))),
    ("Phi-3", hf.phi3(**SIZES)),
    ("OLMo 2", hf.olmo2(**SIZES)),
    ("NeoX", hf.neox(**SIZES)),
    ("OPT", hf.opt(**SIZES)),
    ("BERT", hf.bert(**SIZES)),
    ("RoBERTa", hf.roberta(**SIZES, type_vocab_size=1, vocab_size=hf.VOCAB + 1, pad_token_id=hf.VOCAB, max_position_embeddings=400)),
    ("DistilBERT", hf.distilbert(**SIZES)),
    ("ModernBERT", hf.modernbert(local_attention=8, **SIZES)),
    ("T5", test_seq2seq.t5(**T5)),
    ("BART", test_seq2seq.bart(**BART)),
    ("StableLM", hf.stablelm(**SIZES)),  # what is new stands last: seeds go by the place
]
ENCODERS = ("bert", "roberta", "distilbert", "modernbert")
PAIRS = ("t5", "bart")
TASK_TYPES = {**{f: "TOKEN_CLS" for f in ENCODERS}, **{f: "SEQ_2_SEQ_LM" for f in PAIRS}}  # else CAUSAL_LM
BOTH_ROWS = ("Llama", "Mistral", "GPT-2")  # which have rows of equal length too
UNBIASED = ("Mistral", "Phi-3", "T5")
MAY_BE_BIASED = {"Qwen3": hf.qwen3, "Gemma 2": hf.gemma2, "Gemma 3": hf.gemma3, "OLMo 2": hf.olmo2}
UNGROUPED = {"Phi-3": hf.phi3(**dict(SIZES, num_key_value_heads=4))}
BIASED = hf.llama(attention_bias=True, mlp_bias=True, **SIZES)
TYPES = ("q8_0", "q4_0")


class Base:
    """A random model as libpeft opens it and as the peer has it; quantised: the peer has what libpeft reads of the file."""

    def __init__(self, ctx, top, title, pair, seed, dtype=None):
        self.title, self.folder = title, os.path.join(top, title.replace(" ", "-"))
        self.model = hf.make(pair, seed)
        if hasattr(self.model, "final_logits_bias"):
            self.model.final_logits_bias.normal_(0, 0.1, generator=torch.Generator().manual_seed(seed))
        self.model.save_pretrained(self.folder)
        self.ours = peftlib.Model(ctx, self.folder)
        if dtype is not None:
            path = self.folder + ".gguf"
            peftlib.Adapters(self.ours).merge("", path, dtype=dtype)
            self.ours = peftlib.Model(ctx, path)
            with torch.no_grad():
                for name, p in self.model.named_parameters():
                    p.copy_(torch.tensor(self.ours.read(name)).view(p.shape))
            self.model.save_pretrained(self.folder)
        self.family, self.conv = self.model.config.model_type, pair[0] is hf.GPT2LMHeadModel
        self.quantised, self.seed = dtype is not None, seed
        self.encoder, self.pair = self.family in ENCODERS, self.family in PAIRS
        self.task_type = TASK_TYPES.get(self.family, "CAUSAL_LM")

    def plain(self):
        return copy.deepcopy(self.model)

    def scratch(self):
        return os.path.join(os.path.dirname(self.folder), "scratch")


class Data:
    """Rows of a base, in which every row (and source) has the trained tokens, and what they are compared with."""

    def __init__(self, base, kind):
        self.rows, self.labels = hf.random_rows(base.seed + 2, lengths=LENGTHS[kind])
        for row, label in zip(self.rows, self.labels):
            for i, token in enumerate(IDS):
                row[len(row) // 3 + i] = label[len(row) // 3 + i] = token
            row[-1] = label[-1] = IDS[0]
        self.sources, self.shift = None, 0 if base.encoder or base.pair else 1
        if base.encoder:
            self.labels = [[x % hf.LABELS if x >= 0 else x for x in row] for row in self.labels]
        if base.pair:
            self.rows = [[base.model.config.decoder_start_token_id] + row[:-1] for row in self.rows]
            self.sources, _ = hf.random_rows(base.seed + 3, lengths=SOURCES)
            for source in self.sources:
                source[-len(IDS) - 1:-1] = IDS

    def longest(self):
        return max(map(len, self.rows + (self.sources or [])))

    def batch(self, ctx, labels=False):
        return peftlib.Batch(ctx, self.rows, self.labels if labels else None, TASKS, sources=self.sources)

    def marks(self):
        return hf.pad(self.rows, self.labels)[2]

    def padded(self, only=slice(None)):
        """What the peer is given of all rows, or of some."""
        ids, mask, _ = hf.pad(self.rows[only], self.rows[only])
        if self.sources is None:
            return dict(input_ids=ids, attention_mask=mask)
        sources, mask, _ = hf.pad(self.sources[only], self.sources[only])
        return dict(input_ids=sources, attention_mask=mask, decoder_input_ids=ids)

    def outputs(self, forward, alone):
        """The peer's logits of the real tokens, row by row. alone: it is called with one row at a time."""
        if alone:
            return [forward(self.padded(slice(i, i + 1)), TASKS[i:i + 1])[0] for i in range(len(self.rows))]
        return [o[:len(r)] for o, r in zip(forward(self.padded(), TASKS), self.rows)]

    def loss(self, forward, alone=False):
        shift = self.shift
        total = sum(torch.nn.functional.cross_entropy(o[:len(o) - shift], torch.tensor(l[shift:]), ignore_index=-100, reduction="sum")
                    for o, l in zip(self.outputs(forward, alone), self.labels))
        return total / sum(x != -100 for l in self.labels for x in l[shift:])


class Setup:
    """Both sides of one comparison. forward(inputs, tasks): logits of the peer at every place of the padded rows; step_loss(data): what
    its steps are of, where that is not the loss."""

    def __init__(self, adapters, names, forward, job="a", acts=None, holder=None, turned=(), frozen=(), optimizer=None, ours=None,
                 step_loss=None, after=None):
        self.adapters, self.names, self.forward = adapters, names, forward
        self.job, self.acts, self.holder = job, acts or job, holder or job  # what is trained, what acts, what has the tensors
        self.turned, self.frozen = turned, frozen  # stored the other way round there; read and not trained
        self.optimizer = optimizer or (lambda p: torch.optim.AdamW(p, lr=RATE, weight_decay=0.0))
        self.ours = dict(ADAMW, **(ours or {}))
        self.step_loss, self.after = step_loss, after or (lambda step: None)

    def theirs(self, name, tensor):
        t = tensor.detach().numpy()
        return (t.T if name in self.turned else t).copy()


def call(model, inputs, **more):
    """Logits of the rows' own tokens; there may be those of virtual ones before them."""
    if model.config.model_type not in TASK_TYPES:
        more["use_cache"] = False
    own = inputs.get("decoder_input_ids", inputs["input_ids"]).shape[1]
    return model(**inputs, **more).logits[:, -own:].float()


def caller(model):
    return lambda inputs, tasks: call(model, inputs)


def head_names(base, theirs):
    """A classifier, which is trained with any adapter."""
    if not base.encoder:
        return {}
    found = {n: p for n, p in theirs.named_parameters() if "classifier" in n and "original_module" not in n}
    return {"classifier." + n.rsplit(".", 1)[1]: p.requires_grad_(True) for n, p in found.items()}


def taken(adapters, folder, method, options, names):
    """The peer's tensors: by its folder, and written where that is not enough (it says another method, or holds less)."""
    if folder is not None:
        adapters.load("a", folder)
        if adapters.info("a")["method"] == method and set(adapters.shapes("a")) == set(names):
            return
        peftlib._ok(peftlib.lib.peft_adapters_remove(adapters.ptr, b"a"))
    adapters.add("a", method, options, seed=3)
    for name, p in names.items():
        adapters.write("a", name, p.detach().numpy())
