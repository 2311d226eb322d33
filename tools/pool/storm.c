/*
 * storm.c - idem_storm: clients that retry, sent against an idem_pool. The orders' ways are in errand.c.
 *
 * Owns: the event loop, the limits in time, the progress line, the summary.
 * If we die here: the file of acknowledgements ends early and there is no summary, so whoever audits sees no success.
 */
#include "options.h"
#include "storm.h"

#include <errno.h>
#include <event2/event.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANSWER_LIMIT_MS 6000
#define LINE_EVERY_MS   3000
#define SCREEN_EVERY_MS 200

/* ------------------------------------------------------------------ progress */

static void progress(struct storm *s, int64_t now)
{
    char pool[200] = "";
    char reboots[40] = "";
    if (s->pool != NULL && tally_get(s->pool, TALLY_REBOOTS) > 0)
        snprintf(reboots, sizeof(reboots), ", reboots %" PRIu64, tally_get(s->pool, TALLY_REBOOTS));
    if (s->pool != NULL)
        snprintf(pool, sizeof(pool),
                 "%s, workers killed %" PRIu64 " (%" PRIu64 " between write and complete), takeovers %" PRIu64, reboots,
                 tally_get(s->pool, TALLY_KILLED), tally_get(s->pool, TALLY_KILLED_BETWEEN),
                 tally_get(s->pool, TALLY_TAKEOVERS));
    fprintf(stderr, "%s%5.1f s: %" PRIu64 " orders, %" PRIu64 " requests%s%s", s->screen ? "\r\033[K" : "  ",
            (double)(now - s->start_ms) / 1000, s->started, client_sent(s->client), pool, s->screen ? "" : "\n");
    s->last_line_ms = now;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct storm *s = arg;
    int64_t now = now_ms();
    (void)fd;
    (void)what;
    if (now - s->last_line_ms >= (s->screen ? SCREEN_EVERY_MS : LINE_EVERY_MS))
        progress(s, now);
    if (s->over_ms == 0)
        errand_start_some(s); /* so that the time ends also if no order does */
    if (s->over_ms != 0 && now >= s->over_ms + s->drain_seconds * 1000)
        event_base_loopbreak(s->base);
}

static void on_signal(evutil_socket_t fd, short what, void *arg)
{
    struct storm *s = arg;
    (void)fd;
    (void)what;
    s->ended = true;
    event_base_loopbreak(s->base);
}

/* ------------------------------------------------------------------ the end */

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t percentile(const struct storm *s, double p)
{
    return s->latencies > 0 ? s->latency_us[(size_t)((double)(s->latencies - 1) * p)] : 0;
}

static bool write_summary(struct storm *s)
{
    if (s->summary_path == NULL)
        return true;
    FILE *f = fopen(s->summary_path, "we");
    if (f == NULL) {
        fprintf(stderr, "idem_storm: %s: %s\n", s->summary_path, strerror(errno));
        return false;
    }
    if (s->latencies > 0)
        qsort(s->latency_us, s->latencies, sizeof(*s->latency_us), by_size);
    int64_t ms = s->end_ms > s->start_ms ? s->end_ms - s->start_ms : 1;
    const struct {
        const char *name;
        uint64_t value;
    } lines[] = {
        {"requests", client_sent(s->client)},
        {"orders", s->started},
        {"acknowledged", s->acked},
        {"acknowledgements", s->acks_seen},
        {"replays_seen", s->replayed},
        {"lost_answers", s->lost_answers},
        {"retries", s->retries},
        {"busy", s->busy},
        {"changed_sent", s->changed_sent},
        {"changed_refused", s->changed_refused},
        {"changed_accepted", s->changed_accepted},
        {"wrong_answers", s->wrong_answers},
        {"different_bodies", s->different_bodies},
        {"unanswered", s->unanswered},
        {"input_orders", s->orders.count},
        {"milliseconds", (uint64_t)ms},
        {"requests_per_second", client_sent(s->client) * 1000 / (uint64_t)ms},
        {"p50_us", percentile(s, 0.50)},
        {"p99_us", percentile(s, 0.99)},
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        fprintf(f, "storm_%s=%" PRIu64 "\n", lines[i].name, lines[i].value);
    bool ok = ferror(f) == 0;
    if (fclose(f) != 0)
        ok = false;
    if (!ok)
        fprintf(stderr, "idem_storm: %s: %s\n", s->summary_path, strerror(errno));
    return ok;
}

static int run(struct storm *s)
{
    struct timeval tick = {.tv_usec = 100000};
    s->base = event_base_new();
    s->client = s->base != NULL ? client_new(s->base, s->port, s->concurrency, ANSWER_LIMIT_MS) : NULL;
    s->tick = s->client != NULL ? event_new(s->base, -1, EV_PERSIST, on_tick, s) : NULL;
    struct event *on_int = s->tick != NULL ? evsignal_new(s->base, SIGINT, on_signal, s) : NULL;
    struct event *on_term = on_int != NULL ? evsignal_new(s->base, SIGTERM, on_signal, s) : NULL;
    if (on_term == NULL || event_add(s->tick, &tick) != 0 || event_add(on_int, NULL) != 0 ||
        event_add(on_term, NULL) != 0) {
        fputs("idem_storm: cannot make an event loop: out of memory or descriptors\n", stderr);
        return 1;
    }
    s->start_ms = s->last_line_ms = now_ms();
    errand_start_some(s);
    event_base_dispatch(s->base);
    s->end_ms = now_ms();
    progress(s, s->end_ms);
    if (s->screen)
        fputc('\n', stderr);
    s->unanswered += s->active;
    if (fclose(s->acks) != 0 && s->acks_errno == 0)
        s->acks_errno = errno;
    bool ok = s->acks_errno == 0;
    if (!ok)
        fprintf(stderr, "idem_storm: %s: %s\n", s->acks_path, strerror(s->acks_errno));
    ok = write_summary(s) && ok;
    event_free(on_term);
    event_free(on_int);
    event_free(s->tick);
    if (s->unanswered > 0)
        fprintf(stderr, "idem_storm: orders without a definite answer to all their requests: %" PRIu64 "\n",
                s->unanswered);
    return ok && s->unanswered == 0 && !s->ended ? 0 : 1;
}

/* ------------------------------------------------------------------ options */

static const char help[] =
    "idem_storm: clients that retry, against an idem_pool, or a gateway before one.\n"
    "\n"
    "  idem_storm --generate N [--seed N] > orders.jsonl\n"
    "  idem_storm --port N --input FILE --acks FILE [options]\n"
    "\n"
    "  --input FILE       orders, a JSON object a line: {\"amount\":1999,\"currency\":\"EUR\"}; optional \"key\", "
    "\"tenant\",\n"
    "                     \"slow_ms\"; used again and again, each round with its own keys, until the time is over\n"
    "  --acks FILE        a line for each acknowledged request: tenant, key, charge, amount, answer\n"
    "  --summary FILE     counts and latencies, NAME=VALUE\n"
    "  --tally FILE       the pool's counters, for the progress line\n"
    "  --seconds N        begin new orders for so long (10)\n"
    "  --drain-seconds N  then wait so long for the last answers (25)\n"
    "  --orders N         begin at most so many orders (0: no limit)\n"
    "  --takeovers N      with --tally: go on until the pool counts so many takeovers, at most 4 times as long (0)\n"
    "  --killed-between N the same for workers killed between ledger write and complete (0)\n"
    "  --reboots N        the same for pools that went on where one was killed (0)\n"
    "  --change-late      send changed bodies only after a 201 for their key, not after a 409\n"
    "  --concurrency N    orders under way, and connections (48)\n"
    "  --seed N           the plan's seed (1)\n"
    "\n"
    "Exit status: 0 every request got a definite answer, 1 not so or something failed, 2 wrong usage.\n";

enum option_id {
    O_PORT = 1000,
    O_INPUT,
    O_ACKS,
    O_SUMMARY,
    O_TALLY,
    O_SECONDS,
    O_DRAIN,
    O_ORDERS,
    O_CONCURRENCY,
    O_SEED,
    O_TAKEOVERS,
    O_KILLED,
    O_REBOOTS,
    O_CHANGE_LATE,
    O_GENERATE,
    O_HELP
};

static const struct option long_options[] = {
    {"port", required_argument, NULL, O_PORT},
    {"input", required_argument, NULL, O_INPUT},
    {"acks", required_argument, NULL, O_ACKS},
    {"summary", required_argument, NULL, O_SUMMARY},
    {"tally", required_argument, NULL, O_TALLY},
    {"seconds", required_argument, NULL, O_SECONDS},
    {"drain-seconds", required_argument, NULL, O_DRAIN},
    {"orders", required_argument, NULL, O_ORDERS},
    {"concurrency", required_argument, NULL, O_CONCURRENCY},
    {"seed", required_argument, NULL, O_SEED},
    {"takeovers", required_argument, NULL, O_TAKEOVERS},
    {"killed-between", required_argument, NULL, O_KILLED},
    {"reboots", required_argument, NULL, O_REBOOTS},
    {"change-late", no_argument, NULL, O_CHANGE_LATE},
    {"generate", required_argument, NULL, O_GENERATE},
    {"help", no_argument, NULL, O_HELP},
    {NULL, 0, NULL, 0},
};

static size_t read_options(struct storm *s, int argc, char **argv)
{
    int got, index = 0;
    size_t generate = 0;
    while ((got = getopt_long(argc, argv, "", long_options, &index)) != -1) {
        const char *name = got == '?' ? "" : long_options[index].name;
        switch (got) {
        case O_PORT:
            s->port = (uint16_t)option_number(name, optarg, 1, UINT16_MAX);
            break;
        case O_INPUT:
            s->input = optarg;
            break;
        case O_ACKS:
            s->acks_path = optarg;
            break;
        case O_SUMMARY:
            s->summary_path = optarg;
            break;
        case O_TALLY:
            s->tally_path = optarg;
            break;
        case O_SECONDS:
            s->seconds = (int64_t)option_number(name, optarg, 1, 86400);
            break;
        case O_DRAIN:
            s->drain_seconds = (int64_t)option_number(name, optarg, 0, 86400);
            break;
        case O_ORDERS:
            s->orders_max = (uint64_t)option_number(name, optarg, 0, INT64_MAX);
            break;
        case O_CONCURRENCY:
            s->concurrency = (unsigned)option_number(name, optarg, 1, 1000);
            break;
        case O_SEED:
            s->seed = (uint64_t)option_number(name, optarg, 0, INT64_MAX);
            break;
        case O_TAKEOVERS:
            s->want_takeovers = (uint64_t)option_number(name, optarg, 0, INT64_MAX);
            break;
        case O_KILLED:
            s->want_killed = (uint64_t)option_number(name, optarg, 0, INT64_MAX);
            break;
        case O_REBOOTS:
            s->want_reboots = (uint64_t)option_number(name, optarg, 0, INT64_MAX);
            break;
        case O_CHANGE_LATE:
            s->change_late = true;
            break;
        case O_GENERATE:
            generate = (size_t)option_number(name, optarg, 1, 1000000);
            break;
        case O_HELP:
            fputs(help, stdout);
            exit(fflush(stdout) == 0 ? 0 : 1);
        default:
            fputs("idem_storm: see idem_storm --help\n", stderr);
            exit(2);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "idem_storm: unexpected argument: %s (see idem_storm --help)\n", argv[optind]);
        exit(2);
    }
    if (generate > 0)
        return generate;
    if (s->port == 0)
        option_wrong("port", "say where the pool listens");
    if (s->input == NULL)
        option_wrong("input", "name a file of orders, or make one with --generate");
    if (s->acks_path == NULL)
        option_wrong("acks", "name a file for the acknowledgements");
    return 0;
}

int main(int argc, char **argv)
{
    static struct storm s = {.seconds = 10, .drain_seconds = 25, .concurrency = 48, .seed = 1, .dice = {1, 2, 3}};
    size_t generate = read_options(&s, argc, argv);
    if (generate > 0) {
        if (orders_generate(stdout, generate, s.seed) == 0)
            return 0;
        fprintf(stderr, "idem_storm: standard output: %s\n", strerror(errno));
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    s.screen = isatty(STDERR_FILENO) != 0;
    tally *pool = NULL;
    if (s.tally_path != NULL && (pool = tally_open(s.tally_path, false)) == NULL)
        return 1;
    s.pool = pool;
    if (!orders_load(s.input, &s.orders))
        return 1;
    s.acks = fopen(s.acks_path, "we");
    if (s.acks == NULL) {
        fprintf(stderr, "idem_storm: %s: %s\n", s.acks_path, strerror(errno));
        return 1;
    }
    int status = run(&s);
    client_free(s.client);
    event_base_free(s.base);
    orders_free(&s.orders);
    tally_close(pool);
    free(s.latency_us);
    return status;
}
