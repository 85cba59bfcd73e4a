/* reduce_bench.c - what a sum over all processes takes: MPI_Allreduce, and MPI_Reduce with MPI_Bcast as in examples/mpi_train.c.
 *
 *   mpicc -O2 bench/reduce_bench.c -o reduce_bench && mpirun -n 2 ./reduce_bench
 *
 * Best of 30, for the bytes of some adapters (docs/scaling.md). */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static double once(float *values, int n, int rank, int together) {
    MPI_Barrier(MPI_COMM_WORLD);
    double begun = MPI_Wtime();
    if (together) {
        MPI_Allreduce(MPI_IN_PLACE, values, n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    } else {
        MPI_Reduce(rank == 0 ? MPI_IN_PLACE : values, values, n, MPI_FLOAT, MPI_SUM, 0, MPI_COMM_WORLD);
        MPI_Bcast(values, n, MPI_FLOAT, 0, MPI_COMM_WORLD);
    }
    double own = MPI_Wtime() - begun, most = 0;
    MPI_Allreduce(&own, &most, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD); /* it has ended when it has for all */
    return most;
}

int main(int argc, char **argv) {
    static const int counts[] = {20480, 460800, 4194304, 16777216}; /* floats */
    int rank, size;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        float *values = calloc((size_t)counts[i], sizeof *values);
        double best[2] = {1e9, 1e9};
        if (values == NULL) { MPI_Abort(MPI_COMM_WORLD, 1); }
        for (int j = 0; j < 60; j++) {
            double took = once(values, counts[i], rank, j % 2);
            best[j % 2] = took < best[j % 2] ? took : best[j % 2];
        }
        if (rank == 0) {
            printf("%d processes, %9zu bytes: reduce and broadcast %8.3f ms, all-reduce %8.3f ms\n", size,
                   (size_t)counts[i] * sizeof(float), 1e3 * best[0], 1e3 * best[1]);
        }
        free(values);
    }
    MPI_Finalize();
    return 0;
}
