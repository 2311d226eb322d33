/*
 * orders.h - the storm's orders: JSON lines read from a file, or made up from a seed.
 */
#ifndef ORDERS_H
#define ORDERS_H

#include "order.h"

#include <stdbool.h>
#include <stdio.h>

/* Room is left behind a key for the number of the round, when the input is used more than once. */
#define ORDERS_KEY_MAX (LEDGER_KEY_MAX - 8)

typedef struct storm_order {
    order what;
    char *body; /* the line as it stands */
    size_t body_bytes;
    char *changed; /* the same order with another meaning, to be refused under this key */
    size_t changed_bytes;
    unsigned again;   /* further lines of the input with this key and this body */
    bool must_change; /* the input itself has this key with another body */
} storm_order;

typedef struct storm_orders {
    storm_order *all;
    size_t count;
    size_t room;
} storm_orders;

/*
 * Reads a file of JSON lines (order.h; empty lines are skipped). A line without "key" gets one made of its number. Lines
 * that repeat a key are folded into its first line. Returns false with a sentence on stderr, naming file and line.
 */
bool orders_load(const char *path, storm_orders *out);
void orders_free(storm_orders *orders);

/* Writes `count` made-up orders as JSON lines; the same for the same seed. Returns 0, or -1 with errno. */
int orders_generate(FILE *out, size_t count, uint64_t seed);

#endif
