/* train_order_test.c - the order of the rows in an epoch: fixed by seed and epoch, whatever came before; length groups. */
#include "train_kit.h"

/* A planned trainer over rows of the lengths of train_rows. */
static peft_status order_begin(train_kit *k, const char *trainer, int64_t rows) {
    train_spec s = {.trainer = trainer, .rows = rows};
    peft_status st = train_begin(k, &s);
    return st == PEFT_OK ? peft__trainer_plan(k->t) : st;
}

static int64_t order_length(const train_kit *k, int64_t place) {
    return peft__dataset_row(k->train, (size_t)train_the_job(k)->order[place])->n;
}

/* Does the order hold every row once? */
static bool order_whole(const train_kit *k, int64_t rows) {
    bool seen[512] = {false};
    for (int64_t i = 0; i < rows; i++) {
        int64_t row = train_the_job(k)->order[i];
        if (row < 0 || row >= rows || seen[row]) { return false; }
        seen[row] = true;
    }
    return true;
}

TEST(train_order_follows_seed_and_epoch) {
    train_kit k, other;
    int64_t first[40], second[40];
    CHECK_OK(order_begin(&k, "{'max_steps':1,'batch_size':4,'seed':7}", 40));
    peft__job *job = train_the_job(&k);
    peft__order_epoch(k.t, job, 0);
    CHECK(order_whole(&k, 40));
    memcpy(first, job->order, sizeof first);
    peft__order_epoch(k.t, job, 1);
    CHECK(order_whole(&k, 40));
    memcpy(second, job->order, sizeof second);
    CHECK(memcmp(first, second, sizeof first) != 0);
    CHECK_INT(job->epoch, 1);
    CHECK_INT(job->position, 0);
    peft__order_epoch(k.t, job, 9);
    peft__order_epoch(k.t, job, 0); /* the past does not count */
    CHECK_MEM(job->order, first, sizeof first);
    int64_t moved = 0;
    for (int64_t i = 0; i < 40; i++) { moved += first[i] != i; }
    CHECK(moved > 30);
    CHECK_OK(order_begin(&other, "{'max_steps':1,'batch_size':9,'seed':7}", 40));
    peft__order_epoch(other.t, train_the_job(&other), 1); /* nor does the batch, without groups */
    CHECK_MEM(train_the_job(&other)->order, second, sizeof second);
    train_end(&other);
    CHECK_OK(order_begin(&other, "{'max_steps':1,'batch_size':4,'seed':8}", 40));
    peft__order_epoch(other.t, train_the_job(&other), 0);
    CHECK(memcmp(train_the_job(&other)->order, first, sizeof first) != 0);
    train_end(&other);
    train_end(&k);
}

TEST(train_order_of_the_file) {
    train_kit k;
    CHECK_OK(order_begin(&k, "{'max_steps':1,'batch_size':4,'shuffle':false}", 10));
    for (int64_t epoch = 0; epoch < 3; epoch++) {
        peft__order_epoch(k.t, train_the_job(&k), epoch);
        for (int64_t i = 0; i < 10; i++) { CHECK_INT(train_the_job(&k)->order[i], i); }
    }
    train_end(&k);
}

/* Permutations of a few rows are about equally likely: each row is first in its share of the epochs. */
TEST(train_order_is_fair) {
    train_kit k;
    int64_t firsts[4] = {0}, lasts[4] = {0};
    CHECK_OK(order_begin(&k, "{'max_steps':1,'batch_size':2}", 4));
    for (int64_t epoch = 0; epoch < 4000; epoch++) {
        peft__order_epoch(k.t, train_the_job(&k), epoch);
        firsts[train_the_job(&k)->order[0]]++;
        lasts[train_the_job(&k)->order[3]]++;
    }
    for (int i = 0; i < 4; i++) {
        CHECK_NEAR(firsts[i], 1000, 150); /* more than five standard deviations */
        CHECK_NEAR(lasts[i], 1000, 150);
    }
    train_end(&k);
}

/* Padding that batches of these rows would need. */
static int64_t order_padding(const train_kit *k, int64_t rows, int64_t batch) {
    int64_t sum = 0;
    for (int64_t i = 0; i < rows; i += batch) {
        int64_t longest = 0, end = PEFT__MIN(i + batch, rows);
        for (int64_t j = i; j < end; j++) { longest = PEFT__MAX(longest, order_length(k, j)); }
        for (int64_t j = i; j < end; j++) { sum += longest - order_length(k, j); }
    }
    return sum;
}

TEST(train_order_groups_by_length) {
    train_kit k;
    CHECK_OK(order_begin(&k, "{'max_steps':1,'batch_size':4}", 203));
    peft__order_epoch(k.t, train_the_job(&k), 0);
    int64_t loose = order_padding(&k, 203, 4);
    train_end(&k);
    CHECK_OK(order_begin(&k, "{'max_steps':1,'batch_size':4,'group_by_length':true}", 203));
    peft__order_epoch(k.t, train_the_job(&k), 0);
    CHECK(order_whole(&k, 203));
    CHECK(order_padding(&k, 203, 4) * 10 < loose);
    CHECK(order_length(&k, 200) >= order_length(&k, 202)); /* the short batch stays last */
    int64_t falls = 0;
    for (int64_t i = 4; i < 200; i += 4) { falls += order_length(&k, i) < order_length(&k, i - 4); }
    CHECK(falls > 10 && falls < 40); /* batches themselves are shuffled */
    int64_t first[203];
    memcpy(first, train_the_job(&k)->order, sizeof first);
    peft__order_epoch(k.t, train_the_job(&k), 1);
    CHECK(memcmp(first, train_the_job(&k)->order, sizeof first) != 0);
    peft__order_epoch(k.t, train_the_job(&k), 0);
    CHECK_MEM(train_the_job(&k)->order, first, sizeof first);
    train_end(&k);
}

/* Without shuffling groups are sorted stretches of the file, equal lengths in their order. */
TEST(train_order_groups_of_the_file) {
    train_kit k;
    CHECK_OK(order_begin(&k, "{'max_steps':1,'batch_size':1,'group_by_length':true,'shuffle':false}", 70));
    peft__order_epoch(k.t, train_the_job(&k), 3);
    CHECK(order_whole(&k, 70));
    const int64_t *order = train_the_job(&k)->order;
    for (int64_t i = 1; i < 70; i++) {
        if (i == 50) { continue; } /* where the next stretch begins */
        CHECK((order[i] < 50) == (i < 50));
        CHECK(order_length(&k, i) < order_length(&k, i - 1) ||
              (order_length(&k, i) == order_length(&k, i - 1) && order[i] > order[i - 1]));
    }
    train_end(&k);
}

/* Seven rows in batches of three, two batches a step: steps of 6 and 1 rows, in each epoch. */
TEST(train_order_partial_batches) {
    train_kit k;
    train_spec s = {.trainer = "{'num_train_epochs':2,'batch_size':3,'gradient_accumulation_steps':2,'shuffle':false}",
                    .rows = 7};
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_INT(k.log.n, 4);
    int64_t head = 0, tail = peft__dataset_row(k.train, 6)->n;
    for (size_t i = 0; i < 6; i++) { head += peft__dataset_row(k.train, i)->n; }
    for (int i = 0; i < 4; i++) { CHECK_INT(k.log.tokens[i], i % 2 == 0 ? head : tail); }
    CHECK_NEAR(k.log.epoch[0], 6.0 / 7, 1e-12);
    CHECK_NEAR(k.log.epoch[1], 1, 1e-12);
    CHECK_NEAR(k.log.epoch[3], 2, 1e-12);
    train_end(&k);
    s.trainer = "{'num_train_epochs':1.5,'batch_size':3}"; /* 3 steps an epoch: 4.5, rounded up */
    CHECK_OK(train_begin(&k, &s));
    CHECK_OK(peft_trainer_run(k.t));
    CHECK_INT(k.log.n, 5);
    train_end(&k);
}
