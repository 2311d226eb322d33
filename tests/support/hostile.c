/* tests/support/hostile.c - see hostile.h. */
#include "support/hostile.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/handle.h"

#define LONG_MS INT64_C(3600000)

static char large_body[5000];

/* ------------------------------------------------------------------ a store with a key in every state */

static struct hostile_key *add(struct hostile *h, const char *name, int looked_up, const char *body)
{
    CHECK(h->keys_n < HOSTILE_KEYS);
    struct hostile_key *k = &h->keys[h->keys_n++];
    snprintf(k->name, sizeof k->name, "%s", name);
    k->looked_up = looked_up;
    k->body = body;
    return k;
}

static void claim(idem_store *store, struct hostile_key *k, uint32_t flags)
{
    idem_request r = support_request(k->name);
    r.flags = flags;
    CHECK_IS(idem_begin(store, &r, &k->claim, NULL), IDEM_CLAIMED);
}

static struct hostile_key *answer(struct hostile *h, idem_store *store, const char *name, const char *body,
                                  int64_t ttl_ms)
{
    struct hostile_key *k = add(h, name, IDEM_REPLAY, body);
    claim(store, k, 0);
    idem_response r = support_response(200, body);
    r.ttl_ms = ttl_ms;
    CHECK_IS(idem_complete(store, &k->claim, &r), IDEM_OK);
    return k;
}

static void transient(idem_store *store, struct hostile_key *k)
{
    claim(store, k, 0);
    CHECK_IS(idem_mark(store, &k->claim, "so far", 6), IDEM_OK);
    idem_response r = support_response(503, "try again");
    r.flags = IDEM_RESPONSE_TRANSIENT;
    CHECK_IS(idem_complete(store, &k->claim, &r), IDEM_OK);
}

struct dying {
    const char *dir, *key;
};

static void begin_and_die(struct crash_page *page, void *ctx)
{
    struct dying *d = ctx;
    idem_store *store = support_attach(d->dir);
    crash_arm();
    page->verdict = support_begin(store, d->key, &page->claim);
    raise(SIGKILL);
}

static void die_at(struct hostile *h, const char *key, const char *point)
{
    struct dying d = {h->dir, key};
    struct crash_step step = {crash_point(point), 1, CRASH_KILL};
    CHECK_IS(crash_wait(crash_start(begin_and_die, &d, &step, 1)), CRASH_KILLED);
}

static uint64_t home_of(const struct idem_view *v, const char *name)
{
    struct idem_index_key k;
    idem_key key = support_key(name);
    CHECK_IS(idem_key_prepare(v, &key, NULL, &k), IDEM_OK);
    return idem_home_of(v, k.hash);
}

static void make_keys(struct hostile *h, idem_store *store)
{
    static char huge_body[300000];
    for (unsigned i = 0; i + 1 < sizeof large_body; i++)
        large_body[i] = (char)('a' + i % 26);
    answer(h, store, "answered", "the answer", 0);
    answer(h, store, "large", large_body, 0);
    answer(h, store, "forever", "for ever", IDEM_FOREVER);
    struct hostile_key *k = add(h, "tombstone", IDEM_REPLAY, NULL);
    claim(store, k, 0);
    idem_response r = support_response(200, "");
    r.body = huge_body;
    r.body_bytes = sizeof huge_body;
    CHECK_IS(idem_complete(store, &k->claim, &r), IDEM_TOMBSTONE);
    k = add(h, "running", IDEM_IN_PROGRESS, NULL);
    claim(store, k, IDEM_LEASE_ONLY);
    CHECK_IS(idem_mark(store, &k->claim, "on its way", 10), IDEM_OK);
    k = add(h, "dead", IDEM_UNKNOWN, NULL);
    claim(store, k, 0); /* its process ends with this handle */
    k = add(h, "held", IDEM_UNKNOWN, NULL);
    claim(store, k, IDEM_HOLD);
    CHECK_IS(idem_abandon(store, &k->claim, IDEM_OUTCOME_UNKNOWN), IDEM_OK);
    k = add(h, "released", IDEM_UNKNOWN, NULL);
    claim(store, k, IDEM_LEASE_ONLY);
    idem_key key = support_key(k->name);
    CHECK_IS(idem_release(store, &key, 0), IDEM_OK);
    k = add(h, "left", IDEM_E_NO_KEY, NULL);
    claim(store, k, 0);
    CHECK_IS(idem_abandon(store, &k->claim, IDEM_NOTHING_HAPPENED), IDEM_OK);
    transient(store, add(h, "later", IDEM_E_NO_KEY, NULL));
    k = add(h, "again", IDEM_IN_PROGRESS, NULL);
    transient(store, k);
    claim(store, k, IDEM_LEASE_ONLY);
    k = add(h, "forgotten", IDEM_E_NO_KEY, NULL);
    claim(store, k, 0);
    key = support_key(k->name);
    CHECK_IS(idem_forget(store, &key), IDEM_OK);
    die_at(h, add(h, "reserved", IDEM_E_NO_KEY, NULL)->name, "claim.reserved");
    /* A full bucket, and some in the next one. */
    char name[24];
    uint64_t home = home_of(store->view, "answered");
    for (unsigned i = 0, n = 0; n < 9 && i < 10000; i++) {
        snprintf(name, sizeof name, "fill-%u", i);
        if (home_of(store->view, name) == home && ++n > 0)
            answer(h, store, name, "fills", 0);
    }
    die_at(h, add(h, "published", IDEM_UNKNOWN, NULL)->name, "claim.published");
}

/* Which bytes are a key's own? */
static void locate(struct hostile *h, idem_store *store)
{
    const struct idem_view *v = store->view;
    struct idem_op op;
    CHECK_IS(idem_enter(store, &op), IDEM_OK);
    for (unsigned i = 0; i < h->keys_n; i++) {
        struct hostile_key *k = &h->keys[i];
        idem_key key = support_key(k->name);
        struct idem_index_key ik;
        struct idem_found f;
        CHECK_IS(idem_key_prepare(v, &key, NULL, &ik), IDEM_OK);
        k->header_at = IDEM_BUCKETS_OFF + 64 * idem_home_of(v, ik.hash);
        if (strcmp(k->name, "published") == 0 || idem_index_find(&op.ctx, &ik, &f, NULL) != FIND_PRESENT)
            continue; /* looking would finish the one that died published */
        k->slot_at = (uint64_t)((uint8_t *)f.slot - (uint8_t *)v->generation);
        k->entry_at = (uint64_t)((uint8_t *)f.entry.at - (uint8_t *)v->generation);
        k->entry_bytes =
            idem_entry_bytes(f.entry.kind, f.entry.key_bytes, idem_entry_answer_bytes(&f.entry), f.entry.mark_bytes);
        if (f.entry.kind == ENTRY_CLAIM)
            k->process_at = IDEM_PROCESSES_OFF + 64 * idem_owner_slot(f.entry.owner);
    }
    CHECK_IS(idem_leave(&op, IDEM_OK), IDEM_OK);
}

static void part(struct hostile *h, const char *name, enum hostile_file file, uint64_t from, uint64_t bytes)
{
    CHECK(h->parts_n < HOSTILE_PARTS && from + bytes <= h->bytes[file]);
    h->parts[h->parts_n++] = (struct hostile_part){name, file, from, bytes};
    h->words += bytes / 8;
}

static void list_parts(struct hostile *h, const struct idem_view *v)
{
    uint64_t lanes = (uint64_t)((uint8_t *)v->lanes - (uint8_t *)v->root);
    uint64_t regions = (uint64_t)((uint8_t *)v->regions - (uint8_t *)v->generation);
    uint64_t chunks = (uint64_t)((uint8_t *)v->chunks - (uint8_t *)v->generation);
    uint64_t arena = (uint64_t)((uint8_t *)v->arena - (uint8_t *)v->generation);
    h->bytes[HOSTILE_ROOT] = v->fixed.root_bytes;
    h->bytes[HOSTILE_GENERATION] = v->generation_bytes;
    part(h, "root header", HOSTILE_ROOT, 0, sizeof(struct idem_root_shm));
    part(h, "processes", HOSTILE_ROOT, IDEM_PROCESSES_OFF, 64 * (uint64_t)v->fixed.processes_max);
    part(h, "lanes", HOSTILE_ROOT, lanes, 3 * sizeof(struct idem_lane_shm));
    part(h, "generation header", HOSTILE_GENERATION, 0, sizeof(struct idem_generation_shm));
    part(h, "buckets", HOSTILE_GENERATION, IDEM_BUCKETS_OFF, 64 * v->bucket_count);
    part(h, "regions", HOSTILE_GENERATION, regions, 64 * (uint64_t)v->region_count);
    for (uint32_t i = 0; i < v->region_count && h->parts_n + 2 <= HOSTILE_PARTS; i++) {
        uint64_t used = load_relaxed(&v->regions[i].cursor) & LOW48;
        if (used == 0)
            continue;
        part(h, "chunks", HOSTILE_GENERATION, chunks + 64 * 16 * (uint64_t)i, 2 * 64);
        part(h, "entries", HOSTILE_GENERATION, arena + ((uint64_t)i << v->region_shift), used < 4096 ? used : 4096);
    }
}

static void take_file(struct hostile *h, enum hostile_file file, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", h->dir, name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    h->map[file] = mmap(NULL, h->bytes[file], PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    CHECK(h->map[file] != MAP_FAILED);
    h->template[file] = malloc(h->bytes[file]);
    CHECK(h->template[file] != NULL);
    memcpy(h->template[file], h -> map[file], h -> bytes[file]);
}

void hostile_make(struct hostile *h)
{
    memset(h, 0, sizeof *h);
    h->dir = support_dir();
    idem_options o = support_options(16);
    o.processes = 4;
    o.lanes = 6;
    o.ttl_ms = LONG_MS;
    o.lease_ms = LONG_MS;
    o.huge = IDEM_HUGE_OFF;
    idem_store *store = support_open(h->dir, &o);
    for (unsigned i = 0; i < 8; i++) { /* what a sweep is in the middle of */
        char name[24];
        snprintf(name, sizeof name, "short-%u", i);
        idem_request r = support_request(name);
        r.ttl_ms = 1000;
        idem_claim c;
        CHECK_IS(idem_begin(store, &r, &c, NULL), IDEM_CLAIMED);
        CHECK_IS(support_complete(store, &c, 200, "short"), IDEM_OK);
    }
    make_keys(h, store);
    support_clock_add(3000);
    CHECK(idem_maintain(store, 0) >= 0);
    locate(h, store);
    list_parts(h, store->view);
    char uuid[33];
    idem_uuid_text(store->view->fixed.uuid, uuid);
    snprintf(h->gen_name, sizeof h->gen_name, "gen-%s-1", uuid);
    idem_close(store);
    take_file(h, HOSTILE_ROOT, "root");
    take_file(h, HOSTILE_GENERATION, h->gen_name);
}

void hostile_free(struct hostile *h)
{
    for (unsigned f = 0; f < HOSTILE_FILES; f++) {
        munmap(h->map[f], h->bytes[f]);
        free(h->template[f]);
    }
    support_remove(h->dir);
}

void hostile_restore(struct hostile *h)
{
    for (unsigned f = 0; f < HOSTILE_FILES; f++)
        memcpy(h->map[f], h->template[f], h -> bytes[f]);
}

/* ------------------------------------------------------------------ damage */

struct hostile_damage hostile_word(const struct hostile *h, uint64_t n)
{
    n %= h->words;
    unsigned p = 0;
    for (; n >= h->parts[p].bytes / 8; p++)
        n -= h->parts[p].bytes / 8;
    return (struct hostile_damage){h->parts[p].file, h->parts[p].from + n * 8, h->parts[p].name};
}

static bool lies_in(uint64_t at, uint64_t from, uint64_t bytes)
{
    return at < from + bytes && at + 8 > from;
}

bool hostile_touches(const struct hostile_key *k, const struct hostile_damage *d)
{
    if (d->file == HOSTILE_ROOT)
        return k->process_at != 0 && lies_in(d->at, k->process_at, 64);
    return lies_in(d->at, k->header_at, 8) || (k->slot_at != 0 && lies_in(d->at, k->slot_at, 8)) ||
           (k->entry_bytes != 0 && lies_in(d->at, k->entry_at, k->entry_bytes)) ||
           /* Of the two that died reserved and published only the neighbourhood is known. */
           k->slot_at == 0;
}

/* ------------------------------------------------------------------ use */

bool hostile_legal(int code)
{
    return code >= IDEM_E_EXISTS && code <= IDEM_TOMBSTONE;
}

static char said[300];

static const char *say(const char *what, const char *key, int code)
{
    snprintf(said, sizeof said, "%s of key '%s' says %d (%s; %s)", what, key, code, idem_strerror(code),
             code < 0 ? idem_error_detail() : "");
    return said;
}

static bool right(const struct hostile_key *k, int v, const idem_reply *r)
{
    if (v < 0 && v != IDEM_E_NO_KEY)
        return true; /* an error */
    if (v != k->looked_up)
        return false;
    return v != IDEM_REPLAY || k->body == NULL ||
           (r->body_bytes == strlen(k->body) && memcmp(r->body, k->body, r->body_bytes) == 0);
}

const char *hostile_look(const struct hostile *h, const struct hostile_damage *d, idem_store **store,
                         const char *volatile *doing)
{
    *doing = "idem_open";
    *store = NULL;
    int e = idem_open(h->dir, NULL, store);
    if (e != IDEM_OK)
        return hostile_legal(e) && e < 0 && *store == NULL ? NULL : say("idem_open", "", e);
    for (unsigned i = 0; i < h->keys_n; i++) {
        const struct hostile_key *k = &h->keys[i];
        idem_key key = support_key(k->name);
        bool touched = h->expired || hostile_touches(k, d);
        idem_reply r = IDEM_REPLY_INIT;
        *doing = "idem_lookup";
        int v = idem_lookup(*store, &key, &r);
        if (!hostile_legal(v) || (!touched && !right(k, v, &r)))
            return say("idem_lookup", k->name, v);
        idem_reply_free(&r);
        if (k->looked_up != IDEM_REPLAY || touched)
            continue;
        idem_request rq = support_request(k->name);
        idem_claim c;
        *doing = "idem_begin";
        v = idem_begin(*store, &rq, &c, &r);
        if (!right(k, v, &r))
            return say("idem_begin", k->name, v);
        idem_reply_free(&r);
    }
    return NULL;
}

static int count_story(const idem_story *story, void *ctx)
{
    unsigned *sum = ctx;
    for (size_t i = 0; i < story->key_bytes; i++) /* every byte must be there to be read */
        *sum += ((const uint8_t *)story->key)[i];
    for (size_t i = 0; i < story->mark_bytes; i++)
        *sum += ((const uint8_t *)story->mark)[i];
    return 0;
}

#define STEP(call)                             \
    do {                                       \
        *doing = #call;                        \
        int code_ = (call);                    \
        if (!hostile_legal(code_))             \
            return say(#call, k->name, code_); \
    } while (0)

static const char *use_key(const struct hostile_key *k, idem_store *store, uint64_t *random,
                           const char *volatile *doing)
{
    idem_key key = support_key(k->name);
    idem_request rq = support_request(k->name);
    idem_response p = support_response(200, *k->name == 'l' ? large_body : "new");
    idem_claim c = k->claim, found;
    idem_reply r = IDEM_REPLY_INIT;
    idem_story story = IDEM_STORY_INIT;
    rq.wait_token = support_random(random) % 2 == 0 ? k->claim.token : 0;
    p.flags = support_random(random) % 4 == 0 ? IDEM_RESPONSE_TRANSIENT : 0;
    if (c.token != 0)
        switch (support_random(random) % 6) {
        case 0:
            STEP(idem_renew(store, &c, 0));
            break;
        case 1:
            STEP(idem_mark(store, &c, "mark", 4));
            break;
        case 2:
            STEP(idem_adopt(store, &c));
            break;
        case 3:
            STEP(idem_abandon(store, &c, (int)(support_random(random) % 2)));
            break;
        default:
            STEP(idem_complete(store, &c, &p));
        }
    switch (support_random(random) % 8) {
    case 0:
        STEP(idem_forget(store, &key));
        break;
    case 1:
        STEP(idem_release(store, &key, 0));
        break;
    case 2:
        STEP(idem_resolve(store, &key, k->claim.token, (int)(support_random(random) % 2), NULL));
        break;
    case 3:
        STEP(idem_find(store, &key, 0, &found));
        break;
    case 4:
        STEP(idem_explain(store, &key, &story));
        idem_story_free(&story);
        break;
    default:
        break;
    }
    *doing = "idem_begin";
    int v = support_random(random) % 4 == 0 ? idem_wait(store, &rq, 2, &c, &r) : idem_begin(store, &rq, &c, &r);
    unsigned sum = 0;
    for (size_t i = 0; r.body != NULL && i < r.body_bytes; i++)
        sum += ((const uint8_t *)r.body)[i];
    idem_reply_free(&r);
    if (!hostile_legal(v))
        return say("idem_begin or idem_wait", k->name, v);
    if ((v == IDEM_CLAIMED || v == IDEM_RECLAIMED) && sum < UINT32_MAX)
        STEP(idem_complete(store, &c, &p));
    return NULL;
}

const char *hostile_use(const struct hostile *h, idem_store *store, uint64_t *random, const char *volatile *doing)
{
    const struct hostile_key *k = &h->keys[0];
    idem_report report = IDEM_REPORT_INIT;
    idem_stats_data s;
    unsigned sum = 0;
    STEP(idem_verify(h->dir, &report));
    STEP(idem_walk(store, count_story, &sum));
    const char *wrong;
    for (unsigned i = 0; i < h->keys_n; i++)
        if ((wrong = use_key(&h->keys[i], store, random, doing)) != NULL)
            return wrong;
    idem_request requests[20];
    idem_result results[20];
    char names[20][16];
    for (unsigned i = 0; i < 20; i++) {
        snprintf(names[i], sizeof names[i], "new-%u", i);
        requests[i] = support_request(names[i]);
        results[i] = (idem_result){.size = sizeof results[i], .claim = IDEM_CLAIM_INIT, .reply = IDEM_REPLY_INIT};
    }
    STEP(idem_begin_many(store, requests, 20, results));
    for (unsigned i = 0; i < 20; i++) {
        if (!hostile_legal(results[i].verdict))
            return say("idem_begin_many", names[i], results[i].verdict);
        idem_response p = support_response(200, "new");
        if (results[i].verdict == IDEM_CLAIMED)
            STEP(idem_complete(store, &results[i].claim, &p));
        idem_reply_free(&results[i].reply);
    }
    STEP(idem_maintain(store, 300));
    memset(&s, 0, sizeof s);
    s.size = sizeof s;
    STEP(idem_stats(store, &s));
    *doing = "idem_fingerprint";
    (void)idem_fingerprint(store, "bytes", 5);
    *doing = "idem_owner_fd";
    (void)idem_owner_fd(store);
    STEP(idem_verify(h->dir, &report));
    return NULL;
}
