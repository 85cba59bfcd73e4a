/* settings.h - from --set key=value to options objects of the library. */
#ifndef SETTINGS_H
#define SETTINGS_H

#include "args.h"
#include "minijson.h"
#include "peft.h"

enum { SETTINGS_SCHEMAS = 16 };

/* Options of several schemas. */
typedef struct tool_options {
    const char *schema[SETTINGS_SCHEMAS]; /* borrowed */
    peft_options *options[SETTINGS_SCHEMAS];
    json_doc keys[SETTINGS_SCHEMAS]; /* the schema as peft_schema_json has it */
    size_t count;
} tool_options;

/* Options of each schema of the NULL-terminated list that the library has, with all settings of args in them. A key goes
 * to every schema that knows it. Returns an exit code. */
int settings_build(peft_context *ctx, const tool_args *args, const char *const *schemas, tool_options *out);
/* The same without the settings of a command line. */
int settings_open(peft_context *ctx, const char *const *schemas, tool_options *out);
void settings_free(tool_options *o);

/* One setting, to every schema that knows its key; *known: there was one. */
int settings_offer(tool_options *o, const tool_setting *s, bool *known);
int settings_put_in(tool_options *o, const char *schema, const tool_setting *s); /* to that schema alone */
/* The same where one must know it: the error names the nearest. */
int settings_take(tool_options *o, const tool_setting *s);

bool settings_known(const char *schema); /* the library has such a schema */
/* NULL, which the library takes as "all defaults", for a schema that is not there. */
peft_options *settings_of(const tool_options *o, const char *schema);
bool settings_has_key(const tool_options *o, const char *schema, const char *key);
/* The value in force of a number or truth value; fallback where there is no such key. */
double settings_number(const tool_options *o, const char *schema, const char *key, double fallback);

#endif
