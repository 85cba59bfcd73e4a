/* runner.h - the test runner: TEST registers a function, a CHECK that fails reports its place and ends that test.
 *
 *     #include "runner.h"
 *     TEST(area_what_it_shows) {
 *         peft__mem *mem = runner_mem();
 *         CHECK_INT(2 + 2, 4);
 *     }
 *
 * A CHECK is a statement in a function that returns nothing. Names start with the area, because all tests of a program
 * share one name space. Left out: fixtures, processes of their own for tests, parallel runs. */
#ifndef RUNNER_H
#define RUNNER_H

#include "base/base.h"

typedef void (*runner_fn)(void);
void runner_register(const char *name, const char *file, runner_fn fn);

#define TEST(name)                                                                              \
    static void test_##name(void);                                                              \
    __attribute__((constructor)) static void register_##name(void) {                            \
        runner_register(#name, __FILE__, test_##name);                                          \
    }                                                                                           \
    static void test_##name(void)

/* A folder of the running test's own; it and all in it go when the program ends. */
const char *runner_tmpdir(void);
/* `name` in a folder that runner_tmpdir gave, for a path; lives until the test ends. */
const char *runner_path(const char *dir, const char *name);
void runner_sleep(double seconds);
/* PEFT_TEST_FEW: another build of the same sources has looked at all of the numbers; sanitizers do with a share of them. */
bool runner_few(void);
/* A fresh allocator over malloc; a test that passes but has bytes outstanding at its end is a failure. */
peft__mem *runner_mem(void);

/* Each says whether all is well; if not, it has reported. */
bool runner_true(const char *file, int line, bool ok, const char *text);
bool runner_int(const char *file, int line, const char *text, int64_t actual, int64_t expected);
bool runner_str(const char *file, int line, const char *text, const char *actual, const char *expected);
bool runner_near(const char *file, int line, const char *text, double actual, double expected, double tol);
bool runner_status(const char *file, int line, const char *text, peft_status actual, peft_status expected);
bool runner_error_has(const char *file, int line, const char *part);
bool runner_same(const char *file, int line, const char *text, const void *actual, const void *expected, size_t n);

#define RUNNER_CHECK(ok) \
    do {                 \
        if (!(ok)) { return; } \
    } while (0)

#define CHECK(cond) RUNNER_CHECK(runner_true(__FILE__, __LINE__, (cond), #cond))
#define CHECK_INT(actual, expected) \
    RUNNER_CHECK(runner_int(__FILE__, __LINE__, #actual, (int64_t)(actual), (int64_t)(expected)))
#define CHECK_STR(actual, expected) RUNNER_CHECK(runner_str(__FILE__, __LINE__, #actual, (actual), (expected)))
#define CHECK_NEAR(actual, expected, tol) \
    RUNNER_CHECK(runner_near(__FILE__, __LINE__, #actual, (double)(actual), (double)(expected), (double)(tol)))
#define CHECK_OK(expr) RUNNER_CHECK(runner_status(__FILE__, __LINE__, #expr, (expr), PEFT_OK))
#define CHECK_STATUS(expr, code) RUNNER_CHECK(runner_status(__FILE__, __LINE__, #expr, (expr), (code)))
#define CHECK_ERROR_HAS(part) RUNNER_CHECK(runner_error_has(__FILE__, __LINE__, (part)))
#define CHECK_MEM(actual, expected, n) RUNNER_CHECK(runner_same(__FILE__, __LINE__, #actual, (actual), (expected), (n)))

#endif
