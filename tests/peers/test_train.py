#!/usr/bin/env python3
"""Training on small random models against torch: the losses of AdamW and SGD steps, clipping, accumulation, learning rates
of every schedule, label smoothing, full fine-tuning, and the trainer's own loop over a data set.
"""
import tempfile

import numpy as np
import torch
import transformers

import hf
import peftlib
from checks import check, close, each_close, equal, main
from test_lora import FLOOR, compare_gradients

OPTIMIZERS = [
    ("AdamW", dict(optimizer="adamw", learning_rate=5e-3),
     lambda p: torch.optim.AdamW(p, lr=5e-3, weight_decay=0.0)),
    ("AdamW, decay, betas, epsilon", dict(optimizer="adamw", learning_rate=5e-3, weight_decay=0.1, adam_beta1=0.8,
                                         adam_beta2=0.95, adam_epsilon=1e-6),
     lambda p: torch.optim.AdamW(p, lr=5e-3, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-6)),
    ("SGD", dict(optimizer="sgd", learning_rate=0.5), lambda p: torch.optim.SGD(p, lr=0.5)),
    ("SGD, momentum", dict(optimizer="sgd", learning_rate=0.2, momentum=0.9),
     lambda p: torch.optim.SGD(p, lr=0.2, momentum=0.9)),
]
STEPS = 5


def torch_losses(model, make, batches, clip=0.0, passes=1):
    """Losses of the steps, each over `passes` batches whose labelled tokens count alike."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer, out = make(parameters), []
    for i in range(0, len(batches), passes):
        group = batches[i:i + passes]
        rows, labels = [r for b in group for r in b[0]], [l for b in group for l in b[1]]
        value = hf.loss(model, rows, labels)
        value.backward()
        if clip > 0:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        out.append(value.item())
    return out


def our_losses(adapters, name, optimizer, batches, passes=1):
    trainer = peftlib.Trainer(adapters, name, optimizer=dict(optimizer, lr_scheduler_type="constant"), batch_size=8,
                              max_length=128, max_steps=STEPS)
    out = []
    for i in range(0, len(batches), passes):
        total = count = 0
        for rows, labels in batches[i:i + passes]:
            n = sum(x != -100 for l in labels for x in l[1:])
            total += n * trainer.accumulate(peftlib.Batch(adapters.ctx, rows, labels))
            count += n
        trainer.apply()
        out.append(total / count)
    return out


def opened(top, pair, seed, **config):
    """A base and a random adapter over it, on both sides."""
    base, adapter = "%s/%d-base" % (top, seed), "%s/%d-peft" % (top, seed)
    hf.make(pair, seed).save_pretrained(base)
    theirs = hf.add_lora(hf.load(base), seed + 1, **config)
    theirs.save_pretrained(adapter)
    adapters = peftlib.Adapters(peftlib.Model(peftlib.Context(threads=2), base))
    adapters.load("a", adapter)
    return adapters, theirs


def optimizers():
    batches = [hf.random_rows(50 + i, lengths=(30, 41)) for i in range(STEPS)]
    with tempfile.TemporaryDirectory() as top:
        for i, (title, ours, make) in enumerate(OPTIMIZERS):
            for name, pair in (("Llama", hf.llama()), ("GPT-2", hf.gpt2())):
                adapters, theirs = opened(top, pair, 10 * i + len(name), r=4, target_modules="all-linear")
                expected = torch_losses(theirs, make, batches)
                mine = our_losses(adapters, "a", dict(ours, max_grad_norm=0), batches)
                close("%s, %s: %d losses" % (name, title, STEPS), mine, expected, 1e-4)
                state = {n: adapters.read("a", n) for n in hf.trainable(theirs)}
                each_close("%s, %s: parameters after them" % (name, title), state,
                           {n: p.detach().numpy() for n, p in hf.trainable(theirs).items()}, 1e-3)


def clipping_and_accumulation():
    with tempfile.TemporaryDirectory() as top:
        batches = [hf.random_rows(70 + i, lengths=(30, 41 + 7 * i)) for i in range(STEPS)]
        adapters, theirs = opened(top, hf.llama(), 31, r=4, target_modules="all-linear")
        make = OPTIMIZERS[2][2]
        expected = torch_losses(theirs, make, batches, clip=0.05)
        mine = our_losses(adapters, "a", dict(optimizer="sgd", learning_rate=0.5, max_grad_norm=0.05), batches)
        close("clipping to 0.05: losses", mine, expected, 1e-4)
        batches = [hf.random_rows(80 + i, lengths=(9 + 9 * i, 41)) for i in range(2 * STEPS)]
        adapters, theirs = opened(top, hf.llama(), 32, r=4, target_modules="all-linear")
        expected = torch_losses(theirs, OPTIMIZERS[0][2], batches, passes=2)
        mine = our_losses(adapters, "a", dict(learning_rate=5e-3, max_grad_norm=0), batches, passes=2)
        close("two passes a step: losses", mine, expected, 1e-4)


def schedules():
    """The rates that a run reports against transformers.get_scheduler."""
    steps, rate = 20, 1e-3
    with tempfile.TemporaryDirectory() as top:
        adapters, _ = opened(top, hf.llama(num_hidden_layers=1), 41, r=2, target_modules=["q_proj"])
        rows, labels = hf.random_rows(42, lengths=(8,) * 20)
        data = peftlib.Dataset(adapters.ctx).add_rows(rows, labels)
        for name, theirs, extra, special in (
                ("linear", "linear", {}, None), ("cosine", "cosine", {}, None), ("constant", "constant_with_warmup", {}, None),
                ("polynomial", "polynomial", dict(lr_power=2.5), dict(power=2.5, lr_end=0.0)),
                ("polynomial", "polynomial", dict(lr_power=1.5, lr_min_ratio=0.1), dict(power=1.5, lr_end=0.1 * rate))):
            for warmup in (0, 6):
                optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
                schedule = transformers.get_scheduler(theirs, optimizer, warmup, steps, scheduler_specific_kwargs=special)
                expected = []
                for _ in range(steps):
                    expected.append(optimizer.param_groups[0]["lr"])
                    optimizer.step()
                    schedule.step()
                trainer = peftlib.Trainer(adapters, "a", data, batch_size=1, max_steps=steps, optimizer=dict(
                    extra, learning_rate=rate, lr_scheduler_type=name, warmup_steps=warmup))
                mine = [s["learning_rate"] for s in trainer.run()]
                close("%s%s, warm-up %d: rates" % (name, " to a tenth" if "lr_min_ratio" in extra else "", warmup), mine,
                      expected, 1e-9)


def label_smoothing():
    with tempfile.TemporaryDirectory() as top:
        for share in (0.1, 0.5):
            adapters, theirs = opened(top, hf.llama(), int(100 * share), r=4, target_modules="all-linear")
            compare_gradients("label smoothing %g" % share, adapters, "a", theirs, *hf.random_rows(61), smoothing=share)


def full_fine_tuning():
    batches = [hf.random_rows(90 + i, lengths=(30, 41)) for i in range(STEPS)]
    with tempfile.TemporaryDirectory() as top:
        for i, (title, pair) in enumerate((("Llama", hf.llama()), ("Llama, tied", hf.llama(tie_word_embeddings=True)),
                                           ("Llama, biases", hf.llama(attention_bias=True, mlp_bias=True)),
                                           ("Mistral, window 16", hf.mistral(sliding_window=16)), ("GPT-2", hf.gpt2()))):
            base = "%s/full%d" % (top, i)
            hf.make(pair, 200 + i).save_pretrained(base)
            theirs = hf.load(base)
            adapters = peftlib.Adapters(peftlib.Model(peftlib.Context(threads=2), base))
            adapters.add("a", "full")
            name = "full, " + title
            shapes = {n: tuple(p.shape) for n, p in theirs.named_parameters()}
            equal(name + ": names and shapes", adapters.shapes("a"), shapes)
            compare_gradients(name, adapters, "a", theirs, *hf.random_rows(300 + i))
            # SGD: AdamW would follow the sign of gradients that are zero in theory, such as that of the bias of the keys.
            expected = torch_losses(theirs, lambda p: torch.optim.SGD(p, lr=0.05), batches)
            mine = our_losses(adapters, "a", dict(optimizer="sgd", learning_rate=0.05, max_grad_norm=0), batches)
            close("%s: %d losses" % (name, STEPS), mine, expected, 1e-4)
            each_close(name + ": parameters after them", {n: adapters.read("a", n) for n in shapes},
                       {n: p.detach().numpy() for n, p in theirs.named_parameters()}, 1e-3)
            adapters.save("a", base + "-saved")
            close(name + ": saved, in transformers", hf.logits(hf.load(base + "-saved"), batches[0][0][1]),
                  peftlib.Session(adapters.model, adapters, "a").logits(batches[0][0][1]), 1e-5)


def run_over_a_dataset():
    """The trainer's loop in the order of the rows: batches, warm-up, clipping, evaluation."""
    rows, labels = hf.random_rows(400, lengths=(12, 33, 20, 7, 51, 18, 26, 40, 9, 15))
    held, held_labels = hf.random_rows(401, lengths=(22, 31, 17))
    with tempfile.TemporaryDirectory() as top:
        adapters, theirs = opened(top, hf.llama(), 71, r=4, target_modules="all-linear")
        train = peftlib.Dataset(adapters.ctx).add_rows(rows, labels)
        evaluate = peftlib.Dataset(adapters.ctx).add_rows(held, held_labels)
        trainer = peftlib.Trainer(adapters, "a", train, evaluate, batch_size=4, max_steps=9, shuffle=False, eval_steps=3,
                                  optimizer=dict(learning_rate=3e-3, warmup_steps=2, max_grad_norm=0.5, weight_decay=0.01))
        log = trainer.run()
        parameters = [p for p in theirs.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.01)
        schedule = transformers.get_scheduler("linear", optimizer, 2, 9)
        losses, norms, held_losses, at = [], [], [], 0
        for step in range(9):
            take = slice(at, min(at + 4, len(rows)))  # an epoch's last batch is what is left
            at = 0 if take.stop == len(rows) else take.stop
            value = hf.loss(theirs, rows[take], labels[take])
            value.backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, 0.5)))
            optimizer.step(), schedule.step(), optimizer.zero_grad(set_to_none=True)
            losses.append(value.item())
            if step % 3 == 2:
                with torch.no_grad():
                    held_losses.append(hf.loss(theirs, held, held_labels).item())
        equal("run: steps", [s["step"] for s in log], list(range(1, 10)))
        close("run: losses", [s["loss"] for s in log], losses, 1e-4)
        close("run: norms", [s["grad_norm"] for s in log], norms, 1e-3)
        close("run: evaluations", [s["eval_loss"] for s in log if np.isfinite(s["eval_loss"])], held_losses, 1e-4)
        result = peftlib.Session(adapters.model, adapters, "a").evaluate(evaluate)
        close("run: the session's evaluation", result["loss"], held_losses[-1], 1e-4)
        with torch.no_grad():
            right = count = 0
            for r, l in zip(held, held_labels):
                best = hf.logits(theirs, r)[:-1].argmax(-1)
                marks = np.array(l[1:])
                right += int((best == marks)[marks != -100].sum())
                count += int((marks != -100).sum())
        equal("run: labelled tokens", result["tokens"], count)
        check("run: accuracy", abs(result["accuracy"] - right / count) <= 1.01 / count, "%g" % result["accuracy"])
        close("run: perplexity", result["perplexity"], np.exp(result["loss"]), 1e-6)


def threads_and_floor():
    """The same bits on 1, 2 and 5 threads; and a gradient that is zero in theory is below the floor."""
    rows, labels = hf.random_rows(500)
    with tempfile.TemporaryDirectory() as top:
        hf.make(hf.llama(), 500).save_pretrained(top + "/base")
        seen = []
        for threads in (1, 2, 5):
            adapters = peftlib.Adapters(peftlib.Model(peftlib.Context(threads=threads), top + "/base"))
            adapters.add("a", "lora", dict(r=4, target_modules="all-linear"), seed=7)
            trainer = peftlib.Trainer(adapters, "a", batch_size=3, max_length=64, max_steps=3)
            losses = []
            for _ in range(3):
                losses.append(trainer.accumulate(peftlib.Batch(adapters.ctx, rows, labels)))
                first = {n: trainer.gradient(n) for n in adapters.shapes("a")} if len(losses) == 1 else first
                trainer.apply()
            seen.append((losses, [adapters.read("a", n).tobytes() for n in sorted(adapters.shapes("a"))]))
        check("the same bits on 1, 2 and 5 threads", seen[0] == seen[1] == seen[2])
        zero = max(float(np.abs(g).max()) for n, g in first.items() if "lora_A" in n)
        check("the gradient of A is zero while B is", zero <= FLOOR, "%.1e" % zero)


if __name__ == "__main__":
    main(optimizers, clipping_and_accumulation, schedules, label_smoothing, full_fine_tuning, run_over_a_dataset,
         threads_and_floor)
