/* jobs_file.c - reads what `peft train --jobs` is to do:
 *
 *   {"jobs": [{"name", "method" | "adapter", "compose", "data", "eval", "share", "options": {...}}, ...],
 *    "adapters": {NAME: {"method" | "adapter", "options": {...}}, ...}, "options": {...}}
 *
 * Every key is known or refused, and every message has the line. Values of "options" stay text: the library has their types.
 * Leaves out: paths relative to the file (they are relative to the current folder, as everywhere in the tool). */
#include "jobs_file.h"

#include "system.h"
#include "tool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const jobs_file_keys[] = {"jobs", "adapters", "options", NULL};
static const char *const jobs_job_keys[] = {"name", "method", "adapter", "compose", "data", "eval", "share", "options", NULL};
static const char *const jobs_adapter_keys[] = {"method", "adapter", "options", NULL};

/* ---- Text that the file keeps --------------------------------------------------------------------------------------- */

static const char *jobs_keep(jobs_file *f, char *text) {
    f->texts = tool_resize(f->texts, (f->text_count + 1) * sizeof *f->texts);
    return f->texts[f->text_count++] = text;
}

/* "jobs.json:3", and with a key "jobs.json:3: data" */
static const char *jobs_where(jobs_file *f, const json_value *v, const char *key) {
    char line[TOOL_SHORT];
    (void)snprintf(line, sizeof line, ":%d%s", v->line, key != NULL ? ": " : "");
    return jobs_keep(f, tool_join(f->path, line, key != NULL ? key : ""));
}

/* A value as JSON again. */
static void jobs_put_json(tool_text *out, const json_value *v) {
    bool object = v->kind == JSON_OBJECT;
    if (v->kind == JSON_STRING) {
        tool_append_json(out, v->text, v->len);
        return;
    }
    if (v->kind != JSON_ARRAY && !object) {
        tool_append(out, v->text, v->len);
        return;
    }
    tool_append(out, object ? "{" : "[", 1);
    for (const json_value *item = v->first; item != NULL; item = item->next) {
        tool_append(out, ",", item != v->first ? 1 : 0);
        if (object) {
            tool_append_json(out, item->key, strlen(item->key));
            tool_append(out, ":", 1);
        }
        jobs_put_json(out, item);
    }
    tool_append(out, object ? "}" : "]", 1);
}

/* ---- Checks ----------------------------------------------------------------------------------------------------------- */

static int jobs_unknown_key(const jobs_file *f, const json_value *v, const char *const *known) {
    const char *nearest = "";
    size_t best = SIZE_MAX;
    tool_text list = {NULL, 0, 0};
    for (const char *const *k = known; *k != NULL; k++) {
        size_t distance = tool_distance(v->key, *k);
        nearest = distance < best ? *k : nearest;
        best = distance < best ? distance : best;
        tool_append(&list, ", ", k != known ? 2 : 0);
        tool_append(&list, *k, strlen(*k));
    }
    int rc = best < 4 ? tool_usage("%s:%d: unknown key \"%s\"; did you mean \"%s\"?", f->path, v->line, v->key, nearest)
                      : tool_usage("%s:%d: unknown key \"%s\"; there are: %s", f->path, v->line, v->key, list.text);
    free(list.text);
    return rc;
}

/* Members of an object: none twice, and of those that are known; NULL: any. */
static int jobs_check_keys(const jobs_file *f, const json_value *object, const char *const *known) {
    for (const json_value *v = object->first; v != NULL; v = v->next) {
        const char *const *k = known;
        while (k != NULL && *k != NULL && strcmp(*k, v->key) != 0) { k++; }
        if (k != NULL && *k == NULL) { return jobs_unknown_key(f, v, known); }
        if (json_get(object, v->key) != v) { return tool_usage("%s:%d: the key \"%s\" is there twice", f->path, v->line, v->key); }
    }
    return TOOL_OK;
}

/* An optional member of the kind that it must have. */
static int jobs_member(const jobs_file *f, const json_value *object, const char *key, json_kind kind, const json_value **out) {
    static const char *const kinds[] = {"null", "false", "true", "a number", "a text", "a list", "an object"};
    const json_value *v = json_get(object, key);
    *out = v;
    if (v != NULL && v->kind != kind) { return tool_usage("%s:%d: \"%s\" must be %s", f->path, v->line, key, kinds[kind]); }
    return TOOL_OK;
}

static int jobs_member_text(const jobs_file *f, const json_value *object, const char *key, const char **out) {
    const json_value *v = NULL;
    int rc = jobs_member(f, object, key, JSON_STRING, &v);
    if (rc != TOOL_OK || v == NULL) { return rc; }
    if (v->len == 0 || strlen(v->text) != v->len) { return tool_usage("%s:%d: \"%s\" is empty", f->path, v->line, key); }
    *out = v->text;
    return TOOL_OK;
}

/* A name is a folder of its own in the run's, and a word of expressions. */
static int jobs_check_name(const char *where, const char *name) {
    bool bad = name[0] == '\0' || name[0] == ' ' || name[strlen(name) - 1] == ' ' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
    for (const char *p = name; *p != '\0'; p++) { bad = bad || strchr("/\\:,()[]|*+\"<>?", *p) != NULL || (unsigned char)*p < 0x20; }
    if (bad) { return tool_usage("%s: \"%s\" cannot be a name: it is that of a folder, and a word of \"compose\"", where, name); }
    if (strcmp(name, "trainer") == 0) { return tool_usage("%s: the name \"trainer\" is that of the run's own state", where); }
    return TOOL_OK;
}

static int jobs_check_names(const jobs_file *f) {
    size_t n = f->adapter_count + f->job_count;
    for (size_t i = 0; i < n; i++) {
        const jobs_entry *a = i < f->adapter_count ? &f->adapters[i] : &f->jobs[i - f->adapter_count];
        int rc = jobs_check_name(a->where, a->name);
        if (rc != TOOL_OK) { return rc; }
        for (size_t j = 0; j < i; j++) {
            const jobs_entry *b = j < f->adapter_count ? &f->adapters[j] : &f->jobs[j - f->adapter_count];
            if (strcmp(a->name, b->name) == 0) {
                return tool_usage("%s: the name \"%s\" is taken, at %s", a->where, a->name, b->where);
            }
        }
    }
    return TOOL_OK;
}

/* ---- Reading ------------------------------------------------------------------------------------------------------------ */

static void jobs_add_setting(jobs_file *f, const json_value *v, tool_setting **list, size_t *count) {
    tool_text json = {NULL, 0, 0};
    const char *value = v->text;
    if (v->kind == JSON_ARRAY || v->kind == JSON_OBJECT) {
        jobs_put_json(&json, v);
        value = jobs_keep(f, json.text);
    }
    *list = tool_resize(*list, (*count + 1) * sizeof **list);
    (*list)[*count] = (tool_setting){tool_copy(v->key, strlen(v->key)), value, jobs_where(f, v, v->key)};
    (*count)++;
}

static int jobs_read_options(jobs_file *f, const json_value *object, tool_setting **list, size_t *count) {
    int rc = TOOL_OK;
    const json_value *options = NULL;
    DO(jobs_member(f, object, "options", JSON_OBJECT, &options));
    if (options == NULL) { goto out; }
    DO(jobs_check_keys(f, options, NULL));
    for (const json_value *v = options->first; v != NULL; v = v->next) {
        if (v->kind == JSON_NULL) { DO(tool_usage("%s:%d: \"%s\" has no value", f->path, v->line, v->key)); }
        jobs_add_setting(f, v, list, count);
    }
out:
    return rc;
}

/* What jobs and shared adapters have both. */
static int jobs_read_entry(jobs_file *f, const json_value *v, const char *const *known, jobs_entry *e) {
    int rc = TOOL_OK;
    e->where = jobs_where(f, v, NULL);
    if (v->kind != JSON_OBJECT) { DO(tool_usage("%s: this must be an object", e->where)); }
    DO(jobs_check_keys(f, v, known));
    DO(jobs_member_text(f, v, "method", &e->method));
    DO(jobs_member_text(f, v, "adapter", &e->adapter));
    if (e->method != NULL && e->adapter != NULL) {
        DO(tool_usage("%s: \"adapter\" has a method already: leave \"method\" out", e->where));
    }
    e->source = e->method != NULL ? jobs_where(f, json_get(v, "method"), "method") : e->where;
    DO(jobs_read_options(f, v, &e->settings, &e->setting_count));
out:
    return rc;
}

static int jobs_read_job(jobs_file *f, const json_value *v, jobs_entry *e) {
    int rc = TOOL_OK;
    const json_value *share = NULL;
    DO(jobs_read_entry(f, v, jobs_job_keys, e));
    DO(jobs_member_text(f, v, "name", &e->name));
    DO(jobs_member_text(f, v, "compose", &e->compose));
    DO(jobs_member_text(f, v, "data", &e->data));
    DO(jobs_member_text(f, v, "eval", &e->eval));
    DO(jobs_member(f, v, "share", JSON_NUMBER, &share));
    if (e->name == NULL) { DO(tool_usage("%s: a job needs a \"name\"", e->where)); }
    if (e->data == NULL) { DO(tool_usage("%s: the job \"%s\" needs \"data\"", e->where, e->name)); }
    if (share != NULL && !(share->number > 0)) {
        DO(tool_usage("%s:%d: the share of \"%s\" must be more than 0, not %s", f->path, share->line, e->name, share->text));
    }
    if (share != NULL) { jobs_add_setting(f, share, &e->settings, &e->setting_count); }
out:
    return rc;
}

static int jobs_read_all(jobs_file *f) {
    int rc = TOOL_OK;
    const json_value *root = &f->doc.values[0], *jobs = NULL, *adapters = NULL;
    if (root->kind != JSON_OBJECT) { DO(tool_usage("%s:%d: this must be an object with \"jobs\"", f->path, root->line)); }
    DO(jobs_check_keys(f, root, jobs_file_keys));
    DO(jobs_member(f, root, "jobs", JSON_ARRAY, &jobs));
    DO(jobs_member(f, root, "adapters", JSON_OBJECT, &adapters));
    if (jobs == NULL || jobs->count == 0) { DO(tool_usage("%s:%d: there are no \"jobs\"", f->path, root->line)); }
    DO(jobs_read_options(f, root, &f->settings, &f->setting_count));
    f->jobs = tool_alloc(jobs->count * sizeof *f->jobs);
    f->adapters = tool_alloc((adapters != NULL ? adapters->count : 0) * sizeof *f->adapters);
    if (adapters != NULL) { DO(jobs_check_keys(f, adapters, NULL)); }
    for (const json_value *v = adapters != NULL ? adapters->first : NULL; v != NULL; v = v->next) {
        f->adapters[f->adapter_count].name = v->key;
        DO(jobs_read_entry(f, v, jobs_adapter_keys, &f->adapters[f->adapter_count++]));
    }
    for (const json_value *v = jobs->first; v != NULL; v = v->next) { DO(jobs_read_job(f, v, &f->jobs[f->job_count++])); }
    DO(jobs_check_names(f));
out:
    return rc;
}

int jobs_file_read(const char *path, jobs_file *out) {
    int rc = TOOL_OK, line = 0;
    tool_text text = {NULL, 0, 0};
    char piece[4096];
    size_t n = 0;
    *out = (jobs_file){.path = path};
    FILE *file = system_open(path, "rb");
    if (file == NULL) { DO(tool_fail("cannot read %s: %s", path, strerror(errno))); }
    while ((n = fread(piece, 1, sizeof piece, file)) > 0) { tool_append(&text, piece, n); }
    if (ferror(file)) { DO(tool_fail("cannot read %s: %s", path, strerror(errno))); }
    tool_append(&text, "", 0);
    if (!json_parse_at(&out->doc, text.text, text.len, &line)) { DO(tool_usage("%s:%d: this is not JSON", path, line)); }
    DO(jobs_read_all(out));
out:
    if (file != NULL) { (void)fclose(file); }
    free(text.text);
    return rc;
}

static void jobs_free_settings(tool_setting *settings, size_t count) {
    for (size_t i = 0; i < count; i++) { free(settings[i].key); }
    free(settings);
}

void jobs_file_free(jobs_file *f) {
    for (size_t i = 0; i < f->job_count; i++) { jobs_free_settings(f->jobs[i].settings, f->jobs[i].setting_count); }
    for (size_t i = 0; i < f->adapter_count; i++) { jobs_free_settings(f->adapters[i].settings, f->adapters[i].setting_count); }
    jobs_free_settings(f->settings, f->setting_count);
    for (size_t i = 0; i < f->text_count; i++) { free(f->texts[i]); }
    free(f->texts);
    free(f->jobs);
    free(f->adapters);
    json_free(&f->doc);
    *f = (jobs_file){0};
}
