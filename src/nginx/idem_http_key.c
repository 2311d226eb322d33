/*
 * nginx/idem_http_key.c - the parser of nginx/idem_http_key.h.
 *
 * Owns no state. If we die here, nothing has happened yet.
 */
#include "idem_http_key.h"

#include <stdint.h>
#include <string.h>

struct text {
    const unsigned char *at, *end;
};

static bool is_alpha(unsigned c)
{
    return (c | 0x20u) - 'a' < 26u;
}
static bool is_digit(unsigned c)
{
    return c - '0' < 10u;
}
static bool is_lower(unsigned c)
{
    return c - 'a' < 26u;
}
static bool has(const struct text *t)
{
    return t->at < t->end;
}
static bool take(struct text *t, unsigned char c)
{
    if (!has(t) || *t->at != c)
        return false;
    t->at++;
    return true;
}

/* RFC 9110's tchar, and what RFC 8941 adds for tokens. */
static bool is_token(unsigned c)
{
    return is_alpha(c) || is_digit(c) || (c != '\0' && c < 0x80 && strchr("!#$%&'*+-.^_`|~:/", (int)c) != NULL);
}

/* After the opening quote. key NULL: only skipped (a parameter's value). */
static enum idem_http_key_error read_string(struct text *t, unsigned char *key, size_t *n)
{
    *n = 0;
    while (has(t)) {
        unsigned char c = *t->at++;
        if (c == '"')
            return IDEM_HTTP_KEY_OK;
        if (c == '\\') {
            if (!has(t) || (*t->at != '"' && *t->at != '\\'))
                return IDEM_HTTP_KEY_QUOTE;
            c = *t->at++;
        } else if (c < 0x20 || c > 0x7e) {
            return IDEM_HTTP_KEY_BYTES;
        }
        if (key != NULL) {
            if (*n == IDEM_HTTP_KEY_MAX)
                return IDEM_HTTP_KEY_LONG;
            key[*n] = c;
        }
        ++*n;
    }
    return IDEM_HTTP_KEY_QUOTE;
}

static size_t skip_digits(struct text *t)
{
    const unsigned char *from = t->at;
    while (has(t) && is_digit(*t->at))
        t->at++;
    return (size_t)(t->at - from);
}

/* An Integer has up to 15 digits; a Decimal up to 12, a point, and 1 to 3 more. */
static bool skip_number(struct text *t)
{
    take(t, '-');
    size_t whole = skip_digits(t);
    if (!take(t, '.'))
        return whole >= 1 && whole <= 15;
    size_t fraction = skip_digits(t);
    return whole >= 1 && whole <= 12 && fraction >= 1 && fraction <= 3;
}

static bool skip_bytes(struct text *t)
{
    while (has(t) && (is_alpha(*t->at) || is_digit(*t->at) || *t->at == '+' || *t->at == '/' || *t->at == '='))
        t->at++;
    return take(t, ':');
}

static bool skip_bare_item(struct text *t)
{
    size_t n;
    if (take(t, '"'))
        return read_string(t, NULL, &n) == IDEM_HTTP_KEY_OK;
    if (take(t, ':'))
        return skip_bytes(t);
    if (take(t, '?'))
        return take(t, '0') || take(t, '1');
    if (!has(t))
        return false;
    if (*t->at == '-' || is_digit(*t->at))
        return skip_number(t);
    if (!is_alpha(*t->at) && *t->at != '*')
        return false;
    while (has(t) && is_token(*t->at))
        t->at++;
    return true;
}

static bool skip_parameters(struct text *t)
{
    while (take(t, ';')) {
        while (take(t, ' '))
            continue;
        if (!has(t) || (!is_lower(*t->at) && *t->at != '*'))
            return false;
        while (has(t) && (is_lower(*t->at) || is_digit(*t->at) || strchr("_-.*", *t->at) != NULL) && *t->at != '\0')
            t->at++;
        if (take(t, '=') && !skip_bare_item(t))
            return false;
    }
    return !has(t);
}

/* A bit a character: visible ASCII without the four that mean something in a list or an item: " , ; and backslash. */
static const uint32_t bare[8] = {0x00000000u, 0xf7ffeffau, 0xefffffffu, 0x7fffffffu,
                                 0x00000000u, 0x00000000u, 0x00000000u, 0x00000000u};
static bool is_bare(unsigned char c)
{
    return (bare[c >> 5] >> (c & 31)) & 1;
}

/* What most clients send: a UUID or the like without quotes. */
static enum idem_http_key_error read_bare(const struct text *t, unsigned char *key, size_t *n)
{
    size_t bytes = (size_t)(t->end - t->at);
    size_t good = 0;
    while (good < bytes && is_bare(t->at[good]))
        good++;
    for (size_t i = 0; good < bytes && i < bytes; i++) {
        unsigned char c = t->at[i];
        if ((c < 0x20 && c != '\t') || c > 0x7e)
            return IDEM_HTTP_KEY_BYTES;
        if (!is_bare(c))
            return IDEM_HTTP_KEY_TYPE;
    }
    if (bytes > IDEM_HTTP_KEY_MAX)
        return IDEM_HTTP_KEY_LONG;
    memcpy(key, t->at, bytes);
    *n = bytes;
    return IDEM_HTTP_KEY_OK;
}

enum idem_http_key_error idem_http_key_parse(const unsigned char *value, size_t value_bytes, bool strict,
                                             unsigned char key[IDEM_HTTP_KEY_MAX], size_t *key_bytes)
{
    struct text t = {value, value + value_bytes};
    while (has(&t) && (*t.at == ' ' || *t.at == '\t'))
        t.at++;
    while (has(&t) && (t.end[-1] == ' ' || t.end[-1] == '\t'))
        t.end--;
    if (!has(&t))
        return IDEM_HTTP_KEY_EMPTY;
    enum idem_http_key_error e;
    if (take(&t, '"')) {
        e = read_string(&t, key, key_bytes);
        if (e == IDEM_HTTP_KEY_OK && !skip_parameters(&t))
            e = IDEM_HTTP_KEY_PARAMETERS;
    } else {
        e = strict ? IDEM_HTTP_KEY_TYPE : read_bare(&t, key, key_bytes);
    }
    return e == IDEM_HTTP_KEY_OK && *key_bytes == 0 ? IDEM_HTTP_KEY_EMPTY : e;
}

const char *idem_http_key_words(enum idem_http_key_error e)
{
    switch (e) {
    case IDEM_HTTP_KEY_OK:
        return "It is a key.";
    case IDEM_HTTP_KEY_EMPTY:
        return "It is empty.";
    case IDEM_HTTP_KEY_LONG:
        return "It is longer than 255 characters.";
    case IDEM_HTTP_KEY_BYTES:
        return "It has a control character, or one that is not ASCII.";
    case IDEM_HTTP_KEY_QUOTE:
        return "Its quoted string does not end, or escapes something other than a quote or a backslash.";
    case IDEM_HTTP_KEY_PARAMETERS:
        return "What follows its quoted string is not a parameter.";
    case IDEM_HTTP_KEY_TYPE:
        break;
    }
    return "It is not a quoted string (RFC 8941), such as \"8e03978e-40d5-43dd-bc93-6894a57f9324\".";
}
