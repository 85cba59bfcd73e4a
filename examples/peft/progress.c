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

static void progress_print_line(const peft_step_info *info) {
    char text[192];
    progress_text(info, true, text, sizeof text);
    (void)fprintf(stderr, "step %lld/%lld  %s\n", (long long)info->step, (long long)info->max_steps, text);
}

static void progress_repeat(const char *mark, int n) {
    for (int i = 0; i < n; i++) { (void)fputs(mark, stderr); }
}

static void progress_draw_bar(const progress *p, const peft_step_info *info) {
    char text[192], steps[64];
    double done = info->max_steps > 0 ? (double)info->step / (double)info->max_steps : 0.0;
    progress_text(info, false, text, sizeof text);
    int digits = snprintf(steps, sizeof steps, "%lld", (long long)info->max_steps);
    int left = snprintf(steps, sizeof steps, "%*lld/%lld ", digits, (long long)info->step, (long long)info->max_steps);
    int room = system_columns() - left - (int)strlen(text) - 10; /* blanks, percentage, and one column free */
    int width = room > 40 ? 40 : room < 0 ? 0 : room;
    int full = (int)((double)width * (done > 1.0 ? 1.0 : done));
    (void)fprintf(stderr, "\r%s%s", steps, p->colour ? "\033[32m" : "");
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
        progress_print_line(info);
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
