/*
 * wal.c - `idem wal ls|dump|verify|stat`: looking at a log, with or without its store.
 *
 * Invariants
 *  1. Nothing is changed; it may run beside a store that writes.
 *  2. A log that is damaged is shown as far as it is sound, then refused, with exit status 1.
 *
 * If we die here: nothing is changed by looking.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "look.h"
#include "wal.h"

#define KIND_RETAIN 48u
#define KINDS       64u

const char *wal_kind_word(uint32_t kind)
{
    switch (kind) {
    case 1:
        return "claim";
    case 2:
        return "answer";
    case 3:
        return "tombstone";
    case 4:
        return "forgotten";
    case 16:
        return "event";
    case 32:
        return "high-water";
    case KIND_RETAIN:
        return "retain";
    default:
        return "other";
    }
}

const char *wal_state_word(uint32_t state)
{
    static const char *const words[] = {"-",        "in-progress", "completed", "abandoned",
                                        "declared", "released",    "rerun",     "gone"};
    return state < sizeof words / sizeof words[0] ? words[state] : "unknown";
}

/* ------------------------------------------------------------------ files */

struct wal_file {
    uint64_t number;
    uint64_t size;
    uint64_t records, first, last;
    int64_t newest_expiry_ms;
};
struct wal_files {
    struct wal_file *at;
    size_t n, room;
    uint64_t other_bytes;
    struct wal_file *current; /* where the walk is */
};

static int by_number(const void *a, const void *b)
{
    const struct wal_file *x = a, *y = b;
    return (x->number > y->number) - (x->number < y->number);
}

/* False after a message. */
static bool list_files(const char *dir, struct wal_files *files)
{
    memset(files, 0, sizeof *files);
    DIR *d = opendir(dir);
    if (d == NULL) {
        cli_warn("wal: %s: %s", dir, strerror(errno));
        return false;
    }
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        struct stat st;
        char *end;
        if (e->d_name[0] == '.' || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        uint64_t number = strncmp(e->d_name, "wal-", 4) == 0 ? strtoull(e->d_name + 4, &end, 10) : 0;
        if (number == 0 || *end != '\0') {
            files->other_bytes += (uint64_t)st.st_size;
            continue;
        }
        if (files->n == files->room) {
            size_t room = files->room == 0 ? 64 : files->room * 2;
            struct wal_file *more = cli_alloc(room * sizeof *more);
            if (files->n > 0)
                memcpy(more, files->at, files->n * sizeof *more);
            free(files->at);
            files->at = more;
            files->room = room;
        }
        files->at[files->n++] = (struct wal_file){.number = number, .size = (uint64_t)st.st_size};
    }
    (void)closedir(d);
    if (files->n > 0)
        qsort(files->at, files->n, sizeof *files->at, by_number);
    return true;
}

static int count_record(const idem_log_record *r, void *ctx)
{
    struct wal_files *files = ctx;
    if (files->current == NULL || files->current->number != r->file) {
        struct wal_file key = {.number = r->file};
        files->current = files->n == 0 ? NULL : bsearch(&key, files->at, files->n, sizeof key, by_number);
    }
    struct wal_file *f = files->current;
    if (f == NULL) /* made since the directory was read */
        return 0;
    if (f->records++ == 0)
        f->first = r->position;
    f->last = r->position;
    if (r->kind != KIND_RETAIN && r->expires_wall_ms > f->newest_expiry_ms)
        f->newest_expiry_ms = r->expires_wall_ms;
    return 0;
}

static int say_failure(const char *what, int result)
{
    (void)fflush(stdout);
    int status = cli_fail(what, result);
    return result == IDEM_E_LOG_DAMAGED || result == IDEM_E_LOG_FOREIGN ? CLI_EXIT_NO : status;
}

static void print_file(const struct wal_file *f, bool json)
{
    char size[CLI_TEXT_BYTES], records[CLI_TEXT_BYTES], expiry[CLI_TEXT_BYTES];
    if (json) {
        struct json_object *o = cli_json_new();
        cli_json_count(o, "file", f->number);
        cli_json_count(o, "bytes", f->size);
        cli_json_count(o, "records", f->records);
        cli_json_count(o, "first_position", f->first);
        cli_json_count(o, "last_position", f->last);
        if (f->records > 0)
            cli_json_ms(o, "newest_expiry_wall_ms", f->newest_expiry_ms);
        cli_json_print(o);
        return;
    }
    printf("wal-%020" PRIu64 "  %10s  %12s  ", f->number, cli_size_text(f->size, size),
           look_count_text(f->records, records));
    if (f->records == 0)
        printf("nothing that counts\n");
    else
        printf("%" PRIu64 " .. %" PRIu64 ", %s %s\n", f->first, f->last,
               f->newest_expiry_ms == IDEM_FOREVER ? "never" : "expires",
               f->newest_expiry_ms == IDEM_FOREVER ? "expires" : cli_wall_text(f->newest_expiry_ms, expiry));
}

static int wal_ls(const char *dir, bool json)
{
    struct wal_files files;
    if (!list_files(dir, &files))
        return CLI_EXIT_TROUBLE;
    int result = idem_log_walk(dir, count_record, &files);
    int status = CLI_EXIT_OK;
    if (!json)
        printf("%-24s  %10s  %12s  %s\n", "file", "size", "records", "positions, newest expiry");
    for (size_t i = 0; i < files.n; i++)
        print_file(&files.at[i], json);
    if (result < 0)
        status = say_failure("wal ls", result);
    free(files.at);
    return cli_finish(status);
}

/* ------------------------------------------------------------------ records */

struct dump {
    bool json, bodies;
};

static void dump_json(const idem_log_record *r, bool bodies)
{
    struct json_object *o = cli_json_new();
    cli_json_count(o, "file", r->file);
    cli_json_count(o, "position", r->position);
    cli_json_text(o, "kind", wal_kind_word(r->kind));
    cli_json_count(o, "kind_number", r->kind);
    cli_json_text(o, "state", wal_state_word(r->state));
    cli_json_token(o, "token", r->token);
    if (r->key.key_bytes > 0) {
        cli_json_key(o, &r->key);
        cli_json_fingerprint(o, "fingerprint", r->fingerprint);
        cli_json_count(o, "attempt", r->attempt);
        cli_json_count(o, "flags", r->flags);
        cli_json_number(o, "at_wall_ms", r->at_wall_ms);
        cli_json_ms(o, "expires_wall_ms", r->expires_wall_ms);
    }
    if (r->kind == 2 || r->kind == 3) {
        cli_json_number(o, "status", r->status);
        cli_json_count(o, "meta_bytes", r->meta_bytes);
        cli_json_count(o, "body_bytes", r->body_bytes);
        if (bodies && r->kind == 2) {
            cli_json_bytes(o, "meta", r->meta, r->meta_bytes);
            cli_json_bytes(o, "body", r->body, r->body_bytes);
        }
    }
    if (r->mark_bytes > 0)
        cli_json_bytes(o, "mark", r->mark, r->mark_bytes);
    cli_json_print(o);
}

static int dump_record(const idem_log_record *r, void *ctx)
{
    const struct dump *d = ctx;
    char at[CLI_TEXT_BYTES], expires[CLI_TEXT_BYTES];
    if (d->json) {
        dump_json(r, d->bodies);
        return ferror(stdout) ? 1 : 0;
    }
    printf("%" PRIu64 " %" PRIu64 " %s %s", r->file, r->position, wal_kind_word(r->kind), wal_state_word(r->state));
    if (r->kind == KIND_RETAIN) {
        printf(" from file %" PRIu64 "\n", r->token);
        return ferror(stdout) ? 1 : 0;
    }
    printf(" token %" PRIu64 " attempt %" PRIu32 " at %s expires %s key ", r->token, r->attempt,
           cli_wall_text(r->at_wall_ms, at),
           r->expires_wall_ms == IDEM_FOREVER ? "never" : cli_wall_text(r->expires_wall_ms, expires));
    if (r->key.scope_bytes > 0) {
        cli_print_quoted(stdout, r->key.scope, r->key.scope_bytes);
        printf(" ");
    }
    cli_print_quoted(stdout, r->key.key, r->key.key_bytes);
    if (r->kind == 2 || r->kind == 3)
        printf(" status %" PRId32 " body %zu bytes", r->status, r->body_bytes);
    if (d->bodies && r->kind == 2) {
        printf(" ");
        cli_print_quoted(stdout, r->body, r->body_bytes);
    }
    if (r->mark_bytes > 0) {
        printf(" mark ");
        cli_print_quoted(stdout, r->mark, r->mark_bytes);
    }
    printf("\n");
    return ferror(stdout) ? 1 : 0;
}

static int wal_dump(const char *dir, bool json, bool bodies)
{
    struct dump d = {json, bodies};
    int result = idem_log_walk(dir, dump_record, &d);
    return cli_finish(result < 0 ? say_failure("wal dump", result) : CLI_EXIT_OK);
}

/* ------------------------------------------------------------------ verify, stat */

static int wal_verify(const char *dir, bool json)
{
    idem_recovery r = IDEM_RECOVERY_INIT;
    struct wal_report report;
    r.wal_dir = dir;
    r.flags = IDEM_RECOVER_CHECK_ONLY;
    int result = wal_recover(&r, &report, json);
    if (result < 0 && !json)
        return cli_finish(say_failure("wal verify", result));
    char records[CLI_TEXT_BYTES], files[CLI_TEXT_BYTES], bytes[CLI_TEXT_BYTES], newest[CLI_TEXT_BYTES];
    int status = CLI_EXIT_OK;
    if (json) {
        struct json_object *object = cli_json_new();
        cli_json_bool(object, "ok", result >= 0);
        cli_json_text(object, "problem", result < 0 ? idem_error_detail() : NULL);
        wal_report_json(object, &r, &report);
        if (result < 0)
            status = say_failure("wal verify", result);
        cli_json_print(object);
    } else {
        printf("ok: %s records in %s files, %s, newest of %s\n", look_count_text(r.records, records),
               look_count_text(r.files, files), cli_size_text(r.bytes, bytes), cli_wall_text(r.newest_wall_ms, newest));
    }
    return cli_finish(status);
}

struct kinds {
    uint64_t records[KINDS], expired;
    int64_t now_wall_ms;
    struct wal_files files;
};

static int count_kind(const idem_log_record *r, void *ctx)
{
    struct kinds *k = ctx;
    if (r->kind < KINDS)
        k->records[r->kind]++;
    if (r->kind != KIND_RETAIN && r->expires_wall_ms <= k->now_wall_ms)
        k->expired++;
    return count_record(r, &k->files);
}

static int wal_stat(const char *dir, bool json)
{
    struct kinds k;
    memset(&k, 0, sizeof k);
    k.now_wall_ms = look_wall_ms();
    if (!list_files(dir, &k.files))
        return CLI_EXIT_TROUBLE;
    int result = idem_log_walk(dir, count_kind, &k);
    uint64_t bytes = k.files.other_bytes, records = 0, used = 0;
    for (size_t i = 0; i < k.files.n; i++) {
        bytes += k.files.at[i].size;
        records += k.files.at[i].records;
        used += k.files.at[i].records > 0 ? 1 : 0;
    }
    char a[CLI_TEXT_BYTES], b[CLI_TEXT_BYTES];
    if (json) {
        struct json_object *o = cli_json_new(), *kinds = cli_json_new();
        cli_json_count(o, "files", k.files.n);
        cli_json_count(o, "files_with_records", used);
        cli_json_count(o, "bytes_on_disk", bytes);
        cli_json_count(o, "records", records);
        cli_json_count(o, "expired", k.expired);
        for (uint32_t i = 0; i < KINDS; i++)
            if (k.records[i] > 0)
                cli_json_count(kinds, wal_kind_word(i), k.records[i]);
        if (json_object_object_add(o, "by_kind", kinds) != 0)
            json_object_put(kinds);
        cli_json_print(o);
    } else {
        printf("files      %s, %s on disk\n", look_count_text(k.files.n, a), cli_size_text(bytes, b));
        printf("records    %s, %s of them expired\n", look_count_text(records, a),
               look_percent_text(k.expired, records, b));
        for (uint32_t i = 0; i < KINDS; i++)
            if (k.records[i] > 0)
                printf("           %-12s %s\n", wal_kind_word(i), look_count_text(k.records[i], a));
    }
    free(k.files.at);
    return cli_finish(result < 0 ? say_failure("wal stat", result) : CLI_EXIT_OK);
}

int idem_cmd_wal(int argc, char **argv)
{
    bool bodies = false;
    const struct cli_option own[] = {
        {"body", CLI_FLAG, &bodies, NULL, "dump: print bodies too, in quoted form"},
        {0},
    };
    const struct cli_syntax syntax = {
        "wal",
        "ls|dump|verify|stat DIR [OPTIONS]",
        "Looks at a write-ahead file, with or without its store. Changes nothing, and\n"
        "may run while the store is used: what is not durable yet may be missing.\n"
        "  ls      its files: sizes, records, positions, when the last one expires\n"
        "  dump    its records, one a line\n"
        "  verify  reads all of it and says what is damaged\n"
        "  stat    its size, its records by kind",
        own,
        "exit status\n"
        "    0  done; verify: the log is sound\n"
        "    1  damaged, a file missing, or another store's file: on stderr\n"
        "  124  it can't be read    125  wrong command line\n"
        "example\n"
        "  idem wal dump /var/lib/idem/payments | grep 'key order-42'",
        CLI_TAKES_JSON | CLI_TAKES_OPERANDS,
    };
    struct cli_common common;
    int at = cli_parse(&syntax, &common, argc, argv);
    if (argc - at != 2)
        return cli_usage_error("expected ls, dump, verify or stat, and the log's directory");
    const char *verb = argv[at], *dir = argv[at + 1];
    if (dir[0] != '/')
        return cli_usage_error("\"%s\": expected the absolute path of a log's directory", dir);
    if (bodies && strcmp(verb, "dump") != 0)
        return cli_usage_error("--body goes with dump only");
    if (strcmp(verb, "ls") == 0)
        return wal_ls(dir, common.json);
    if (strcmp(verb, "dump") == 0)
        return wal_dump(dir, common.json, bodies);
    if (strcmp(verb, "verify") == 0)
        return wal_verify(dir, common.json);
    if (strcmp(verb, "stat") == 0)
        return wal_stat(dir, common.json);
    return cli_usage_error("\"%s\": expected ls, dump, verify or stat", verb);
}
