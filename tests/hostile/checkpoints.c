/* checkpoints.c - a trainer's state that means harm: every key of its JSON, the header and the vectors of its file, its checksum. */
#include "hostile.h"

/* A trainer of the checkpoint's run; saves into, or loads from, the folder. */
static peft_status checkpoint_use(hostile *h, bool save, uint64_t *print) {
    static const char *const lora[2] = {"lora", "{'r':2,'target_modules':['q_proj']}"};
    static const char row[] = "{\"input_ids\":[1,2,3,4]}";
    peft_status st = PEFT_OK;
    peft_options *o = NULL;
    peft_adapters *a = NULL;
    peft_dataset *d = NULL;
    peft_trainer *t = NULL;
    char json[8192];
    size_t n = 0;
    TRY(peft_adapters_create(h->base, &a));
    TRY(api_adapter(h->ctx, a, "x", lora, 3, 0));
    TRY(peft_dataset_create(h->ctx, NULL, NULL, &d));
    TRY(peft_dataset_add_json(d, row, sizeof row - 1));
    TRY(api_options(h->ctx, "trainer", "{'max_steps':3,'batch_size':1}", &o));
    TRY(peft_trainer_create(a, o, &t));
    TRY(peft_trainer_add_job(t, "x", d, NULL, NULL));
    if (save) {
        int32_t more = 0;
        TRY(peft_trainer_step(t, &more));
        TRY(peft_trainer_checkpoint_save(t, h->dir));
        goto out;
    }
    TRY(peft_trainer_checkpoint_load(t, h->what));
    if (print == NULL) { goto out; }
    float values[512];
    const char *name = NULL;
    TRY(peft_trainer_run(t)); /* the end of the run */
    TRY(peft_adapters_tensor_info(a, "x", 0, &name, NULL, NULL));
    TRY(peft_adapters_tensor_read(a, "x", name, values, PEFT__COUNT(values), &n));
    *print = hostile_hash(1, values, n * sizeof *values);
    TRY(peft_trainer_plan_json(t, json, sizeof json, &n));
out:
    peft_trainer_free(t);
    peft_dataset_free(d);
    peft_adapters_free(a);
    peft_options_free(o);
    return st;
}

static peft_status checkpoint_open(hostile *h, uint64_t *print) { return checkpoint_use(h, false, print); }

/* Of each number: no number, none from its least on, too large. */
static void checkpoint_keys(hostile *h) {
    static const char *const keys[] = {"version", "parameters", "rows", "tokens", "seed", "step", "optimizer_step", "epoch", "position",
        "layout", "data", "order",
                                       "accumulated_rows"};
    static const char *const values[] = {"-2", "1.5", "\\\"1\\\"", "[]", "{}", "true", "1e30", "9223372036854775808",
        "-9223372036854775809"};
    char want[80], what[200];
    for (size_t k = 0; k < PEFT__COUNT(keys); k++) {
        (void)snprintf(want, sizeof want, "\\\"%s\\\":", keys[k]);
        const char *at = strstr(h->good + 8, want);
        hostile_holds(h, keys[k], at != NULL);
        if (at == NULL) { continue; }
        at += strlen(want);
        size_t len = strspn(at, "-0123456789");
        for (size_t i = 0; i < PEFT__COUNT(values); i++) {
            (void)snprintf(what, sizeof what, "%s is %s", keys[k], values[i]);
            hostile_spliced(h, what, (size_t)(at - h->good), len, values[i], strlen(values[i]), PEFT_E_FORMAT, keys[k]);
        }
        (void)snprintf(what, sizeof what, "%s is missing", keys[k]);
        hostile_spliced(h, what, (size_t)(at - h->good) - 4, 1, "_", 1, PEFT_E_FORMAT, keys[k][0] != 'r' ? "is missing" : "rows");
        (void)snprintf(what, sizeof what, "%s is null", keys[k]);
        hostile_spliced(h, what, (size_t)(at - h->good), len, "null", 4, PEFT_E_FORMAT, "is missing");
    }
}

static const hostile_swap checkpoint_swaps[] = {
    {"of a newer library", "\\\"version\\\":", "\\\"version\\\":9", PEFT_E_VERSION, "version 9"},
    {"of another size", "\\\"parameters\\\":", "\\\"parameters\\\":1", PEFT_E_SHAPE, "parameters"},
    {"of another seed", "\\\"seed\\\":", "\\\"seed\\\":1", PEFT_E_SHAPE, "seed"},
    {"of other data", "\\\"rows\\\":1", "\\\"rows\\\":2", PEFT_E_SHAPE, "2 rows"},
    {"behind its data", "\\\"position\\\":", "\\\"position\\\":99", PEFT_E_SHAPE, NULL},
    {"of another method", "\\\"method\\\":\\\"lora\\\"", "\\\"method\\\":\\\"ia3\\\"", PEFT_E_SHAPE, "ia3"},
    {"of another optimiser", "\\\"optimizer\\\":\\\"adamw\\\"", "\\\"optimizer\\\":\\\"lion\\\"", PEFT_E_SHAPE, "lion"},
    {"a method that is none", "\\\"method\\\":\\\"lora\\\"", "\\\"method\\\":5", PEFT_E_FORMAT, "method"},
    {"an optimiser that is none", "\\\"optimizer\\\":\\\"adamw\\\"", "\\\"optimizer\\\":[]", PEFT_E_FORMAT, "optimizer"},
    {"another step", "\\\"step\\\":1", "\\\"step\\\":2", PEFT_E_FORMAT, "checksum"},
    {"no JSON", "\"state\":\"{", "\"state\":\"[", PEFT_E_FORMAT, "line 1"},
    {"no object", "\"state\":\"{", "\"state\":\"5\",\"was\":\"{", PEFT_E_FORMAT, "missing"},
    {"no state", "\"state\":", "\"stale\":", PEFT_E_FORMAT, "no state"},
    {"no vector", "\"params\":{", "\"porams\":{", PEFT_E_FORMAT, "params"}, {"no vector", "\"v\":{", "\"w\":{", PEFT_E_FORMAT, "\"v\""},
    {"another type", "\"dtype\":\"F32\"", "\"dtype\":\"I32\"", PEFT_E_FORMAT, NULL},
    {"another checksum", "\"checksum\":\"", "\"checksum\":\"0", PEFT_E_FORMAT, "checksum"},
    {"a checksum that is none", "\"checksum\":\"", "\"checksum\":\"\",\"was\":\"", PEFT_E_FORMAT, "checksum"},
};

void hostile_checkpoints(void) {
    hostile h;
    char what[64];
    if (hostile_begin(&h, "checkpoint", checkpoint_open) && api_model(h.ctx, API_LLAMA, &h.base) == PEFT_OK) {
        hostile_holds(&h, "a checkpoint is saved", checkpoint_use(&h, true, NULL) == PEFT_OK);
        if (hostile_take(&h, "state.safetensors", false)) {
            checkpoint_keys(&h);
            hostile_swaps(&h, checkpoint_swaps, PEFT__COUNT(checkpoint_swaps));
            hostile_header(&h, 2);
            size_t data = 8 + (size_t)peft__get_u64((const uint8_t *)h.good);
            for (size_t i = 0; i < 64; i++) { /* a bit of a number: the checksum has it */
                size_t at = data + (h.len - 1 - data) * i / 63;
                char bit = (char)(h.good[at] ^ (1 << i % 7));
                (void)snprintf(what, sizeof what, "a bit of byte %zu", at);
                hostile_spliced(&h, what, at, 1, &bit, 1, PEFT_E_FORMAT, "checksum");
            }
        }
    }
    hostile_end(&h);
}
