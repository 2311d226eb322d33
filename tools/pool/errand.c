/*
 * errand.c - one order's way: sent one to five times at once, answers lost, its body changed, retried until every request
 * has a definite answer.
 *
 * Owns: the plan (how often, when, with what mishaps; all drawn from the seed and the order's number, so that two storms
 * with one seed and one input plan the same), and the file of acknowledgements.
 * What is definite: 201 for an order; 422 for a changed body. 409, 502 to 504 and no answer at all are retried.
 * A changed body is sent only after the pool has answered 201 or 409 for its key, so it can never be the first. Where an
 * attempt may be given back after others were told 409 (a gateway that could not reach its service), 201 alone tells that.
 * Acknowledgements: one line for each 201, tab-separated: tenant, key, charge, the amount we meant, the body.
 */
#include "options.h"
#include "storm.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SENDS_MAX        6 /* five of the order itself, one changed */
#define TRIES_MAX        100
#define SPREAD_MS        25 /* the copies of an order set out within this time */
#define BACKOFF_FIRST_MS 10
#define BACKOFF_MAX_MS   300
#define LOSE_P           0.15
#define CHANGE_P         0.08
#define NO_WAIT_P        0.30
#define STRETCH          4
#define COMPLAINTS_MAX   5

struct errand;

struct sending {
    client_request request; /* first: on_done() gets a pointer to it */
    struct errand *errand;
    struct event *timer;
    bool changed;
    bool lose; /* the next answer gets lost: cut off, or dropped on arrival as by a client that dies just then */
    unsigned tries;
};

/* One order under way. */
struct errand {
    struct storm *s;
    const storm_order *order;
    char key[LEDGER_KEY_MAX + 1];
    struct sending sends[SENDS_MAX];
    unsigned count, open;
    struct sending *waiting_change; /* set out when the pool has shown that it knows the key */
    char *body;                     /* the first 201's */
    size_t body_bytes;
};

static void set_out(struct sending *x, int64_t ms)
{
    struct timeval tv = span_ms(ms);
    evtimer_add(x->timer, &tv);
}

/* ------------------------------------------------------------------ what came back */

static void complain(struct storm *s, const struct sending *x, const client_answer *a, const char *what)
{
    if (s->wrong_answers + s->different_bodies > COMPLAINTS_MAX)
        return;
    fprintf(stderr, "%sidem_storm: key %s: %s: %d %.*s\n", s->screen ? "\r\033[K" : "", x->errand->key, what, a->status,
            (int)a->body_bytes, a->body);
}

static void finished(struct sending *x)
{
    struct errand *e = x->errand;
    struct storm *s = e->s;
    e->open--;
    if (e->open == 1 && e->waiting_change != NULL) {
        e->waiting_change =
            NULL; /* the order itself was never answered: its changed body could be the first; not sent */
        e->open--;
    }
    if (e->open > 0)
        return;
    for (unsigned i = 0; i < e->count; i++)
        event_free(e->sends[i].timer);
    free(e->body);
    free(e);
    s->active--;
    errand_start_some(s);
}

static void retry(struct sending *x, int64_t ms)
{
    struct storm *s = x->errand->s;
    if (x->tries >= TRIES_MAX) {
        s->unanswered++;
        finished(x);
        return;
    }
    s->retries++;
    set_out(x, ms + (int64_t)(erand48(s->dice) * (double)ms / 2));
}

static void release_change(struct errand *e)
{
    if (e->waiting_change != NULL)
        set_out(e->waiting_change, 0);
    e->waiting_change = NULL;
}

/* A charge id out of an answer. Returns false if the body is not what the pool promises. */
static bool charge_in(const client_answer *a, char charge[CHARGE_ID_BYTES])
{
    bool ok = false;
    struct json_object *field, *o = NULL;
    struct json_tokener *t = json_tokener_new();
    if (t != NULL)
        o = json_tokener_parse_ex(t, a->body, (int)a->body_bytes);
    if (o != NULL && json_object_object_get_ex(o, "charge", &field) &&
        json_object_get_string_len(field) == CHARGE_ID_BYTES - 1) {
        memcpy(charge, json_object_get_string(field), CHARGE_ID_BYTES);
        ok = memchr(a->body, '\n', a->body_bytes) == NULL && memchr(a->body, '\t', a->body_bytes) == NULL;
    }
    json_object_put(o);
    json_tokener_free(t);
    return ok;
}

static void acknowledged(struct sending *x, const client_answer *a)
{
    struct errand *e = x->errand;
    struct storm *s = e->s;
    char charge[CHARGE_ID_BYTES];
    if (!charge_in(a, charge)) {
        s->wrong_answers++;
        complain(s, x, a, "201 without a charge");
        return;
    }
    s->acks_seen++;
    s->replayed += a->replayed;
    if (fprintf(s->acks, "%s\t%s\t%s\t%" PRId64 "\t%.*s\n", e->order->what.tenant, e->key, charge,
                e->order->what.amount, (int)a->body_bytes, a->body) < 0)
        s->acks_errno = errno;
    if (e->body == NULL) {
        s->acked++;
        e->body = malloc(a->body_bytes);
        e->body_bytes = a->body_bytes;
        if (e->body != NULL)
            memcpy(e->body, a->body, a->body_bytes);
    } else if (e->body_bytes != a->body_bytes || memcmp(e->body, a->body, a->body_bytes) != 0) {
        s->different_bodies++;
    }
}

static void note_latency(struct storm *s, int64_t us)
{
    if (s->latencies == s->latency_room) {
        size_t room = s->latency_room > 0 ? s->latency_room * 2 : 65536;
        uint32_t *more = reallocarray(s->latency_us, room, sizeof(*more));
        if (more == NULL)
            return;
        s->latency_us = more;
        s->latency_room = room;
    }
    s->latency_us[s->latencies++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static void on_done(client_request *request, const client_answer *a)
{
    struct sending *x = (struct sending *)(void *)request;
    struct errand *e = x->errand;
    struct storm *s = e->s;
    bool lost = x->lose;
    x->lose = false;
    request->cut_after_us = 0;
    if (a->status != 0)
        note_latency(s, a->took_us);
    s->lost_answers += lost;
    if (a->status == 0 || lost) {
        int64_t ms = BACKOFF_FIRST_MS << (x->tries < 6 ? x->tries : 6);
        retry(x, ms < BACKOFF_MAX_MS ? ms : BACKOFF_MAX_MS);
        return;
    }
    if (!x->changed && (a->status == 201 || (a->status == 409 && !s->change_late)))
        release_change(e);
    if (a->status == 409 || (a->status >= 502 && a->status <= 504)) {
        s->busy++;
        request->prefer = NULL;
        retry(x, a->retry_after_s > 0 && a->retry_after_s < 60 ? a->retry_after_s * 1000 : 1000);
        return;
    }
    if (!x->changed && a->status == 201) {
        acknowledged(x, a);
    } else if (x->changed && a->status == 422) {
        s->changed_refused++;
    } else if (x->changed && a->status == 201) {
        s->changed_accepted++;
    } else {
        s->wrong_answers++;
        complain(s, x, a, x->changed ? "unexpected answer to a changed body" : "unexpected answer");
    }
    finished(x);
}

/* ------------------------------------------------------------------ the plan */

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct sending *x = arg;
    (void)fd;
    (void)what;
    if (x->tries++ == 0 && x->changed)
        x->errand->s->changed_sent++;
    client_send(x->errand->s->client, &x->request);
}

static bool plan_sending(struct errand *e, bool changed)
{
    struct sending *x = &e->sends[e->count];
    x->errand = e;
    x->changed = changed;
    x->timer = evtimer_new(e->s->base, on_timer, x);
    if (x->timer == NULL)
        return false;
    x->request.tenant = e->order->what.tenant;
    x->request.key = e->key;
    x->request.body = changed ? e->order->changed : e->order->body;
    x->request.body_bytes = changed ? e->order->changed_bytes : e->order->body_bytes;
    x->request.done = on_done;
    e->count++;
    e->open++;
    return true;
}

/* 1 to 5: most orders are sent once or twice. */
static unsigned how_often(double x)
{
    static const double bounds[] = {0.30, 0.60, 0.80, 0.92};
    unsigned n = 1;
    while (n <= sizeof(bounds) / sizeof(bounds[0]) && x >= bounds[n - 1])
        n++;
    return n;
}

static bool start_errand(struct storm *s, uint64_t number)
{
    uint64_t mix = (s->seed + 1) * UINT64_C(0x9e3779b97f4a7c15) + number * UINT64_C(0xd1342543de82ef95);
    unsigned short dice[3] = {(unsigned short)(mix >> 48), (unsigned short)(mix >> 32), (unsigned short)(mix >> 16)};
    uint64_t round = number / s->orders.count;
    struct errand *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return false;
    e->s = s;
    e->order = &s->orders.all[number % s->orders.count];
    if (round == 0)
        snprintf(e->key, sizeof(e->key), "%s", e->order->what.key);
    else
        snprintf(e->key, sizeof(e->key), "%.*s~%u", ORDERS_KEY_MAX, e->order->what.key,
                 (unsigned)(round % 1000000) + 1);
    int64_t slow_ms = e->order->what.slow_ms;
    unsigned n = how_often(erand48(dice));
    if (n <= e->order->again)
        n = e->order->again < SENDS_MAX - 2 ? e->order->again + 1 : SENDS_MAX - 1;
    bool change = erand48(dice) < CHANGE_P || e->order->must_change;
    bool hurry = erand48(dice) < NO_WAIT_P && slow_ms >= 2 * SPREAD_MS && n >= 2;
    bool ok = true;
    for (unsigned i = 0; ok && i < n; i++) {
        ok = plan_sending(e, false);
        if (!ok)
            break;
        struct sending *x = &e->sends[i];
        x->lose = erand48(dice) < LOSE_P;
        if (x->lose) /* some before the worker has seen it, some in the middle, some after the answer */
            x->request.cut_after_us = 100 + (int64_t)(erand48(dice) * (double)(slow_ms > 0 ? slow_ms * 1000 : 1000));
        if (hurry && i == n - 1)
            x->request.prefer = "wait=0";
        set_out(x, i == 0 ? 0 : (int64_t)(erand48(dice) * SPREAD_MS));
    }
    if (ok && change && (ok = plan_sending(e, true)))
        e->waiting_change = &e->sends[e->count - 1];
    if (!ok) {
        for (unsigned i = 0; i < e->count; i++)
            event_free(e->sends[i].timer);
        free(e);
        return false;
    }
    s->active++;
    s->started++;
    return true;
}

/*
 * Whether new orders are still begun: until the time is over, and beyond it, up to STRETCH times as long, while the pool has
 * not had as much trouble as was asked for (a slow machine needs longer for it).
 */
static bool time_left(struct storm *s)
{
    int64_t now = now_ms();
    if (now < s->start_ms + s->seconds * 1000)
        return true;
    bool hard = s->pool == NULL || (tally_get(s->pool, TALLY_TAKEOVERS) >= s->want_takeovers &&
                                    tally_get(s->pool, TALLY_KILLED_BETWEEN) >= s->want_killed &&
                                    tally_get(s->pool, TALLY_REBOOTS) >= s->want_reboots);
    return !hard && now < s->start_ms + s->seconds * 1000 * STRETCH;
}

void errand_start_some(struct storm *s)
{
    if (s->over_ms == 0 && ((s->orders_max != 0 && s->started >= s->orders_max) || !time_left(s)))
        s->over_ms = now_ms();
    while (s->over_ms == 0 && s->active < s->concurrency && (s->orders_max == 0 || s->started < s->orders_max))
        if (!start_errand(s, s->started))
            break; /* out of memory: go on with what runs */
    if (s->active == 0)
        event_base_loopexit(s->base, NULL);
}
