/*
 * tests/fuzz/fuzz_units.c - durations, sizes, numbers, tokens and quoted text of the command line, from any bytes.
 *
 * What is accepted lies within its bounds, what is printed can be read back, a duration is never raised by that; quoting loses nothing.
 */
#include "fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "cli.h"

void fuzz_begin(void) {}

/* What the text says, by other means: near enough to see a sum that went round. */
static double said(const char *text)
{
    static const struct {
        const char *name;
        double ms;
    } units[] = {{"ms", 1},      {"min", 60000},  {"m", 60000},    {"s", 1000},
                 {"h", 3600000}, {"d", 86400000}, {"w", 604800000}};
    double sum = 0;
    while (*text != '\0' && strcmp(text, "0") != 0) {
        char *unit;
        double number = strtod(text, &unit);
        unsigned i = 0;
        while (strncmp(unit, units[i].name, strlen(units[i].name)) != 0)
            CHECK(++i < sizeof units / sizeof units[0]);
        sum += number * units[i].ms;
        text = unit + strlen(units[i].name);
    }
    return sum;
}

static void duration(int64_t ms)
{
    static const int64_t units[] = {86400000, 3600000, 60000, 1000, 1};
    char text[CLI_TEXT_BYTES];
    int64_t again = -1, finest = 1;
    CHECK(ms >= 0 && (ms <= IDEM_TTL_MAX_MS || ms == IDEM_FOREVER));
    CHECK(cli_parse_duration(cli_duration_text(ms, text), &again));
    if (ms == IDEM_FOREVER || ms == 0) {
        CHECK(again == ms);
        return;
    }
    for (unsigned i = 0; i + 1 < sizeof units / sizeof units[0]; i++)
        if (ms >= units[i]) {
            finest = units[i + 1]; /* two units are shown */
            break;
        }
    CHECK(again == ms - ms % finest);
}

static void quoted(char *text, const uint8_t *bytes, size_t n)
{
    size_t m = 0;
    char *q = cli_quote(bytes, n);
    CHECK(q[0] != '\0');
    for (const char *c = q; *c != '\0'; c++)
        CHECK(*c > 0x20 && *c < 0x7f);
    CHECK(cli_unquote(q, &m) && m == n && (n == 0 || memcmp(q, bytes, n) == 0));
    free(q);
    if (cli_unquote(text, &m)) /* what a user typed */
        fuzz_touch(text, m);
}

void fuzz_one(const uint8_t *bytes, size_t n)
{
    int64_t ms = -1, number = -1, wall_ms = 0;
    uint64_t size = 0, token = 0;
    char *text = malloc(n + 1), room[CLI_TEXT_BYTES];
    CHECK(text != NULL);
    if (n > 0)
        memcpy(text, bytes, n);
    text[n] = '\0';
    if (cli_parse_duration(text, &ms)) {
        duration(ms);
        double off = ms == IDEM_FOREVER ? 0 : said(text) - (double)ms;
        CHECK(off > -2 && off < 1000); /* each part may lose a fraction of a millisecond */
    }
    if (cli_parse_size(text, &size))
        CHECK(strlen(cli_size_text(size, room)) < CLI_TEXT_BYTES);
    if (cli_parse_number(text, &number))
        CHECK(number >= 0 && text[strspn(text, "0123456789")] == '\0');
    if (cli_parse_token(text, &token))
        CHECK(token != 0 && text[strspn(text, "0123456789")] == '\0' && strtoull(text, NULL, 10) == token);
    memcpy(&wall_ms, bytes, n < sizeof wall_ms ? n : sizeof wall_ms);
    CHECK(strlen(cli_wall_text(wall_ms, room)) < CLI_TEXT_BYTES);
    CHECK(strlen(cli_duration_text(wall_ms, room)) < CLI_TEXT_BYTES);
    quoted(text, bytes, n);
    free(text);
}
