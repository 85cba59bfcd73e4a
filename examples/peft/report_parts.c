/* report_parts.c - what of the page is no chart: the table of runs, gradients by layer, samples, settings. */
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void report_put_run(tool_text *page, const report_run *r, size_t index) {
    report_put(page, "<svg class=\"swatch c%zu d%zu\" viewBox=\"0 0 22 10\" aria-hidden=\"true\">"
                     "<path class=\"line\" d=\"M1 5h20\"/></svg>",
               index % 8, index / 8);
    report_put_name(page, r->name);
}

static void parts_put_value(tool_text *page, const json_value *v, size_t most) {
    if (v == NULL || v->kind == JSON_NULL) {
        report_put(page, "\u2013");
    } else if (v->kind != JSON_ARRAY && v->kind != JSON_OBJECT) {
        report_put_cut(page, v->text, v->len > 0 ? v->len : strlen(v->text), most);
    } else {
        size_t shown = 0;
        for (const json_value *item = v->first; item != NULL && shown < 12; item = item->next, shown++) {
            report_put(page, "%s", shown > 0 ? ", " : "");
            if (item->key != NULL) {
                report_put_name(page, item->key);
                report_put(page, ": ");
            }
            bool group = item->kind == JSON_ARRAY || item->kind == JSON_OBJECT;
            report_put_name(page, group ? "\u2026" : item->text);
        }
        report_put(page, "%s", v->first == NULL ? "none" : shown < v->count ? ", \u2026" : "");
    }
}

/* ---- Table of runs ------------------------------------------------------------------------------------------------------------ */

static void parts_put_figure(tool_text *page, const char *text, bool best) {
    report_put(page, best ? "<td><strong>%s<span class=\"sr\"> (lowest)</span></strong></td>" : "<td>%s</td>", text);
}

static void parts_put_run(tool_text *page, const report_run *r, size_t index, bool best) {
    char text[TOOL_SHORT], more[TOOL_SHORT], cell[2 * TOOL_SHORT + 32];
    double at = 0.0, most = report_number(r, "plan", "max_steps"), least = report_least(r, REPORT_EVAL, &at);
    double rate = report_most(r, REPORT_RATE), speed = report_speed(r), seconds = report_seconds(r);
    report_put(page, "<tr><th scope=\"row\">");
    report_put_run(page, r, index);
    report_put(page, "</th><td>");
    parts_put_value(page, report_about(r, "adapter", "method"), REPORT_NAME);
    double parameters = report_number(r, "plan", "trainable_parameters");
    report_put(page, "</td><td>%s</td>", isfinite(parameters) ? tool_count(parameters, text) : "\u2013");
    parts_put_figure(page, report_figure(rate, 3, text), false);
    (void)snprintf(cell, sizeof cell, isfinite(most) ? "%.0f of %.0f" : "%.0f", report_last(r, REPORT_STEP), most);
    parts_put_figure(page, cell, false);
    (void)snprintf(cell, sizeof cell, "%s \u2192 %s", report_figure(r->steps[0][REPORT_LOSS], 6, text),
                   report_figure(report_last(r, REPORT_LOSS), 6, more));
    parts_put_figure(page, cell, false);
    parts_put_figure(page, report_figure(report_last(r, REPORT_EVAL), 6, text), false);
    if (isfinite(least)) {
        (void)snprintf(cell, sizeof cell, "%s at %.0f", report_figure(least, 6, text), at);
        parts_put_figure(page, cell, best);
    } else {
        parts_put_figure(page, "\u2013", false);
    }
    (void)snprintf(cell, sizeof cell, isfinite(speed) ? "%.0f" : "\u2013", speed);
    parts_put_figure(page, cell, false);
    parts_put_figure(page, isfinite(seconds) ? tool_duration(seconds, text) : "\u2013", false);
    double peak = report_most(r, REPORT_PEAK);
    parts_put_figure(page, isfinite(peak) ? tool_bytes(peak, text) : "\u2013", false);
    report_put(page, "</tr>");
}

void report_put_runs(tool_text *page, const report_logs *l) {
    static const char *const head[] = {"run",  "method",        "parameters", "learning rate", "steps",       "loss, first \u2192 last",
                                       "held-out, last", "held-out, lowest", "tokens/s",   "time",          "peak memory"};
    double best = (double)NAN, at = 0.0;
    for (size_t i = 0; i < l->count && l->count > 1; i++) {
        double least = report_least(&l->runs[i], REPORT_EVAL, &at);
        best = !(least >= best) && isfinite(least) ? least : best;
    }
    report_put(page, "<section aria-labelledby=\"runs\"><h2 id=\"runs\">Runs</h2><div class=\"scroll\"><table class=\"runs\"><thead><tr>");
    for (size_t i = 0; i < sizeof head / sizeof *head; i++) { report_put(page, "<th scope=\"col\">%s</th>", head[i]); }
    report_put(page, "</tr></thead><tbody>\n");
    for (size_t i = 0; i < l->count; i++) {
        parts_put_run(page, &l->runs[i], i, report_least(&l->runs[i], REPORT_EVAL, &at) == best);
    }
    report_put(page, "</tbody></table></div></section>\n");
}

/* ---- Gradients by layer ------------------------------------------------------------------------------------------------------- */

typedef struct parts_heat {
    double least, most; /* above 0 */
    size_t columns;     /* records that are shown */
} parts_heat;

static const json_value *parts_gradients(const report_run *r, size_t record) {
    return json_get(&r->gradients[record].doc.values[0], "gradients");
}

static size_t parts_column(const report_run *r, const parts_heat *h, size_t column) {
    return h->columns > 1 ? column * (r->gradient_count - 1) / (h->columns - 1) : r->gradient_count - 1;
}

static parts_heat parts_scale(const report_run *r, size_t cells) {
    parts_heat h = {(double)NAN, (double)NAN, 0};
    size_t layers = parts_gradients(r, 0)->count, fair = cells / (layers > 0 ? layers : 1);
    h.columns = fair < 2 ? 2 : fair > 12 ? 12 : fair;
    h.columns = r->gradient_count < h.columns ? r->gradient_count : h.columns;
    for (size_t k = 0; k < h.columns; k++) {
        for (const json_value *v = parts_gradients(r, parts_column(r, &h, k))->first; v != NULL; v = v->next) {
            if (v->kind != JSON_NUMBER || !(v->number > 0.0) || !isfinite(v->number)) { continue; }
            h.least = !(v->number >= h.least) ? v->number : h.least;
            h.most = !(v->number <= h.most) ? v->number : h.most;
        }
    }
    return h;
}

/* Ratios matter, so the shade is of the logarithm. */
static void parts_put_heat(tool_text *page, const parts_heat *h, const json_value *v) {
    double value = v != NULL && v->kind == JSON_NUMBER ? v->number : (double)NAN;
    double shade = h->most > h->least ? log(value / h->least) / log(h->most / h->least) : 1.0;
    if (!isfinite(value)) {
        report_put(page, "<td>\u2013</td>");
    } else {
        report_put(page, "<td style=\"--v:%.2f\">%.3g</td>", isfinite(shade) && shade > 0.0 ? shade : 0.0, value);
    }
}

static void parts_put_heats(tool_text *page, const report_run *r, size_t index, bool named, size_t cells) {
    enum { LAYERS = 100 };
    size_t layers = 0;
    parts_heat h = parts_scale(r, cells);
    report_put(page, "<div class=\"scroll\"><table class=\"heat c%zu\"><caption>", index % 8);
    if (named) {
        report_put_run(page, r, index);
    }
    report_put(page, "</caption><thead><tr><th scope=\"col\">step</th>");
    for (size_t k = 0; k < h.columns; k++) { report_put(page, "<th scope=\"col\">%.0f</th>", r->gradients[parts_column(r, &h, k)].step); }
    report_put(page, "</tr></thead><tbody>");
    for (const json_value *row = parts_gradients(r, 0)->first; row != NULL && layers < LAYERS; row = row->next, layers++) {
        report_put(page, "<tr><th scope=\"row\">");
        report_put_name(page, row->key);
        report_put(page, "</th>");
        for (size_t k = 0; k < h.columns; k++) { parts_put_heat(page, &h, json_get(parts_gradients(r, parts_column(r, &h, k)), row->key)); }
        report_put(page, "</tr>");
    }
    report_put(page, "</tbody></table></div>");
}

void report_put_gradients(tool_text *page, const report_logs *l) {
    size_t with = 0;
    for (size_t i = 0; i < l->count; i++) { with += l->runs[i].gradient_count > 0 ? 1 : 0; }
    if (with == 0) { return; }
    report_put(page, "<section aria-labelledby=\"gradients\"><h2 id=\"gradients\">Gradients by layer</h2>"
                     "<p>Norm of the adapter's gradient in each "
                     "layer, for the same first rows of the data each time. The deeper the colour, the larger.</p><div class=\"heats\">");
    for (size_t i = 0; i < l->count; i++) {
        if (l->runs[i].gradient_count > 0) { parts_put_heats(page, &l->runs[i], i, l->count > 1, 1200 / with); }
    }
    report_put(page, "</div></section>\n");
}

/* ---- Samples ------------------------------------------------------------------------------------------------------------------ */

static const json_value *parts_sample(const report_record *record, const json_value *prompt) {
    const json_value *list = json_get(&record->doc.values[0], "samples");
    for (const json_value *v = list->first; v != NULL; v = v->next) {
        const json_value *own = json_get(v, "prompt");
        if (own != NULL && own->kind == JSON_STRING && strcmp(own->text, prompt->text) == 0) { return json_get(v, "text"); }
    }
    return NULL;
}

static void parts_put_sample(tool_text *page, const report_run *r, size_t index, bool named, size_t record, const json_value *prompt,
                             size_t most) {
    const report_record *from = &r->samples[record];
    const json_value *text = parts_sample(from, prompt);
    report_put(page, "<figure class=\"sample c%zu\"><figcaption>", index % 8);
    if (named) {
        report_put_run(page, r, index);
        report_put(page, ": ");
    }
    report_put(page, from->step > 0.0 ? "after step %.0f" : "before training", from->step);
    report_put(page, "</figcaption><pre>");
    if (text != NULL && text->kind == JSON_STRING) { report_put_cut(page, text->text, text->len, most); }
    report_put(page, "</pre></figure>");
}

/* Of several runs the first one's prompts, and those of others with the same. */
static void parts_put_prompt(tool_text *page, const report_logs *l, const json_value *prompt, size_t most) {
    report_put(page, "<article><pre class=\"prompt\">");
    report_put_cut(page, prompt->text, prompt->len, most);
    report_put(page, "</pre><div class=\"samples\">");
    for (size_t i = 0; i < l->count; i++) {
        const report_run *r = &l->runs[i];
        for (size_t k = 0; k < r->sample_count; k++) {
            bool shown = k == 0 || k + 1 == r->sample_count; /* of a run that was gone on with there may be more */
            if (shown && parts_sample(&r->samples[k], prompt) != NULL) { parts_put_sample(page, r, i, l->count > 1, k, prompt, most); }
        }
    }
    report_put(page, "</div></article>\n");
}

void report_put_samples(tool_text *page, const report_logs *l) {
    enum { PROMPTS = 24, BYTES = 40000 };
    const report_run *first = NULL;
    size_t with = 0, shown = 0;
    for (size_t i = 0; i < l->count; i++) {
        first = first == NULL && l->runs[i].sample_count > 0 ? &l->runs[i] : first;
        with += l->runs[i].sample_count > 0 ? 1 : 0;
    }
    if (first == NULL) { return; }
    const json_value *list = json_get(&first->samples[0].doc.values[0], "samples");
    size_t prompts = list->count < PROMPTS ? list->count : PROMPTS, fair = BYTES / (prompts * (2 * with + 1) + 1);
    report_put(page, "<section aria-labelledby=\"samples\"><h2 id=\"samples\">Samples</h2>"
                     "<p>The likeliest continuation of each prompt.</p>\n");
    for (const json_value *v = list->first; v != NULL && shown < PROMPTS; v = v->next, shown++) {
        const json_value *prompt = json_get(v, "prompt");
        if (prompt != NULL && prompt->kind == JSON_STRING) { parts_put_prompt(page, l, prompt, fair < 2000 ? fair : 2000); }
    }
    report_put(page, "</section>\n");
}

/* ---- Settings ----------------------------------------------------------------------------------------------------------------- */

typedef struct parts_group {
    const char *part, *schema; /* "given"; "settings" and "trainer"; part NULL: what "run" has itself */
    bool few;                  /* only what differs */
} parts_group;

static const json_value *parts_object(const report_run *r, const parts_group *g) {
    const json_value *o = r->head != NULL && g->part != NULL ? json_get(r->head, g->part) : r->head;
    return g->schema != NULL ? json_get(o, g->schema) : o;
}

static bool parts_same(const json_value *a, const json_value *b) {
    if (a == NULL || b == NULL || a->kind != b->kind) { return a == b; }
    if (a->kind != JSON_ARRAY && a->kind != JSON_OBJECT) { return strcmp(a->text, b->text) == 0; }
    const json_value *x = a->first, *y = b->first;
    for (; x != NULL && y != NULL; x = x->next, y = y->next) {
        if ((x->key != NULL && y->key != NULL && strcmp(x->key, y->key) != 0) || !parts_same(x, y)) { return false; }
    }
    return x == y;
}

static void parts_put_setting(tool_text *page, const report_logs *l, const parts_group *g, const char *key) {
    bool differs = false;
    for (size_t i = 1; i < l->count; i++) {
        differs = differs || !parts_same(json_get(parts_object(&l->runs[0], g), key), json_get(parts_object(&l->runs[i], g), key));
    }
    if (g->few && !differs) { return; }
    report_put(page, differs ? "<tr class=\"differs\"><th scope=\"row\">" : "<tr><th scope=\"row\">");
    report_put_name(page, key);
    report_put(page, "%s</th>", differs ? "<span class=\"sr\"> (differs)</span>" : "");
    for (size_t i = 0; i < l->count; i++) {
        const json_value *v = json_get(parts_object(&l->runs[i], g), key);
        char text[TOOL_SHORT];
        report_put(page, "<td>");
        if (v != NULL && v->kind == JSON_NUMBER && v->number >= 10000.0 && strstr(key, "bytes") != NULL) {
            report_put(page, "%s", tool_bytes(v->number, text));
        } else {
            parts_put_value(page, v, 160);
        }
        report_put(page, "</td>");
    }
    report_put(page, "</tr>");
}

static void parts_put_group(tool_text *page, const report_logs *l, const parts_group *g, const char *title) {
    size_t begin = page->len;
    report_put(page, "<tbody><tr><th class=\"group\" colspan=\"%zu\" scope=\"rowgroup\">", l->count + 1);
    report_put_name(page, title);
    report_put(page, "</th></tr>");
    size_t empty = page->len;
    for (size_t i = 0; i < l->count; i++) {
        const json_value *object = parts_object(&l->runs[i], g);
        for (const json_value *v = object != NULL ? object->first : NULL; v != NULL; v = v->next) {
            bool seen = v->key == NULL || (g->part == NULL && v->kind == JSON_OBJECT);
            for (size_t k = 0; k < i && !seen; k++) { seen = json_get(parts_object(&l->runs[k], g), v->key) != NULL; }
            if (!seen) { parts_put_setting(page, l, g, v->key); }
        }
    }
    report_put_end(page, begin, empty, "</tbody>\n");
}

static void parts_put_head(tool_text *page, const report_logs *l, const char *caption) {
    report_put(page, "<div class=\"scroll\"><table class=\"settings\"><caption class=\"sr\">%s</caption>"
                     "<thead><tr><th scope=\"col\">key</th>", caption);
    for (size_t i = 0; i < l->count; i++) {
        report_put(page, "<th scope=\"col\">");
        report_put_run(page, &l->runs[i], i);
        report_put(page, "</th>");
    }
    report_put(page, "</tr></thead>");
}

static void parts_put_schemas(tool_text *page, const report_logs *l, bool few) {
    for (size_t i = 0; i < l->count; i++) {
        const json_value *all = report_about(&l->runs[i], "settings", "trainer") != NULL ? json_get(l->runs[i].head, "settings") : NULL;
        for (const json_value *v = all != NULL ? all->first : NULL; v != NULL; v = v->next) {
            parts_group g = {"settings", v->key, few};
            bool seen = v->kind != JSON_OBJECT;
            for (size_t k = 0; k < i && !seen; k++) { seen = parts_object(&l->runs[k], &g) != NULL; }
            if (!seen) { parts_put_group(page, l, &g, v->key); }
        }
    }
}

void report_put_settings(tool_text *page, const report_logs *l) {
    static const char *const parts[][2] = {{"given", "settings as they were given"}, {"model", "model"}, {"adapter", "adapter"},
                                           {"data", "data"}, {"eval", "held-out rows"}, {"plan", "plan"}};
    bool any = false, few = l->count > 6;
    for (size_t i = 0; i < l->count; i++) { any = any || l->runs[i].head != NULL; }
    if (!any) { return; }
    report_put(page, "<section aria-labelledby=\"settings\"><h2 id=\"settings\">What was run</h2>%s\n",
               l->count > 1 ? "<p>What differs between runs is marked.</p>" : "");
    parts_put_head(page, l, "What was run");
    parts_put_group(page, l, &(parts_group){NULL, NULL, false}, "process");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        parts_put_group(page, l, &(parts_group){parts[i][0], NULL, few && i != 0}, parts[i][1]);
    }
    report_put(page, "</table></div><details><summary>%s</summary>", few ? "All options that differ" : "All options in force");
    parts_put_head(page, l, "Options in force");
    parts_put_schemas(page, l, few);
    report_put(page, "</table></div></details></section>\n");
}
