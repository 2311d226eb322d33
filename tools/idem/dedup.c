/*
 * dedup.c - `idem dedup`: command line, signals, main loop. The rest is in dedup_lines.c, dedup_keys.c, dedup_batch.c.
 *
 * Invariants
 *  1. No claim is held while standard input is read: lines are claimed when they are there and are written, completed or
 *     given back before the next read(). A signal that comes during the read may therefore end the process at once.
 *  2. A batch never waits for lines to come: it is what one read() brought, up to DEDUP_BATCH lines at a time.
 *  3. The first line that stops the filter is the first that is not written: all before it were written and completed.
 *
 * If we die here: see dedup_batch.c; there is no other state.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dedup.h"

#define LINE_MAX_DEFAULT ((uint64_t)1 << 20)
#define LINE_MAX_MOST    ((uint64_t)1 << 30)
#define SCOPE_MAX        512u
#define JSON_DEPTH       128

volatile sig_atomic_t dedup_signal;
static volatile sig_atomic_t claims_held;

static const char intro[] = "A filter: copies lines from stdin to stdout, each key once over all processes\n"
                            "that share the store, in order. The key is the whole line (default), a column,\n"
                            "or a field of the JSON document that the line is. The store is made on first\n"
                            "use (but not with --wal), for 10000 keys; \"idem create --keys N\" makes a\n"
                            "larger one.\n"
                            "\n"
                            "A line is done once it was written downstream, that is, when write() returned.\n"
                            "If a filter is killed, the lines that it had claimed and not completed are\n"
                            "written by whoever meets them next: a line may come twice after a kill, and\n"
                            "none is swallowed. A key that another filter has in progress is waited for. In a\n"
                            "store with a log up to 64 lines wait for the disk together; where the machine\n"
                            "dies, these are the ones that may come twice.";

static const char outro[] = "what a line is\n"
                            "  Everything up to a newline. NUL and carriage return are bytes like any other\n"
                            "  (but a NUL in JSON text is an error). A last line without newline is a line,\n"
                            "  and is written without one; its key is the same as with one. Lines are\n"
                            "  handled as they come in: none waits for others to follow.\n"
                            "what a key is\n"
                            "  Column: fields are separated by runs of blanks, or by each --delimiter byte.\n"
                            "  JSON field: a string's text, else the value's compact JSON text (\"1\" and 1\n"
                            "  are the same key); null counts as missing. 1 byte to 1 KiB with the scope.\n"
                            "what --on-error is about\n"
                            "  A line longer than --max-line; a line, column or field that is empty or\n"
                            "  missing; text that is not JSON; a whole number beyond 64 bits or half a\n"
                            "  surrogate pair in the JSON field; a key that is too long, or was used with a\n"
                            "  fingerprint (so not by dedup), or is held. Trouble with the store (full,\n"
                            "  removed) always stops the filter.\n"
                            "broken pipe\n"
                            "  Lines not yet written are given back, and the filter ends as SIGPIPE ends\n"
                            "  any other (where that is ignored: status 124 and a message). What was in the\n"
                            "  pipe when its reader went away counts as written.\n"
                            "exit status\n"
                            "    0  all lines were handled\n"
                            "    1  a line has no usable key; the message names it, all before it were\n"
                            "       written (so for 120, 122 and 124 too)\n"
                            "  120  its key was used with a fingerprint    122  its key is held\n"
                            "  124  trouble with the store, stdin or stdout    125  wrong command line\n"
                            "examples\n"
                            "  tail -F orders.log | idem dedup --field /order/id --ttl 7d | post-orders\n"
                            "  idem dedup --column 2 --delimiter , --on-dup print <all >once 2>again";

static void on_signal(int number)
{
    if (claims_held != 0) {
        dedup_signal = number;
        return;
    }
    signal(number, SIG_DFL);
    raise(number);
}

static void on_tick(int number)
{
    (void)number; /* it interrupts write(), that is all */
}

static void handle(int number, void (*handler)(int))
{
    struct sigaction action = {0};
    struct sigaction old;
    if (sigaction(number, NULL, &old) == 0 && old.sa_handler == SIG_IGN && number != SIGALRM)
        return; /* nohup and the like */
    action.sa_handler = handler;
    sigemptyset(&action.sa_mask);
    (void)sigaction(number, &action, NULL); /* without SA_RESTART: the signal must end a blocked write() */
}

/* Returns whether SIGPIPE would have ended this process. */
static bool set_up_signals(void)
{
    struct sigaction old;
    bool pipe_ends = sigaction(SIGPIPE, NULL, &old) == 0 && old.sa_handler == SIG_DFL;
    signal(SIGPIPE, SIG_IGN);
    handle(SIGINT, on_signal);
    handle(SIGTERM, on_signal);
    handle(SIGHUP, on_signal);
    handle(SIGALRM, on_tick);
    sigset_t ours;
    sigemptyset(&ours);
    sigaddset(&ours, SIGALRM);
    (void)sigprocmask(SIG_UNBLOCK, &ours, NULL);
    return pipe_ends;
}

static void die_of(int number)
{
    sigset_t ours;
    signal(number, SIG_DFL);
    sigemptyset(&ours);
    sigaddset(&ours, number);
    (void)sigprocmask(SIG_UNBLOCK, &ours, NULL);
    raise(number);
}

/* Puts a line into the batch, or decides that it stops the filter. */
static enum dedup_outcome take_line(struct dedup *d, const struct dedup_rule *rule, enum dedup_next kind,
                                    const struct dedup_line *line, size_t line_max, int *status)
{
    struct dedup_item *item = &d->items[d->n];
    char why[DEDUP_WHY_BYTES];
    item->line = *line;
    item->more = kind == DEDUP_LONG_MORE;
    item->state = DEDUP_UNASKED;
    if (!item->more)
        d->counts.lines++;
    if (kind == DEDUP_LINE) {
        if (dedup_key(rule, line, item->room, &item->key, why)) {
            d->n++;
            return DEDUP_GO_ON;
        }
    } else {
        snprintf(why, sizeof(why), "is longer than %zu bytes (--max-line)", line_max);
    }

    if (d->on_error == DEDUP_STOP) {
        uint64_t number = line->number;
        enum dedup_outcome outcome = dedup_run_batch(d, status);
        if (outcome != DEDUP_GO_ON)
            return outcome;
        dedup_complain(d, number, why);
        *status = CLI_EXIT_NO;
        return DEDUP_FAILED;
    }
    if (!item->more)
        dedup_complain(d, line->number, why);
    if (d->on_error == DEDUP_PASS) {
        item->state = DEDUP_RAW;
        d->n++;
    }
    return DEDUP_GO_ON;
}

static enum dedup_outcome filter(struct dedup *d, const struct dedup_rule *rule, size_t line_max, int *status)
{
    struct dedup_reader reader;
    enum dedup_outcome outcome = DEDUP_GO_ON;
    dedup_reader_init(&reader, STDIN_FILENO, line_max);
    while (outcome == DEDUP_GO_ON) {
        struct dedup_line line;
        enum dedup_next next = dedup_next_line(&reader, &line);
        if (next != DEDUP_NEED_MORE && next != DEDUP_END) {
            claims_held = 1;
            outcome = take_line(d, rule, next, &line, line_max, status);
            if (outcome == DEDUP_GO_ON && d->n == DEDUP_BATCH)
                outcome = dedup_run_batch(d, status);
            continue;
        }
        outcome = dedup_run_batch(d, status);
        claims_held = 0;
        if (dedup_signal != 0 && outcome == DEDUP_GO_ON)
            outcome = DEDUP_INTERRUPTED;
        if (outcome != DEDUP_GO_ON || next == DEDUP_END)
            break;
        if (!dedup_fill(&reader)) {
            cli_warn("dedup: standard input could not be read: %s", strerror(errno));
            *status = CLI_EXIT_TROUBLE;
            outcome = DEDUP_FAILED;
        }
    }
    dedup_reader_free(&reader);
    return outcome;
}

static const char *plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

static void print_summary(const struct dedup *d)
{
    const struct dedup_counts *c = &d->counts;
    if (d->on_dup == DEDUP_DUP_COUNT)
        cli_warn("dedup: %" PRIu64 " line%s, %" PRIu64 " written, %" PRIu64 " duplicate%s", c->lines, plural(c->lines),
                 c->written, c->duplicates, plural(c->duplicates));
    if (c->bad > 0 && d->on_error != DEDUP_STOP)
        cli_warn("dedup: %" PRIu64 " line%s without a usable key: %s", c->bad, plural(c->bad),
                 d->on_error == DEDUP_PASS ? "passed on" : "dropped");
    if (c->rewritten > 0)
        cli_warn("dedup: %" PRIu64
                 " line%s may have come twice: an earlier filter ended between claiming and recording",
                 c->rewritten, plural(c->rewritten));
    if (c->fenced > 0)
        cli_warn("dedup: %" PRIu64 " line%s may come twice: taken over before that could be recorded", c->fenced,
                 plural(c->fenced));
}

/* The words of an option with a fixed set of values; their order is that of the enum. */
static int choice(const char *text, const char *const *words)
{
    for (int i = 0; words[i] != NULL; i++) {
        if (strcmp(text, words[i]) == 0)
            return i;
    }
    return -1;
}

static int run(const struct cli_common *common, struct dedup_rule *rule, struct dedup *d, size_t line_max)
{
    idem_store *store;
    int status = cli_open(common, true, &store);
    if (status != CLI_EXIT_OK)
        return status;
    d->store = rule->store = store;
    idem_stats_data stats = {.size = sizeof stats};
    int e = idem_stats(store, &stats);
    if (e < 0) {
        status = cli_fail("dedup: the store's settings can't be read", e);
        idem_close(store);
        return status;
    }
    d->together = stats.log.present != 0 && stats.log.durability_complete == IDEM_DURABILITY_SYNC;

    bool pipe_ends = set_up_signals();
    enum dedup_outcome outcome = filter(d, rule, line_max, &status);
    print_summary(d);
    idem_close(store);
    if (outcome == DEDUP_INTERRUPTED)
        die_of((int)dedup_signal);
    if (outcome == DEDUP_PIPE_BROKE) {
        if (pipe_ends)
            die_of(SIGPIPE);
        cli_warn("dedup: standard output could not be written: %s", strerror(EPIPE));
        status = CLI_EXIT_TROUBLE;
    }
    return status;
}

int idem_cmd_dedup(int argc, char **argv)
{
    static const char *const error_words[] = {"stop", "pass", "drop", NULL};
    static const char *const dup_words[] = {"drop", "print", "count", NULL};
    struct cli_common common;
    struct dedup_rule rule = {.delimiter = -1};
    int64_t column = -1, ttl_ms = 0, lease_ms = 0;
    uint64_t line_max = LINE_MAX_DEFAULT;
    bool by_line = false;
    const char *on_dup = "drop", *on_error = "stop", *scope = "", *delimiter = NULL;
    const struct cli_option options[] = {
        {"line", CLI_FLAG, &by_line, NULL, "the key is the whole line (default)"},
        {"column", CLI_NUMBER, &column, "N", "the key is column N; 1 is the first"},
        {"delimiter", CLI_TEXT, &delimiter, "C", "one byte that separates columns; default: runs of blanks"},
        {"field", CLI_TEXT, &rule.pointer, "POINTER",
         "each line is a JSON document, the key is this value in it: /id, /order/items/0 (RFC 6901; \"\" is the whole "
         "document)"},
        {"scope", CLI_TEXT, &scope, "SCOPE", "keeps these keys apart from others in the store"},
        {"ttl", CLI_DURATION, &ttl_ms, "TIME", "how long a key is remembered; default: the store's"},
        {"lease", CLI_DURATION, &lease_ms, "TIME",
         "how long a stopped filter keeps its claims; default: the store's. A killed one loses them at once"},
        {"on-dup", CLI_TEXT, &on_dup, "WHAT",
         "drop (default); print: write duplicates to stderr; count: drop, and say at the end how many there were"},
        {"on-error", CLI_TEXT, &on_error, "WHAT",
         "a line without a usable key: stop (default); pass: write it without asking; drop"},
        {"max-line", CLI_SIZE, &line_max, "BYTES", "longest line; default 1M"},
        {"hash-long-keys", CLI_FLAG, &rule.hash_long_keys, NULL,
         "keys over 1 KiB: remember a keyed 128-bit hash of them instead of refusing them"},
        {0},
    };
    const struct cli_syntax syntax = {
        "dedup", "[--field POINTER | --column N | --line] [OPTIONS] < IN > OUT",
        intro,   options,
        outro,   CLI_TAKES_STORE | CLI_TAKES_WAL,
    };
    static struct dedup d;

    cli_parse(&syntax, &common, argc, argv);
    if ((rule.pointer != NULL) + (column >= 0) + by_line > 1)
        return cli_usage_error("--line, --column and --field exclude each other");
    if (column == 0)
        return cli_usage_error("--column counts from 1");
    if (delimiter != NULL && (column < 0 || strlen(delimiter) != 1 || delimiter[0] == '\n'))
        return cli_usage_error("--delimiter is one byte, no newline, and goes with --column");
    if (rule.pointer != NULL && rule.pointer[0] != '/' && rule.pointer[0] != '\0')
        return cli_usage_error("--field \"%s\": a JSON pointer begins with a slash, as in /order/id", rule.pointer);
    if (strlen(scope) > SCOPE_MAX)
        return cli_usage_error("--scope has %zu bytes; %u are the most here", strlen(scope), SCOPE_MAX);
    if (line_max < 1 || line_max > LINE_MAX_MOST)
        return cli_usage_error("--max-line is 1 byte to 1G");
    if (lease_ms > IDEM_LEASE_MAX_MS)
        return cli_usage_error("--lease is at most 7d");
    int when_dup = choice(on_dup, dup_words);
    int when_bad = choice(on_error, error_words);
    if (when_dup < 0)
        return cli_usage_error("--on-dup is drop, print or count, not \"%s\"", on_dup);
    if (when_bad < 0)
        return cli_usage_error("--on-error is stop, pass or drop, not \"%s\"", on_error);

    rule.mode = rule.pointer != NULL ? DEDUP_BY_FIELD : column > 0 ? DEDUP_BY_COLUMN : DEDUP_BY_LINE;
    rule.column = column > 0 ? (size_t)column : 0;
    rule.delimiter = delimiter != NULL ? (unsigned char)delimiter[0] : -1;
    rule.scope = scope;
    rule.scope_bytes = strlen(scope);
    if (rule.mode == DEDUP_BY_FIELD) {
        rule.tokener = json_tokener_new_ex(JSON_DEPTH);
        if (rule.tokener == NULL) {
            cli_warn("dedup: no memory for the JSON parser");
            return CLI_EXIT_TROUBLE;
        }
        json_tokener_set_flags(rule.tokener, JSON_TOKENER_STRICT);
    }
    d.ttl_ms = ttl_ms;
    d.lease_ms = lease_ms;
    d.on_dup = (enum dedup_on_dup)when_dup;
    d.on_error = (enum dedup_on_error)when_bad;

    int status = run(&common, &rule, &d, (size_t)line_max);
    if (rule.tokener != NULL)
        json_tokener_free(rule.tokener);
    return status;
}
