/* factor.h - leading factors of a matrix in double, r at most the smaller of rows and cols. */
#ifndef PEFT_FACTOR_H
#define PEFT_FACTOR_H

#include "base/base.h"

/* w[rows, cols] = u[rows, r] diag(s[r]) v[cols, r]' + what is smaller, s falling. */
peft_status peft__factor_svd(peft__mem *mem, const double *w, int64_t rows, int64_t cols, int64_t r, double *u, double *s,
                             double *v);
/* q[rows, r]: first columns of Q; upper[r, cols]: first rows of R = Q' W. */
peft_status peft__factor_qr(peft__mem *mem, const double *w, int64_t rows, int64_t cols, int64_t r, double *q, double *upper);

#endif
