/*
 * main.c - the table of subcommands and the way from argv to one of them.
 *
 * Before anything else descriptors 0 to 2 are made sure to be open: a store file that landed on descriptor 1 would be
 * written over by the first printf. A closed one is opened the wrong way round (stdin for writing), so that using it
 * still fails, as it would have.
 *
 * If we die here: nothing has been opened yet.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

const struct cli_command cli_commands[] = {
    {"run", idem_cmd_run, "run a command once for a key; later callers get its output"},
    {"claim", idem_cmd_claim, "ask for a key in a script: is it mine, or what was the answer?"},
    {"complete", idem_cmd_complete, "store the answer (from stdin) of a claimed key"},
    {"abandon", idem_cmd_abandon, "give a claimed key back: nothing happened, or outcome unknown"},
    {"renew", idem_cmd_renew, "make a claim's lease start anew"},
    {"mark", idem_cmd_mark, "leave a note for whoever takes over"},
    {"dedup", idem_cmd_dedup, "a filter: each line's key once, over all processes"},
    {"ls", idem_cmd_ls, "list keys and their states"},
    {"get", idem_cmd_get, "print a key's stored answer"},
    {"why", idem_cmd_why, "tell a key's story: who, when, how often, what next"},
    {"resolve", idem_cmd_resolve, "settle a lost attempt: it happened, or it may run again"},
    {"release", idem_cmd_release, "end a running attempt's lease now"},
    {"forget", idem_cmd_forget, "drop a key's record: its effect may run again"},
    {"stat", idem_cmd_stat, "counters and memory, for people or for Prometheus"},
    {"top", idem_cmd_top, "live screen: rates, hit ratio, fill, oldest lease"},
    {"verify", idem_cmd_verify, "check every invariant of a store's bytes"},
    {"recover", idem_cmd_recover, "build a store from its write-ahead file"},
    {"wal", idem_cmd_wal, "look at a write-ahead file: ls, dump, verify, stat"},
    {"create", idem_cmd_create, "make a store and say how much space it takes"},
    {"destroy", idem_cmd_destroy, "remove a store and all it remembers"},
    {"version", idem_cmd_version, "print the version"},
    {"help", idem_cmd_help, "this overview, or: idem help COMMAND"},
    {NULL, NULL, NULL},
};

static const struct cli_command *find_command(const char *name)
{
    for (const struct cli_command *command = cli_commands; command->name != NULL; command++) {
        if (strcmp(command->name, name) == 0)
            return command;
    }
    return NULL;
}

static void open_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            continue;
        /* The lowest free descriptor is this one, as those below it are open. */
        if (open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
            _exit(CLI_EXIT_TROUBLE);
    }
}

int main(int argc, char **argv)
{
    open_standard_descriptors();
    if (argc < 2)
        return cli_usage_error("which subcommand? \"idem help\" lists them");
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    else if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
        name = "version";

    const struct cli_command *command = find_command(name);
    if (command == NULL)
        return cli_usage_error("there is no subcommand \"%s\"; \"idem help\" lists them", name);
    return command->run(argc - 1, argv + 1);
}
