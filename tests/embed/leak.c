/* leak.c - a plug-in that forgets to free its context: the leak check of reload.c must be able to find that.
 *
 *     leak LIBRARY */
#include "kit.h"

int main(int argc, char **argv) {
    kit_api p;
    peft_context *ctx = NULL;
    EXPECT(argc == 2);
    void *library = kit_load(argv[1], RTLD_LOCAL, &p);
    OK(p.peft_context_create(NULL, &ctx));
    ctx = NULL;
    EXPECT(dlclose(library) == 0 && ctx == NULL);
    return 0;
}
