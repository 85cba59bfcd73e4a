"""scaling.py [OPTION...] - how much of N machines data-parallel training uses: the model of docs/scaling.md, simulated.

A step takes as long as the machine with the most tokens, and then the sum of the gradients:

    compute_m   tokens of machine m's rows * FLOPs a token / rate
    reduce      2 (N-1)/N * bytes / bandwidth + 2 (N-1) * latency           (a ring, the best that there is for long messages)
    efficiency  mean of compute_m / (max of compute_m + reduce), over steps

Row i of a batch is machine i mod N's. Rows have a log-normal number of tokens, with --spread as the deviation of its logarithm; 0: all
the same. FLOPs a token are 4 for each parameter of the base (2 forward, 2 for the gradient of what lies before), and 2 more for each
trained one. Needs Python only.

--sum tree: a sum and a broadcast along binary trees, without a pipeline, as MPI_Reduce and MPI_Bcast may do it:
2 ceil(log2 N) (bytes / bandwidth + latency).

--overlap LAYERS: what a library would make of it that sums a layer's gradients up while the layers below are computed. Half of the
computation is the backward pass; all but the lowest layer's sum hides behind it, as far as it is long enough:

    step        forward + max(backward, reduce (1 - 1 / layers)) + reduce / layers

Left out: the update (every machine makes the whole of it), hierarchies, several machines on one link.
"""
import argparse
import math
import random

MACHINES = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
NETWORKS = [1, 10, 100]  # Gbit/s


def ring(machines, size, gbit, latency):
    """Seconds of an all-reduce of `size` bytes."""
    return 2 * (machines - 1) / machines * size * 8 / (gbit * 1e9) + 2 * (machines - 1) * latency


def tree(machines, size, gbit, latency):
    return 2 * math.ceil(math.log2(machines)) * (size * 8 / (gbit * 1e9) + latency)


SUMS = {"ring": ring, "tree": tree}


def steps_of(given, machines):
    """Pairs of the mean and the most tokens that a machine has, of some steps."""
    rng = random.Random(given.seed)
    mean = -given.spread ** 2 / 2  # of the logarithm, so that the mean is 1
    for _ in range(given.steps):
        tokens = [sum(given.tokens * rng.lognormvariate(mean, given.spread) for _ in range(given.rows)) for _ in range(machines)]
        yield sum(tokens) / machines, max(tokens)


def step_of(given, compute, reduce):
    """Seconds of a step, of which the computation takes `compute` on the machine with the most tokens."""
    if not given.overlap:
        return compute + reduce
    return compute / 2 + max(compute / 2, reduce * (1 - 1 / given.overlap)) + reduce / given.overlap


def efficiency(given, machines, size, gbit):
    second = (4 * given.parameters + 2 * size / 4) / (given.gflops * 1e9)  # of a token
    reduce = SUMS[given.sum](machines, size, gbit, given.latency * 1e-6)
    parts = [mean * second / step_of(given, most * second, reduce) for mean, most in steps_of(given, machines)]
    return sum(parts) / len(parts)


def least_rows(given, size, gbit, machines, wanted=0.9):
    """Rows a machine that keep `wanted`, were all rows of the same length."""
    second = (4 * given.parameters + 2 * size / 4) / (given.gflops * 1e9)
    reduce = SUMS[given.sum](machines, size, gbit, given.latency * 1e-6)
    return max(1, math.ceil(wanted / (1 - wanted) * reduce / (given.tokens * second)))


def main():
    parser = argparse.ArgumentParser(description="efficiency of data-parallel training on 2 to 1024 machines")
    parser.add_argument("--parameters", type=float, default=135e6, help="of the base")
    parser.add_argument("--trained", type=float, default=460800, help="of the adapter")
    parser.add_argument("--gflops", type=float, default=120, help="that a machine makes of them, in 1e9 a second")
    parser.add_argument("--rows", type=int, default=8, help="of each machine, a step")
    parser.add_argument("--tokens", type=float, default=512, help="of a row, on average")
    parser.add_argument("--spread", type=float, default=0.0, help="of the rows' lengths")
    parser.add_argument("--latency", type=float, default=50, help="of a message, in microseconds")
    parser.add_argument("--sum", choices=sorted(SUMS), default="ring")
    parser.add_argument("--overlap", type=int, default=0, metavar="LAYERS", help="sums hide behind the backward pass of so many layers")
    parser.add_argument("--steps", type=int, default=20, help="that are simulated")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sizes = [("adapter", given.trained * 4), ("all weights", given.parameters * 4)]
    print("| machines | " + " | ".join("%s, %d Gbit/s" % (name, gbit) for name, _ in sizes for gbit in NETWORKS) + " |")
    print("|---" * (1 + len(sizes) * len(NETWORKS)) + "|")
    for machines in MACHINES:
        cells = ["%.1f %%" % (100 * efficiency(given, machines, size, gbit)) for _, size in sizes for gbit in NETWORKS]
        print("| %d | %s |" % (machines, " | ".join(cells)))
    if given.overlap:
        return
    rows = ["%d" % least_rows(given, size, gbit, MACHINES[-1]) for _, size in sizes for gbit in NETWORKS]
    print("| rows for 90 %% on %d | %s |" % (MACHINES[-1], " | ".join(rows)))


if __name__ == "__main__":
    main()
