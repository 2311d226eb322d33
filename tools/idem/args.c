/*
 * args.c - reads a subcommand's options, prints its --help from the same table, opens its store, words its errors.
 *
 * Owns one static: the name of the running subcommand, for messages (one subcommand runs in one process).
 *
 * Invariants
 *  1. A value that does not parse is a usage error that names the option, the value and what is accepted.
 *  2. What was not given keeps the default that the subcommand put in *into.
 *  3. Every message is one write(2), so that messages of concurrent callers don't mix within a line.
 *
 * If we die here: nothing has been claimed; a store being created is left to the library's own rules.
 */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

#define OPTIONS_MAX    32    /* of one subcommand, shared ones included; asserted when the table is built */
#define FIRST_USE_KEYS 10000 /* of a store that a command creates on first use */
#define HELP_COLUMN    24    /* where --help's descriptions begin */
#define HELP_WIDTH     79    /* and where they are wrapped */
#define OPTION_BASE    256   /* what getopt_long() returns for option 0: above every character */

static const char *running; /* the subcommand's name; NULL before one is known */

void cli_warn(const char *format, ...)
{
    char line[8192]; /* a key of 1 KiB is up to 4 KiB in quoted form */
    size_t used = (size_t)snprintf(line, sizeof(line), "idem: ");
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line + used, sizeof(line) - used - 1, format, args);
    va_end(args);
    if (n < 0)
        n = 0;
    used += (size_t)n;
    if (used > sizeof(line) - 2)
        used = sizeof(line) - 2; /* a longer message is cut; the newline always fits */
    for (size_t i = 0; i < used; i++) {
        if ((line[i] >= 0 && line[i] < ' ' && line[i] != '\n') || line[i] == 0x7f)
            line[i] = '?'; /* words from the command line must not drive a terminal */
    }
    line[used++] = '\n';
    (void)cli_write_all(STDERR_FILENO, line, used); /* nowhere to report that stderr is gone */
}

int cli_usage_error(const char *format, ...)
{
    char what[1024];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    if (running != NULL)
        cli_warn("%s: %s\nTry \"idem %s --help\".", running, what, running);
    else
        cli_warn("%s", what);
    return CLI_EXIT_USAGE;
}

static int exit_of(int error)
{
    switch (error) {
    case IDEM_E_NO_KEY:
        return CLI_EXIT_NO;
    case IDEM_E_LOST:
        return CLI_EXIT_LOST;
    case IDEM_E_TIMEOUT:
        return CLI_EXIT_IN_PROGRESS;
    case IDEM_E_INVALID:
        return CLI_EXIT_USAGE;
    default:
        return CLI_EXIT_TROUBLE;
    }
}

int cli_fail(const char *what, int error)
{
    const char *detail = idem_error_detail();
    const char *sentence = idem_strerror(error);
    if (detail[0] != '\0' && strcmp(detail, sentence) != 0)
        cli_warn("%s: %s (%s)", what, sentence, detail);
    else
        cli_warn("%s: %s", what, sentence);
    return exit_of(error);
}

int cli_fail_key(const char *what, const struct cli_common *common, int error)
{
    char *key = cli_quote_key(&common->key);
    char where[4 * IDEM_KEY_MAX + 256];
    (void)snprintf(where, sizeof(where), "%s: key %s", what, key);
    free(key);
    return cli_fail(where, error);
}

int cli_finish(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    cli_warn("cannot write stdout: %s", strerror(errno));
    return CLI_EXIT_TROUBLE;
}

void *cli_alloc(size_t bytes)
{
    void *memory = malloc(bytes > 0 ? bytes : 1);
    if (memory == NULL) {
        cli_warn("out of memory (%zu bytes)", bytes);
        exit(CLI_EXIT_TROUBLE);
    }
    return memory;
}

/* ------------------------------------------------------------------ the options that many subcommands share */

static size_t add_shared(const struct cli_syntax *syntax, struct cli_common *common, const char **scope,
                         const char **key, struct cli_option *into)
{
    size_t n = 0;
    if ((syntax->takes & CLI_TAKES_STORE) != 0)
        into[n++] = (struct cli_option){"store", CLI_TEXT, &common->store, "NAME|DIR", "which store; default: default"};
    if ((syntax->takes & CLI_TAKES_WAL) != 0)
        into[n++] =
            (struct cli_option){"wal", CLI_TEXT, &common->wal, "DIR",
                                "the store's log (create --wal): a store that is gone, after a reboot, is brought "
                                "back from it first; without this a new, empty one is made then"};
    if ((syntax->takes & CLI_TAKES_KEY) != 0) {
        into[n++] = (struct cli_option){"key", CLI_TEXT, key, "KEY", "the idempotency key; required"};
        into[n++] = (struct cli_option){"scope", CLI_TEXT, scope, "SCOPE",
                                        "the key's name space (tenant, route); default: none"};
        into[n++] = (struct cli_option){"quoted", CLI_FLAG, &common->quoted, NULL,
                                        "KEY and SCOPE are in the quoted form that idem prints "
                                        "(\\xNN, \\n, \\t, \\r, \\\\; - is empty)"};
    }
    if ((syntax->takes & CLI_TAKES_JSON) != 0)
        into[n++] = (struct cli_option){"json", CLI_FLAG, &common->json, NULL, "print JSON"};
    return n;
}

static void print_option(const struct cli_option *option)
{
    char left[64];
    int width = snprintf(left, sizeof(left), "  --%s%s%s", option->name, option->value != NULL ? " " : "",
                         option->value != NULL ? option->value : "");
    printf("%s", left);
    if (width >= HELP_COLUMN) {
        printf("\n");
        width = 0;
    }
    printf("%*s", HELP_COLUMN - width, "");
    width = HELP_COLUMN;
    for (const char *word = option->help; *word != '\0';) {
        size_t n = strcspn(word, " ");
        if (width > HELP_COLUMN && width + 1 + (int)n > HELP_WIDTH) {
            printf("\n%*s", HELP_COLUMN, "");
            width = HELP_COLUMN;
        } else if (width > HELP_COLUMN) {
            putchar(' ');
            width++;
        }
        printf("%.*s", (int)n, word);
        width += (int)n;
        word += n;
        word += strspn(word, " ");
    }
    putchar('\n');
}

static void print_help(const struct cli_syntax *syntax, const struct cli_option *options, size_t n)
{
    printf("usage: idem %s%s%s\n\n%s\n", syntax->name, syntax->usage[0] != '\0' ? " " : "", syntax->usage,
           syntax->intro);
    printf("\noptions\n");
    for (size_t i = 0; i < n; i++)
        print_option(&options[i]);
    printf("  --help%*sthis text\n", HELP_COLUMN - 8, "");
    if (syntax->outro != NULL)
        printf("\n%s\n", syntax->outro);
}

static bool store_value(const struct cli_option *option, char *value, const char **accepted)
{
    switch (option->kind) {
    case CLI_FLAG:
        *(bool *)option->into = true;
        return true;
    case CLI_TEXT:
        *(const char **)option->into = value;
        return true;
    case CLI_DURATION:
        *accepted = "a duration like 250ms, 30s, 36h, 7d or forever";
        return cli_parse_duration(value, option->into) && *(int64_t *)option->into > 0;
    case CLI_PERIOD:
        *accepted = "0, a duration like 250ms, 30s, 36h, 7d, or forever";
        return cli_parse_duration(value, option->into);
    case CLI_SIZE:
        *accepted = "a size like 512, 64K, 2G";
        return cli_parse_size(value, option->into);
    case CLI_NUMBER:
        *accepted = "a whole number, 0 or more";
        return cli_parse_number(value, option->into);
    case CLI_TOKEN:
        *accepted = "a token: a decimal number above 0, as printed by claim, ls and why";
        return cli_parse_token(value, option->into);
    }
    return false;
}

/* The shared key options point into argv, which is writable: --quoted decodes in place. */
static void take_key_part(const char *name, const char *text, bool quoted, const void **bytes, size_t *n)
{
    *bytes = text;
    *n = strlen(text);
    if (!quoted || *n == 0)
        return;
    char *copy = cli_alloc(*n + 1);
    memcpy(copy, text, *n + 1);
    if (!cli_unquote(copy, n)) {
        (void)cli_usage_error("--%s \"%s\" is not in quoted form (\\xNN, \\n, \\t, \\r, \\\\, no spaces)", name, text);
        exit(CLI_EXIT_USAGE);
    }
    memcpy((char *)(uintptr_t)text, copy, *n);
    free(copy);
}

int cli_parse(const struct cli_syntax *syntax, struct cli_common *common, int argc, char **argv)
{
    const char *scope = "";
    const char *key = NULL;
    struct cli_option options[OPTIONS_MAX];
    struct option longs[OPTIONS_MAX + 2];

    running = syntax->name;
    memset(common, 0, sizeof(*common));
    common->store = "default";

    size_t n = add_shared(syntax, common, &scope, &key, options);
    for (const struct cli_option *own = syntax->options; own != NULL && own->name != NULL; own++) {
        if (n == OPTIONS_MAX) {
            cli_warn("%s has more than %d options", syntax->name, OPTIONS_MAX);
            exit(CLI_EXIT_TROUBLE);
        }
        options[n++] = *own;
    }
    memset(longs, 0, sizeof(longs));
    for (size_t i = 0; i < n; i++) {
        longs[i].name = options[i].name;
        longs[i].has_arg = options[i].kind == CLI_FLAG ? no_argument : required_argument;
        longs[i].val = (int)i + OPTION_BASE;
    }
    longs[n].name = "help";
    longs[n].val = 'h';

    const char *shorts = (syntax->takes & CLI_STOPS_AT_OPERAND) != 0 ? "+:h" : ":h";
    opterr = 0;
    optind = 0; /* glibc: start anew and read the first character of `shorts` again */
    for (;;) {
        int c = getopt_long(argc, argv, shorts, longs, NULL);
        if (c == -1)
            break;
        if (c == 'h') {
            print_help(syntax, options, n);
            exit(cli_finish(CLI_EXIT_OK));
        }
        if (c == ':')
            exit(cli_usage_error("%s needs a value", argv[optind - 1]));
        if (c == '?' && optopt >= OPTION_BASE)
            exit(cli_usage_error("--%s takes no value", options[optopt - OPTION_BASE].name));
        if (c == '?' && optopt != 0)
            exit(cli_usage_error("unknown option -%c", optopt));
        if (c == '?')
            exit(cli_usage_error("unknown or ambiguous option %s", argv[optind - 1]));
        const struct cli_option *option = &options[c - OPTION_BASE];
        const char *accepted = "";
        if (!store_value(option, optarg, &accepted))
            exit(cli_usage_error("--%s \"%s\": expected %s", option->name, optarg, accepted));
    }

    if ((syntax->takes & CLI_TAKES_OPERANDS) == 0 && optind < argc)
        exit(cli_usage_error("unexpected argument \"%s\"", argv[optind]));
    if ((syntax->takes & CLI_TAKES_KEY) != 0) {
        if (key == NULL)
            exit(cli_usage_error("--key KEY is required"));
        take_key_part("key", key, common->quoted, &common->key.key, &common->key.key_bytes);
        take_key_part("scope", scope, common->quoted, &common->key.scope, &common->key.scope_bytes);
        if (common->key.key_bytes == 0)
            exit(cli_usage_error("--key is empty: a key has at least one byte"));
        if (common->key.key_bytes + common->key.scope_bytes > IDEM_KEY_MAX)
            exit(cli_usage_error("--key and --scope have %zu bytes together, the limit is %u",
                                 common->key.key_bytes + common->key.scope_bytes, IDEM_KEY_MAX));
    }
    return optind;
}

/* The library wants a path that means the same in every process. */
bool cli_absolute(const char *path, char out[PATH_MAX])
{
    char here[PATH_MAX] = "";
    if (path[0] == '\0' || (path[0] != '/' && getcwd(here, sizeof here) == NULL))
        return false;
    int n = snprintf(out, PATH_MAX, "%s%s%s", here, path[0] != '/' ? "/" : "", path);
    return n > 0 && n < PATH_MAX;
}

/* Another process may be doing the same, or have done it. Outcomes and errors: as idem_recover(). */
static int bring_back(const char *store, const char *wal_dir)
{
    idem_recovery recovery = IDEM_RECOVERY_INIT;
    recovery.dir = store;
    recovery.wal_dir = wal_dir;
    int result = idem_recover(&recovery);
    return result == IDEM_E_EXISTS ? IDEM_OK : result;
}

int cli_open(const struct cli_common *common, bool create, idem_store **store)
{
    idem_options options = IDEM_OPTIONS_INIT;
    char wal_dir[PATH_MAX];
    if (common->wal != NULL) {
        if (!cli_absolute(common->wal, wal_dir))
            return cli_usage_error("--wal \"%s\": empty or too long", common->wal);
        options.wal_dir = wal_dir;
    } else if (create) {
        options.flags = IDEM_OPEN_CREATE;
        options.keys = FIRST_USE_KEYS;
    }
    int result = idem_open(common->store, &options, store);
    if (result == IDEM_E_NO_STORE && common->wal != NULL) {
        result = bring_back(common->store, wal_dir);
        if (result == IDEM_OK)
            result = idem_open(common->store, &options, store);
    }
    if (result >= 0)
        return CLI_EXIT_OK;
    *store = NULL;
    char what[512];
    if (result == IDEM_E_NO_STORE && common->wal != NULL) {
        (void)snprintf(what, sizeof(what),
                       "store \"%s\", with a log that --wal names (\"idem create --wal\" makes both)", common->store);
    } else if (result == IDEM_E_NO_STORE) {
        (void)snprintf(what, sizeof(what),
                       "store \"%s\" (\"idem recover --wal DIR\" brings one back that has a log, \"idem create\", "
                       "\"idem run\" or \"idem claim\" makes a new one)",
                       common->store);
    } else {
        (void)snprintf(what, sizeof(what), "store \"%s\"", common->store);
    }
    return cli_fail(what, result);
}
