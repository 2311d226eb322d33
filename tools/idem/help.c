/*
 * help.c - `idem help` and `idem version`: the overview, the table "which one do I want?", the pages of the
 * subcommands.
 *
 * If we die here: nothing was opened.
 */
#include <string.h>

#include "cli.h"

static const char which_one[] = "which one do I want?           may the effect run again?\n"
                                "  abandon                      yes: the owner says that nothing happened, the\n"
                                "                               next claim starts clean\n"
                                "  abandon --outcome-unknown    yes, but the next claim is told to look first (no\n"
                                "                               while held): the owner stopped in the middle\n"
                                "  release                      the same: an operator ends a running attempt's\n"
                                "                               lease, its owner is fenced\n"
                                "  resolve --rerun              yes: an operator says that a lost attempt had no\n"
                                "                               effect, the next claim starts clean\n"
                                "  resolve --completed          no: an operator says that it had, callers get the\n"
                                "                               answer stored here\n"
                                "  forget                       yes, as if it had never run: drops one key's\n"
                                "                               record and fences a running owner\n"
                                "  destroy                      yes, all of them: drops the whole store\n";

static const char words[] = "stores     --store NAME is /run/idem/NAME where that is a tmpfs, otherwise\n"
                            "           /dev/shm/idem-UID/NAME; --store DIR has a slash in it. Default:\n"
                            "           default. run, claim and dedup make a store for 10000 keys on first\n"
                            "           use. A reboot empties all stores.\n"
                            "keys       any bytes, up to 1024 with the scope. They are printed in quoted form\n"
                            "           (\\xNN, \\n, \\t, \\r, \\\\; - is empty), which --quoted reads back.\n"
                            "durations  250ms, 30s, 5m, 36h, 7d, 2w, 1h30m, forever\n"
                            "sizes      512, 64K, 10M, 2G (powers of 1024)\n"
                            "\n"
                            "exit status, the same in every subcommand\n"
                            "    0  done, or yes\n"
                            "    1  no: no such key, damage found\n"
                            "   10  claim: reclaimed, an earlier attempt was lost, look first\n"
                            "   11  claim: replay, the answer is printed\n"
                            "  120  mismatch: the key was used with another fingerprint\n"
                            "  121  in progress: another attempt runs\n"
                            "  122  held: an attempt was lost, see resolve\n"
                            "  123  fenced: this attempt is not (or no longer) the running one\n"
                            "  124  the store or the system failed\n"
                            "  125  wrong command line\n"
                            "run ends with CMD's own exit status; --status-fd tells CMD's 120 to 125 from\n"
                            "these.\n";

static void print_overview(FILE *out)
{
    (void)fputs("usage: idem COMMAND [OPTIONS]\n\n"
                "Makes retried operations safe on one host: the first to claim a key does the\n"
                "work, everybody else gets its answer.\n\n"
                "  idem run --key order-42 -- ./charge 42\n\n"
                "run twice, prints the same twice and charges once.\n\n"
                "commands (\"idem help COMMAND\" or \"idem COMMAND --help\" teaches each)\n",
                out);
    for (const struct cli_command *command = cli_commands; command->name != NULL; command++)
        (void)fprintf(out, "  %-10s %s\n", command->name, command->summary);
    (void)fprintf(out, "\n%s\n%s", which_one, words);
}

int idem_cmd_help(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    if (name == NULL || strcmp(name, "help") == 0 || strcmp(name, "--help") == 0) {
        print_overview(stdout);
        return cli_finish(CLI_EXIT_OK);
    }
    for (const struct cli_command *command = cli_commands; command->name != NULL; command++) {
        if (strcmp(command->name, name) != 0)
            continue;
        char help[] = "--help";
        char *args[] = {argv[1], help, NULL};
        return command->run(2, args);
    }
    return cli_usage_error("there is no subcommand \"%s\"; \"idem help\" lists them", name);
}

int idem_cmd_version(int argc, char **argv)
{
    const struct cli_option own[] = {{NULL, CLI_FLAG, NULL, NULL, NULL}};
    const struct cli_syntax syntax = {"version", "[--json]", "Prints the version of this command and its library.",
                                      own,       NULL,       CLI_TAKES_JSON};
    struct cli_common common;
    (void)cli_parse(&syntax, &common, argc, argv);
    if (common.json) {
        struct json_object *json = cli_json_new();
        cli_json_text(json, "version", idem_version());
        cli_json_print(json);
    } else {
        printf("idem %s\n", idem_version());
    }
    return cli_finish(CLI_EXIT_OK);
}
