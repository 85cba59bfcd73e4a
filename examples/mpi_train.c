/* mpi_train.c - LoRA by several processes, which add up their gradients by MPI.
 *
 *   mpicc -std=c11 -O2 -Iinclude examples/mpi_train.c build/libpeft.a -pthread -lm -o mpi_train
 *   mpirun -n 4 ./mpi_train MODEL DATA.jsonl OUT [STEPS [BATCH [CHECKPOINT [RESUME]]]]
 *
 * Each process takes its part of every batch of BATCH rows, so that 1, 2 or 4 of them learn the same. Process 0 saves the adapter in
 * OUT, and its state every 10 steps in CHECKPOINT ("": nowhere); any number of processes go on from the folder RESUME. With the
 * variable EVERY_RANK set each process saves its adapter as OUT-RANK, to be compared. Where a process is lost mpirun ends all. */
#include <mpi.h>
#include <peft.h>
#include <stdio.h>
#include <stdlib.h>

#define TRY(call)                            \
    do {                                     \
        if ((call) != PEFT_OK) { goto out; } \
    } while (0)

enum { PART = 1 << 24 }; /* floats of a message: MPI counts in ints */

typedef struct run {
    const char *model, *data, *out, *checkpoint, *resume;
    int64_t steps, batch;
    int rank, size;
    size_t reduced;  /* floats of the largest sum: the gradients */
    double quickest; /* seconds of the quickest of these, in which nobody waited for anybody */
} run;

/* MPI_Allreduce with MPI_IN_PLACE would do in one call, but the standard only recommends that all processes get the same bits. A sum
 * that one process makes and sends to the others is the same everywhere, and so stay the adapters. */
static int32_t add_up(void *user, float *values, size_t n) {
    run *r = user;
    double begun = MPI_Wtime();
    for (size_t done = 0; done < n; done += PART) {
        int count = (int)(n - done < PART ? n - done : PART);
        float *part = values + done;
        int failed = MPI_Reduce(r->rank == 0 ? MPI_IN_PLACE : part, part, count, MPI_FLOAT, MPI_SUM, 0, MPI_COMM_WORLD);
        if (failed == MPI_SUCCESS) { failed = MPI_Bcast(part, count, MPI_FLOAT, 0, MPI_COMM_WORLD); }
        if (failed != MPI_SUCCESS) { return 1; } /* the library then says which step was not made */
    }
    double took = MPI_Wtime() - begun;
    if (n > r->reduced || (n == r->reduced && took < r->quickest)) { r->quickest = took; }
    if (n > r->reduced) { r->reduced = n; }
    return 0;
}

static int32_t show(void *user, const peft_step_info *i) {
    const run *r = user;
    if (r->rank > 0) { return 0; }
    printf("step %lld of %lld: loss %.4f, %.1f ms\n", (long long)i->step, (long long)i->max_steps, i->loss,
           1e3 * (double)i->tokens / i->tokens_per_second);
    return fflush(stdout) != 0;
}

static int train(run *r) {
    char place[4096];
    int failed = 1, every = getenv("EVERY_RANK") != NULL;
    peft_context *ctx = NULL;
    peft_model *model = NULL;
    peft_tokenizer *tokenizer = NULL;
    peft_adapters *adapters = NULL;
    peft_dataset *data = NULL;
    peft_options *options = NULL, *optimizer = NULL;
    peft_trainer *trainer = NULL;
    TRY(peft_context_create(NULL, &ctx));
    TRY(peft_context_set_threads(ctx, 1)); /* mpirun gives each process a core */
    TRY(peft_model_open(ctx, r->model, NULL, &model));
    TRY(peft_tokenizer_open(ctx, r->model, &tokenizer));
    TRY(peft_adapters_create(model, &adapters));
    TRY(peft_adapters_add(adapters, "adapter", "lora", NULL, 1)); /* the same seed in all */
    TRY(peft_dataset_create(ctx, tokenizer, NULL, &data));
    TRY(peft_dataset_load_jsonl(data, r->data));
    TRY(peft_options_create(ctx, "trainer", &options));
    TRY(peft_options_set_int(options, "max_steps", r->steps));
    TRY(peft_options_set_int(options, "batch_size", r->batch));
    TRY(peft_options_set_str(options, "checkpoint_dir", r->checkpoint));
    TRY(peft_options_set_int(options, "save_steps", r->checkpoint[0] == '\0' ? 0 : 10));
    TRY(peft_trainer_create(adapters, options, &trainer));
    TRY(peft_options_create(ctx, "optimizer", &optimizer));
    TRY(peft_options_set_float(optimizer, "learning_rate", 1e-3));
    TRY(peft_trainer_add_job(trainer, "adapter", data, NULL, optimizer));
    TRY(peft_trainer_set_progress(trainer, show, r));
    TRY(peft_trainer_set_all_reduce(trainer, r->rank, r->size, r->size > 1 ? add_up : NULL, r));
    if (r->resume != NULL) TRY(peft_trainer_checkpoint_load(trainer, r->resume));
    TRY(peft_trainer_run(trainer));
    snprintf(place, sizeof place, every ? "%s-%d" : "%s", r->out, r->rank);
    if (r->rank == 0 || every) TRY(peft_adapters_save(adapters, "adapter", place, NULL));
    failed = 0;
out:
    if (failed) fprintf(stderr, "mpi_train: process %d of %d: %s\n", r->rank, r->size, peft_last_error());
    peft_trainer_free(trainer), peft_options_free(options), peft_options_free(optimizer), peft_dataset_free(data);
    peft_adapters_free(adapters), peft_tokenizer_free(tokenizer), peft_model_free(model), peft_context_free(ctx);
    return failed;
}

int main(int argc, char **argv) {
    run r = {0};
    if (argc < 4) {
        fprintf(stderr, "mpi_train MODEL DATA.jsonl OUT [STEPS [BATCH [CHECKPOINT [RESUME]]]]\n");
        return 2;
    }
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &r.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &r.size);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    r.model = argv[1], r.data = argv[2], r.out = argv[3];
    r.steps = argc > 4 ? atol(argv[4]) : 60;
    r.batch = argc > 5 ? atol(argv[5]) : 16;
    r.checkpoint = argc > 6 ? argv[6] : "";
    r.resume = argc > 7 ? argv[7] : NULL;
    if (train(&r)) { MPI_Abort(MPI_COMM_WORLD, 1); } /* the others wait for this one */
    if (r.rank == 0 && r.size > 1) { printf("gradients of %zu bytes: %.3f ms\n", r.reduced * sizeof(float), 1e3 * r.quickest); }
    MPI_Finalize();
    return 0;
}
