/* heads.c - the head of a classification is trained with any adapter, and kept in its files.
 *
 * HF PEFT does so (PeftModelForSequenceClassification and its like put "classifier" and "score", or "qa_outputs", among
 * modules_to_save): a base that was not made for the task has a random head there, which means nothing without its training. An
 * adapter whose file says another task_type, or none, has no such copies.
 *
 * Left out: the head over the vocabulary, which is trained only where it is asked for. */
#include "peft/method.h"

bool peft__heads_has(const peft__base_info *base, const peft__site *s) {
    if (base->task == NULL || s->weight == NULL) { return false; }
    for (const char *const *name = peft__task_heads(base->task); *name != NULL; name++) {
        if (peft__path_within(s->path, *name)) { return true; }
    }
    return false;
}

/* Does the base have a module of that name? */
static bool heads_there(const peft__base_info *base, const char *name) {
    for (size_t i = 0; i < base->n_sites; i++) {
        if (base->sites[i].weight != NULL && peft__path_within(base->sites[i].path, name)) { return true; }
    }
    return false;
}

peft_status peft__heads_list(peft__adapter *a) {
    peft_status st = PEFT_OK;
    const peft__task *task = a->base->task;
    const char *type = peft__task_type(task);
    peft__names given;
    peft__json_out j;
    peft__str list;
    peft__str_init(&list, a->mem);
    if (peft__schema_find(a->opts.schema, "task_type") != NULL) {
        const char *own = peft__opt_str(&a->opts, "task_type");
        if (a->from_file && strcmp(own, type != NULL ? type : "") != 0) { a->heads = false; }
        if (!a->from_file && !peft__opt_is_set(&a->opts, "task_type")) {
            TRY(peft__opt_set_str(&a->opts, "task_type", type != NULL ? type : ""));
        }
    }
    if (!a->heads || peft__schema_find(a->opts.schema, "modules_to_save") == NULL || peft__task_heads(task)[0] == NULL) { goto out; }
    TRY(peft__names_read(&a->arena, peft__opt_str(&a->opts, "modules_to_save"), "modules_to_save", &given));
    if (given.pattern) { goto out; } /* refused by whoever reads it */
    peft__json_begin(&j, &list, 0);
    peft__json_array(&j);
    for (size_t i = 0; i < given.count; i++) { peft__json_put_text(&j, given.items[i]); }
    for (const char *const *name = peft__task_heads(task); *name != NULL; name++) {
        bool listed = !heads_there(a->base, *name);
        for (size_t i = 0; i < given.count; i++) { listed = listed || strcmp(given.items[i], *name) == 0; }
        if (!listed) { peft__json_put_text(&j, *name); }
    }
    peft__json_array_end(&j);
    TRY(peft__str_status(&list));
    TRY(peft__opt_set_raw(&a->opts, "modules_to_save", peft__str_c(&list)));
out:
    peft__str_free(&list);
    return st;
}

peft_status peft__heads_copy(peft__adapter *a) {
    peft_status st = PEFT_OK;
    for (size_t i = 0; i < a->base->n_sites; i++) {
        const peft__site *s = &a->base->sites[i];
        bool taken = false;
        for (size_t k = 0; k < a->attachments.len; k++) {
            const peft__attachment *at = &PEFT__VEC_AT(&a->attachments, peft__attachment, k);
            taken = taken || (at->site == s->id && at->count > 0);
        }
        if (!taken && peft__heads_has(a->base, s)) { TRY(peft__adapter_save_site(a, s)); }
    }
out:
    return st;
}
