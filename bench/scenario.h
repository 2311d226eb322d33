/*
 * scenario.h - one store's life, measured: filled, asked for running keys, completed, asked for answers.
 */
#ifndef BENCH_SCENARIO_H
#define BENCH_SCENARIO_H

#include <stdbool.h>
#include <stdint.h>

#include "harness.h"
#include "ops.h"
#include "place.h"

struct scenario {
    const struct place *place;
    uint64_t keys;
    unsigned processes;
    bool huge;        /* 2 MiB pages for the store and the floors; else 4 KiB for both */
    bool brief;       /* three small stores are enough: does it work? */
    unsigned limit_s; /* at most that long; 0: as long as that many keys may take */
    bool sample;      /* time the last wave alone; those before are filled as fast as can be */
    bool cold;        /* leave the store's pages to be mapped by the first access */
    unsigned wanted;  /* bit 1 << op: print it; what a wanted one needs runs too, unmeasured */
};

struct scenario_result {
    char error[HARNESS_ERROR_BYTES]; /* not empty: nothing below counts */
    bool left_out;                   /* with error: this machine cannot (no huge pages, not enough memory) */
    struct series series[OP_COUNT];  /* ns are sums over all processes: ns/op as one process sees it */
    uint64_t store_bytes;
    uint64_t store_huge_bytes; /* as idem_stats() says in a worker */
    uint64_t floor_huge_bytes;
    uint64_t floor_bytes;
    uint64_t keys_capacity;
};

/* Creates and destroys everything it needs below s->place. */
void scenario_run(const struct scenario *s, struct scenario_result *out);

#endif
