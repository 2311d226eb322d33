/*
 * order.h - what an order is: the JSON that a client sends and a worker charges.
 *
 *   {"amount": 1999, "currency": "EUR"}     amount in minor units (cents), at least 1
 * Optional: "order" (an id), "slow_ms" (0 .. ORDER_SLOW_MAX_MS: the handler takes that long), and, read by the storm
 * only, "key" (the idempotency key) and "tenant". Other fields are carried along and mean nothing here.
 */
#ifndef ORDER_H
#define ORDER_H

#include "ledger.h"

#include <json-c/json.h>

#define ORDER_ID_MAX      64
#define ORDER_SLOW_MAX_MS 5000
#define ORDER_BODY_MAX    65536
#define ORDER_AMOUNT_MAX  INT64_C(999999999999)

typedef struct order {
    char id[ORDER_ID_MAX + 1];
    char currency[4];
    int64_t amount;
    int64_t slow_ms;
    char key[LEDGER_KEY_MAX + 1];       /* "" if the order has none */
    char tenant[LEDGER_TENANT_MAX + 1]; /* "" if the order has none */
} order;

/*
 * Reads one order of n bytes. Returns the parsed JSON object, which the caller puts (json_object_put), or NULL with a
 * sentence in `why` that names the field and what it should be.
 */
struct json_object *order_parse(const char *json, size_t n, order *out, char *why, size_t why_bytes);

#endif
