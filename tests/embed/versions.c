/* versions.c - two versions of the library in one process, as two plug-ins of one host bring them.
 *
 *     versions local|global LIBRARY VERSION LIBRARY VERSION
 *
 * Each must answer for itself: its version, the text of its own last error, its own memory; and work beside the other as
 * alone. With "global" every symbol of the first could take the place of the second's.
 *
 * Left out: handles of one given to the other, which is not allowed. */
#include "kit.h"

static void versions_errors(const kit_api *first, const kit_api *second) {
    peft_context *a = NULL, *b = NULL;
    peft_options *o = NULL;
    OK(first->peft_context_create(NULL, &a));
    OK(second->peft_context_create(NULL, &b));
    EXPECT(strcmp(first->peft_last_error(), "") == 0 && strcmp(second->peft_last_error(), "") == 0);
    EXPECT(first->peft_options_create(a, "trainor", &o) == PEFT_E_KEY);
    EXPECT(strstr(first->peft_last_error(), "trainor") != NULL);
    EXPECT(strcmp(second->peft_last_error(), "") == 0); /* the text of one is not the other's */
    EXPECT(second->peft_options_create(b, "optimiser", &o) == PEFT_E_KEY);
    EXPECT(strstr(second->peft_last_error(), "optimiser") != NULL && strstr(first->peft_last_error(), "trainor") != NULL);
    first->peft_context_free(a);
    second->peft_context_free(b);
}

/* Both at once: a context, model and adapter of each, their steps in turn. */
static void versions_work(const kit_api *const apis[2], const uint64_t alone[2]) {
    peft_context *ctx[2];
    peft_model *m[2];
    peft_adapters *a[2];
    for (int i = 0; i < 2; i++) {
        OK(apis[i]->peft_context_create(NULL, &ctx[i]));
        OK(apis[i]->peft_context_set_threads(ctx[i], 2));
        OK(apis[i]->peft_model_create_random(ctx[i], kit_config, strlen(kit_config), 5, &m[i]));
        OK(apis[i]->peft_adapters_create(m[i], &a[i]));
        OK(apis[i]->peft_adapters_add(a[i], "a", "lora", NULL, 1));
    }
    for (int i = 0; i < 2; i++) {
        uint64_t h = kit_train(apis[i], ctx[i], a[i], "a", 2, NULL);
        EXPECT((h ^ kit_generate(apis[i], ctx[i], m[i], a[i], "a")) == alone[i]);
    }
    for (int i = 0; i < 2; i++) {
        apis[i]->peft_model_free(m[i]);
        apis[i]->peft_adapters_free(a[i]);
        apis[i]->peft_context_free(ctx[i]);
    }
}

int main(int argc, char **argv) {
    EXPECT(argc == 6);
    int flags = strcmp(argv[1], "global") == 0 ? RTLD_GLOBAL : RTLD_LOCAL;
    kit_api p[2];
    void *library[2];
    uint64_t alone[2];
    for (int i = 0; i < 2; i++) { library[i] = kit_load(argv[2 + 2 * i], flags, &p[i]); }
    EXPECT(library[0] != library[1] && p[0].peft_version != p[1].peft_version);
    for (int i = 0; i < 2; i++) {
        char text[32];
        uint32_t v = p[i].peft_version();
        (void)snprintf(text, sizeof text, "%u.%u.%u", (unsigned)(v >> 16), (unsigned)(v >> 8 & 255), (unsigned)(v & 255));
        (void)printf("%s is %s\n", argv[2 + 2 * i], p[i].peft_version_string());
        EXPECT(strcmp(p[i].peft_version_string(), argv[3 + 2 * i]) == 0 && strcmp(text, argv[3 + 2 * i]) == 0);
    }
    versions_errors(&p[0], &p[1]);
    for (int i = 0; i < 2; i++) { alone[i] = kit_run(&p[i], NULL, 2, NULL); }
    versions_work((const kit_api *const[2]){&p[0], &p[1]}, alone);
    EXPECT(dlclose(library[0]) == 0); /* the other goes on */
    EXPECT(kit_run(&p[1], NULL, 2, NULL) == alone[1]);
    EXPECT(dlclose(library[1]) == 0);
    return 0;
}
