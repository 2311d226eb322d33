/*
 * order.c - see order.h.
 */
#include "order.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define DEPTH_MAX 16

/* An optional string field into `out`. Returns 0, or -1 with `why`. */
static int text(struct json_object *object, const char *name, char *out, size_t out_bytes, char *why, size_t why_bytes)
{
    struct json_object *field;
    out[0] = '\0';
    if (!json_object_object_get_ex(object, name, &field))
        return 0;
    size_t n = json_object_is_type(field, json_type_string) ? (size_t)json_object_get_string_len(field) : 0;
    if (n == 0 || n >= out_bytes || strlen(json_object_get_string(field)) != n) {
        snprintf(why, why_bytes, "field \"%s\" must be a text of 1 to %zu characters", name, out_bytes - 1);
        return -1;
    }
    memcpy(out, json_object_get_string(field), n + 1);
    return 0;
}

/* A whole number within bounds. Returns 1, 0 if the field is absent, or -1 with `why`. */
static int number(struct json_object *object, const char *name, int64_t low, int64_t high, int64_t *out, char *why,
                  size_t why_bytes)
{
    struct json_object *field;
    if (!json_object_object_get_ex(object, name, &field))
        return 0;
    *out = json_object_get_int64(field);
    if (!json_object_is_type(field, json_type_int) || *out < low || *out > high) {
        snprintf(why, why_bytes, "field \"%s\" must be a whole number from %" PRId64 " to %" PRId64, name, low, high);
        return -1;
    }
    return 1;
}

static int fill(struct json_object *object, order *out, char *why, size_t why_bytes)
{
    memset(out, 0, sizeof(*out));
    if (!json_object_is_type(object, json_type_object)) {
        snprintf(why, why_bytes, "an order is a JSON object");
        return -1;
    }
    int got = number(object, "amount", 1, ORDER_AMOUNT_MAX, &out->amount, why, why_bytes);
    if (got == 0)
        snprintf(why, why_bytes, "field \"amount\" is missing: a whole number in minor units (cents)");
    if (got <= 0)
        return -1;
    if (number(object, "slow_ms", 0, ORDER_SLOW_MAX_MS, &out->slow_ms, why, why_bytes) < 0 ||
        text(object, "order", out->id, sizeof(out->id), why, why_bytes) < 0 ||
        text(object, "currency", out->currency, sizeof(out->currency), why, why_bytes) < 0 ||
        text(object, "key", out->key, sizeof(out->key), why, why_bytes) < 0 ||
        text(object, "tenant", out->tenant, sizeof(out->tenant), why, why_bytes) < 0)
        return -1;
    if (strlen(out->currency) != 3 || !isupper((unsigned char)out->currency[0]) ||
        !isupper((unsigned char)out->currency[1]) || !isupper((unsigned char)out->currency[2])) {
        snprintf(why, why_bytes, "field \"currency\" must be three capital letters");
        return -1;
    }
    if (out->key[0] != '\0' && !ledger_key_ok(out->key)) {
        snprintf(why, why_bytes, "field \"key\" must be printable ASCII without quotes and backslashes");
        return -1;
    }
    if (out->tenant[0] != '\0' && !ledger_tenant_ok(out->tenant)) {
        snprintf(why, why_bytes, "field \"tenant\" must consist of letters, digits, '.', '_' and '-'");
        return -1;
    }
    return 0;
}

struct json_object *order_parse(const char *json, size_t n, order *out, char *why, size_t why_bytes)
{
    if (n > ORDER_BODY_MAX) {
        snprintf(why, why_bytes, "an order is at most %d bytes", ORDER_BODY_MAX);
        return NULL;
    }
    struct json_tokener *tokener = json_tokener_new_ex(DEPTH_MAX);
    if (tokener == NULL) {
        snprintf(why, why_bytes, "out of memory");
        return NULL;
    }
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
    /* One byte more than n would be read as an end mark; a value that ends with the input is complete without it. */
    struct json_object *object = json_tokener_parse_ex(tokener, json, (int)n);
    enum json_tokener_error error = json_tokener_get_error(tokener);
    if (object == NULL || error != json_tokener_success || json_tokener_get_parse_end(tokener) != n) {
        const char *what = error == json_tokener_success    ? "more than one value"
                           : error == json_tokener_continue ? "it ends in the middle"
                                                            : json_tokener_error_desc(error);
        snprintf(why, why_bytes, "not JSON: %s", what);
        json_object_put(object);
        object = NULL;
    } else if (fill(object, out, why, why_bytes) != 0) {
        json_object_put(object);
        object = NULL;
    }
    json_tokener_free(tokener);
    return object;
}
