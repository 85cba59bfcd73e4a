/* system.h - what the tool asks of the operating system beyond the C library: made by system_posix.c or system_windows.c.
 * Paths and arguments are UTF-8 on every system. */
#ifndef SYSTEM_H
#define SYSTEM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

void system_begin(void);                               /* first thing in main: what is written is UTF-8, byte for byte */
FILE *system_open(const char *path, const char *mode); /* fopen */
bool system_cut(FILE *file, int64_t size);             /* shortens an open file and goes to its end; errno on failure */
bool system_exists(const char *path);
bool system_is_folder(const char *path);
bool system_may_write(const char *folder);
bool system_make_folder(const char *path);             /* its parent must be there; errno on failure */
void system_remove_file(const char *path);
void system_remove_folder(const char *path);           /* if it is empty */
bool system_is_separator(char c);                      /* of folders in a path */
bool system_is_terminal(void);                         /* stderr is one */
bool system_can_redraw(void);                          /* and knows the escape sequences for colour and erasing */
bool system_is_utf8(void);                             /* and shows more than ASCII */
int system_columns(void);                              /* of that terminal; 80 where nobody knows */
void system_on_interrupt(void (*handler)(int));        /* of Ctrl-C and SIGTERM; the second one ends the process as usual */

double system_clock(void);                             /* seconds since some moment */
/* Calls body for each of n elements of `size` bytes, each on a thread of its own, and waits; false: there was none for one. */
bool system_parallel(int n, void (*body)(void *element), void *elements, size_t size);

#endif
