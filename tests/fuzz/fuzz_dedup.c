/*
 * tests/fuzz/fuzz_dedup.c - any bytes on the standard input of `idem dedup`: lines, columns, JSON documents and pointers.
 *
 * The input: a byte of settings, one for the column, one for the delimiter, one for how the bytes come in pieces; a pointer up to a newline; what is
 * read. No byte is lost or added between reading and writing, a line has at most one key, of 1 to 1024 bytes, that is the same each time.
 */
#include "fuzz/fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dedup.h"

#define PIECES 15u   /* as many packets as a pipe holds */
#define PIECE  4096u /* of at most so many bytes */

static idem_store *store;

void fuzz_begin(void)
{
    store = support_open(support_dir(), NULL);
}

/* Another way to find a column. NULL: it is not there. */
static const char *column_of(const struct dedup_rule *rule, const struct dedup_line *line, size_t *n)
{
    size_t column = 0, from = 0;
    for (size_t i = 0; i <= line->text_bytes; i++) {
        bool end = i == line->text_bytes;
        bool blank = !end && (line->bytes[i] == ' ' || line->bytes[i] == '\t');
        if (!end && (rule->delimiter < 0 ? !blank : (unsigned char)line->bytes[i] != rule->delimiter))
            continue;
        if ((rule->delimiter >= 0 || i > from) && ++column == rule->column) {
            *n = i - from;
            return line->bytes + from;
        }
        from = i + 1;
    }
    return NULL;
}

static void key_of(const struct dedup_rule *rule, const struct dedup_line *line)
{
    char room[IDEM_KEY_MAX], again_room[IDEM_KEY_MAX], why[DEDUP_WHY_BYTES] = "";
    idem_key key, again;
    size_t n = 0;
    bool accepted = dedup_key(rule, line, room, &key, why);
    CHECK(accepted == dedup_key(rule, line, again_room, &again, why));
    const char *column = rule->mode == DEDUP_BY_COLUMN ? column_of(rule, line, &n) : NULL;
    if (!accepted) {
        CHECK(why[0] != '\0' && strlen(why) < sizeof why);
        CHECK(column == NULL || n == 0 || (n + rule->scope_bytes > IDEM_KEY_MAX && !rule->hash_long_keys));
        return;
    }
    CHECK(key.key_bytes >= 1 && key.key_bytes + key.scope_bytes <= IDEM_KEY_MAX);
    CHECK(key.key_bytes == again.key_bytes && memcmp(key.key, again.key, key.key_bytes) == 0);
    CHECK(rule->mode != DEDUP_BY_COLUMN || column != NULL);
    if (column != NULL && n + rule->scope_bytes <= IDEM_KEY_MAX)
        CHECK(key.key_bytes == n && memcmp(key.key, column, n) == 0);
}

static void read_lines(const struct dedup_rule *rule, int fd, size_t line_max, const uint8_t *bytes, size_t n)
{
    struct dedup_reader reader;
    size_t seen = 0;
    uint64_t number = 0;
    dedup_reader_init(&reader, fd, line_max);
    for (;;) {
        struct dedup_line line;
        enum dedup_next next = dedup_next_line(&reader, &line);
        if (next == DEDUP_END)
            break;
        if (next == DEDUP_NEED_MORE) {
            CHECK(dedup_fill(&reader));
            continue;
        }
        CHECK(seen + line.n <= n && memcmp(line.bytes, bytes + seen, line.n) == 0);
        seen += line.n;
        CHECK(line.number == (next == DEDUP_LONG_MORE ? number : ++number));
        CHECK(line.text_bytes == line.n || (line.n > 0 && line.bytes[line.n - 1] == '\n'));
        CHECK(next != DEDUP_LINE || (line.text_bytes <= line_max && memchr(line.bytes, '\n', line.text_bytes) == NULL));
        if (next == DEDUP_LINE)
            key_of(rule, &line);
    }
    CHECK(seen == n);
    dedup_reader_free(&reader);
}

void fuzz_one(const uint8_t *bytes, size_t n)
{
    struct fuzz_bytes b = {bytes, n};
    unsigned settings = fuzz_byte(&b), column = fuzz_byte(&b), delimiter = fuzz_byte(&b), piece = fuzz_byte(&b);
    struct dedup_rule rule = {.mode = (enum dedup_mode)(settings % 3),
                              .column = column % 8 + 1,
                              .delimiter = settings & 4 ? (int)delimiter : -1,
                              .scope = "scope",
                              .scope_bytes = settings & 8 ? 5 : 0,
                              .hash_long_keys = (settings & 16) != 0,
                              .store = store};
    char pointer[256] = "/";
    size_t end = 0;
    while (end < b.left && end + 2 < sizeof pointer && b.at[end] != '\n' && b.at[end] != '\0')
        end++;
    if (end > 0)
        memcpy(pointer + 1, b.at, end);
    pointer[end + 1] = '\0';
    rule.pointer = settings & 32 ? "" : pointer;
    b.at += end < b.left ? end + 1 : end;
    b.left -= end < b.left ? end + 1 : end;
    if (rule.mode == DEDUP_BY_COLUMN && rule.delimiter == '\n')
        return; /* refused by the command line */
    if (rule.mode == DEDUP_BY_FIELD) {
        rule.tokener = json_tokener_new_ex(128);
        CHECK(rule.tokener != NULL);
        json_tokener_set_flags(rule.tokener, JSON_TOKENER_STRICT);
    }
    size_t total = b.left < (size_t)PIECES * PIECE ? b.left : (size_t)PIECES * PIECE, each = total / PIECES + 1;
    if (each < piece + 1u)
        each = piece + 1u;
    int fds[2];
    CHECK_IS(pipe2(fds, O_DIRECT | O_CLOEXEC), 0); /* each read() brings one write() */
    for (size_t at = 0; at < total; at += each) {
        size_t m = total - at < each ? total - at : each;
        CHECK(write(fds[1], b.at + at, m) == (ssize_t)m);
    }
    close(fds[1]);
    read_lines(&rule, fds[0], settings & 64 ? 1 + delimiter : 1u << 20, b.at, total);
    close(fds[0]);
    if (rule.tokener != NULL)
        json_tokener_free(rule.tokener);
}
