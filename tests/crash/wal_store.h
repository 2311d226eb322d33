/*
 * tests/crash/wal_store.h - a store with a log, its users, and what somebody was told about each key.
 *
 * Owns: the place (log and store beside each other); keys "k0", "k1" ...; a page shared with all children that says how far each key has come
 * by word of the library, and how durably. A user says so after the call has returned: so what the page says was told.
 */
#ifndef TESTS_CRASH_WAL_STORE_H
#define TESTS_CRASH_WAL_STORE_H

#include "support/support.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAL_KEYS 512u

enum wal_known { WAL_NOTHING, WAL_CLAIMED, WAL_COMPLETED };

struct wal_place {
    char base[160], log[176], store[176];
    idem_options options;
    struct wal_page {
        struct idem_a64 said[WAL_KEYS];    /* enum wal_known: told, whatever its durability */
        struct idem_a64 durable[WAL_KEYS]; /* told as durable */
        struct idem_a64 errors, go, done;
    } * page;
};

static inline void wal_place_make(struct wal_place *p)
{
    memset(p, 0, sizeof *p);
    snprintf(p->base, sizeof p->base, "%s", support_dir());
    snprintf(p->log, sizeof p->log, "%s/log", p->base);
    snprintf(p->store, sizeof p->store, "%s/store", p->base);
    CHECK_IS(mkdir(p->base, 0700), 0);
    p->options = support_options(200);
    p->options.response_bytes = 65536;        /* so that a few of them fill a file */
    p->options.flags |= IDEM_OPEN_NO_FLUSHER; /* the test process forks: no threads in it. Its children have theirs. */
    p->options.wal_dir = p->log;
    p->options.durability_claim = IDEM_DURABILITY_ASYNC;
    p->options.durability_complete = IDEM_DURABILITY_SYNC;
    p->options.flush_interval_ms = 10;
    p->options.log_wait_ms = 2000;
    p->options.wal_file_bytes = 1 << 20;
    p->options.wal_ring_refs = 64;
    p->page = support_shared(sizeof *p->page);
}

static inline void wal_say(struct idem_a64 *at, enum wal_known what)
{
    store_release(at, (uint64_t)what); /* P1 release: after the call that said so */
}
static inline enum wal_known wal_said(const struct idem_a64 *at)
{
    return (enum wal_known)load_acquire(at); /* P1 acquire: as above */
}

static inline idem_key wal_key(unsigned k, char text[16])
{
    snprintf(text, 16, "k%u", k);
    return support_key(text);
}

/* Claims and completes key k. sync: the claim, too, is asked to be durable. An error of the log is no end: what is asked again gets
   another answer. False: it did not come to its end. told: called after each step that was told as durable; may be NULL. */
static inline bool wal_do_key(struct wal_place *p, idem_store *store, unsigned k, uint32_t claim_as,
                              uint32_t complete_as, size_t body_bytes, void (*told)(unsigned k, enum wal_known what))
{
    static char body[200000];
    char text[16];
    idem_claim claim = IDEM_CLAIM_INIT;
    idem_request rq = IDEM_REQUEST_INIT;
    CHECK(body_bytes <= sizeof body);
    memset(body, 'a' + (int)(k % 26), body_bytes);
    rq.key = wal_key(k, text);
    rq.durability = claim_as;
    int e = IDEM_E_LOG;
    for (unsigned tries = 0; tries < 20 && (e == IDEM_E_LOG || e == IDEM_E_LOG_SPACE || e == IDEM_E_LOG_STALLED);
         tries++)
        e = idem_begin(store, &rq, &claim, NULL);
    if (e != IDEM_CLAIMED && e != IDEM_RECLAIMED) {
        add_relaxed(&p->page->errors, 1); /* relaxed: a count */
        return false;
    }
    wal_say(&p->page->said[k], WAL_CLAIMED);
    if (claim_as == IDEM_DURABILITY_SYNC) {
        wal_say(&p->page->durable[k], WAL_CLAIMED);
        if (told != NULL)
            told(k, WAL_CLAIMED);
    }
    idem_response r = IDEM_RESPONSE_INIT;
    r.status = 200;
    r.body = body;
    r.body_bytes = body_bytes;
    r.durability = complete_as;
    e = IDEM_E_LOG;
    for (unsigned tries = 0; tries < 20 && (e == IDEM_E_LOG || e == IDEM_E_LOG_SPACE || e == IDEM_E_LOG_STALLED);
         tries++)
        e = idem_complete(store, &claim, &r);
    if (e != IDEM_OK) {
        add_relaxed(&p->page->errors, 1); /* relaxed: a count */
        return false;
    }
    wal_say(&p->page->said[k], WAL_COMPLETED);
    if (complete_as == IDEM_DURABILITY_SYNC) {
        wal_say(&p->page->durable[k], WAL_COMPLETED);
        if (told != NULL)
            told(k, WAL_COMPLETED);
    }
    return true;
}

static inline int wal_recover(const char *log, const char *store)
{
    idem_recovery r = IDEM_RECOVERY_INIT;
    r.dir = store;
    r.wal_dir = log;
    support_remove(store);
    return idem_recover(&r);
}

/* What a store says of a key. */
static inline enum wal_known wal_ask(idem_store *store, unsigned k)
{
    char text[16];
    idem_key key = wal_key(k, text);
    int e = idem_lookup(store, &key, NULL);
    return e == IDEM_REPLAY ? WAL_COMPLETED : e == IDEM_E_NO_KEY ? WAL_NOTHING : WAL_CLAIMED;
}

/* The segment is gone, as after a reboot: all that the page says (said or durable) is in the recovered store. */
static inline void wal_check_recovered(struct wal_place *p, const struct idem_a64 *page)
{
    CHECK_IS(wal_recover(p->log, p->store), IDEM_OK);
    idem_store *s = support_attach(p->store);
    for (unsigned k = 0; k < WAL_KEYS; k++)
        if (wal_ask(s, k) < wal_said(&page[k])) {
            print_error("key %u was told as %u, and is %u\n", k, (unsigned)wal_said(&page[k]), (unsigned)wal_ask(s, k));
            CHECK(wal_ask(s, k) >= wal_said(&page[k]));
        }
    idem_close(s);
    support_verify(p->store);
}

#endif
