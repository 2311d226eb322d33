/* store/words.c - fingerprints, and words for codes. Holds no state. */
#include <stdlib.h>
#include <string.h>

#include "store/handle.h"

struct idem_fingerprint_state {
    XXH3_state_t hash;
    uint8_t secret[IDEM_SECRET_BYTES];
};

static uint64_t never_zero(uint64_t h)
{
    return h != 0 ? h : 1;
}

uint64_t idem_fingerprint(idem_store *store, const void *bytes, size_t n)
{
    struct idem_op op;
    if (bytes == NULL || idem_enter(store, &op) != IDEM_OK)
        return 0;
    uint64_t h = XXH3_64bits_withSecret(bytes, n, op.ctx.v->fixed.secret, IDEM_SECRET_BYTES);
    idem_leave(&op, IDEM_OK);
    return never_zero(h);
}

int idem_digest(idem_store *store, const void *bytes, size_t n, uint8_t digest[16])
{
    if (bytes == NULL || digest == NULL)
        return idem_fail(IDEM_E_INVALID, "bytes, digest: NULL");
    struct idem_op op;
    int e = idem_enter(store, &op);
    if (e != IDEM_OK)
        return e;
    XXH128_hash_t h = XXH3_128bits_withSecret(bytes, n, op.ctx.v->fixed.secret, IDEM_SECRET_BYTES);
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, h);
    memcpy(digest, canonical.digest, sizeof canonical.digest);
    return idem_leave(&op, IDEM_OK);
}

idem_fingerprint_state *idem_fingerprint_begin(idem_store *store)
{
    struct idem_op op;
    void *memory;
    if (posix_memalign(&memory, 64, sizeof(idem_fingerprint_state)) != 0) {
        idem_fail(IDEM_E_MEMORY, "no memory for a fingerprint");
        return NULL;
    }
    idem_fingerprint_state *s = memory;
    if (idem_enter(store, &op) != IDEM_OK) {
        free(s);
        return NULL;
    }
    memcpy(s->secret, op.ctx.v->fixed.secret, sizeof s->secret);
    idem_leave(&op, IDEM_OK);
    XXH3_INITSTATE(&s->hash);
    XXH3_64bits_reset_withSecret(&s->hash, s->secret, sizeof s->secret);
    return s;
}

void idem_fingerprint_update(idem_fingerprint_state *state, const void *bytes, size_t n)
{
    if (state != NULL && bytes != NULL && n > 0)
        XXH3_64bits_update(&state->hash, bytes, n);
}

uint64_t idem_fingerprint_end(idem_fingerprint_state *state)
{
    if (state == NULL)
        return 0;
    uint64_t h = XXH3_64bits_digest(&state->hash);
    free(state);
    return never_zero(h);
}

const char *idem_strerror(int code)
{
    switch (code) {
    case IDEM_OK:
        return "done";
    case IDEM_CLAIMED:
        return "claimed: do the work";
    case IDEM_RECLAIMED:
        return "reclaimed: an earlier attempt was lost; reconcile, then do the work";
    case IDEM_REPLAY:
        return "completed before: here is the stored answer";
    case IDEM_IN_PROGRESS:
        return "another attempt is in progress";
    case IDEM_MISMATCH:
        return "this key was used with another request";
    case IDEM_UNKNOWN:
        return "an attempt was lost and the key is held until it is resolved";
    case IDEM_TOMBSTONE:
        return "recorded without its body";
    case IDEM_E_INVALID:
        return "invalid argument";
    case IDEM_E_FULL:
        return "no room";
    case IDEM_E_LOST:
        return "fenced: this claim is over";
    case IDEM_E_TIMEOUT:
        return "timed out: the other attempt still runs";
    case IDEM_E_LOG:
        return "writing the log failed";
    case IDEM_E_LOG_STALLED:
        return "the log makes no progress";
    case IDEM_E_VERSION:
        return "the store was made by an incompatible version";
    case IDEM_E_CORRUPT:
        return "the store is damaged";
    case IDEM_E_TOO_BIG:
        return "too big";
    case IDEM_E_NO_KEY:
        return "no such key";
    case IDEM_E_PERMISSION:
        return "not ours to open";
    case IDEM_E_MEMORY:
        return "out of memory";
    case IDEM_E_SYSTEM:
        return "a system call failed";
    case IDEM_E_STALE:
        return "the store was removed or replaced";
    case IDEM_E_NO_STORE:
        return "there is no store";
    case IDEM_E_EXISTS:
        return "there is a store already";
    case IDEM_E_LOG_SPACE:
        return "no space for the write-ahead file";
    case IDEM_E_LOG_DAMAGED:
        return "the write-ahead file is damaged";
    case IDEM_E_LOG_FOREIGN:
        return "the write-ahead file is another store's";
    default:
        return "unknown code";
    }
}

const char *idem_error_detail(void)
{
    return idem_fail_text();
}

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)
const char *idem_version(void)
{
    return TEXT(IDEM_VERSION_MAJOR) "." TEXT(IDEM_VERSION_MINOR) "." TEXT(IDEM_VERSION_PATCH);
}
