/*
 * dedup.h - what the parts of `idem dedup` share: lines (dedup_lines.c), keys (dedup_keys.c), the batch that claims, writes
 * and completes (dedup_batch.c). dedup.c has the command line, the signals and the main loop.
 */
#ifndef IDEM_DEDUP_H
#define IDEM_DEDUP_H

#include <signal.h>

#include "cli.h"

/* ------------------------------------------------------------------ lines */

struct dedup_reader {
    int fd;
    char *buffer;
    size_t capacity;
    size_t start;      /* first byte not handed out */
    size_t end;        /* behind the last byte read */
    size_t scanned;    /* bytes from start on that hold no newline */
    size_t line_max;   /* bytes of the longest line, its newline not counted */
    uint64_t line;     /* number of the line handed out last; the first is 1 */
    bool ended;        /* read() said end of file */
    bool in_long_line; /* the rest of an over-long line comes */
};

struct dedup_line {
    const char *bytes; /* in the reader's buffer; valid until the next dedup_fill() */
    size_t n;          /* with the newline, if it has one */
    size_t text_bytes; /* without */
    uint64_t number;
};

enum dedup_next {
    DEDUP_LINE,      /* a line */
    DEDUP_LONG,      /* the first piece of an over-long line (or all of it) */
    DEDUP_LONG_MORE, /* a further piece of it */
    DEDUP_NEED_MORE, /* no complete line is there: dedup_fill() */
    DEDUP_END
};

void dedup_reader_init(struct dedup_reader *reader, int fd, size_t line_max);
void dedup_reader_free(struct dedup_reader *reader);
enum dedup_next dedup_next_line(struct dedup_reader *reader, struct dedup_line *line);
/* One read() of whatever is there; blocks only if nothing is. Lines handed out before are no longer valid. false: errno. */
bool dedup_fill(struct dedup_reader *reader);

/* ------------------------------------------------------------------ keys */

enum dedup_mode { DEDUP_BY_LINE, DEDUP_BY_COLUMN, DEDUP_BY_FIELD };

struct dedup_rule {
    enum dedup_mode mode;
    size_t column;       /* BY_COLUMN: 1 is the first */
    int delimiter;       /* BY_COLUMN: a byte, or -1: runs of blanks */
    const char *pointer; /* BY_FIELD: RFC 6901 */
    const void *scope;
    size_t scope_bytes;
    bool hash_long_keys;
    idem_store *store;            /* for that hash */
    struct json_tokener *tokener; /* BY_FIELD */
};

/*
 * dedup_key - the key of a line. Points into the line, or into `room` (IDEM_KEY_MAX bytes). On failure returns false and
 * a sentence (without the line's number) in why[DEDUP_WHY_BYTES].
 */
#define DEDUP_WHY_BYTES 512
bool dedup_key(const struct dedup_rule *rule, const struct dedup_line *line, char *room, idem_key *key, char *why);

/* ------------------------------------------------------------------ the batch */

#define DEDUP_BATCH 64

enum dedup_on_error { DEDUP_STOP, DEDUP_PASS, DEDUP_DROP };
enum dedup_on_dup { DEDUP_DUP_DROP, DEDUP_DUP_PRINT, DEDUP_DUP_COUNT };

enum dedup_item_state {
    DEDUP_UNASKED, /* has a key; holds no claim */
    DEDUP_OURS,    /* claimed, not completely written */
    DEDUP_WRITTEN, /* all of it is out */
    DEDUP_DUP,     /* was written before, or comes before in this batch */
    DEDUP_BUSY,    /* in progress in another filter */
    DEDUP_REFUSED, /* the store gave an error or a verdict that stops this line: in `verdict` */
    DEDUP_RAW,     /* written as it is, without a claim (--on-error pass) */
    DEDUP_SKIPPED  /* not written (--on-error drop, decided by the store's verdict) */
};

struct dedup_item {
    struct dedup_line line;
    idem_key key;
    enum dedup_item_state state;
    bool more; /* a further piece of an over-long line */
    int verdict;
    idem_claim claim;
    char room[IDEM_KEY_MAX]; /* the key's bytes if they are not a part of the line */
};

struct dedup_counts {
    uint64_t lines, written, duplicates, bad, rewritten, fenced;
};

struct dedup {
    idem_store *store;
    int64_t ttl_ms, lease_ms; /* 0: the store's default */
    bool together;            /* the store's completions are sync: the lines of a batch wait for the disk together */
    bool unsynced;            /* then: some were completed that have not */
    enum dedup_on_error on_error;
    enum dedup_on_dup on_dup;
    struct dedup_counts counts;
    size_t n; /* items of the batch */
    struct dedup_item items[DEDUP_BATCH];
    idem_request requests[DEDUP_BATCH];
    idem_result results[DEDUP_BATCH];
};

enum dedup_outcome {
    DEDUP_GO_ON,
    DEDUP_FAILED,     /* a message was printed; *status is set */
    DEDUP_PIPE_BROKE, /* nobody reads stdout any more */
    DEDUP_INTERRUPTED /* dedup_signal is set */
};

/* Set by the handler of SIGINT, SIGTERM and SIGHUP; checked wherever the batch waits. */
extern volatile sig_atomic_t dedup_signal;

/* Handles the whole batch and empties it. After any outcome no claim is held. */
enum dedup_outcome dedup_run_batch(struct dedup *d, int *status);

/* Says that a line has no usable key, unless that has been said too often. */
void dedup_complain(struct dedup *d, uint64_t line, const char *why);

#endif
