/* hub.h - what the methods of AdapterHub's folders share beyond method.h: their configs, their layers, their unions. */
#ifndef PEFT_HUB_H
#define PEFT_HUB_H

#include "peft/method.h"

/* The activation of a name of AdapterHub (bottleneck.c); those that all methods know. */
#define PEFT__HUB_ACTS "relu|gelu|gelu_new|swish|silu|tanh|sigmoid|quick_gelu|identity"
int32_t peft__bottleneck_act(const char *name);

/* Is a layer in option leave_out, LIST text? arena: for the parsed list. */
peft_status peft__hub_left_out(const peft__adapter *a, peft__arena *arena, int32_t layer, bool *out);
/* What stands before the names of what an adapter has once: "model.", or "" where the model has its stacks itself (T5). */
char *peft__hub_base(peft__arena *arena, const peft__site *s);
/* The module that holds the adapters of a STREAM site: the site's own where it has the norm that follows (BERT's "attention.output",
 * which that library makes a layer of adapters) or is a part by number (T5's "layer.0"), else one beside it, "attention_adapters" or
 * "output_adapters". */
char *peft__hub_place(peft__arena *arena, const peft__site *s);
bool peft__hub_place_own(const peft__site *s); /* the first of these */
/* Members of "config", the method's "architecture" among them. */
peft_status peft__hub_members(const peft__adapter *a, peft__json_out *j);
peft_status peft__hub_bottleneck(const peft__adapter *a, peft__arena *arena, peft__json_out *j); /* those of a bottleneck */
/* A name in files: `file` after the component that holds adapters by name. */
char *peft__hub_named(peft__arena *arena, const char *name, const char *file);
/* Initial values of a gate, parameter i: weight N(0, 0.02); bias, which follows its weight, as PyTorch's linears. */
void peft__hub_init_gate(const peft__adapter *a, size_t i, bool bias, peft__rng *rng);

/* ---- LoRA (lora_hub.c, lora_to_hub.c) ---------------------------------------------------------------------------------------- */

/* Are the FFN's matrices named the other way round: is the last one "intermediate"? */
bool peft__lora_hub_turned(const peft__base_info *base);
/* Row of a matrix of q, k and v in which element i of the part (0: q) is. */
int64_t peft__lora_hub_row(const peft__site *s, int64_t part, int64_t i);

peft_status peft__lora_hub_simplify(const peft__adapter *a, peft__adapter **out); /* to method lora; none with gates */
peft_status peft__lora_hub_loaded(const peft__adapter *a, peft__adapter **out);   /* the same where it is a change of names */
peft_status peft__lora_to_hub(const peft__adapter *a, peft__adapter **out);       /* and back; errors name what hinders */

/* ---- unions (mam.c, format_hub_union.c) ------------------------------------------------------------------------------------ */

/* An option of a union and where it goes: `key` of part `part`; -1: to every part. */
typedef struct peft__hub_union_option {
    const char *own, *key;
    int32_t part;
} peft__hub_union_option;

enum { PEFT__HUB_UNION_PARTS = 3 };
typedef struct peft__hub_union {
    const peft__method *method;  /* of the union */
    const char *parts[PEFT__HUB_UNION_PARTS]; /* methods by name; NULL after the last */
    const peft__hub_union_option *options;
    size_t count;
} peft__hub_union;
const peft__hub_union *peft__hub_union_of(const peft__method *m); /* NULL: none */
const peft__hub_union *peft__hub_union_at(size_t i);              /* NULL past the end */
/* Options of part i as the union's say them; `out` is to be freed. */
peft_status peft__hub_union_part_options(const peft__hub_union *u, const peft__optset *own, peft__mem *mem, int32_t part,
                                         peft__optset *out);
peft_status peft__hub_union_copy(const peft__optset *from, const char *key, peft__optset *to, const char *to_key);
peft_status peft__hub_union_out(const peft__adapter *a, peft__json_out *j);
peft_status peft__hub_union_in(peft__optset *opts, const peft__json *root, const char *what);
/* The method whose parts the configs of a file are; PEFT_E_UNSUPPORTED names those that it has. */
peft_status peft__hub_union_method(const peft__json *root, const char *what, const peft__method **out);

#endif
