/*
 * why.c - `idem why`: a key's story, for a person who wonders why it is not done, or done twice, or whose turn it is.
 *
 * Invariants
 *  1. It says what is recorded, and what is judged now (alive, lease left), not what might have been.
 *  2. Every command that it suggests can be pasted as it is.
 *
 * If we die here: nothing is changed by looking.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "look.h"

static void fact(const char *name)
{
    printf("  %-12s", name);
}

static void print_who(const idem_story *story)
{
    char text[CLI_TEXT_BYTES];
    fact("who");
    if ((story->flags & IDEM_LEASE_ONLY) != 0) {
        if (story->owner_pid > 0)
            printf("whoever has the token; process %" PRId64 " claimed it (lease-only: it need not live on)\n",
                   story->owner_pid);
        else
            printf("whoever has the token (lease-only: no process needs to live on)\n");
    } else if (story->owner_pid > 0) {
        printf("process %" PRId64 ", %s\n", story->owner_pid, story->owner_alive ? "alive" : "dead");
    } else {
        printf("a process %s\n", story->owner_alive ? "that is alive" : "that is dead");
    }
    fact("lease");
    if (story->lease_left_ms > 0)
        printf("%s left\n", cli_duration_text(story->lease_left_ms, text));
    else
        printf("ended %s ago\n", cli_duration_text(-story->lease_left_ms, text));
}

static void print_outcome(const idem_story *story)
{
    char body[CLI_TEXT_BYTES], meta[CLI_TEXT_BYTES];
    fact("answer");
    printf("status %" PRId32 ", %s of body, %s of metadata%s\n", story->status, cli_size_text(story->body_bytes, body),
           cli_size_text(story->meta_bytes, meta),
           (story->reply_flags & IDEM_REPLY_NOT_RETAINED) != 0 ? "; too large or no room, so these were not kept" : "");
}

static void print_headline(const idem_story *story)
{
    static const char *const sentences[] = {
        [IDEM_STATE_IN_PROGRESS] = "is in progress",
        [IDEM_STATE_COMPLETED] = "completed",
        [IDEM_STATE_ABANDONED] = "was given back: nothing happened",
        [IDEM_STATE_LOST] = "was lost: ",
    };
    bool known = story->state >= IDEM_STATE_IN_PROGRESS && story->state <= IDEM_STATE_LOST;
    const char *sentence = known ? sentences[story->state] : "is in a state that this version does not know";
    if (story->state == IDEM_STATE_ABANDONED && (story->reply_flags & IDEM_REPLY_TRANSIENT) != 0)
        sentence = "ended in an answer that was not kept (a failure that may be retried)";
    printf("Attempt %" PRIu32 " %s%s.", story->attempt, sentence,
           story->state == IDEM_STATE_LOST ? cli_lost_reason_text(story->lost_reason) : "");
    if (look_is_held(story))
        printf(" The key is held: nobody redoes it until it is resolved.");
    printf("\n");
}

static void print_log(const idem_story *story)
{
    fact("log");
    if (story->log_state == 0)
        printf("not on the disk yet, or not asked to be\n");
    else
        printf("%s, at position %" PRIu64 "\n", story->log_state == 1 ? "written, not durable yet" : "durable",
               story->log_position);
}

static void print_facts(const idem_story *story, bool logged)
{
    char at[CLI_TEXT_BYTES], age[CLI_TEXT_BYTES], left[CLI_TEXT_BYTES];
    bool runs = story->state == IDEM_STATE_IN_PROGRESS || story->state == IDEM_STATE_LOST;
    fact(story->state == IDEM_STATE_COMPLETED ? "completed" : "claimed");
    printf("%s ago, at %s\n", cli_duration_text(look_age_ms(story), age), cli_wall_text(story->at_wall_ms, at));
    if (runs)
        print_who(story);
    if (story->state == IDEM_STATE_COMPLETED)
        print_outcome(story);
    if (runs && story->waiters) {
        fact("waiters");
        printf("somebody waits for it, or has waited\n");
    }
    if (story->mark_bytes > 0) {
        fact("mark");
        cli_print_quoted(stdout, story->mark, story->mark_bytes);
        printf("\n");
    }
    if (story->lost_token != 0 && story->lost_token != story->token) {
        fact("before");
        printf("an earlier attempt was lost: %s (token %" PRIu64 ")\n", cli_lost_reason_text(story->lost_reason),
               story->lost_token);
    } else if (story->attempt > 1 && story->lost_token == 0) {
        fact("before");
        printf("%" PRIu32 " earlier attempt%s, none of them lost\n", story->attempt - 1,
               story->attempt == 2 ? "" : "s");
    }
    fact("token");
    printf("%" PRIu64 "\n", story->token);
    fact("fingerprint");
    if (story->fingerprint != 0)
        printf("%016" PRIx64 "\n", story->fingerprint);
    else
        printf("none\n");
    fact("expires");
    if (story->expires_in_ms == IDEM_FOREVER)
        printf("never\n");
    else
        printf("in %s; after that the key is new\n", cli_duration_text(story->expires_in_ms, left));
    if (logged)
        print_log(story);
}

static void suggest(const struct cli_common *common, const char *verb, const char *options, uint64_t token,
                    const char *what)
{
    char *command = look_command(common, verb, token);
    printf("  %s%s\n      %s\n", command, options, what);
    free(command);
}

static void print_next(const struct cli_common *common, const idem_story *story)
{
    printf("\nWhat next\n");
    switch (story->state) {
    case IDEM_STATE_IN_PROGRESS:
        if ((story->flags & IDEM_LEASE_ONLY) != 0)
            printf(
                "  Wait. If nobody completes or abandons it, the next claim takes the key over when the lease ends.\n");
        else
            printf("  Wait. If its owner ends, the next claim takes the key over at once; if it hangs, when the lease "
                   "ends.\n");
        suggest(
            common, "release", "", story->token,
            "ends the lease now: the attempt counts as lost, its owner is fenced, the next claim is told to reconcile");
        if ((story->flags & IDEM_LEASE_ONLY) != 0)
            suggest(common, "complete", " < ANSWER", story->token, "completes it from any process");
        break;
    case IDEM_STATE_LOST:
        if (look_is_held(story))
            printf("  Find out whether the effect happened%s, then settle it:\n",
                   story->mark_bytes > 0 ? " (the mark above was left by who tried)" : "");
        else
            printf("  Nothing has to be done: the next claim takes it over and is told that this attempt may have had "
                   "its\n"
                   "  effect. Or settle it by hand:\n");
        suggest(common, "resolve", " --completed < ANSWER", story->token, "it happened: store the answer for everyone");
        suggest(common, "resolve", " --rerun", story->token, "it did not: the next claim is an ordinary one");
        break;
    case IDEM_STATE_COMPLETED:
        suggest(common, "get", "", 0, "prints the stored answer");
        suggest(common, "forget", "", 0, "drops it: the effect may run again");
        break;
    default:
        printf("  Nothing has to be done: the next claim gets the key, as attempt %" PRIu32 "%s.\n", story->attempt + 1,
               story->lost_token != 0 ? ", and is told of the lost one" : "");
        break;
    }
}

static void print_story(const struct cli_common *common, const idem_story *story, const char *path, bool logged)
{
    printf("Key ");
    cli_print_quoted(stdout, story->key, story->key_bytes);
    if (story->scope_bytes > 0) {
        printf(" in scope ");
        cli_print_quoted(stdout, story->scope, story->scope_bytes);
    }
    printf(" of store %s\n", path);
    print_headline(story);
    printf("\n");
    print_facts(story, logged);
    print_next(common, story);
}

int idem_cmd_why(int argc, char **argv)
{
    struct cli_common common;
    const struct cli_syntax syntax = {
        "why",
        "--key KEY [OPTIONS]",
        "Tells a key's story: who claimed it and when, whether he lives, what is left of\n"
        "his lease, the newest mark, how many attempts there were, when the record\n"
        "expires, where it lies in the log, and what can be done next. Changes nothing.",
        NULL,
        "exit status\n"
        "    0  the story is on stdout\n"
        "    1  no such key: never used, expired, or forgotten\n"
        "  124  trouble with the store    125  wrong command line\n"
        "--json prints one object; times are milliseconds, tokens are strings, forever\n"
        "is null.",
        CLI_TAKES_STORE | CLI_TAKES_KEY | CLI_TAKES_JSON,
    };
    cli_parse(&syntax, &common, argc, argv);

    idem_store *store;
    int status = cli_open(&common, false, &store);
    if (status != CLI_EXIT_OK)
        return status;
    idem_story story = IDEM_STORY_INIT;
    int result = idem_explain(store, &common.key, &story);
    if (result < 0) {
        status = cli_fail_key("why", &common, result);
    } else if (common.json) {
        struct json_object *object = cli_json_new();
        cli_json_text(object, "path", idem_path(store));
        cli_json_key(object, &common.key);
        look_story_json(object, &story);
        cli_json_print(object);
    } else {
        static idem_stats_data stats;
        bool logged = look_stats(store, &stats) >= 0 && stats.log.present != 0;
        print_story(&common, &story, idem_path(store), logged);
    }
    idem_story_free(&story);
    idem_close(store);
    return cli_finish(status);
}
