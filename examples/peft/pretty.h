/* pretty.h - a JSON object for people. */
#ifndef PRETTY_H
#define PRETTY_H

int pretty_print(const char *json); /* to stdout; returns an exit code */

#endif
