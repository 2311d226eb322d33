/*
 * tests/fuzz/fuzz.h - what the libFuzzer targets share: bytes taken one after the other, and a bound on each input's time.
 *
 * A target defines fuzz_begin() and fuzz_one(). Whatever is wrong ends the process: a sanitizer, a failed CHECK, an input that takes more
 * than FUZZ_CPU_MS of processor time (wall time would count what other programs do), or FUZZ_WALL_S in all. Inputs are programs or texts, not images:
 * they stay small, and good when a layout changes.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "support/support.h"

#define FUZZ_CPU_MS 1000

/* Once, before the first input; the private directory and the hooks are there. */
void fuzz_begin(void);
void fuzz_one(const uint8_t *bytes, size_t n);

/* Input that is read from its beginning; zeros behind its end. */
struct fuzz_bytes {
    const uint8_t *at;
    size_t left;
};

static inline uint64_t fuzz_take(struct fuzz_bytes *b, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes && b->left > 0; i++, b->at++, b->left--)
        v |= (uint64_t)*b->at << (8 * i);
    return v;
}

static inline unsigned fuzz_byte(struct fuzz_bytes *b)
{
    return (unsigned)fuzz_take(b, 1);
}

/* Reads every byte, so that the address sanitizer sees whether they are there. bytes NULL: none are (a tombstone's). */
unsigned fuzz_touch(const void *bytes, size_t n);

#endif
