/*
 * verify.c - `idem verify`: checks every invariant of a store's bytes, and prints each that does not hold.
 *
 * Invariants
 *  1. Nothing is changed; it may run under traffic.
 *  2. Exit status 0 only if the library found no problem; problems are lines on stdout, in full.
 *
 * If we die here: nothing is changed by looking.
 */
#include <inttypes.h>

#include "look.h"

struct findings {
    struct json_object *list; /* NULL: print lines */
};

static void print_problem(void *ctx, const char *sentence)
{
    struct findings *findings = ctx;
    if (findings->list == NULL) {
        printf("%s\n", sentence);
        return;
    }
    struct json_object *text = json_object_new_string(sentence);
    if (text == NULL || json_object_array_add(findings->list, text) != 0)
        cli_warn("out of memory; a problem is missing from the list: %s", sentence);
}

int idem_cmd_verify(int argc, char **argv)
{
    struct cli_common common;
    struct findings findings = {NULL};
    idem_report report = IDEM_REPORT_INIT;
    const struct cli_syntax syntax = {
        "verify",
        "[--json]",
        "Checks every invariant of a store's bytes and prints each that does not hold:\n"
        "which file, which bytes, what is wrong. Changes nothing, and may run while the\n"
        "store is used.",
        NULL,
        "exit status\n"
        "    0  every invariant holds\n"
        "    1  damage; it is on stdout\n"
        "  124  the store can't be read    125  wrong command line\n"
        "after damage\n"
        "  Replace the store: \"idem destroy\", then whatever creates it. What it\n"
        "  remembers is gone then.",
        CLI_TAKES_STORE | CLI_TAKES_JSON,
    };
    cli_parse(&syntax, &common, argc, argv);

    report.problem = print_problem;
    report.ctx = &findings;
    if (common.json) {
        findings.list = json_object_new_array();
        if (findings.list == NULL) {
            cli_warn("out of memory");
            return CLI_EXIT_TROUBLE;
        }
    }
    int result = idem_verify(common.store, &report);
    if (result < 0 && result != IDEM_E_CORRUPT) {
        json_object_put(findings.list);
        return cli_fail("the store can't be verified", result);
    }
    if (result == IDEM_E_CORRUPT && report.problems == 0) {
        /* So damaged that it can't even be opened. */
        report.problems = 1;
        print_problem(&findings, idem_error_detail());
    }
    if (common.json) {
        struct json_object *object = cli_json_new();
        cli_json_bool(object, "ok", report.problems == 0);
        cli_json_count(object, "problems", report.problems);
        cli_json_count(object, "checked_slots", report.checked_slots);
        cli_json_count(object, "keys", report.keys);
        if (json_object_object_add(object, "sentences", findings.list) != 0)
            json_object_put(findings.list);
        cli_json_print(object);
    } else {
        printf("%s: %" PRIu64 " slots checked, %" PRIu64 " keys, %" PRIu64 " problem%s\n",
               report.problems == 0 ? "ok" : "DAMAGED", report.checked_slots, report.keys, report.problems,
               report.problems == 1 ? "" : "s");
    }
    return cli_finish(report.problems == 0 ? CLI_EXIT_OK : CLI_EXIT_NO);
}
