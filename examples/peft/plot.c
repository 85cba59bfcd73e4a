/* plot.c - a run's losses in a terminal: the curve by braille dots, two by four in a character (Unicode block U+2800: the bits of the
 * left column are 1, 2, 4, 64 from the top, of the right one 8, 16, 32, 128), or by ' : . of half a line each where there is only
 * ASCII. A column of dots reaches from the least to the largest loss of its steps. Held-out losses are marked with "o".
 *
 * Left out: more than one run in a plot; a page has that (report.c). */
#include "plot.h"

#include "tool.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

enum { PLOT_ROWS = 12, PLOT_CELLS = 120, PLOT_LEFT = 9, PLOT_LEAST = 30 };

typedef struct plot_grid {
    int cells, rows, wide, high;                /* characters; dots in one */
    unsigned char dots[PLOT_ROWS][PLOT_CELLS];  /* a bit each, row by row from the left of the top */
    bool marks[PLOT_ROWS][PLOT_CELLS];
} plot_grid;

/* Joins bins two by two until the step has its own. */
static void plot_widen(plot *p) {
    for (int i = 0; i < PLOT_BINS; i++) {
        int a = 2 * i, b = a + 1;
        bool there = b < PLOT_BINS;
        bool any_a = there && p->any[a], any_b = there && p->any[b];
        p->low[i] = any_a && any_b ? fmin(p->low[a], p->low[b]) : any_a ? p->low[a] : any_b ? p->low[b] : 0.0;
        p->high[i] = any_a && any_b ? fmax(p->high[a], p->high[b]) : any_a ? p->high[a] : any_b ? p->high[b] : 0.0;
        p->any[i] = any_a || any_b;
        bool held = there && (p->evaluated[a] || p->evaluated[b]);
        p->held[i] = held ? p->held[p->evaluated[b] ? b : a] : 0.0;
        p->evaluated[i] = held;
    }
    p->width *= 2;
}

void plot_add(plot *p, int64_t step, double loss, double eval_loss) {
    if (step < 0) { return; }
    if (p->width == 0) {
        p->width = 1;
        p->first = step;
    }
    while (step / p->width >= PLOT_BINS) { plot_widen(p); }
    int64_t bin = step / p->width;
    if (isfinite(loss)) {
        p->low[bin] = p->any[bin] ? fmin(p->low[bin], loss) : loss;
        p->high[bin] = p->any[bin] ? fmax(p->high[bin], loss) : loss;
        p->any[bin] = true;
    }
    if (isfinite(eval_loss)) {
        p->held[bin] = eval_loss;
        p->evaluated[bin] = true;
    }
    p->first = step < p->first ? step : p->first;
    p->last = step > p->last ? step : p->last;
}

static bool plot_range(const plot *p, double *least, double *most) {
    bool any = false;
    for (int i = 0; i < PLOT_BINS; i++) {
        for (int k = 0; k < 2; k++) {
            if (k == 0 ? !p->any[i] : !p->evaluated[i]) { continue; }
            double low = k == 0 ? p->low[i] : p->held[i], high = k == 0 ? p->high[i] : p->held[i];
            *least = any ? fmin(*least, low) : low;
            *most = any ? fmax(*most, high) : high;
            any = true;
        }
    }
    if (any && !(*most > *least)) {
        *least -= 0.5;
        *most += 0.5;
    }
    return any;
}

static void plot_dot(plot_grid *g, int x, int y) {
    int cell = x / g->wide, row = y / g->high;
    g->dots[row][cell] |= (unsigned char)(1u << (unsigned)(y % g->high * g->wide + x % g->wide));
}

static int plot_place(double value, double from, double to, int dots) {
    double at = (value - from) / (to - from) * (double)(dots - 1);
    return at <= 0.0 ? 0 : at >= (double)(dots - 1) ? dots - 1 : (int)(at + 0.5);
}

/* A line without gaps to a place further right. */
static void plot_join(plot_grid *g, int x0, int y0, int x1, int y1) {
    int last = y0;
    for (int x = x0; x <= x1; x++) {
        int y = y0 + (int)lround((double)(y1 - y0) * (x - x0) / (x1 - x0));
        for (int k = last < y ? last : y; k <= (last < y ? y : last); k++) { plot_dot(g, x, k); }
        last = y;
    }
}

/* Columns of dots, each joined to the one before. */
static void plot_draw(const plot *p, plot_grid *g, double least, double most) {
    const int dots_x = g->cells * g->wide, dots_y = g->rows * g->high;
    const double from = (double)p->first, to = (double)(p->last > p->first ? p->last : p->first + 1);
    int before_x = -1, before_y = 0;
    for (int i = 0; i < PLOT_BINS; i++) {
        double step = fmin(fmax((double)(i * p->width) + 0.5 * (double)(p->width - 1), from), to);
        int x = plot_place(step, from, to, dots_x);
        if (p->any[i]) {
            int top = dots_y - 1 - plot_place(p->high[i], least, most, dots_y);
            int bottom = dots_y - 1 - plot_place(p->low[i], least, most, dots_y);
            if (before_x >= 0 && before_x < x) { plot_join(g, before_x, before_y, x, (top + bottom) / 2); }
            for (int y = top; y <= bottom; y++) { plot_dot(g, x, y); }
            before_x = x;
            before_y = (top + bottom) / 2;
        }
        if (p->evaluated[i]) { g->marks[(dots_y - 1 - plot_place(p->held[i], least, most, dots_y)) / g->high][x / g->wide] = true; }
    }
}

static void plot_cell(const plot_grid *g, FILE *to, int row, int cell, bool unicode, bool colour) {
    static const unsigned braille[] = {1, 8, 2, 16, 4, 32, 64, 128};
    static const char *const halves[] = {" ", "'", ".", ":"};
    unsigned dots = g->dots[row][cell], bits = 0;
    if (g->marks[row][cell]) {
        (void)fputs(colour ? "\033[33mo\033[0m" : "o", to);
    } else if (!unicode) {
        (void)fputs(halves[dots & 3u], to);
    } else if (dots == 0) {
        (void)fputc(' ', to);
    } else {
        for (unsigned i = 0; i < 8; i++) { bits |= (dots >> i & 1u) * braille[i]; }
        char text[] = {(char)0xe2, (char)(0xa0 | bits >> 6), (char)(0x80 | (bits & 63u)), '\0'};
        (void)fputs(text, to);
    }
}

/* The number of the row's middle, at the top, the bottom and each fourth row. */
static void plot_label(FILE *to, int row, int rows, double least, double most, bool unicode) {
    char text[TOOL_SHORT] = "";
    double step = (most - least) / (double)(rows - 1);
    int digits = step >= 1.0 ? 1 : step >= 0.1 ? 2 : step >= 0.01 ? 3 : 4;
    if (row == rows - 1 || row % 4 == 0) { (void)snprintf(text, sizeof text, "%.*f", digits, most - step * row); }
    if (strlen(text) > PLOT_LEFT - 2) { (void)snprintf(text, sizeof text, "%.1e", most - step * row); }
    (void)fprintf(to, "%*s %s", PLOT_LEFT - 2, text, text[0] != '\0' ? unicode ? "\u2524" : "+" : unicode ? "\u2502" : "|");
}

void plot_print(const plot *p, FILE *to, const char *name, int columns, bool unicode, bool colour) {
    plot_grid g = {.rows = PLOT_ROWS, .wide = unicode ? 2 : 1, .high = unicode ? 4 : 2};
    double least = 0.0, most = 0.0;
    char from[TOOL_SHORT], end[TOOL_SHORT];
    bool held = false;
    if (p->width == 0 || !plot_range(p, &least, &most)) { return; }
    columns = columns < PLOT_LEAST ? PLOT_LEAST : columns - 1;
    g.cells = columns - PLOT_LEFT < PLOT_CELLS ? columns - PLOT_LEFT : PLOT_CELLS;
    plot_draw(p, &g, least, most);
    for (int i = 0; i < PLOT_BINS; i++) { held = held || p->evaluated[i]; }
    for (const char *c = name; c != NULL && *c != '\0'; c++) { (void)fputc(iscntrl((unsigned char)*c) ? '?' : *c, to); }
    (void)fprintf(to, "%sloss%s\n", name != NULL ? ": " : "", held ? " (o: held-out rows)" : "");
    for (int row = 0; row < g.rows; row++) {
        int last = g.cells - 1;
        while (last >= 0 && g.dots[row][last] == 0 && !g.marks[row][last]) { last--; }
        plot_label(to, row, g.rows, least, most, unicode);
        if (colour) { (void)fputs("\033[36m", to); }
        for (int cell = 0; cell <= last; cell++) {
            plot_cell(&g, to, row, cell, unicode, colour);
            if (colour && g.marks[row][cell]) { (void)fputs("\033[36m", to); }
        }
        (void)fputs(colour ? "\033[0m\n" : "\n", to);
    }
    (void)snprintf(from, sizeof from, "%lld", (long long)p->first);
    (void)snprintf(end, sizeof end, "step %lld", (long long)p->last);
    (void)fprintf(to, "%*s%s", PLOT_LEFT - 1, "", unicode ? "\u2514" : "+");
    for (int i = 0; i < g.cells; i++) { (void)fputs(unicode ? "\u2500" : "-", to); }
    (void)fprintf(to, "\n%*s%s%*s\n", PLOT_LEFT, "", from, g.cells - (int)strlen(from), end);
}
