/*
 * tests/fuzz/fuzz_store.c - words of a store's root and generation file are anything; it is opened, used by every public function, verified.
 *
 * The input: a seed for the use; then 11 bytes for each word: which file part and word (4), how (1), what (6). With one word changed, keys
 * none of whose own bytes it is must be answered right (support/hostile.h); with more, calls must end, and return codes that exist.
 */
#include "fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "support/hostile.h"

#define WORDS_MOST 12u

static struct hostile store;

void fuzz_begin(void)
{
    if (crash_setup() != 0)
        abort();
    hostile_make(&store);
}

static void change(struct hostile_damage *d, unsigned how, uint64_t what)
{
    uint64_t w;
    memcpy(&w, store.map[d->file] + d->at, sizeof w);
    switch (how % 6) {
    case 0:
        w ^= UINT64_C(1) << what % 64;
        break;
    case 1:
        w = what;
        break;
    case 2:
        w = what << 16;
        break;
    case 3:
        w += what & 0xff;
        break;
    case 4:
        w = (w & ~UINT64_C(0xff)) | (what & 0xff);
        break;
    default: { /* a word from elsewhere */
        struct hostile_damage from = hostile_word(&store, what);
        memcpy(&w, store.map[from.file] + from.at, sizeof w);
    }
    }
    memcpy(store.map[d->file] + d->at, &w, sizeof w);
}

void fuzz_one(const uint8_t *bytes, size_t n)
{
    struct fuzz_bytes b = {bytes, n};
    uint64_t random = fuzz_take(&b, 2) | 1;
    struct hostile_damage d = {HOSTILE_ROOT, 3000, "nothing"};
    unsigned words = 0;
    hostile_restore(&store);
    for (; b.left > 0 && words < WORDS_MOST; words++) {
        d = hostile_word(&store, fuzz_take(&b, 4));
        unsigned how = fuzz_byte(&b);
        change(&d, how, fuzz_take(&b, 6));
    }
    const char *volatile doing = "";
    store.expired = words > 1; /* what keys are is not known then */
    idem_store *s;
    const char *wrong = hostile_look(&store, &d, &s, &doing);
    for (unsigned rounds = 0; rounds < 2 && s != NULL && wrong == NULL; rounds++)
        wrong = hostile_use(&store, s, &random, &doing);
    idem_close(s);
    CHECK_BYTES(wrong, wrong != NULL ? strlen(wrong) : 0, "");
}
