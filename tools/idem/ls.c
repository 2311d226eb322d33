/*
 * ls.c - `idem ls`: the keys of a store, one a line.
 *
 * Invariants
 *  1. Keys and scopes are printed in quoted form and come last, so that a line can be cut and read back with --quoted.
 *  2. Lines are printed while the store is walked: nothing is collected, so that a store of millions costs no memory.
 *
 * If we die here: nothing is changed by looking.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "look.h"

struct wanted {
    int state; /* enum idem_state; 0: all */
    bool held; /* LOST and held */
    const char *prefix;
    size_t prefix_bytes;
    const char *scope; /* NULL: all */
    size_t scope_bytes;
    int64_t older_ms;
    bool json;
    uint64_t printed;
};

static bool is_wanted(const struct wanted *w, const idem_story *story)
{
    if (w->state != 0 && story->state != w->state)
        return false;
    if (w->held && !look_is_held(story))
        return false;
    if (w->scope != NULL &&
        (story->scope_bytes != w->scope_bytes || memcmp(story->scope, w->scope, w->scope_bytes) != 0))
        return false;
    if (story->key_bytes < w->prefix_bytes || memcmp(story->key, w->prefix, w->prefix_bytes) != 0)
        return false;
    return w->older_ms == 0 || look_age_ms(story) >= w->older_ms;
}

/* What there is to say about it in a few words. */
static void detail_text(const idem_story *story, char *out, size_t room)
{
    char text[CLI_TEXT_BYTES];
    switch (story->state) {
    case IDEM_STATE_IN_PROGRESS:
        if ((story->flags & IDEM_LEASE_ONLY) != 0)
            (void)snprintf(out, room, "lease-only, %s left", cli_duration_text(story->lease_left_ms, text));
        else
            (void)snprintf(out, room, "pid %" PRId64 ", %s left", story->owner_pid,
                           cli_duration_text(story->lease_left_ms, text));
        break;
    case IDEM_STATE_LOST:
        (void)snprintf(out, room, "%s%s", look_is_held(story) ? "HELD: " : "",
                       cli_lost_reason_text(story->lost_reason));
        break;
    case IDEM_STATE_COMPLETED:
        if ((story->reply_flags & IDEM_REPLY_NOT_RETAINED) != 0)
            (void)snprintf(out, room, "status %" PRId32 ", body not kept", story->status);
        else
            (void)snprintf(out, room, "status %" PRId32 ", %s", story->status, cli_size_text(story->body_bytes, text));
        break;
    default:
        (void)snprintf(out, room, "%s",
                       (story->reply_flags & IDEM_REPLY_TRANSIENT) != 0 ? "its answer was not kept"
                                                                        : "nothing happened");
        break;
    }
}

static void print_line(struct wanted *w, const idem_story *story)
{
    char age[CLI_TEXT_BYTES], expires[CLI_TEXT_BYTES], detail[96];
    if (w->printed == 0)
        printf("%-11s %3s %-10s %-10s %-28s %-12s %s\n", "STATE", "TRY", "AGE", "EXPIRES", "DETAIL", "SCOPE", "KEY");
    detail_text(story, detail, sizeof(detail));
    char *scope = cli_quote(story->scope, story->scope_bytes);
    char *key = cli_quote(story->key, story->key_bytes);
    printf("%-11s %3" PRIu32 " %-10s %-10s %-28s %-12s %s\n", cli_state_word(story->state), story->attempt,
           cli_duration_text(look_age_ms(story), age), cli_duration_text(story->expires_in_ms, expires), detail, scope,
           key);
    free(key);
    free(scope);
}

static int visit(const idem_story *story, void *ctx)
{
    struct wanted *w = ctx;
    if (!is_wanted(w, story))
        return 0;
    if (w->json) {
        struct json_object *object = cli_json_new();
        cli_json_key(object, &(idem_key){story->scope, story->scope_bytes, story->key, story->key_bytes});
        look_story_json(object, story);
        cli_json_print(object);
    } else {
        print_line(w, story);
    }
    w->printed++;
    /* A reader that went away ends the walk; cli_finish() says so. */
    return ferror(stdout) ? 1 : 0;
}

static bool parse_state(const char *text, struct wanted *w)
{
    if (strcmp(text, "held") == 0) {
        w->state = IDEM_STATE_LOST;
        w->held = true;
        return true;
    }
    for (int state = IDEM_STATE_IN_PROGRESS; state <= IDEM_STATE_LOST; state++) {
        if (strcmp(text, cli_state_word(state)) == 0) {
            w->state = state;
            return true;
        }
    }
    return false;
}

/* The bytes of an option that may be in quoted form. *copy is to be freed. */
static bool take_bytes(const char *option, const char *text, bool quoted, char **copy, size_t *n)
{
    *n = strlen(text);
    *copy = cli_alloc(*n + 1);
    memcpy(*copy, text, *n + 1);
    if (!quoted || *n == 0 || cli_unquote(*copy, n))
        return true;
    (void)cli_usage_error("--%s \"%s\" is not in quoted form (\\xNN, \\n, \\t, \\r, \\\\, no spaces)", option, text);
    return false;
}

static int list(const struct cli_common *common, struct wanted *w)
{
    idem_store *store;
    int status = cli_open(common, false, &store);
    if (status != CLI_EXIT_OK)
        return status;
    int result = idem_walk(store, visit, w);
    if (result < 0)
        status = cli_fail("the keys can't be listed", result);
    else if (w->printed == 0 && !common->json)
        cli_warn("no such keys in %s", idem_path(store));
    idem_close(store);
    return cli_finish(status);
}

int idem_cmd_ls(int argc, char **argv)
{
    struct cli_common common;
    struct wanted w = {.prefix = ""};
    const char *state = NULL, *prefix = "", *scope = NULL;
    bool quoted = false;
    const struct cli_option options[] = {
        {"state", CLI_TEXT, &state, "STATE",
         "only in-progress, completed, abandoned, lost, or held (lost, and nobody may redo it)"},
        {"prefix", CLI_TEXT, &prefix, "TEXT", "only keys that begin with it"},
        {"scope", CLI_TEXT, &scope, "SCOPE", "only this scope; \"\" is none"},
        {"older", CLI_DURATION, &w.older_ms, "AGE", "only if claimed or completed at least so long ago: 10m, 36h"},
        {"quoted", CLI_FLAG, &quoted, NULL, "--prefix and --scope are in the quoted form that idem prints"},
        {0},
    };
    const struct cli_syntax syntax = {
        "ls",
        "[OPTIONS]",
        "Lists the keys of a store, in no order. Expired and forgotten ones are not\n"
        "there. A key that comes or goes meanwhile may or may not be listed; every other\n"
        "one is, exactly once.",
        options,
        "columns\n"
        "  TRY      the attempt's number\n"
        "  AGE      since it was claimed, or completed\n"
        "  EXPIRES  when its record is gone\n"
        "  SCOPE    and KEY in quoted form, which any subcommand takes with --quoted;\n"
        "           a scope of \"-\" is none\n"
        "--json prints one object a line; times are milliseconds, tokens are strings,\n"
        "forever is null.\n"
        "exit status\n"
        "    0  done (also if there are none)    124  trouble with the store\n"
        "  125  wrong command line\n"
        "example: what hangs?\n"
        "  idem ls --state in-progress --older 10m",
        CLI_TAKES_STORE | CLI_TAKES_JSON,
    };
    cli_parse(&syntax, &common, argc, argv);
    if (state != NULL && !parse_state(state, &w))
        return cli_usage_error("--state is in-progress, completed, abandoned, lost or held, not \"%s\"", state);
    w.json = common.json;
    char *prefix_copy = NULL, *scope_copy = NULL;
    int status = CLI_EXIT_USAGE;
    if (take_bytes("prefix", prefix, quoted, &prefix_copy, &w.prefix_bytes) &&
        (scope == NULL || take_bytes("scope", scope, quoted, &scope_copy, &w.scope_bytes))) {
        w.prefix = prefix_copy;
        w.scope = scope_copy;
        status = list(&common, &w);
    }
    free(prefix_copy);
    free(scope_copy);
    return status;
}
