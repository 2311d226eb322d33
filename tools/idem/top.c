/*
 * top.c - `idem top`: a store's figures as they change, on the whole screen or as plain frames.
 *
 * Invariants
 *  1. The terminal is given back as it was found on every way out but SIGKILL: exit(), q, SIGINT, SIGTERM, SIGHUP; and
 *     while stopped with SIGTSTP.
 *  2. Signals are blocked but for the sleep between frames, so that a handler never runs in the middle of a frame.
 *  3. A frame goes out in one piece, each line cut to the screen: nothing wraps, nothing flickers.
 *  4. Counting keys (a walk over all of them) takes at most a twentieth of the time, however many there are.
 *
 * If we die here: nothing is changed by looking; after SIGKILL the terminal needs `reset`.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "look.h"

#define INTERVAL_MIN_MS 50
#define WALK_SHARE      20 /* a walk of 10 ms is repeated after 200 ms at the earliest */
#define BAR_CELLS       24

struct sample {
    idem_stats_data stats;
    int64_t at_ms; /* monotonic */
};

struct top {
    idem_store *store;
    int64_t interval_ms;
    struct sample now, before;
    struct look_census census;
    int64_t census_at_ms;
    int64_t census_took_ms;
};

/* ------------------------------------------------------------------ the terminal */

static volatile sig_atomic_t quit_signal;
static volatile sig_atomic_t stop_asked;

static struct termios terminal_found;
static bool terminal_taken; /* the screen is ours */
static bool keys_taken;     /* and the keyboard */

static void give_terminal_back(void)
{
    if (!terminal_taken)
        return;
    terminal_taken = false;
    static const char leave[] = "\033[?25h\033[?1049l"; /* show the cursor, leave the alternate screen */
    (void)cli_write_all(STDOUT_FILENO, leave, sizeof(leave) - 1);
    if (keys_taken)
        (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &terminal_found);
}

static void take_terminal(void)
{
    static const char enter[] = "\033[?1049h\033[?25l";
    terminal_taken = true;
    keys_taken = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &terminal_found) == 0;
    if (keys_taken) {
        struct termios raw = terminal_found;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        raw.c_cc[VMIN] = 0;
        raw.c_cc[VTIME] = 0;
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    (void)cli_write_all(STDOUT_FILENO, enter, sizeof(enter) - 1);
}

static void on_quit(int number)
{
    quit_signal = number;
}

static void on_stop(int number)
{
    (void)number;
    stop_asked = 1;
}

static void on_resize(int number)
{
    (void)number; /* it ends the sleep, that is all */
}

static void handle(int number, void (*handler)(int))
{
    struct sigaction action = {0};
    struct sigaction old;
    if (sigaction(number, NULL, &old) == 0 && old.sa_handler == SIG_IGN)
        return;
    action.sa_handler = handler;
    sigemptyset(&action.sa_mask);
    (void)sigaction(number, &action, NULL);
}

/* Blocks what sleep_until() lets through. Returns the mask to sleep with. */
static sigset_t set_up_signals(bool live)
{
    sigset_t ours, found;
    sigemptyset(&ours);
    handle(SIGINT, on_quit);
    handle(SIGTERM, on_quit);
    handle(SIGHUP, on_quit);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGHUP);
    if (live) {
        handle(SIGWINCH, on_resize);
        handle(SIGTSTP, on_stop);
        sigaddset(&ours, SIGWINCH);
        sigaddset(&ours, SIGTSTP);
    }
    (void)sigprocmask(SIG_BLOCK, &ours, &found);
    sigdelset(&found, SIGINT);
    sigdelset(&found, SIGTERM);
    sigdelset(&found, SIGHUP);
    sigdelset(&found, SIGWINCH);
    sigdelset(&found, SIGTSTP);
    return found;
}

/* Ctrl-Z: the shell gets its terminal while we are stopped. */
static void stop_here(void)
{
    sigset_t stop;
    stop_asked = 0;
    give_terminal_back();
    signal(SIGTSTP, SIG_DFL);
    sigemptyset(&stop);
    sigaddset(&stop, SIGTSTP);
    raise(SIGTSTP);
    (void)sigprocmask(SIG_UNBLOCK, &stop, NULL); /* stops here until SIGCONT */
    (void)sigprocmask(SIG_BLOCK, &stop, NULL);
    handle(SIGTSTP, on_stop);
    take_terminal();
}

enum wake { WAKE_TIME, WAKE_QUIT, WAKE_REDRAW };

/* Sleeps up to the next frame's time; a key or a signal ends it early. */
static enum wake sleep_until(int64_t at_ms, bool live, const sigset_t *mask)
{
    for (;;) {
        int64_t left_ms = at_ms - look_monotonic_ms();
        if (left_ms < 0)
            left_ms = 0;
        struct timespec left = {(time_t)(left_ms / 1000), (long)(left_ms % 1000) * 1000000};
        struct pollfd keyboard = {.fd = STDIN_FILENO, .events = POLLIN};
        int ready = ppoll(&keyboard, live && keys_taken ? 1 : 0, &left, mask);
        if (quit_signal != 0)
            return WAKE_QUIT;
        if (stop_asked) {
            stop_here();
            return WAKE_REDRAW;
        }
        if (ready == 0)
            return WAKE_TIME;
        if (ready < 0)
            return WAKE_REDRAW; /* SIGWINCH */
        char key = '\0';
        ssize_t n = read(STDIN_FILENO, &key, 1);
        if (key == 'q' || key == 'Q')
            return WAKE_QUIT;
        if (n <= 0 || (keyboard.revents & (POLLHUP | POLLERR)) != 0)
            keys_taken = false; /* the keyboard is gone; SIGHUP or the clock goes on */
        if (key == ' ')
            return WAKE_REDRAW;
    }
}

/* ------------------------------------------------------------------ a frame */

static double rate(const struct top *t, uint64_t now, uint64_t before)
{
    int64_t ms = t->now.at_ms - t->before.at_ms;
    /* A store made anew starts from zero. */
    return ms > 0 && now >= before ? (double)(now - before) * 1000.0 / (double)ms : 0;
}

static void print_bar(FILE *out, uint64_t part, uint64_t whole)
{
    uint64_t cells = whole > 0 ? part * BAR_CELLS / whole : 0;
    fputc('[', out);
    for (uint64_t i = 0; i < BAR_CELLS; i++)
        fputc(i < cells ? '#' : '-', out);
    fputc(']', out);
}

static void print_head(FILE *out, const struct top *t)
{
    const idem_stats_data *s = &t->now.stats;
    char a[CLI_TEXT_BYTES], b[CLI_TEXT_BYTES], c[CLI_TEXT_BYTES], d[CLI_TEXT_BYTES], interval[CLI_TEXT_BYTES];
    struct tm local;
    time_t seconds = time(NULL);
    char hours[16] = "";
    if (localtime_r(&seconds, &local) != NULL)
        (void)strftime(hours, sizeof(hours), "%H:%M:%S", &local);
    fprintf(out, "idem top  %s  every %s  %s\n", hours, cli_duration_text(t->interval_ms, interval),
            idem_path(t->store));

    fprintf(out, "keys      ");
    print_bar(out, s->slots_used, s->keys_capacity);
    fprintf(out, " %s of %s (%s)\n", look_count_text(s->slots_used, a), look_count_text(s->keys_capacity, b),
            look_percent_text(s->slots_used, s->keys_capacity, c));

    uint64_t asked = look_begins(s), asked_before = look_begins(&t->before.stats);
    uint64_t asked_now = asked >= asked_before ? asked - asked_before : 0;
    uint64_t hits_now = s->replayed >= t->before.stats.replayed ? s->replayed - t->before.stats.replayed : 0;
    fprintf(out, "hits      %s of %s/s asked now; %s of %s since it was made\n",
            look_percent_text(hits_now, asked_now, a), look_rate_text(rate(t, asked, asked_before), b),
            look_percent_text(s->replayed, asked, c), look_count_text(asked, d));

    fprintf(out, "space     %s, %s; ", cli_size_text(s->bytes_total, a),
            s->bytes_huge > 0 ? "in huge pages" : "no huge pages");
    fprintf(out, "%" PRIu32 " of %" PRIu32 " handles, %" PRIu32 " of %" PRIu32 " lanes\n", s->processes,
            s->processes_max, s->lanes, s->lanes_max);
}

static void print_census(FILE *out, const struct top *t)
{
    const struct look_census *c = &t->census;
    char age[CLI_TEXT_BYTES], left[CLI_TEXT_BYTES];
    fprintf(out, "claims    %" PRIu64 " in progress, %" PRIu64 " lost (%" PRIu64 " held), %" PRIu64 " abandoned",
            c->by_state[IDEM_STATE_IN_PROGRESS], c->by_state[IDEM_STATE_LOST], c->held,
            c->by_state[IDEM_STATE_ABANDONED]);
    int64_t counted_ms = t->now.at_ms - t->census_at_ms;
    if (counted_ms > t->interval_ms)
        fprintf(out, " (counted %s ago)", cli_duration_text(counted_ms, age));
    if (!c->any_running) {
        fprintf(out, "\noldest    none in progress\n");
        return;
    }
    fprintf(out, "\noldest    %s, lease %s%s", cli_duration_text(c->oldest_age_ms, age),
            c->oldest_lease_left_ms > 0 ? cli_duration_text(c->oldest_lease_left_ms, left) : "over",
            c->oldest_lease_left_ms > 0 ? " left" : "");
    if (c->oldest_lease_only)
        fprintf(out, ", lease-only");
    else if (c->oldest_pid > 0)
        fprintf(out, ", pid %" PRId64, c->oldest_pid);
    fprintf(out, ": %s\n", c->oldest_key);
}

/* Two tables side by side: what claims were told, and what else was done. */
static void print_rates(FILE *out, const struct top *t)
{
    const idem_stats_data *n = &t->now.stats, *b = &t->before.stats;
    const struct {
        const char *name;
        uint64_t now, before;
    } rows[][2] = {
        {{"claimed", n->claimed, b->claimed}, {"completed", n->completed, b->completed}},
        {{"replayed", n->replayed, b->replayed}, {"  without body", n->tombstones, b->tombstones}},
        {{"in progress", n->in_progress, b->in_progress}, {"  not kept", n->transient, b->transient}},
        {{"taken over", n->reclaimed, b->reclaimed}, {"given back", n->abandoned, b->abandoned}},
        {{"mismatch", n->mismatched, b->mismatched}, {"renewed", n->renewed, b->renewed}},
        {{"held", n->unknown, b->unknown}, {"marks", n->marked, b->marked}},
        {{"waited", n->waited, b->waited}, {"fenced", n->fenced, b->fenced}},
        {{"full", n->full, b->full}, {"forgotten", n->forgotten, b->forgotten}},
        {{"evicted", n->evicted, b->evicted}, {"swept entries", n->swept_entries, b->swept_entries}},
    };
    char per_second[CLI_TEXT_BYTES], count[CLI_TEXT_BYTES];
    fprintf(out, "\n%-12s %9s %13s   %-14s %9s %13s\n", "asked", "a second", "in all", "done", "a second", "in all");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        fprintf(out, "%-12s %9s %13s   ", rows[i][0].name,
                look_rate_text(rate(t, rows[i][0].now, rows[i][0].before), per_second),
                look_count_text(rows[i][0].now, count));
        fprintf(out, "%-14s %9s %13s\n", rows[i][1].name,
                look_rate_text(rate(t, rows[i][1].now, rows[i][1].before), per_second),
                look_count_text(rows[i][1].now, count));
    }
}

static void print_memory(FILE *out, const struct top *t)
{
    const idem_stats_data *s = &t->now.stats;
    char a[CLI_TEXT_BYTES], b[CLI_TEXT_BYTES];
    fprintf(out, "\nmemory    ");
    print_bar(out, s->regions - s->regions_free, s->regions);
    fprintf(out, " %" PRIu64 " of %" PRIu64 " regions free, %" PRIu64 " draining\n", s->regions_free, s->regions,
            s->regions_draining);
    for (uint32_t i = 0; i < s->classes && i < IDEM_STATS_CLASSES; i++)
        fprintf(out, "  %-22s %7" PRIu64 " region%s %10s\n", look_class_text(s->by_class[i].ttl_ms, a),
                s->by_class[i].regions, s->by_class[i].regions == 1 ? " " : "s",
                cli_size_text(s->by_class[i].bytes, b));
}

/* malloc'ed text of the newest sample. */
static char *build_frame(const struct top *t)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    if (out == NULL) {
        cli_warn("out of memory");
        exit(CLI_EXIT_TROUBLE);
    }
    print_head(out, t);
    print_census(out, t);
    print_rates(out, t);
    print_memory(out, t);
    if (fclose(out) != 0) {
        cli_warn("out of memory");
        exit(CLI_EXIT_TROUBLE);
    }
    return text;
}

/* Over the old frame, line by line, cut to the screen; what is left of the old one is wiped. */
static bool show_on_screen(const char *frame)
{
    struct winsize size;
    size_t rows = 24, columns = 80;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0) {
        rows = size.ws_row;
        columns = size.ws_col;
    }
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    if (out == NULL)
        return false;
    fputs("\033[H", out);
    for (size_t row = 0; row < rows && *frame != '\0'; row++) {
        size_t length = strcspn(frame, "\n");
        fprintf(out, "%s%.*s%s", row > 0 ? "\r\n" : "", (int)(length < columns ? length : columns), frame,
                length < columns ? "\033[K" : "");
        frame += length + (frame[length] == '\n');
    }
    fputs("\033[J", out);
    bool shown = fclose(out) == 0 && cli_write_all(STDOUT_FILENO, text, n);
    free(text);
    return shown;
}

/* ------------------------------------------------------------------ the loop */

/* IDEM_OK or a library error. */
static int take_sample(struct top *t)
{
    bool first = t->now.at_ms == 0;
    t->before = t->now;
    int result = look_stats(t->store, &t->now.stats);
    t->now.at_ms = look_monotonic_ms();
    if (first)
        t->before = t->now; /* rates of nothing */
    if (result < 0 || (!first && t->now.at_ms - t->census_at_ms < t->census_took_ms * WALK_SHARE))
        return result;
    result = look_census(t->store, &t->census);
    t->census_at_ms = look_monotonic_ms();
    t->census_took_ms = t->census_at_ms - t->now.at_ms;
    return result;
}

static int fail(int result)
{
    give_terminal_back(); /* the message is for the ordinary screen */
    return cli_fail("the store's figures can't be read", result);
}

static int run_plain(struct top *t, int64_t frames, const sigset_t *mask)
{
    int result = take_sample(t);
    for (int64_t i = 0; i < frames && result >= 0; i++) {
        if (sleep_until(t->now.at_ms + t->interval_ms, false, mask) == WAKE_QUIT)
            return CLI_EXIT_OK;
        result = take_sample(t);
        if (result < 0)
            break;
        char *frame = build_frame(t);
        printf("%s%s", i > 0 ? "\n" : "", frame);
        free(frame);
        if (cli_finish(CLI_EXIT_OK) != CLI_EXIT_OK)
            return CLI_EXIT_TROUBLE;
    }
    return result < 0 ? fail(result) : CLI_EXIT_OK;
}

static int run_live(struct top *t, const sigset_t *mask)
{
    int result = take_sample(t);
    if (result < 0)
        return fail(result);
    atexit(give_terminal_back);
    take_terminal();
    for (;;) {
        char *frame = build_frame(t);
        bool shown = show_on_screen(frame);
        free(frame);
        if (!shown)
            return CLI_EXIT_TROUBLE; /* the terminal is gone, and with it whoever could be told */
        enum wake wake = sleep_until(t->now.at_ms + t->interval_ms, true, mask);
        if (wake == WAKE_QUIT)
            return CLI_EXIT_OK;
        result = wake == WAKE_TIME ? take_sample(t) : IDEM_OK;
        if (result < 0)
            return fail(result);
    }
}

int idem_cmd_top(int argc, char **argv)
{
    struct cli_common common;
    int64_t frames = -1, interval_ms = 1000;
    const struct cli_option options[] = {
        {"interval", CLI_DURATION, &interval_ms, "TIME", "between frames; default 1s"},
        {"batch", CLI_NUMBER, &frames, "N",
         "print N plain frames and end; without a terminal that is what it does, N being 1"},
        {0},
    };
    const struct cli_syntax syntax = {
        "top",
        "[--interval TIME] [--batch N]",
        "Shows a store's figures as they change: rates, hits, fill, the attempt that has\n"
        "been in progress longest, memory by length of life. q ends it, space draws it\n"
        "anew.",
        options,
        "what it shows\n"
        "  keys    slots in use, of the number of keys the store was made for\n"
        "  hits    of all that asked for a key, those that got a stored answer\n"
        "  oldest  the attempt in progress longest, and its key\n"
        "  memory  regions, and the bytes handed out for each length of life\n"
        "  Rates are over the last interval; the first frame has none yet, and plain\n"
        "  frames begin after one interval. With very many keys, claims are counted\n"
        "  less often than the rest.\n"
        "exit status\n"
        "    0  ended by q, N frames, or a signal    124  trouble with the store\n"
        "  125  wrong command line",
        CLI_TAKES_STORE,
    };
    cli_parse(&syntax, &common, argc, argv);
    if (frames == 0)
        return cli_usage_error("--batch needs at least one frame");
    if (interval_ms < INTERVAL_MIN_MS || interval_ms > 86400000)
        return cli_usage_error("--interval is 50ms to 1d");

    static struct top t;
    int status = cli_open(&common, false, &t.store);
    if (status != CLI_EXIT_OK)
        return status;
    t.interval_ms = interval_ms;
    bool live = frames < 0 && isatty(STDOUT_FILENO);
    sigset_t mask = set_up_signals(live);
    status = live ? run_live(&t, &mask) : run_plain(&t, frames < 0 ? 1 : frames, &mask);
    give_terminal_back();
    idem_close(t.store);
    return status;
}
