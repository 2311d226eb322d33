/* tests/unit/scan_log.h - what the tests of reading a log share: a small log of three files, what was seen of it, and refusals. */
#ifndef TESTS_UNIT_SCAN_LOG_H
#define TESTS_UNIT_SCAN_LOG_H

#include "unit/wal_log.h"

#include <sys/stat.h>

#include "recover/scan.h"

#define SEEN_MAX 64

struct seen {
    unsigned n, sentences;
    uint64_t position[SEEN_MAX], token[SEEN_MAX];
    char last[512];
};

static inline int note(void *ctx, const struct idem_rec *r, uint64_t file)
{
    struct seen *s = ctx;
    CHECK(file > 0);
    CHECK(s->n < SEEN_MAX);
    s->position[s->n] = r->position;
    s->token[s->n++] = r->token;
    return 0;
}

static inline void hear(void *ctx, const char *text)
{
    struct seen *s = ctx;
    s->sentences++;
    snprintf(s->last, sizeof s->last, "%s", text);
}

/* As recovery does it: the id too is read anew. */
static inline int read_log(const char *path, struct seen *s, struct idem_scan_result *r)
{
    struct idem_log_dir d;
    idem_recovery hooks = IDEM_RECOVERY_INIT;
    memset(s, 0, sizeof *s);
    memset(r, 0, sizeof *r);
    hooks.sentence = hear;
    hooks.ctx = s;
    int e = idem_log_dir_open(path, false, 0, &d);
    if (e != IDEM_OK)
        return e;
    e = idem_scan(&d, note, s, &hooks, r);
    idem_log_dir_close(&d);
    return e;
}

static inline void put_byte(const char *path, const char *name, long at, int xor_with)
{
    char file[256];
    snprintf(file, sizeof file, "%s/%s", path, name);
    int fd = open(file, O_RDWR);
    uint8_t b;
    CHECK(fd >= 0);
    CHECK(pread(fd, &b, 1, at) == 1);
    b = (uint8_t)(b ^ xor_with);
    CHECK(pwrite(fd, &b, 1, at) == 1);
    close(fd);
}

static inline void name_of(const char *path, uint64_t number, char file[256])
{
    char name[IDEM_LOG_NAME_BYTES];
    idem_log_file_name(number, name);
    snprintf(file, 256, "%s/%s", path, name);
}

static inline void damage(const char *path, uint64_t number, uint64_t offset)
{
    char name[IDEM_LOG_NAME_BYTES];
    idem_log_file_name(number, name);
    put_byte(path, name, (long)offset, 0x10);
}

static inline void refused(const char *path, int with, const char *word)
{
    struct seen s;
    struct idem_scan_result r;
    CHECK_IS(read_log(path, &s, &r), with);
    if (strstr(idem_error_detail(), word) == NULL)
        fprintf(stderr, "no '%s' in: %s\n", word, idem_error_detail());
    CHECK(strstr(idem_error_detail(), word) != NULL);
}

/* Three files: 1 with two batches, 2 with one and a void one behind, 3 with two, of which the last is not vouched for. Tokens are 1 ... 8. */
#define SOUND  8u
#define PROVEN 6u
static inline void write_log(struct hand_log *l, const char *dir, uint32_t file_bytes)
{
    CHECK_IS(mkdir(dir, 0700), 0);
    hand_open(l, dir);
    l->f.bytes = file_bytes;
    hand_file(l, true);
    hand_add(l, hand_claim(l, "one", 1));
    hand_add(l, hand_claim(l, "two", 2));
    hand_flush(l, true);
    hand_add(l, hand_answer(l, "one", 3, "the answer"));
    hand_flush(l, true);
    hand_file(l, true);
    hand_add(l, hand_answer(l, "two", 4, "another answer"));
    hand_flush(l, true);
    hand_add(l, hand_claim(l, "void", 99));
    hand_flush(l, false);
    hand_file(l, true);
    hand_add(l, hand_claim(l, "three", 5));
    hand_add(l, hand_claim(l, "four", 6));
    hand_flush(l, true);
    hand_add(l, hand_claim(l, "five", 7));
    hand_add(l, hand_answer(l, "five", 8, "a tail"));
    hand_flush(l, true);
}

#endif
