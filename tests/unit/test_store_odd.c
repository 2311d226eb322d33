/*
 * tests/unit/test_store_odd.c - calls on a store without a log, beside the ordinary way: words of shared memory that nobody writes, what others do
 * between two steps of a call, hosts that close descriptors or have no memory, and arguments that are rare.
 */
#include "support/support.h"

#include "unit/refused_calls.h"

#include "arena/arena.h"
#include "base/error.h"
#include "index/index.h"
#include "store/enter.h"
#include "store/handle.h"

#include <sys/socket.h>
#include <sys/un.h>

static char dir[160];
static idem_options options;
static idem_store *s;
static struct idem_view *v;

static void begin(void)
{
    refuse_nothing();
    snprintf(dir, sizeof dir, "%s", support_dir());
    options = support_options(64);
    s = support_open(dir, &options);
    v = s->view;
}
static void over(void)
{
    idem_close(s);
    support_remove(dir);
}

static struct idem_a64 *entry_of(const idem_claim *c)
{
    return v->arena + word_unit(load_relaxed(&v->buckets[c->place / 8].slots[c->place % 8])) * 2;
}

/* ------------------------------------------------------------------ words */

static void a_claim_whose_bytes_are_damaged_is_not_completed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        idem_claim c;
        begin();
        CHECK_IS(support_begin(s, "k", &c), IDEM_CLAIMED);
        struct idem_a64 *facts = &entry_of(&c)[0];
        uint64_t was = load_relaxed(facts);
        store_relaxed(facts,
                      i == 0 ? was & ~UINT64_C(0x7ff) : was | UINT64_C(5) << 11); /* no key; a scope longer than it */
        CHECK_IS(support_complete(s, &c, 200, "x"), IDEM_E_CORRUPT);
        store_relaxed(facts, was);
        CHECK_IS(support_complete(s, &c, 200, "x"), IDEM_OK);
        over();
    }
}

static uint64_t word_of_key(const char *key)
{
    idem_story story = IDEM_STORY_INIT;
    idem_key k = support_key(key);
    uint64_t word = 0;
    CHECK_IS(idem_explain(s, &k, &story), IDEM_OK);
    for (unsigned i = 0; i < IDEM_BUCKET_SLOTS; i++) {
        struct idem_entry e;
        uint64_t w = load_relaxed(&v->buckets[story.bucket].slots[i]);
        if (w != 0 && idem_entry_load(v, w, &e) && e.token == story.token)
            word = w;
    }
    CHECK(word != 0);
    idem_story_free(&story);
    return word;
}

static void leave_transient(const idem_request *rq, idem_claim *c)
{
    idem_response r = support_response(500, "busy");
    r.flags = IDEM_RESPONSE_TRANSIENT;
    CHECK_IS(idem_begin(s, rq, c, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_complete(s, c, &r), IDEM_OK);
}

/* Who waited for an attempt gets its transient answer from the claim that followed, which names it: believed only if it is one, of that key. */
static void a_transient_answer_is_believed_only_if_it_is_one_of_this_key(void **state)
{
    (void)state;
    idem_claim first, c, now;
    begin();
    idem_request rq = support_request("k"),
                 others[3] = {support_request("kk"), support_request("j"), support_request("")};
    leave_transient(&rq, &first);
    CHECK_IS(idem_begin(s, &rq, &now, NULL), IDEM_CLAIMED);
    idem_request waits = rq;
    waits.wait_token = first.token;
    CHECK_IS(idem_begin(s, &waits, &c, NULL), IDEM_REPLAY);
    struct idem_a64 *previous = &entry_of(&now)[9];
    uint64_t was = load_relaxed(previous);
    /* Its region goes, or is gone. */
    struct idem_a64 *region = &v->regions[word_region(v, was)].state;
    uint64_t phase = load_relaxed(region);
    store_relaxed(region, (phase & ~UINT64_C(7)) | REGION_FREE);
    CHECK_IS(idem_begin(s, &waits, &c, NULL), IDEM_IN_PROGRESS);
    store_relaxed(region, (phase & ~UINT64_C(7)) | REGION_RETIRING);
    CHECK_IS(idem_begin(s, &waits, &c, NULL), IDEM_IN_PROGRESS);
    store_relaxed(region, phase);
    store_relaxed(previous, word_moved(was, word_unit(was), word_generation(was) + 1));
    CHECK_IS(idem_begin(s, &waits, &c, NULL), IDEM_IN_PROGRESS);
    store_relaxed(previous, word_moved(was, UINT32_MAX, word_generation(was))); /* there is no such region */
    CHECK_IS(idem_begin(s, &waits, &c, NULL), IDEM_IN_PROGRESS);
    store_relaxed(previous, was);
    /* Another key's; one of the same length; one that is split in another place. */
    others[2].key.scope = "k";
    others[2].key.scope_bytes = 1;
    others[2].key.key = "j";
    others[2].key.key_bytes = 1;
    idem_request two = support_request("kj");
    idem_claim last;
    CHECK_IS(idem_begin(s, &two, &last, NULL), IDEM_CLAIMED);
    for (unsigned i = 0; i < 3; i++) {
        leave_transient(&others[i], &c);
        idem_claim mine = i == 2 ? last : now;
        idem_request asks = i == 2 ? two : rq;
        asks.wait_token = c.token;
        struct idem_entry e;
        uint64_t w = load_relaxed(&v->buckets[c.place / 8].slots[c.place % 8]);
        CHECK(idem_entry_load(v, w, &e) && e.kind == ENTRY_TRANSIENT);
        store_relaxed(&entry_of(&mine)[9], w);
        CHECK_IS(idem_begin(s, &asks, &c, NULL), IDEM_IN_PROGRESS);
    }
    /* No transient answer at all. */
    support_answer(s, "answer", 200, "x");
    store_relaxed(previous, word_of_key("answer"));
    CHECK_IS(idem_begin(s, &waits, &c, NULL), IDEM_IN_PROGRESS);
    store_relaxed(previous, was);
    CHECK_IS(idem_begin(s, &waits, &c, NULL), IDEM_REPLAY);
    over();
}

/* More classes of memory than there is room to tell of. */
static void statistics_of_many_classes_are_cut(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "%s", support_dir());
    options = support_options(20000);
    options.response_bytes = 2000;
    s = support_open(dir, &options);
    v = s->view;
    CHECK(v->region_count > IDEM_STATS_CLASSES + 10);
    for (uint32_t i = 0; i < IDEM_STATS_CLASSES + 10; i++) {
        uint64_t state_was = load_relaxed(&v->regions[i].state);
        store_relaxed(&v->regions[i].state, (state_was & ~UINT64_C(7)) | REGION_OPEN);
        store_relaxed(&v->regions[i].meta, (uint64_t)(i + 1) << 40);
    }
    CHECK_IS(support_stats(s).classes, IDEM_STATS_CLASSES);
    for (uint32_t i = 0; i < IDEM_STATS_CLASSES + 10; i++) /* none that exists */
        store_relaxed(&v->regions[i].meta, (uint64_t)(IDEM_CLASSES + i) << 40);
    CHECK_IS(support_stats(s).classes, 0);
    over();
}

/* It was given back with a hazard set: nobody is at work in that region. */
static void a_lane_that_nobody_has_holds_no_region(void **state)
{
    (void)state;
    begin();
    idem_request rq = support_request("k");
    idem_claim c;
    rq.ttl_ms = 1000;
    CHECK_IS(idem_begin(s, &rq, &c, NULL), IDEM_CLAIMED);
    CHECK_IS(support_complete(s, &c, 200, "x"), IDEM_OK);
    uint64_t high = load_relaxed(&v->root->lanes_high), swept = support_stats(s).swept_regions;
    store_relaxed(&v->root->lanes_high, high + 1);
    store_relaxed(&v->lanes[high].hazard_write, (uint64_t)word_region(v, word_of_key("k")) + 1);
    support_clock_add(20000);
    support_maintain(s);
    CHECK(support_stats(s).swept_regions > swept);
    store_relaxed(&v->lanes[high].hazard_write, 0);
    over();
}

/* ------------------------------------------------------------------ between two steps */

static void poison(void *unused)
{
    (void)unused;
    store_relaxed(&v->poisoned, 1);
}

/* A page that is gone is noticed at the end of whatever call met it. */
static void a_page_that_is_gone_is_told_at_the_end_of_the_call(void **state)
{
    (void)state;
    idem_claim c;
    idem_request rq = support_request("k");
    begin();
    CHECK_IS(support_begin(s, "first", &c), IDEM_CLAIMED);
    support_at_point("claim.filled", 1, poison, NULL);
    CHECK_IS(support_begin(s, "k", &c), IDEM_E_CORRUPT);
    store_relaxed(&v->poisoned, 0);
    CHECK_IS(support_begin(s, "running", &c), IDEM_CLAIMED);
    rq = support_request("running");
    support_at_point("wait.flagged", 1, poison, NULL);
    CHECK_IS(idem_wait(s, &rq, 1000, &c, NULL), IDEM_E_CORRUPT);
    store_relaxed(&v->poisoned, 0);
    /* By a host that is in a read section of its own. */
    urcu_bp_read_lock();
    CHECK_IS(support_begin(s, "within", &c), IDEM_CLAIMED);
    urcu_bp_read_unlock();
    over();
}

static void *no_memory(void *ctx, size_t bytes)
{
    (void)ctx;
    (void)bytes;
    return NULL;
}

/* By the caller's allocator, for a mark or an answer. */
static void a_caller_without_memory_is_told_so(void **state)
{
    (void)state;
    idem_claim c;
    idem_reply reply = IDEM_REPLY_INIT;
    reply.alloc = no_memory;
    begin();
    idem_request rq = support_request("k");
    idem_key key = support_key("k");
    rq.flags = IDEM_HOLD;
    CHECK_IS(idem_begin(s, &rq, &c, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_mark(s, &c, "half way", 8), IDEM_OK);
    CHECK_IS(idem_lookup(s, &key, &reply), IDEM_E_MEMORY);
    CHECK_IS(idem_release(s, &key, 0), IDEM_OK);
    idem_claim none;
    CHECK_IS(idem_begin(s, &rq, &none, &reply), IDEM_E_MEMORY); /* it is unknown, with a mark */
    CHECK_IS(idem_begin(s, &rq, &none, NULL), IDEM_UNKNOWN);
    /* Settled as not having happened, claimed once more with a hold, given back: still held, as the first one was lost. */
    CHECK_IS(idem_resolve(s, &key, c.token, IDEM_RESOLVE_RERUN, NULL), IDEM_OK);
    int e = idem_begin(s, &rq, &c, NULL);
    CHECK(e == IDEM_CLAIMED || e == IDEM_RECLAIMED);
    CHECK_IS(idem_mark(s, &c, NULL, 0), IDEM_OK); /* no mark any more */
    CHECK_IS(idem_abandon(s, &c, IDEM_NOTHING_HAPPENED), IDEM_OK);
    idem_request t = support_request("t");
    idem_claim transient;
    leave_transient(&t, &transient);
    t.wait_token = transient.token;
    CHECK_IS(idem_begin(s, &t, &c, &reply), IDEM_E_MEMORY);
    /* For ever is a time to wait, too. */
    support_answer(s, "done", 200, "x");
    idem_request done = support_request("done");
    CHECK_IS(idem_wait(s, &done, INT64_MAX, &c, NULL), IDEM_REPLAY);
    over();
}

/* An attempt was lost, its successor asked for it to be held and gave it back: it is held. */
static void what_was_lost_before_is_held_if_its_last_claim_said_so(void **state)
{
    (void)state;
    idem_claim c;
    begin();
    idem_request rq = support_request("k");
    idem_key key = support_key("k");
    CHECK_IS(idem_begin(s, &rq, &c, NULL), IDEM_CLAIMED);
    CHECK_IS(idem_release(s, &key, 0), IDEM_OK);
    CHECK_IS(idem_begin(s, &rq, &c, NULL), IDEM_RECLAIMED);
    struct idem_a64 *facts = &entry_of(&c)[0];
    store_relaxed(facts, load_relaxed(facts) | (uint64_t)ENTRY_HOLD << 25); /* as an adopter may */
    CHECK_IS(idem_abandon(s, &c, IDEM_NOTHING_HAPPENED), IDEM_OK);
    CHECK_IS(idem_begin(s, &rq, &c, NULL), IDEM_UNKNOWN);
    over();
}

/* ------------------------------------------------------------------ hosts that close descriptors */

static void die_owning(void *unused)
{
    (void)unused;
    idem_store *mine = support_attach(dir);
    CHECK_IS(support_begin(mine, "k", NULL), IDEM_CLAIMED);
    struct idem_view *its = mine->view;
    for (uint32_t i = 0; i < its->fixed.lanes_max; i++) /* it dies in the middle of a change, too */
        if (load_relaxed(&its->lanes[i].owner) == its->process.owner)
            store_relaxed(&its->lanes[i].hazard_compare, 1);
    support_save_counters();
    _exit(0);
}

/* Whoever asks whether an owner lives has to have the store's own file: through another one nobody is found dead, and nothing of that file is closed. */
static void a_descriptor_that_became_another_files(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        char other[300];
        begin();
        CHECK_IS(support_reap(support_spawn(die_owning, NULL), SUPPORT_PATIENCE_MS), 0);
        int fd = v->process.fd;
        snprintf(other, sizeof other, i == 0 ? "%s/other" : "/proc/self/status", dir);
        int theirs = open(other, i == 0 ? O_RDWR | O_CREAT | O_CLOEXEC : O_RDONLY | O_CLOEXEC, 0600);
        CHECK(theirs >= 0);
        struct idem_process kept = v->process;
        if (i < 2) {
            CHECK_IS(dup2(theirs, fd), fd);
            uint32_t slot = 0;
            for (uint32_t k = 0; k < kept.table_size; k++)
                if ((load_relaxed(&kept.table[k].incarnation) & 1) && k != idem_owner_slot(kept.owner))
                    slot = k;
            uint64_t dead = idem_owner_pack(slot, load_relaxed(&kept.table[slot].incarnation));
            CHECK(!idem_process_dead(&v->process, dead)); /* by a file that does not know */
            struct idem_process again = kept;
            again.owner = 0;
            again.table_size = slot + 1;
            if (i == 0) /* nor is a dead one's place taken */
                CHECK_IS(idem_process_register(&again, 0), IDEM_E_FULL);
        } else {
            idem_claim c;
            idem_key key = support_key("k");
            CHECK_IS(idem_find(s, &key, 0, &c), IDEM_OK);
            uint64_t owner = load_relaxed(&entry_of(&c)[7]);
            refuse(REFUSE_fstat, 1, EIO); /* it can't be told whose it is */
            CHECK(!idem_process_dead(&v->process, owner));
            CHECK(idem_process_dead(&v->process, owner));
            refuse_nothing();
        }
        idem_close(s);
        CHECK(fcntl(fd, F_GETFD) != -1 || i == 2);
        close(theirs);
        close(fd);
        support_remove(dir);
    }
    /* After the same with its own file: the dead one's lane is taken over, in the middle of a change as it was. */
    begin();
    CHECK_IS(support_reap(support_spawn(die_owning, NULL), SUPPORT_PATIENCE_MS), 0);
    CHECK_IS(support_begin(s, "k", NULL), IDEM_RECLAIMED);
    struct idem_process none = v->process;
    none.owner = 0;
    CHECK(idem_process_dead(&none,
                            idem_owner_pack(none.table_size, 1))); /* who has no place asks about others all the same */
    idem_process_dead(&none, 0);
    idem_process_unregister(&none);
    none.owner = v->process.owner;
    none.epoch = v->process.epoch - 1;
    idem_process_unregister(&none); /* the parent's, who lives */
    CHECK(!idem_view_lost(v));
    /* The path leads to a store on another file system. */
    CHECK(!idem_view_stale(v, dir));
    v->process.device++;
    CHECK(idem_view_stale(v, dir));
    v->process.device--;
    char below[200];
    snprintf(below, sizeof below, "%s/root", dir); /* a file where its directory was */
    CHECK(idem_view_stale(v, below));
    over();
}

/* ------------------------------------------------------------------ words that need memory */

static void *fail_in_thread(void *unused)
{
    char longer[700];
    (void)unused;
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    CHECK_BYTES(idem_error_detail(), strlen(idem_error_detail()), ""); /* nothing failed yet */
    errno = EIO;
    refuse(REFUSE_calloc, 1, ENOMEM);
    CHECK_IS(idem_fail_errno("no words"), IDEM_E_SYSTEM);
    refuse_nothing();
    CHECK(idem_error_detail()[0] == '\0' && errno == EIO);
    CHECK_IS(idem_fail_errno("%s", longer), IDEM_E_SYSTEM);
    CHECK(strlen(idem_error_detail()) == 511);
    return NULL;
}

static void an_error_without_memory_or_too_long_for_it(void **state)
{
    (void)state;
    pthread_t t;
    CHECK_IS(__real_pthread_create(&t, NULL, fail_in_thread, NULL), 0);
    pthread_join(t, NULL);
}

static void arguments_that_are_rare(void **state)
{
    (void)state;
    begin();
    idem_reply odd = {.size = 3};
    idem_key key = support_key("k");
    CHECK_IS(idem_lookup(s, &key, &odd), IDEM_E_INVALID);
    key.key_bytes = 0;
    CHECK_IS(idem_lookup(s, &key, NULL), IDEM_E_INVALID);
    idem_claim c;
    idem_response r = support_response(200, "x");
    r.flags = IDEM_RESPONSE_NOT_RETAINED;
    r.body = NULL;
    r.body_bytes = 0;
    r.meta = "m";
    r.meta_bytes = 1;
    CHECK_IS(support_begin(s, "k", &c), IDEM_CLAIMED);
    CHECK_IS(idem_complete(s, &c, &r), IDEM_E_INVALID);
    /* Metadata that no region has room for. */
    static char large[5 << 20];
    r.flags = 0;
    r.meta = large;
    r.meta_bytes = sizeof large;
    CHECK_IS(idem_complete(s, &c, &r), IDEM_TOMBSTONE);
    /* Lengths whose sum is 0 again: the claim is looked at before the bytes are. */
    CHECK_IS(support_begin(s, "over", &c), IDEM_CLAIMED);
    CHECK_IS(idem_abandon(s, &c, IDEM_NOTHING_HAPPENED), IDEM_OK);
    for (unsigned i = 0; i < 2; i++) {
        r.body = large;
        r.meta_bytes = i == 0 ? SIZE_MAX : 1;
        r.body_bytes = i == 0 ? 1 : SIZE_MAX;
        CHECK_IS(idem_complete(s, &c, &r), IDEM_E_LOST);
    }
    over();
    /* A store of a given size with a log. */
    char wal[160];
    snprintf(wal, sizeof wal, "%s", support_dir());
    snprintf(dir, sizeof dir, "%s", support_dir());
    options = support_options(0);
    options.total_bytes = 16 << 20;
    options.wal_dir = wal;
    options.flags |= IDEM_OPEN_NO_FLUSHER;
    s = support_open(dir, &options);
    over();
    support_remove(wal);
    CHECK(idem_open("//", NULL, &s) < 0);
}

/* ------------------------------------------------------------------ making and removing */

static int no_space(int line, enum refused_call what, unsigned nth, int with)
{
    (void)line;
    snprintf(dir, sizeof dir, "%s", support_dir());
    options = support_options(64);
    refuse(what, nth, with);
    int e = idem_open(dir, &options, &s);
    refuse_nothing();
    return e;
}

static void files_that_can_not_be_filled_or_removed(void **state)
{
    (void)state;
    unsigned errors = 0;
    for (unsigned nth = 1; nth < 8; nth++) {
        int e = no_space(__LINE__, REFUSE_madvise, nth, ENOMEM);
        if (e == IDEM_OK)
            over();
        else
            CHECK(e == IDEM_E_SYSTEM && strstr(idem_error_detail(), dir) != NULL);
        errors += e != IDEM_OK;
    }
    CHECK(errors > 0);
    errors = 0;
    for (unsigned nth = 1; nth < 8; nth++) { /* an old kernel, and a full tmpfs */
        snprintf(dir, sizeof dir, "%s", support_dir());
        refuse(REFUSE_madvise, nth, EINVAL);
        refuse_too(REFUSE_posix_fallocate, 1, ENOSPC);
        int e = idem_open(dir, &options, &s);
        refuse_nothing();
        if (e == IDEM_OK)
            over();
        else
            CHECK(e == IDEM_E_SYSTEM && strstr(idem_error_detail(), "bytes are needed") != NULL);
        errors += e != IDEM_OK;
    }
    CHECK(errors > 0);
    /* A root whose constants are damaged says nothing of a log. */
    begin();
    idem_close(s);
    char file[200];
    snprintf(file, sizeof file, "%s/root", dir);
    int fd = open(file, O_RDWR | O_CLOEXEC);
    uint8_t byte;
    off_t at = offsetof(struct idem_root_shm, fixed) + 100;
    CHECK_IS(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    CHECK_IS(pwrite(fd, &byte, 1, at), 1);
    close(fd);
    CHECK_IS(idem_destroy(dir), IDEM_OK);
    CHECK(access(dir, F_OK) != 0);
    /* What a dead maker left can't be removed. */
    begin();
    idem_close(s);
    CHECK_IS(unlink(file) == 0 || errno == ENOENT, 1);
    snprintf(file, sizeof file, "%s/root", dir);
    unlink(file);
    refuse(REFUSE_unlinkat, 1, EIO);
    CHECK_IS(idem_destroy(dir), IDEM_E_SYSTEM);
    refuse_nothing();
    CHECK(strstr(idem_error_detail(), "could not be removed") != NULL);
    CHECK_IS(idem_destroy(dir), IDEM_E_NO_STORE);
    /* Somebody's socket in its place. */
    begin();
    idem_close(s);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(file, sizeof file, "%s/root", dir);
    snprintf(a.sun_path, sizeof a.sun_path, "%.100s", file);
    CHECK_IS(unlink(file), 0);
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_IS(bind(sock, (struct sockaddr *)&a, sizeof a), 0);
    CHECK_IS(idem_open(dir, NULL, &s), IDEM_E_PERMISSION);
    close(sock);
    support_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_claim_whose_bytes_are_damaged_is_not_completed),
        cmocka_unit_test(a_transient_answer_is_believed_only_if_it_is_one_of_this_key),
        cmocka_unit_test(a_lane_that_nobody_has_holds_no_region),
        cmocka_unit_test(statistics_of_many_classes_are_cut),
        cmocka_unit_test(a_page_that_is_gone_is_told_at_the_end_of_the_call),
        cmocka_unit_test(a_caller_without_memory_is_told_so),
        cmocka_unit_test(what_was_lost_before_is_held_if_its_last_claim_said_so),
        cmocka_unit_test(a_descriptor_that_became_another_files),
        cmocka_unit_test(an_error_without_memory_or_too_long_for_it),
        cmocka_unit_test(arguments_that_are_rare),
        cmocka_unit_test(files_that_can_not_be_filled_or_removed),
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
