/*
 * run.c - `idem run`: a command at most once for a key, its output for everybody who asks.
 *
 * Owns the life of one attempt: claim, run, renew, record. The answer is stored as one body, stdout then stderr
 * (frame.c), so the order in which the two came is not kept.
 *
 * Invariants
 *  1. CMD is started only with a claim in hand, and its outcome is recorded before our own reader is waited for.
 *  2. Exit status 0, and with --keep-failures any exit status, is stored. Other exit statuses are transient answers.
 *     Death by a signal is no answer: the attempt is declared lost, as nobody knows how far CMD came.
 *  3. A fence protects the record, not the effect: when the claim is lost while CMD runs, CMD goes on, its exit status
 *     is ours, nothing is recorded, and both stderr and the status descriptor say so.
 *
 * If we die here: before CMD starts, the next caller is told of a lost attempt that did nothing. While CMD runs, CMD
 * still owns the key by the descriptor that it inherited, until it ends or the lease does, and the next caller is told.
 * After CMD ended and before the answer is stored: told, too. After that: the answer is there.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "capture.h"
#include "cli.h"

#define WAIT_DEFAULT_MS     30000
#define EXIT_NOT_EXECUTABLE 126 /* as a shell, env(1) and timeout(1) say it */
#define EXIT_NOT_FOUND      127

struct run {
    struct cli_common common;
    bool no_wait, hold, kill_orphan, keep_failures, sync;
    int64_t ttl_ms, lease_ms, wait_ms;
    const char *fingerprint;
    int status_fd; /* ours, close-on-exec; -1: none */
    char **argv;

    idem_store *store;
    idem_claim claim;
    char *key_text; /* quoted, for messages */
    bool fenced;
    bool renew_failed; /* said once */
};

/* ------------------------------------------------------------------ what we tell */

/* One line, so that a script can tell our exit statuses from CMD's. Returns `status`. */
static int report(const struct run *run, const char *source, const char *outcome, int status, uint64_t token,
                  uint32_t attempt, bool output_ok)
{
    char line[256];
    int n =
        snprintf(line, sizeof(line), "source=%s outcome=%s exit=%d token=%" PRIu64 " attempt=%" PRIu32 " output=%s\n",
                 source, outcome, status, token, attempt, output_ok ? "ok" : "failed");
    if (run->status_fd >= 0 && !cli_write_all(run->status_fd, line, (size_t)n))
        cli_warn("cannot write to --status-fd: %s", strerror(errno));
    return status;
}

static int report_own(const struct run *run, const char *outcome, int status)
{
    return report(run, "idem", outcome, status, 0, 0, true);
}

static void warn_lost(const struct run *run, const idem_reply *reply)
{
    cli_warn("key %s: attempt %" PRIu32 ", token %" PRIu64 "; an earlier one, token %" PRIu64
             ", was lost (%s) and may have had its effect",
             run->key_text, run->claim.attempt, run->claim.token, reply->lost_token,
             cli_lost_reason_text(reply->lost_reason));
    if (reply->mark_bytes > 0) {
        char *mark = cli_quote(reply->mark, reply->mark_bytes);
        cli_warn("key %s: it left the mark %s", run->key_text, mark);
        free(mark);
    }
}

static int say_held(const struct run *run, const idem_reply *reply)
{
    cli_warn("key %s is held: the attempt with token %" PRIu64 " was lost (%s) and may have had its effect.\n"
             "Find out, then: idem resolve --store %s --key ... --token %" PRIu64 " --completed | --rerun",
             run->key_text, reply->lost_token, cli_lost_reason_text(reply->lost_reason), run->common.store,
             reply->lost_token);
    return report(run, "idem", "held", CLI_EXIT_HELD, reply->lost_token, reply->attempt, true);
}

static int say_in_progress(const struct run *run, const idem_reply *reply)
{
    char lease[CLI_TEXT_BYTES];
    cli_warn("key %s: another attempt (token %" PRIu64 ") runs; its lease ends in %s. Wait longer with --wait",
             run->key_text, reply->token, cli_duration_text(reply->retry_after_ms, lease));
    return report(run, "idem", "in-progress", CLI_EXIT_IN_PROGRESS, reply->token, reply->attempt, true);
}

/* ------------------------------------------------------------------ replay */

/* A reader who goes away is no failure of ours. */
static bool replay_to(int fd, const char *name, const char *bytes, size_t n)
{
    if (cli_write_all(fd, bytes, n) || errno == EPIPE)
        return true;
    cli_warn("cannot write %s: %s", name, strerror(errno));
    return false;
}

static int replay(const struct run *run, const idem_reply *reply)
{
    const char *outcome = "completed";
    bool output_ok = true;

    (void)signal(SIGPIPE, SIG_IGN);
    if ((reply->flags & IDEM_REPLY_TRANSIENT) != 0)
        outcome = "transient";
    if ((reply->flags & IDEM_REPLY_NOT_RETAINED) != 0) {
        outcome = "tombstone";
        cli_warn("key %s: done before (token %" PRIu64 "), but its output was not retained: only the exit status is "
                 "replayed",
                 run->key_text, reply->token);
    } else {
        /* What `idem complete` or `idem resolve` stored has no frame: all of it is stdout. */
        struct cli_frame frame = {reply->body_bytes, 0};
        if (!cli_frame_decode(reply->meta, reply->meta_bytes, reply->body_bytes, &frame))
            frame = (struct cli_frame){reply->body_bytes, 0};
        const char *body = reply->body;
        output_ok = replay_to(STDOUT_FILENO, "stdout", body, frame.stdout_bytes);
        if (frame.stderr_bytes > 0)
            output_ok = replay_to(STDERR_FILENO, "stderr", body + frame.stdout_bytes, frame.stderr_bytes) && output_ok;
    }
    int status = reply->status;
    if (status < 0 || status > 255) {
        cli_warn("key %s: the stored status %d is not an exit status; it was not stored by \"idem run\"", run->key_text,
                 status);
        status = CLI_EXIT_TROUBLE;
        return report(run, "idem", outcome, status, reply->token, reply->attempt, output_ok);
    }
    (void)report(run, "replayed", outcome, status, reply->token, reply->attempt, output_ok);
    return output_ok ? status : CLI_EXIT_TROUBLE;
}

/* ------------------------------------------------------------------ running CMD */

static void renew(void *ctx)
{
    struct run *run = ctx;
    if (run->fenced)
        return;
    int result = idem_renew(run->store, &run->claim, 0);
    if (result == IDEM_E_LOST || result == IDEM_E_STALE) {
        run->fenced = true;
        cli_warn("key %s: fenced, the attempt with token %" PRIu64
                 " no longer owns the key. %s goes on, but its outcome "
                 "will not be recorded, and another attempt may run beside it (%s)",
                 run->key_text, run->claim.token, run->argv[0], idem_error_detail());
    } else if (result < 0 && !run->renew_failed) {
        run->renew_failed = true;
        cli_warn("key %s: cannot renew the lease (%s); trying again", run->key_text, idem_error_detail());
    }
}

static void set_number(const char *name, uint64_t number)
{
    char text[24];
    (void)snprintf(text, sizeof(text), "%" PRIu64, number);
    if (setenv(name, text, 1) != 0)
        cli_warn("out of memory (environment)");
}

/* A mark with a NUL byte does not fit in an environment variable: CMD then gets its quoted form, and is told. */
static void set_environment(const struct run *run, int verdict, const idem_reply *reply)
{
    bool plain = reply->mark_bytes == 0 || memchr(reply->mark, '\0', reply->mark_bytes) == NULL;
    char *mark = NULL;
    if (plain) {
        mark = cli_alloc(reply->mark_bytes + 1);
        if (reply->mark_bytes > 0)
            memcpy(mark, reply->mark, reply->mark_bytes);
        mark[reply->mark_bytes] = '\0';
    } else {
        mark = cli_quote(reply->mark, reply->mark_bytes);
    }
    set_number("IDEM_ATTEMPT", run->claim.attempt);
    set_number("IDEM_TOKEN", run->claim.token);
    if (setenv("IDEM_MARK", mark, 1) != 0 || setenv("IDEM_MARK_IS_QUOTED", plain ? "0" : "1", 1) != 0 ||
        setenv("IDEM_VERDICT", cli_verdict_word(verdict), 1) != 0)
        cli_warn("out of memory (environment)");
    free(mark);
}

/* Stores the outcome of a CMD that exited; when its output was too large, without it. Returns the library's result. */
static int store_answer(const struct run *run, struct capture *capture, int status)
{
    uint8_t meta[CLI_FRAME_BYTES];
    const struct cli_frame frame = {capture->out.kept.n, capture->err.kept.n};
    idem_response response = IDEM_RESPONSE_INIT;
    response.status = status;
    response.flags = status != 0 && !run->keep_failures ? IDEM_RESPONSE_TRANSIENT : 0;
    response.ttl_ms = run->ttl_ms;
    response.durability = run->sync ? IDEM_DURABILITY_SYNC : IDEM_DURABILITY_DEFAULT;
    response.meta_bytes = sizeof(meta);
    if (capture->over) {
        response.flags |= IDEM_RESPONSE_NOT_RETAINED;
        response.body_bytes = capture->out.total_bytes + capture->err.total_bytes;
        return idem_complete(run->store, &run->claim, &response);
    }
    size_t n = frame.stdout_bytes + frame.stderr_bytes;
    char *body = calloc(n > 0 ? n : 1, 1);
    if (body == NULL) {
        cli_warn("out of memory (%zu bytes for the answer)", n);
        return IDEM_E_MEMORY;
    }
    if (frame.stdout_bytes > 0)
        memcpy(body, capture->out.kept.bytes, frame.stdout_bytes);
    if (frame.stderr_bytes > 0)
        memcpy(body + frame.stdout_bytes, capture->err.kept.bytes, frame.stderr_bytes);
    cli_frame_encode(&frame, meta);
    response.meta = meta;
    response.body = body;
    response.body_bytes = n;
    int result = idem_complete(run->store, &run->claim, &response);
    free(body);
    return result;
}

/* Gives the claim back. The word for the status descriptor is `outcome` if that worked. */
static const char *give_back(struct run *run, int why, const char *outcome)
{
    int result = idem_abandon(run->store, &run->claim, why);
    if (result >= 0)
        return outcome;
    if (result == IDEM_E_LOST || result == IDEM_E_STALE)
        run->fenced = true;
    (void)cli_fail_key("cannot record how the attempt ended", &run->common, result);
    return run->fenced ? "fenced" : "unrecorded";
}

static const char *record(struct run *run, struct capture *capture, int wait_status)
{
    if (!WIFEXITED(wait_status)) {
        cli_warn("key %s: %s was killed by signal %d (%s); its outcome is unknown, the next caller will be told",
                 run->key_text, run->argv[0], WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)));
        return give_back(run, IDEM_OUTCOME_UNKNOWN, "killed");
    }
    int status = WEXITSTATUS(wait_status);
    bool transient = status != 0 && !run->keep_failures;
    int result = store_answer(run, capture, status);
    if (result == IDEM_TOMBSTONE) {
        char limit[CLI_TEXT_BYTES];
        if (capture->over)
            cli_warn(
                "key %s: the output is over this store's limit of %s and was not retained: later callers get only the "
                "exit status. \"idem create --response\" makes a store that keeps more",
                run->key_text, cli_size_text(capture->keep_max, limit));
        else
            cli_warn(
                "key %s: the store had no room for the output, it was not retained: later callers get only the exit "
                "status",
                run->key_text);
        return transient ? "transient" : "tombstone";
    }
    if (result >= 0)
        return transient ? "transient" : "completed";
    if (transient && (result == IDEM_E_FULL || result == IDEM_E_TOO_BIG || result == IDEM_E_MEMORY))
        return give_back(run, IDEM_NOTHING_HAPPENED, "transient"); /* waiters run it again themselves */
    if (result == IDEM_E_LOST || result == IDEM_E_STALE) {
        run->fenced = true;
        cli_warn("key %s: fenced, the attempt with token %" PRIu64 " no longer owned the key when %s ended with status "
                 "%d: nothing was recorded (%s)",
                 run->key_text, run->claim.token, run->argv[0], status, idem_error_detail());
        return "fenced";
    }
    (void)cli_fail_key("cannot record the answer", &run->common, result);
    return give_back(run, IDEM_OUTCOME_UNKNOWN, "unrecorded");
}

static int not_started(struct run *run, int error, bool exec_failed)
{
    int status = CLI_EXIT_TROUBLE;
    if (exec_failed)
        status = error == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
    cli_warn("cannot run %s: %s", run->argv[0], strerror(error));
    const char *outcome = give_back(run, IDEM_NOTHING_HAPPENED, "not-started");
    return report(run, "idem", outcome, status, run->claim.token, run->claim.attempt, true);
}

/* What the store can keep of an answer. */
static int find_limit(const struct run *run, size_t *keep_max)
{
    idem_stats_data stats;
    memset(&stats, 0, sizeof(stats));
    stats.size = sizeof(stats);
    int result = idem_stats(run->store, &stats);
    if (result < 0)
        return result;
    *keep_max = stats.response_max_bytes > CLI_FRAME_BYTES ? stats.response_max_bytes - CLI_FRAME_BYTES : 0;
    return IDEM_OK;
}

static int run_claimed(struct run *run, int verdict, const idem_reply *reply)
{
    struct capture_signals before;
    sigset_t held;
    struct capture capture;
    struct capture_child child;
    size_t keep_max = 0;
    bool exec_failed = false;

    if (verdict == IDEM_RECLAIMED)
        warn_lost(run, reply);
    set_environment(run, verdict, reply);

    int result = find_limit(run, &keep_max);
    int owner_fd = idem_owner_fd(run->store);
    if (result < 0 || owner_fd < 0) {
        int status = cli_fail("cannot run", result < 0 ? result : owner_fd);
        const char *outcome = give_back(run, IDEM_NOTHING_HAPPENED, "error");
        return report(run, "idem", outcome, status, run->claim.token, run->claim.attempt, true);
    }
    if (!capture_hold_signals(&before, &held))
        return not_started(run, errno, false);
    int64_t tick_ms = run->claim.lease_ms >= 3 ? run->claim.lease_ms / 3 : 1;
    int error = capture_init(&capture, &held, keep_max, tick_ms, renew, run);
    const struct capture_command command = {run->argv, owner_fd, run->kill_orphan};
    if (error == 0)
        error = capture_spawn(&command, &before, &child, &exec_failed);
    if (error != 0) {
        capture_free(&capture);
        return not_started(run, error, exec_failed);
    }

    int wait_status = capture_follow(&capture, &child);
    const char *outcome = record(run, &capture, wait_status);

    /* The outcome is safe: from here on we may be interrupted while our reader is slow. SIGPIPE stays ignored. */
    (void)sigprocmask(SIG_SETMASK, &before.mask, NULL);
    capture_flush(&capture);
    int status = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
    bool output_ok = capture.output_errno == 0;
    if (!output_ok)
        cli_warn("cannot write %s's output: %s", run->argv[0], strerror(capture.output_errno));
    capture_free(&capture);
    (void)report(run, "ran", outcome, status, run->claim.token, run->claim.attempt, output_ok);
    return output_ok ? status : CLI_EXIT_TROUBLE;
}

/* ------------------------------------------------------------------ the claim */

/* What `--fingerprint auto` covers: the working directory and every argument, each with its end marked by its NUL. */
static int fingerprint_auto(const struct run *run, uint64_t *value)
{
    char *directory = getcwd(NULL, 0);
    if (directory == NULL) {
        cli_warn("--fingerprint auto: cannot find the working directory: %s", strerror(errno));
        return CLI_EXIT_TROUBLE;
    }
    idem_fingerprint_state *state = idem_fingerprint_begin(run->store);
    if (state != NULL) {
        idem_fingerprint_update(state, directory, strlen(directory) + 1);
        for (char **arg = run->argv; *arg != NULL; arg++)
            idem_fingerprint_update(state, *arg, strlen(*arg) + 1);
        *value = idem_fingerprint_end(state);
    }
    free(directory);
    if (state == NULL) {
        cli_warn("--fingerprint auto: out of memory");
        return CLI_EXIT_TROUBLE;
    }
    return CLI_EXIT_OK;
}

static int claim_and_run(struct run *run)
{
    idem_request request = IDEM_REQUEST_INIT;
    idem_reply reply = IDEM_REPLY_INIT;
    int status = CLI_EXIT_OK;

    request.key = run->common.key;
    request.ttl_ms = run->ttl_ms;
    request.lease_ms = run->lease_ms;
    request.flags = run->hold ? IDEM_HOLD : 0;
    request.durability = run->sync ? IDEM_DURABILITY_SYNC : IDEM_DURABILITY_DEFAULT;
    if (run->fingerprint != NULL && strcmp(run->fingerprint, "auto") == 0)
        status = fingerprint_auto(run, &request.fingerprint);
    else if (run->fingerprint != NULL)
        request.fingerprint = idem_fingerprint(run->store, run->fingerprint, strlen(run->fingerprint));
    if (status != CLI_EXIT_OK)
        return report_own(run, "error", status);

    run->claim = (idem_claim)IDEM_CLAIM_INIT;
    int verdict = idem_wait(run->store, &request, run->no_wait ? 0 : run->wait_ms, &run->claim, &reply);
    switch (verdict) {
    case IDEM_CLAIMED:
    case IDEM_RECLAIMED:
        status = run_claimed(run, verdict, &reply);
        break;
    case IDEM_REPLAY:
        status = replay(run, &reply);
        break;
    case IDEM_IN_PROGRESS:
    case IDEM_E_TIMEOUT:
        status = say_in_progress(run, &reply);
        break;
    case IDEM_UNKNOWN:
        status = say_held(run, &reply);
        break;
    case IDEM_MISMATCH:
        cli_warn("key %s was used for something else (its fingerprint differs); %s was not run", run->key_text,
                 run->argv[0]);
        status = report(run, "idem", "mismatch", CLI_EXIT_MISMATCH, reply.token, reply.attempt, true);
        break;
    default:
        status = report_own(run, "error", cli_fail_key("cannot claim", &run->common, verdict));
        break;
    }
    idem_reply_free(&reply);
    return status;
}

/* A private duplicate, which CMD does not inherit; nor does it inherit the original, unless that is 0, 1 or 2. */
static int take_status_fd(int64_t number)
{
    int fd = number <= INT32_MAX ? (int)number : -1;
    int mode = fcntl(fd, F_GETFL);
    if (mode < 0 || (mode & O_ACCMODE) == O_RDONLY)
        return -1;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy >= 0 && fd > STDERR_FILENO)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    return copy;
}

int idem_cmd_run(int argc, char **argv)
{
    struct run run;
    memset(&run, 0, sizeof(run));
    run.wait_ms = WAIT_DEFAULT_MS;
    run.status_fd = -1;
    int64_t status_fd = -1;
    const struct cli_option own[] = {
        {"ttl", CLI_DURATION, &run.ttl_ms, "D", "how long the answer is replayed (36h, 7d, forever)"},
        {"lease", CLI_DURATION, &run.lease_ms, "D", "how long the key is safe if idem stops; renewed while CMD runs"},
        {"wait", CLI_PERIOD, &run.wait_ms, "D", "how long to wait while another attempt runs; default: 30s"},
        {"no-wait", CLI_FLAG, &run.no_wait, NULL, "don't wait"},
        {"fingerprint", CLI_TEXT, &run.fingerprint, "auto|TEXT",
         "what the key stands for; the same key with another one is refused. auto: CMD's arguments and the working "
         "directory (stdin goes to CMD and is not part of it)"},
        {"hold", CLI_FLAG, &run.hold, NULL, "if an attempt is lost, nobody runs CMD again before \"idem resolve\""},
        {"sync", CLI_FLAG, &run.sync, NULL,
         "the claim is on the disk before CMD begins, the answer before this returns; the store needs a log (create "
         "--wal)"},
        {"keep-failures", CLI_FLAG, &run.keep_failures, NULL, "store non-zero exit statuses too"},
        {"kill-orphan", CLI_FLAG, &run.kill_orphan, NULL,
         "if idem is killed, CMD is killed with it (SIGKILL; not what CMD started)"},
        {"status-fd", CLI_NUMBER, &status_fd, "N",
         "write one line to descriptor N at the end: source=ran|replayed|idem outcome=WORD exit=N token=T attempt=N "
         "output=ok|failed"},
        {NULL, CLI_FLAG, NULL, NULL, NULL},
    };
    const struct cli_syntax syntax = {
        "run",
        "--key KEY [OPTIONS] [--] CMD [ARG...]",
        "Runs CMD at most once for the key, over all processes that share the store. Who\n"
        "calls while it runs waits and gets the same stdout, stderr and exit status; who\n"
        "calls later gets them replayed. The store is made on first use, but not with\n"
        "--wal or --sync.\n"
        "\n"
        "CMD that exits with 0 is done. Another exit status is given to those who are\n"
        "waiting, and the next caller runs CMD again (--keep-failures stores it\n"
        "instead). If CMD is killed by a signal, or idem is, nobody knows how far it\n"
        "came: the next caller runs CMD again and is told on stderr and in CMD's\n"
        "environment, or stops with --hold. IDEM_ATTEMPT counts the attempts,\n"
        "IDEM_VERDICT is \"claimed\" or \"reclaimed\" (an attempt was lost: look before you\n"
        "act), IDEM_MARK is the mark that an earlier attempt left (\"idem mark\"), or\n"
        "empty, and IDEM_TOKEN grows with every attempt.\n"
        "\n"
        "While CMD or what it started still runs, the key counts as owned even if idem\n"
        "is gone, until the lease ends, which nobody renews then. A CMD that closes\n"
        "descriptors it does not know, or is set-user-ID with --kill-orphan, escapes\n"
        "this. SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on to\n"
        "CMD. If the key is taken from us while CMD runs, CMD goes on and its exit\n"
        "status is ours, but nothing is recorded (outcome=fenced).\n"
        "\n"
        "CMD writes to pipes. The order in which stdout and stderr came is not kept.\n"
        "What CMD left running in the background may write for one more second; later\n"
        "output is not part of the answer. Output past the store's limit (see\n"
        "\"idem create\") reaches the first caller only; later ones get the exit\n"
        "status and a line on stderr.",
        own,
        "exit status: CMD's, 128+N if signal N killed it, 126 or 127 if it can't be\n"
        "executed; idem's own are\n"
        "  120  the key was used with another fingerprint\n"
        "  121  another attempt runs, and the time to wait is over\n"
        "  122  held: an attempt was lost, settle it with \"idem resolve\"\n"
        "  123  is not used here (other subcommands: fenced)\n"
        "  124  the store can't be used (full, no permission, damaged), or the output\n"
        "       can't be written\n"
        "  125  wrong command line\n"
        "--status-fd tells them from CMD's for certain. Its outcome is one of completed,\n"
        "tombstone (output not retained), transient, killed, fenced, unrecorded,\n"
        "not-started, mismatch, in-progress, held, error.\n"
        "\n"
        "examples\n"
        "  idem run --key \"invoice-$id\" --ttl 7d -- ./send-invoice \"$id\"\n"
        "  idem run --key nightly-2026-11-22 --hold --no-wait -- ./close-the-books\n"
        "  idem run --store payments --wal /var/lib/idem/payments --sync --key 42 -- \\\n"
        "    ./charge 42",
        CLI_TAKES_STORE | CLI_TAKES_WAL | CLI_TAKES_KEY | CLI_TAKES_OPERANDS | CLI_STOPS_AT_OPERAND,
    };
    int first = cli_parse(&syntax, &run.common, argc, argv);
    if (first >= argc)
        return cli_usage_error("which command? idem run --key KEY -- CMD...");
    run.argv = argv + first;
    if (run.lease_ms > IDEM_LEASE_MAX_MS)
        return cli_usage_error("--lease is over the limit of 7 days");
    if (status_fd >= 0) {
        run.status_fd = take_status_fd(status_fd);
        if (run.status_fd < 0)
            return cli_usage_error("--status-fd %" PRId64 " is not open for writing", status_fd);
    }

    int status = cli_open(&run.common, !run.sync, &run.store); /* one made on first use has no log */
    if (status != CLI_EXIT_OK)
        return report_own(&run, "error", status);
    run.key_text = cli_quote_key(&run.common.key);
    status = claim_and_run(&run);
    free(run.key_text);
    idem_close(run.store);
    return status;
}
