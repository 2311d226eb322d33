/*
 * options.c - see options.h.
 */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rounds.h"

enum { ROUNDS = 5, ROUNDS_QUICK = 3, SECONDS = 520, SECONDS_QUICK = 80, SECONDS_MAX = 86400 };

static const char help[] =
    "usage: tools/bench [--quick] [--row REGEX] [--list] [--rounds N] [--seconds N] [--out FOLDER] [--publish]\n"
    "\n"
    "Measures idem beside its floors and beside what one would pick instead of it, all in one run, round by round, "
    "and\n"
    "prints Markdown tables. Everything it makes lies in private directories and is removed at the end.\n"
    "\n"
    "  --quick        fewer keys and rounds: two minutes in all instead of ten\n"
    "  --row REGEX    only rows whose name matches, e.g. 'claim/batch:1/keys:1000000/workers:2' or 'lmdb'\n"
    "  --list         print the names of all rows, what each peer is given, what is missing, and exit\n"
    "  --rounds N     1 to 25, default 5 (3 with --quick); tables show medians, with least and most\n"
    "  --seconds N    for all rounds together; what doesn't fit is cut for all alike. Default: what building left of "
    "ten\n"
    "                 minutes (two with --quick)\n"
    "  --out FOLDER   write results.json, table.md and the plots there (default: build/bench/results)\n"
    "  --publish      write them to docs/performance, where the README shows them\n"
    "  --dir FOLDER   work below this folder on a tmpfs, default /dev/shm\n"
    "  --disk FOLDER  what is durable lies below this one; its file system is measured (default: the build's)\n"
    "  --no-install   use the peers that are installed; don't install any\n"
    "  --yes          install missing Debian packages without asking (also: CI set)\n"
    "  --smoke        a thousand keys, one round: does every peer do its jobs, and is one that doesn't found out?\n"
    "\n"
    "2 MiB pages need a tmpfs with huge=advise: as root one is mounted for this run alone, else use --dir.\n"
    "Exit status: 0 measured, 2 something could not be measured.\n";

static int read_number(const char *name, const char *text, unsigned max, unsigned *out)
{
    char *end = NULL;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value < 1 || value > max) {
        fprintf(stderr, "bench: --%s %s: give a number from 1 to %u\n", name, text, max);
        return -1;
    }
    *out = (unsigned)value;
    return 0;
}

int options_read(struct options *o, int argc, char **argv)
{
    static const struct option known[] = {
        {"quick", no_argument, NULL, 'q'},         {"smoke", no_argument, NULL, 's'},
        {"list", no_argument, NULL, 'l'},          {"planted", no_argument, NULL, 'p'},
        {"row", required_argument, NULL, 'r'},     {"rounds", required_argument, NULL, 'n'},
        {"seconds", required_argument, NULL, 't'}, {"out", required_argument, NULL, 'o'},
        {"dir", required_argument, NULL, 'd'},     {"disk", required_argument, NULL, 'k'},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0},
    };
    int option;
    memset(o, 0, sizeof *o);
    o->disk = ".";
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'q':
            o->quick = true;
            break;
        case 's':
            o->smoke = true;
            break;
        case 'l':
            o->list = true;
            break;
        case 'p':
            o->planted = true;
            break;
        case 'r':
            o->row = optarg;
            break;
        case 'n':
            if (read_number("rounds", optarg, ROUNDS_MAX, &o->rounds) != 0)
                return -1;
            break;
        case 't':
            if (read_number("seconds", optarg, SECONDS_MAX, &o->seconds) != 0)
                return -1;
            break;
        case 'o':
            o->out = optarg;
            break;
        case 'd':
            o->dir = optarg;
            break;
        case 'k':
            o->disk = optarg;
            break;
        case 'h':
            fputs(help, stdout);
            return 1;
        default:
            fputs("bench: see --help\n", stderr);
            return -1;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "bench: '%s' is not an option; see --help\n", argv[optind]);
        return -1;
    }
    if (o->rounds == 0)
        o->rounds = o->smoke ? 1 : o->quick ? ROUNDS_QUICK : ROUNDS;
    if (o->seconds == 0)
        o->seconds = o->quick || o->smoke ? SECONDS_QUICK : SECONDS;
    return 0;
}
