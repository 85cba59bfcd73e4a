"""gloo_train.py MODEL DATA OUT [OPTION...] - LoRA by several processes, which add up their gradients by Gloo (torch.distributed).

    torchrun --nproc-per-node 2 examples/gloo_train.py examples/demo/base/model.gguf examples/demo/train.jsonl out --steps 60

Each process takes its part of every batch of --batch rows, so that 1, 2 or 4 of them learn the same. Process 0 saves OUT, an adapter,
and with --checkpoint its state every --save-steps; with --resume any number of processes go on from there. Where one is lost the
others end, with exit code 1 and what to do, at once or, if it hangs, after --timeout seconds.
"""
import argparse
import datetime
import os
import sys
from typing import Any, Callable, List, Optional

import torch
import torch.distributed as dist

import libpeft


def sum_over_all(values: memoryview) -> None:
    """In place. The sum is made once and sent to all: an all-reduce does not promise the same bits in each process, and adapters
    that differ in the last one go apart for good."""
    tensor = torch.frombuffer(values, dtype=torch.float32)
    dist.reduce(tensor, dst=0)
    dist.broadcast(tensor, src=0)


def train(given: argparse.Namespace, rank: int, size: int, add_up: Callable[[memoryview], None]) -> List[libpeft.Step]:
    """Trains and saves; the steps that were made."""
    model = libpeft.Model.open(given.model, context=libpeft.Context(threads=given.threads))
    adapter = model.adapters().add("adapter", "lora", seed=1)  # the same seed in all
    options: "dict[str, Any]" = dict(checkpoint_dir=given.checkpoint, save_steps=given.save_steps) if given.checkpoint else {}
    trainer = libpeft.Trainer(adapter, given.data, learning_rate=1e-3, batch_size=given.batch, max_steps=given.steps, **options)
    trainer.set_all_reduce(rank, size, add_up if size > 1 else None)
    if given.resume:
        trainer.load_checkpoint(given.resume)

    def show(step: libpeft.Step) -> None:
        if rank == 0:
            print("step %d of %d: loss %.4f, %d tokens" % (step.step, step.max_steps, step.loss, step.tokens), flush=True)

    steps = trainer.run(show)
    if rank == 0 or given.every_rank:
        adapter.save("%s-%d" % (given.out, rank) if given.every_rank else given.out)
    return steps


def arguments(words: Optional[List[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="LoRA by several processes")
    for place in ("model", "data", "out"):
        parser.add_argument(place)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16, help="rows of a step, of all processes together")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--checkpoint", help="folder that process 0 writes")
    parser.add_argument("--save-steps", type=int, default=10)
    parser.add_argument("--resume", help="a checkpoint's folder, which every process must see")
    parser.add_argument("--timeout", type=float, default=60, help="seconds that a process waits for the others")
    parser.add_argument("--every-rank", action="store_true", help="each process saves its adapter, as OUT-RANK")
    return parser.parse_args(words)


def main(given: argparse.Namespace, add_up: Callable[[memoryview], None] = sum_over_all) -> int:
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1:  # torchrun has set MASTER_ADDR and MASTER_PORT as well
        dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=given.timeout))
    try:
        train(given, rank, size, add_up)
    except libpeft.Error as error:
        print("gloo_train: process %d of %d: %s" % (rank, size, error), file=sys.stderr, flush=True)
        os._exit(1)  # the others wait for this one
    except RuntimeError as error:  # Gloo's: a connection that was closed, or a time-out
        hint = " To go on, with any number of processes: --resume %s" % given.checkpoint if given.checkpoint else ""
        print("gloo_train: process %d of %d lost the others: %s.%s" % (rank, size, str(error).strip().rstrip("."), hint),
              file=sys.stderr, flush=True)
        os._exit(1)  # Gloo's own threads may wait for what does not come
    if size > 1:
        dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(arguments()))
