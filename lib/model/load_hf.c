/* load_hf.c - a Hugging Face folder: config.json with model.safetensors, or with shards and their index.
 *
 * model.safetensors.index.json has {"weight_map": {tensor: file}}; the files must lie in the folder itself. Checkpoints were
 * saved with and without the base model's prefix ("model.", "transformer."), so a name is looked for in both forms.
 * Tensors that no architecture asks for (attn.bias, attn.masked_bias, rotary_emb.inv_freq, other heads) are ignored.
 *
 * Left out: pytorch_model.bin (a pickle runs code), quantised checkpoints (GPTQ, AWQ, ...). */
#include <stdio.h>

#include "base/system.h"
#include "model/parts.h"

enum { LOAD_HF_PATH = 1024 }; /* bytes of where a link leads: more is no file's path */

/* A file name, not a path: nothing leads out of the folder. */
static bool load_hf_name_is_plain(const peft__json *file) {
    if (file->kind != PEFT__JSON_STRING || file->len == 0 || memchr(file->str, '\0', file->len) != NULL) { return false; }
    return strpbrk(file->str, "/\\:") == NULL && strcmp(file->str, ".") != 0 && strcmp(file->str, "..") != 0;
}

/* A shard may be a link to a file beside it or, as in the Hub's cache, from snapshots/COMMIT/ to a file in blobs/: a folder that came
 * out of an archive can have links to anywhere. What a link leads to is no link. */
static peft_status load_hf_check_link(const char *path) {
    static const char blobs[] = "../../blobs/";
    peft_status st = PEFT_OK;
    char target[LOAD_HF_PATH], whole[LOAD_HF_PATH];
    if (!peft__sys_read_link(path, target, sizeof target)) { return PEFT_OK; }
    const char *file = target + (strncmp(target, blobs, sizeof blobs - 1) == 0 ? sizeof blobs - 1 : 0);
    int folder = (int)(strrchr(path, '/') + 1 - path);
    int len = snprintf(whole, sizeof whole, "%.*s%s", folder, path, target);
    bool again = len >= (int)sizeof whole || peft__sys_read_link(whole, (char[2]){0}, 2); /* a link, wherever it leads */
    if (strchr(file, '/') != NULL || strcmp(file, "..") == 0 || again) {
        FAIL(PEFT_E_FORMAT, "%s: a link that leads out of its folder", path);
    }
out:
    return st;
}

static peft_status load_hf_open_shard(struct peft_model *m, const char *name, bool of_index, bool copy) {
    peft_status st = PEFT_OK;
    char *path = NULL;
    TRY(peft__path_join(&m->arena, m->path, name, &path));
    if (of_index) { TRY(load_hf_check_link(path)); }
    TRY(peft__safetensors_open(m->arena.mem, path, copy, &m->shards[m->n_shards]));
    m->n_shards++;
out:
    return st;
}

/* Every tensor is in the file that the index names for it, and in no other. files: file name -> shard. */
static peft_status load_hf_check_shards(const struct peft_model *m, const char *index_path, const peft__json *map, const peft__map *files) {
    peft_status st = PEFT_OK;
    peft__map names;
    peft__map_init(&names, m->arena.mem);
    for (size_t i = 0; i < map->len; i++) {
        const peft__json *file = &map->items[i];
        const char *name = map->keys[i].str;
        if (peft__safetensors_find(&m->shards[peft__map_get(files, file->str, file->len)], name) == NULL) {
            FAIL(PEFT_E_NOT_FOUND, "%s: tensor \"%.200s\" is not in %.200s", index_path, name, file->str);
        }
    }
    for (size_t s = 0; s < m->n_shards; s++) {
        for (size_t i = 0; i < m->shards[s].count; i++) {
            const char *name = m->shards[s].tensors[i].name;
            st = peft__map_put(&names, name, strlen(name), (int64_t)s);
            if (st == PEFT_E_EXISTS) { FAIL(PEFT_E_EXISTS, "%s: tensor \"%.200s\" is in two of its files", index_path, name); }
            TRY(st);
        }
    }
out:
    peft__map_free(&names);
    return st;
}

/* Opens each file of the weight map once, in the map's order. */
static peft_status load_hf_open_shards(struct peft_model *m, const char *index_path, bool copy) {
    peft_status st = PEFT_OK;
    const peft__json *index = NULL, *map = NULL;
    peft__arena a;
    peft__map seen;
    peft__arena_init(&a, m->arena.mem);
    peft__map_init(&seen, m->arena.mem);
    TRY(peft__json_read(&a, index_path, &index));
    map = peft__json_find(index, "weight_map");
    if (map == NULL || map->kind != PEFT__JSON_OBJECT || map->len == 0) {
        FAIL(PEFT_E_FORMAT, "%s: key \"weight_map\" is no object of tensor names and files", index_path);
    }
    for (size_t i = 0; i < map->len; i++) {
        const peft__json *file = &map->items[i];
        if (!load_hf_name_is_plain(file)) {
            FAIL(PEFT_E_FORMAT, "%s: the file of tensor \"%s\" is no name of a file in the same folder", index_path,
                 map->keys[i].str);
        }
        if (peft__map_get(&seen, file->str, file->len) < 0) { TRY(peft__map_put(&seen, file->str, file->len, 1)); }
    }
    m->shards = peft__arena_alloc(&m->arena, seen.len * sizeof *m->shards);
    if (m->shards == NULL) {
        st = PEFT_E_NOMEM;
        goto out;
    }
    peft__map_free(&seen);
    for (size_t i = 0; i < map->len; i++) {
        const peft__json *file = &map->items[i];
        if (peft__map_get(&seen, file->str, file->len) >= 0) { continue; }
        TRY(peft__map_put(&seen, file->str, file->len, (int64_t)m->n_shards));
        TRY(load_hf_open_shard(m, file->str, true, copy));
    }
    TRY(load_hf_check_shards(m, index_path, map, &seen));
out:
    peft__map_free(&seen);
    peft__arena_free(&a);
    return st;
}

static peft_status load_hf_open_weights(struct peft_model *m, bool copy) {
    peft_status st = PEFT_OK;
    char *single = NULL, *index = NULL, *pickle = NULL;
    TRY(peft__path_join(&m->arena, m->path, "model.safetensors", &single));
    TRY(peft__path_join(&m->arena, m->path, "model.safetensors.index.json", &index));
    TRY(peft__path_join(&m->arena, m->path, "pytorch_model.bin", &pickle));
    if (peft__path_exists(single)) {
        m->shards = peft__arena_alloc(&m->arena, sizeof *m->shards);
        if (m->shards == NULL) {
            st = PEFT_E_NOMEM;
            goto out;
        }
        TRY(load_hf_open_shard(m, "model.safetensors", false, copy));
    } else if (peft__path_exists(index)) {
        TRY(load_hf_open_shards(m, index, copy));
    } else if (peft__path_exists(pickle)) {
        FAIL(PEFT_E_UNSUPPORTED, "%s: pytorch_model.bin is not read; save the model as safetensors", m->path);
    } else {
        FAIL(PEFT_E_NOT_FOUND, "%s: neither model.safetensors nor model.safetensors.index.json is there", m->path);
    }
out:
    return st;
}

static const peft__io_tensor *load_hf_look_up(const struct peft_model *m, const char *name) {
    for (size_t i = 0; i < m->n_shards; i++) {
        const peft__io_tensor *t = peft__safetensors_find(&m->shards[i], name);
        if (t != NULL) { return t; }
    }
    return NULL;
}

peft_status peft__model_source_hf(struct peft_model *m, void *user, const struct peft__tensor_spec *spec,
                                  peft__model_tensor *out, bool *found) {
    (void)user;
    const peft__io_tensor *t = load_hf_look_up(m, spec->hf_name);
    const char *dot = strchr(spec->hf_name, '.');
    size_t prefix = strlen(m->arch->prefix);
    bool base = !spec->fresh || (prefix > 0 && strncmp(spec->hf_name, m->arch->prefix, prefix) == 0);
    if (t == NULL && dot != NULL && base) { t = load_hf_look_up(m, dot + 1); }
    if (t == NULL && prefix > 0 && !spec->fresh) {
        const char *full = peft__arena_printf(&m->arena, "%s%s", m->arch->prefix, spec->hf_name);
        if (full == NULL) { return PEFT_E_NOMEM; }
        t = load_hf_look_up(m, full);
    }
    if (t == NULL && spec->alias != NULL) { t = load_hf_look_up(m, spec->alias); }
    *found = t != NULL;
    return t != NULL ? peft__model_accept(m->path[0] != '\0' ? m->path : "the tensors", t, spec, spec->conv1d, out) : PEFT_OK;
}

/* What generation_config.json, where there is one, says of how the decoder begins. */
static peft_status load_hf_generation(struct peft_model *m) {
    peft_status st = PEFT_OK;
    peft__arena a;
    char *path = NULL;
    const peft__json *generation = NULL;
    peft__arena_init(&a, m->arena.mem);
    TRY(peft__path_join(&a, m->path, "generation_config.json", &path));
    if (!peft__path_exists(path)) { goto out; }
    TRY(peft__json_read(&a, path, &generation));
    if (generation->kind != PEFT__JSON_OBJECT) { FAIL(PEFT_E_FORMAT, "%s: no object", path); }
    TRY(peft__seq2seq_generation(generation, path, &m->config));
out:
    peft__arena_free(&a);
    return st;
}

/* What a folder of sentence-transformers says of how an embedding is made of the states, unless the caller says it. */
static peft_status load_hf_pooling(struct peft_model *m) {
    static const struct {
        const char *key;
        int32_t pool; /* -1: not supported */
    } modes[] = {{"pooling_mode_mean_tokens", PEFT__POOL_MEAN}, {"pooling_mode_cls_token", PEFT__POOL_FIRST},
                 {"pooling_mode_lasttoken", PEFT__POOL_LAST}, {"pooling_mode_max_tokens", -1},
                 {"pooling_mode_mean_sqrt_len_tokens", -1}, {"pooling_mode_weightedmean_tokens", -1}};
    peft_status st = PEFT_OK;
    peft__arena a;
    char *path = NULL;
    const char *first = NULL;
    const peft__json *pooling = NULL;
    bool on = false;
    peft__arena_init(&a, m->arena.mem);
    TRY(peft__path_join(&a, m->path, "1_Pooling/config.json", &path));
    if (!peft__path_exists(path)) { goto out; }
    TRY(peft__json_read(&a, path, &pooling));
    if (pooling->kind != PEFT__JSON_OBJECT) { FAIL(PEFT_E_FORMAT, "%s: no object", path); }
    for (size_t i = 0; i < PEFT__COUNT(modes); i++) {
        TRY(peft__json_bool(pooling, path, modes[i].key, false, &on));
        if (!on) { continue; }
        if (modes[i].pool < 0 || first != NULL) {
            FAIL(PEFT_E_UNSUPPORTED, "%s: \"%s\"%s%s%s is not supported, expected one of mean, cls and lasttoken; the option pooling sets "
                 "another", path, modes[i].key, first != NULL ? " with \"" : "", first != NULL ? first : "", first != NULL ? "\"" : "");
        }
        first = modes[i].key;
        m->config.task.pool = modes[i].pool;
    }
out:
    peft__arena_free(&a);
    return st;
}

peft_status peft__model_load_hf(struct peft_model *m, bool copy) {
    peft_status st = PEFT_OK;
    char *path = NULL;
    peft__file file;
    memset(&file, 0, sizeof file);
    TRY(peft__path_join(&m->arena, m->path, "config.json", &path));
    TRY(peft__file_open(m->arena.mem, path, true, &file));
    st = peft__model_set_config(m, (const char *)file.data, file.size);
    if (st != PEFT_OK) {
        if (st != PEFT_E_NOMEM) { peft__fail_prefix("%s", m->path); }
        goto out;
    }
    if (m->config.encoder_layers > 0) { TRY(load_hf_generation(m)); }
    if (m->config.task.kind == PEFT__TASK_EMBEDDING && m->ask.pool < 0) { TRY(load_hf_pooling(m)); }
    TRY(load_hf_open_weights(m, copy));
    TRY(peft__model_bind(m, m->path, peft__model_source_hf, NULL));
out:
    peft__file_close(&file);
    return st;
}
