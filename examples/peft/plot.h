/* plot.h - a run's curve of losses as text. */
#ifndef PLOT_H
#define PLOT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { PLOT_BINS = 400 };

/* Losses by step, in a fixed number of bins: a longer run makes them wider. All zero: empty. */
typedef struct plot {
    int64_t width;                /* steps of a bin; 0: nothing yet */
    int64_t first, last;          /* steps that there are */
    double low[PLOT_BINS], high[PLOT_BINS]; /* of the steps of a bin */
    double held[PLOT_BINS];       /* the last held-out loss of the bin */
    bool any[PLOT_BINS], evaluated[PLOT_BINS];
} plot;

/* Steps may come in any order, from 0; eval_loss NaN: none. What is not finite leaves a gap. */
void plot_add(plot *p, int64_t step, double loss, double eval_loss);
/* columns: of the terminal. name NULL: none. Nothing where no loss is finite. */
void plot_print(const plot *p, FILE *to, const char *name, int columns, bool unicode, bool colour);

#endif
