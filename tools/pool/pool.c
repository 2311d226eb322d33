/*
 * pool.c - idem_pool: the supervisor of a prefork HTTP pool that charges cards.
 *
 * Owns: the worker processes (and nobody else's: it signals only pids that it forked and has not reaped), the port, the
 * tally file, the store's creation, or its return from its log.
 * Makes trouble on request: kills and stops random workers of its own, so that a demonstration is hard enough.
 * If we die here: the kernel kills the workers (PR_SET_PDEATHSIG), stopped ones too; store, log, ledger and tally stay. The
 * next pool with these files goes on; if the store is gone, too, as after a reboot, opening it brings it back from its log.
 * Restarts are bounded: in all, and in a row for workers that end without having been killed.
 */
#include "ledger.h"
#include "options.h"
#include "pool.h"
#include "tally.h"

#include <idem.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STOP_LIMIT_MS    12000
#define WAL_FILE_BYTES   (UINT64_C(4) << 20) /* small, so that a demonstration of some seconds has several */
#define IDLE_MS          1000
#define CRASHES_IN_A_ROW 5
#define STOP_BEYOND_MS   300 /* a stopped worker wakes up this long after its lease */

struct slot {
    pid_t pid;          /* 0: none */
    int64_t wake_at_ms; /* > 0: stopped until then */
};

struct pool {
    pool_options o;
    uint64_t keys;
    tally *counts;
    int port_fd;
    struct slot slots[POOL_WORKERS_MAX];
    uint64_t spawns;
    unsigned restarts;
    unsigned crashes_in_a_row;
    bool stopping;
    bool failed;
    int64_t next_kill_ms;
    int64_t next_stop_ms;
    unsigned short dice[3];
};

/* ------------------------------------------------------------------ workers */

static bool spawn(struct pool *p, unsigned slot)
{
    pid_t parent = getpid();
    uint64_t number = p->spawns++;
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        fprintf(stderr, "idem_pool: cannot start a worker: %s\n", strerror(errno));
        return false;
    }
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        signal(SIGINT, SIG_IGN); /* ^C goes to the whole group; the supervisor stops us in order */
        signal(SIGPIPE, SIG_IGN);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        sigprocmask(SIG_SETMASK, &none, NULL);
        close(p->port_fd);
        tally_close(p->counts);
        exit(worker_run(&p->o, slot, number));
    }
    p->slots[slot] = (struct slot){.pid = pid};
    return true;
}

static void begin_stop(struct pool *p)
{
    p->stopping = true;
    for (unsigned i = 0; i < p->o.workers; i++) {
        if (p->slots[i].pid == 0)
            continue;
        kill(p->slots[i].pid, SIGTERM);
        kill(p->slots[i].pid, SIGCONT);
        p->slots[i].wake_at_ms = 0;
    }
}

static void give_up(struct pool *p, const char *why)
{
    fprintf(stderr, "idem_pool: %s; stopping\n", why);
    p->failed = true;
    begin_stop(p);
}

/* A worker ended: count how, start its successor. */
static void bury(struct pool *p, unsigned slot, int status)
{
    pid_t pid = p->slots[slot].pid;
    uint64_t unfinished = atomic_exchange(&p->counts->unfinished[slot], 0);
    p->slots[slot] = (struct slot){0};
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    bool asked = p->stopping && ((WIFEXITED(status) && WEXITSTATUS(status) == 0) ||
                                 (WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM));
    if (killed) {
        tally_add(p->counts, TALLY_KILLED);
        if (unfinished > 0)
            tally_add(p->counts, TALLY_KILLED_BETWEEN);
        p->crashes_in_a_row = 0;
    } else if (!asked) {
        tally_add(p->counts, TALLY_CRASHED);
        p->crashes_in_a_row++;
        p->failed = true;
        fprintf(stderr, "idem_pool: worker %d ended by itself (%s %d)\n", (int)pid,
                WIFEXITED(status) ? "exit status" : "signal",
                WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    }
    if (p->stopping)
        return;
    if (p->crashes_in_a_row >= CRASHES_IN_A_ROW)
        give_up(p, "workers keep ending by themselves");
    else if (p->restarts++ >= p->o.max_restarts)
        give_up(p, "--max-restarts is used up");
    else if (!spawn(p, slot))
        give_up(p, "cannot restart a worker");
}

static unsigned reap(struct pool *p)
{
    unsigned alive = 0;
    for (unsigned i = 0; i < p->o.workers; i++) {
        int status;
        if (p->slots[i].pid != 0 && waitpid(p->slots[i].pid, &status, WNOHANG) == p->slots[i].pid)
            bury(p, i, status);
    }
    for (unsigned i = 0; i < p->o.workers; i++)
        alive += p->slots[i].pid != 0;
    return alive;
}

/* ------------------------------------------------------------------ trouble */

/* Half to one and a half times the mean. */
static int64_t after(struct pool *p, int64_t now, int64_t mean_ms)
{
    return now + mean_ms / 2 + (int64_t)(erand48(p->dice) * (double)mean_ms);
}

/* A random worker that runs, or NULL. */
static struct slot *victim(struct pool *p)
{
    unsigned first = (unsigned)(erand48(p->dice) * p->o.workers);
    for (unsigned i = 0; i < p->o.workers; i++) {
        struct slot *s = &p->slots[(first + i) % p->o.workers];
        if (s->pid != 0 && s->wake_at_ms == 0)
            return s;
    }
    return NULL;
}

/* Does what is due; returns how long nothing more will be. */
static int64_t make_trouble(struct pool *p)
{
    int64_t now = now_ms();
    int64_t next = now + IDLE_MS;
    struct slot *s;
    if (p->o.kill_every_ms > 0) {
        if (p->next_kill_ms <= now) {
            if (p->next_kill_ms != 0 && (s = victim(p)) != NULL)
                kill(s->pid, SIGKILL);
            p->next_kill_ms = after(p, now, p->o.kill_every_ms);
        }
        next = p->next_kill_ms < next ? p->next_kill_ms : next;
    }
    if (p->o.stop_every_ms > 0) {
        if (p->next_stop_ms <= now) {
            if (p->next_stop_ms != 0 && (s = victim(p)) != NULL) {
                kill(s->pid, SIGSTOP);
                s->wake_at_ms = now + p->o.lease_ms + STOP_BEYOND_MS;
                tally_add(p->counts, TALLY_STOPPED);
            }
            p->next_stop_ms = after(p, now, p->o.stop_every_ms);
        }
        next = p->next_stop_ms < next ? p->next_stop_ms : next;
    }
    for (unsigned i = 0; i < p->o.workers; i++) {
        s = &p->slots[i];
        if (s->wake_at_ms == 0)
            continue;
        if (s->wake_at_ms <= now) {
            kill(s->pid, SIGCONT);
            s->wake_at_ms = 0;
        } else if (s->wake_at_ms < next) {
            next = s->wake_at_ms;
        }
    }
    return next - now;
}

/* ------------------------------------------------------------------ start, run, stop */

/* Binds, but does not listen on, a free port, which keeps it ours while workers come and go. */
static bool choose_port(struct pool *p)
{
    int on = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(p->o.port)};
    socklen_t n = sizeof(a);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    p->port_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (p->port_fd < 0 || setsockopt(p->port_fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0 ||
        bind(p->port_fd, (const struct sockaddr *)&a, n) != 0 ||
        getsockname(p->port_fd, (struct sockaddr *)&a, &n) != 0) {
        fprintf(stderr, "idem_pool: port %u on 127.0.0.1: %s\n", p->o.port, strerror(errno));
        return false;
    }
    p->o.port = ntohs(a.sin_port);
    return true;
}

/* Whole or not at all: whoever waits for the file never reads half a number. */
static bool write_port_file(const char *path, uint16_t port)
{
    char temporary[4096];
    if (path == NULL)
        return true;
    int n = snprintf(temporary, sizeof(temporary), "%s.new", path);
    FILE *f = n > 0 && (size_t)n < sizeof(temporary) ? fopen(temporary, "we") : NULL;
    bool ok = f != NULL && fprintf(f, "%u\n", port) > 0;
    if (f != NULL && fclose(f) != 0)
        ok = false;
    if (!ok || rename(temporary, path) != 0) {
        fprintf(stderr, "idem_pool: port file %s: %s\n", path, strerror(errno));
        return false;
    }
    return true;
}

static void problem(void *ctx, const char *sentence)
{
    const struct pool *p = ctx;
    fprintf(stderr, "idem_pool: store %s: %s\n", p->o.store_dir, sentence);
}

/* Every invariant of the store, after all that killing: how many do not hold, or 1 if that cannot be found out. */
static uint64_t store_problems(struct pool *p)
{
    idem_report report = IDEM_REPORT_INIT;
    if (p->o.no_idem)
        return 0;
    report.problem = problem;
    report.ctx = p;
    int got = idem_verify(p->o.store_dir, &report);
    if (got == IDEM_OK || got == IDEM_E_CORRUPT)
        return report.problems;
    problem(p, idem_error_detail());
    return 1;
}

static bool write_stats(const struct pool *p, uint64_t problems)
{
    if (p->o.stats_file == NULL)
        return true;
    FILE *f = fopen(p->o.stats_file, "we");
    bool ok =
        f != NULL && fprintf(f, "pool_store_problems=%" PRIu64 "\n", problems) > 0 && tally_print(p->counts, f) == 0;
    if (f != NULL && fclose(f) != 0)
        ok = false;
    if (!ok)
        fprintf(stderr, "idem_pool: statistics file %s: %s\n", p->o.stats_file, strerror(errno));
    return ok;
}

static int count_found(const idem_story *story, void *ctx)
{
    struct pool *p = ctx;
    if (story->state == IDEM_STATE_COMPLETED)
        tally_add(p->counts, TALLY_BACK_ANSWERS);
    else if (story->state == IDEM_STATE_LOST && story->lost_reason == IDEM_LOST_CRASH)
        tally_add(p->counts, TALLY_BACK_RUNNING);
    return 0;
}

/* The pool before this one was killed with all its workers: counts what it left behind. */
static int count_crash(struct pool *p, idem_store *store, int64_t opened_us)
{
    tally_add(p->counts, TALLY_REBOOTS);
    tally_add_many(p->counts, TALLY_KILLED, p->o.workers);
    for (unsigned i = 0; i < POOL_WORKERS_MAX; i++)
        if (atomic_exchange(&p->counts->unfinished[i], 0) > 0)
            tally_add(p->counts, TALLY_KILLED_BETWEEN);
    tally_add_many(p->counts, TALLY_BACK_US, (uint64_t)opened_us);
    return store != NULL ? idem_walk(store, count_found, p) : IDEM_OK;
}

static bool open_store(struct pool *p)
{
    idem_store *store = NULL;
    idem_options o = IDEM_OPTIONS_INIT;
    o.flags = IDEM_OPEN_CREATE;
    o.keys = p->keys;
    o.ttl_ms = 3600 * 1000;
    if (p->o.wal_dir != NULL) {
        o.wal_dir = p->o.wal_dir;
        o.wal_file_bytes = WAL_FILE_BYTES;
        o.durability_claim = o.durability_complete = p->o.durability;
    }
    int64_t start_us = now_us();
    int got = p->o.no_idem ? IDEM_OK : idem_open(p->o.store_dir, &o, &store);
    if (got == IDEM_OK && p->o.after_crash)
        got = count_crash(p, store, now_us() - start_us);
    if (got != IDEM_OK)
        fprintf(stderr, "idem_pool: store %s: %s (%s)\n", p->o.store_dir, idem_strerror(got), idem_error_detail());
    idem_close(store); /* each worker opens its own handle */
    return got == IDEM_OK;
}

static bool supervise(struct pool *p, const sigset_t *ours)
{
    for (unsigned i = 0; i < p->o.workers && !p->stopping; i++)
        if (!spawn(p, i))
            give_up(p, "cannot start the workers");
    int64_t stop_by = 0;
    unsigned alive = p->o.workers;
    while (alive > 0) {
        int64_t idle = p->stopping ? IDLE_MS : make_trouble(p);
        struct timespec t = {.tv_sec = (time_t)(idle / 1000), .tv_nsec = (long)(idle % 1000) * 1000000};
        int signal_number = sigtimedwait(ours, NULL, &t);
        if (!p->stopping && (signal_number == SIGTERM || signal_number == SIGINT || signal_number == SIGHUP))
            begin_stop(p);
        alive = reap(p);
        if (!p->stopping)
            continue;
        if (stop_by == 0)
            stop_by = now_ms() + STOP_LIMIT_MS;
        if (now_ms() < stop_by)
            continue;
        for (unsigned i = 0; i < p->o.workers; i++) {
            if (p->slots[i].pid == 0)
                continue;
            fprintf(stderr, "idem_pool: worker %d did not stop in time, killing it\n", (int)p->slots[i].pid);
            kill(p->slots[i].pid, SIGKILL);
            p->failed = true;
        }
        stop_by = now_ms() + STOP_LIMIT_MS;
    }
    return !p->failed;
}

/* ------------------------------------------------------------------ options */

static const char help[] =
    "idem_pool: a prefork HTTP pool that charges cards, once for each Idempotency-Key.\n"
    "\n"
    "  idem_pool --store DIR --ledger FILE --tally FILE [options]\n"
    "  curl -H 'Idempotency-Key: k1' -d '{\"amount\":1999,\"currency\":\"EUR\"}' http://127.0.0.1:PORT/charges\n"
    "\n"
    "  --store DIR           the idem store; created if there is none (it must lie on a tmpfs: /dev/shm/...)\n"
    "  --ledger FILE         charges are appended here, a line each\n"
    "  --tally FILE          counters shared by the workers; made anew, but with --after-crash\n"
    "  --workers N           worker processes, 1 to 64 (8)\n"
    "  --port N              0: any free one (0)\n"
    "  --port-file FILE      write the port's number here\n"
    "  --stats FILE          write the counters here at the end\n"
    "  --keys N              keys the store shall hold (100000)\n"
    "  --wal DIR             keep a write-ahead file there: a store that is gone is brought back from it\n"
    "  --durability NAME     with --wal, of claims, marks and completions: sync, async or none (sync)\n"
    "  --after-crash         go on with the tally of a pool that was killed\n"
    "  --lease-ms N          how long a claim is safe from takeover while its worker lives (10000)\n"
    "  --wait-limit-ms N     wait this long for another attempt, then answer 409 (2000)\n"
    "  --deadline-ms N       refuse (503) to make a charge N ms after its header X-Request-Start; 0: never (0)\n"
    "  --no-idem             the same handler without idem: retries charge again\n"
    "  --max-restarts N      give up after so many restarts of workers (2000)\n"
    "  --seed N              for everything random below (1)\n"
    "  --kill-every-ms N     SIGKILL a random worker about this often; 0: never (0)\n"
    "  --stop-every-ms N     SIGSTOP a random worker for longer than its lease about this often; 0: never (0)\n"
    "  --die-after-write P   a worker kills itself with this probability between ledger write and completion (0)\n"
    "  --fault NAME          be wrong on purpose, to see an audit fail: skip-reconcile, skip-ledger, vary-replay,\n"
    "                        no-fingerprint\n"
    "\n"
    "Stops on SIGTERM and SIGINT. Exit status: 0 stopped in order, 1 something failed, 2 wrong usage.\n";

enum option_id {
    O_STORE = 1000,
    O_LEDGER,
    O_TALLY,
    O_WORKERS,
    O_PORT,
    O_PORT_FILE,
    O_STATS,
    O_KEYS,
    O_WAL,
    O_DURABILITY,
    O_CRASH,
    O_LEASE,
    O_WAIT,
    O_DEADLINE,
    O_NO_IDEM,
    O_RESTARTS,
    O_SEED,
    O_KILL,
    O_STOP,
    O_DIE,
    O_FAULT,
    O_HELP
};

static const struct option long_options[] = {
    {"store", required_argument, NULL, O_STORE},
    {"ledger", required_argument, NULL, O_LEDGER},
    {"tally", required_argument, NULL, O_TALLY},
    {"workers", required_argument, NULL, O_WORKERS},
    {"port", required_argument, NULL, O_PORT},
    {"port-file", required_argument, NULL, O_PORT_FILE},
    {"stats", required_argument, NULL, O_STATS},
    {"keys", required_argument, NULL, O_KEYS},
    {"wal", required_argument, NULL, O_WAL},
    {"durability", required_argument, NULL, O_DURABILITY},
    {"after-crash", no_argument, NULL, O_CRASH},
    {"lease-ms", required_argument, NULL, O_LEASE},
    {"wait-limit-ms", required_argument, NULL, O_WAIT},
    {"deadline-ms", required_argument, NULL, O_DEADLINE},
    {"no-idem", no_argument, NULL, O_NO_IDEM},
    {"max-restarts", required_argument, NULL, O_RESTARTS},
    {"seed", required_argument, NULL, O_SEED},
    {"kill-every-ms", required_argument, NULL, O_KILL},
    {"stop-every-ms", required_argument, NULL, O_STOP},
    {"die-after-write", required_argument, NULL, O_DIE},
    {"fault", required_argument, NULL, O_FAULT},
    {"help", no_argument, NULL, O_HELP},
    {NULL, 0, NULL, 0},
};

static enum pool_fault fault_named(const char *name)
{
    static const char *const names[] = {"none", "skip-reconcile", "skip-ledger", "vary-replay", "no-fingerprint"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(name, names[i]) == 0)
            return (enum pool_fault)i;
    option_wrong("fault", "no such fault");
}

static uint32_t durability_named(const char *name)
{
    if (strcmp(name, "sync") == 0)
        return IDEM_DURABILITY_SYNC;
    if (strcmp(name, "async") == 0)
        return IDEM_DURABILITY_ASYNC;
    if (strcmp(name, "none") == 0)
        return IDEM_DURABILITY_NONE;
    option_wrong("durability", "say sync, async or none");
}

static void read_options(struct pool *p, int argc, char **argv)
{
    int got, index = 0;
    while ((got = getopt_long(argc, argv, "", long_options, &index)) != -1) {
        const char *name = got == '?' ? "" : long_options[index].name;
        switch (got) {
        case O_STORE:
            p->o.store_dir = optarg;
            break;
        case O_LEDGER:
            p->o.ledger_path = optarg;
            break;
        case O_TALLY:
            p->o.tally_path = optarg;
            break;
        case O_WORKERS:
            p->o.workers = (unsigned)option_number(name, optarg, 1, POOL_WORKERS_MAX);
            break;
        case O_PORT:
            p->o.port = (uint16_t)option_number(name, optarg, 0, UINT16_MAX);
            break;
        case O_PORT_FILE:
            p->o.port_file = optarg;
            break;
        case O_STATS:
            p->o.stats_file = optarg;
            break;
        case O_KEYS:
            p->keys = (uint64_t)option_number(name, optarg, 16, INT64_C(1) << 31);
            break;
        case O_WAL:
            p->o.wal_dir = optarg;
            break;
        case O_DURABILITY:
            p->o.durability = durability_named(optarg);
            break;
        case O_CRASH:
            p->o.after_crash = true;
            break;
        case O_LEASE:
            p->o.lease_ms = option_number(name, optarg, 10, IDEM_LEASE_MAX_MS);
            break;
        case O_WAIT:
            p->o.wait_limit_ms = option_number(name, optarg, 0, 30000);
            break;
        case O_DEADLINE:
            p->o.deadline_ms = option_number(name, optarg, 0, 3600000);
            break;
        case O_NO_IDEM:
            p->o.no_idem = true;
            break;
        case O_RESTARTS:
            p->o.max_restarts = (unsigned)option_number(name, optarg, 0, 1000000);
            break;
        case O_SEED:
            p->o.seed = (uint64_t)option_number(name, optarg, 0, INT64_MAX);
            break;
        case O_KILL:
            p->o.kill_every_ms = option_number(name, optarg, 0, 3600000);
            break;
        case O_STOP:
            p->o.stop_every_ms = option_number(name, optarg, 0, 3600000);
            break;
        case O_DIE:
            p->o.die_after_write = option_probability(name, optarg);
            break;
        case O_FAULT:
            p->o.fault = fault_named(optarg);
            break;
        case O_HELP:
            fputs(help, stdout);
            exit(fflush(stdout) == 0 ? 0 : 1);
        default:
            fputs("idem_pool: see idem_pool --help\n", stderr);
            exit(2);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "idem_pool: unexpected argument: %s (see idem_pool --help)\n", argv[optind]);
        exit(2);
    }
    if (p->o.store_dir == NULL && !p->o.no_idem)
        option_wrong("store", "name a directory for the idem store");
    if (p->o.ledger_path == NULL)
        option_wrong("ledger", "name a file for the charges");
    if (p->o.tally_path == NULL)
        option_wrong("tally", "name a file for the counters");
}

int main(int argc, char **argv)
{
    static struct pool p = {.o = {.workers = 8,
                                  .lease_ms = 10000,
                                  .wait_limit_ms = 2000,
                                  .max_restarts = 2000,
                                  .seed = 1,
                                  .durability = IDEM_DURABILITY_SYNC},
                            .keys = 100000};
    sigset_t ours;
    read_options(&p, argc, argv);
    for (int i = 0; i < 3; i++)
        p.dice[i] = (unsigned short)((p.o.seed >> (16 * i)) ^ 0x5eed);
    sigemptyset(&ours);
    sigaddset(&ours, SIGCHLD);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGHUP);
    sigprocmask(SIG_BLOCK, &ours, NULL);
    int ledger = ledger_open(p.o.ledger_path); /* to say once, and not for each worker, what is wrong with it */
    if (ledger < 0)
        return 1;
    close(ledger);
    p.counts = tally_open(p.o.tally_path, !p.o.after_crash);
    if (p.counts == NULL || !open_store(&p) || !choose_port(&p))
        return 1;
    printf("idem_pool: %u workers on http://127.0.0.1:%u/charges\n", p.o.workers, p.o.port);
    if (fflush(stdout) != 0 || !write_port_file(p.o.port_file, p.o.port))
        return 1;
    bool ok = supervise(&p, &ours);
    uint64_t problems = store_problems(&p);
    if (!write_stats(&p, problems) || problems > 0)
        ok = false;
    tally_close(p.counts);
    close(p.port_fd);
    return ok ? 0 : 1;
}
