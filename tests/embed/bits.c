/* bits.c - prints the work's result and how many threads there were at work: two builds of the library must print the same
 * result.
 *
 *     bits THREADS */
#define KIT_LINK
#include "kit.h"

static int bits_threads;

static void bits_look(void) {
    bits_threads = kit_threads();
}

int main(int argc, char **argv) {
    EXPECT(argc == 2);
    uint64_t h = kit_run(&kit_linked, NULL, (int32_t)strtol(argv[1], NULL, 10), bits_look);
    (void)printf("%016llx %d\n", (unsigned long long)h, bits_threads);
    return 0;
}
