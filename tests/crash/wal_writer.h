/*
 * tests/crash/wal_writer.h - a log written by hand as leaders would, that tells what is durable; and each disk that a crash can leave, looked at.
 *
 * Owns: what a writer does right or wrong; the way over all prefixes of what was recorded (support/wal_disk.h). Records have tokens
 * WRITER_TOKEN + 1, + 2, ...; told is the number behind the plus.
 */
#ifndef TESTS_CRASH_WAL_WRITER_H
#define TESTS_CRASH_WAL_WRITER_H

#include "unit/wal_log.h"

#include "recover/scan.h"
#include "support/wal_disk.h"

#define WRITER_TOKEN ((uint64_t)LOG_T0 << 16)
#define RECORDS      400u

/* What one writer does wrong; 0: nothing. */
enum fault { NO_FAULT, TELLS_EARLY, UNSAID_FAILURE, SAME_FILE };

struct writer {
    struct hand_log l;
    enum fault fault;
    uint64_t token; /* of the next record; they begin at 1 */
    uint64_t told;
};

/* ------------------------------------------------------------------ a workload */

static inline void add_some(struct writer *w, unsigned n)
{
    char key[32], body[600];
    memset(body, 'b', sizeof body);
    for (unsigned i = 0; i < n; i++) {
        snprintf(key, sizeof key, "key %llu", (unsigned long long)w->token);
        body[w->token * 97 % (sizeof body - 1)] = '\0';
        hand_add(&w->l, hand_answer(&w->l, key, WRITER_TOKEN + w->token, body));
        body[w->token * 97 % (sizeof body - 1)] = 'b';
        w->token++;
    }
}
static inline void tell(struct writer *w)
{
    while (++w->told < w->token)
        wal_record_told(w->told);
    w->told--;
}

/* A batch of n records; told when it is durable. A sync that fails gives the file up: all that was not durable is written anew. */
static inline void batch(struct writer *w, unsigned n)
{
    uint64_t first = w->token;
    add_some(w, n);
    hand_flush(&w->l, false);
    if (w->fault == TELLS_EARLY)
        tell(w);
    bool synced = idem_io->fdatasync(w->l.fd) == 0;
    if (synced || w->fault == UNSAID_FAILURE) { /* he dies; the next one finds the file as it is, and tells for him */
        w->l.durable = w->l.at;
        if (synced)
            tell(w);
        return;
    }
    hand_file(&w->l, true);
    w->token = first;
    add_some(w, n);
    hand_flush(&w->l, false);
    CHECK_IS(idem_io->fdatasync(w->l.fd), 0);
    w->l.durable = w->l.at;
    tell(w);
}

/* What a leader leaves that dies in the middle of writing: the next one goes on in a new file. */
static inline void torn_batch(struct writer *w)
{
    uint64_t first = w->token;
    add_some(w, 3);
    uint8_t *bytes = w->l.bytes;
    hand_flush(&w->l, false);
    memset(bytes, 0, 700); /* its header never came, nor its first record */
    CHECK_IS(idem_io_write(w->l.fd, bytes, 700, IDEM_WAL_HEADER_BYTES + (w->l.durable - w->l.f.base)), 0);
    w->token = first;
    if (w->fault != SAME_FILE)
        hand_file(&w->l, true);
}

static inline void write_log(struct writer *w, const char *dir, enum fault fault, unsigned rounds)
{
    memset(w, 0, sizeof *w);
    w->token = 1;
    w->fault = fault;
    hand_open(&w->l, dir);
    hand_file(&w->l, true);
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned i = 1; i <= 5; i++)
            batch(w, i);
        hand_file(&w->l, true); /* rotation: what is before it is durable */
        batch(w, 2);
        wal_record_fail_sync(1);
        batch(w, 3);
        batch(w, 1);
        torn_batch(w);
        batch(w, 2);
        hand_file(&w->l, false); /* by a leader that dies before the id names its file */
        batch(w, 2);
    }
}

/* ------------------------------------------------------------------ what comes back */

struct found {
    uint8_t token[RECORDS];
};
static inline int find(void *ctx, const struct idem_rec *r, uint64_t file)
{
    struct found *f = ctx;
    (void)file;
    CHECK(r->token - WRITER_TOKEN < RECORDS);
    f->token[r->token - WRITER_TOKEN] = 1;
    return 0;
}

/* NULL: all that was told is there. Else what is wrong. By reading the log, without a store. */
static inline const char *look(const char *path, const uint64_t *told, unsigned n)
{
    static char why[400];
    static struct found f;
    struct idem_log_dir d;
    struct idem_scan_result r;
    memset(&f, 0, sizeof f);
    int e = idem_log_dir_open(path, false, 0, &d);
    if (e == IDEM_OK) {
        e = idem_scan(&d, find, &f, NULL, &r);
        idem_log_dir_close(&d);
    }
    if (e == IDEM_E_NO_STORE && n == 0)
        return NULL;
    if (e != IDEM_OK) {
        snprintf(why, sizeof why, "refused: %s", idem_error_detail());
        return why;
    }
    for (unsigned i = 0; i < n; i++)
        if (!f.token[told[i]]) {
            snprintf(why, sizeof why, "record %llu was told, and is lost", (unsigned long long)told[i]);
            return why;
        }
    return NULL;
}

static const enum wal_keep ways[][2] = {{WAL_SOME, WAL_SOME}, {WAL_KEPT, WAL_TORN}, {WAL_SOME, WAL_TORN},
                                        {WAL_KEPT, WAL_SOME}, {WAL_LOST, WAL_LOST}, {WAL_KEPT, WAL_LOST},
                                        {WAL_LOST, WAL_KEPT}, {WAL_KEPT, WAL_KEPT}};

struct tally {
    unsigned images, broken;
    char first[600];
};

/* Each prefix of what was recorded, from call `from` on, as so many disks each. quiet: a fault was planted; the first disk that shows it is enough. */
static inline struct tally all_prefixes(struct wal_disk *disk, unsigned from, unsigned images,
                                        const char *(*look_at)(const char *path, const uint64_t *told, unsigned n),
                                        bool quiet)
{
    struct tally t = {0, 0, ""};
    char at[160];
    uint64_t random = support_seed();
    snprintf(at, sizeof at, "%s/image", support_base());
    for (unsigned i = 0; i < wal_recorded(); i++) {
        wal_disk_apply(disk, i);
        if (i < from)
            continue;
        unsigned n;
        const uint64_t *told = wal_told(disk, &n);
        for (unsigned w = 0; w < images; w++) {
            const enum wal_keep *way = ways[w % (sizeof ways / sizeof ways[0])];
            bool there = wal_disk_image(disk, at, way[0], way[1], &random);
            const char *why = there ? look_at(at, told, n) : n > 0 ? "the directory is gone" : NULL;
            t.images++;
            if (why == NULL)
                continue;
            if (t.broken++ == 0)
                snprintf(t.first, sizeof t.first, "after call %u (%s), way %u: %s", i, wal_call_words(i), w, why);
            if (quiet)
                return t;
            print_error("after call %u (%s), way %u: %s\n", i, wal_call_words(i), w, why);
        }
    }
    support_remove(at);
    return t;
}

#endif
