/*
 * tests/multi/test_wal_sync.c - a store with a log, from outside: what is on the disk when a call returns, with one process and several.
 *
 * What is on the disk is read by idem_log_walk(); that it would survive a crash is the crash tests' business.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/support.h"

struct place {
    const char *dir;
    char wal[160];
};

static struct place a_place(void)
{
    struct place p = {.dir = support_dir()};
    snprintf(p.wal, sizeof p.wal, "%s-log", p.dir);
    return p;
}

static idem_options log_options(const struct place *p, unsigned claim, unsigned complete)
{
    idem_options o = support_options(1000);
    o.wal_dir = p->wal;
    o.durability_claim = claim;
    o.durability_complete = complete;
    o.wal_file_bytes = 1 << 20;
    o.wal_ring_refs = 64;
    return o;
}

struct seen {
    const char *key;
    unsigned records, completed, claims, abandoned, forgotten;
    uint64_t token;
};

static int look(const idem_log_record *r, void *ctx)
{
    struct seen *s = ctx;
    if (r->key.key_bytes != strlen(s->key) || memcmp(r->key.key, s->key, r->key.key_bytes) != 0)
        return 0;
    s->records++;
    s->completed += r->state == 2;
    s->claims += r->state == 1;
    s->abandoned += r->state == 3;
    s->forgotten += r->state == 7;
    s->token = r->token;
    return 0;
}

static struct seen on_disk(const struct place *p, const char *key)
{
    struct seen s = {.key = key};
    CHECK_IS(idem_log_walk(p->wal, look, &s), IDEM_OK);
    return s;
}

static void sync_calls_return_with_their_record_on_the_disk(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_options o = log_options(&p, IDEM_DURABILITY_SYNC, IDEM_DURABILITY_SYNC);
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    idem_store *s = support_open(p.dir, &o);
    idem_claim c;
    CHECK_IS(support_begin(s, "k", &c), IDEM_CLAIMED);
    CHECK_IS(on_disk(&p, "k").claims, 1);
    CHECK_IS(on_disk(&p, "k").token, c.token);
    CHECK_IS(idem_mark(s, &c, "m", 1), IDEM_OK);
    CHECK_IS(on_disk(&p, "k").claims, 2);
    CHECK_IS(support_complete(s, &c, 200, "yes"), IDEM_OK);
    CHECK_IS(on_disk(&p, "k").completed, 1);
    CHECK_IS(support_complete(s, &c, 200, "yes"), IDEM_OK);
    CHECK_IS(support_begin(s, "k", NULL), IDEM_REPLAY);
    CHECK_IS(on_disk(&p, "k").records, 3);
    CHECK_IS(support_begin(s, "left", &c), IDEM_CLAIMED);
    CHECK_IS(idem_abandon(s, &c, IDEM_NOTHING_HAPPENED), IDEM_OK);
    CHECK_IS(on_disk(&p, "left").abandoned, 1);
    idem_key k = support_key("k");
    CHECK_IS(idem_forget(s, &k), IDEM_OK);
    CHECK_IS(on_disk(&p, "k").forgotten, 1);
    idem_stats_data st = support_stats(s);
    CHECK_IS(st.log.present, 1);
    CHECK_IS(st.log.queued, 0);
    CHECK(st.log.syncs >= 5);
    CHECK_IS(st.log.trouble, IDEM_LOG_FINE);
    idem_close(s);
    support_verify(p.dir);
    support_remove(p.wal);
}

static bool written(void *ctx)
{
    return on_disk(ctx, "k").completed == 1;
}

static void async_is_written_by_the_flusher(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_options o = log_options(&p, IDEM_DURABILITY_ASYNC, IDEM_DURABILITY_ASYNC);
    idem_store *s = support_open(p.dir, &o);
    support_answer(s, "k", 200, "yes");
    CHECK(support_eventually(written, &p, SUPPORT_PATIENCE_MS));
    idem_close(s);
    support_remove(p.wal);
}

static void idem_sync_waits_for_what_was_pushed(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_options o = log_options(&p, IDEM_DURABILITY_ASYNC, IDEM_DURABILITY_ASYNC);
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    o.flush_interval_ms = 10000;
    idem_store *s = support_open(p.dir, &o);
    support_answer(s, "k", 200, "yes");
    idem_claim c;
    CHECK_IS(support_begin(s, "open", &c), IDEM_CLAIMED);
    CHECK_IS(on_disk(&p, "k").records, 0);
    CHECK_IS(idem_sync(s, 0), IDEM_OK);
    CHECK_IS(on_disk(&p, "k").completed, 1);
    CHECK_IS(on_disk(&p, "k").claims, 0); /* it ended before anybody came to write it */
    CHECK_IS(on_disk(&p, "open").claims, 1);
    idem_close(s);
    support_remove(p.wal);
}

static void a_full_ring_is_made_up_for_by_a_walk(void **state)
{
    (void)state;
    struct place p = a_place();
    idem_options o = log_options(&p, IDEM_DURABILITY_ASYNC, IDEM_DURABILITY_ASYNC);
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    o.flush_interval_ms = 10000;
    idem_store *s = support_open(p.dir, &o);
    char key[16];
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "k%d", i);
        support_answer(s, key, 200, "yes");
    }
    CHECK(support_stats(s).log.overflows > 0);
    CHECK_IS(idem_sync(s, 0), IDEM_OK);
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "k%d", i);
        CHECK_IS(on_disk(&p, key).completed, 1);
    }
    CHECK(support_stats(s).log.walks > 0);
    idem_close(s);
    support_remove(p.wal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sync_calls_return_with_their_record_on_the_disk),
        cmocka_unit_test(async_is_written_by_the_flusher),
        cmocka_unit_test(idem_sync_waits_for_what_was_pushed),
        cmocka_unit_test(a_full_ring_is_made_up_for_by_a_walk),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
