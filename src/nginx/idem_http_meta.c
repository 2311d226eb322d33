/*
 * nginx/idem_http_meta.c - reading and writing the format of nginx/idem_http_meta.h.
 *
 * Owns no state.
 */
#include "idem_http_meta.h"

#include <string.h>

static void put(unsigned char *at, uint64_t n, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (unsigned char)(n >> (8 * i));
}

static uint64_t get(const unsigned char *at, size_t bytes)
{
    uint64_t n = 0;
    for (size_t i = 0; i < bytes; i++)
        n |= (uint64_t)at[i] << (8 * i);
    return n;
}

size_t idem_http_meta_bytes(const struct idem_http_meta *record)
{
    if (record->name_bytes > UINT16_MAX || record->value_bytes > UINT32_MAX)
        return 0;
    return IDEM_HTTP_META_HEAD + record->name_bytes + record->value_bytes;
}

unsigned char *idem_http_meta_write(unsigned char *at, const struct idem_http_meta *record)
{
    put(at, record->kind, 1);
    put(at + 1, record->name_bytes, 2);
    put(at + 3, record->value_bytes, 4);
    at += IDEM_HTTP_META_HEAD;
    if (record->name_bytes > 0)
        memcpy(at, record->name, record->name_bytes);
    at += record->name_bytes;
    if (record->value_bytes > 0)
        memcpy(at, record->value, record->value_bytes);
    return at + record->value_bytes;
}

int idem_http_meta_read(const unsigned char *bytes, size_t n, size_t *offset, struct idem_http_meta *record)
{
    if (*offset == 0) {
        if (n == 0 || bytes[0] != IDEM_HTTP_META_VERSION)
            return -1;
        *offset = 1;
    }
    if (*offset >= n)
        return 0;
    if (n - *offset < IDEM_HTTP_META_HEAD)
        return -1;
    const unsigned char *at = bytes + *offset;
    size_t left = n - *offset - IDEM_HTTP_META_HEAD;
    record->kind = at[0];
    record->name_bytes = (size_t)get(at + 1, 2);
    record->value_bytes = (size_t)get(at + 3, 4);
    if (record->name_bytes > left || record->value_bytes > left - record->name_bytes)
        return -1;
    record->name = at + IDEM_HTTP_META_HEAD;
    record->value = record->name + record->name_bytes;
    *offset += IDEM_HTTP_META_HEAD + record->name_bytes + record->value_bytes;
    return 1;
}

uint64_t idem_http_meta_number(const struct idem_http_meta *record)
{
    return get(record->value, record->value_bytes < 8 ? record->value_bytes : 8);
}
