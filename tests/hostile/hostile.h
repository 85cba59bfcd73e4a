/* hostile.h - what the tests of files that mean harm share: a good file of a kind, named changes to it, and what refusing one is.
 *
 * A changed file is refused when opening it through peft.h gives the status that its row of a table says, the message has the file's
 * name (or the folder's, where two of its files do not fit) and the culprit,
     no allocation was larger than what the good file needs and 16 times the changed file's size (so nothing was
 * reserved by a size that it claims), nothing is left of it, and the good file opens afterwards on the same context. An unusual file is
 * taken when it opens and means what the good one does.
 *
 * Left out: changes that nobody named (tests/fuzz), calls of the system that fail (tests/faults). */
#ifndef HOSTILE_H
#define HOSTILE_H

#include "unit/api_kit.h"

typedef struct hostile_host { /* behind the context's allocator */
    size_t now, peak, largest; /* bytes outstanding, at most, of one allocation */
} hostile_host;

typedef struct hostile hostile;
/* Opens what h->what says and frees it. print: what it means (of its numbers, ids or rows), for files that are taken; NULL: not wanted. */
typedef peft_status (*hostile_open)(hostile *h, uint64_t *print);

struct hostile {
    const char *format;      /* of the files, in the report */
    peft_context *ctx;
    hostile_host host;
    hostile_open open;
    peft_model *base;        /* what adapters and checkpoints are for; owned; NULL: none */
    peft_tokenizer *words;   /* what data sets are cut by; owned; NULL: none */
    const char *options;     /* of the data set, with ' for "; NULL: none */
    char dir[400];           /* the folder of the files */
    char what[500];          /* path that is opened: the folder or a file in it */
    char path[500];          /* the file that is changed */
    const char *name;        /* of it, in path */
    char *good;              /* that file as it was, with a NUL; owned */
    size_t len;              /* of good */
    size_t largest, peak;    /* bytes that the good file takes: of one allocation, at once */
    uint64_t print;          /* what it means */
    char said[600];          /* of the last file that was refused */
};

/* A case by text: the first `from` of the file becomes `to`. */
typedef struct hostile_swap {
    const char *name;   /* NULL: `to` will do */
    const char *from, *to;
    peft_status status;
    const char *culprit; /* NULL: the file's name will do */
} hostile_swap;

typedef struct hostile_value { /* a JSON value where another was */
    const char *text;
    peft_status status;
} hostile_value;

/* A context over the counting allocator, and an empty folder. */
bool hostile_begin(hostile *h, const char *format, hostile_open open);
void hostile_end(hostile *h);
bool hostile_write(const char *dir, const char *name, const void *data, size_t len);
void hostile_remove(hostile *h, const char *name);
/* Takes up the good file `name` of the folder; opened is the folder, or with `alone` the file. */
bool hostile_take(hostile *h, const char *name, bool alone);

/* Each of these is one case, that passes or fails. */
void hostile_refused(hostile *h, const char *what, const void *data, size_t len, peft_status status, const char *culprit);
void hostile_taken(hostile *h, const char *what, const void *data, size_t len);  /* and means the same */
void hostile_opens(hostile *h, const char *what, const void *data, size_t len); /* and may mean something else */
void hostile_holds(hostile *h, const char *what, bool holds);

/* Bytes [at, at + cut) replaced; of safetensors the length of the header set right. */
void hostile_spliced(hostile *h, const char *what, size_t at, size_t cut, const void *text, size_t n, peft_status status,
                     const char *culprit);
void hostile_swaps(hostile *h, const hostile_swap *swaps, size_t n);
/* Each value in the place of that of "key", of all that there are of that name the first,
    or with a key of its own; the culprit is the key. */
void hostile_values(hostile *h, const char *key, const hostile_value *values, size_t n);
/* The first `n` bytes alone, for each of `cuts` places in equal steps over [0, end). */
void hostile_cuts(hostile *h, size_t end, size_t cuts, peft_status status);
/* The place of the key's value from `from` on, and its length; NULL: there is none. */
const char *hostile_find(const char *from, const char *key, size_t *len);
uint64_t hostile_hash(uint64_t h, const void *data, size_t len);

/* One format each. */
void hostile_safetensors(void);
void hostile_gguf(void);
void hostile_json(void);
void hostile_tokenizers(void);
void hostile_configs(void);
void hostile_adapters(void);
void hostile_datasets(void);
void hostile_checkpoints(void);

/* A model of `config` saved: a folder or, where name ends in .gguf, a file in it. */
peft_status hostile_save_model(hostile *h, const char *config, const char *name);
peft_status hostile_open_model(hostile *h, uint64_t *print);
/* All that can be done to the header of a safetensors file that was taken; every `step`-th tensor. */
void hostile_header(hostile *h, size_t step);

#endif
