/*
 * get.c - `idem get`: a key's stored answer, byte for byte.
 *
 * Invariants
 *  1. Only a kept answer gives exit status 0 and bytes on stdout; anything else is a message and another status, so that
 *     an empty body is never mistaken for an answer.
 *  2. Looking claims nothing.
 *
 * If we die here: nothing is changed by looking.
 */
#include <inttypes.h>
#include <string.h>

#include "look.h"

enum part { PART_BODY, PART_META, PART_STATUS, PART_STDERR };

static int print_bytes(const void *bytes, size_t n)
{
    if (n > 0)
        (void)fwrite(bytes, 1, n, stdout);
    return cli_finish(CLI_EXIT_OK);
}

static int print_json(const struct cli_common *common, const idem_reply *reply, const struct cli_frame *frame)
{
    bool kept = (reply->flags & IDEM_REPLY_NOT_RETAINED) == 0;
    struct json_object *object = cli_json_new();
    cli_json_key(object, &common->key);
    cli_json_number(object, "status", reply->status);
    cli_json_count(object, "response_flags", reply->response_flags);
    cli_json_bool(object, "retained", kept);
    cli_json_count(object, "attempt", reply->attempt);
    cli_json_token(object, "token", reply->token);
    cli_json_ms(object, "age_ms", reply->age_ms);
    cli_json_ms(object, "expires_in_ms", reply->expires_in_ms);
    cli_json_count(object, "meta_bytes", reply->meta_bytes);
    cli_json_count(object, "body_bytes", reply->body_bytes);
    if (!kept && reply->digest == 0) {
        cli_json_text(object, "digest", NULL); /* not known */
    } else if (!kept) {
        cli_json_fingerprint(object, "digest", reply->digest);
    } else if (frame != NULL) {
        cli_json_bytes(object, "stdout", reply->body, (size_t)frame->stdout_bytes);
        cli_json_bytes(object, "stderr", (const char *)reply->body + frame->stdout_bytes, (size_t)frame->stderr_bytes);
    } else {
        cli_json_bytes(object, "meta", reply->meta, reply->meta_bytes);
        cli_json_bytes(object, "body", reply->body, reply->body_bytes);
    }
    cli_json_print(object);
    return cli_finish(CLI_EXIT_OK);
}

static int print_answer(const struct cli_common *common, const idem_reply *reply, enum part part)
{
    struct cli_frame frame;
    bool kept = (reply->flags & IDEM_REPLY_NOT_RETAINED) == 0;
    bool framed = kept && cli_frame_decode(reply->meta, reply->meta_bytes, reply->body_bytes, &frame);
    if (common->json)
        return print_json(common, reply, framed ? &frame : NULL);
    if (part == PART_STATUS) {
        printf("%" PRId32 "\n", reply->status);
        return cli_finish(CLI_EXIT_OK);
    }
    if (!kept) {
        cli_warn("get: it completed with status %" PRId32
                 ", but its answer (%zu bytes of body, %zu of metadata) was too large "
                 "or had no room, and was not kept",
                 reply->status, reply->body_bytes, reply->meta_bytes);
        return CLI_EXIT_NO;
    }
    if (part == PART_META)
        return print_bytes(reply->meta, reply->meta_bytes);
    if (part == PART_STDERR && !framed) {
        cli_warn("get: this answer was not stored by \"idem run\": it has no stderr");
        return CLI_EXIT_NO;
    }
    if (part == PART_STDERR)
        return print_bytes((const char *)reply->body + frame.stdout_bytes, (size_t)frame.stderr_bytes);
    return print_bytes(reply->body, framed ? (size_t)frame.stdout_bytes : reply->body_bytes);
}

int idem_cmd_get(int argc, char **argv)
{
    struct cli_common common;
    bool meta = false, only_status = false, only_stderr = false;
    const struct cli_option options[] = {
        {"meta", CLI_FLAG, &meta, NULL, "print the metadata instead of the body"},
        {"status", CLI_FLAG, &only_status, NULL, "print the status, a number, instead of the body"},
        {"stderr", CLI_FLAG, &only_stderr, NULL,
         "of an answer that \"idem run\" stored: print what CMD wrote to stderr"},
        {0},
    };
    const struct cli_syntax syntax = {
        "get",
        "--key KEY [OPTIONS]",
        "Prints the stored answer of a key: its body, byte for byte. Of an answer that\n"
        "\"idem run\" stored: what CMD wrote to stdout. Claims nothing.",
        options,
        "exit status\n"
        "    0  the answer is on stdout (with --status and --json also if only the\n"
        "       outcome was kept, without the body)\n"
        "    1  there is no answer: no such key, or its body was not kept\n"
        "  121  an attempt is in progress\n"
        "  122  the last attempt was lost: see \"idem why\"\n"
        "  124  trouble with the store    125  wrong command line",
        CLI_TAKES_STORE | CLI_TAKES_KEY | CLI_TAKES_JSON,
    };
    cli_parse(&syntax, &common, argc, argv);
    if (meta + only_status + only_stderr + common.json > 1)
        return cli_usage_error("--meta, --status, --stderr and --json exclude each other");

    idem_store *store;
    int status = cli_open(&common, false, &store);
    if (status != CLI_EXIT_OK)
        return status;
    idem_reply reply = IDEM_REPLY_INIT;
    int verdict = idem_lookup(store, &common.key, &reply);
    char text[CLI_TEXT_BYTES];
    switch (verdict) {
    case IDEM_REPLAY:
        status = print_answer(&common, &reply,
                              meta          ? PART_META
                              : only_status ? PART_STATUS
                              : only_stderr ? PART_STDERR
                                            : PART_BODY);
        break;
    case IDEM_IN_PROGRESS:
        cli_warn("get: attempt %" PRIu32 " is in progress; its lease has %s left", reply.attempt,
                 cli_duration_text(reply.retry_after_ms, text));
        status = CLI_EXIT_IN_PROGRESS;
        break;
    case IDEM_UNKNOWN:
        cli_warn("get: there is no answer, an attempt was lost: %s. See \"idem why\"",
                 cli_lost_reason_text(reply.lost_reason));
        status = CLI_EXIT_HELD;
        break;
    default:
        status = cli_fail_key("get", &common, verdict);
        break;
    }
    idem_reply_free(&reply);
    idem_close(store);
    return status;
}
