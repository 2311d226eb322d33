/*
 * tests/support/history_tell.c - a history that contradicts, told by the fewest calls. See history.h.
 */
#include "support/history.h"

#include <inttypes.h>
#include <string.h>

#include "idem.h"

/* A call that told something, but changed nothing: without it there is less to explain. One that was cut off may be what explains the others. */
static bool only_told(const struct history_call *c)
{
    if (c->kind == CALL_LOOKUP)
        return true;
    return c->returned != 0 && !history_unwritten(c) &&
           (c->verdict < 0 || c->verdict == IDEM_REPLAY || c->verdict == IDEM_IN_PROGRESS ||
            c->verdict == IDEM_MISMATCH);
}

/* What had been called before `at`; what had not returned by then is cut off there. to may be calls. */
static unsigned cut_at(const struct history_call *calls, unsigned n, uint64_t at, struct history_call *to)
{
    unsigned m = 0;
    for (unsigned i = 0; i < n; i++)
        if (calls[i].called < at) {
            to[m] = calls[i];
            if (to[m].returned > at)
                to[m].returned = 0;
            m++;
        }
    return m;
}

unsigned history_shrink(struct history_call *calls, unsigned n, const struct history_death *deaths)
{
    struct history_call some[HISTORY_CALLS_MAX];
    /* The moment at which it first contradicted. */
    uint64_t low = 0, high = 0;
    for (unsigned i = 0; i < n; i++)
        high = calls[i].returned > high ? calls[i].returned : high;
    while (low + 1 < high) {
        uint64_t middle = low + (high - low) / 2;
        if (history_check(some, cut_at(calls, n, middle, some), deaths) == HISTORY_CONTRADICTS)
            high = middle;
        else
            low = middle;
    }
    unsigned m = cut_at(calls, n, high, calls);
    for (unsigned i = m; i-- > 0;) {
        if (!only_told(&calls[i]))
            continue;
        unsigned left = 0;
        for (unsigned j = 0; j < m; j++)
            if (j != i)
                some[left++] = calls[j];
        if (history_check(some, left, deaths) == HISTORY_CONTRADICTS) {
            memcpy(calls, some, left * sizeof *calls);
            m = left;
        }
    }
    return m;
}

void history_print(FILE *to, const struct history_call *calls, unsigned n, const struct history_death *deaths)
{
    static const char *const names_of[] = {
        "begin", "complete", "abandon", "declare", "renew", "mark", "forget", "lookup", "complete (not kept)",
        "adopt", "release",  "resolve", "rerun",   "crash"};
    for (unsigned i = 0; i < n; i++) {
        const struct history_call *c = &calls[i];
        const struct history_death *d = &deaths[c->worker];
        fprintf(to, "  %6" PRIu64 " .. ", c->called);
        if (c->returned != 0)
            fprintf(to, "%6" PRIu64, c->returned);
        else
            fprintf(to, "cut off");
        fprintf(to, "  at %" PRId64 " .. %" PRId64 " ms  worker %u: %s key %u", c->called_ms, c->returned_ms, c->worker,
                names_of[c->kind], c->key);
        if (c->returned != 0)
            fprintf(to, " -> %d (%s)", c->verdict, c->verdict < 0 ? idem_strerror(c->verdict) : "verdict");
        if (c->wait_token != 0 || c->waits)
            fprintf(to, " waited for %" PRIx64 "%s", c->wait_token, c->waits ? " and whatever ran" : "");
        fprintf(to, "%s%s token %" PRIx64 " lost %" PRIx64 " value %" PRIu64 " fingerprint %" PRIu64,
                c->transient ? " not kept" : "", c->durable ? " durable" : "", c->token, c->lost_token, c->value,
                c->fingerprint);
        if (c->ttl_ms != 0)
            fprintf(to, " ttl %" PRId64 " lease %" PRId64, c->ttl_ms, c->lease_ms);
        if (d->sent != 0)
            fprintf(to, "; it was killed at %" PRIu64 " .. %" PRIu64, d->sent, d->known);
        fputc('\n', to);
    }
}
