/*
 * tests/unit/test_arguments.c - what a caller gets wrong is refused in words that name the argument, and changes nothing.
 *
 * Each argument of each public function, and each field of its structs, is set to what lies just outside of what the header allows.
 */
#include "support/support.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static idem_store *store, *logged;
static char log_of[160];

/* Where nothing is, nor comes to be. */
static const char *nowhere(void)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/nowhere", support_base());
    return path;
}

static const char *another(void)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/another", support_base());
    return path;
}

static void make_stores(void)
{
    if (store != NULL)
        return;
    idem_options o = support_options(16);
    store = support_open(support_dir(), &o);
    snprintf(log_of, sizeof log_of, "%s", support_dir());
    o.wal_dir = log_of;
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    logged = support_open(support_dir(), &o);
    support_answer(store, "done", 200, "an answer");
}

/* Refused with this code, in words that name it. */
static void refused(int line, int e, int code, const char *name)
{
    if (e != code || strstr(idem_error_detail(), name) == NULL)
        print_error("line %d: %d: %s\n", line, e, idem_error_detail());
    CHECK_IS(e, code);
    CHECK(strstr(idem_error_detail(), name) != NULL);
}
#define REFUSED(call, name) refused(__LINE__, (call), IDEM_E_INVALID, name)

/* ------------------------------------------------------------------ options */

static int open_with(idem_options o)
{
    static idem_store *s;
    const char *dir = support_dir();
    int e = idem_open(dir, &o, &s);
    CHECK(e == IDEM_OK || (s == NULL && access(dir, F_OK) != 0));
    if (e == IDEM_OK)
        idem_close(s);
    support_remove(dir);
    return e;
}

#define OPTION(field, value, name)            \
    do {                                      \
        idem_options o = support_options(16); \
        o.field = (value);                    \
        REFUSED(open_with(o), name);          \
    } while (0)
#define LOG_OPTION(field, value, name)        \
    do {                                      \
        idem_options o = support_options(16); \
        o.wal_dir = nowhere();                \
        o.field = (value);                    \
        REFUSED(open_with(o), name);          \
    } while (0)

static void options_out_of_bounds_are_refused_by_name(void **state)
{
    (void)state;
    OPTION(size, sizeof(idem_options) + 1, "options.size");
    OPTION(size, 8, "options.size");
    OPTION(flags, 1u << 5, "options.flags");
    OPTION(huge, IDEM_HUGE_OFF + 1, "huge");
    OPTION(when_full, IDEM_FULL_EVICT + 1, "when_full");
    OPTION(keys, 15, "options.keys");
    OPTION(keys, (UINT64_C(1) << 31) + 1, "options.keys");
    OPTION(response_bytes, (1u << 20) + 1, "options.response_bytes");
    OPTION(total_bytes, (UINT64_C(1) << 37) + 1, "options.total_bytes");
    OPTION(ttl_ms, -1, "options.ttl_ms");
    OPTION(ttl_ms, IDEM_TTL_MAX_MS + 1, "options.ttl_ms");
    OPTION(lease_ms, -1, "options.lease_ms");
    OPTION(lease_ms, IDEM_LEASE_MAX_MS + 1, "options.lease_ms");
    OPTION(processes, IDEM_PROCESSES_MAX + 1, "processes");
    OPTION(lanes, IDEM_LANES_MAX + 1, "lanes");
    OPTION(group, -1, "options.group");
    OPTION(group, INT64_C(1) << 32, "options.group");
    OPTION(durability_claim, IDEM_DURABILITY_SYNC + 1, "durability_claim");
    OPTION(durability_complete, IDEM_DURABILITY_SYNC + 1, "durability_complete");
    OPTION(durability_claim, IDEM_DURABILITY_ASYNC, "wal_dir"); /* the remedy */
    OPTION(durability_complete, IDEM_DURABILITY_ASYNC, "wal_dir");
    OPTION(wal_dir, "relative/path", "options.wal_dir");
    char path[1100];
    memset(path, '/', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    OPTION(wal_dir, path, "options.wal_dir");
    LOG_OPTION(flush_interval_ms, 10001, "options.flush_interval_ms");
    LOG_OPTION(log_wait_ms, 99, "options.log_wait_ms");
    LOG_OPTION(log_wait_ms, 600001, "options.log_wait_ms");
    LOG_OPTION(wal_file_bytes, (1u << 20) - 4096, "options.wal_file_bytes");
    LOG_OPTION(wal_file_bytes, (UINT64_C(1) << 30) + 4096, "options.wal_file_bytes");
    LOG_OPTION(wal_file_bytes, (1u << 20) + 1, "options.wal_file_bytes");
    LOG_OPTION(wal_ring_refs, 32, "options.wal_ring_refs");
    LOG_OPTION(wal_ring_refs, 131072, "options.wal_ring_refs");
    LOG_OPTION(wal_ring_refs, 96, "options.wal_ring_refs");
    REFUSED(idem_open(nowhere(), NULL, NULL), "store");
}

static void options_at_their_bounds_are_taken(void **state)
{
    (void)state;
    idem_options o = support_options(16);
    o.group = (int64_t)getegid() + 1;
    o.ttl_ms = IDEM_FOREVER;
    o.lease_ms = IDEM_LEASE_MAX_MS;
    CHECK_IS(open_with(o), IDEM_OK);
    o = support_options(16);
    o.size = offsetof(idem_options, keys); /* as an older program has it */
    o.total_bytes = UINT64_MAX;            /* beyond its size: not read */
    o.flags &= ~(uint32_t)IDEM_OPEN_CREATE;
    CHECK_IS(open_with(o), IDEM_E_NO_STORE);
}

static void names_and_paths_that_lead_nowhere_are_refused(void **state)
{
    (void)state;
    char longer[5000], slashes[200];
    snprintf(slashes, sizeof slashes, "%s///", nowhere());
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    REFUSED(idem_destroy(NULL), "dir");
    REFUSED(idem_destroy(""), "dir");
    REFUSED(idem_destroy(".hidden"), "'.hidden'");
    REFUSED(idem_destroy("-option"), "'-option'");
    REFUSED(idem_destroy("a b"), "'a b'");
    REFUSED(idem_destroy(longer), "store name");
    longer[0] = '/';
    REFUSED(idem_destroy(longer), "dir: longer");
    longer[0] = 'x';
    longer[1] = '/';
    REFUSED(idem_destroy(longer), "dir: longer");
    refused(__LINE__, idem_destroy(slashes), IDEM_E_NO_STORE, nowhere());
}

/* A log's place is said once, when the store is made. */
static void another_log_than_the_stores_is_refused(void **state)
{
    (void)state;
    make_stores();
    idem_options o = IDEM_OPTIONS_INIT;
    idem_store *s;
    o.wal_dir = another();
    REFUSED(idem_open(idem_path(logged), &o, &s), log_of);
    REFUSED(idem_open(idem_path(store), &o, &s), "has no log");
    o.wal_dir = log_of;
    o.flags |= IDEM_OPEN_NO_FLUSHER;
    CHECK_IS(idem_open(idem_path(logged), &o, &s), IDEM_OK);
    idem_close(s);
    CHECK(access(another(), F_OK) != 0);
}

/* ------------------------------------------------------------------ requests */

/* By both ways in: they must not differ. */
static void request_refused(int line, idem_request rq, const char *name)
{
    idem_claim c = IDEM_CLAIM_INIT;
    idem_result r = {.size = sizeof r, .claim = IDEM_CLAIM_INIT, .reply = IDEM_REPLY_INIT};
    uint64_t before = support_stats(store).claimed;
    refused(line, idem_begin(store, &rq, &c, NULL), IDEM_E_INVALID, name);
    CHECK_IS(c.token, 0);
    CHECK_IS(idem_begin_many(store, &rq, 1, &r), IDEM_OK);
    refused(line, r.verdict, IDEM_E_INVALID, name);
    refused(line, idem_wait(store, &rq, 10, &c, NULL), IDEM_E_INVALID, name);
    CHECK_IS(support_stats(store).claimed, before);
}
#define REQUEST(field, value, name)             \
    do {                                        \
        idem_request rq = support_request("k"); \
        rq.field = (value);                     \
        request_refused(__LINE__, rq, name);    \
    } while (0)

static void requests_out_of_bounds_are_refused_by_name(void **state)
{
    (void)state;
    make_stores();
    REQUEST(size, 1, "request.size");
    REQUEST(flags, 1u << 9, "request.flags");
    REQUEST(durability, IDEM_DURABILITY_SYNC + 1, "durability");
    REQUEST(durability, IDEM_DURABILITY_SYNC, "durability"); /* a store without a log */
    REQUEST(lease_ms, -1, "request.lease_ms");
    REQUEST(lease_ms, IDEM_LEASE_MAX_MS + 1, "request.lease_ms");
    REQUEST(ttl_ms, -1, "request.ttl_ms");
    REQUEST(ttl_ms, IDEM_TTL_MAX_MS + 1, "request.ttl_ms");
    REQUEST(key.key, NULL, "key");
    REQUEST(key.key_bytes, 0, "key");
    REQUEST(key.key_bytes, IDEM_KEY_MAX + 1, "key");
    REQUEST(key.scope_bytes, 3, "key"); /* of NULL */
    idem_request rq = support_request("k");
    rq.ttl_ms = IDEM_FOREVER;
    rq.lease_ms = IDEM_LEASE_MAX_MS;
    rq.durability = IDEM_DURABILITY_NONE;
    idem_claim c;
    CHECK_IS(idem_begin(store, &rq, &c, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_abandon(store, &c, IDEM_NOTHING_HAPPENED), IDEM_OK);
    idem_reply wrong = {.size = 1};
    idem_key key = support_key("k");
    REFUSED(idem_begin(store, &rq, &c, &wrong), "reply.size");
    REFUSED(idem_lookup(store, &key, &wrong), "reply.size");
    REFUSED(idem_begin(store, &rq, NULL, NULL), "claim");
    REFUSED(idem_begin(NULL, &rq, &c, NULL), "store");
    REFUSED(idem_begin(store, NULL, &c, NULL), "request");
}

/* ------------------------------------------------------------------ all the others */

#define RESPONSE(field, value, name)                                                   \
    do {                                                                               \
        idem_response r = support_response(200, "answer");                             \
        r.field = (value);                                                             \
        REFUSED(idem_complete(store, &c, &r), name);                                   \
        REFUSED(idem_resolve(store, &key, c.token, IDEM_RESOLVE_COMPLETED, &r), name); \
    } while (0)

static void answers_and_claims_out_of_bounds_are_refused_by_name(void **state)
{
    (void)state;
    make_stores();
    idem_claim c, other;
    idem_key key = support_key("held");
    char mark[IDEM_MARK_MAX + 1] = "";
    CHECK_IS(support_begin(store, "held", &c), IDEM_CLAIMED);
    RESPONSE(size, 1, "response.size");
    RESPONSE(flags, 1u << 9, "response.flags");
    RESPONSE(user_flags, 0x10000, "user_flags");
    RESPONSE(durability, IDEM_DURABILITY_SYNC + 1, "durability");
    RESPONSE(ttl_ms, -1, "ttl_ms");
    RESPONSE(ttl_ms, IDEM_TTL_MAX_MS + 1, "ttl_ms");
    RESPONSE(body, NULL, "body");
    RESPONSE(meta_bytes, 3, "meta");
    RESPONSE(flags, IDEM_RESPONSE_NOT_RETAINED, "not retained"); /* but here is a body */
    idem_response r = IDEM_RESPONSE_INIT;
    r.flags = IDEM_RESPONSE_TRANSIENT;
    REFUSED(idem_resolve(store, &key, c.token, IDEM_RESOLVE_COMPLETED, &r), "transient");
    REFUSED(idem_resolve(store, &key, c.token, 7, NULL), "resolution");
    REFUSED(idem_resolve(store, NULL, c.token, IDEM_RESOLVE_RERUN, NULL), "key");
    REFUSED(idem_resolve(NULL, &key, c.token, IDEM_RESOLVE_RERUN, NULL), "store");
    REFUSED(idem_forget(store, NULL), "key");
    REFUSED(idem_forget(store, &(idem_key){NULL, 0, NULL, 3}), "key");
    REFUSED(idem_release(store, NULL, 0), "key");
    REFUSED(idem_renew(store, NULL, 0), "claim");
    REFUSED(idem_renew(store, &c, -1), "lease_ms");
    REFUSED(idem_renew(store, &c, IDEM_LEASE_MAX_MS + 1), "lease_ms");
    other = c;
    other.lease_ms = 0;
    REFUSED(idem_renew(store, &other, 0), "claim.lease_ms");
    other.lease_ms = IDEM_LEASE_MAX_MS + 1;
    REFUSED(idem_renew(store, &other, 0), "claim.lease_ms");
    other = c;
    other.size = 1;
    REFUSED(idem_renew(store, &other, 0), "claim.size");
    REFUSED(idem_complete(store, NULL, &r), "claim");
    REFUSED(idem_adopt(store, NULL), "claim");
    REFUSED(idem_mark(store, &c, mark, sizeof mark), "mark");
    REFUSED(idem_mark(store, &c, NULL, 1), "mark");
    REFUSED(idem_abandon(store, &c, 9), "why");
    REFUSED(idem_abandon(store, NULL, IDEM_NOTHING_HAPPENED), "claim");
    REFUSED(idem_find(store, NULL, 0, &other), "key");
    REFUSED(idem_find(store, &key, 0, NULL), "claim");
    uint8_t wire[IDEM_CLAIM_WIRE_BYTES];
    idem_claim_encode(&c, wire);
    CHECK_IS(idem_claim_decode(wire, &other), IDEM_OK);
    wire[0] ^= 1;
    REFUSED(idem_claim_decode(wire, &other), "wire");
    wire[0] ^= 1;
    memset(wire + 48, 0xff, 8);
    REFUSED(idem_claim_decode(wire, &other), "wire: lease");
    wire[55] = 0x7f;
    REFUSED(idem_claim_decode(wire, &other), "wire: lease");
    CHECK_IS(idem_complete(store, &c, &(idem_response)IDEM_RESPONSE_INIT), IDEM_OK); /* nothing has happened to it */
}

static int no_record(const idem_log_record *record, void *ctx)
{
    (void)record;
    (void)ctx;
    return 0;
}
static int no_story(const idem_story *story, void *ctx)
{
    (void)story;
    (void)ctx;
    return 0;
}

#define RECOVERY(field, value, name)          \
    do {                                      \
        idem_recovery r = IDEM_RECOVERY_INIT; \
        r.dir = nowhere();                    \
        r.wal_dir = log_of;                   \
        r.field = (value);                    \
        REFUSED(idem_recover(&r), name);      \
    } while (0)

static void what_looks_and_what_recovers_refuses_by_name(void **state)
{
    (void)state;
    make_stores();
    idem_key key = support_key("done");
    idem_story story = IDEM_STORY_INIT;
    uint8_t digest[16];
    REFUSED(idem_recover(NULL), "recovery.size");
    RECOVERY(size, 1, "recovery.size");
    RECOVERY(dir, NULL, "dir");
    RECOVERY(wal_dir, NULL, "wal_dir");
    RECOVERY(wal_dir, "relative", "wal_dir");
    RECOVERY(wal_dir, "", "wal_dir");
    RECOVERY(reserved, 1, "reserved");
    RECOVERY(flags, 1u << 9, "flags");
    RECOVERY(now_wall_ms, -1, "now_wall_ms");
    REFUSED(idem_log_walk(NULL, no_record, NULL), "wal_dir");
    REFUSED(idem_log_walk(log_of, NULL, NULL), "fn");
    REFUSED(idem_walk(store, NULL, NULL), "fn");
    REFUSED(idem_walk(NULL, no_story, NULL), "store");
    REFUSED(idem_sync(store, -1), "timeout_ms");
    REFUSED(idem_sync(NULL, 0), "store");
    CHECK_IS(idem_sync(store, 0), IDEM_OK); /* without a log there is nothing to wait for */
    REFUSED(idem_lookup(store, NULL, NULL), "key");
    REFUSED(idem_explain(store, NULL, &story), "key");
    REFUSED(idem_explain(store, &key, NULL), "story");
    story.size = 1;
    REFUSED(idem_explain(store, &key, &story), "story.size");
    REFUSED(idem_digest(store, NULL, 1, digest), "bytes");
    REFUSED(idem_digest(store, "a", 1, NULL), "digest");
    REFUSED(idem_digest(NULL, "a", 1, digest), "store");
    REFUSED(idem_stats(store, NULL), "stats");
    REFUSED(idem_stats(NULL, &(idem_stats_data){.size = sizeof(idem_stats_data)}), "store");
    REFUSED(idem_maintain(NULL, 0), "store");
    REFUSED(idem_owner_fd(NULL), "store");
    REFUSED(idem_verify(nowhere(), NULL), "report.size");
    REFUSED(idem_verify(nowhere(), &(idem_report){.size = 1}), "report.size");
    CHECK_IS(idem_fingerprint(store, NULL, 1), 0);
    CHECK_IS(idem_fingerprint(NULL, "a", 1), 0);
    CHECK(idem_fingerprint_begin(NULL) == NULL);
    CHECK_IS(idem_fingerprint_end(NULL), 0);
    idem_fingerprint_update(NULL, "a", 1);
    idem_fingerprint_state *f = idem_fingerprint_begin(store);
    idem_fingerprint_update(f, NULL, 1); /* as if it had not been said */
    idem_fingerprint_update(f, "a", 0);
    idem_fingerprint_update(f, "abc", 3);
    CHECK_IS(idem_fingerprint_end(f), idem_fingerprint(store, "abc", 3));
    CHECK_BYTES(idem_path(NULL), 0, "");
    idem_prefetch(store, NULL);
    idem_prefetch(NULL, &key);
    idem_prefetch(store, &(idem_key){NULL, 0, NULL, 1});
    idem_prefetch(store, &key);
    idem_reply_free(NULL);
    idem_story_free(NULL);
    idem_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_out_of_bounds_are_refused_by_name),
        cmocka_unit_test(options_at_their_bounds_are_taken),
        cmocka_unit_test(names_and_paths_that_lead_nowhere_are_refused),
        cmocka_unit_test(another_log_than_the_stores_is_refused),
        cmocka_unit_test(requests_out_of_bounds_are_refused_by_name),
        cmocka_unit_test(answers_and_claims_out_of_bounds_are_refused_by_name),
        cmocka_unit_test(what_looks_and_what_recovers_refuses_by_name),
    };
    int failed = cmocka_run_group_tests(tests, support_setup, support_teardown);
    idem_close(store);
    idem_close(logged);
    return failed;
}
