/* peak.h - what this machine could do at best, for the shares of `peft bench`. */
#ifndef PEAK_H
#define PEAK_H

/* FLOP/s of `threads` threads that do nothing but fused multiply-adds on registers, over about 10 ms. isa: whose registers, by
 * peft_context_isa; of one without a name here, the best that the CPU has. 0: no thread could be started. */
double peak_flops(const char *isa, int threads);

enum {
    PEAK_BYTES = 256 << 20, /* of the memory that is read: more than caches hold */
    PEAK_WINDOW = 32 << 20  /* of a call */
};

/* Bytes/s at which so many threads read the `turn`-th window of that memory, and of its copies behind it, from one end to the other,
 * each a part of its own. 0 as above. */
double peak_read(const char *memory, long turn, int threads);

#endif
