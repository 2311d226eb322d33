/* tests/unit/wal_file.h - a file header that the tests of the log share: the golden one. */
#ifndef TESTS_UNIT_WAL_FILE_H
#define TESTS_UNIT_WAL_FILE_H

#include "wal/format.h"

#define SALT UINT64_C(0x0123456789abcdef)

static inline struct idem_file_rec a_file(void)
{
    struct idem_file_rec f = {
        .major = IDEM_WAL_MAJOR,
        .minor = IDEM_WAL_MINOR,
        .number = 7,
        .salt = SALT,
        .base = 1 << 20,
        .bytes = 8192,
        .prev_number = 6,
        .prev_salt = 66,
        .prev_end = (1 << 20) - 128,
        .oldest = 3,
        .epoch = 2,
        .store_ms = INT64_C(1700000000000),
        .wall_ms = INT64_C(1700000000123),
        .ceiling_ms = INT64_C(1700000060000),
        .prev_expiry_ms = INT64_C(1700086400000),
        .ttl_ms = 86400000,
        .lease_ms = 30000,
        .keys = 1000,
        .response_bytes = 512,
        .when_full = 1,
        .processes = 4,
        .lanes = 8,
        .group = 1001,
        .settings = {2, 3, 50, 5000, 2048, UINT64_C(64) << 20},
    };
    for (unsigned i = 0; i < 16; i++) {
        f.uuid[i] = (uint8_t)i;
        f.instance[i] = (uint8_t)(0xf0 + i);
    }
    for (unsigned i = 0; i < sizeof f.secret; i++)
        f.secret[i] = (uint8_t)(i * 37 + 11);
    return f;
}

#endif
