/* tests/support/crash.c - see crash.h. */
#include "support/crash.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/point.h"

#define STEPS_MAX 4

static char names[CRASH_POINTS_MAX][40];
static int names_n;
static unsigned kills[CRASH_POINTS_MAX], stops[CRASH_POINTS_MAX];
static struct crash_victim victims[CRASH_VICTIMS];
static struct crash_step planned[CRASH_VICTIMS][STEPS_MAX];

/* In a victim: its own. */
static struct crash_page *mine;
static struct crash_step steps[STEPS_MAX];
static unsigned steps_n;
static bool armed;

/* ------------------------------------------------------------------ the points of src/ */

static bool overflow;

static void take_names(char *text)
{
    static const char call[] = "IDEM_POINT(\"";
    for (char *at = text; (at = strstr(at, call)) != NULL;) {
        at += sizeof call - 1;
        size_t n = strcspn(at, "\"");
        if (n >= sizeof names[0] || names_n == CRASH_POINTS_MAX) {
            overflow = true;
            return;
        }
        char name[sizeof names[0]];
        memcpy(name, at, n);
        name[n] = '\0';
        if (crash_point(name) < 0)
            memcpy(names[names_n++], name, n + 1);
    }
}

bool crash_elsewhere(int point)
{
    const char *name = crash_point_name(point);
    return strncmp(name, "log.", 4) == 0 || strncmp(name, "recover.", 8) == 0 || strncmp(name, "retain.", 7) == 0;
}

static int take_file(const char *path, const struct stat *st, int type, struct FTW *walk)
{
    (void)walk;
    size_t n = strlen(path);
    if (type != FTW_F || n < 2 || strcmp(path + n - 2, ".c") != 0)
        return 0;
    char *text = calloc(1, (size_t)st->st_size + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (text == NULL || fd < 0 || read(fd, text, (size_t)st->st_size) != st->st_size)
        overflow = true;
    else
        take_names(text);
    if (fd >= 0)
        close(fd);
    free(text);
    return 0;
}

int crash_setup(void)
{
    const char *tests = getenv("IDEM_TESTS_DIR");
    char src[512];
    snprintf(src, sizeof src, "%s/../src", tests != NULL ? tests : IDEM_TESTS_DIR);
    names_n = 0;
    overflow = false;
    if (nftw(src, take_file, 16, 0) != 0 || names_n == 0 || overflow) {
        print_error("%s: cannot read the named points of the sources (%d found)\n", src, names_n);
        return -1;
    }
    for (int i = 0; i < CRASH_VICTIMS; i++)
        if (victims[i].page == NULL)
            victims[i].page = support_shared(sizeof *victims[i].page);
    return 0;
}

int crash_points(void)
{
    return names_n;
}

const char *crash_point_name(int point)
{
    return point >= 0 && point < names_n ? names[point] : "(none)";
}

bool crash_point_of_log(int point)
{
    static const char *const rooms[] = {"log.", "recover.", "retain.", "create.log", "destroy.log"};
    for (unsigned i = 0; i < sizeof rooms / sizeof rooms[0]; i++)
        if (strncmp(crash_point_name(point), rooms[i], strlen(rooms[i])) == 0)
            return true;
    return false;
}

int crash_point(const char *name)
{
    for (int i = 0; i < names_n; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

unsigned crash_kills(int point)
{
    return kills[point];
}

unsigned crash_stops(int point)
{
    return stops[point];
}

/* ------------------------------------------------------------------ in a victim */

static void on_point(const char *name)
{
    int point = crash_point(name);
    if (!armed || point < 0)
        return;
    uint64_t passed = add_relaxed(&mine->hits[point], 1) + 1;
    if (mine->traced < CRASH_TRACE_MAX)
        mine->trace[mine->traced] = (uint8_t)point;
    mine->traced++;
    for (unsigned i = 0; i < steps_n; i++)
        if ((steps[i].point == point && steps[i].nth == passed) ||
            (steps[i].point == CRASH_ANY && steps[i].nth == mine->traced)) {
            store_release(&mine->step, i + 1);
            raise(steps[i].deed == CRASH_KILL ? SIGKILL : SIGSTOP);
        }
}

void crash_faults_are_fatal(void)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        signal(faults[i], SIG_DFL);
}

void crash_arm(void)
{
    armed = true;
}

void crash_disarm(void)
{
    armed = false;
}

void crash_pause(void)
{
    store_release(&mine->paused, 1);
    raise(SIGSTOP);
    store_release(&mine->paused, 0);
}

/* ------------------------------------------------------------------ in the test process */

struct crash_victim *crash_start(void (*fn)(struct crash_page *page, void *ctx), void *ctx,
                                 const struct crash_step *plan, unsigned n)
{
    int i = 0;
    while (i < CRASH_VICTIMS && victims[i].pid != 0)
        i++;
    CHECK(i < CRASH_VICTIMS && n <= STEPS_MAX);
    struct crash_victim *v = &victims[i];
    memset(v->page, 0, sizeof *v->page);
    memset(planned[i], 0, sizeof planned[i]);
    if (n > 0)
        memcpy(planned[i], plan, n * sizeof *plan);
    fflush(NULL);
    pid_t parent = getpid();
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        crash_faults_are_fatal();
        mine = v->page;
        steps_n = n;
        memcpy(steps, planned[i], sizeof steps);
        armed = false;
        idem_point_hook = on_point;
        fn(v->page, ctx);
        fflush(NULL);
        support_save_counters();
        _exit(0);
    }
    v->pid = pid;
    return v;
}

/* The last point that the victim passed is where its deed was done. */
static void count_deed(const struct crash_victim *v, unsigned *counts)
{
    if (v->page->traced > 0 && v->page->traced <= CRASH_TRACE_MAX)
        counts[v->page->trace[v->page->traced - 1]]++;
}

enum crash_end crash_wait(struct crash_victim *v)
{
    int64_t end_ms = support_now_ms() + SUPPORT_PATIENCE_MS;
    for (int64_t nap_us = 20;; nap_us = nap_us < 1000 ? nap_us * 2 : nap_us) {
        int status;
        pid_t got = waitpid(v->pid, &status, WNOHANG | WUNTRACED);
        if (got == v->pid && WIFSTOPPED(status)) {
            if (load_acquire(&v->page->paused) == 0)
                count_deed(v, stops);
            return CRASH_STOPPED;
        }
        if (got == v->pid) {
            v->pid = 0;
            if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                return CRASH_DONE;
            if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
                count_deed(v, kills);
                return CRASH_KILLED;
            }
            print_error("a victim ended with %s %d%s%s\n", WIFEXITED(status) ? "status" : "signal",
                        WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), *support_why() ? ": " : "",
                        support_why());
            support_forget_why();
            return CRASH_WRONG;
        }
        if ((got < 0 && errno != EINTR) || support_now_ms() >= end_ms) {
            print_error("a victim did not come to an end in %d s\n", SUPPORT_PATIENCE_MS / 1000);
            crash_end(v);
            return CRASH_WRONG;
        }
        nanosleep(&(struct timespec){.tv_nsec = nap_us * 1000}, NULL);
    }
}

void crash_continue(struct crash_victim *v)
{
    support_kill(v->pid, SIGCONT);
}

void crash_end(struct crash_victim *v)
{
    if (v->pid != 0)
        support_end(v->pid);
    v->pid = 0;
}

void crash_end_all(void)
{
    for (int i = 0; i < CRASH_VICTIMS; i++)
        crash_end(&victims[i]);
}
