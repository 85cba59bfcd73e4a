#!/usr/bin/env python3
"""Methods of the LoRA family, IA3, LN-tuning, BitFit and head-only training over small random Llama and GPT-2 models, against HF
PEFT: logits, loss, every gradient, both directions of the adapter's files, the merged model, and steps of LoRA+ and LoRA-FA.

What PEFT lacks is compared with torch (BitFit, head) or with the formula in NumPy (LoHa and LoKr over Conv1D).
"""
import os
import sys
import tempfile

import numpy as np
import peft
import torch
from peft import IA3Config, LNTuningConfig, LoHaConfig, LoKrConfig, LoraConfig, VeraConfig, get_peft_model

import hf
import peftlib
from checks import check, close, each_close, equal, main

ALL = "all-linear"
FLOOR = 1e-7
BIASED = dict(attention_bias=True, mlp_bias=True)
# title, base, method of libpeft, config class of PEFT, options
CASES = [
    ("IA3", hf.llama(), "ia3", IA3Config, {}),
    ("IA3, biases", hf.llama(**BIASED), "ia3", IA3Config, {}),
    ("IA3, no feed-forward", hf.llama(), "ia3", IA3Config,
     dict(target_modules=["q_proj", "up_proj"], feedforward_modules=[])),
    ("IA3, all feed-forward, head saved", hf.llama(), "ia3", IA3Config,
     dict(target_modules=["q_proj", "up_proj"], feedforward_modules=["q_proj", "up_proj"], modules_to_save=["lm_head"])),
    ("IA3, GPT-2", hf.gpt2(), "ia3", IA3Config, {}),
    ("IA3, Mistral", hf.mistral(), "ia3", IA3Config, dict(exclude_modules=["v_proj"])),
    ("LN-tuning", hf.llama(), "ln_tuning", LNTuningConfig, {}),
    ("LN-tuning, GPT-2", hf.gpt2(), "ln_tuning", LNTuningConfig, {}),
    ("LN-tuning, final norm", hf.llama(), "ln_tuning", LNTuningConfig, dict(target_modules=["model.norm"])),
    ("DoRA", hf.llama(), "dora", LoraConfig, dict(use_dora=True, r=4, lora_alpha=8, target_modules=ALL)),
    ("DoRA, biases trained", hf.llama(**BIASED), "dora", LoraConfig,
     dict(use_dora=True, r=4, target_modules=["q_proj", "down_proj"], bias="all")),
    ("DoRA, rsLoRA, patterns", hf.llama(), "lora", LoraConfig,
     dict(use_dora=True, r=4, use_rslora=True, target_modules=["q_proj", "up_proj"], rank_pattern={"up_proj": 9})),
    ("DoRA, GPT-2", hf.gpt2(), "lora", LoraConfig, dict(use_dora=True, r=4, target_modules=["c_attn", "c_fc"])),
    ("VeRA", hf.llama(), "vera", VeraConfig, {}),
    ("VeRA, all", hf.llama(), "vera", VeraConfig, dict(r=7, target_modules=ALL, d_initial=0.3, projection_prng_key=12345)),
    ("VeRA, without projections", hf.llama(), "vera", VeraConfig, dict(r=16, save_projection=False, projection_prng_key=3)),
    ("VeRA, GPT-2", hf.gpt2(), "vera", VeraConfig, dict(r=8, target_modules=["c_attn", "mlp.c_proj"])),
    ("LoHa", hf.llama(), "loha", LoHaConfig, dict(r=4, alpha=6)),
    ("LoHa, all, patterns", hf.llama(), "loha", LoHaConfig,
     dict(r=3, target_modules=["q_proj", "k_proj", "down_proj"], rank_pattern={"k_proj": 5}, alpha_pattern={"down_proj": 2},
          layers_to_transform=[0, 2], init_weights=False)),
    ("LoKr", hf.llama(), "lokr", LoKrConfig, {}),
    ("LoKr, low rank", hf.llama(), "lokr", LoKrConfig,
     dict(r=2, alpha=4, target_modules=["q_proj", "k_proj", "up_proj", "down_proj"], decompose_both=True)),
    ("LoKr, factor 2", hf.llama(), "lokr", LoKrConfig,
     dict(r=3, alpha=5, target_modules=["v_proj", "gate_proj"], decompose_factor=2, init_weights="lycoris")),
    ("LoKr, factor 7", hf.llama(), "lokr", LoKrConfig, dict(r=20, decompose_factor=7, target_modules=["up_proj"])),
]


def file_name(parameter):
    """As in the file, without base_model.model., from a parameter of a wrapped model."""
    name = parameter.removeprefix("base_model.model.").replace(".modules_to_save.default", "")
    name = name.replace("lora_magnitude_vector.default.weight", "lora_magnitude_vector").replace(".default.", ".")
    return name.removesuffix(".default")


def state(wrapped):
    out = {n.removeprefix("base_model."): t for n, t in peft.get_peft_model_state_dict(wrapped).items()}
    return {n.removeprefix("model.").removesuffix(".default"): t for n, t in out.items()}


def shake(model, seed, amount):
    """Moves what is trained off its initial value."""
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=gen) * amount)


def gradients(model, rows, labels):
    model.zero_grad(set_to_none=True)
    value = hf.loss(model, rows, labels)
    value.backward()
    out = {file_name(n): p.grad.numpy().copy() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad(set_to_none=True)
    return value.item(), out


def compare(title, adapters, name, theirs, rows, labels):
    expected = hf.logits(theirs, rows[1])
    close(title + ": logits", peftlib.Session(adapters.model, adapters, name).logits(rows[1]), expected, 1e-5)
    trainer = peftlib.Trainer(adapters, name, batch_size=len(rows), max_length=max(map(len, rows)), max_steps=1)
    loss = trainer.accumulate(peftlib.Batch(adapters.ctx, rows, labels))
    wanted, grads = gradients(theirs, rows, labels)
    close(title + ": loss", loss, wanted, 1e-5)
    each_close(title + ": gradients", {n: trainer.gradient(n) for n in grads}, grads, 1e-4, FLOOR)
    return expected


def merged(title, adapters, path, ids, expected):
    adapters.merge("a", path, dtype="float32")
    close(title + ": merged, in transformers", hf.logits(hf.load(path), ids), expected, 2e-5)


def run_case(ctx, top, title, pair, method, cls, options, seed):
    base, saved, again = (os.path.join(top, "%d-%s" % (seed, x)) for x in ("base", "peft", "ours"))
    hf.make(pair, seed).save_pretrained(base)
    rows, labels = hf.random_rows(seed)
    theirs = get_peft_model(hf.load(base), cls(task_type="CAUSAL_LM", **options))
    shake(theirs, seed + 1, 0.1)
    theirs.eval().save_pretrained(saved)
    adapters = peftlib.Adapters(peftlib.Model(ctx, base))
    adapters.load("a", saved)
    expected = compare(title, adapters, "a", theirs, rows, labels)
    adapters.save("a", again)
    back = hf.load_adapter(hf.load(base), again)
    close(title + ": saved again, in PEFT", hf.logits(back, rows[1]), expected, 1e-6)
    adapters.add("fresh", method, options, seed=3)
    shapes = {n: tuple(t.shape) for n, t in state(theirs).items()}
    shapes = {n: s for n, s in shapes.items() if n not in ("vera_A", "vera_B")}  # not trained, hence not listed
    equal(title + ": names and shapes of a fresh adapter", adapters.shapes("fresh"), shapes)
    if method == "vera":
        a = theirs.base_model.vera_A["default"].numpy()
        b = theirs.base_model.vera_B["default"].numpy()
        close(title + ": A as PEFT draws it", adapters.read("fresh", "vera_A"), a, 1e-7)
        close(title + ": B as PEFT draws it", adapters.read("fresh", "vera_B"), b, 3e-7)
    merged(title, adapters, os.path.join(top, "%d-merged" % seed), rows[1], expected)


def methods():
    ctx = peftlib.Context(threads=2)
    with tempfile.TemporaryDirectory() as top:
        for i, case in enumerate(CASES):
            try:
                run_case(ctx, top, *case, 3000 + 10 * i)
            except Exception as error:
                check(case[0] + ": ended early", False, "%s %s" % (type(error).__name__, str(error)[:300]))


def run_plain(ctx, top, title, pair, method, chosen, seed):
    """A method that trains tensors of the base: against torch with only these trained."""
    base, again = os.path.join(top, "%d-base" % seed), os.path.join(top, "%d-ours" % seed)
    hf.make(pair, seed).save_pretrained(base)
    rows, labels = hf.random_rows(seed)
    theirs = hf.load(base)
    for n, p in theirs.named_parameters():
        p.requires_grad_(chosen(n))
    if method == "head":  # a tied one is untied
        theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.detach().clone())
    shake(theirs, seed + 1, 0.1)
    adapters = peftlib.Adapters(peftlib.Model(ctx, base))
    adapters.add("a", method)
    trained = {n: p for n, p in theirs.named_parameters(remove_duplicate=False) if p.requires_grad}
    equal(title + ": names and shapes", adapters.shapes("a"), {n: tuple(p.shape) for n, p in trained.items()})
    for n, p in trained.items():
        adapters.write("a", n, p.detach().numpy())
    expected = compare(title, adapters, "a", theirs, rows, labels)
    adapters.save("a", again)
    adapters.load("b", again)
    close(title + ": saved and loaded", peftlib.Session(adapters.model, adapters, "b").logits(rows[1]), expected, 1e-5)
    try:
        hf.load_adapter(hf.load(base), again)
        check(title + ": PEFT refuses the folder", False)
    except Exception as error:
        check(title + ": PEFT refuses the folder", method.upper() in str(error), str(error)[:60])
    merged(title, adapters, os.path.join(top, "%d-merged" % seed), rows[1], expected)


def plain():
    ctx = peftlib.Context(threads=2)
    with tempfile.TemporaryDirectory() as top:
        run_plain(ctx, top, "BitFit, GPT-2", hf.gpt2(), "bitfit", lambda n: n.endswith(".bias"), 3500)
        run_plain(ctx, top, "BitFit, Llama with biases", hf.llama(**BIASED), "bitfit", lambda n: n.endswith(".bias"), 3510)
        run_plain(ctx, top, "head", hf.llama(), "head", lambda n: n == "lm_head.weight", 3520)
        run_plain(ctx, top, "head, tied", hf.llama(tie_word_embeddings=True), "head", lambda n: False, 3530)
        run_plain(ctx, top, "head, GPT-2", hf.gpt2(), "head", lambda n: False, 3540)


def conv1d():
    """LoHa and LoKr over GPT-2, which PEFT refuses: W + D by the formula."""
    ctx = peftlib.Context(threads=2)
    with tempfile.TemporaryDirectory() as top:
        hf.make(hf.gpt2(), 3600).save_pretrained(top)
        rows, _ = hf.random_rows(3600)
        adapters = peftlib.Adapters(peftlib.Model(ctx, top))
        for method, options in (("loha", dict(r=4, alpha=6, init_weights=False)),
                                ("lokr", dict(r=2, alpha=3, init_weights="false", decompose_both=True))):
            adapters.add(method, method, options)
            shapes, theirs = adapters.shapes(method), hf.load(top)
            for layer in range(3):
                at = "transformer.h.%d.attn.c_attn." % layer
                t = {n.removeprefix(at): adapters.read(method, n).reshape(s).astype(np.float64)
                     for n, s in shapes.items() if n.startswith(at)}
                if method == "loha":
                    d = options["alpha"] / options["r"] * (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])
                else:
                    one, two = (t[n] if n in t else t[n + "_a"] @ t[n + "_b"] for n in ("lokr_w1", "lokr_w2"))
                    d = options["alpha"] / options["r"] * np.kron(one, two)
                theirs.transformer.h[layer].attn.c_attn.weight.data += torch.tensor(d.T, dtype=torch.float32)
            close("%s, GPT-2, by the formula: logits" % method, peftlib.Session(adapters.model, adapters, method).logits(rows[1]),
                  hf.logits(theirs, rows[1]), 1e-5)


def steps():
    """Five updates of LoRA+ and LoRA-FA: every parameter against PEFT's optimisers."""
    import peft.optimizers.lorafa as lorafa
    from peft.optimizers import create_lorafa_optimizer, create_loraplus_optimizer
    lorafa.is_bf16_available = lambda: False  # else the projection is rounded to bfloat16
    ctx = peftlib.Context(threads=2)
    rows, labels = hf.random_rows(3700)
    for title, method, extra in (("LoRA+", "lora", dict(loraplus_lr_ratio=8)), ("LoRA-FA", "lora_fa", {})):
        with tempfile.TemporaryDirectory() as top:
            hf.make(hf.llama(), 3700).save_pretrained(top + "/base")
            config = dict(r=4, lora_alpha=6, target_modules=["q_proj", "up_proj"])
            theirs = get_peft_model(hf.load(top + "/base"), LoraConfig(task_type="CAUSAL_LM", **config))
            shake(theirs, 3701, 0.05)
            adapters = peftlib.Adapters(peftlib.Model(ctx, top + "/base"))
            adapters.add("a", method, {**config, **extra})
            for n, t in state(theirs).items():
                adapters.write("a", n, t.numpy())
            if method == "lora":
                torch_optimizer = create_loraplus_optimizer(theirs, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=8)
            else:
                torch_optimizer = create_lorafa_optimizer(theirs, r=4, lora_alpha=6, lr=1e-3)
                for group in torch_optimizer.param_groups:
                    group["eps"] = 1e-12
            epsilon = 1e-12 if method == "lora_fa" else torch_optimizer.param_groups[0]["eps"]
            trainer = peftlib.Trainer(adapters, "a", batch_size=3, max_length=64, max_steps=5, optimizer=dict(
                learning_rate=1e-3, lr_scheduler_type="constant", max_grad_norm=0, adam_epsilon=epsilon))
            ours, wanted = [], []
            for _ in range(5):
                ours.append(trainer.accumulate(peftlib.Batch(ctx, rows, labels)))
                trainer.apply()
                torch_optimizer.zero_grad()
                loss = hf.loss(theirs, rows, labels)
                loss.backward()
                torch_optimizer.step()
                wanted.append(loss.item())
            close(title + ": five losses", ours, wanted, 1e-5)
            each_close(title + ": parameters after five steps", {n: adapters.read("a", n) for n in state(theirs)},
                       {n: t.numpy() for n, t in state(theirs).items()}, 1e-3, 1e-6)


def from_base():
    """PiSSA and OLoRA: the product that training starts from, and the folder over the untouched base in PEFT."""
    ctx = peftlib.Context(threads=2)
    rows, _ = hf.random_rows(3800)
    with tempfile.TemporaryDirectory() as top:
        hf.make(hf.llama(), 3800).save_pretrained(top + "/base")
        for how, extra in (("pissa", {}), ("pissa", dict(use_rslora=True, rank_pattern={"v_proj": 5})), ("olora", {})):
            title = "%s %s" % (how, extra or "")
            config = dict(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=how, **extra)
            theirs = state(get_peft_model(hf.load(top + "/base"), LoraConfig(task_type="CAUSAL_LM", **config)))
            adapters = peftlib.Adapters(peftlib.Model(ctx, top + "/base"))
            adapters.add("a", "lora", config)
            shapes, ours, wanted = adapters.shapes("a"), {}, {}
            for n in shapes:
                if n.endswith("lora_A.weight"):
                    b = n.replace("lora_A", "lora_B")
                    ours[n] = adapters.read("a", b).reshape(shapes[b]) @ adapters.read("a", n).reshape(shapes[n])
                    wanted[n] = theirs[b].numpy() @ theirs[n].numpy()
            each_close(title + ": B A at the start", ours, wanted, 1e-4)
            for n in shapes:
                adapters.write("a", n, adapters.read("a", n) + 0.05 * np.sin(np.arange(np.prod(shapes[n]))))
            adapters.save("a", top + "/" + title)
            mine = peftlib.Session(adapters.model, adapters, "a").logits(rows[1])
            back = hf.load_adapter(hf.load(top + "/base"), top + "/" + title)
            close(title + ": saved, in PEFT over the base as it was", mine, hf.logits(back, rows[1]), 1e-5)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main(methods, plain, conv1d, steps, from_base)
