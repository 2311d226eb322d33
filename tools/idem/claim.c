/*
 * claim.c - claim, complete, abandon, renew, mark: one key in a script whose steps are separate processes.
 *
 * The claim is lease-only: it outlives the process that asked for it, and nothing but its lease, complete or abandon
 * ends it. The token is all that the script carries from step to step; each step finds the claim again by key and
 * token, so a step that comes late is fenced (exit status 123) and changes nothing.
 *
 * Invariants
 *  1. What claim prints is safe for eval whatever the bytes are, and sets every variable on every verdict, so that none
 *     survives from an earlier eval.
 *  2. Repeating complete with the token that completed is success.
 *
 * If we die here: before the library call nothing happened, after it all of it did; the lease bounds a claim whose
 * script never got to read its token.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

/* ------------------------------------------------------------------ claim */

/* Everything there is to say about a verdict. Pointers are the reply's or static. */
struct told {
    int verdict;
    uint64_t token;
    uint32_t attempt;
    const char *stdout_bytes;
    size_t stdout_n;
    const char *stderr_bytes;
    size_t stderr_n;
    const idem_reply *reply;
};

static bool is_answer(const struct told *told)
{
    return told->verdict == IDEM_REPLAY;
}

static void print_shell(const struct told *told)
{
    const idem_reply *reply = told->reply;
    bool retained = (reply->flags & IDEM_REPLY_NOT_RETAINED) == 0;
    char number[24];

    cli_print_shell_text(stdout, "IDEM_VERDICT", cli_verdict_word(told->verdict));
    (void)snprintf(number, sizeof(number), "%" PRIu64, told->token);
    cli_print_shell_text(stdout, "IDEM_TOKEN", told->token != 0 ? number : "");
    (void)snprintf(number, sizeof(number), "%" PRIu32, told->attempt);
    cli_print_shell_text(stdout, "IDEM_ATTEMPT", number);
    cli_print_shell_bytes(stdout, "IDEM_MARK", reply->mark, reply->mark_bytes);
    (void)snprintf(number, sizeof(number), "%" PRIu64, reply->lost_token);
    cli_print_shell_text(stdout, "IDEM_LOST_TOKEN", reply->lost_token != 0 ? number : "");
    cli_print_shell_text(stdout, "IDEM_LOST_REASON",
                         reply->lost_reason != IDEM_LOST_NONE ? cli_lost_reason_word(reply->lost_reason) : "");
    (void)snprintf(number, sizeof(number), "%" PRId32, reply->status);
    cli_print_shell_text(stdout, "IDEM_STATUS", is_answer(told) ? number : "");
    cli_print_shell_text(stdout, "IDEM_RETAINED", !is_answer(told) ? "" : retained ? "yes" : "no");
    cli_print_shell_bytes(stdout, "IDEM_BODY", told->stdout_bytes, told->stdout_n);
    cli_print_shell_bytes(stdout, "IDEM_STDERR", told->stderr_bytes, told->stderr_n);
    (void)snprintf(number, sizeof(number), "%" PRId64, reply->retry_after_ms);
    cli_print_shell_text(stdout, "IDEM_RETRY_AFTER_MS", told->verdict == IDEM_IN_PROGRESS ? number : "");
}

static void print_json(const struct cli_common *common, const struct told *told)
{
    const idem_reply *reply = told->reply;
    struct json_object *json = cli_json_new();
    cli_json_text(json, "verdict", cli_verdict_word(told->verdict));
    cli_json_key(json, &common->key);
    cli_json_token(json, "token", told->token);
    cli_json_number(json, "attempt", told->attempt);
    if (reply->mark_bytes > 0)
        cli_json_bytes(json, "mark", reply->mark, reply->mark_bytes);
    if (reply->lost_token != 0) {
        cli_json_token(json, "lost_token", reply->lost_token);
        cli_json_text(json, "lost_reason", cli_lost_reason_word(reply->lost_reason));
    }
    if (is_answer(told)) {
        bool retained = (reply->flags & IDEM_REPLY_NOT_RETAINED) == 0;
        cli_json_number(json, "status", reply->status);
        cli_json_bool(json, "retained", retained);
        cli_json_bool(json, "transient", (reply->flags & IDEM_REPLY_TRANSIENT) != 0);
        cli_json_number(json, "age_ms", reply->age_ms);
        cli_json_ms(json, "expires_in_ms", reply->expires_in_ms);
        if (retained)
            cli_json_bytes(json, "body", told->stdout_bytes, told->stdout_n);
        if (told->stderr_n > 0)
            cli_json_bytes(json, "stderr", told->stderr_bytes, told->stderr_n);
    }
    if (told->verdict == IDEM_IN_PROGRESS)
        cli_json_number(json, "retry_after_ms", reply->retry_after_ms);
    cli_json_print(json);
}

static int tell(const struct cli_common *common, int verdict, const idem_claim *claim, const idem_reply *reply)
{
    struct told told = {verdict, reply->token, reply->attempt, NULL, 0, NULL, 0, reply};
    int status = CLI_EXIT_TROUBLE;

    switch (verdict) {
    case IDEM_CLAIMED:
    case IDEM_RECLAIMED:
        told.token = claim->token;
        told.attempt = claim->attempt;
        status = verdict == IDEM_CLAIMED ? CLI_EXIT_OK : CLI_EXIT_RECLAIMED;
        break;
    case IDEM_REPLAY:
        if ((reply->flags & IDEM_REPLY_NOT_RETAINED) == 0) {
            struct cli_frame frame;
            told.stdout_bytes = reply->body;
            told.stdout_n = reply->body_bytes;
            if (cli_frame_decode(reply->meta, reply->meta_bytes, reply->body_bytes, &frame)) {
                told.stdout_n = frame.stdout_bytes;
                told.stderr_n = frame.stderr_bytes;
                told.stderr_bytes = told.stderr_n > 0 ? told.stdout_bytes + frame.stdout_bytes : NULL;
            }
        }
        status = CLI_EXIT_REPLAY;
        break;
    case IDEM_IN_PROGRESS:
        status = CLI_EXIT_IN_PROGRESS;
        break;
    case IDEM_MISMATCH:
        status = CLI_EXIT_MISMATCH;
        break;
    case IDEM_UNKNOWN:
        status = CLI_EXIT_HELD;
        break;
    default:
        break;
    }
    if (common->json)
        print_json(common, &told);
    else
        print_shell(&told);
    return status;
}

int idem_cmd_claim(int argc, char **argv)
{
    idem_request request = IDEM_REQUEST_INIT;
    idem_claim claim = IDEM_CLAIM_INIT;
    idem_reply reply = IDEM_REPLY_INIT;
    const char *fingerprint = NULL;
    bool hold = false;
    int64_t wait_ms = 0;
    const struct cli_option own[] = {
        {"ttl", CLI_DURATION, &request.ttl_ms, "D", "how long the answer is replayed (36h, 7d, forever)"},
        {"lease", CLI_DURATION, &request.lease_ms, "D", "how long the key is yours without \"idem renew\"; up to 7d"},
        {"wait", CLI_PERIOD, &wait_ms, "D", "wait so long while another attempt runs; default: don't wait"},
        {"fingerprint", CLI_TEXT, &fingerprint, "TEXT",
         "what the key stands for; the same key with another one is a mismatch"},
        {"hold", CLI_FLAG, &hold, NULL, "if an attempt is lost, nobody claims the key before \"idem resolve\""},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_syntax syntax = {
        "claim",
        "--key KEY [OPTIONS]",
        "Asks for a key. The claim outlives this process: it is yours until its lease\n"
        "ends, or \"idem complete\" or \"idem abandon\" with its token. The store is made on\n"
        "first use, but not with --wal.\n"
        "\n"
        "Prints lines for eval, all of them on every verdict: IDEM_VERDICT, IDEM_TOKEN,\n"
        "IDEM_ATTEMPT, IDEM_MARK (what an earlier attempt left), IDEM_LOST_TOKEN,\n"
        "IDEM_LOST_REASON, IDEM_STATUS, IDEM_BODY, IDEM_STDERR (answers of \"idem run\"),\n"
        "IDEM_RETAINED, IDEM_RETRY_AFTER_MS. Bytes that no shell variable can hold come\n"
        "in quoted form in IDEM_MARK_QUOTED, IDEM_BODY_QUOTED, IDEM_STDERR_QUOTED\n"
        "instead.",
        own,
        "exit status: the verdict\n"
        "    0  claimed: it is yours, do the work\n"
        "   10  reclaimed: it is yours, but an earlier attempt was lost and may have had\n"
        "       its effect: look first\n"
        "   11  replay: it was done, the answer is printed\n"
        "  120  mismatch: the key was used with another fingerprint\n"
        "  121  in progress: another attempt runs; IDEM_RETRY_AFTER_MS\n"
        "  122  unknown: an attempt was lost and the key is held; \"idem resolve\"\n"
        "  124  the store can't be used    125  wrong command line\n"
        "\n"
        "example, works under set -e (without the ||, the assignment would end it)\n"
        "  set -eu\n"
        "  verdict=0\n"
        "  vars=$(idem claim --key \"order-$id\" --lease 10m) || verdict=$?\n"
        "  eval \"$vars\"\n"
        "  case $verdict in\n"
        "  0 | 10) [ \"$verdict\" = 0 ] || look_whether_it_happened \"$IDEM_MARK\"\n"
        "          idem mark --key \"order-$id\" --token \"$IDEM_TOKEN\" \"charging\"\n"
        "          answer=$(./charge \"$id\")\n"
        "          printf %s \"$answer\" |\n"
        "            idem complete --key \"order-$id\" --token \"$IDEM_TOKEN\" ;;\n"
        "  11)     printf '%s\\n' \"$IDEM_BODY\" ;;\n"
        "  *)      exit \"$verdict\" ;;\n"
        "  esac",
        CLI_TAKES_STORE | CLI_TAKES_WAL | CLI_TAKES_KEY | CLI_TAKES_JSON,
    };
    struct cli_common common;
    (void)cli_parse(&syntax, &common, argc, argv);
    if (request.lease_ms > IDEM_LEASE_MAX_MS)
        return cli_usage_error("--lease is over the limit of 7 days");

    idem_store *store = NULL;
    int status = cli_open(&common, true, &store);
    if (status != CLI_EXIT_OK)
        return status;
    request.key = common.key;
    request.flags = IDEM_LEASE_ONLY | (hold ? IDEM_HOLD : 0u);
    if (fingerprint != NULL)
        request.fingerprint = idem_fingerprint(store, fingerprint, strlen(fingerprint));
    int verdict = idem_wait(store, &request, wait_ms, &claim, &reply);
    if (verdict == IDEM_E_TIMEOUT)
        verdict = IDEM_IN_PROGRESS;
    if (verdict < 0)
        status = cli_fail_key("cannot claim", &common, verdict);
    else
        status = tell(&common, verdict, &claim, &reply);
    if (fflush(stdout) != 0 && (verdict == IDEM_CLAIMED || verdict == IDEM_RECLAIMED)) {
        /* Nobody has read the token, so nobody can end this claim: give it back as it was found. */
        cli_warn("cannot write stdout: %s; the claim is given back", strerror(errno));
        (void)idem_abandon(store, &claim, IDEM_NOTHING_HAPPENED);
        status = CLI_EXIT_TROUBLE;
    } else {
        status = cli_finish(status);
    }
    idem_reply_free(&reply);
    idem_close(store);
    return status;
}

/* ------------------------------------------------------------------ the steps after it */

static const char token_help[] = "the claim's token, as \"idem claim\" printed it; required";

static const char steps_exit[] = "exit status\n"
                                 "    0  done\n"
                                 "    1  there is no record of this key\n"
                                 "  123  fenced: the attempt with this token does not run; nothing was changed\n"
                                 "  124  the store can't be used    125  wrong command line";

/* Opens the store and finds the claim. On CLI_EXIT_OK *store is open. */
static int find_claim(const struct cli_common *common, uint64_t token, idem_store **store, idem_claim *claim)
{
    int status = cli_open(common, false, store);
    if (status != CLI_EXIT_OK)
        return status;
    int result = idem_find(*store, &common->key, token, claim);
    if (result >= 0)
        return CLI_EXIT_OK;
    status = cli_fail_key("cannot find the claim", common, result);
    idem_close(*store);
    *store = NULL;
    return status;
}

static int finish_step(const char *what, const struct cli_common *common, idem_store *store, int result)
{
    int status = result < 0 ? cli_fail_key(what, common, result) : CLI_EXIT_OK;
    idem_close(store);
    return status;
}

/* A script may repeat its last step: true if the key was completed by this very token. */
static bool is_completed_by(idem_store *store, const idem_key *key, uint64_t token)
{
    idem_reply reply = IDEM_REPLY_INIT;
    bool same = idem_lookup(store, key, &reply) == IDEM_REPLAY && reply.token == token;
    idem_reply_free(&reply);
    return same;
}

int idem_cmd_complete(int argc, char **argv)
{
    uint64_t token = 0;
    int64_t status_number = 0;
    bool transient = false;
    idem_response response = IDEM_RESPONSE_INIT;
    const struct cli_option own[] = {
        {"token", CLI_TOKEN, &token, "T", token_help},
        {"status", CLI_NUMBER, &status_number, "N", "stored with the answer; default 0"},
        {"ttl", CLI_DURATION, &response.ttl_ms, "D", "how long the answer is replayed; default: as claimed"},
        {"transient", CLI_FLAG, &transient, NULL, "for those who wait now only; the key may be claimed again at once"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_syntax syntax = {
        "complete",
        "--key KEY --token T [OPTIONS] < BODY",
        "Stores the answer, read from stdin, and wakes everyone who waits for it.\n"
        "Repeating it with the same token is allowed and changes nothing. A body too\n"
        "large to keep is recorded by its status alone, and a line says so.",
        own,
        steps_exit,
        CLI_TAKES_STORE | CLI_TAKES_KEY,
    };
    struct cli_common common;
    (void)cli_parse(&syntax, &common, argc, argv);
    if (token == 0)
        return cli_usage_error("--token T is required");
    if (status_number > INT32_MAX)
        return cli_usage_error("--status is over the limit of %" PRId32, INT32_MAX);

    idem_store *store = NULL;
    int status = cli_open(&common, false, &store);
    if (status != CLI_EXIT_OK)
        return status;
    idem_stats_data stats;
    memset(&stats, 0, sizeof(stats));
    stats.size = sizeof(stats);
    void *body = NULL;
    size_t body_bytes = 0;
    bool over = false;
    idem_claim claim = IDEM_CLAIM_INIT;

    int result = idem_stats(store, &stats);
    if (result < 0)
        return finish_step("cannot complete", &common, store, result);
    /* One byte more than any region holds makes a too large body certainly a tombstone, in bounded memory. */
    if (!cli_read_all(STDIN_FILENO, stats.region_bytes + 1, &body, &body_bytes, &over)) {
        cli_warn("cannot read the answer from stdin: %s; nothing was completed", strerror(errno));
        idem_close(store);
        return CLI_EXIT_TROUBLE;
    }
    result = idem_find(store, &common.key, token, &claim);
    if (result == IDEM_E_LOST && is_completed_by(store, &common.key, token)) {
        free(body);
        return finish_step("cannot complete", &common, store, IDEM_OK);
    }
    if (result >= 0) {
        response.status = (int32_t)status_number;
        response.flags = transient ? IDEM_RESPONSE_TRANSIENT : 0;
        response.body = body;
        response.body_bytes = body_bytes;
        result = idem_complete(store, &claim, &response);
    }
    free(body);
    if (result == IDEM_TOMBSTONE)
        cli_warn(
            "recorded, but the answer (%s%zu bytes) was too large to be retained: later callers get the status alone",
            over ? "over " : "", body_bytes);
    return finish_step("cannot complete", &common, store, result);
}

int idem_cmd_abandon(int argc, char **argv)
{
    uint64_t token = 0;
    bool unknown = false;
    const struct cli_option own[] = {
        {"token", CLI_TOKEN, &token, "T", token_help},
        {"outcome-unknown", CLI_FLAG, &unknown, NULL, "the effect may have happened: the next claim is told (or held)"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_syntax syntax = {
        "abandon",
        "--key KEY --token T [--outcome-unknown]",
        "Gives a claimed key back. Without an option it says that nothing happened: the\n"
        "next claim starts clean, with this attempt counted and its mark passed on.",
        own,
        steps_exit,
        CLI_TAKES_STORE | CLI_TAKES_KEY,
    };
    struct cli_common common;
    (void)cli_parse(&syntax, &common, argc, argv);
    if (token == 0)
        return cli_usage_error("--token T is required");
    idem_store *store = NULL;
    idem_claim claim = IDEM_CLAIM_INIT;
    int status = find_claim(&common, token, &store, &claim);
    if (status != CLI_EXIT_OK)
        return status;
    int result = idem_abandon(store, &claim, unknown ? IDEM_OUTCOME_UNKNOWN : IDEM_NOTHING_HAPPENED);
    return finish_step("cannot abandon", &common, store, result);
}

int idem_cmd_renew(int argc, char **argv)
{
    uint64_t token = 0;
    int64_t lease_ms = 0;
    const struct cli_option own[] = {
        {"token", CLI_TOKEN, &token, "T", token_help},
        {"lease", CLI_DURATION, &lease_ms, "D", "from now on; default: as claimed; up to 7d"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_syntax syntax = {
        "renew",
        "--key KEY --token T [--lease D]",
        "Makes the claim's lease start anew. Call it at a third of the lease. Status 123\n"
        "means: stop working, somebody else may have begun.",
        own,
        steps_exit,
        CLI_TAKES_STORE | CLI_TAKES_KEY,
    };
    struct cli_common common;
    (void)cli_parse(&syntax, &common, argc, argv);
    if (token == 0)
        return cli_usage_error("--token T is required");
    if (lease_ms > IDEM_LEASE_MAX_MS)
        return cli_usage_error("--lease is over the limit of 7 days");
    idem_store *store = NULL;
    idem_claim claim = IDEM_CLAIM_INIT;
    int status = find_claim(&common, token, &store, &claim);
    if (status != CLI_EXIT_OK)
        return status;
    return finish_step("cannot renew", &common, store, idem_renew(store, &claim, lease_ms));
}

int idem_cmd_mark(int argc, char **argv)
{
    uint64_t token = 0;
    const struct cli_option own[] = {{"token", CLI_TOKEN, &token, "T", token_help}, {NULL, CLI_FLAG, NULL, NULL, NULL}};
    const struct cli_syntax syntax = {
        "mark",
        "--key KEY --token T [TEXT]",
        "Leaves a note of up to 256 bytes, TEXT or else stdin, in place of the one\n"
        "before. Whoever takes the key over gets it: write down what you are about to do\n"
        "before each side effect, and what came of it after. Works inside a CMD of \"idem\n"
        "run\" too, with --token \"$IDEM_TOKEN\".",
        own,
        steps_exit,
        CLI_TAKES_STORE | CLI_TAKES_KEY | CLI_TAKES_OPERANDS,
    };
    struct cli_common common;
    int first = cli_parse(&syntax, &common, argc, argv);
    if (token == 0)
        return cli_usage_error("--token T is required");
    if (argc - first > 1)
        return cli_usage_error("unexpected argument \"%s\": quote a TEXT of several words", argv[first + 1]);

    void *from_stdin = NULL;
    const void *mark = argv[first];
    size_t n = 0;
    bool over = false;
    if (first < argc) {
        n = strlen(argv[first]);
    } else if (cli_read_all(STDIN_FILENO, IDEM_MARK_MAX, &from_stdin, &n, &over)) {
        mark = from_stdin;
    } else {
        cli_warn("cannot read the mark from stdin: %s", strerror(errno));
        return CLI_EXIT_TROUBLE;
    }
    int status;
    idem_store *store = NULL;
    idem_claim claim = IDEM_CLAIM_INIT;
    if (over || n > IDEM_MARK_MAX)
        status = cli_usage_error("the mark is over the limit of %u bytes", IDEM_MARK_MAX);
    else
        status = find_claim(&common, token, &store, &claim);
    if (status == CLI_EXIT_OK)
        status = finish_step("cannot mark", &common, store, idem_mark(store, &claim, mark, n));
    free(from_stdin);
    return status;
}
