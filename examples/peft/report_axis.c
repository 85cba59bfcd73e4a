/* report_axis.c - axes with round numbers: steps of 1, 2, 2.5 or 5 times a power of ten; of a logarithmic axis the powers of ten, and
 * twice and five times them where there are few. */
#include "report.h"

#include <math.h>
#include <string.h>

enum { AXIS_TICKS = 12 };

static double axis_step(double span, int about) {
    static const double steps[] = {1.0, 2.0, 2.5, 5.0, 10.0};
    double rough = span / (double)about, power = pow(10.0, floor(log10(rough)));
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        if (steps[i] * power >= rough * 0.999) { return steps[i] * power; }
    }
    return 10.0 * power;
}

void report_axis_linear(report_axis *a, double least, double most, int about, bool round) {
    *a = (report_axis){.from = least, .to = most};
    if (!(most - least > 1e-12 * fmax(fabs(least), fabs(most)))) { /* one value: room on both sides */
        double room = fabs(least) > 0.0 ? 0.1 * fabs(least) : 1.0;
        a->from = least - room;
        a->to = most + room;
    }
    double step = axis_step(a->to - a->from, about);
    if (round) {
        a->from = floor(a->from / step + 1e-9) * step;
        a->to = ceil(a->to / step - 1e-9) * step;
    }
    double first = ceil(a->from / step - 1e-9);
    for (int i = 0; i < AXIS_TICKS && (first + i) * step <= a->to + 1e-9 * step; i++) { a->ticks[a->count++] = (first + i) * step; }
}

void report_axis_log(report_axis *a, double least, double most) {
    static const double parts[] = {1.0, 2.0, 5.0};
    double low = floor(log10(least) + 1e-9), high = ceil(log10(most) - 1e-9);
    *a = (report_axis){.from = pow(10.0, low), .to = pow(10.0, fmax(high, low + 1.0)), .log = true};
    double each = ceil((high - low) / 6.0);
    for (double p = low; p <= high && a->count < AXIS_TICKS; p += fmax(each, 1.0)) {
        for (size_t i = 0; i < (high - low <= 2.0 ? 3 : 1) && a->count < AXIS_TICKS; i++) {
            double tick = parts[i] * pow(10.0, p);
            if (tick <= a->to * 1.000001) { a->ticks[a->count++] = tick; }
        }
    }
}

double report_axis_at(const report_axis *a, double value) {
    double at = a->log ? (log10(value) - log10(a->from)) / (log10(a->to) - log10(a->from)) : (value - a->from) / (a->to - a->from);
    return isfinite(at) ? fmin(fmax(at, 0.0), 1.0) : 0.0;
}

/* "2.5e-04" to "2.5e-4". */
static void axis_shorten(char *text) {
    char *e = strchr(text, 'e');
    if (e == NULL) { return; }
    char *to = e + (e[1] == '-' ? 2 : 1), *from = e + 2;
    while (*from == '0' && from[1] != '\0') { from++; }
    memmove(to, from, strlen(from) + 1);
}

void report_axis_label(const report_axis *a, int tick, char out[TOOL_SHORT]) {
    double value = a->ticks[tick], most = fmax(fabs(a->from), fabs(a->to));
    double step = a->log || a->count < 2 ? fabs(value) : a->ticks[1] - a->ticks[0];
    if (fabs(value) < 1e-9 * step || value == 0.0) {
        (void)snprintf(out, TOOL_SHORT, "0");
    } else if (a->log ? value < 1e-3 || value >= 1e5 : most < 2e-3 || most >= 1e6) {
        (void)snprintf(out, TOOL_SHORT, "%.*e", 1, value);
        char *zero = strstr(out, ".0e");
        if (zero != NULL) { memmove(zero, zero + 2, strlen(zero + 2) + 1); }
        axis_shorten(out);
    } else {
        int digits = 0;
        for (double s = step; digits < 6 && fabs(s - floor(s + 0.5)) > 1e-6 * s; s *= 10.0) { digits++; }
        (void)snprintf(out, TOOL_SHORT, "%.*f", digits, value);
    }
}
