/*
 * pool.h - what the supervisor (pool.c), its workers (worker.c) and the charge handler (charge.c) share: the options.
 */
#ifndef POOL_H
#define POOL_H

#include <stdbool.h>
#include <stdint.h>

#define POOL_WORKERS_MAX 64u

/* Faults seeded on purpose, so that a test can see the audit and the storm fail. Never on unless asked for by name. */
enum pool_fault {
    POOL_FAULT_NONE = 0,
    POOL_FAULT_SKIP_RECONCILE, /* a takeover charges again without looking: double charges */
    POOL_FAULT_SKIP_LEDGER,    /* one charge in 50 is answered but never written: lost charges */
    POOL_FAULT_VARY_REPLAY,    /* a replay differs from the first answer */
    POOL_FAULT_NO_FINGERPRINT  /* a changed body under an old key is not noticed */
};

typedef struct pool_options {
    const char *store_dir;
    const char *wal_dir; /* NULL: no log */
    const char *ledger_path;
    const char *tally_path;
    const char *port_file;  /* NULL: none */
    const char *stats_file; /* NULL: none */
    unsigned workers;
    bool no_idem;
    bool after_crash;    /* a pool with these files was killed: its counters go on */
    uint32_t durability; /* enum idem_durability, of claims and completions; with a log */
    int64_t lease_ms;
    int64_t wait_limit_ms;  /* how long a request waits for another attempt before it is told 409 */
    int64_t deadline_ms;    /* a charge this long after its X-Request-Start is not made any more; 0: no limit */
    double die_after_write; /* probability that a worker kills itself between ledger write and complete */
    int64_t kill_every_ms;  /* mean time between SIGKILLs of a random worker; 0: none */
    int64_t stop_every_ms;  /* mean time between SIGSTOPs of a random worker, for longer than the lease; 0: none */
    unsigned max_restarts;
    uint64_t seed;
    enum pool_fault fault;
    uint16_t port; /* chosen by the supervisor */
} pool_options;

/*
 * Runs worker number `slot` until SIGTERM; returns its exit status. `spawn` counts the processes started so far, so that
 * a restarted worker draws other random numbers than its predecessor.
 */
int worker_run(const pool_options *options, unsigned slot, uint64_t spawn);

#endif
