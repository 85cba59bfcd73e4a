/* reload.c - the library as part of a plug-in: loaded and unloaded many times, doing real work each time.
 *
 *     reload LIBRARY ROUNDS
 *
 * Every round trains on two threads, and gives the same bits. After the first tenth (the C library's own caches) the process
 * must not grow: no thread, no file, no mapping, no memory. Also run with LeakSanitizer, see run.sh. */
#include <malloc.h>
#include <unistd.h>

#include "kit.h"

static int reload_most; /* threads seen while a trainer was there */

static void reload_look(void) {
    int now = kit_threads();
    if (now > reload_most) { reload_most = now; }
}

static size_t reload_resident(void) { /* bytes */
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    EXPECT(f != NULL && fscanf(f, "%*u %lu", &pages) == 1);
    (void)fclose(f);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

typedef struct reload_state { /* of the process between rounds */
    int threads, files, mappings;
    size_t heap, resident;
} reload_state;

static reload_state reload_now(void) {
    struct mallinfo2 heap = mallinfo2();
    reload_state s = {kit_threads(), kit_files(), kit_mappings(""), heap.uordblks + heap.hblkhd, reload_resident()};
    return s;
}

int main(int argc, char **argv) {
    EXPECT(argc == 3);
    const char *name = strrchr(argv[1], '/');
    long rounds = strtol(argv[2], NULL, 10);
    uint64_t first = 0;
    reload_state begun = {0, 0, 0, 0, 0};
    EXPECT(name != NULL && rounds >= 2);
    for (long i = 0; i < rounds; i++) {
        kit_api p;
        void *library = kit_load(argv[1], RTLD_LOCAL, &p);
        EXPECT(kit_mappings(name) > 0);
        uint64_t h = kit_run(&p, NULL, 2, reload_look);
        EXPECT(p.peft_context_create(NULL, NULL) == PEFT_E_INVALID && strlen(p.peft_last_error()) > 10);
        EXPECT(dlclose(library) == 0);
        EXPECT(kit_mappings(name) == 0); /* really gone: nothing holds it */
        if (i == 0) { first = h; }
        EXPECT(h == first);
        if (i == rounds / 10) { begun = reload_now(); }
    }
    reload_state ended = reload_now();
    (void)printf("%ld rounds, %d threads at work; before and after: threads %d %d, files %d %d, mappings %d %d, heap %zu "
                 "%zu, resident %zu %zu\n",
                 rounds, reload_most, begun.threads, ended.threads, begun.files, ended.files, begun.mappings, ended.mappings,
                 begun.heap, ended.heap, begun.resident, ended.resident);
    EXPECT(reload_most == 2);
    EXPECT(ended.threads == 1 && ended.files == begun.files && ended.mappings <= begun.mappings + 2);
    EXPECT(ended.heap <= begun.heap + 16384);          /* 90 rounds: less than one small block each */
    EXPECT(ended.resident <= begun.resident + (1 << 20));
    return 0;
}
