/* report_svg.c - charts of the page: curves of all runs over their steps, as inline SVG with the values for the script beside it as
 * JSON and a table of some of them below it.
 *
 * A curve of many steps is shown by the least and the largest value of each of so many stretches of it, so that no peak is lost and the
 * page stays small; all values shown are values of the log, but for the smoothed line, a mean over a sixtieth of the steps to both
 * sides. Without a script, hovering shows the values of the nearest step by <title>.
 *
 * Left out: axes other than steps; zooming. */
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SVG_LEFT = 52, SVG_RIGHT = 14, SVG_TOP = 10, SVG_BOTTOM = 26, SVG_TITLE_RUNS = 6 };

typedef struct svg_points {
    size_t *index; /* owned: which steps of the run */
    size_t count;
} svg_points;

typedef struct svg_chart {
    const report_logs *logs;
    const report_chart *chart;
    report_axis x, y;
    double width, height;
    size_t columns;            /* stretches of a long curve */
    svg_points *curves, *dots; /* owned, one a run */
} svg_chart;

static double svg_x(const svg_chart *s, double step) {
    return SVG_LEFT + report_axis_at(&s->x, step) * (s->width - SVG_LEFT - SVG_RIGHT);
}

static double svg_y(const svg_chart *s, double value) {
    return SVG_TOP + (1.0 - report_axis_at(&s->y, value)) * (s->height - SVG_TOP - SVG_BOTTOM);
}

/* Points of a run that are shown: all, or of each of so many stretches the least and the largest; the first and the last always. */
static svg_points svg_pick(const report_run *r, report_column c, size_t columns) {
    svg_points p = {tool_alloc((r->count + 1) * sizeof *p.index), 0};
    for (size_t i = 0; i < r->count; i++) {
        if (isfinite(r->steps[i][c])) { p.index[p.count++] = i; }
    }
    if (p.count <= 2 * columns) { return p; }
    size_t n = p.count, kept = 1;
    for (size_t b = 0; b < columns; b++) {
        size_t from = b * n / columns, to = (b + 1) * n / columns, low = from, high = from;
        for (size_t k = from; k < to; k++) {
            low = r->steps[p.index[k]][c] < r->steps[p.index[low]][c] ? k : low;
            high = r->steps[p.index[k]][c] > r->steps[p.index[high]][c] ? k : high;
        }
        size_t pair[] = {p.index[low < high ? low : high], p.index[low < high ? high : low]};
        for (size_t k = 0; k < 2; k++) { /* never beyond what has been read */
            if (pair[k] > p.index[kept - 1]) { p.index[kept++] = pair[k]; }
        }
    }
    if (p.index[n - 1] > p.index[kept - 1]) { p.index[kept++] = p.index[n - 1]; }
    p.count = kept;
    return p;
}

static void svg_reach(double value, double *least, double *most) {
    *least = !(value >= *least) ? value : *least;
    *most = !(value <= *most) ? value : *most;
}

/* Chooses points and axes; false where there is nothing to show. */
static bool svg_begin(svg_chart *s, const report_logs *l, const report_chart *c) {
    size_t most = c->wide ? 240 : 120, fair = (c->wide ? 640u : 320u) / l->count, columns = fair < most ? fair : most;
    double least[2] = {(double)NAN, (double)NAN}, largest[2] = {(double)NAN, (double)NAN};
    *s = (svg_chart){.logs = l, .chart = c, .width = c->wide ? 720.0 : 340.0, .height = c->wide ? 290.0 : 190.0,
                     .columns = columns};
    s->curves = tool_alloc(l->count * sizeof *s->curves);
    s->dots = tool_alloc(l->count * sizeof *s->dots);
    for (size_t i = 0; i < l->count; i++) {
        const report_run *r = &l->runs[i];
        s->curves[i] = svg_pick(r, c->column, columns);
        if (c->dots != REPORT_COLUMNS) { s->dots[i] = svg_pick(r, c->dots, columns / 8 + 4); }
        for (size_t k = 0; k < s->curves[i].count; k++) {
            svg_reach(r->steps[s->curves[i].index[k]][REPORT_STEP], &least[0], &largest[0]);
            svg_reach(r->steps[s->curves[i].index[k]][c->column], &least[1], &largest[1]);
        }
        for (size_t k = 0; k < s->dots[i].count; k++) { svg_reach(r->steps[s->dots[i].index[k]][c->dots], &least[1], &largest[1]); }
    }
    if (!isfinite(least[1])) { return false; }
    report_axis_linear(&s->x, least[0], fmax(largest[0], least[0] + 1.0), c->wide ? 8 : 4, false);
    if (c->may_be_log && least[1] > 0.0 && largest[1] / least[1] > 50.0) {
        report_axis_log(&s->y, least[1], largest[1]);
    } else {
        report_axis_linear(&s->y, c->from_zero && least[1] > 0.0 ? 0.0 : least[1], largest[1], c->wide ? 5 : 4, true);
    }
    return true;
}

static void svg_end(svg_chart *s) {
    for (size_t i = 0; i < s->logs->count; i++) {
        free(s->curves[i].index);
        free(s->dots[i].index);
    }
    free(s->curves);
    free(s->dots);
}

/* ---- Drawing ----------------------------------------------------------------------------------------------------------------- */

static void svg_put_axes(tool_text *page, const svg_chart *s) {
    char label[TOOL_SHORT];
    report_put(page, "<g class=\"grid\">");
    for (int i = 0; i < s->y.count; i++) {
        double y = svg_y(s, s->y.ticks[i]);
        report_axis_label(&s->y, i, label);
        report_put(page, "<path d=\"M%d %.1fH%.0f\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>", SVG_LEFT, y,
                   s->width - SVG_RIGHT, SVG_LEFT - 7, y + 3.5, label);
    }
    for (int i = 0; i < s->x.count; i++) {
        double x = svg_x(s, s->x.ticks[i]);
        if (s->x.ticks[i] != floor(s->x.ticks[i])) { continue; /* no step */ }
        report_axis_label(&s->x, i, label);
        report_put(page, "<path d=\"M%.1f %.0fv4\"/><text x=\"%.1f\" y=\"%.0f\" text-anchor=\"%s\">%s</text>", x, s->height - SVG_BOTTOM, x,
                   s->height - SVG_BOTTOM + 16, x > s->width - SVG_RIGHT - 12 ? "end" : "middle", label);
    }
    report_put(page, "<path class=\"base\" d=\"M%d %.0fH%.0f\"/></g>", SVG_LEFT, s->height - SVG_BOTTOM, s->width - SVG_RIGHT);
}

static void svg_put_path(tool_text *page, const svg_chart *s, const report_run *r, const svg_points *p, report_column c,
                         const char *kind) {
    report_put(page, "<path class=\"%s\" d=\"", kind);
    for (size_t k = 0; k < p->count; k++) {
        const double *row = r->steps[p->index[k]];
        report_put(page, "%c%.1f %.1f", k == 0 ? 'M' : 'L', svg_x(s, row[REPORT_STEP]), svg_y(s, row[c]));
    }
    report_put(page, "\"/>");
}

/* A mean around each of some steps. */
static void svg_put_smooth(tool_text *page, const svg_chart *s, const report_run *r) {
    const report_column c = s->chart->column;
    double *sums = tool_alloc((r->count + 1) * sizeof *sums);
    size_t *counts = tool_alloc((r->count + 1) * sizeof *counts), half = r->count / 60;
    size_t every = r->count / (s->columns < 160 ? s->columns : 160) + 1;
    for (size_t i = 0; i < r->count; i++) {
        bool there = isfinite(r->steps[i][c]);
        sums[i + 1] = sums[i] + (there ? r->steps[i][c] : 0.0);
        counts[i + 1] = counts[i] + (there ? 1 : 0);
    }
    report_put(page, "<path class=\"line\" d=\"");
    for (size_t k = 0, n = 0; k == 0 || (k - 1) * every < r->count - 1; k++) {
        size_t i = k * every < r->count ? k * every : r->count - 1;
        size_t reach = half < i ? half : i; /* as far to both sides, or the ends would be drawn to the middle; */
        reach = r->count - 1 - i < reach ? r->count - 1 - i : reach;
        reach = reach < half / 4 ? half / 4 : reach; /* but not one step alone */
        size_t from = i > reach ? i - reach : 0, to = i + reach + 1 < r->count ? i + reach + 1 : r->count;
        if (counts[to] == counts[from]) { continue; }
        double mean = (sums[to] - sums[from]) / (double)(counts[to] - counts[from]);
        report_put(page, "%c%.1f %.1f", n++ == 0 ? 'M' : 'L', svg_x(s, r->steps[i][REPORT_STEP]), svg_y(s, mean));
    }
    report_put(page, "\"/>");
    free(counts);
    free(sums);
}

static void svg_put_curves(tool_text *page, const svg_chart *s) {
    for (size_t i = 0; i < s->logs->count; i++) {
        const report_run *r = &s->logs->runs[i];
        bool smooth = s->chart->smooth && r->count >= 60;
        report_put(page, "<g class=\"c%zu d%zu\">", i % 8, i / 8);
        if (s->curves[i].count > 0) { svg_put_path(page, s, r, &s->curves[i], s->chart->column, smooth ? "raw" : "line"); }
        if (smooth && s->curves[i].count > 0) { svg_put_smooth(page, s, r); }
        if (s->dots[i].count > 0) { svg_put_path(page, s, r, &s->dots[i], s->chart->dots, "held"); }
        for (size_t k = 0; k < s->dots[i].count; k++) {
            const double *row = r->steps[s->dots[i].index[k]];
            report_put(page, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>", svg_x(s, row[REPORT_STEP]), svg_y(s, row[s->chart->dots]));
        }
        report_put(page, "</g>");
    }
}

/* ---- Values ------------------------------------------------------------------------------------------------------------------ */

/* As short as seven digits are. */
static void svg_put_value(tool_text *page, double value) {
    report_put(page, "%.7g", value);
}

static void svg_put_list(tool_text *page, const report_run *r, const svg_points *p, report_column c) {
    report_put(page, "[");
    for (size_t k = 0; k < p->count; k++) {
        report_put(page, "%s", k > 0 ? "," : "");
        svg_put_value(page, r->steps[p->index[k]][c]);
    }
    report_put(page, "]");
}

static void svg_put_data(tool_text *page, const svg_chart *s) {
    const report_chart *c = s->chart;
    report_put(page, "<script type=\"application/json\">{\"x\":[%.9g,%.9g],\"y\":[%.9g,%.9g],\"log\":%d,\"whole\":%d,", s->x.from, s->x.to,
               s->y.from, s->y.to, s->y.log, c->whole);
    report_put(page, "\"box\":[%d,%d,%.0f,%.0f],\"size\":[%.0f,%.0f],\"what\":\"%s\",\"dots\":\"%s\",\"runs\":[", SVG_LEFT, SVG_TOP,
               s->width - SVG_LEFT - SVG_RIGHT, s->height - SVG_TOP - SVG_BOTTOM, s->width, s->height, c->title,
               c->dots_name != NULL ? c->dots_name : "");
    for (size_t i = 0; i < s->logs->count; i++) {
        const report_run *r = &s->logs->runs[i];
        report_put(page, "%s{\"name\":", i > 0 ? "," : "");
        report_put_json(page, r->name);
        report_put(page, ",\"c\":%zu,\"curve\":[", i % 8);
        svg_put_list(page, r, &s->curves[i], REPORT_STEP);
        report_put(page, ",");
        svg_put_list(page, r, &s->curves[i], c->column);
        report_put(page, "],\"held\":[");
        svg_put_list(page, r, &s->dots[i], REPORT_STEP);
        report_put(page, ",");
        if (c->dots != REPORT_COLUMNS) { svg_put_list(page, r, &s->dots[i], c->dots); }
        report_put(page, "%s]}", c->dots == REPORT_COLUMNS ? "[]" : "");
    }
    report_put(page, "]}</script>");
}

/* The run's step that is nearest. */
static const double *svg_near(const report_run *r, double step) {
    size_t from = 0, to = r->count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        if (r->steps[middle][REPORT_STEP] < step) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    if (from == r->count || (from > 0 && step - r->steps[from - 1][REPORT_STEP] < r->steps[from][REPORT_STEP] - step)) { from--; }
    return r->steps[from];
}

/* Stretches whose <title> has the values of the step in their middle; of many runs nobody could read them. */
static void svg_put_hits(tool_text *page, const svg_chart *s) {
    const int hits = s->logs->count > SVG_TITLE_RUNS ? 0 : s->chart->wide ? 48 : 24;
    double width = (s->width - SVG_LEFT - SVG_RIGHT) / fmax(hits, 1.0);
    report_put(page, "<g class=\"hits\">");
    for (int h = 0; h < hits; h++) {
        double step = s->x.from + (h + 0.5) / hits * (s->x.to - s->x.from);
        report_put(page, "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%.0f\"><title>", SVG_LEFT + h * width, SVG_TOP, width,
                   s->height - SVG_TOP - SVG_BOTTOM);
        for (size_t i = 0; i < s->logs->count; i++) {
            const double *row = svg_near(&s->logs->runs[i], step);
            report_put(page, "%s", i > 0 ? "\n" : "");
            if (s->logs->count > 1) {
                report_put_name(page, s->logs->runs[i].name);
                report_put(page, ", ");
            }
            report_put(page, "step %.0f: ", row[REPORT_STEP]);
            svg_put_value(page, row[s->chart->column]);
        }
        report_put(page, "</title></rect>");
    }
    report_put(page, "</g>");
}

static void svg_put_cell(tool_text *page, double value) {
    if (isfinite(value)) {
        report_put(page, "<td>%.7g</td>", value);
    } else {
        report_put(page, "<td>\u2013</td>");
    }
}

/* Steps of the longest run, evenly, and of each run what it has of them. */
static void svg_put_table(tool_text *page, const svg_chart *s) {
    const report_logs *l = s->logs;
    const report_run *longest = &l->runs[0];
    size_t fair = 480 / l->count, rows = fair < 8 ? 8 : fair > 40 ? 40 : fair;
    for (size_t i = 1; i < l->count; i++) { longest = l->runs[i].count > longest->count ? &l->runs[i] : longest; }
    rows = longest->count < rows ? longest->count : rows;
    report_put(page, "<details class=\"data\"><summary>%s as a table</summary><div class=\"scroll\"><table><caption>%s",
               s->chart->title, s->chart->title);
    report_put(page, ", %s</caption><thead><tr><th scope=\"col\">step</th>",
               rows < longest->count ? "of some steps; the log has all" : "of each step");
    for (size_t i = 0; i < l->count; i++) {
        report_put(page, "<th scope=\"col\">");
        report_put_name(page, l->runs[i].name);
        report_put(page, "</th>");
        if (s->dots[i].count > 0) { report_put(page, "<th scope=\"col\">%s</th>", s->chart->dots_name); }
    }
    report_put(page, "</tr></thead><tbody>");
    for (size_t k = 0; k < rows; k++) {
        double step = longest->steps[rows > 1 ? k * (longest->count - 1) / (rows - 1) : 0][REPORT_STEP];
        report_put(page, "<tr><th scope=\"row\">%.0f</th>", step);
        for (size_t i = 0; i < l->count; i++) {
            const double *row = svg_near(&l->runs[i], step);
            bool same = row[REPORT_STEP] == step;
            svg_put_cell(page, same ? row[s->chart->column] : (double)NAN);
            if (s->dots[i].count > 0) { svg_put_cell(page, same ? row[s->chart->dots] : (double)NAN); }
        }
        report_put(page, "</tr>");
    }
    report_put(page, "</tbody></table></div></details>");
}

/* What one who does not see it is told: where each curve begins and ends. */
static void svg_put_label(tool_text *page, const svg_chart *s) {
    report_put(page, "%s by step. ", s->chart->title);
    for (size_t i = 0; i < s->logs->count && i < SVG_TITLE_RUNS; i++) {
        const report_run *r = &s->logs->runs[i];
        const svg_points *p = &s->curves[i];
        if (p->count == 0) { continue; }
        report_put_name(page, r->name);
        report_put(page, ": %.4g at step %.0f, %.4g at step %.0f. ", r->steps[p->index[0]][s->chart->column],
                   r->steps[p->index[0]][REPORT_STEP], r->steps[p->index[p->count - 1]][s->chart->column],
                   r->steps[p->index[p->count - 1]][REPORT_STEP]);
    }
    report_put(page, "Arrow keys go through the values.");
}

void report_put_chart(tool_text *page, const report_logs *l, const report_chart *c) {
    svg_chart s;
    bool held = false, smooth = false;
    if (svg_begin(&s, l, c)) {
        for (size_t i = 0; i < l->count; i++) {
            held = held || s.dots[i].count > 0;
            smooth = smooth || (c->smooth && l->runs[i].count >= 60);
        }
        report_put(page, "<figure class=\"chart%s\" id=\"%s\"><figcaption><h3>%s</h3><span class=\"unit\">%s</span>",
                   c->wide ? " wide" : "",
                   c->id, c->title, c->unit);
        if (c->wide && (held || smooth)) {
            report_put(page, "<span class=\"key\">%s%s</span>",
                       smooth ? "<i class=\"k-raw\"></i>each step <i class=\"k-line\"></i>smoothed " : "<i class=\"k-line\"></i>training ",
                       held ? "<i class=\"k-held\"></i>held-out rows" : "");
        }
        report_put(page, "</figcaption><div class=\"plot\"><svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" tabindex=\"0\" aria-label=\"",
                   s.width, s.height);
        svg_put_label(page, &s);
        report_put(page, "\">");
        svg_put_axes(page, &s);
        svg_put_curves(page, &s);
        svg_put_hits(page, &s);
        report_put(page, "</svg></div>");
        svg_put_table(page, &s);
        svg_put_data(page, &s);
        report_put(page, "</figure>\n");
    }
    svg_end(&s);
}
