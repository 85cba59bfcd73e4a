/* progress.c - the progress of a run on stderr: a bar where stderr is a terminal, plain lines elsewhere (the first step,
 * the last, those that were evaluated, and one every few seconds between). NO_COLOR (no-color.org) turns colour off. */
#include "progress.h"

#include "system.h"
#include "tool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double progress_redraw = 0.05, progress_line = 2.0; /* seconds between two bars, two lines */

void progress_init(progress *p, bool quiet) {
    const char *no_color = getenv("NO_COLOR");
    *p = (progress){.quiet = quiet, .drawn_at = -1e9};
    p->bar = system_can_redraw();
    p->colour = p->bar && (no_color == NULL || no_color[0] == '\0');
    p->unicode = system_is_utf8();
}

/* "loss 2.3456  eval 2.5000  1234 tok/s  ETA 0:12  153.2 MiB" */
static void progress_text(const peft_step_info *info, bool with_eval, char *out, size_t cap) {
    char eta[TOOL_SHORT], memory[TOOL_SHORT], eval[TOOL_SHORT] = "";
    if (with_eval && !isnan(info->eval_loss)) { (void)snprintf(eval, sizeof eval, "  eval %.4f", info->eval_loss); }
    (void)snprintf(out, cap, "loss %.4f%s  %.0f tok/s  ETA %s  %s", info->loss, eval, info->tokens_per_second,
                   tool_duration(info->eta_seconds, eta), tool_bytes((double)info->peak_bytes, memory));
}

static void progress_print_line(const progress *p, const peft_step_info *info) {
    char text[192];
    progress_text(info, true, text, sizeof text);
    if (p->name != NULL) { (void)fprintf(stderr, "%-*s  ", p->name_width, p->name); }
    (void)fprintf(stderr, "step %lld/%lld  %s\n", (long long)info->step, (long long)info->max_steps, text);
}

static void progress_repeat(const char *mark, int n) {
    for (int i = 0; i < n; i++) { (void)fputs(mark, stderr); }
}

static void progress_draw_bar(const progress *p, const peft_step_info *info) {
    char text[192], steps[64];
    double done = info->max_steps > 0 ? (double)info->step / (double)info->max_steps : 0.0;
    progress_text(info, p->name != NULL, text, sizeof text);
    int digits = snprintf(steps, sizeof steps, "%lld", (long long)info->max_steps);
    int left = snprintf(steps, sizeof steps, "%*lld/%lld ", digits, (long long)info->step, (long long)info->max_steps);
    left += p->name != NULL ? p->name_width + 2 : 0;
    int room = system_columns() - left - (int)strlen(text) - 10; /* blanks, percentage, and one column free */
    int width = room > 40 ? 40 : room < 0 ? 0 : room;
    int full = (int)((double)width * (done > 1.0 ? 1.0 : done));
    (void)fputs("\r", stderr);
    if (p->name != NULL) { (void)fprintf(stderr, "%-*.*s  ", p->name_width, p->name_width, p->name); }
    (void)fprintf(stderr, "%s%s", steps, p->colour ? "\033[32m" : "");
    progress_repeat(p->unicode ? "\u2501" : "=", full);
    (void)fputs(p->colour ? "\033[2;37m" : "", stderr);
    progress_repeat(p->unicode ? "\u2500" : "-", width - full);
    (void)fprintf(stderr, "%s %3.0f%%  %s\033[K", p->colour ? "\033[0m" : "", 100.0 * done, text);
}

void progress_step(progress *p, const peft_step_info *info) {
    bool first = p->drawn_at < 0.0, last = info->step >= info->max_steps, evaluated = !isnan(info->eval_loss);
    double wait = p->bar ? progress_redraw : progress_line;
    if (p->quiet || !(first || last || evaluated || info->seconds - p->drawn_at >= wait)) { return; }
    if (evaluated || !p->bar) { /* stays on the screen, above the bar */
        progress_end(p);
        progress_print_line(p, info);
    }
    if (p->bar) {
        progress_draw_bar(p, info);
        p->drawn = true;
    }
    (void)fflush(stderr);
    p->drawn_at = info->seconds;
}

void progress_end(progress *p) {
    if (p->drawn) {
        (void)fputs("\r\033[K", stderr);
        (void)fflush(stderr);
        p->drawn = false;
    }
}

/* ---- several jobs ------------------------------------------------------------------------------------------------------ */

static const int progress_name_most = 24; /* columns of a name beside a bar */

void progress_jobs_init(progress_jobs *p, bool quiet, size_t count) {
    *p = (progress_jobs){.count = count, .drawn_at = -1e9};
    p->lines = tool_alloc(count * sizeof *p->lines);
    p->last = tool_alloc(count * sizeof *p->last);
    p->seen = tool_alloc(count * sizeof *p->seen);
    for (size_t i = 0; i < count; i++) { progress_init(&p->lines[i], quiet); }
}

void progress_jobs_name(progress_jobs *p, size_t i, const char *name) {
    int width = (int)strlen(name) < progress_name_most ? (int)strlen(name) : progress_name_most;
    p->lines[i].name = name;
    for (size_t j = 0; j < p->count; j++) {
        if (p->lines[j].name_width < width) { p->lines[j].name_width = width; }
    }
    p->lines[i].name_width = p->lines[0].name_width;
}

/* Lines are cut at the edge of the screen rather than continued, or the way up would be longer. */
static void progress_jobs_draw(progress_jobs *p) {
    if (p->drawn && p->count > 1) { (void)fprintf(stderr, "\033[%zuA", p->count - 1); }
    (void)fputs("\033[?7l", stderr);
    for (size_t i = 0; i < p->count; i++) {
        (void)fputs(i > 0 ? "\n" : "", stderr);
        if (p->seen[i]) {
            progress_draw_bar(&p->lines[i], &p->last[i]);
        } else {
            (void)fprintf(stderr, "\r%.*s\033[K", p->lines[i].name_width, p->lines[i].name);
        }
    }
    (void)fputs("\033[?7h", stderr);
    p->drawn = true;
}

void progress_jobs_step(progress_jobs *p, size_t i, const peft_step_info *info) {
    double eval_loss = p->seen[i] ? p->last[i].eval_loss : info->eval_loss;
    bool force = info->step >= info->max_steps || !isnan(info->eval_loss);
    p->last[i] = *info;
    p->last[i].job = NULL;
    p->seen[i] = true;
    if (p->lines[i].quiet) { return; }
    if (!p->lines[i].bar) {
        progress_step(&p->lines[i], info);
        return;
    }
    if (isnan(info->eval_loss)) { p->last[i].eval_loss = eval_loss; /* the last that there was stays on the screen */ }
    if (!force && info->seconds - p->drawn_at < progress_redraw) { return; }
    progress_jobs_draw(p);
    (void)fflush(stderr);
    p->drawn_at = info->seconds;
}

void progress_jobs_end(progress_jobs *p) {
    if (!p->drawn) { return; }
    if (p->count > 1) { (void)fprintf(stderr, "\033[%zuA", p->count - 1); }
    (void)fputs("\r\033[J", stderr);
    (void)fflush(stderr);
    p->drawn = false;
}

void progress_jobs_free(progress_jobs *p) {
    free(p->lines);
    free(p->last);
    free(p->seen);
    *p = (progress_jobs){.count = 0};
}
