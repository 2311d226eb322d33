/*
 * charge.c - the handler that must not charge twice.
 *
 * Owns: one struct charge from begin to its answer. Runs in one thread, the worker's event loop, and never waits in it:
 * waiting for another attempt, for the ledger's lock, and being slow are timers.
 *
 * The steps, and what the next attempt sees if we die after each:
 *   ask        idem_begin says CLAIMED or RECLAIMED      the key, lost, without a mark of this attempt: not charged
 *   plan       idem_mark "planned CHARGE from OFFSET"    the ledger, from OFFSET on, says whether it was charged
 *   write      one line in the ledger                    the same: it finds the line and completes with its charge
 *   note       idem_mark "written CHARGE"                the mark alone says it was charged
 *   complete   idem_complete with the answer             a replay
 * plan and write happen under the ledger's shared lock, looking for a lost attempt's line under the exclusive one
 * (ledger.h, L2): an owner that lost its lease while alive is told so by plan, or its line is seen.
 * Success is only ever claimed after idem_complete said so; a fenced attempt answers "try again" and the retry gets the
 * answer of whoever took over.
 */
#include "charge.h"
#include "options.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define POLL_FIRST_MS   5
#define POLL_MAX_MS     50
#define LOCK_RETRY_MS   1
#define LOCK_LIMIT_MS   3000
#define DEATHS_APART_MS 250 /* seeded deaths keep this distance, so that a fast machine also gets work done */
#define SKIP_LEDGER_P   0.02

struct charge {
    struct worker *w;
    charge_answer_fn answer;
    void *ctx;
    char tenant[LEDGER_TENANT_MAX + 1];
    char key[LEDGER_KEY_MAX + 1];
    order what;
    uint64_t fingerprint;
    uint64_t wait_token; /* the running attempt we wait for */
    int64_t wait_until_ms;
    int64_t poll_ms;
    int64_t write_by_wall_ms; /* the charge is not made later than that; 0: whenever */
    int64_t lock_until_ms;    /* 0: not waiting for the ledger's lock */
    int64_t lost_from;        /* where in the ledger the lost attempt's line would be */
    idem_claim claim;
    char id[CHARGE_ID_BYTES];
    bool owned;      /* claim is ours to complete or abandon */
    bool unfinished; /* our line is in the ledger, the key not completed */
    void (*next)(struct charge *);
    struct event *step;  /* runs next() */
    struct event *renew; /* while owned */
};

static void ask(struct charge *c);
static void write_charge(struct charge *c);
static void complete(struct charge *c);
static void reconcile(struct charge *c);

/* ------------------------------------------------------------------ the end of a charge */

static void set_finished(struct charge *c)
{
    if (c->unfinished)
        atomic_fetch_sub(&c->w->counts->unfinished[c->w->slot], 1);
    c->unfinished = false;
}

static void reply(struct charge *c, const charge_answer *answer)
{
    set_finished(c);
    c->answer(c->ctx, answer);
    c->w->running--;
    if (c->step != NULL)
        event_free(c->step);
    if (c->renew != NULL)
        event_free(c->renew);
    free(c);
}

static void refuse(struct charge *c, int status, const char *why)
{
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "error", json_object_new_string(why));
    charge_answer a = {.status = status};
    a.body = json_object_to_json_string_length(o, JSON_C_TO_STRING_PLAIN, &a.body_bytes);
    if (status == 409 || status == 503)
        a.retry_after_s = 1;
    reply(c, &a);
    json_object_put(o);
}

/* Something failed that is no race: say it once a second at most, answer 503. */
static void unavailable(struct charge *c, const char *what, const char *detail)
{
    static int64_t said_ms;
    int64_t now = now_ms();
    if (said_ms == 0 || now - said_ms > 1000) {
        fprintf(stderr, "worker %d: %s: %s\n", (int)getpid(), what, detail);
        said_ms = now;
    }
    tally_add(c->w->counts, TALLY_UNAVAILABLE);
    refuse(c, 503, what);
}

static void idem_failed(struct charge *c, const char *call, int code)
{
    char what[128];
    snprintf(what, sizeof(what), "%s: %s", call, idem_strerror(code));
    unavailable(c, what, idem_error_detail());
}

/* Our attempt is over without an effect of its own; an earlier lost one stays remembered by the store. */
static void give_back(struct charge *c)
{
    if (c->owned)
        idem_abandon(c->w->store, &c->claim, IDEM_NOTHING_HAPPENED);
    c->owned = false;
}

/* The key was taken over: whoever did that has seen our line or will write its own; we must not claim success. */
static void fenced(struct charge *c)
{
    tally_add(c->w->counts, TALLY_FENCED);
    c->owned = false;
    refuse(c, 503, "another worker took this key over; retry to get its answer");
}

/* ------------------------------------------------------------------ timers */

static void on_step(evutil_socket_t fd, short what, void *arg)
{
    struct charge *c = arg;
    (void)fd;
    (void)what;
    c->next(c);
}

/* next(c) after that many milliseconds; at once for 0. */
static void later(struct charge *c, void (*next)(struct charge *), int64_t ms)
{
    if (ms <= 0) {
        next(c);
        return;
    }
    struct timeval tv = span_ms(ms);
    c->next = next;
    if (evtimer_add(c->step, &tv) != 0)
        abort(); /* libevent is out of memory; the supervisor starts a fresh worker and the claim is taken over */
}

static void on_renew(evutil_socket_t fd, short what, void *arg)
{
    struct charge *c = arg;
    (void)fd;
    (void)what;
    int got = idem_renew(c->w->store, &c->claim, 0);
    if (got == IDEM_E_LOST)
        fenced(c);
    else if (got == IDEM_OK)
        tally_add(c->w->counts, TALLY_RENEWALS);
    /* Any other error: the old lease stands, and plan or complete will tell. */
}

/* ------------------------------------------------------------------ as owner */

/* The answer to a charge; its text is json_object_to_json_string_length()'s, valid until it is put. */
static struct json_object *receipt(const struct charge *c)
{
    struct timespec t;
    struct tm tm;
    char created[64], stamp[40];
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(created, sizeof(created), "%s.%06ldZ", stamp, t.tv_nsec / 1000);

    /* `created`, `worker` and `attempt` make two answers to one key differ unless the second is a replay. */
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "charge", json_object_new_string(c->id));
    json_object_object_add(o, "key", json_object_new_string(c->key));
    if (c->what.id[0] != '\0')
        json_object_object_add(o, "order", json_object_new_string(c->what.id));
    json_object_object_add(o, "amount", json_object_new_int64(c->what.amount));
    json_object_object_add(o, "currency", json_object_new_string(c->what.currency));
    json_object_object_add(o, "created", json_object_new_string(created));
    json_object_object_add(o, "worker", json_object_new_int((int)getpid()));
    json_object_object_add(o, "attempt", json_object_new_int64(c->claim.attempt));
    return o;
}

static void complete(struct charge *c)
{
    struct json_object *holder = receipt(c);
    charge_answer a = {.status = 201};
    a.body = json_object_to_json_string_length(holder, JSON_C_TO_STRING_PLAIN, &a.body_bytes);
    int got = IDEM_OK;
    if (c->owned) {
        idem_response r = IDEM_RESPONSE_INIT;
        r.status = a.status;
        r.body = a.body;
        r.body_bytes = a.body_bytes;
        got = idem_complete(c->w->store, &c->claim, &r);
    }
    if (got >= 0) {
        reply(c, &a);
    } else if (got == IDEM_E_LOST) {
        fenced(c);
    } else {
        idem_failed(c, "idem_complete", got);
    }
    json_object_put(holder);
}

static bool dies_now(struct worker *w)
{
    if (w->options->die_after_write <= 0 || erand48(w->dice) >= w->options->die_after_write)
        return false;
    uint64_t now = (uint64_t)now_ms();
    uint64_t last = atomic_load(&w->counts->last_death_ms);
    return now - last >= DEATHS_APART_MS && atomic_compare_exchange_strong(&w->counts->last_death_ms, &last, now);
}

static void new_charge_id(char id[CHARGE_ID_BYTES])
{
    uint64_t bits;
    if (getrandom(&bits, sizeof(bits), 0) != (ssize_t)sizeof(bits))
        abort(); /* cannot happen for 8 bytes after boot (random(7)); an id that repeats would hide a double charge */
    snprintf(id, CHARGE_ID_BYTES, "ch_%016" PRIx64, bits);
}

/* Leaves a mark; returns what idem_mark said. Without idem there is nobody to leave it for. */
static int mark(struct charge *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int mark(struct charge *c, const char *format, ...)
{
    char note[IDEM_MARK_MAX];
    va_list args;
    if (!c->owned)
        return IDEM_OK;
    va_start(args, format);
    int n = vsnprintf(note, sizeof(note), format, args);
    va_end(args);
    return idem_mark(c->w->store, &c->claim, note, n > 0 ? (size_t)n : 0);
}

/*
 * Asked under the ledger's shared lock: so whoever holds the exclusive one after the deadline, and sees no charge, knows that
 * none will come.
 */
static bool too_late(const struct charge *c)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return c->write_by_wall_ms != 0 && (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000 >= c->write_by_wall_ms;
}

/* With the shared lock held: plan, then write. Returns true if the line is in the ledger; else c was answered. */
static bool plan_and_append(struct charge *c)
{
    struct worker *w = c->w;
    int64_t from = ledger_size(w->ledger_fd);
    if (too_late(c)) {
        ledger_unlock(w->ledger_fd);
        give_back(c);
        tally_add(w->counts, TALLY_TOO_LATE);
        refuse(c, 503, "this request came too late or took too long; nothing was charged");
        return false;
    }
    new_charge_id(c->id);
    int got = mark(c, "planned %s from %" PRId64, c->id, from);
    if (got == IDEM_E_LOST) {
        ledger_unlock(w->ledger_fd);
        fenced(c);
        return false;
    }
    if (got < 0) {
        ledger_unlock(w->ledger_fd);
        give_back(c);
        idem_failed(c, "idem_mark", got);
        return false;
    }
    ledger_record line = {c->key, c->tenant, c->id, c->what.currency, c->what.amount, c->claim.token, c->claim.attempt};
    bool skip = w->options->fault == POOL_FAULT_SKIP_LEDGER && erand48(w->dice) < SKIP_LEDGER_P;
    if (!skip && ledger_append(w->ledger_fd, &line) != 0) {
        int error = errno;
        ledger_unlock(w->ledger_fd);
        give_back(c);
        unavailable(c, "cannot write the ledger", strerror(error));
        return false;
    }
    ledger_unlock(w->ledger_fd);
    return true;
}

/* Takes the ledger's lock, or comes back for it. Returns true if it is held; else c is waiting or was answered. */
static bool locked(struct charge *c, enum ledger_lock_kind kind, void (*again)(struct charge *))
{
    int got = ledger_try_lock(c->w->ledger_fd, kind);
    if (got > 0) {
        c->lock_until_ms = 0;
        return true;
    }
    int64_t now = now_ms();
    if (c->lock_until_ms == 0)
        c->lock_until_ms = now + LOCK_LIMIT_MS;
    if (got == 0 && now < c->lock_until_ms) {
        later(c, again, LOCK_RETRY_MS);
        return false;
    }
    int error = errno;
    give_back(c);
    unavailable(c, "cannot lock the ledger", got == 0 ? "a stopped worker holds it" : strerror(error));
    return false;
}

static void write_charge(struct charge *c)
{
    struct worker *w = c->w;
    if (!locked(c, LEDGER_SHARED, write_charge) || !plan_and_append(c))
        return;
    c->unfinished = true;
    atomic_fetch_add(&w->counts->unfinished[w->slot], 1);
    tally_add(w->counts, TALLY_CHARGES);
    if (dies_now(w))
        raise(SIGKILL);
    int got = mark(c, "written %s", c->id);
    if (got == IDEM_E_LOST) {
        fenced(c);
        return;
    }
    /* If there is no memory for this note, the plan still stands and leads to the ledger. */
    later(c, complete, c->what.slow_ms - c->what.slow_ms / 2);
}

/* The key is ours, and no earlier attempt has charged. */
static void work(struct charge *c)
{
    later(c, write_charge, c->what.slow_ms / 2);
}

static void own(struct charge *c)
{
    c->owned = true;
    struct timeval tv = span_ms(c->claim.lease_ms / 3 + 1);
    c->renew = event_new(c->w->base, -1, EV_PERSIST, on_renew, c);
    if (c->renew == NULL || event_add(c->renew, &tv) != 0)
        abort(); /* as in later() */
}

/* ------------------------------------------------------------------ after a lost attempt */

/* Reads the lost attempt's mark. Returns true if it says that the charge was written. */
static bool read_mark(struct charge *c, const void *bytes, size_t n)
{
    char note[IDEM_MARK_MAX + 1];
    char id[CHARGE_ID_BYTES];
    int64_t from;
    c->lost_from = 0;
    if (n > IDEM_MARK_MAX)
        n = IDEM_MARK_MAX;
    if (n > 0)
        memcpy(note, bytes, n);
    note[n] = '\0';
    if (sscanf(note, "written %19s", id) == 1 && strlen(id) == CHARGE_ID_BYTES - 1) {
        memcpy(c->id, id, sizeof(id));
        return true;
    }
    if (sscanf(note, "planned %19s from %" SCNd64, id, &from) == 2)
        c->lost_from = from; /* without a mark nothing can have been written, but looking from 0 on costs little */
    return false;
}

static void reconcile(struct charge *c)
{
    struct worker *w = c->w;
    if (!locked(c, LEDGER_EXCLUSIVE, reconcile))
        return;
    int found = ledger_find(w->ledger_fd, c->lost_from, c->tenant, c->key, c->id);
    int error = errno;
    ledger_unlock(w->ledger_fd);
    if (found < 0) {
        give_back(c);
        unavailable(c, "cannot read the ledger", strerror(error));
    } else if (found > 0) {
        tally_add(w->counts, TALLY_BY_LEDGER);
        complete(c);
    } else {
        tally_add(w->counts, TALLY_NOT_CHARGED);
        work(c);
    }
}

/* ------------------------------------------------------------------ asking for the key */

static void replay(struct charge *c, const idem_reply *stored)
{
    tally_add(c->w->counts, TALLY_REPLAYS);
    charge_answer a = {.status = stored->status, .replayed = true};
    if ((stored->flags & IDEM_REPLY_NOT_RETAINED) == 0) {
        a.body = stored->body;
        a.body_bytes = stored->body_bytes;
    }
    char varied[ORDER_BODY_MAX];
    if (c->w->options->fault == POOL_FAULT_VARY_REPLAY && a.body_bytes > 0 && a.body_bytes < sizeof(varied)) {
        memcpy(varied, a.body, a.body_bytes - 1);
        memcpy(varied + a.body_bytes - 1, " }", 2);
        a.body = varied;
        a.body_bytes++;
    }
    reply(c, &a);
}

static void wait_for_other(struct charge *c, const idem_reply *running)
{
    int64_t now = now_ms();
    if (now >= c->wait_until_ms) {
        tally_add(c->w->counts, TALLY_WAIT_LIMITS);
        refuse(c, 409, "another request with this key is still running; retry for its answer");
        return;
    }
    if (c->poll_ms == 0) {
        tally_add(c->w->counts, TALLY_WAITS);
        c->poll_ms = POLL_FIRST_MS;
    } else {
        c->poll_ms = c->poll_ms * 3 / 2 < POLL_MAX_MS ? c->poll_ms * 3 / 2 : POLL_MAX_MS;
    }
    c->wait_token = running->token;
    later(c, ask, c->poll_ms < c->wait_until_ms - now ? c->poll_ms : c->wait_until_ms - now);
}

static void ask(struct charge *c)
{
    struct worker *w = c->w;
    char room[2048];
    idem_request rq = IDEM_REQUEST_INIT;
    rq.key.scope = c->tenant;
    rq.key.scope_bytes = strlen(c->tenant);
    rq.key.key = c->key;
    rq.key.key_bytes = strlen(c->key);
    rq.fingerprint = c->fingerprint;
    rq.lease_ms = w->options->lease_ms;
    rq.wait_token = c->wait_token;
    idem_reply rp = IDEM_REPLY_INIT;
    rp.buffer = room;
    rp.buffer_bytes = sizeof(room);
    c->claim = (idem_claim)IDEM_CLAIM_INIT;
    int got = idem_begin(w->store, &rq, &c->claim, &rp);
    switch (got) {
    case IDEM_CLAIMED:
        own(c);
        work(c);
        break;
    case IDEM_RECLAIMED:
        tally_add(w->counts, TALLY_TAKEOVERS);
        if (rp.lost_reason == IDEM_LOST_CRASH)
            tally_add(w->counts, TALLY_AFTER_CRASH);
        own(c);
        if (w->options->fault == POOL_FAULT_SKIP_RECONCILE) {
            work(c);
        } else if (read_mark(c, rp.mark, rp.mark_bytes)) {
            tally_add(w->counts, TALLY_BY_MARK);
            complete(c);
        } else {
            reconcile(c);
        }
        break;
    case IDEM_REPLAY:
        replay(c, &rp);
        break;
    case IDEM_IN_PROGRESS:
        wait_for_other(c, &rp);
        break;
    case IDEM_MISMATCH:
        tally_add(w->counts, TALLY_MISMATCHES);
        refuse(c, 422, "this Idempotency-Key was used with another request");
        break;
    default:
        idem_failed(c, "idem_begin", got);
        break;
    }
    idem_reply_free(&rp);
}

/* Method and path end with a NUL, so that no two requests are the same bytes in a row. 0 when out of memory. */
static uint64_t fingerprint(struct worker *w, const charge_request *request)
{
    idem_fingerprint_state *s = idem_fingerprint_begin(w->store);
    if (s == NULL)
        return 0;
    idem_fingerprint_update(s, request->method, strlen(request->method) + 1);
    idem_fingerprint_update(s, request->path, strlen(request->path) + 1);
    idem_fingerprint_update(s, request->body, request->body_bytes);
    return idem_fingerprint_end(s);
}

void charge_start(struct worker *w, const charge_request *request, charge_answer_fn answer, void *ctx)
{
    static const charge_answer no_memory = {.status = 503, .body = "{}", .body_bytes = 2, .retry_after_s = 1};
    struct charge *c = calloc(1, sizeof(*c));
    struct event *step = c != NULL ? evtimer_new(w->base, on_step, c) : NULL;
    if (step == NULL) {
        free(c);
        answer(ctx, &no_memory);
        return;
    }
    c->w = w;
    c->answer = answer;
    c->ctx = ctx;
    c->step = step;
    c->what = *request->what;
    snprintf(c->tenant, sizeof(c->tenant), "%s", request->tenant);
    snprintf(c->key, sizeof(c->key), "%s", request->key);
    if (request->started_wall_ms > 0 && w->options->deadline_ms > 0)
        c->write_by_wall_ms = request->started_wall_ms + w->options->deadline_ms;
    c->wait_until_ms = now_ms() + (request->wait_ms >= 0 ? request->wait_ms : w->options->wait_limit_ms);
    w->running++;
    tally_add(w->counts, TALLY_REQUESTS);
    if (w->options->no_idem) {
        work(c);
        return;
    }
    if (w->options->fault != POOL_FAULT_NO_FINGERPRINT) {
        c->fingerprint = fingerprint(w, request);
        if (c->fingerprint == 0) {
            unavailable(c, "out of memory", "fingerprint");
            return;
        }
    }
    ask(c);
}
