/* model_folder_test.c - Hugging Face folders in the forms that occur, and those that are wrong. */
#include <stdio.h>
#include <unistd.h>

#include "base/system.h"
#include "model_kit.h"

static const char *const folder_gpt2 =
    "{\"model_type\":\"gpt2\",\"n_embd\":8,\"n_layer\":1,\"n_head\":2,\"n_positions\":4,\"vocab_size\":6}";

/* Tensors of a random model as sources for a writer: their names may be changed, one may be left out. */
typedef struct folder_parts {
    struct peft_model *m;
    peft__io_source s[32];
    size_t count;
} folder_parts;

static peft_status folder_make(peft_context *ctx, const char *config, folder_parts *p) {
    memset(p, 0, sizeof *p);
    peft_status st = peft__model_random(ctx, config, strlen(config), 5, 0.1, &p->m);
    if (st != PEFT_OK) { return st; }
    for (size_t i = 0; i < p->m->n_tensors; i++) {
        const peft__model_tensor *t = &p->m->tensors[i];
        peft__io_source *s = &p->s[p->count++];
        s->name = t->w.name;
        s->dtype = t->w.dtype;
        s->ndim = t->ndim;
        s->dims[0] = t->dims[0];
        s->dims[1] = t->dims[1];
        s->data = t->w.data;
    }
    return PEFT_OK;
}

static peft_status folder_write(peft_context *ctx, const char *dir, const char *name, const folder_parts *p, size_t first,
                                size_t count) {
    return peft__safetensors_write(&ctx->mem, runner_path(dir, name), p->s + first, count, NULL);
}

static peft_status folder_open(peft_context *ctx, const char *dir, struct peft_model **out) {
    return peft__model_open(ctx, dir, false, NULL, out);
}

/* Writes config and one file of weights, opens, compares the logits. */
static void folder_same(peft_context *ctx, const char *config, const folder_parts *p) {
    static const int32_t ids[3] = {1, 5, 0};
    float a[18], b[18];
    struct peft_model *n = NULL;
    const char *dir = runner_tmpdir();
    CHECK_OK(kit_save(ctx, dir, "config.json", config));
    CHECK_OK(folder_write(ctx, dir, "model.safetensors", p, 0, p->count));
    CHECK_OK(folder_open(ctx, dir, &n));
    CHECK_OK(kit_forward(p->m, ids, 3, a, NULL));
    CHECK_OK(kit_forward(n, ids, 3, b, NULL));
    CHECK_MEM(b, a, sizeof a);
    peft__model_release(n);
}

TEST(model_folder_with_and_without_prefix) {
    static const float mask[4] = {0};
    peft_context ctx;
    folder_parts p;
    kit_context(&ctx);
    CHECK_OK(folder_make(&ctx, folder_gpt2, &p));
    folder_same(&ctx, folder_gpt2, &p);
    for (size_t i = 0; i < p.count; i++) { p.s[i].name = strchr(p.s[i].name, '.') + 1; }
    peft__io_source *extra = &p.s[p.count++]; /* a buffer that is no weight */
    extra->name = "h.0.attn.bias";
    extra->dtype = PEFT_DTYPE_F32;
    extra->ndim = 1;
    extra->dims[0] = 4;
    extra->data = mask;
    folder_same(&ctx, folder_gpt2, &p);
    peft__model_release(p.m);
    CHECK_INT(kit_outstanding(&ctx), 0);
}

/* The index of two shards: the first tensors, as many as `split`, are in a.safetensors, the others in b.safetensors. */
static peft_status folder_index(peft_context *ctx, const char *dir, const folder_parts *p, size_t split) {
    peft__str index;
    peft__str_init(&index, &ctx->mem);
    peft__str_puts(&index, "{\"metadata\":{},\"weight_map\":{");
    for (size_t i = 0; i < p->count; i++) {
        peft__str_putf(&index, "%s\"%s\":\"%s.safetensors\"", i > 0 ? "," : "", p->s[i].name, i < split ? "a" : "b");
    }
    peft__str_puts(&index, "}}");
    peft_status st = kit_save(ctx, dir, "model.safetensors.index.json", peft__str_c(&index));
    peft__str_free(&index);
    return st;
}

TEST(model_folder_of_shards) {
    static const int32_t ids[3] = {1, 5, 0};
    float a[18], b[18];
    peft_context ctx;
    folder_parts p;
    struct peft_model *n = NULL;
    const char *dir = runner_tmpdir();
    kit_context(&ctx);
    CHECK_OK(folder_make(&ctx, folder_gpt2, &p));
    CHECK_OK(kit_save(&ctx, dir, "config.json", folder_gpt2));
    CHECK(!peft__model_probe(dir));
    CHECK_OK(folder_write(&ctx, dir, "a.safetensors", &p, 0, 5));
    CHECK_OK(folder_write(&ctx, dir, "b.safetensors", &p, 5, p.count - 5));
    CHECK_OK(folder_index(&ctx, dir, &p, 5));
    CHECK(peft__model_probe(dir));
    CHECK_OK(folder_open(&ctx, dir, &n));
    CHECK_INT(n->n_shards, 2);
    CHECK_OK(kit_forward(p.m, ids, 3, a, NULL));
    CHECK_OK(kit_forward(n, ids, 3, b, NULL));
    CHECK_MEM(b, a, sizeof a);
    peft__model_release(n);
    peft__model_release(p.m);
    CHECK_INT(kit_outstanding(&ctx), 0);
}

#if !defined(_WIN32)
/* The Hub's cache: snapshots/COMMIT/ has links to ../../blobs/HASH, which are files and no links. */
TEST(model_folder_in_the_hubs_cache) {
    peft_context ctx;
    folder_parts p;
    struct peft_model *n = NULL;
    char dir[600], blobs[600], link[700], text[700];
    const char *top = runner_tmpdir();
    kit_context(&ctx);
    CHECK_OK(folder_make(&ctx, folder_gpt2, &p));
    (void)snprintf(blobs, sizeof blobs, "%s/blobs", top);
    (void)snprintf(dir, sizeof dir, "%s/snapshots", top);
    CHECK_INT(peft__sys_make_folder(blobs), 0);
    CHECK_INT(peft__sys_make_folder(dir), 0);
    (void)snprintf(dir, sizeof dir, "%s/snapshots/commit", top);
    CHECK_INT(peft__sys_make_folder(dir), 0);
    CHECK_OK(folder_write(&ctx, blobs, "0123", &p, 0, p.count));
    CHECK_OK(kit_save(&ctx, dir, "config.json", folder_gpt2));
    CHECK_OK(folder_index(&ctx, dir, &p, p.count));
    (void)snprintf(link, sizeof link, "%s/a.safetensors", dir);
    CHECK_INT(symlink("../../blobs/0123", link), 0);
    CHECK_OK(folder_open(&ctx, dir, &n));
    peft__model_release(n);
    (void)snprintf(text, sizeof text, "%s/4567", blobs);
    CHECK_INT(symlink("0123", text), 0);
    CHECK_INT(peft__sys_remove(link), 0);
    CHECK_INT(symlink("../../blobs/4567", link), 0);
    n = NULL;
    CHECK_STATUS(folder_open(&ctx, dir, &n), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("a.safetensors: a link that leads out of its folder");
    peft__model_release(p.m);
    CHECK_INT(kit_outstanding(&ctx), 0);
}
#endif

TEST(model_folder_index_stays_inside) {
    static const char *const bad[] = {"../a.safetensors", "/etc/passwd", "x/a.safetensors", "..", "", "a\\\\b"};
    peft_context ctx;
    kit_context(&ctx);
    for (size_t i = 0; i < PEFT__COUNT(bad); i++) {
        struct peft_model *n = NULL;
        char text[128] = "{\"weight_map\":{\"transformer.wte.weight\":\"";
        const char *dir = runner_tmpdir();
        strcat(text, bad[i]);
        strcat(text, "\"}}");
        CHECK_OK(kit_save(&ctx, dir, "config.json", folder_gpt2));
        CHECK_OK(kit_save(&ctx, dir, "model.safetensors.index.json", text));
        CHECK_STATUS(folder_open(&ctx, dir, &n), PEFT_E_FORMAT);
        CHECK_ERROR_HAS("transformer.wte.weight");
    }
    CHECK_INT(kit_outstanding(&ctx), 0);
}

TEST(model_folder_names_what_is_missing_or_misshaped) {
    peft_context ctx;
    folder_parts p;
    struct peft_model *n = NULL;
    const char *dir = runner_tmpdir();
    kit_context(&ctx);
    CHECK_STATUS(folder_open(&ctx, runner_path(dir, "nowhere"), &n), PEFT_E_NOT_FOUND);
    CHECK_STATUS(folder_open(&ctx, dir, &n), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("config.json");
    CHECK_OK(folder_make(&ctx, folder_gpt2, &p));
    CHECK_OK(kit_save(&ctx, dir, "config.json", folder_gpt2));
    CHECK_STATUS(folder_open(&ctx, dir, &n), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("model.safetensors.index.json");
    CHECK_OK(kit_save(&ctx, dir, "pytorch_model.bin", "x"));
    CHECK_STATUS(folder_open(&ctx, dir, &n), PEFT_E_UNSUPPORTED);
    CHECK_OK(folder_write(&ctx, dir, "model.safetensors", &p, 0, p.count - 1));
    CHECK_STATUS(folder_open(&ctx, dir, &n), PEFT_E_NOT_FOUND);
    CHECK_ERROR_HAS("\"transformer.ln_f.bias\" is missing");
    CHECK_OK(folder_write(&ctx, dir, "model.safetensors", &p, 0, p.count));
    CHECK_OK(kit_save(&ctx, dir, "config.json", "{\"model_type\":\"gpt2\",\"n_embd\":8,\"n_layer\":1,\"n_head\":2,"
                                                "\"n_positions\":4,\"vocab_size\":7}"));
    CHECK_STATUS(folder_open(&ctx, dir, &n), PEFT_E_SHAPE);
    CHECK_ERROR_HAS("transformer.wte.weight");
    CHECK_ERROR_HAS("[6, 8], expected [7, 8]");
    CHECK_OK(kit_save(&ctx, dir, "file", "neither"));
    CHECK_STATUS(folder_open(&ctx, runner_path(dir, "file"), &n), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("neither a folder with config.json nor a GGUF file");
    CHECK_OK(kit_save(&ctx, dir, "file", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"));
    CHECK_STATUS(folder_open(&ctx, runner_path(dir, "file"), &n), PEFT_E_FORMAT);
    CHECK_ERROR_HAS("git lfs pull");
    peft__model_release(p.m);
    CHECK_INT(kit_outstanding(&ctx), 0);
}

/* A head stored apart under tie_word_embeddings: a copy is dropped, another one is used. */
TEST(model_folder_head_beside_a_tied_embedding) {
    float head[48];
    peft_context ctx;
    folder_parts p;
    kit_context(&ctx);
    CHECK_OK(folder_make(&ctx, folder_gpt2, &p));
    peft__io_source *s = &p.s[p.count++];
    *s = p.s[0];
    s->name = "lm_head.weight";
    for (int32_t copy = 1; copy >= 0; copy--) {
        struct peft_model *n = NULL;
        const char *dir = runner_tmpdir();
        if (copy == 0) {
            memcpy(head, p.s[0].data, sizeof head);
            head[7] += 1;
            s->data = head;
        }
        CHECK_OK(kit_save(&ctx, dir, "config.json", folder_gpt2));
        CHECK_OK(folder_write(&ctx, dir, "model.safetensors", &p, 0, p.count));
        CHECK_OK(folder_open(&ctx, dir, &n));
        CHECK_INT(peft__model_site(n, "lm_head")->tied_to, copy ? 0 : -1);
        CHECK_INT(n->config.tie_embeddings, copy);
        CHECK_INT(peft__model_find(n, "lm_head.weight") != NULL, !copy);
        const char *again = runner_tmpdir();
        CHECK_OK(peft__model_write_hf(n, NULL, -1, again));
        peft__model_release(n);
        CHECK_OK(folder_open(&ctx, again, &n));
        CHECK_INT(n->config.tie_embeddings, copy);
        peft__model_release(n);
    }
    peft__model_release(p.m);
    CHECK_INT(kit_outstanding(&ctx), 0);
}

TEST(model_config_errors_name_the_key) {
    static const struct {
        const char *config;
        peft_status code;
        const char *part;
    } cases[] = {
        {"[]", PEFT_E_FORMAT, "object"},
        {"{}", PEFT_E_FORMAT, "\"model_type\" is missing, expected one of \"llama\", \"mistral\", \"gpt2\""},
        {"{\"model_type\":\"t6\"}", PEFT_E_UNSUPPORTED, "\"t6\" is not supported, expected one of \"llama\""},
        {"{\"model_type\":\"llama\"}", PEFT_E_FORMAT, "\"hidden_size\" is missing"},
        {"{\"model_type\":\"llama\",\"hidden_size\":\"8\"}", PEFT_E_FORMAT, "\"hidden_size\" is \"8\""},
        {"{\"model_type\":\"llama\",\"hidden_size\":0}", PEFT_E_FORMAT, "\"hidden_size\" is 0"},
        {"{\"model_type\":\"llama\",\"quantization_config\":{\"quant_method\":\"gptq\"}}", PEFT_E_UNSUPPORTED, "gptq"},
#define LLAMA(heads, kv, rest)                                                                                  \
    "{\"model_type\":\"llama\",\"hidden_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":" heads        \
    ",\"num_key_value_heads\":" kv ",\"intermediate_size\":8,\"vocab_size\":9" rest "}"
        {LLAMA("3", "3", ""), PEFT_E_FORMAT, "hidden_size 8 is no multiple of 3 attention heads"},
        {LLAMA("4", "3", ""), PEFT_E_FORMAT, "4 attention heads are no multiple of 3 key/value heads"},
        {LLAMA("8", "8", ""), PEFT_E_FORMAT, "1 columns of a head"},
        {LLAMA("2", "2", ",\"hidden_act\":\"mish\""), PEFT_E_UNSUPPORTED, "\"hidden_act\" is \"mish\""},
        {LLAMA("2", "2", ",\"rope_scaling\":{\"type\":\"spiral\",\"factor\":2}"), PEFT_E_UNSUPPORTED, "\"spiral\""},
        {LLAMA("2", "2", ",\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1,1]}"), PEFT_E_FORMAT, "list of 2"},
        {LLAMA("2", "2", ",\"rope_scaling\":{\"type\":\"yarn\",\"factor\":0}"), PEFT_E_FORMAT, "\"factor\""},
        {LLAMA("2", "2", ",\"rope_scaling\":{\"type\":\"linear\"}"), PEFT_E_FORMAT, "\"factor\""},
        {LLAMA("2", "2", ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}"), PEFT_E_FORMAT, "low_freq_factor"},
        {LLAMA("2", "2", ",\"rope_theta\":-1"), PEFT_E_FORMAT, "rope_theta"},
        {LLAMA("2", "2", ",\"eos_token_id\":[]"), PEFT_E_FORMAT, "eos_token_id"},
#undef LLAMA
        {"{\"model_type\":\"gpt2\",\"n_embd\":8,\"n_layer\":1,\"n_head\":3,\"vocab_size\":6}", PEFT_E_FORMAT, "n_embd 8"},
        {"{\"model_type\":\"gpt2\",\"n_embd\":8,\"n_layer\":1,\"n_head\":2,\"vocab_size\":6,\"add_cross_attention\":true}",
         PEFT_E_UNSUPPORTED, "add_cross_attention"},
    };
    peft_context ctx;
    kit_context(&ctx);
    for (size_t i = 0; i < PEFT__COUNT(cases); i++) {
        struct peft_model *m = NULL;
        CHECK_STATUS(peft__model_random(&ctx, cases[i].config, strlen(cases[i].config), 1, 0, &m), cases[i].code);
        CHECK_ERROR_HAS(cases[i].part);
        CHECK_ERROR_HAS("config.json");
        CHECK(m == NULL);
    }
    CHECK_INT(kit_outstanding(&ctx), 0);
}
