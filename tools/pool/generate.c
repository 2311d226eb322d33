/*
 * generate.c - made-up orders that look like a shop's: baskets, prices, people, cards; the same for the same seed.
 */
#include "orders.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <time.h>

#define FIRST_ORDER_TIME 1767254400 /* 2026-01-01T08:00:00Z */

struct article {
    const char *sku;
    const char *name;
    int cents;
};

static const struct article articles[] = {
    {"CF-250-ETH", "Coffee, Ethiopia, 250 g", 1190},
    {"CF-1K-BLEND", "Coffee, house blend, 1 kg", 2690},
    {"MUG-BLUE", "Mug, blue", 1450},
    {"FLT-100", "Paper filters, 100", 420},
    {"GRND-HAND", "Hand grinder", 8900},
    {"ESP-MACH-2", "Espresso machine, two groups", 219900},
    {"TEA-GRN-100", "Green tea, 100 g", 780},
    {"SUB-MONTH", "Subscription, a month", 1990},
    {"GIFT-25", "Gift card 25", 2500},
    {"SCL-KIT", "Kitchen scale \"précis\", 0.1 g", 3495},
    {"CLN-TABS", "Cleaning tablets", 1120},
    {"BAR-SPOON", "Bar spoon, 30 cm", 995},
};

static const char *const tenants[] = {"roastery", "cafe-nord", "teehaus", "b2b.wholesale"};
static const char *const currencies[] = {"EUR", "EUR", "EUR", "USD", "GBP", "CHF"};
static const char *const first_names[] = {"Ada",    "Björn",  "Chloé", "Dmitri", "Elif",
                                          "Fatima", "George", "Hana",  "Íñigo"};
static const char *const last_names[] = {"Müller", "Nowak", "O'Brien", "Papadopoulos", "Quist", "Rossi", "Sørensen"};
static const char *const brands[] = {"visa", "visa", "mastercard", "amex"};

#define PICK(dice, list) ((list)[below(dice, (uint32_t)(sizeof(list) / sizeof((list)[0])))])

static uint32_t below(unsigned short dice[3], uint32_t n)
{
    return (uint32_t)(erand48(dice) * n);
}

/* 8 in 100 handlers are slow, a few of them slow enough to need their lease renewed. */
static int64_t slowness(unsigned short dice[3])
{
    double x = erand48(dice);
    if (x >= 0.08)
        return 0;
    if (x < 0.004)
        return 500 + below(dice, 400);
    return x < 0.02 ? 150 + below(dice, 250) : 20 + below(dice, 130);
}

static struct json_object *basket(unsigned short dice[3], int64_t *amount)
{
    struct json_object *items = json_object_new_array();
    uint32_t lines = 1 + below(dice, 3);
    *amount = 0;
    for (uint32_t i = 0; i < lines; i++) {
        const struct article *a = &PICK(dice, articles);
        /* Most buy one, some several: 1 + geometric. */
        int quantity = 1 + (int)(log(1.0 - erand48(dice)) / log(0.25));
        struct json_object *item = json_object_new_object();
        json_object_object_add(item, "sku", json_object_new_string(a->sku));
        json_object_object_add(item, "name", json_object_new_string(a->name));
        json_object_object_add(item, "quantity", json_object_new_int(quantity));
        json_object_object_add(item, "unit_amount", json_object_new_int(a->cents));
        json_object_array_add(items, item);
        *amount += (int64_t)quantity * a->cents;
    }
    return items;
}

static struct json_object *one(unsigned short dice[3], size_t number, time_t *when)
{
    char text[80];
    struct tm tm;
    int64_t amount;
    struct json_object *o = json_object_new_object();
    struct json_object *items = basket(dice, &amount);
    int64_t slow_ms = slowness(dice);
    uint32_t r[4] = {(uint32_t)jrand48(dice), (uint32_t)jrand48(dice), (uint32_t)jrand48(dice),
                     (uint32_t)jrand48(dice)};

    snprintf(text, sizeof(text), "%08" PRIx32 "-%04x-4%03x-%04x-%04x%08" PRIx32, r[0], (unsigned)(r[1] >> 16),
             (unsigned)(r[1] & 0xfff), (unsigned)(0x8000 | (r[2] >> 18)), (unsigned)(r[2] & 0xffff), r[3]);
    json_object_object_add(o, "key", json_object_new_string(text));
    json_object_object_add(o, "tenant", json_object_new_string(PICK(dice, tenants)));
    snprintf(text, sizeof(text), "ord_%07zu", number);
    json_object_object_add(o, "order", json_object_new_string(text));
    *when += below(dice, 40);
    gmtime_r(when, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
    json_object_object_add(o, "placed", json_object_new_string(text));
    snprintf(text, sizeof(text), "%s %s", PICK(dice, first_names), PICK(dice, last_names));
    json_object_object_add(o, "customer", json_object_new_string(text));
    json_object_object_add(o, "amount", json_object_new_int64(amount));
    json_object_object_add(o, "currency", json_object_new_string(PICK(dice, currencies)));
    struct json_object *card = json_object_new_object();
    json_object_object_add(card, "brand", json_object_new_string(PICK(dice, brands)));
    snprintf(text, sizeof(text), "%04u", below(dice, 10000));
    json_object_object_add(card, "last4", json_object_new_string(text));
    json_object_object_add(o, "card", card);
    json_object_object_add(o, "items", items);
    if (slow_ms > 0)
        json_object_object_add(o, "slow_ms", json_object_new_int64(slow_ms));
    return o;
}

int orders_generate(FILE *out, size_t count, uint64_t seed)
{
    unsigned short dice[3] = {(unsigned short)seed, (unsigned short)(seed >> 16),
                              (unsigned short)((seed >> 32) ^ 0x0d)};
    time_t when = FIRST_ORDER_TIME;
    for (size_t i = 1; i <= count; i++) {
        struct json_object *o = one(dice, i, &when);
        int wrote = fprintf(out, "%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
        json_object_put(o);
        if (wrote < 0)
            return -1;
    }
    return fflush(out) == 0 ? 0 : -1;
}
