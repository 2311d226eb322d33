/*
 * nginx/idem_http_meta.h - how an answer's head is kept: the metadata of a stored response.
 *
 * Owns the format: one version byte (1), then records of
 *
 *     kind u8 | name bytes u16 | value bytes u32 | name | value        little endian, no padding
 *
 * Invariants: a record says itself how long it is, so one of an unknown kind is passed over; a reader that meets another version, or a record
 * that does not fit, stops and says so. Plain bytes, nothing of nginx: other workers and later versions read them.
 */
#ifndef IDEM_HTTP_META_H
#define IDEM_HTTP_META_H

#include <stddef.h>
#include <stdint.h>

#define IDEM_HTTP_META_VERSION 1u
#define IDEM_HTTP_META_HEAD    7u /* bytes of a record before its name */

enum idem_http_meta_kind {
    IDEM_HTTP_META_STATUS_LINE = 1,   /* value: "201 Created" */
    IDEM_HTTP_META_CONTENT_TYPE = 2,  /* value: all of it; name: what of it counts when types are compared */
    IDEM_HTTP_META_CHARSET = 3,       /* value: the charset, of a content type that names one */
    IDEM_HTTP_META_HEADER = 4,        /* name, value */
    IDEM_HTTP_META_LOCATION = 5,      /* name, value: a relative Location that nginx makes absolute on the way out */
    IDEM_HTTP_META_TRAILER = 6,       /* name, value */
    IDEM_HTTP_META_LAST_MODIFIED = 7, /* value: seconds since 1970, 8 bytes; there is no header line of it */
    IDEM_HTTP_META_LENGTH = 8         /* value: 8 bytes: the length that an answer to HEAD tells */
};

struct idem_http_meta {
    unsigned kind; /* enum idem_http_meta_kind, or one of a later version */
    const unsigned char *name, *value;
    size_t name_bytes, value_bytes;
};

/* Bytes that a record takes, or 0 if its name or value is too long to be kept. */
size_t idem_http_meta_bytes(const struct idem_http_meta *record);

/* Writes the record at `at`, where idem_http_meta_bytes() are free, and returns what follows it. The version byte is the caller's to write. */
unsigned char *idem_http_meta_write(unsigned char *at, const struct idem_http_meta *record);

/*
 * The record at *offset (0: the first; the version is looked at then). 1: there is one, *offset moves past it; 0: the end; -1: these are not
 * the bytes of an answer's head, or of a version that is not known. Pointers are into `bytes`.
 */
int idem_http_meta_read(const unsigned char *bytes, size_t n, size_t *offset, struct idem_http_meta *record);

uint64_t idem_http_meta_number(const struct idem_http_meta *record); /* its value as a number, up to 8 bytes */

#endif
