/*
 * dedup_keys.c - which bytes of a line are its key, for `idem dedup`. Owns nothing but the JSON tokener in the rule.
 *
 * The rules, the same words as in --help
 *  - whole line: its bytes without the newline.
 *  - column N: the N-th field; fields are separated by runs of blanks (spaces and tabs, those before the first field do not
 *    count), or by exactly one delimiter byte.
 *  - JSON field: a string's text; any other value's compact JSON text (so "1" and 1 are the same key, 1 and 1.0 are not);
 *    null counts as missing.
 *  - Every key has 1 to 1024 bytes with its scope. Longer ones are errors, or, if asked for, are stood in by
 *    their length, a keyed 128-bit hash of all of them, and their first bytes.
 *
 * Two traps where json-c makes two keys one, and the second line would be swallowed: a whole number beyond 64 bits becomes
 * the nearest one within, and half a surrogate pair becomes U+FFFD. Lines whose key may have come about so are errors.
 */
#include <stdarg.h>
#include <string.h>

#include "dedup.h"

#define LONG_KEY_PREFIX 256u

__attribute__((format(printf, 2, 3))) static bool refuse(char *why, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(why, DEDUP_WHY_BYTES, format, args);
    va_end(args);
    return false;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Field `column` (1 is the first) of the line's text; *columns says how many there are if it is not there. */
static const char *find_column(const struct dedup_line *line, const struct dedup_rule *rule, size_t *n, size_t *columns)
{
    const char *at = line->bytes;
    const char *end = at + line->text_bytes;
    *columns = 0;
    for (;;) {
        const char *stop;
        if (rule->delimiter < 0) {
            while (at < end && is_blank(*at))
                at++;
            if (at == end)
                return NULL;
            for (stop = at; stop < end && !is_blank(*stop); stop++)
                ;
        } else {
            stop = memchr(at, rule->delimiter, (size_t)(end - at));
            if (stop == NULL)
                stop = end;
        }
        if (++*columns == rule->column) {
            *n = (size_t)(stop - at);
            return at;
        }
        if (stop == end)
            return NULL;
        at = stop + 1;
    }
}

/* The whole text must be one JSON value. NULL with *null unset: not JSON, `why` says where. */
static struct json_object *parse_json(struct json_tokener *tokener, const char *text, size_t n, bool *null, char *why)
{
    *null = false;
    if (n > INT32_MAX - 1) {
        refuse(why, "is too long for JSON");
        return NULL;
    }
    /* json-c would take a NUL for the end of the text. */
    const char *nul = memchr(text, '\0', n);
    if (nul != NULL) {
        refuse(why, "is not JSON: a NUL byte at byte %td", nul - text + 1);
        return NULL;
    }
    json_tokener_reset(tokener);
    struct json_object *value = json_tokener_parse_ex(tokener, text, (int)n);
    enum json_tokener_error error = json_tokener_get_error(tokener);
    size_t used = json_tokener_get_parse_end(tokener);
    if (error == json_tokener_continue) {
        /* A bare number ends only with the text. */
        value = json_tokener_parse_ex(tokener, "", 1);
        error = json_tokener_get_error(tokener);
        used = n;
    }
    if (error == json_tokener_continue)
        refuse(why, "is not JSON: it ends in the middle of a value");
    else if (error != json_tokener_success)
        refuse(why, "is not JSON: %s at byte %zu", json_tokener_error_desc(error), used + 1);
    else if (used < n && strspn(text + used, " \t\r\n") < n - used)
        refuse(why, "is not one JSON value: more text at byte %zu", used + 1);
    else {
        *null = value == NULL;
        return value;
    }
    json_object_put(value);
    return NULL;
}

/* Keys that exceed the limit become prefix, length and two 64-bit keyed hashes of different framings. */
static bool stand_in(const struct dedup_rule *rule, const char *bytes, size_t n, char *room, size_t *room_bytes)
{
    uint64_t numbers[3] = {n, idem_fingerprint(rule->store, bytes, n), 0};
    idem_fingerprint_state *second = idem_fingerprint_begin(rule->store);
    if (second == NULL)
        return false;
    idem_fingerprint_update(second, "second", 6);
    idem_fingerprint_update(second, bytes, n);
    numbers[2] = idem_fingerprint_end(second);

    size_t prefix = LONG_KEY_PREFIX;
    if (prefix + sizeof(numbers) + rule->scope_bytes > IDEM_KEY_MAX)
        prefix = IDEM_KEY_MAX - rule->scope_bytes - sizeof(numbers);
    memcpy(room, numbers, sizeof(numbers));
    memcpy(room + sizeof(numbers), bytes, prefix);
    *room_bytes = sizeof(numbers) + prefix;
    return true;
}

/* The last step for every mode: bounds, and out of the JSON document's memory if `copy` says so. */
static bool accept(const struct dedup_rule *rule, const char *bytes, size_t n, bool copy, char *room, idem_key *key,
                   char *why)
{
    if (n == 0)
        return refuse(why, "has no key: %s is empty",
                      rule->mode == DEDUP_BY_LINE     ? "the line"
                      : rule->mode == DEDUP_BY_COLUMN ? "the column"
                                                      : "the field");
    if (n + rule->scope_bytes > IDEM_KEY_MAX) {
        if (!rule->hash_long_keys)
            return refuse(why, "has a key of %zu bytes; %u is the most beside its scope (or give --hash-long-keys)", n,
                          IDEM_KEY_MAX - (unsigned)rule->scope_bytes);
        if (!stand_in(rule, bytes, n, room, &n))
            return refuse(why, "has a long key, and there is no memory to hash it");
        bytes = room;
    } else if (copy) {
        memcpy(room, bytes, n);
        bytes = room;
    }
    *key = (idem_key){rule->scope, rule->scope_bytes, bytes, n};
    return true;
}

/* U+FFFD that came out of an escape was half a surrogate pair; any such pair in the line makes one suspicious. */
static bool holds_half_surrogate(const struct dedup_line *line, const char *text, size_t n)
{
    return memmem(text, n, "\xef\xbf\xbd", 3) != NULL && (memmem(line->bytes, line->text_bytes, "\\ud", 3) != NULL ||
                                                          memmem(line->bytes, line->text_bytes, "\\uD", 3) != NULL);
}

/* The two numbers that json-c puts in the place of those it cannot hold. */
static bool holds_edge_number(const char *text, size_t n)
{
    static const char most[] = "18446744073709551615";
    static const char least[] = "-9223372036854775808";
    return memmem(text, n, most, sizeof(most) - 1) != NULL || memmem(text, n, least, sizeof(least) - 1) != NULL;
}

static bool key_from_field(const struct dedup_rule *rule, const struct dedup_line *line, char *room, idem_key *key,
                           char *why)
{
    bool null;
    bool accepted = false;
    struct json_object *value = NULL;
    struct json_object *document = parse_json(rule->tokener, line->bytes, line->text_bytes, &null, why);
    if (document == NULL && !null)
        return false;

    /* The empty pointer is the whole document; json-c wants a document to apply any other to. */
    if (rule->pointer[0] == '\0')
        value = document;
    else if (document == NULL || json_pointer_get(document, rule->pointer, &value) != 0)
        refuse(why, "has no field %s", rule->pointer);
    else if (value == NULL)
        null = true;

    if (null) {
        refuse(why, "has no key: %s is null", rule->pointer[0] == '\0' ? "the line" : rule->pointer);
    } else if (value != NULL && json_object_is_type(value, json_type_string)) {
        const char *text = json_object_get_string(value);
        size_t n = (size_t)json_object_get_string_len(value);
        accepted = holds_half_surrogate(line, text, n) ? refuse(why, "has half a surrogate pair in %s", rule->pointer)
                                                       : accept(rule, text, n, true, room, key, why);
    } else if (value != NULL) {
        size_t n;
        const char *text =
            json_object_to_json_string_length(value, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &n);
        if (text == NULL)
            refuse(why, "takes too much memory");
        else if (holds_edge_number(text, n))
            refuse(why, "has a number in %s that is too large to be told from its neighbours", rule->pointer);
        else
            accepted = accept(rule, text, n, true, room, key, why);
    }
    json_object_put(document);
    return accepted;
}

bool dedup_key(const struct dedup_rule *rule, const struct dedup_line *line, char *room, idem_key *key, char *why)
{
    size_t n = line->text_bytes;
    size_t columns;
    switch (rule->mode) {
    case DEDUP_BY_LINE:
        return accept(rule, line->bytes, n, false, room, key, why);
    case DEDUP_BY_COLUMN: {
        const char *field = find_column(line, rule, &n, &columns);
        if (field == NULL)
            return refuse(why, "has %zu column%s; --column %zu is not there", columns, columns == 1 ? "" : "s",
                          rule->column);
        return accept(rule, field, n, false, room, key, why);
    }
    case DEDUP_BY_FIELD:
        return key_from_field(rule, line, room, key, why);
    }
    return refuse(why, "has no key rule");
}
