/* Checks of the C tests: each names the line, and the program goes on to the end. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <string.h>

extern int failures;

#define CHECK(condition)                                                          \
    do {                                                                          \
        if (!(condition)) {                                                       \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);       \
            failures++;                                                           \
        }                                                                         \
    } while (0)

/* The call must answer with this status, and the record must say so too. */
#define EXPECT(expected, call)                                                    \
    do {                                                                          \
        int32_t found_ = (call);                                                  \
        if (found_ != (expected) || err.status != found_ ||                       \
            (err.message[0] == 0) != (found_ == INLAID_OK)) {                     \
            fprintf(stderr, "%s:%d: %s: expected %s, found %s: %s\n", __FILE__,   \
                    __LINE__, #call, inlaid_status_name(expected),                \
                    inlaid_status_name(found_), err.message);                     \
            failures++;                                                           \
        }                                                                         \
    } while (0)

#define OK(call) EXPECT(INLAID_OK, call)
#define SAYS(text) CHECK(strstr(err.message, text) != NULL)

#endif
