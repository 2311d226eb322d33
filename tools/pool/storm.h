/*
 * storm.h - what the storm's clients (errand.c) and the program around them (storm.c) share.
 */
#ifndef STORM_H
#define STORM_H

#include "client.h"
#include "orders.h"
#include "tally.h"

struct event;

struct storm {
    /* options */
    const char *input, *acks_path, *summary_path, *tally_path;
    uint16_t port;
    unsigned concurrency;
    int64_t seconds, drain_seconds;
    uint64_t orders_max, seed;
    bool change_late;                                   /* changed bodies only behind a 201 */
    uint64_t want_takeovers, want_killed, want_reboots; /* go on until there were so many, within bounds */
    /* running */
    struct event_base *base;
    struct client *client;
    struct event *tick;
    storm_orders orders;
    FILE *acks;
    const tally *pool;
    bool screen, ended;
    int acks_errno; /* why acknowledgements could not be written; 0: they could */
    int64_t start_ms, last_line_ms, end_ms;
    int64_t over_ms; /* when the last new order was begun; 0: not yet */
    unsigned active;
    unsigned short dice[3]; /* for delays of retries, which are no part of the plan */
    /* counted */
    uint64_t started, acked, acks_seen, lost_answers, retries, busy, replayed;
    uint64_t changed_sent, changed_refused, changed_accepted;
    uint64_t wrong_answers, different_bodies, unanswered;
    uint32_t *latency_us;
    size_t latencies, latency_room;
};

/*
 * Begins new orders while there is time and fewer than `concurrency` are under way; leaves the event loop when the last
 * one has ended. Orders call it again as they end.
 */
void errand_start_some(struct storm *s);

#endif
