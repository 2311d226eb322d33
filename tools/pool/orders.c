/*
 * orders.c - see orders.h. Reading orders; making them up is in generate.c.
 */
#include "orders.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ORDERS_MAX 1000000u

/* A copy of the order that means something else: one more cent. NULL when out of memory. */
static char *changed_copy(struct json_object *object, int64_t amount, size_t *bytes)
{
    struct json_object *copy = NULL;
    if (json_object_deep_copy(object, &copy, NULL) != 0)
        return NULL;
    int64_t other = amount < ORDER_AMOUNT_MAX ? amount + 1 : amount - 1;
    json_object_object_add(copy, "amount", json_object_new_int64(other));
    const char *text = json_object_to_json_string_length(copy, JSON_C_TO_STRING_PLAIN, bytes);
    char *made = text != NULL ? strdup(text) : NULL;
    json_object_put(copy);
    return made;
}

static storm_order *next_free(storm_orders *orders)
{
    if (orders->count == orders->room) {
        size_t room = orders->room > 0 ? orders->room * 2 : 1024;
        storm_order *all = reallocarray(orders->all, room, sizeof(*all));
        if (all == NULL)
            return NULL;
        orders->all = all;
        orders->room = room;
    }
    storm_order *o = &orders->all[orders->count];
    memset(o, 0, sizeof(*o));
    return o;
}

/* A line whose key was there before: the same order again, or the same key for something else. */
static bool fold(storm_order *first, const char *line, size_t n)
{
    if (first->body_bytes == n && memcmp(first->body, line, n) == 0) {
        first->again++;
        return true;
    }
    if (first->must_change)
        return true;
    char *other = strdup(line);
    if (other == NULL)
        return false;
    free(first->changed);
    first->changed = other;
    first->changed_bytes = n;
    first->must_change = true;
    return true;
}

/* The number of the order with this tenant and key; the first time `number`, which is then remembered. */
static bool look_up(struct json_object *seen, const order *what, size_t number, size_t *found)
{
    char name[LEDGER_TENANT_MAX + LEDGER_KEY_MAX + 2];
    struct json_object *before;
    snprintf(name, sizeof(name), "%s %s", what->tenant, what->key);
    *found = number;
    if (!json_object_object_get_ex(seen, name, &before))
        return json_object_object_add(seen, name, json_object_new_int64((int64_t)number)) == 0;
    *found = (size_t)json_object_get_int64(before);
    return true;
}

/* One line. Returns false with `why`. */
static bool add(storm_orders *orders, struct json_object *seen, const char *line, size_t n, size_t number, char *why,
                size_t why_bytes)
{
    storm_order *o = next_free(orders);
    struct json_object *object = NULL;
    size_t found;
    bool ok = false;
    snprintf(why, why_bytes, "out of memory");
    if (o == NULL || (object = order_parse(line, n, &o->what, why, why_bytes)) == NULL)
        return false;
    snprintf(why, why_bytes, "out of memory");
    if (o->what.key[0] == '\0')
        snprintf(o->what.key, sizeof(o->what.key), "order-%zu", number);
    if (o->what.tenant[0] == '\0')
        snprintf(o->what.tenant, sizeof(o->what.tenant), "default");
    if (strlen(o->what.key) > ORDERS_KEY_MAX) {
        snprintf(why, why_bytes, "field \"key\" is longer than %d characters", ORDERS_KEY_MAX);
    } else if (look_up(seen, &o->what, orders->count, &found)) {
        if (found < orders->count) {
            ok = fold(&orders->all[found], line, n);
        } else {
            o->body = strdup(line);
            o->body_bytes = n;
            o->changed = changed_copy(object, o->what.amount, &o->changed_bytes);
            ok = o->body != NULL && o->changed != NULL;
            orders->count++;
        }
    }
    json_object_put(object);
    return ok;
}

static bool read_lines(FILE *in, const char *path, storm_orders *out, struct json_object *seen)
{
    char *line = NULL;
    size_t room = 0, number = 0;
    ssize_t n;
    char why[200];
    bool ok = true;
    while (ok && (n = getline(&line, &room, in)) >= 0) {
        number++;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r' || line[n - 1] == ' '))
            line[--n] = '\0';
        if (n == 0)
            continue;
        if (number > ORDERS_MAX) {
            fprintf(stderr, "%s: more than %u lines; give a part of it\n", path, ORDERS_MAX);
            ok = false;
        } else if (!add(out, seen, line, (size_t)n, number, why, sizeof(why))) {
            fprintf(stderr, "%s:%zu: %s\n", path, number, why);
            ok = false;
        }
    }
    if (ok && ferror(in)) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        ok = false;
    }
    if (ok && out->count == 0) {
        fprintf(stderr, "%s: no order in it; a line is like {\"amount\":1999,\"currency\":\"EUR\"}\n", path);
        ok = false;
    }
    free(line);
    return ok;
}

bool orders_load(const char *path, storm_orders *out)
{
    memset(out, 0, sizeof(*out));
    FILE *in = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    if (in == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return false;
    }
    struct json_object *seen = json_object_new_object(); /* a hash table: "TENANT KEY" to the order's number */
    bool ok = seen != NULL;
    if (!ok)
        fprintf(stderr, "%s: out of memory\n", path);
    else
        ok = read_lines(in, path, out, seen);
    json_object_put(seen);
    if (in != stdin)
        fclose(in);
    if (!ok)
        orders_free(out);
    return ok;
}

void orders_free(storm_orders *orders)
{
    for (size_t i = 0; i < orders->count; i++) {
        free(orders->all[i].body);
        free(orders->all[i].changed);
    }
    free(orders->all);
    memset(orders, 0, sizeof(*orders));
}
