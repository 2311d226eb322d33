/*
 * units.c - durations, sizes, numbers and points in time as people write and read them, and the words for outcomes.
 *
 * Invariants
 *  1. No silent rounding up or overflow: what does not fit is refused, fractions below a millisecond or a byte are
 *     dropped only when something is left (0.1ms is refused, 1.5s is 1500 ms).
 *  2. What cli_duration_text() prints, cli_parse_duration() reads; it may be cut to two units, never raised.
 *
 * If we die here: pure functions, nothing is left behind.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit duration_units[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60000}, {"min", 60000}, {"h", 3600000}, {"d", 86400000}, {"w", 604800000}, {NULL, 0},
};

static const struct unit size_units[] = {
    {"", 1},
    {"b", 1},
    {"k", UINT64_C(1) << 10},
    {"m", UINT64_C(1) << 20},
    {"g", UINT64_C(1) << 30},
    {"t", UINT64_C(1) << 40},
    {NULL, 0},
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* "12" or "12.5" at *text as 12 and 500000 millionths; moves *text behind it. */
static bool take_number(const char **text, uint64_t *whole, uint64_t *millionths)
{
    const char *c = *text;
    if (!is_digit(*c))
        return false;
    *whole = 0;
    for (; is_digit(*c); c++) {
        if (__builtin_mul_overflow(*whole, UINT64_C(10), whole) ||
            __builtin_add_overflow(*whole, (uint64_t)(*c - '0'), whole))
            return false;
    }
    *millionths = 0;
    if (*c == '.') {
        c++;
        if (!is_digit(*c))
            return false;
        uint64_t place = 100000;
        for (; is_digit(*c); c++, place /= 10)
            *millionths += (uint64_t)(*c - '0') * place;
    }
    *text = c;
    return true;
}

/* whole.millionths times factor, exactly but for what lies below one. */
static bool scale(uint64_t whole, uint64_t millionths, uint64_t factor, uint64_t *value)
{
    uint64_t part;
    if (__builtin_mul_overflow(whole, factor, value))
        return false;
    /* factor is at most 2^40 and millionths below 10^6 < 2^20, so this product fits. */
    part = millionths * factor / 1000000;
    return !__builtin_add_overflow(*value, part, value);
}

static uint64_t find_unit(const struct unit *units, const char *name, size_t n)
{
    for (; units->name != NULL; units++) {
        if (strlen(units->name) == n && strncmp(units->name, name, n) == 0)
            return units->factor;
    }
    return 0;
}

bool cli_parse_duration(const char *text, int64_t *ms)
{
    if (strcmp(text, "forever") == 0) {
        *ms = IDEM_FOREVER;
        return true;
    }
    if (strcmp(text, "0") == 0) {
        *ms = 0;
        return true;
    }
    uint64_t total = 0;
    do {
        uint64_t whole, millionths, value;
        if (!take_number(&text, &whole, &millionths))
            return false;
        size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz");
        uint64_t factor = find_unit(duration_units, text, n);
        text += n;
        if (factor == 0 || !scale(whole, millionths, factor, &value))
            return false;
        if (value == 0 && (whole != 0 || millionths != 0))
            return false;
        if (__builtin_add_overflow(total, value, &total) || total > (uint64_t)IDEM_TTL_MAX_MS)
            return false;
    } while (*text != '\0');
    *ms = (int64_t)total;
    return true;
}

bool cli_parse_size(const char *text, uint64_t *bytes)
{
    uint64_t whole, millionths;
    if (!take_number(&text, &whole, &millionths))
        return false;
    char name[4] = "";
    size_t n = strlen(text);
    if (n >= sizeof(name))
        return false;
    for (size_t i = 0; i < n; i++)
        name[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] - 'A' + 'a' : text[i]);
    if (n == 3 && strcmp(name + 1, "ib") == 0)
        n = 1; /* KiB and K mean the same */
    else if (n == 2 && name[1] == 'b')
        n = 1;
    uint64_t factor = find_unit(size_units, name, n);
    if (factor == 0 || (factor == 1 && millionths != 0))
        return false;
    return scale(whole, millionths, factor, bytes);
}

bool cli_parse_number(const char *text, int64_t *number)
{
    uint64_t whole, millionths;
    const char *c = text;
    if (!take_number(&c, &whole, &millionths) || *c != '\0' || strchr(text, '.') != NULL || whole > INT64_MAX)
        return false;
    *number = (int64_t)whole;
    return true;
}

bool cli_parse_token(const char *text, uint64_t *token)
{
    uint64_t millionths;
    const char *c = text;
    return take_number(&c, token, &millionths) && *c == '\0' && strchr(text, '.') == NULL && *token != 0;
}

char *cli_duration_text(int64_t ms, char out[CLI_TEXT_BYTES])
{
    static const struct unit units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
    const size_t count = sizeof(units) / sizeof(units[0]);

    if (ms == IDEM_FOREVER) {
        (void)snprintf(out, CLI_TEXT_BYTES, "forever");
        return out;
    }
    if (ms == 0) {
        (void)snprintf(out, CLI_TEXT_BYTES, "0ms");
        return out;
    }
    uint64_t left = ms < 0 ? (uint64_t)0 - (uint64_t)ms : (uint64_t)ms;
    size_t first = 0;
    while (left < units[first].factor)
        first++;
    int used = snprintf(out, CLI_TEXT_BYTES, "%s%llu%s", ms < 0 ? "-" : "",
                        (unsigned long long)(left / units[first].factor), units[first].name);
    left %= units[first].factor;
    if (first + 1 < count && left / units[first + 1].factor > 0) {
        (void)snprintf(out + used, CLI_TEXT_BYTES - (size_t)used, "%llu%s",
                       (unsigned long long)(left / units[first + 1].factor), units[first + 1].name);
    }
    return out;
}

char *cli_size_text(uint64_t bytes, char out[CLI_TEXT_BYTES])
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t unit = 0;
    uint64_t whole = bytes, rest = 0;
    while (whole >= 1024 && unit + 1 < sizeof(names) / sizeof(names[0])) {
        rest = whole % 1024;
        whole /= 1024;
        unit++;
    }
    if (unit == 0 || whole >= 100 || rest == 0)
        (void)snprintf(out, CLI_TEXT_BYTES, "%llu %s", (unsigned long long)whole, names[unit]);
    else
        (void)snprintf(out, CLI_TEXT_BYTES, "%llu.%llu %s", (unsigned long long)whole,
                       (unsigned long long)(rest * 10 / 1024), names[unit]);
    return out;
}

char *cli_wall_text(int64_t wall_ms, char out[CLI_TEXT_BYTES])
{
    int64_t ms = wall_ms % 1000;
    time_t seconds = (time_t)(wall_ms / 1000);
    if (ms < 0) {
        ms += 1000;
        seconds--;
    }
    struct tm utc;
    char date[32];
    if (gmtime_r(&seconds, &utc) == NULL || strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &utc) == 0)
        (void)snprintf(out, CLI_TEXT_BYTES, "%lld ms since 1970", (long long)wall_ms);
    else
        (void)snprintf(out, CLI_TEXT_BYTES, "%s.%03dZ", date, (int)ms);
    return out;
}

const char *cli_verdict_word(int verdict)
{
    switch (verdict) {
    case IDEM_OK:
        return "ok";
    case IDEM_CLAIMED:
        return "claimed";
    case IDEM_RECLAIMED:
        return "reclaimed";
    case IDEM_REPLAY:
        return "replay";
    case IDEM_IN_PROGRESS:
        return "in-progress";
    case IDEM_MISMATCH:
        return "mismatch";
    case IDEM_UNKNOWN:
        return "unknown";
    case IDEM_TOMBSTONE:
        return "tombstone";
    default:
        return "error";
    }
}

const char *cli_state_word(int state)
{
    switch (state) {
    case IDEM_STATE_IN_PROGRESS:
        return "in-progress";
    case IDEM_STATE_COMPLETED:
        return "completed";
    case IDEM_STATE_ABANDONED:
        return "abandoned";
    case IDEM_STATE_LOST:
        return "lost";
    default:
        return "unknown";
    }
}

const char *cli_lost_reason_word(uint32_t reason)
{
    switch (reason) {
    case IDEM_LOST_NONE:
        return "none";
    case IDEM_LOST_DEAD:
        return "dead";
    case IDEM_LOST_LEASE:
        return "lease";
    case IDEM_LOST_DECLARED:
        return "declared";
    case IDEM_LOST_RELEASED:
        return "released";
    case IDEM_LOST_CRASH:
        return "crash";
    default:
        return "unknown";
    }
}

const char *cli_lost_reason_text(uint32_t reason)
{
    switch (reason) {
    case IDEM_LOST_NONE:
        return "it is not lost";
    case IDEM_LOST_DEAD:
        return "its process ended";
    case IDEM_LOST_LEASE:
        return "its lease ended";
    case IDEM_LOST_DECLARED:
        return "its owner said that the outcome is unknown";
    case IDEM_LOST_RELEASED:
        return "an operator ended its lease";
    case IDEM_LOST_CRASH:
        return "the machine or its store went down";
    default:
        return "for a reason this version does not know";
    }
}
