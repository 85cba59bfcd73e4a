#!/usr/bin/env python3
"""SmolLM2-135M-Instruct, a real model, from its GGUF file (Q4_1) and dequantised to a Hugging Face folder: tokens, logits and
greedy answers; LoRA beside HF PEFT from one initial adapter on the same batches; the trained adapter in PEFT; the merged model
in transformers and in llama.cpp.
"""
import os
import tempfile

import llama_cpp
import numpy as np
import torch
import transformers

import hf
import peftlib
import smollm2
from checks import check, close, each_close, equal, main
from test_lora import FLOOR

PROMPT, COMPLETION = "Record: {mr}\nSentence:", " {refs.0}"
LORA = dict(r=16, lora_alpha=32, target_modules="all-linear")
STEPS, ROWS, RATE = 15, 4, 1e-3
shared = {}


def llama(path, **options):
    return llama_cpp.Llama(path, n_ctx=512, logits_all=True, verbose=False, n_threads=1, n_threads_batch=1, type_k=0, type_v=0, seed=1,
                           **options)


def llama_tokens(model, text, special):
    return model.tokenize(text.encode(), add_bos=False, special=special)


def llama_logits(model, ids):
    model.reset()
    model.eval(ids)
    return np.array(model.scores[:len(ids)])


def begin():
    shared["ctx"] = ctx = peftlib.Context(threads=2)
    shared["gguf"] = peftlib.Model(ctx, smollm2.gguf_path())
    shared["folder"] = peftlib.Model(ctx, smollm2.hf_folder())
    shared["tokenizer"] = peftlib.Tokenizer(ctx, smollm2.gguf_path())
    shared["hf"] = hf.load(smollm2.hf_folder())
    shared["ids"] = [shared["tokenizer"].encode(t, 1) for t in smollm2.TEXTS]


def tokens():
    """Ours against llama.cpp's reading of the same file; transformers reads what libpeft exports in merged()."""
    vocab = llama_cpp.Llama(smollm2.gguf_path(), vocab_only=True, verbose=False)
    texts = smollm2.TEXTS + [t for row in smollm2.e2e("dev", 200) for t in smollm2.e2e_texts(row)]
    t = shared["tokenizer"]
    wrong = [x for x in texts if t.encode(x, 1) != llama_tokens(vocab, x, True)]
    check("tokens of %d texts as in llama.cpp" % len(texts), not wrong, repr(wrong[:1]))
    wrong = [x for x in texts if t.decode(t.encode(x, 1), 1) != x]
    check("the texts from their tokens", not wrong, repr(wrong[:1]))


def base_logits():
    for i, ids in enumerate(shared["ids"]):
        theirs = hf.logits(shared["hf"], ids)
        for kind in ("gguf", "folder"):
            close("prompt %d, %s: logits" % (i, kind), peftlib.Session(shared[kind]).logits(ids), theirs, 1e-5)
    long = shared["tokenizer"].encode(" ".join(r["refs"][0] for r in smollm2.e2e("dev", 40)))[:700]
    close("700 tokens: logits", peftlib.Session(shared["gguf"]).logits(long), hf.logits(shared["hf"], long), 1e-5)
    for i, ids in enumerate(shared["ids"][:4]):
        ours = peftlib.Session(shared["gguf"]).generate(ids, 16, ignore_eos=True)
        equal("prompt %d: 16 greedy tokens" % i, ours, hf.greedy(shared["hf"], ids, 16))


def hf_row(row):
    """Prompt and completion as libpeft's templates make them, by its tokenizer, which tokens() has compared."""
    t = shared["tokenizer"]
    prompt, completion = smollm2.e2e_texts(row)
    eos = shared["hf"].config.eos_token_id
    a, b = t.encode(prompt, 1), t.encode(completion) + [eos]
    return a + b, [-100] * len(a) + b


def training():
    """15 steps on e2e-nlg rows from one saved initial adapter: ours through data set and trainer, PEFT in a plain loop."""
    with tempfile.TemporaryDirectory() as top:
        adapters = peftlib.Adapters(shared["gguf"])
        adapters.add("a", "lora", LORA, seed=11)
        adapters.save("a", top + "/initial")
        rows = smollm2.e2e("train", STEPS * ROWS)
        smollm2.write_jsonl(top + "/rows.jsonl", rows)
        data = peftlib.Dataset(shared["ctx"], shared["tokenizer"], prompt_template=PROMPT, completion_template=COMPLETION)
        data.load(top + "/rows.jsonl")
        pairs = [hf_row(r) for r in rows]
        equal("rows: tokens", data.info()["tokens"], sum(len(a) for a, _ in pairs))
        equal("rows: labelled tokens", data.info()["labelled_tokens"], sum(x != -100 for _, b in pairs for x in b))

        theirs = hf.load_adapter(hf.load(smollm2.hf_folder()), top + "/initial")
        first = [p[0] for p in pairs[:ROWS]], [p[1] for p in pairs[:ROWS]]
        first_gradients("initial adapter", adapters, theirs, first)
        optimizer = dict(learning_rate=RATE, lr_scheduler_type="linear", warmup_steps=3, max_grad_norm=1.0)
        trainer = peftlib.Trainer(adapters, "a", data, batch_size=ROWS, max_steps=STEPS, shuffle=False, optimizer=optimizer)
        losses = [s["loss"] for s in trainer.run()]
        expected = peft_losses(theirs, pairs)
        error = np.abs(np.array(losses) / np.array(expected) - 1)
        check("%d losses as HF PEFT's" % STEPS, len(losses) == STEPS and error.max() <= 1e-4,
              "worst %.1e, from %.4f to %.4f" % (error.max(), losses[0], losses[-1]))
        first_gradients("trained adapter", adapters, theirs, first, same=False, save=top + "/trained")
        adapter_files(adapters, theirs, top)
        merged(adapters, top)


def peft_losses(model, pairs):
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    schedule = transformers.get_scheduler("linear", optimizer, 3, STEPS)
    out = []
    for i in range(0, len(pairs), ROWS):
        value = hf.loss(model, [p[0] for p in pairs[i:i + ROWS]], [p[1] for p in pairs[i:i + ROWS]])
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step(), schedule.step(), optimizer.zero_grad(set_to_none=True)
        out.append(value.item())
    return out


def first_gradients(title, adapters, theirs, batch, same=True, save=None):
    """same: both sides have the adapter already; otherwise ours is saved and PEFT opens it."""
    if not same:
        adapters.save("a", save)
        theirs = hf.load_adapter(hf.load(smollm2.hf_folder()), save)
    trainer = peftlib.Trainer(adapters, "a", batch_size=ROWS, max_length=max(map(len, batch[0])), max_steps=1)
    loss = trainer.accumulate(peftlib.Batch(adapters.ctx, *batch))
    expected, grads = hf.gradients(theirs, *batch)
    close(title + ": loss", loss, expected, 1e-5)
    each_close(title + ": gradient of every tensor", {n: trainer.gradient(n) for n in grads}, grads, 1e-4, FLOOR)


def adapter_files(adapters, theirs, top):
    """Both trained adapters, each opened by the other side."""
    theirs.save_pretrained(top + "/peft")
    adapters.load("theirs", top + "/peft")
    ours_there = hf.load_adapter(hf.load(smollm2.hf_folder()), top + "/trained")
    for i, ids in enumerate(shared["ids"][:3]):
        ours = peftlib.Session(shared["gguf"], adapters, "a").logits(ids)
        close("prompt %d: our adapter in PEFT" % i, ours, hf.logits(ours_there, ids), 1e-5)
        back = peftlib.Session(shared["folder"], None).logits(ids)
        check("prompt %d: the adapter changes the model" % i, float(np.abs(ours - back).max()) > 0.1)
        theirs_here = peftlib.Session(shared["gguf"], adapters, "theirs").logits(ids)
        close("prompt %d: PEFT's adapter in libpeft" % i, theirs_here, hf.logits(theirs, ids), 1e-5)


def merged(adapters, top):
    session = peftlib.Session(shared["gguf"], adapters, "a")
    adapters.merge("a", top + "/merged", dtype="float32")
    adapters.merge("a", top + "/merged.gguf", dtype="float32")
    there, cpp = hf.load(top + "/merged"), llama(top + "/merged.gguf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(top + "/merged")
    for i, (text, ids) in enumerate(zip(smollm2.TEXTS, shared["ids"])):
        ours, answer = session.logits(ids), session.generate(ids, 16, ignore_eos=True)
        equal("prompt %d: tokens of the merged folder in transformers" % i,
              tokenizer(text, add_special_tokens=False)["input_ids"], ids)
        equal("prompt %d: tokens of the merged GGUF in llama.cpp" % i, llama_tokens(cpp, text, True), ids)
        close("prompt %d: merged folder in transformers" % i, hf.logits(there, ids), ours, 2e-5)
        equal("prompt %d: greedy tokens of it" % i, hf.greedy(there, ids, 16), answer)
        close("prompt %d: merged GGUF in llama.cpp" % i, llama_logits(cpp, ids), ours, 1e-4)
        equal("prompt %d: greedy tokens of it" % i, llama_greedy(cpp, ids, 16), answer)
    cpp.close()
    adapters.merge("a", top + "/small.gguf", dtype="q8_0")
    cpp = llama(top + "/small.gguf")
    small = peftlib.Model(shared["ctx"], top + "/small.gguf")
    close("merged GGUF, Q8_0, in llama.cpp", llama_logits(cpp, shared["ids"][0]),
          peftlib.Session(small).logits(shared["ids"][0]), 0.1)  # llama.cpp quantises the activations too
    check("merged GGUF, Q8_0: a third of the size", os.path.getsize(top + "/small.gguf") <
          0.35 * os.path.getsize(top + "/merged.gguf"))
    cpp.close()


def llama_greedy(model, ids, count):
    out = list(ids)
    while len(out) < len(ids) + count:
        out.append(int(llama_logits(model, out)[-1].argmax()) if len(out) == len(ids) else llama_next(model, out[-1]))
    return out[len(ids):]


def llama_next(model, token):
    model.eval([token])
    return int(np.array(model.scores[model.n_tokens - 1]).argmax())


if __name__ == "__main__":
    main(begin, tokens, base_logits, training)
