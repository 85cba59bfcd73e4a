/* main.c - peft, the command-line tool of libpeft: finds the command and reads its arguments.
 *
 * Exit codes: 0 success, 1 failure, 2 wrong use, 130 after Ctrl-C with the state saved. Results go to stdout, progress and
 * errors to stderr. The environment variables PEFT_THREADS, PEFT_ISA and NO_COLOR are read here and nowhere in the
 * library. */
#include "system.h"
#include "tool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const tool_command *const main_commands[] = {
    &command_info,    &command_check,   &command_train, &command_eval,  &command_generate, &command_merge,
    &command_combine, &command_convert, &command_plan,  &command_bench, &command_report,   &command_options,
    NULL,
};

static void main_help(FILE *to) {
    (void)fprintf(to,
                  "peft %s - fine-tune transformers with few parameters, on a CPU\n\nUsage: peft COMMAND [options]\n\n",
                  peft_version_string());
    for (const tool_command *const *c = main_commands; *c != NULL; c++) {
        (void)fprintf(to, "  %-10s %s\n", (*c)->name, (*c)->summary);
    }
    (void)fprintf(to,
                  "\n'peft COMMAND --help' shows a command's options, 'peft --version' the version.\n"
                  "Environment: PEFT_THREADS (number of threads), NO_COLOR,\n"
                  "PEFT_ISA (generic, avx2, avx512, avx512bf16, neon, blas, auto).\n");
}

static void main_command_help(const tool_command *c) {
    printf("peft %s - %s\n\nUsage: peft %s %s\n\n", c->name, c->summary, c->name, c->synopsis);
    args_print_help(c->args);
    if (c->notes != NULL) { printf("\n%s\n", c->notes); }
}

static const tool_command *main_find(const char *name) {
    const tool_command *const *c = main_commands;
    while (*c != NULL && strcmp((*c)->name, name) != 0) { c++; }
    return *c;
}

static int main_unknown(const char *name) {
    const char *nearest = NULL;
    size_t best = 3;
    for (const tool_command *const *c = main_commands; *c != NULL; c++) {
        size_t distance = tool_distance(name, (*c)->name);
        if (distance < best) {
            best = distance;
            nearest = (*c)->name;
        }
    }
    if (nearest != NULL) { return tool_usage("there is no command '%s'; did you mean %s?", name, nearest); }
    return tool_usage("there is no command '%s'; 'peft --help' lists what there is", name);
}

static int main_run(int argc, char **argv) {
    const tool_command *command = NULL;
    tool_args args = {0};
    if (argc < 2) {
        main_help(stderr);
        return TOOL_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || (strcmp(argv[1], "help") == 0 && argc == 2)) {
        main_help(stdout);
        return TOOL_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("peft %s\n", peft_version_string());
        return TOOL_OK;
    }
    bool help = strcmp(argv[1], "help") == 0;
    command = main_find(argv[help ? 2 : 1]);
    if (command == NULL) { return main_unknown(argv[help ? 2 : 1]); }
    int rc = help ? TOOL_OK : args_parse(command->name, command->args, argc - 2, argv + 2, &args);
    if (rc == TOOL_OK && (help || args.help)) {
        main_command_help(command);
    } else if (rc == TOOL_OK) {
        rc = command->run(&args);
    }
    args_free(&args);
    return rc;
}

int main(int argc, char **argv) {
    system_begin();
    int rc = main_run(argc, argv);
    if ((fflush(stdout) != 0 || ferror(stdout)) && rc <= TOOL_FAILED) {
        rc = tool_fail("cannot write to stdout: %s", strerror(errno));
    }
    return rc;
}
