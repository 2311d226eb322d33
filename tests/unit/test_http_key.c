/*
 * tests/unit/test_http_key.c - what an Idempotency-Key line says, and how an answer's head is kept: the parts of the nginx module that know
 * nothing of nginx.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nginx/idem_http_key.h"
#include "nginx/idem_http_meta.h"
#include "support/support.h"

static enum idem_http_key_error parse(const char *value, size_t n, bool strict, char *key)
{
    unsigned char bytes[IDEM_HTTP_KEY_MAX];
    size_t length = 0;
    enum idem_http_key_error e = idem_http_key_parse((const unsigned char *)value, n, strict, bytes, &length);
    if (e == IDEM_HTTP_KEY_OK) {
        memcpy(key, bytes, length);
        key[length] = '\0';
    }
    return e;
}

static void is_key(const char *value, const char *expected, bool strict)
{
    char key[IDEM_HTTP_KEY_MAX + 1] = "";
    enum idem_http_key_error e = parse(value, strlen(value), strict, key);
    if (e != IDEM_HTTP_KEY_OK || strcmp(key, expected) != 0)
        print_message("%s: %s, key %s\n", value, idem_http_key_words(e), key);
    assert_int_equal(e, IDEM_HTTP_KEY_OK);
    assert_string_equal(key, expected);
}

static void is_refused(const char *value, bool strict, enum idem_http_key_error expected)
{
    char key[IDEM_HTTP_KEY_MAX + 1] = "";
    enum idem_http_key_error e = parse(value, strlen(value), strict, key);
    if (e != expected)
        print_message("%s: %s\n", value, idem_http_key_words(e));
    assert_int_equal(e, expected);
}

static void a_quoted_string_and_a_bare_token_are_one_key(void **state)
{
    (void)state;
    is_key("\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", "8e03978e-40d5-43dd-bc93-6894a57f9324", true);
    is_key("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324", false);
    is_key("  \t \"abc\" \t", "abc", true);
    is_key(" abc\t", "abc", false);
    is_key("\"a \\\"b\\\" \\\\ c\"", "a \"b\" \\ c", true);
    is_key("order:17/2026~x", "order:17/2026~x", false);
}

static void parameters_of_each_type_are_passed_over(void **state)
{
    (void)state;
    static const char *const good[] = {
        ";a",    ";a=1",  ";a=-1",  "; a=12.345", ";a=\"x;y\\\"\"", ";a=tok/en:*", ";a=:aGVsbG8=:",
        ";a=?0", ";a=?1", ";*a=*b", ";a;b;c",     ";a-1_.*=2",      ";  a=\"\"",   ";a=123456789012345"};
    static const char *const bad[] = {";",
                                      ";A",
                                      ";1",
                                      ";a=",
                                      ";a =1",
                                      ";a= 1",
                                      ";a=?2",
                                      ";a=:x",
                                      ";a=1.",
                                      ";a=1.2345",
                                      ";a=\"x",
                                      " ;a",
                                      "x",
                                      ",\"b\"",
                                      ";a=--1",
                                      ";a=é",
                                      ";a=1;",
                                      ";a=1234567890123456",
                                      ";a=1234567890123.1"};
    char value[64];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        snprintf(value, sizeof value, "\"abc\"%s", good[i]);
        is_key(value, "abc", true);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(value, sizeof value, "\"abc\"%s", bad[i]);
        is_refused(value, false, IDEM_HTTP_KEY_PARAMETERS);
    }
}

static void what_is_no_key_is_refused_with_its_reason(void **state)
{
    (void)state;
    is_refused("", false, IDEM_HTTP_KEY_EMPTY);
    is_refused(" \t ", false, IDEM_HTTP_KEY_EMPTY);
    is_refused("\"\"", false, IDEM_HTTP_KEY_EMPTY);
    is_refused("\"abc", false, IDEM_HTTP_KEY_QUOTE);
    is_refused("\"abc\\", false, IDEM_HTTP_KEY_QUOTE);
    is_refused("\"a\\bc\"", false, IDEM_HTTP_KEY_QUOTE);
    is_refused("\"a\tc\"", false, IDEM_HTTP_KEY_BYTES);
    is_refused("\"a\x7f\"", false, IDEM_HTTP_KEY_BYTES);
    is_refused("\"\xc3\xa9\"", false, IDEM_HTTP_KEY_BYTES);
    is_refused("a\x01", false, IDEM_HTTP_KEY_BYTES);
    is_refused("caf\xc3\xa9", false, IDEM_HTTP_KEY_BYTES);
    static const char *const types[] = {"a b", "a,b", "a;b=1", "a\"b", "a\\b"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        is_refused(types[i], false, IDEM_HTTP_KEY_TYPE);
    is_refused("abc", true, IDEM_HTTP_KEY_TYPE);
    is_refused("1", true, IDEM_HTTP_KEY_TYPE);
    char key[IDEM_HTTP_KEY_MAX + 1];
    assert_int_equal(parse("a\0b", 3, false, key), IDEM_HTTP_KEY_BYTES);
    assert_int_equal(parse("\"a\0b\"", 5, false, key), IDEM_HTTP_KEY_BYTES);
}

static void it_has_at_most_255_characters_when_unescaped(void **state)
{
    (void)state;
    char value[2 * IDEM_HTTP_KEY_MAX + 8], key[IDEM_HTTP_KEY_MAX + 1];
    memset(value, 'k', sizeof value);
    assert_int_equal(parse(value, IDEM_HTTP_KEY_MAX, false, key), IDEM_HTTP_KEY_OK);
    assert_int_equal(parse(value, IDEM_HTTP_KEY_MAX + 1, false, key), IDEM_HTTP_KEY_LONG);
    size_t n = 0;
    value[n++] = '"';
    for (unsigned i = 0; i < IDEM_HTTP_KEY_MAX; i++) {
        value[n++] = '\\';
        value[n++] = '"';
    }
    value[n] = '"';
    assert_int_equal(parse(value, n + 1, true, key), IDEM_HTTP_KEY_OK);
    value[n] = 'x';
    value[n + 1] = '"';
    assert_int_equal(parse(value, n + 2, true, key), IDEM_HTTP_KEY_LONG);
}

/* ------------------------------------------------------------------ heads */

static struct idem_http_meta record(unsigned kind, const char *name, const char *value)
{
    return (struct idem_http_meta){kind, (const unsigned char *)name, (const unsigned char *)value, strlen(name),
                                   strlen(value)};
}

static size_t a_head(unsigned char bytes[256])
{
    const struct idem_http_meta all[] = {record(IDEM_HTTP_META_STATUS_LINE, "", "201 Created"),
                                         record(IDEM_HTTP_META_HEADER, "X-Foo", "bar"), record(200, "later", ""),
                                         record(IDEM_HTTP_META_TRAILER, "T", "")};
    unsigned char *at = bytes;
    *at++ = IDEM_HTTP_META_VERSION;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        unsigned char *next = idem_http_meta_write(at, &all[i]);
        assert_int_equal(next - at, idem_http_meta_bytes(&all[i]));
        at = next;
    }
    return (size_t)(at - bytes);
}

static void a_head_comes_back_as_it_was_written(void **state)
{
    (void)state;
    unsigned char bytes[256];
    size_t n = a_head(bytes), offset = 0;
    struct idem_http_meta r;
    assert_int_equal(idem_http_meta_read(bytes, n, &offset, &r), 1);
    assert_int_equal(r.kind, IDEM_HTTP_META_STATUS_LINE);
    assert_memory_equal(r.value, "201 Created", r.value_bytes);
    assert_int_equal(idem_http_meta_read(bytes, n, &offset, &r), 1);
    assert_int_equal(r.name_bytes, 5);
    assert_memory_equal(r.name, "X-Foo", 5);
    assert_memory_equal(r.value, "bar", 3);
    assert_int_equal(idem_http_meta_read(bytes, n, &offset, &r), 1);
    assert_int_equal(r.kind, 200);
    assert_int_equal(idem_http_meta_read(bytes, n, &offset, &r), 1);
    assert_int_equal(r.value_bytes, 0);
    assert_int_equal(idem_http_meta_read(bytes, n, &offset, &r), 0);
    assert_int_equal(idem_http_meta_read(bytes, n, &offset, &r), 0);
}

/* Copies of exactly the cut size, so that the address sanitizer sees a read past the end. */
static void half_a_head_is_noticed_wherever_it_is_cut(void **state)
{
    (void)state;
    unsigned char bytes[256];
    size_t n = a_head(bytes);
    size_t ends[8], whole = 0, offset = 0;
    struct idem_http_meta r;
    ends[whole++] = 1;
    while (idem_http_meta_read(bytes, n, &offset, &r) > 0)
        ends[whole++] = offset;
    for (size_t cut = 0; cut < n; cut++) {
        unsigned char *copy = malloc(cut > 0 ? cut : 1);
        assert_non_null(copy);
        memcpy(copy, bytes, cut);
        int more;
        offset = 0;
        while ((more = idem_http_meta_read(copy, cut, &offset, &r)) > 0)
            assert_true(r.value + r.value_bytes <= copy + cut);
        bool between = false;
        for (size_t i = 0; i < whole; i++)
            between |= ends[i] == cut;
        assert_int_equal(more, between ? 0 : -1);
        free(copy);
    }
    bytes[0]++;
    offset = 0;
    assert_int_equal(idem_http_meta_read(bytes, n, &offset, &r), -1);
}

static void a_number_is_read_whatever_its_length(void **state)
{
    (void)state;
    static const unsigned char bytes[] = {1, 2, 0, 0, 0, 0, 0, 0x80, 7};
    struct idem_http_meta r = {IDEM_HTTP_META_LENGTH, NULL, bytes, 0, 2};
    assert_true(idem_http_meta_number(&r) == 513);
    r.value_bytes = sizeof bytes;
    assert_true(idem_http_meta_number(&r) == UINT64_C(0x8000000000000201));
    r.value_bytes = 0;
    assert_true(idem_http_meta_number(&r) == 0);
}

static void what_is_too_long_to_keep_has_no_size(void **state)
{
    (void)state;
    struct idem_http_meta r = {IDEM_HTTP_META_HEADER, NULL, NULL, 65535, 0};
    assert_int_equal(idem_http_meta_bytes(&r), IDEM_HTTP_META_HEAD + 65535);
    r.name_bytes++;
    assert_int_equal(idem_http_meta_bytes(&r), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_quoted_string_and_a_bare_token_are_one_key),
        cmocka_unit_test(parameters_of_each_type_are_passed_over),
        cmocka_unit_test(what_is_no_key_is_refused_with_its_reason),
        cmocka_unit_test(it_has_at_most_255_characters_when_unescaped),
        cmocka_unit_test(a_head_comes_back_as_it_was_written),
        cmocka_unit_test(half_a_head_is_noticed_wherever_it_is_cut),
        cmocka_unit_test(a_number_is_read_whatever_its_length),
        cmocka_unit_test(what_is_too_long_to_keep_has_no_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
