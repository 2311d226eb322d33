/*
 * tests/multi/test_wal_week.c - a week of steady traffic with a log, on an injected clock: answers for minutes, for a day, and for ever; claims that
 * run for hours. The log's files stay within the bound that docs/wal.md ("Old files") names, whenever they are looked at; and at moments of each day a
 * recovery of what is on the disk brings back exactly what lives.
 */
#include "support/support.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "wal/format.h"

#define MINUTE_MS   INT64_C(60000)
#define HOUR_MS     (60 * MINUTE_MS)
#define DAY_MS      (24 * HOUR_MS)
#define FILE_BYTES  (UINT64_C(1) << 20)
#define KEY_BYTES   43u
#define BODY_BYTES  64u
#define RUN_MINUTES 180 /* of a claim that takes long: it is written, and its record carried forward */
#define KEYS_MAX    1200000u

static const char text[] = "sixty-four bytes of an answer, padded to what the store was made for";
static const char mark[] = "half of it is done";

/* What the oracle knows of a key; keys are numbered from 0 on and never used twice. */
static struct week {
    const char *dir;
    char log[160];
    idem_store *store;
    int64_t now_ms; /* simulated, since the beginning */
    uint64_t random, next_key;
    uint64_t first_alive; /* no answer below this one lives, but for those for ever */
    uint64_t running;     /* key of the claim that takes long, plus 1 */
    idem_claim claim;
    int running_since; /* minute */
    unsigned day_long, others;
    uint64_t most_files, recoveries;
    double most_of_bound;
    int64_t ends_ms[KEYS_MAX]; /* 0: there must be no answer */
    uint8_t for_ever[KEYS_MAX];
} w;

static const char *name_of(uint64_t key)
{
    static char name[64];
    snprintf(name, sizeof name, "0123456789-0123456789-0123456789-%010llu", (unsigned long long)key);
    return name;
}

/* ------------------------------------------------------------------ traffic */

static uint64_t claim_next(int64_t ttl_ms, idem_claim *claim)
{
    uint64_t key = w.next_key++;
    CHECK(key < KEYS_MAX);
    idem_request rq = support_request(name_of(key));
    rq.ttl_ms = ttl_ms;
    rq.lease_ms = 24 * HOUR_MS;
    CHECK_IS(idem_begin(w.store, &rq, claim, NULL), IDEM_CLAIMED);
    return key;
}

static void answer(uint64_t key, const idem_claim *claim, int64_t ttl_ms)
{
    idem_response rs = support_response((int32_t)key, text);
    rs.body_bytes = BODY_BYTES;
    rs.ttl_ms = ttl_ms;
    CHECK_IS(idem_complete(w.store, claim, &rs), IDEM_OK);
    w.ends_ms[key] = ttl_ms == IDEM_FOREVER ? INT64_MAX : w.now_ms + ttl_ms;
    w.for_ever[key] = ttl_ms == IDEM_FOREVER;
}

static void one_request(int64_t ttl_ms)
{
    idem_claim claim;
    uint64_t key = claim_next(ttl_ms, &claim);
    answer(key, &claim, ttl_ms);
    if (ttl_ms < DAY_MS && support_random(&w.random) % 16 == 0) {
        idem_key k = support_key(name_of(key));
        CHECK_IS(idem_forget(w.store, &k), IDEM_OK);
        w.ends_ms[key] = 0;
    }
}

/* One at a time: begun, marked, and completed hours later. */
static void long_claim(int minute)
{
    if (w.running == 0) {
        w.running = claim_next(DAY_MS, &w.claim) + 1;
        w.running_since = minute;
        CHECK_IS(idem_mark(w.store, &w.claim, mark, sizeof mark), IDEM_OK);
    } else if (minute - w.running_since >= RUN_MINUTES) {
        answer(w.running - 1, &w.claim, DAY_MS);
        w.running = 0;
    }
}

static void one_minute(int minute)
{
    for (unsigned i = 0; i < w.day_long; i++)
        one_request(DAY_MS);
    for (unsigned i = 0; i < w.others; i++)
        one_request(1000 + (int64_t)(support_random(&w.random) % (uint64_t)(10 * MINUTE_MS)));
    if (minute % 30 == 0)
        one_request(IDEM_FOREVER);
    long_claim(minute);
    CHECK_IS(idem_sync(w.store, SUPPORT_PATIENCE_MS), IDEM_OK);
    /* The flusher's part: a walk goes on from batch to batch, twenty a second; no hour of traffic comes between two of them. */
    for (int i = 0; i < 64 && minute % 20 == 0; i++)
        CHECK(idem_maintain(w.store, 0) >= 0);
}

/* ------------------------------------------------------------------ the bound */

/* Bytes of the records of all that lives, as the oracle has it. */
static uint64_t live_bytes(void)
{
    uint64_t n = w.running != 0;
    while (w.first_alive < w.next_key && (w.ends_ms[w.first_alive] <= w.now_ms || w.for_ever[w.first_alive]))
        w.first_alive++;
    for (uint64_t key = w.first_alive; key < w.next_key; key++)
        n += w.ends_ms[key] > w.now_ms;
    for (uint64_t key = 0; key < w.first_alive; key++)
        n += w.for_ever[key];
    return n * idem_wal_padded(IDEM_WAL_FIXED_BYTES + KEY_BYTES + BODY_BYTES);
}

/* Four files, or twice what lives and two files; what a walk that is at work writes anew comes on top, and the space of the file begun. */
static void check_bound(void)
{
    uint64_t files = 0, bytes = 0, live = live_bytes();
    DIR *d = opendir(w.log);
    CHECK(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        struct stat st;
        if (strncmp(e->d_name, "wal-", 4) != 0 || fstatat(dirfd(d), e->d_name, &st, 0) != 0)
            continue;
        files++;
        bytes += (uint64_t)st.st_size;
    }
    closedir(d);
    CHECK_IS(bytes, files * FILE_BYTES);
    CHECK_IS(support_stats(w.store).log.bytes_on_disk, bytes);
    uint64_t most = 2 * live + 2 * FILE_BYTES < 4 * FILE_BYTES ? 4 * FILE_BYTES : 2 * live + 2 * FILE_BYTES;
    most += live + FILE_BYTES;
    double of_bound = (double)bytes / (double)most;
    if (of_bound > w.most_of_bound)
        w.most_of_bound = of_bound;
    if (files > w.most_files)
        w.most_files = files;
    CHECK(bytes <= most);
}

/* ------------------------------------------------------------------ recovery */

static void copy_file(int from_dir, int to_dir, const char *name)
{
    static char buffer[FILE_BYTES];
    int from = openat(from_dir, name, O_RDONLY), to = openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
    ssize_t n;
    CHECK(from >= 0 && to >= 0);
    while ((n = read(from, buffer, sizeof buffer)) > 0)
        CHECK_IS(write(to, buffer, (size_t)n), n);
    CHECK_IS(n, 0);
    close(from);
    close(to);
}

static void copy_log(const char *to)
{
    CHECK_IS(mkdir(to, 0700), 0);
    DIR *from = opendir(w.log);
    int to_dir = open(to, O_RDONLY | O_DIRECTORY);
    CHECK(from != NULL && to_dir >= 0);
    for (struct dirent *e; (e = readdir(from)) != NULL;)
        if (e->d_name[0] != '.')
            copy_file(dirfd(from), to_dir, e->d_name);
    close(to_dir);
    closedir(from);
}

/* Each key, in the store that came back. The real clock runs beside the simulated one: near its end a key may be either. */
static void check_keys(idem_store *store)
{
    idem_reply reply = IDEM_REPLY_INIT;
    for (uint64_t key = 0; key < w.next_key; key++) {
        idem_key k = support_key(name_of(key));
        int64_t left_ms = w.for_ever[key] ? INT64_MAX : w.ends_ms[key] - w.now_ms;
        if (left_ms > 0 && left_ms < 2 * SUPPORT_PATIENCE_MS)
            continue;
        int e = idem_lookup(store, &k, &reply);
        if (left_ms > 0) {
            CHECK_IS(e, IDEM_REPLAY);
            CHECK_IS(reply.status, (int32_t)key);
            CHECK_IS(reply.body_bytes, BODY_BYTES);
        } else if (key + 1 == w.running) {
            CHECK_IS(e, IDEM_UNKNOWN); /* in progress at the crash */
            CHECK_BYTES(reply.mark, reply.mark_bytes - 1, mark);
        } else {
            CHECK_IS(e, IDEM_E_NO_KEY);
        }
        idem_reply_free(&reply);
    }
}

static void check_recovery(void)
{
    char dir[160], log[200];
    snprintf(dir, sizeof dir, "%s-again", w.dir);
    snprintf(log, sizeof log, "%s-log", dir);
    copy_log(log);
    idem_recovery r = IDEM_RECOVERY_INIT;
    r.dir = dir;
    r.wal_dir = log;
    CHECK_IS(idem_recover(&r), IDEM_OK);
    CHECK_IS(r.damaged, 0);
    CHECK_IS(r.cut_bytes, 0);
    idem_store *store = support_attach(dir);
    check_keys(store);
    idem_close(store);
    support_verify(dir);
    support_remove(dir);
    support_remove(log);
    w.recoveries++;
}

/* ------------------------------------------------------------------ the week */

static void a_week(void *dir)
{
    memset(&w, 0, sizeof w);
    w.dir = dir;
    snprintf(w.log, sizeof w.log, "%s-log", w.dir);
    w.random = support_seed();
    w.day_long = (unsigned)support_scaled(support_long() ? 40 : 6, 3);
#ifdef IDEM_COVERAGE /* counting what runs takes three times as long */
    w.day_long /= 2;
#endif
    w.others = w.day_long / 2;
    idem_options o = support_options(1440 * (uint64_t)w.day_long * 2 + 4000);
    o.flags |= IDEM_OPEN_NO_FLUSHER; /* nobody leads but who is asked to: the same week each time */
    o.wal_dir = w.log;
    o.wal_file_bytes = FILE_BYTES;
    o.durability_claim = o.durability_complete = IDEM_DURABILITY_ASYNC;
    w.store = support_open(w.dir, &o);
    const int last = 7 * 1440 - 1;
    int next_recovery = 600;
    for (int minute = 0; minute <= last; minute++) {
        one_minute(minute);
        if (minute % 40 == 27)
            check_bound();
        if (minute == next_recovery || minute == last) {
            check_recovery();
            next_recovery += (support_long() ? 500 : 1000) + (int)(support_random(&w.random) % 1000);
        }
        support_clock_add(MINUTE_MS);
        w.now_ms += MINUTE_MS;
    }
    idem_stats_data s = support_stats(w.store);
    CHECK_IS(s.full, 0);
    CHECK_IS(s.log.trouble, IDEM_LOG_FINE);
    print_message(
        "a week: %llu keys, %llu records, %llu MiB written; at most %llu files, %.0f %% of the bound; %llu walks, "
        "%llu recoveries\n",
        (unsigned long long)w.next_key, (unsigned long long)s.log.records, (unsigned long long)(s.log.written >> 20),
        (unsigned long long)w.most_files, 100 * w.most_of_bound, (unsigned long long)s.log.walks,
        (unsigned long long)w.recoveries);
    CHECK(w.recoveries >= 4);
    idem_close(w.store);
    support_verify(w.dir);
}

PROMISE(a_week, "retain.never", "retain.uncopied", "retain.unexpired", NULL)

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_week)};
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
