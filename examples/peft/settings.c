/* settings.c - a key given on the command line is looked up in the schemas that the command takes; the library checks type
 * and range and words the error, so that the tool has no table of keys of its own. */
#include "tool.h"

#include <stdlib.h>
#include <string.h>

bool settings_known(const char *schema) {
    const char *name = NULL;
    for (size_t i = 0; (name = peft_schema_name(i)) != NULL; i++) {
        if (strcmp(name, schema) == 0) { return true; }
    }
    return false;
}

static size_t settings_index(const tool_options *o, const char *schema) {
    size_t i = 0;
    while (i < o->count && strcmp(o->schema[i], schema) != 0) { i++; }
    return i;
}

peft_options *settings_of(const tool_options *o, const char *schema) {
    size_t i = settings_index(o, schema);
    return i < o->count ? o->options[i] : NULL;
}

static bool settings_lists(const json_doc *keys, const char *key) {
    for (const json_value *row = keys->values[0].first; row != NULL; row = row->next) {
        const json_value *name = json_get(row, "key");
        if (name != NULL && name->kind == JSON_STRING && strcmp(name->text, key) == 0) { return true; }
    }
    return false;
}

bool settings_has_key(const tool_options *o, const char *schema, const char *key) {
    size_t i = settings_index(o, schema);
    return i < o->count && settings_lists(&o->keys[i], key);
}

/* The schema whose keys come nearest to an unknown one: its error says "did you mean". */
static size_t settings_nearest(const tool_options *o, const char *key) {
    size_t nearest = 0, best = SIZE_MAX;
    for (size_t i = 0; i < o->count; i++) {
        for (const json_value *row = o->keys[i].values[0].first; row != NULL; row = row->next) {
            const json_value *name = json_get(row, "key");
            size_t distance = name != NULL && name->kind == JSON_STRING ? tool_distance(key, name->text) : SIZE_MAX;
            if (distance < best) {
                best = distance;
                nearest = i;
            }
        }
    }
    return nearest;
}

static int settings_put(peft_options *options, const tool_setting *s) {
    if (peft_options_set_text(options, s->key, s->value) == PEFT_OK) { return TOOL_OK; }
    if (strcmp(s->option, "--set") == 0) { return tool_usage("--set %s=%s: %s", s->key, s->value, peft_last_error()); }
    return tool_usage("%s %s: %s", s->option, s->value, peft_last_error());
}

/* "lora.r": key r of schema "method:lora" alone. */
static int settings_offer_method(tool_options *o, const tool_setting *s, const char *dot, bool *known) {
    int rc = TOOL_OK;
    char *method = tool_copy(s->key, (size_t)(dot - s->key)), *schema = tool_join("method:", method, "");
    peft_options *options = settings_of(o, schema);
    tool_setting own = {.key = tool_copy(dot + 1, strlen(dot + 1)), .value = s->value, .option = s->option};
    *known = options != NULL;
    if (options != NULL) { rc = settings_put(options, &own); }
    free(own.key);
    free(schema);
    free(method);
    return rc;
}

int settings_offer(tool_options *o, const tool_setting *s, bool *known) {
    int rc = TOOL_OK;
    const char *dot = strchr(s->key, '.');
    if (dot != NULL) { return settings_offer_method(o, s, dot, known); }
    for (size_t i = 0; i < o->count && rc == TOOL_OK; i++) {
        if (settings_lists(&o->keys[i], s->key)) {
            *known = true;
            rc = settings_put(o->options[i], s);
        }
    }
    return rc;
}

int settings_put_in(tool_options *o, const char *schema, const tool_setting *s) {
    return settings_put(settings_of(o, schema), s);
}

int settings_take(tool_options *o, const tool_setting *s) {
    bool known = false;
    int rc = settings_offer(o, s, &known);
    const char *dot = strchr(s->key, '.');
    if (rc == TOOL_OK && !known && dot != NULL) {
        return tool_usage("%s %s: this command has no method %.*s", s->option, s->key, (int)(dot - s->key), s->key);
    }
    if (!known && o->count > 0) { rc = settings_put(o->options[settings_nearest(o, s->key)], s); }
    if (!known && rc == TOOL_OK) { rc = tool_usage("%s %s: this command has no such key", s->option, s->key); }
    return rc;
}

static int settings_add_schema(peft_context *ctx, const char *schema, tool_options *o) {
    int rc = TOOL_OK;
    char *text = NULL;
    size_t i = o->count;
    TRY(peft_options_create(ctx, schema, &o->options[i]));
    o->schema[i] = schema;
    o->count++;
    READ_TEXT(text, peft_schema_json, schema);
    if (!json_parse(&o->keys[i], text, strlen(text)) || o->keys[i].values[0].kind != JSON_ARRAY) {
        json_free(&o->keys[i]);
        json_parse(&o->keys[i], "[]", 2);
    }
out:
    free(text);
    return rc;
}

int settings_open(peft_context *ctx, const char *const *schemas, tool_options *out) {
    int rc = TOOL_OK;
    for (; *schemas != NULL && out->count < SETTINGS_SCHEMAS; schemas++) {
        if (settings_known(*schemas)) { DO(settings_add_schema(ctx, *schemas, out)); }
    }
out:
    return rc;
}

int settings_build(peft_context *ctx, const tool_args *args, const char *const *schemas, tool_options *out) {
    int rc = TOOL_OK;
    DO(settings_open(ctx, schemas, out));
    for (size_t i = 0; i < args->setting_count; i++) { DO(settings_take(out, &args->settings[i])); }
out:
    return rc;
}

void settings_free(tool_options *o) {
    for (size_t i = 0; i < o->count; i++) {
        peft_options_free(o->options[i]);
        json_free(&o->keys[i]);
    }
    o->count = 0;
}

double settings_number(const tool_options *o, const char *schema, const char *key, double fallback) {
    int rc = TOOL_OK;
    char *text = NULL;
    json_doc doc = {NULL, NULL};
    const peft_options *options = settings_of(o, schema);
    if (options == NULL) { return fallback; }
    READ_TEXT(text, peft_options_get_json, options);
    if (json_parse(&doc, text, strlen(text))) {
        const json_value *v = json_get(&doc.values[0], key);
        if (v != NULL && v->kind == JSON_NUMBER) {
            fallback = v->number;
        } else if (v != NULL && (v->kind == JSON_TRUE || v->kind == JSON_FALSE)) {
            fallback = v->kind == JSON_TRUE ? 1.0 : 0.0;
        }
    }
out:
    (void)rc; /* the message is out; the fallback serves */
    json_free(&doc);
    free(text);
    return fallback;
}
