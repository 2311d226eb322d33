/*
 * operate.c - what an operator does to one key: resolve a lost attempt, release a running one, forget a record.
 *
 * Invariants
 *  1. resolve needs the lost attempt's token, so that nobody settles what he has not seen.
 *  2. The answer is read to its end before the key is touched: a failed read settles nothing.
 *
 * If we die here: before the library call nothing happened, after it all of it did.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "look.h"

/* ------------------------------------------------------------------ resolve */

/* The body from stdin, unless a person sits there. One byte more than a region holds is enough for a tombstone. */
static int read_answer(idem_store *store, void **body, size_t *n)
{
    idem_stats_data stats;
    bool over;
    if (isatty(STDIN_FILENO))
        return CLI_EXIT_OK;
    int result = look_stats(store, &stats);
    if (result < 0)
        return cli_fail("cannot resolve", result);
    if (cli_read_all(STDIN_FILENO, (size_t)stats.region_bytes + 1, body, n, &over))
        return CLI_EXIT_OK;
    cli_warn("cannot read the answer from stdin: %s; nothing was resolved", strerror(errno));
    return CLI_EXIT_TROUBLE;
}

/* Why it was not to be: a wrong token is the likeliest, and the right one is no secret. */
static int explain_refusal(const struct cli_common *common, idem_store *store, uint64_t token, int result)
{
    idem_story story = IDEM_STORY_INIT;
    if (result != IDEM_E_LOST)
        return cli_fail_key("cannot resolve", common, result);
    char *key = cli_quote_key(&common->key);
    if (idem_explain(store, &common->key, &story) < 0)
        cli_warn("cannot resolve key %s: it is not a lost attempt (any more)", key);
    else if (story.state != IDEM_STATE_LOST)
        cli_warn("cannot resolve key %s: nothing is lost, it is %s (see \"idem why\")", key,
                 cli_state_word(story.state));
    else
        cli_warn("cannot resolve key %s: the lost attempt is not %" PRIu64 " but %" PRIu64
                 "; look again (\"idem why\") before "
                 "you settle it",
                 key, token, story.token);
    idem_story_free(&story);
    free(key);
    return CLI_EXIT_LOST;
}

int idem_cmd_resolve(int argc, char **argv)
{
    struct cli_common common;
    uint64_t token = 0;
    bool completed = false, rerun = false, no_body = false;
    int64_t status_number = 0;
    idem_response response = IDEM_RESPONSE_INIT;
    const struct cli_option options[] = {
        {"completed", CLI_FLAG, &completed, NULL, "the effect happened: store stdin as the answer"},
        {"rerun", CLI_FLAG, &rerun, NULL, "it did not happen: the next claim is an ordinary one"},
        {"token", CLI_TOKEN, &token, "T",
         "the lost attempt's token, from \"idem why\" or \"idem ls --json\"; required"},
        {"status", CLI_NUMBER, &status_number, "N", "with --completed: stored with the answer; default 0"},
        {"ttl", CLI_DURATION, &response.ttl_ms, "TIME",
         "with --completed: how long the answer is kept; default: as claimed"},
        {"no-body", CLI_FLAG, &no_body, NULL, "with --completed: an answer without body; stdin is not read"},
        {0},
    };
    const struct cli_syntax syntax = {
        "resolve",
        "--key KEY --completed|--rerun --token T [OPTIONS]",
        "Settles a lost attempt: you found out whether its effect happened, and say so.\n"
        "With --completed the answer is read from stdin, to its end; a terminal counts\n"
        "as empty.",
        options,
        "exit status\n"
        "    0  settled\n"
        "    1  no such key\n"
        "  123  nothing is lost, or another attempt than T: nothing was changed\n"
        "  124  trouble with the store or with stdin    125  wrong command line",
        CLI_TAKES_STORE | CLI_TAKES_KEY,
    };
    cli_parse(&syntax, &common, argc, argv);
    if (completed == rerun)
        return cli_usage_error("say either --completed or --rerun");
    if (token == 0)
        return cli_usage_error(
            "--token T is required: \"idem why\" shows it with the story that you are about to settle");
    if (rerun && (status_number != 0 || response.ttl_ms != 0 || no_body))
        return cli_usage_error("--status, --ttl and --no-body go with --completed");
    if (status_number > INT32_MAX)
        return cli_usage_error("--status is over the limit of %" PRId32, INT32_MAX);

    idem_store *store;
    void *body = NULL;
    size_t body_bytes = 0;
    int status = cli_open(&common, false, &store);
    if (status != CLI_EXIT_OK)
        return status;
    if (completed && !no_body)
        status = read_answer(store, &body, &body_bytes);
    if (status == CLI_EXIT_OK) {
        response.status = (int32_t)status_number;
        response.body = body;
        response.body_bytes = body_bytes;
        int result = idem_resolve(store, &common.key, token, completed ? IDEM_RESOLVE_COMPLETED : IDEM_RESOLVE_RERUN,
                                  completed ? &response : NULL);
        if (result < 0)
            status = explain_refusal(&common, store, token, result);
        else if (result == IDEM_TOMBSTONE)
            cli_warn("resolved, but the answer (%zu bytes or more) was too large to be kept: later callers get the "
                     "status alone",
                     body_bytes);
    }
    free(body);
    idem_close(store);
    return status;
}

/* ------------------------------------------------------------------ release, forget */

int idem_cmd_release(int argc, char **argv)
{
    struct cli_common common;
    uint64_t token = 0;
    const struct cli_option options[] = {
        {"token", CLI_TOKEN, &token, "T", "only the attempt with this token; default: whatever runs"},
        {0},
    };
    const struct cli_syntax syntax = {
        "release",
        "--key KEY [--token T]",
        "Ends the lease of a running attempt now. The attempt counts as lost, its owner\n"
        "is fenced (the store refuses what it sends; what it does to the world is not\n"
        "undone), and the next claim is told to reconcile, or the key is held.",
        options,
        "exit status\n"
        "    0  done\n"
        "    1  no such key\n"
        "  123  nothing runs, or another attempt than T: nothing was changed\n"
        "  124  trouble with the store    125  wrong command line",
        CLI_TAKES_STORE | CLI_TAKES_KEY,
    };
    cli_parse(&syntax, &common, argc, argv);

    idem_store *store;
    int status = cli_open(&common, false, &store);
    if (status != CLI_EXIT_OK)
        return status;
    int result = idem_release(store, &common.key, token);
    if (result < 0)
        status = cli_fail_key("cannot release", &common, result);
    idem_close(store);
    return status;
}

int idem_cmd_forget(int argc, char **argv)
{
    struct cli_common common;
    const struct cli_syntax syntax = {
        "forget",
        "--key KEY",
        "Drops a key's record, whatever its state: its effect may run again, as a first\n"
        "attempt. A running attempt is fenced.",
        NULL,
        "exit status\n"
        "    0  done    1  no such key\n"
        "  124  trouble with the store    125  wrong command line",
        CLI_TAKES_STORE | CLI_TAKES_KEY,
    };
    cli_parse(&syntax, &common, argc, argv);

    idem_store *store;
    int status = cli_open(&common, false, &store);
    if (status != CLI_EXIT_OK)
        return status;
    int result = idem_forget(store, &common.key);
    if (result < 0)
        status = cli_fail_key("cannot forget", &common, result);
    idem_close(store);
    return status;
}
