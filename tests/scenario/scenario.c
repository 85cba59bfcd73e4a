/* scenario.c - the job of scenario.txt by the C API: `scenario SCENARIO OUT` saves the adapter in OUT, and writes OUT/losses.txt
 * (the bits of each step's loss) and OUT/text.txt (what is generated after the adapter was loaded again). */
#include <peft.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call)                            \
    do {                                     \
        if ((call) != PEFT_OK) { goto out; } \
    } while (0)

enum { SCENARIO_KEYS = 16, SCENARIO_LINE = 512 };
typedef struct scenario {
    char lines[SCENARIO_KEYS][SCENARIO_LINE]; /* "key\0value" */
    size_t n;
    const char *out; /* folder */
    peft_context *ctx;
    peft_model *model;
    peft_tokenizer *tokenizer;
} scenario;

static int scenario_read(scenario *s, const char *path) {
    FILE *f = fopen(path, "r");
    if (f == NULL) { return 0; }
    while (s->n < SCENARIO_KEYS && fgets(s->lines[s->n], SCENARIO_LINE, f) != NULL) {
        char *line = s->lines[s->n], *space = strchr(line, ' ');
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '#' || space == NULL) { continue; }
        *space = '\0';
        s->n++;
    }
    return fclose(f) == 0 && s->n > 0;
}

static const char *scenario_get(const scenario *s, const char *key) {
    for (size_t i = 0; i < s->n; i++) {
        if (strcmp(s->lines[i], key) == 0) { return s->lines[i] + strlen(key) + 1; }
    }
    return "";
}

/* The options of a schema from the words of a key. */
static peft_status scenario_options(const scenario *s, const char *schema, const char *key, peft_options **out) {
    char words[SCENARIO_LINE], *rest = NULL;
    peft_status st = peft_options_create(s->ctx, schema, out);
    (void)snprintf(words, sizeof words, "%s", scenario_get(s, key));
    for (char *w = strtok_r(words, " ", &rest); w != NULL && st == PEFT_OK; w = strtok_r(NULL, " ", &rest)) {
        char *value = strchr(w, '=');
        if (value == NULL) { return PEFT_E_INVALID; }
        *value = '\0';
        st = peft_options_set_text(*out, w, value + 1);
    }
    return st;
}

static FILE *scenario_open(const scenario *s, const char *name) {
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s", s->out, name);
    return fopen(path, "w");
}

static int32_t scenario_loss(void *user, const peft_step_info *info) {
    uint64_t bits;
    memcpy(&bits, &info->loss, sizeof bits);
    return fprintf(user, "%016llx\n", (unsigned long long)bits) < 0;
}

static peft_status scenario_train(const scenario *s, FILE *losses) {
    peft_status st = PEFT_E_IO;
    peft_options *o[4] = {NULL, NULL, NULL, NULL};
    peft_adapters *a = NULL;
    peft_dataset *data = NULL;
    peft_trainer *t = NULL;
    char schema[64];
    const char *method = scenario_get(s, "method");
    (void)snprintf(schema, sizeof schema, "method:%s", method);
    TRY(st = scenario_options(s, schema, "adapter.options", &o[0]));
    TRY(st = scenario_options(s, "dataset", "dataset.options", &o[1]));
    TRY(st = scenario_options(s, "trainer", "trainer.options", &o[2]));
    TRY(st = scenario_options(s, "optimizer", "optimizer.options", &o[3]));
    TRY(st = peft_adapters_create(s->model, &a));
    TRY(st = peft_adapters_add(a, "default", method, o[0], strtoull(scenario_get(s, "seed"), NULL, 10)));
    TRY(st = peft_dataset_create(s->ctx, s->tokenizer, o[1], &data));
    TRY(st = peft_dataset_load_jsonl(data, scenario_get(s, "data")));
    TRY(st = peft_trainer_create(a, o[2], &t));
    TRY(st = peft_trainer_add_job(t, "default", data, NULL, o[3]));
    TRY(st = peft_trainer_set_progress(t, scenario_loss, losses));
    TRY(st = peft_trainer_run(t));
    TRY(st = peft_adapters_save(a, "default", s->out, NULL));
out:
    peft_trainer_free(t);
    peft_dataset_free(data);
    peft_adapters_free(a);
    for (size_t i = 0; i < 4; i++) { peft_options_free(o[i]); }
    return st;
}

static peft_status scenario_generate(const scenario *s, FILE *text) {
    peft_status st = PEFT_E_IO;
    peft_options *o = NULL;
    peft_adapters *a = NULL;
    peft_session *session = NULL;
    char made[4096];
    const char *prompt = scenario_get(s, "prompt");
    TRY(st = scenario_options(s, "generate", "generate.options", &o));
    TRY(st = peft_adapters_create(s->model, &a));
    TRY(st = peft_adapters_load(a, "again", s->out, NULL));
    TRY(st = peft_session_create(s->model, a, "again", NULL, &session));
    TRY(st = peft_session_generate_text(session, s->tokenizer, prompt, strlen(prompt), o, NULL, NULL, made, sizeof made, NULL));
    st = fputs(made, text) < 0 ? PEFT_E_IO : PEFT_OK;
out:
    peft_session_free(session);
    peft_adapters_free(a);
    peft_options_free(o);
    return st;
}

int main(int argc, char **argv) {
    static scenario s;
    peft_status st = PEFT_E_IO;
    FILE *losses = NULL, *text = NULL;
    if (argc != 3 || !scenario_read(&s, argv[1])) {
        (void)fprintf(stderr, "usage: scenario SCENARIO OUT\n");
        return 2;
    }
    s.out = argv[2];
    losses = scenario_open(&s, "losses.txt");
    text = scenario_open(&s, "text.txt");
    if (losses == NULL || text == NULL) { goto out; }
    TRY(st = peft_context_create(NULL, &s.ctx));
    TRY(st = peft_model_open(s.ctx, scenario_get(&s, "model"), NULL, &s.model));
    TRY(st = peft_tokenizer_open(s.ctx, scenario_get(&s, "model"), &s.tokenizer));
    TRY(st = scenario_train(&s, losses));
    TRY(st = scenario_generate(&s, text));
out:
    if (st != PEFT_OK) { (void)fprintf(stderr, "scenario: %s %s\n", peft_status_name(st), peft_last_error()); }
    if (losses != NULL) { (void)fclose(losses); }
    if (text != NULL) { (void)fclose(text); }
    peft_tokenizer_free(s.tokenizer);
    peft_model_free(s.model);
    peft_context_free(s.ctx);
    return st != PEFT_OK;
}
