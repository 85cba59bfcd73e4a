/* hub.c - what the methods of AdapterHub's folders share (hub.h).
 *
 * Left out: the folders themselves (format_adapterhub.c, format_hub_union.c). */
#include "peft/hub.h"

#include <math.h>

peft_status peft__hub_left_out(const peft__adapter *a, peft__arena *arena, int32_t layer, bool *out) {
    peft_status st = PEFT_OK;
    peft__names names;
    *out = false;
    if (peft__opt_str(&a->opts, "leave_out")[0] == '\0') { return PEFT_OK; }
    TRY(peft__names_read(arena, peft__opt_str(&a->opts, "leave_out"), "leave_out", &names));
    for (size_t i = 0; i < names.count; i++) { *out = *out || names.numbers[i] == layer; }
out:
    return st;
}

bool peft__hub_place_own(const peft__site *s) {
    size_t n = strlen(s->path);
    const char *leaf = peft__path_leaf(s->path);
    if (s->kind == PEFT__SITE_STREAM && leaf[0] >= '0' && leaf[0] <= '9') { return true; }
    return s->kind == PEFT__SITE_STREAM && s->norm != NULL && strncmp(s->norm->path, s->path, n) == 0 && s->norm->path[n] == '.';
}

char *peft__hub_place(peft__arena *arena, const peft__site *s) {
    const char *dot = strrchr(s->path, '.');
    if (peft__hub_place_own(s)) { return peft__arena_strdup(arena, s->path, strlen(s->path)); }
    return peft__arena_printf(arena, "%.*s.%s", dot != NULL ? (int)(dot - s->path) : 0, s->path,
                              s->part == PEFT__PART_CROSS    ? "cross_attention_adapters"
                              : s->role == PEFT__ROLE_ATTN ? "attention_adapters"
                                                           : "output_adapters");
}

bool peft__hub_left_tensor(const peft__adapter *a, peft__arena *arena, const char *key) {
    if (peft__schema_find(a->opts.schema, "leave_out") == NULL) { return false; }
    for (size_t i = 0; i < a->base->n_sites; i++) {
        const peft__site *s = &a->base->sites[i];
        const char *dot = strrchr(s->path, '.');
        bool left = false;
        if (s->kind != PEFT__SITE_STREAM || dot == NULL || strncmp(key, s->path, (size_t)(dot - s->path) + 1) != 0) { continue; }
        return peft__hub_left_out(a, arena, s->layer, &left) == PEFT_OK && left;
    }
    return false;
}

char *peft__hub_base(peft__arena *arena, const peft__site *s) {
    const char *dot = strchr(s->path, '.');
    bool stack = strncmp(s->path, "encoder.", 8) == 0 || strncmp(s->path, "decoder.", 8) == 0;
    return peft__arena_printf(arena, "%.*s", dot == NULL || stack ? 0 : (int)(dot - s->path) + 1, s->path);
}

void peft__hub_init_gate(const peft__adapter *a, size_t i, bool bias, peft__rng *rng) {
    const peft__param *p = &peft__adapter_param_at(a, i)->p;
    double bound = bias ? 1 / sqrt((double)peft__adapter_param_at(a, i - 1)->p.cols) : 0;
    for (int64_t e = 0; e < p->rows * p->cols; e++) {
        p->value[e] = PEFT__R(bias ? bound * (2 * peft__rng_uniform(rng) - 1) : 0.02 * peft__rng_normal(rng));
    }
}

/* "model.prefix_tuning.prefix_tunings.self_prefix.wte.weight" has the adapter's name after "prefix_tunings". */
char *peft__hub_named(peft__arena *arena, const char *name, const char *file) {
    static const char *const holders[] = {".prefix_tunings", ".prefix_gates", ".loras"};
    for (size_t i = 0; i < PEFT__COUNT(holders); i++) {
        size_t n = strlen(holders[i]);
        const char *at = strstr(name, holders[i]);
        if (at == NULL || at[n] != '.') { continue; }
        return peft__arena_printf(arena, "%.*s.%s%s", (int)(at + n - name), name, file, at + n);
    }
    return peft__arena_strdup(arena, name, strlen(name));
}
