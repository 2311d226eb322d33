/*
 * tests/unit/wal_led.h - a store with a log that a test leads by hand, with calls of libc that can be refused.
 */
#ifndef TESTS_UNIT_WAL_LED_H
#define TESTS_UNIT_WAL_LED_H

#include "support/support.h"

#include "unit/refused_calls.h"

#include "segment/view.h"
#include "store/handle.h"
#include "wal/lead.h"
#include "wal/sync.h"

static char dir[160], wal[160];
static idem_options options;
static idem_store *s;
static struct idem_view *v;
static struct idem_log *wlog;
static struct idem_a64 *control;
static struct idem_log_dir d; /* the same directory, opened by somebody else */

static inline void attach(void)
{
    s = support_open(dir, &options);
    v = s->view;
    wlog = v->wal;
    control = v->root->log_control;
}

static inline void begin(void)
{
    refuse_nothing();
    idem_io = &idem_io_system;
    snprintf(dir, sizeof dir, "%s", support_dir());
    snprintf(wal, sizeof wal, "%s", support_dir());
    options = support_options(64);
    options.response_bytes = 60000;
    options.wal_dir = wal;
    options.wal_file_bytes = 8 << 20;
    options.log_wait_ms = 200;
    options.durability_claim = options.durability_complete = IDEM_DURABILITY_SYNC;
    options.flags |= IDEM_OPEN_NO_FLUSHER;
    attach();
    CHECK_IS(support_begin(s, "first", NULL), IDEM_CLAIMED); /* the file is open */
    CHECK_IS(idem_log_dir_open(wal, false, 0, &d), IDEM_OK);
}

static inline void over(void)
{
    idem_log_dir_close(&d);
    idem_close(s);
    support_remove(dir);
    support_remove(wal);
}

static inline struct idem_lead *elect(void)
{
    struct idem_lead *lead = NULL;
    CHECK_IS(idem_log_elect(wlog, false, &lead), IDEM_OK);
    return lead;
}

static inline int one_batch(void)
{
    struct idem_lead *lead;
    int e = idem_log_elect(wlog, false, &lead);
    if (e != IDEM_OK)
        return e;
    e = idem_log_batch(lead);
    idem_log_resign(lead);
    return e;
}

/* Until there is no more to do: a walk goes on over several, as long as its slices take. */
static inline int batches(void)
{
    int e = 1;
    for (unsigned i = 0; i < 1000 && e == 1; i++)
        e = one_batch();
    return e;
}

/* One claim that waits for nobody. */
static inline void push_one(const char *key)
{
    idem_request rq = support_request(key);
    idem_claim c;
    rq.durability = IDEM_DURABILITY_ASYNC;
    CHECK_IS(idem_begin(s, &rq, &c, NULL), IDEM_CLAIMED);
}

static inline void put(enum idem_log_control i, uint64_t value)
{
    store_release(&control[i], log_epoch_word((unsigned)load_relaxed(&control[LOG_EPOCH]), value));
}

#endif
