/*
 * tests/fuzz/fuzz_http.c - the nginx module's readers of bytes from elsewhere: an Idempotency-Key header, and the stored head of an answer.
 *
 * The input: a byte that says which; then the bytes. A key that is accepted is 1 to 255 visible bytes, and quoted again it is the same key,
 * strictly and leniently. Records are read within their bytes, in order, and written again they are the same bytes.
 */
#include "fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "idem_http_key.h"
#include "idem_http_meta.h"

void fuzz_begin(void) {}

static void key_again(const unsigned char *key, size_t n)
{
    unsigned char quoted[2 * IDEM_HTTP_KEY_MAX + 2], again[IDEM_HTTP_KEY_MAX];
    size_t used = 0, again_n = 0;
    quoted[used++] = '"';
    for (size_t i = 0; i < n; i++) {
        if (key[i] == '"' || key[i] == '\\')
            quoted[used++] = '\\';
        quoted[used++] = key[i];
    }
    quoted[used++] = '"';
    for (unsigned strict = 0; strict < 2; strict++) {
        CHECK_IS(idem_http_key_parse(quoted, used, strict == 1, again, &again_n), IDEM_HTTP_KEY_OK);
        CHECK(again_n == n && memcmp(again, key, n) == 0);
    }
}

static void key(const uint8_t *bytes, size_t n, bool strict)
{
    unsigned char k[IDEM_HTTP_KEY_MAX], lenient[IDEM_HTTP_KEY_MAX];
    size_t k_n = 0, lenient_n = 0;
    enum idem_http_key_error e = idem_http_key_parse(bytes, n, strict, k, &k_n);
    CHECK(idem_http_key_words(e)[0] != '\0' || e == IDEM_HTTP_KEY_OK);
    if (e != IDEM_HTTP_KEY_OK)
        return;
    CHECK(k_n >= 1 && k_n <= IDEM_HTTP_KEY_MAX);
    for (size_t i = 0; i < k_n; i++)
        CHECK(k[i] >= 0x20 && k[i] < 0x7f);
    key_again(k, k_n);
    CHECK_IS(idem_http_key_parse(bytes, n, false, lenient, &lenient_n),
             IDEM_HTTP_KEY_OK); /* what is strictly right is right */
    CHECK(lenient_n == k_n && memcmp(k, lenient, k_n) == 0);
}

static void meta(const uint8_t *bytes, size_t n)
{
    struct idem_http_meta r;
    size_t offset = 0, used = 1;
    int more;
    unsigned char *again = malloc(n + 1);
    CHECK(again != NULL);
    again[0] = IDEM_HTTP_META_VERSION;
    while ((more = idem_http_meta_read(bytes, n, &offset, &r)) == 1) {
        CHECK(offset <= n);
        fuzz_touch(r.name, r.name_bytes);
        fuzz_touch(r.value, r.value_bytes);
        (void)idem_http_meta_number(&r);
        size_t room = idem_http_meta_bytes(&r);
        CHECK(room == IDEM_HTTP_META_HEAD + r.name_bytes + r.value_bytes && used + room == offset);
        CHECK(idem_http_meta_write(again + used, &r) == again + used + room);
        used += room;
        CHECK(memcmp(again, bytes, used) == 0);
    }
    CHECK(more == -1 || more == 0);
    CHECK(more == -1 || offset == n);
    free(again);
}

void fuzz_one(const uint8_t *bytes, size_t n)
{
    if (n == 0)
        return;
    uint8_t *copy = malloc(n > 1 ? n - 1 : 1); /* of its own: the address sanitizer sees a byte too far */
    CHECK(copy != NULL);
    memcpy(copy, bytes + 1, n - 1);
    if (bytes[0] % 4 == 3)
        meta(copy, n - 1);
    else
        key(copy, n - 1, bytes[0] % 4 == 1);
    free(copy);
}
