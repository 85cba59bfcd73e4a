/* report_memory.c - the memory chart of the page: what the plan of each run said before it, by parts, above what was measured. Both
 * count the mapped base and the library's own memory (docs/memory.md), so that the second bar is the shorter. */
#include "report.h"

#include <math.h>
#include <string.h>

enum { MEMORY_WIDTH = 720, MEMORY_ROW = 58, MEMORY_SHORT = 43 /* without a plan */, MEMORY_NAME = 22 };

static const char *const memory_parts[][2] = {{"base_bytes", "base"},           {"activation_bytes", "activations"},
                                              {"scratch_bytes", "scratch"},     {"adapter_bytes", "adapter"},
                                              {"gradient_bytes", "gradients"},  {"optimizer_bytes", "optimiser"}};
enum { MEMORY_PARTS = sizeof memory_parts / sizeof *memory_parts };

/* Shades of the bar, each for some of these parts; the last is for what the plan has beside them. */
static const char *const memory_shades[] = {"base", "activations", "scratch", "adapter, gradients, optimiser", "rest"};
enum { MEMORY_SHADES = sizeof memory_shades / sizeof *memory_shades };

static void memory_split(const report_run *r, double planned, double out[MEMORY_SHADES]) {
    double sum = 0.0;
    memset(out, 0, MEMORY_SHADES * sizeof *out);
    for (size_t i = 0; i < MEMORY_PARTS; i++) {
        double bytes = report_number(r, "plan", memory_parts[i][0]);
        bytes = bytes > 0.0 ? bytes : 0.0;
        out[i < 3 ? i : 3] += bytes;
        sum += bytes;
    }
    out[MEMORY_SHADES - 1] = planned > sum ? planned - sum : 0.0;
}

static void memory_put_bar(tool_text *page, const report_run *r, size_t index, double scale, double top) {
    char text[TOOL_SHORT];
    double planned = report_number(r, "plan", "planned_bytes"), measured = report_most(r, REPORT_PEAK), x = 0.0, parts[MEMORY_SHADES];
    report_put(page, "<g class=\"c%zu\"><text class=\"name\" x=\"0\" y=\"%.0f\">", index % 8, top + 11);
    report_put_cut(page, r->name, strlen(r->name), MEMORY_NAME);
    report_put(page, "</text><text x=\"%d\" y=\"%.0f\" text-anchor=\"end\">", MEMORY_WIDTH, top + 11);
    if (isfinite(planned)) { report_put(page, "%s planned%s", tool_bytes(planned, text), isfinite(measured) ? ", " : ""); }
    if (isfinite(measured)) { report_put(page, "%s measured", tool_bytes(measured, text)); }
    report_put(page, "</text>");
    memory_split(r, planned, parts);
    for (size_t i = 0; i < MEMORY_SHADES; i++) {
        double width = parts[i] * scale;
        if (width < 0.05) { continue; }
        report_put(page, "<rect class=\"p%zu\" x=\"%.1f\" y=\"%.0f\" width=\"%.1f\" height=\"12\"><title>planned for %s: %s</title></rect>",
                   i, x, top + 17, width > 2.0 ? width - 0.8 : width, memory_shades[i], tool_bytes(parts[i], text));
        x += width;
    }
    if (isfinite(measured)) {
        report_put(page, "<rect class=\"real\" x=\"0\" y=\"%.0f\" width=\"%.1f\" height=\"12\"><title>measured</title></rect>",
                   top + (isfinite(planned) ? 32 : 17), measured * scale);
    }
    report_put(page, "</g>");
}

static void memory_put_cell(tool_text *page, double bytes) {
    char text[TOOL_SHORT];
    report_put(page, "<td>%s</td>", isfinite(bytes) ? tool_bytes(bytes, text) : "\u2013");
}

static void memory_put_table(tool_text *page, const report_logs *l) {
    report_put(page, "<details class=\"data\"><summary>Memory as a table</summary><div class=\"scroll\"><table><thead><tr>"
                     "<th scope=\"col\">run</th><th scope=\"col\">planned</th><th scope=\"col\">measured</th>"
                     "<th scope=\"col\">measured / planned</th>");
    for (size_t i = 0; i < MEMORY_PARTS; i++) { report_put(page, "<th scope=\"col\">%s</th>", memory_parts[i][1]); }
    report_put(page, "</tr></thead><tbody>");
    for (size_t i = 0; i < l->count; i++) {
        const report_run *r = &l->runs[i];
        double planned = report_number(r, "plan", "planned_bytes"), measured = report_most(r, REPORT_PEAK);
        char share[TOOL_SHORT] = "\u2013";
        if (isfinite(measured / planned)) { (void)snprintf(share, sizeof share, "%.1f %%", 100.0 * measured / planned); }
        report_put(page, "<tr><th scope=\"row\">");
        report_put_name(page, r->name);
        report_put(page, "</th>");
        memory_put_cell(page, planned);
        memory_put_cell(page, measured);
        report_put(page, "<td>%s</td>", share);
        for (size_t k = 0; k < MEMORY_PARTS; k++) { memory_put_cell(page, report_number(r, "plan", memory_parts[k][0])); }
        report_put(page, "</tr>");
    }
    report_put(page, "</tbody></table></div></details>");
}

void report_put_memory(tool_text *page, const report_logs *l) {
    double most = 0.0, height = 0.0;
    bool planned = false;
    for (size_t i = 0; i < l->count; i++) {
        double plan = report_number(&l->runs[i], "plan", "planned_bytes"), measured = report_most(&l->runs[i], REPORT_PEAK);
        planned = planned || isfinite(plan);
        most = plan > most ? plan : most;
        most = measured > most ? measured : most;
        height += isfinite(plan) ? MEMORY_ROW : MEMORY_SHORT;
    }
    if (!(most > 0.0)) { return; }
    report_put(page, "<figure class=\"chart wide memory\" id=\"memory\"><figcaption><h3>Memory</h3><span class=\"unit\">%s</span>",
               planned ? "the plan before the run, and what it took" : "what the run took");
    if (planned) {
        report_put(page, "<span class=\"key\">");
        for (size_t i = 0; i < MEMORY_SHADES; i++) { report_put(page, "<i class=\"k-part p%zu\"></i>%s ", i, memory_shades[i]); }
        report_put(page, "</span>");
    }
    report_put(page, "</figcaption><div class=\"plot\"><svg viewBox=\"0 0 720 %.0f\" role=\"img\" aria-label=\"Memory, "
                     "planned and measured. "
                     "The table below has the values.\">",
               height);
    height = 0.0;
    for (size_t i = 0; i < l->count; i++) {
        memory_put_bar(page, &l->runs[i], i, MEMORY_WIDTH / most, height);
        height += isfinite(report_number(&l->runs[i], "plan", "planned_bytes")) ? MEMORY_ROW : MEMORY_SHORT;
    }
    report_put(page, "</svg></div>");
    memory_put_table(page, l);
    report_put(page, "</figure>\n");
}
