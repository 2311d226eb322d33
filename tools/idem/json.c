/*
 * json.c - the few shapes of JSON that the subcommands print, on json-c.
 *
 * Invariants
 *  1. Output is valid JSON for any key or body: bytes that are no UTF-8 go out in quoted form under NAME_quoted,
 *     because json-c passes strings through unchecked.
 *  2. Tokens are strings, "forever" is null.
 *
 * If we die here: pure functions, nothing is left behind.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static struct json_object *must(struct json_object *object)
{
    if (object == NULL) {
        cli_warn("out of memory (JSON)");
        exit(CLI_EXIT_TROUBLE);
    }
    return object;
}

/* `value` may be NULL, which json-c takes for null. */
static void add(struct json_object *object, const char *name, struct json_object *value)
{
    if (json_object_object_add(object, name, value) != 0) {
        cli_warn("out of memory (JSON)");
        exit(CLI_EXIT_TROUBLE);
    }
}

/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
static bool is_utf8(const unsigned char *bytes, size_t n)
{
    size_t i = 0;
    while (i < n) {
        unsigned char lead = bytes[i++];
        if (lead < 0x80)
            continue;
        size_t follow;
        unsigned char low = 0x80, high = 0xbf; /* bounds of the second byte */
        if (lead >= 0xc2 && lead <= 0xdf) {
            follow = 1;
        } else if (lead >= 0xe0 && lead <= 0xef) {
            follow = 2;
            low = lead == 0xe0 ? 0xa0 : low;
            high = lead == 0xed ? 0x9f : high;
        } else if (lead >= 0xf0 && lead <= 0xf4) {
            follow = 3;
            low = lead == 0xf0 ? 0x90 : low;
            high = lead == 0xf4 ? 0x8f : high;
        } else {
            return false;
        }
        for (; follow > 0; follow--, i++) {
            if (i == n || bytes[i] < low || bytes[i] > high)
                return false;
            low = 0x80;
            high = 0xbf;
        }
    }
    return true;
}

struct json_object *cli_json_new(void)
{
    return must(json_object_new_object());
}

void cli_json_bytes(struct json_object *object, const char *name, const void *bytes, size_t n)
{
    if (n <= INT32_MAX && is_utf8(bytes, n)) {
        add(object, name, must(json_object_new_string_len(n > 0 ? bytes : "", (int)n)));
        return;
    }
    char quoted_name[64];
    (void)snprintf(quoted_name, sizeof(quoted_name), "%s_quoted", name);
    char *quoted = cli_quote(bytes, n);
    add(object, name, NULL);
    cli_json_text(object, quoted_name, quoted);
    free(quoted);
}

void cli_json_text(struct json_object *object, const char *name, const char *text)
{
    add(object, name, text != NULL ? must(json_object_new_string(text)) : NULL);
}

void cli_json_number(struct json_object *object, const char *name, int64_t number)
{
    add(object, name, must(json_object_new_int64(number)));
}

void cli_json_count(struct json_object *object, const char *name, uint64_t count)
{
    add(object, name, must(json_object_new_uint64(count)));
}

void cli_json_bool(struct json_object *object, const char *name, bool value)
{
    add(object, name, must(json_object_new_boolean(value)));
}

void cli_json_token(struct json_object *object, const char *name, uint64_t token)
{
    char text[24];
    (void)snprintf(text, sizeof(text), "%" PRIu64, token);
    cli_json_text(object, name, token != 0 ? text : NULL);
}

void cli_json_fingerprint(struct json_object *object, const char *name, uint64_t fingerprint)
{
    char text[24];
    (void)snprintf(text, sizeof(text), "%016" PRIx64, fingerprint);
    cli_json_text(object, name, text);
}

void cli_json_ms(struct json_object *object, const char *name, int64_t ms)
{
    if (ms == IDEM_FOREVER)
        add(object, name, NULL);
    else
        cli_json_number(object, name, ms);
}

void cli_json_key(struct json_object *object, const idem_key *key)
{
    cli_json_bytes(object, "scope", key->scope, key->scope_bytes);
    cli_json_bytes(object, "key", key->key, key->key_bytes);
}

void cli_json_print(struct json_object *object)
{
    size_t n = 0;
    const char *text =
        json_object_to_json_string_length(object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &n);
    if (text == NULL) {
        cli_warn("out of memory (JSON)");
        exit(CLI_EXIT_TROUBLE);
    }
    (void)fwrite(text, 1, n, stdout);
    (void)fputc('\n', stdout);
    (void)json_object_put(object);
}
