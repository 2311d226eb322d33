/*
 * sqlite.c - SQLite: INSERT OR IGNORE claims, UPDATE completes, SELECT replays; prepared statements, a WITHOUT ROWID table, WAL.
 *
 * "sqlite" has synchronous=OFF on a tmpfs; "sqlite/full" is on the disk with synchronous=FULL. A batch is one
 * BEGIN IMMEDIATE ... COMMIT. Who finds the writer's place taken yields and tries again at once: SQLite's own busy timeout sleeps for
 * milliseconds.
 */
#include <sched.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#include "peer.h"

enum { TRIES_MAX = 2000000 };

struct table {
    char path[330];
    const char *synchronous;
};

struct worker {
    sqlite3 *db;
    sqlite3_stmt *begin, *commit, *claim, *complete, *fill, *replay;
    char error[200];
};

static int yield(void *ctx, int tries)
{
    (void)ctx;
    sched_yield();
    return tries < TRIES_MAX;
}

static void version(const struct peer *self, char *text, size_t text_bytes)
{
    (void)self;
    snprintf(text, text_bytes, "SQLite %s", sqlite3_libversion());
}

static sqlite3 *db_open(const struct table *t, char *why)
{
    sqlite3 *db = NULL;
    char setting[160];
    snprintf(setting, sizeof setting,
             "PRAGMA journal_mode=WAL; PRAGMA synchronous=%s; PRAGMA mmap_size=4294967296; PRAGMA cache_size=-1048576;",
             t->synchronous);
    int bad = sqlite3_open_v2(t->path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    sqlite3_busy_handler(db, yield, NULL);
    if (bad == SQLITE_OK && sqlite3_exec(db, setting, NULL, NULL, NULL) == SQLITE_OK)
        return db;
    snprintf(why, PEER_WHY_BYTES, "opening the database: %s", sqlite3_errmsg(db));
    sqlite3_close(db);
    return NULL;
}

static void *prepare(const struct peer *self, const struct peer_place *place, char *why)
{
    struct table *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    snprintf(t->path, sizeof t->path, "%s/keys.db", self->durable ? place->disk : place->dir);
    t->synchronous = self->durable ? "FULL" : "OFF";
    sqlite3 *db = db_open(t, why);
    if (db && sqlite3_exec(db, "CREATE TABLE keys(key BLOB PRIMARY KEY, answer BLOB) WITHOUT ROWID", NULL, NULL,
                           NULL) == SQLITE_OK) {
        sqlite3_close(db);
        return t;
    }
    if (db)
        snprintf(why, PEER_WHY_BYTES, "CREATE TABLE: %s", sqlite3_errmsg(db));
    sqlite3_close(db);
    free(t);
    return NULL;
}

static bool compile(struct worker *w, const char *sql, sqlite3_stmt **out)
{
    return sqlite3_prepare_v3(w->db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL) == SQLITE_OK;
}

static void *attach(void *shared, unsigned me, char *why)
{
    struct worker *w = calloc(1, sizeof *w);
    (void)me;
    if (!w)
        return NULL;
    w->db = db_open(shared, why);
    if (!w->db) {
        free(w);
        return NULL;
    }
    if (compile(w, "BEGIN IMMEDIATE", &w->begin) && compile(w, "COMMIT", &w->commit) &&
        compile(w, "INSERT OR IGNORE INTO keys VALUES(?1, NULL)", &w->claim) &&
        compile(w, "INSERT OR IGNORE INTO keys VALUES(?1, ?2)", &w->fill) &&
        compile(w, "UPDATE keys SET answer = ?2 WHERE key = ?1", &w->complete) &&
        compile(w, "SELECT answer FROM keys WHERE key = ?1", &w->replay))
        return w;
    snprintf(why, PEER_WHY_BYTES, "preparing statements: %s", sqlite3_errmsg(w->db));
    return NULL;
}

static long failed(struct worker *me, const char *what)
{
    snprintf(me->error, sizeof me->error, "%s: %s", what, sqlite3_errmsg(me->db));
    return -1;
}

static bool step(sqlite3_stmt *s)
{
    bool done = sqlite3_step(s) == SQLITE_DONE;
    sqlite3_reset(s);
    return done;
}

/* Rows that the statement changed, over all keys; batches in transactions. */
static long change(struct worker *me, struct peer_work *w, size_t batch, sqlite3_stmt *s, bool with_answer)
{
    long changed = 0;
    for (size_t first = 0; first < w->n; first += batch) {
        size_t to = w->n - first < batch ? w->n : first + batch;
        if (batch > 1 && !step(me->begin))
            return failed(me, "BEGIN");
        for (size_t i = first; i < to; i++) {
            sqlite3_bind_blob(s, 1, peer_key(w, i), PEER_KEY_BYTES, SQLITE_STATIC);
            if (with_answer)
                sqlite3_bind_blob(s, 2, w->answers[i], PEER_ANSWER_BYTES, SQLITE_STATIC);
            if (!step(s))
                return failed(me, "changing a row");
            changed += sqlite3_changes(me->db);
        }
        if (batch > 1 && !step(me->commit))
            return failed(me, "COMMIT");
    }
    return changed;
}

static long claim(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    return change(me, w, w->batch, me->claim, false);
}

static long complete(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    return change(me, w, w->batch, me->complete, true);
}

/* One transaction for all of them. */
static long fill(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    bool open = !sqlite3_get_autocommit(me->db);
    if (w->n == 0)
        return !open || step(me->commit) ? 0 : failed(me, "COMMIT");
    if (!open && !step(me->begin))
        return failed(me, "BEGIN");
    return change(me, w, 1, me->fill, true);
}

static long replay(void *worker, struct peer_work *w)
{
    struct worker *me = worker;
    long found = 0;
    for (size_t i = 0; i < w->n; i++) {
        sqlite3_bind_blob(me->replay, 1, peer_key(w, i), PEER_KEY_BYTES, SQLITE_STATIC);
        int got = sqlite3_step(me->replay);
        if (got == SQLITE_ROW && sqlite3_column_bytes(me->replay, 0) == PEER_ANSWER_BYTES) {
            memcpy(peer_out(w, i), sqlite3_column_blob(me->replay, 0), PEER_ANSWER_BYTES);
            peer_answered(w, i);
            found++;
        } else if (got != SQLITE_ROW && got != SQLITE_DONE) {
            return failed(me, "SELECT");
        }
        sqlite3_reset(me->replay);
    }
    return found;
}

static const char *error(void *worker)
{
    struct worker *me = worker;
    return me->error;
}

static long pragma(struct worker *me, const char *sql)
{
    sqlite3_stmt *s = NULL;
    long value = 0;
    if (compile(me, sql, &s) && sqlite3_step(s) == SQLITE_ROW)
        value = (long)sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    return value;
}

static uint64_t bytes(void *worker)
{
    struct worker *me = worker;
    return (uint64_t)(pragma(me, "PRAGMA page_count") * pragma(me, "PRAGMA page_size"));
}

static void detach(void *worker)
{
    struct worker *me = worker;
    sqlite3_stmt *all[] = {me->begin, me->commit, me->claim, me->complete, me->fill, me->replay};
    for (unsigned i = 0; i < sizeof all / sizeof all[0]; i++)
        sqlite3_finalize(all[i]);
    sqlite3_close(me->db);
    free(me);
}

static void end(void *shared)
{
    free(shared);
}

#define SAME                                                                                                  \
    .reach = PEER_PROCESSES, .version = version, .prepare = prepare, .attach = attach, .fill = fill,          \
    .batches = {PEER_BY_1 | PEER_BY_32, PEER_BY_1 | PEER_BY_32, PEER_BY_1}, .run = {claim, complete, replay}, \
    .error = error, .bytes = bytes, .detach = detach, .end = end

static const struct peer off = {
    .name = "sqlite",
    .settings = "WAL, synchronous=OFF, mmap, WITHOUT ROWID on a tmpfs; prepared; a batch is a transaction",
    .keys_max = 100000,
    .timed_keys = 16384,
    SAME,
};

static const struct peer full = {
    .name = "sqlite/full",
    .settings = "WAL, synchronous=FULL, WITHOUT ROWID on a disk; prepared; a batch is a transaction",
    .durable = true,
    .keys_max = 100000,
    .timed_keys = 1024,
    SAME,
};

const struct peer *const peers_sqlite[] = {&off, &full, NULL};
