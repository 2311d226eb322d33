/*
 * cli.h - what the files of the `idem` command share: the table of subcommands, option parsing, units, quoting, JSON
 * and error texts. Owns no state of its own but what args.c keeps about the running subcommand for its messages.
 *
 * Rules that every subcommand follows
 *  1. One subcommand runs in one process, so usage errors and --help end the process inside cli_parse().
 *  2. Results go to stdout; everything said to a person goes to stderr and begins with "idem: ".
 *  3. The same exit status means the same in every subcommand (enum cli_exit).
 *  4. Keys, scopes and marks are arbitrary bytes: they are shown through cli_quote() or cli_print_quoted(), never raw.
 *  5. In JSON, tokens are strings (they don't fit a double), times are numbers of milliseconds, "forever" is null.
 */
#ifndef IDEM_CLI_H
#define IDEM_CLI_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <json-c/json.h>

#include "idem.h"

/* Exit statuses. `claim` adds CLI_EXIT_RECLAIMED and CLI_EXIT_REPLAY to say its verdict. */
enum cli_exit {
    CLI_EXIT_OK = 0,
    CLI_EXIT_NO = 1,            /* the answer is no: no such key, verify found damage */
    CLI_EXIT_RECLAIMED = 10,    /* claim: it is yours, an earlier attempt was lost: reconcile first */
    CLI_EXIT_REPLAY = 11,       /* claim: done before, the answer is printed */
    CLI_EXIT_MISMATCH = 120,    /* the key was used with another fingerprint */
    CLI_EXIT_IN_PROGRESS = 121, /* another attempt runs, and waiting was not asked for or took too long */
    CLI_EXIT_HELD = 122,        /* an attempt was lost and the key is held: `idem resolve` */
    CLI_EXIT_LOST = 123,        /* fenced: this attempt is not (or no longer) the running one */
    CLI_EXIT_TROUBLE = 124,     /* the store or the system failed: none there, full, permission, damaged, I/O error */
    CLI_EXIT_USAGE = 125        /* the command line is wrong */
};

/* ------------------------------------------------------------------ subcommands (main.c) */

int idem_cmd_create(int argc, char **argv);
int idem_cmd_destroy(int argc, char **argv);
int idem_cmd_run(int argc, char **argv);
int idem_cmd_claim(int argc, char **argv);
int idem_cmd_complete(int argc, char **argv);
int idem_cmd_abandon(int argc, char **argv);
int idem_cmd_renew(int argc, char **argv);
int idem_cmd_mark(int argc, char **argv);
int idem_cmd_ls(int argc, char **argv);
int idem_cmd_get(int argc, char **argv);
int idem_cmd_why(int argc, char **argv);
int idem_cmd_resolve(int argc, char **argv);
int idem_cmd_release(int argc, char **argv);
int idem_cmd_forget(int argc, char **argv);
int idem_cmd_stat(int argc, char **argv);
int idem_cmd_top(int argc, char **argv);
int idem_cmd_verify(int argc, char **argv);
int idem_cmd_dedup(int argc, char **argv);
int idem_cmd_recover(int argc, char **argv);
int idem_cmd_wal(int argc, char **argv);
int idem_cmd_version(int argc, char **argv);
int idem_cmd_help(int argc, char **argv);

struct cli_command {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the subcommand's name; returns the exit status */
    const char *summary;               /* one line for `idem help` */
};
extern const struct cli_command cli_commands[]; /* ends with a NULL name */

/* ------------------------------------------------------------------ command lines (args.c) */

enum cli_kind {
    CLI_FLAG,     /* bool *into; takes no value */
    CLI_TEXT,     /* const char **into */
    CLI_DURATION, /* int64_t *into: milliseconds, at least 1, or IDEM_FOREVER */
    CLI_PERIOD,   /* int64_t *into: as CLI_DURATION, but 0 is allowed: how long to wait */
    CLI_SIZE,     /* uint64_t *into: bytes */
    CLI_NUMBER,   /* int64_t *into: a whole number, 0 or more */
    CLI_TOKEN     /* uint64_t *into: decimal, never 0 */
};

/* One long option. A subcommand's table ends with a NULL name. What was not given keeps the value it had in *into. */
struct cli_option {
    const char *name; /* without dashes */
    enum cli_kind kind;
    void *into;
    const char *value; /* what --help calls the value; NULL for a flag */
    const char *help;  /* one paragraph; --help wraps it */
};

enum cli_takes {
    CLI_TAKES_STORE = 1u << 0,      /* --store */
    CLI_TAKES_KEY = 1u << 1,        /* --key (required), --scope, --quoted */
    CLI_TAKES_JSON = 1u << 2,       /* --json */
    CLI_TAKES_OPERANDS = 1u << 3,   /* words that are no options; without this they are a usage error */
    CLI_STOPS_AT_OPERAND = 1u << 4, /* with OPERANDS: the first operand ends the options (run: CMD's own options) */
    CLI_TAKES_WAL = 1u << 5         /* --wal, of those that make a store on first use */
};

/* How a subcommand is called; --help prints all of it, in this order: usage, intro, options, outro. */
struct cli_syntax {
    const char *name;
    const char *usage; /* what follows "idem NAME " */
    const char *intro;
    const struct cli_option *options;
    const char *outro; /* exit statuses, examples; NULL: none */
    unsigned takes;    /* enum cli_takes */
};

/* What the shared options said. Bytes belong to argv. */
struct cli_common {
    const char *store; /* NAME or DIR; "default" */
    const char *wal;   /* its log's directory; NULL: not said */
    idem_key key;      /* decoded if --quoted was given */
    bool json;
    bool quoted; /* --quoted was given: decode a subcommand's own prefix options with cli_unquote() too */
};

/*
 * cli_parse - read a subcommand's options. Returns the index in argv of the first operand (argc if there is none).
 * Ends the process: status 0 after --help, CLI_EXIT_USAGE after a message for a wrong command line.
 */
int cli_parse(const struct cli_syntax *syntax, struct cli_common *common, int argc, char **argv);

/* Says what is wrong with the command line and where to read more. Returns CLI_EXIT_USAGE. */
__attribute__((format(printf, 1, 2))) int cli_usage_error(const char *format, ...);

/* "idem: ..." and a newline on stderr, in one write. */
__attribute__((format(printf, 1, 2))) void cli_warn(const char *format, ...);

/* "idem: WHAT: sentence (detail)" on stderr for a library error; call it before any other library call. Returns the
   exit status that fits: NO_KEY -> NO, LOST -> LOST, TIMEOUT -> IN_PROGRESS, INVALID -> USAGE, others -> TROUBLE. */
int cli_fail(const char *what, int error);

/* As cli_fail(), with the key named in the message. */
int cli_fail_key(const char *what, const struct cli_common *common, int error);

/*
 * cli_open - open common->store. create: make it on first use, for 10 thousand keys; else a missing store is an error
 * that names the remedy. With common->wal a store that is gone comes back from its log, and none is made: where neither is
 * there, a disk that is not mounted would look like first use, and everything would be done again. Returns CLI_EXIT_OK, or an exit status after a message; *store is NULL then. Close with
 * idem_close().
 */
int cli_open(const struct cli_common *common, bool create, idem_store **store);

/* path, seen from the working directory if it is relative. false: empty or too long. */
bool cli_absolute(const char *path, char out[PATH_MAX]);

/* Flushes stdout and turns a failed or short write (disk full, closed pipe) into CLI_EXIT_TROUBLE and a message; else
   returns `status`. The last thing a subcommand does. */
int cli_finish(int status);

/* malloc that ends the process with CLI_EXIT_TROUBLE and a message when there is no memory. */
void *cli_alloc(size_t bytes);

/* ------------------------------------------------------------------ units and words (units.c) */

/* Durations: a number (a decimal point is allowed) and ms, s, m, h, d or w; several may follow each other ("1h30m"); or
   "forever". A number without a unit is refused, but for 0. false: not a duration, or over IDEM_TTL_MAX_MS. */
bool cli_parse_duration(const char *text, int64_t *ms);
/* Sizes: a number, and K, M, G or T (powers of 1024; "KiB" and "k" too). */
bool cli_parse_size(const char *text, uint64_t *bytes);
bool cli_parse_number(const char *text, int64_t *number);
bool cli_parse_token(const char *text, uint64_t *token);

#define CLI_TEXT_BYTES 48
/* "forever", "36h", "1.5s", "-20ms": two units at most, read back by cli_parse_duration() if not negative. Returns
   out. */
char *cli_duration_text(int64_t ms, char out[CLI_TEXT_BYTES]);
/* "512 B", "1.5 MiB". Returns out. */
char *cli_size_text(uint64_t bytes, char out[CLI_TEXT_BYTES]);
/* "2026-11-22T06:30:00.123Z" from milliseconds since 1970. Returns out. */
char *cli_wall_text(int64_t wall_ms, char out[CLI_TEXT_BYTES]);

const char *cli_verdict_word(int verdict);         /* "claimed", "in-progress"; the same words everywhere */
const char *cli_state_word(int state);             /* "in-progress", "completed", "abandoned", "lost" */
const char *cli_lost_reason_word(uint32_t reason); /* "none", "dead", "lease", "declared", "released", "crash" */
const char *cli_lost_reason_text(uint32_t reason); /* "its process ended": for people, ends a sentence */

/* ------------------------------------------------------------------ bytes as text (quote.c) */

/*
 * Quoted form: one word of printable ASCII for any bytes, and back without loss.
 *   bytes 0x21..0x7e but the backslash stand for themselves; backslash is \\, newline \n, tab \t, carriage return \r;
 *   all others (space too) are \xNN with exactly two hex digits; no bytes at all is "-", and a lone dash is \x2d.
 */
char *cli_quote(const void *bytes, size_t n); /* malloc'ed; ends the process when out of memory */
void cli_print_quoted(FILE *out, const void *bytes, size_t n);
/* "SCOPE/KEY" in quoted form, or "KEY" when there is no scope, for messages. malloc'ed. */
char *cli_quote_key(const idem_key *key);
/* Decodes in place (the result is never longer). false: not in quoted form; the text is then spoilt. */
bool cli_unquote(char *text, size_t *n);

/* One line `NAME='...'` that a POSIX shell evaluates to the same bytes. Bytes with a NUL, which no shell variable can
   hold, give NAME='' and the quoted form in NAME_QUOTED, which is empty otherwise. */
void cli_print_shell_bytes(FILE *out, const char *name, const void *bytes, size_t n);
void cli_print_shell_text(FILE *out, const char *name, const char *text);

/* ------------------------------------------------------------------ JSON (json.c) */

struct json_object *cli_json_new(void); /* ends the process when out of memory, as all of these do */
/* "NAME": the text if the bytes are UTF-8; else "NAME": null and "NAME_quoted": the quoted form. */
void cli_json_bytes(struct json_object *object, const char *name, const void *bytes, size_t n);
void cli_json_text(struct json_object *object, const char *name, const char *text); /* NULL gives null */
void cli_json_number(struct json_object *object, const char *name, int64_t number);
void cli_json_count(struct json_object *object, const char *name, uint64_t count);
void cli_json_bool(struct json_object *object, const char *name, bool value);
void cli_json_token(struct json_object *object, const char *name, uint64_t token); /* a string; 0 gives null */
void cli_json_fingerprint(struct json_object *object, const char *name, uint64_t fingerprint); /* 16 hex digits */
void cli_json_ms(struct json_object *object, const char *name, int64_t ms); /* IDEM_FOREVER gives null */
/* "scope" and "key". */
void cli_json_key(struct json_object *object, const idem_key *key);
/* Prints the object on one line and frees it. */
void cli_json_print(struct json_object *object);

/* ------------------------------------------------------------------ answers stored by `idem run` (frame.c) */

/* The metadata of an answer that `idem run` stored: its body is stdout_bytes of stdout, then stderr_bytes of stderr. */
#define CLI_FRAME_BYTES 24
struct cli_frame {
    uint64_t stdout_bytes;
    uint64_t stderr_bytes;
};
void cli_frame_encode(const struct cli_frame *frame, uint8_t out[CLI_FRAME_BYTES]);
/* false: this answer was not stored by `idem run` (or by one of a later format): all of its body is one stream. */
bool cli_frame_decode(const void *meta, size_t meta_bytes, size_t body_bytes, struct cli_frame *frame);

/* ------------------------------------------------------------------ plain I/O (io.c) */

/* Writes all of it, over EINTR and short writes. false: errno says why. */
bool cli_write_all(int fd, const void *bytes, size_t n);

/*
 * cli_read_all - everything until end of file, up to `limit` bytes kept; the rest is read and dropped, *over says so.
 * *bytes is malloc'ed (free it) even when it is empty. false: errno says why.
 */
bool cli_read_all(int fd, size_t limit, void **bytes, size_t *n, bool *over);

#endif
