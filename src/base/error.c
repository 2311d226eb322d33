/* base/error.c - see error.h. */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "idem.h"

static _Thread_local char text[512];

int idem_fail(int code, const char *format, ...)
{
    int kept = errno;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    errno = kept;
    return code;
}

int idem_fail_errno(const char *format, ...)
{
    int kept = errno;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    char reason[128];
    if (n >= 0 && (size_t)n < sizeof text)
        snprintf(text + n, sizeof text - (size_t)n, ": %s", strerror_r(kept, reason, sizeof reason));
    errno = kept;
    return IDEM_E_SYSTEM;
}

const char *idem_fail_text(void)
{
    return text;
}
