/*
 * tests/unit/test_bytes.c - base/bytes.h: what is copied in and out of shared words is what was there, padded with zeros, and nothing before or
 * behind it is touched, at any length and address; the address sanitizer sees each of these copies.
 */
#include "support/support.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define LENGTHS 140u
#define WORDS   (LENGTHS / 8 + 4)
#define GUARD   UINT64_C(0xa5a5a5a5a5a5a5a5)

#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNDER_ASAN
#endif
#endif

static uint8_t source[LENGTHS + 16];

static void clear(struct idem_a64 *words)
{
    for (unsigned i = 0; i < WORDS; i++)
        store_relaxed(&words[i], GUARD);
}

/* n bytes of the source, from its byte `from` on, lie at words[1], then zeros up to a word, then what was there. */
static void check_words(const struct idem_a64 *words, unsigned from, size_t n)
{
    uint8_t wanted[WORDS * 8];
    memset(wanted, 0xa5, sizeof wanted);
    memset(wanted + 8, 0, (n + 7) / 8 * 8);
    memcpy(wanted + 8, source + from, n);
    CHECK(memcmp(words, wanted, sizeof wanted) == 0);
}

static void all_lengths_at_all_addresses(void **state)
{
    (void)state;
    _Alignas(16) struct idem_a64 words[WORDS];
    for (size_t i = 0; i < sizeof source; i++)
        source[i] = (uint8_t)(i * 7 + 1);
    for (size_t n = 1; n <= LENGTHS; n++)
        for (unsigned from = 0; from < 16; from++) {
            clear(words);
            idem_put_padded(words + 1, source + from, n);
            check_words(words, from, n);
            CHECK(idem_shared_equal(words + 1, source + from, n));
            uint8_t out[LENGTHS + 32];
            memset(out, 0x5a, sizeof out);
            idem_copy_out(out + from, words + 1, n);
            CHECK(memcmp(out + from, source + from, n) == 0);
            for (size_t i = 0; i < sizeof out; i++)
                CHECK((i >= from && i < from + n) || out[i] == 0x5a);
        }
}

static void in_two_pieces(void **state)
{
    (void)state;
    _Alignas(16) struct idem_a64 words[WORDS];
    for (size_t first = 0; first <= LENGTHS; first++)
        for (size_t second = 0; first + second <= LENGTHS; second++) {
            unsigned from = (unsigned)(first + second) % 16;
            struct idem_put put = {words + 1, 0, 0};
            clear(words);
            idem_put_bytes(&put, source + from, first);
            idem_put_bytes(&put, source + from + first, second);
            idem_put_end(&put);
            check_words(words, from, first + second);
        }
}

#ifdef UNDER_ASAN
#include <sanitizer/common_interface_defs.h>

enum copy { OUT, OUT_OF, PUT, PUT_PADDED, COPIES };

/* The compiler must not know where they come from, or it leaves out what is of no use. */
static void *zeros(size_t bytes)
{
    void *volatile at = calloc(bytes, 1);
    CHECK(at != NULL);
    return at;
}

/* More bytes than there are on one side; a whole number of what is copied at once, so that nothing else touches them. */
static void one_copy_too_far(void *ctx)
{
    struct idem_a64 *words = zeros(64), *few = zeros(56);
    uint8_t *bytes = zeros(64), *less = zeros(63);
    struct idem_put put = {words, 0, 0};
    __sanitizer_set_report_fd((void *)(intptr_t)open("/dev/null", O_WRONLY | O_CLOEXEC)); /* it is wanted */
    switch (*(enum copy *)ctx) {
    case OUT:
        idem_copy_out(less, words, 64);
        break;
    case OUT_OF:
        idem_copy_out(bytes, few, 64);
        break;
    case PUT:
        idem_put_bytes(&put, less, 64);
        break;
    default:
        idem_put_padded(few, bytes, 64);
    }
    free(words);
    free(few);
    free(bytes);
    free(less);
}

static void the_sanitizer_sees_a_copy_that_goes_too_far(void **state)
{
    (void)state;
    for (enum copy c = OUT; c < COPIES; c++)
        CHECK(support_reap(support_spawn(one_copy_too_far, &c), SUPPORT_PATIENCE_MS) > 0);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_lengths_at_all_addresses),
        cmocka_unit_test(in_two_pieces),
#ifdef UNDER_ASAN
        cmocka_unit_test(the_sanitizer_sees_a_copy_that_goes_too_far),
#endif
    };
    return cmocka_run_group_tests(tests, support_setup, support_teardown);
}
