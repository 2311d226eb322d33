/*
 * base/error.h - the sentence behind an error code, per thread.
 *
 * Owns: a thread-local buffer. Set where the error is found (the place that knows file and field), read by
 * idem_error_detail(). errno is preserved.
 */
#ifndef IDEM_BASE_ERROR_H
#define IDEM_BASE_ERROR_H

/* Remembers the sentence and returns code, so that a caller can write `return idem_fail(IDEM_E_INVALID, "...")`. */
int idem_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* As idem_fail(IDEM_E_SYSTEM, ...) with ": strerror(errno)" added. */
int idem_fail_errno(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *idem_fail_text(void);

#endif
