/* base/error.c - see error.h. */
#include "base/error.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "idem.h"

#define TEXT_BYTES 512

/* On the heap: all of a library's thread storage must be small, or dlopen() finds no room for it (segment/lane.h). */
static _Thread_local char *text;
static pthread_key_t thread_end;
static pthread_once_t thread_end_once = PTHREAD_ONCE_INIT;
static bool thread_end_works;

static void at_thread_end(void *mine)
{
    free(mine);
    text = NULL;
}

static void make_key(void)
{
    thread_end_works = pthread_key_create(&thread_end, at_thread_end) == 0;
}

/* NULL: no memory; then there is a code, but no sentence. */
static char *text_of_thread(void)
{
    if (text == NULL) {
        pthread_once(&thread_end_once, make_key);
        text = calloc(1, TEXT_BYTES);
        if (text != NULL && thread_end_works)
            pthread_setspecific(thread_end, text);
    }
    return text;
}

int idem_fail(int code, const char *format, ...)
{
    int kept = errno;
    char *to = text_of_thread();
    va_list args;
    va_start(args, format);
    if (to != NULL)
        vsnprintf(to, TEXT_BYTES, format, args);
    va_end(args);
    errno = kept;
    return code;
}

int idem_fail_errno(const char *format, ...)
{
    int kept = errno;
    char *to = text_of_thread();
    va_list args;
    va_start(args, format);
    int n = to != NULL ? vsnprintf(to, TEXT_BYTES, format, args) : -1;
    va_end(args);
    char reason[128];
    if (n >= 0 && n < TEXT_BYTES)
        snprintf(to + n, TEXT_BYTES - (size_t)n, ": %s", strerror_r(kept, reason, sizeof reason));
    errno = kept;
    return IDEM_E_SYSTEM;
}

const char *idem_fail_text(void)
{
    return text != NULL ? text : "";
}
