/*
 * nginx/idem_http_key.h - what an Idempotency-Key header line says.
 *
 * Owns: the grammar (RFC 8941: an Item of type String, with parameters; leniently a bare token). Plain bytes in, plain bytes out, nothing of
 * nginx: so that it can be tested and fuzzed alone.
 *
 * Invariant: "abc" and abc are one key; parameters are not part of it; what is returned is 1 to IDEM_HTTP_KEY_MAX bytes of visible ASCII and
 * spaces.
 */
#ifndef IDEM_HTTP_KEY_H
#define IDEM_HTTP_KEY_H

#include <stdbool.h>
#include <stddef.h>

#define IDEM_HTTP_KEY_MAX 255u

enum idem_http_key_error {
    IDEM_HTTP_KEY_OK = 0,
    IDEM_HTTP_KEY_EMPTY,      /* no value, or "" */
    IDEM_HTTP_KEY_LONG,       /* more than IDEM_HTTP_KEY_MAX bytes */
    IDEM_HTTP_KEY_BYTES,      /* a control character, or one outside ASCII */
    IDEM_HTTP_KEY_QUOTE,      /* the string does not end, or has an escape other than \" and \\ */
    IDEM_HTTP_KEY_PARAMETERS, /* what follows the string is no parameter */
    IDEM_HTTP_KEY_TYPE        /* no string, and not a bare token (or those are refused) */
};

/*
 * idem_http_key_parse - value, value_bytes: the header's value as received. strict: only the String form. key receives the unescaped bytes,
 * *key_bytes their number; both are undefined on an error. Touches nothing else; safe everywhere.
 */
enum idem_http_key_error idem_http_key_parse(const unsigned char *value, size_t value_bytes, bool strict,
                                             unsigned char key[IDEM_HTTP_KEY_MAX], size_t *key_bytes);

/* A sentence for the client; static. */
const char *idem_http_key_words(enum idem_http_key_error e);

#endif
