/* report.c - the page of `peft report` and `peft train --report`: one HTML file that needs no other, with the figures of one run or of
 * several side by side. Text of others is escaped (report_text.c), and a content security policy lets nothing run but the one script by
 * its hash, and nothing be loaded. The size is bounded: curves are thinned (report_svg.c), texts cut, and with many runs settings that
 * are the same are left out. */
#include "report.h"

#include "system.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void page_put_lines(tool_text *page, const char *const *lines) {
    for (; *lines != NULL; lines++) { tool_append(page, *lines, strlen(*lines)); }
}

static void page_put_head(tool_text *page, const report_logs *l) {
    report_put(page, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                     "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    report_put(page, "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
                     "script-src 'sha256-%s'; base-uri 'none'; form-action 'none'\">\n",
               report_script_hash);
    report_put(page, "<meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"generator\" content=\"libpeft %s\">\n<title>",
               peft_version_string());
    report_put_name(page, l->runs[0].name);
    if (l->count > 1) { report_put(page, " and %zu more", l->count - 1); }
    report_put(page, " \u2013 training report</title>\n<style>");
    page_put_lines(page, report_style);
    report_put(page, "</style>\n</head>\n<body>\n");
}

static void page_put_scalar(tool_text *page, const char *before, const json_value *v, const char *after) {
    if (v == NULL || (v->kind != JSON_STRING && v->kind != JSON_NUMBER)) { return; }
    report_put(page, "%s", before);
    report_put_name(page, v->text);
    report_put(page, "%s", after);
}

/* "lora on llama, 1.4 M of 134.5 M parameters, begun 2026-01-31T10:00:00Z" */
static void page_put_line(tool_text *page, const report_run *r) {
    char trained[TOOL_SHORT], all[TOOL_SHORT];
    double own = report_number(r, "plan", "trainable_parameters"), base = report_number(r, "model", "parameters");
    report_put(page, "<p class=\"line\">");
    if (r->head == NULL) { report_put(page, "A log without a description of its run."); }
    page_put_scalar(page, "<b>", report_about(r, "adapter", "method"), "</b>");
    page_put_scalar(page, " on <b>", report_about(r, "model", "architecture"), "</b>");
    if (isfinite(own) && isfinite(base)) {
        report_put(page, ", %s parameters trained beside %s", tool_count(own, trained), tool_count(base, all));
    }
    page_put_scalar(page, ", ", report_about(r, "data", "rows"), " rows");
    page_put_scalar(page, ", begun ", report_about(r, NULL, "started"), "");
    report_put(page, "</p>");
}

static void page_put_card(tool_text *page, const char *what, const char *value, const char *detail) {
    report_put(page, "<div><dt>%s</dt><dd>%s<small>%s</small></dd></div>", what, value, detail);
}

/* The figures that one looks for first. */
static void page_put_cards(tool_text *page, const report_run *r) {
    char text[TOOL_SHORT], more[TOOL_SHORT], detail[3 * TOOL_SHORT];
    double at = 0.0, least = report_least(r, REPORT_EVAL, &at), planned = report_number(r, "plan", "planned_bytes");
    double peak = report_most(r, REPORT_PEAK), seconds = report_seconds(r), speed = report_speed(r);
    report_put(page, "<dl class=\"cards\">");
    (void)snprintf(detail, sizeof detail, "from %s at step %.0f", report_figure(r->steps[0][REPORT_LOSS], 4, more),
                   r->steps[0][REPORT_STEP]);
    page_put_card(page, "loss, last step", report_figure(report_last(r, REPORT_LOSS), 4, text), detail);
    if (isfinite(least)) {
        (void)snprintf(detail, sizeof detail, "at step %.0f; the last is %s", at, report_figure(report_last(r, REPORT_EVAL), 4, more));
        page_put_card(page, "held-out loss, lowest", report_figure(least, 4, text), detail);
    }
    if (isfinite(speed)) {
        char value[TOOL_SHORT];
        (void)snprintf(value, sizeof value, "%.0f", speed);
        (void)snprintf(detail, sizeof detail, "%zu steps in %s", r->count, tool_duration(seconds, text));
        page_put_card(page, "tokens a second", value, detail);
    }
    if (isfinite(peak)) {
        (void)snprintf(detail, sizeof detail, isfinite(planned) ? "%.0f %% of the %s planned" : "at most", 100.0 * peak / planned,
                       tool_bytes(planned, more));
        page_put_card(page, "peak memory", tool_bytes(peak, text), detail);
    }
    report_put(page, "</dl>\n");
}

static void page_put_note(tool_text *page, const report_run *r, const char *what) {
    report_put(page, "<li>");
    report_put_name(page, r->name);
    report_put(page, ": %s</li>", what);
}

/* What one should know before one reads on. */
static void page_put_notes(tool_text *page, const report_logs *l) {
    size_t begin = page->len, empty = 0;
    char text[160];
    report_put(page, "<ul class=\"notes\">");
    empty = page->len;
    for (size_t i = 0; i < l->count; i++) {
        const report_run *r = &l->runs[i];
        double most = report_number(r, "plan", "max_steps"), last = report_last(r, REPORT_STEP);
        if (r->cut) { page_put_note(page, r, "the log's last line is half written and was left out."); }
        if (r->again) { page_put_note(page, r, "the log has steps twice; the later ones are shown."); }
        if (r->processes > 1) {
            (void)snprintf(text, sizeof text, "the run was gone on with; it was begun %d times.", r->processes);
            page_put_note(page, r, text);
        }
        if (last < most) {
            (void)snprintf(text, sizeof text, "it ended, or the log does, after step %.0f of %.0f.", last, most);
            page_put_note(page, r, text);
        }
    }
    report_put_end(page, begin, empty, "</ul>\n");
}

/* With several runs one must know which curve is whose. */
static void page_put_legend(tool_text *page, const report_logs *l) {
    if (l->count < 2) { return; }
    report_put(page, "<ul class=\"legend\" aria-label=\"Runs\">");
    for (size_t i = 0; i < l->count; i++) {
        report_put(page, "<li>");
        report_put_run(page, &l->runs[i], i);
        report_put(page, "</li>");
    }
    report_put(page, "</ul>");
}

static void page_put_charts(tool_text *page, const report_logs *l) {
    static const report_chart loss = {"loss", "Loss", "nats, mean of a step", REPORT_LOSS, REPORT_EVAL, "held-out",
                                      true, false, false, true, false};
    static const report_chart small[] = {
        {"rate", "Learning rate", "of each update", REPORT_RATE, REPORT_COLUMNS, NULL, false, true, false, false, false},
        {"norm", "Gradient norm", "before clipping", REPORT_NORM, REPORT_COLUMNS, NULL, false, true, true, true, false},
        {"speed", "Speed", "tokens a second", REPORT_SPEED, REPORT_COLUMNS, NULL, false, true, false, true, true}};
    report_put(page, "<section aria-labelledby=\"curves\"><h2 id=\"curves\">Curves</h2>");
    page_put_legend(page, l);
    report_put_chart(page, l, &loss);
    report_put(page, "<div class=\"grid3\">");
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) { report_put_chart(page, l, &small[i]); }
    report_put(page, "</div>");
    report_put_memory(page, l);
    report_put(page, "</section>\n");
}

static void page_put(tool_text *page, const report_logs *l) {
    page_put_head(page, l);
    report_put(page, "<header><p class=\"kind\">Training report</p><h1>");
    if (l->count == 1) {
        report_put_name(page, l->runs[0].name);
    } else {
        report_put(page, "%zu runs", l->count);
    }
    report_put(page, "</h1>");
    if (l->count == 1) { page_put_line(page, &l->runs[0]); }
    report_put(page, "</header>\n<main>\n");
    if (l->count == 1) { page_put_cards(page, &l->runs[0]); }
    page_put_notes(page, l);
    if (l->count > 1) { report_put_runs(page, l); }
    page_put_charts(page, l);
    report_put_samples(page, l);
    report_put_gradients(page, l);
    if (l->count == 1) { report_put_runs(page, l); }
    report_put_settings(page, l);
    report_put(page, "</main>\n<footer>Made by peft %s.</footer>\n<script>", peft_version_string());
    page_put_lines(page, report_script);
    report_put(page, "</script>\n</body>\n</html>\n");
}

static int page_write(const tool_text *page, const char *out) {
    FILE *file = system_open(out, "w");
    if (file == NULL) { return tool_fail("cannot write the page %s: %s", out, strerror(errno)); }
    bool good = fwrite(page->text, 1, page->len, file) == page->len;
    int error = errno;
    good = fclose(file) == 0 && good;
    return good ? TOOL_OK : tool_fail("cannot write the page %s: %s", out, strerror(error != 0 ? error : errno));
}

int report_make(const char *const *paths, size_t count, const char *out) {
    int rc = TOOL_OK;
    report_logs logs = {NULL, 0};
    tool_text page = {NULL, 0, 0};
    for (size_t i = 0; i < count; i++) { DO(report_read(&logs, paths[i])); }
    report_name(&logs);
    page_put(&page, &logs);
    DO(page_write(&page, out));
out:
    free(page.text);
    report_free(&logs);
    return rc;
}
