/* tests/support/tracer.c - see tracer.h. */
#include "support/tracer.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOT_PERMITTED 77
#define LOOK_BYTES    64u /* the widest store, but for what a string instruction repeats: stepping makes that one by one */

/* ------------------------------------------------------------------ the child */

struct traced {
    void (*fn)(void *ctx);
    void *ctx;
};

static void be_traced(void *ctx)
{
    struct traced *t = ctx;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        _exit(NOT_PERMITTED);
    raise(SIGSTOP);
    t->fn(t->ctx);
}

static void wait_for(struct tracer *t)
{
    while (waitpid(t->pid, &t->status, 0) < 0)
        CHECK(errno == EINTR);
}

bool tracer_start(struct tracer *t, const char *below, void (*fn)(void *ctx), void *ctx)
{
    struct traced child = {fn, ctx};
    memset(t, 0, sizeof *t);
    t->below = below;
    t->pid = support_spawn(be_traced, &child);
    wait_for(t);
    if (WIFEXITED(t->status) && WEXITSTATUS(t->status) == NOT_PERMITTED)
        return false;
    CHECK(WIFSTOPPED(t->status));
    CHECK_IS(ptrace(PTRACE_SETOPTIONS, t->pid, NULL, (void *)PTRACE_O_TRACESYSGOOD), 0);
    return true;
}

void tracer_kill(struct tracer *t)
{
    if (!WIFSTOPPED(t->status))
        return;
    support_kill(t->pid, SIGKILL);
    wait_for(t);
    CHECK(WIFSIGNALED(t->status) && WTERMSIG(t->status) == SIGKILL);
}

/* Goes on; what stopped it? */
static enum tracer_stop resume(struct tracer *t, int how)
{
    CHECK_IS(ptrace((enum __ptrace_request)how, t->pid, NULL, NULL), 0);
    wait_for(t);
    if (!WIFSTOPPED(t->status))
        return TRACER_ENDED;
    if (WSTOPSIG(t->status) == SIGSTOP)
        return TRACER_SELF;
    CHECK((WSTOPSIG(t->status) & ~0x80) == SIGTRAP); /* a fault would be the library's */
    return TRACER_CALL;
}

static enum tracer_stop to_call(struct tracer *t)
{
    enum tracer_stop s = resume(t, PTRACE_SYSCALL); /* its entry */
    if (s == TRACER_CALL)
        s = resume(t, PTRACE_SYSCALL);
    t->calls += s == TRACER_CALL;
    t->fresh = false;
    return s;
}

#ifdef __x86_64__

/* ------------------------------------------------------------------ which memory does an instruction touch? */

struct decoded {
    uint64_t at; /* 0: this place is empty */
    enum { NO_MEMORY, OPERAND, STRING, CALL } kind;
    int8_t base, index, scale; /* registers by their number in the instruction; -1: none, -2: the program's own data */
    int32_t displacement;
};

static struct decoded cache[1u << 16];

static bool in(unsigned op, const uint8_t *list, unsigned n)
{
    for (unsigned i = 0; i < n; i += 2)
        if (op >= list[i] && op <= list[i + 1])
            return true;
    return false;
}

/* Is there a ModRM byte behind this opcode? */
static bool has_operand(unsigned map, unsigned op)
{
    static const uint8_t one[] = {0x62, 0x63, 0x69, 0x69, 0x6b, 0x6b, 0x80, 0x8f, 0xc0, 0xc1,
                                  0xc6, 0xc7, 0xd0, 0xd3, 0xd8, 0xdf, 0xf6, 0xf7, 0xfe, 0xff};
    static const uint8_t none_of_two[] = {0x05, 0x09, 0x0b, 0x0e, 0x30, 0x37, 0x77, 0x77,
                                          0x80, 0x8f, 0xa0, 0xa2, 0xa8, 0xaa, 0xc8, 0xcf};
    if (map == 1)
        return (op < 0x40 && op % 8 < 4) || in(op, one, sizeof one);
    return map != 2 || !in(op, none_of_two, sizeof none_of_two);
}

static void decode(const uint8_t *c, struct decoded *d)
{
    unsigned i = 0, rex = 0, map = 1;
    d->kind = NO_MEMORY;
    while (c[i] == 0x66 || c[i] == 0x67 || c[i] == 0xf0 || c[i] == 0xf2 || c[i] == 0xf3 || c[i] == 0x2e ||
           c[i] == 0x36 || c[i] == 0x3e || c[i] == 0x26 || c[i] == 0x64 || c[i] == 0x65)
        if (c[i] == 0x64 || c[i] == 0x65 || i++ == 8)
            return; /* a thread's own memory */
    if ((c[i] & 0xf0) == 0x40)
        rex = c[i++];
    if (c[i] == 0x0f && c[i + 1] == 0x05) {
        d->kind = CALL;
        return;
    }
    unsigned vex = c[i] == 0xc5 ? 2 : c[i] == 0xc4 ? 3 : c[i] == 0x62 ? 4 : 0;
    bool evex = vex == 4;
    if (vex == 2) {
        map = 2;
    } else if (vex != 0) { /* the bits are inverted */
        rex = (unsigned)(~c[i + 1] >> 5 & 7);
        map = c[i + 1] % 8u + 1;
    } else if (c[i] == 0x0f) {
        map = c[i + 1] == 0x38 ? 3 : c[i + 1] == 0x3a ? 4 : 2;
        i += map == 2 ? 1 : 2;
    }
    unsigned width = evex ? 16u << (c[i + 3] >> 5 & 3) : 0;
    i += vex;
    unsigned op = c[i++];
    if (map == 1 && (op == 0xa4 || op == 0xa5 || op == 0xaa || op == 0xab)) {
        d->kind = STRING;
        return;
    }
    if (!has_operand(map, op))
        return;
    unsigned mod = c[i] >> 6, rm = c[i] & 7u;
    i++;
    if (mod == 3 || (map == 1 && op == 0x8d)) /* a register; an address that is only computed */
        return;
    d->kind = OPERAND;
    d->base = (int8_t)(rm | (rex & 1) << 3);
    d->index = -1;
    d->displacement = 0;
    if (rm == 4) {
        unsigned sib = c[i++], index = (sib >> 3 & 7) | (rex & 2) << 2;
        d->base = (int8_t)((sib & 7) | (rex & 1) << 3);
        d->index = index == 4 ? -1 : (int8_t)index;
        d->scale = (int8_t)(1 << (sib >> 6));
        if ((sib & 7) == 5 && mod == 0) {
            d->base = -1;
            mod = 2;
        }
    } else if (rm == 5 && mod == 0) {
        d->base = -2;
        mod = 2;
    }
    if (mod == 1)
        d->displacement = (int8_t)c[i] * (evex ? (int)width : 1); /* compressed: in vectors */
    else if (mod == 2)
        memcpy(&d->displacement, c + i, 4);
}

static void read_memory(const struct tracer *t, uint64_t at, void *to, size_t n)
{
    struct iovec mine = {to, n}, its = {(void *)(uintptr_t)at, n}; /* NOLINT: another process's address */
    memset(to, 0, n);
    ssize_t got = process_vm_readv(t->pid, &mine, 1, &its, 1, 0);
    if (got < 0 && at % 4096 + n > 4096) { /* its second page is not there */
        mine.iov_len = its.iov_len = 4096 - at % 4096;
        got = process_vm_readv(t->pid, &mine, 1, &its, 1, 0);
    }
}

static uint64_t register_of(const struct user_regs_struct *r, int number)
{
    const unsigned long long all[16] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
                                        r->r8,  r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15};
    return number < 0 ? 0 : all[number];
}

static void refresh(struct tracer *t)
{
    char path[64], line[512];
    t->fresh = true;
    t->ranges_n = 0;
    snprintf(path, sizeof path, "/proc/%d/maps", (int)t->pid);
    FILE *maps = fopen(path, "re");
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL) {
        uint64_t from, to;
        if (strstr(line, t->below) == NULL || sscanf(line, "%" SCNx64 "-%" SCNx64, &from, &to) != 2)
            continue;
        CHECK(t->ranges_n < sizeof t->ranges / sizeof t->ranges[0]);
        t->ranges[t->ranges_n].from = from;
        t->ranges[t->ranges_n++].to = to;
    }
    fclose(maps);
}

/* Where the next instruction may change shared memory; 0: nowhere. */
static uint64_t shared_operand(struct tracer *t, bool *call)
{
    struct user_regs_struct r;
    CHECK_IS(ptrace(PTRACE_GETREGS, t->pid, NULL, &r), 0);
    struct decoded *d = &cache[r.rip % (sizeof cache / sizeof cache[0])];
    if (d->at != r.rip) {
        uint8_t code[24];
        read_memory(t, r.rip, code, sizeof code);
        decode(code, d);
        d->at = r.rip;
    }
    *call = d->kind == CALL;
    if (d->kind != OPERAND && d->kind != STRING)
        return 0;
    uint64_t at = r.rdi;
    if (d->kind == OPERAND)
        at = d->base == -2 ? 0
                           : register_of(&r, d->base) + register_of(&r, d->index) * (uint64_t)d->scale +
                                 (uint64_t)(int64_t)d->displacement;
    if (!t->fresh)
        refresh(t);
    for (unsigned i = 0; i < t->ranges_n; i++)
        if (at + LOOK_BYTES > t->ranges[i].from && at < t->ranges[i].to)
            return at;
    return 0;
}

static enum tracer_stop to_store(struct tracer *t, uint64_t steps)
{
    for (uint64_t n = 0; steps == 0 || n < steps; n++) {
        uint8_t before[LOOK_BYTES], after[LOOK_BYTES];
        bool call;
        uint64_t at = shared_operand(t, &call);
        if (at != 0)
            read_memory(t, at, before, sizeof before);
        enum tracer_stop s = resume(t, PTRACE_SINGLESTEP);
        if (s != TRACER_CALL)
            return s;
        t->steps++;
        if (call) {
            t->calls++;
            t->fresh = false;
            return TRACER_CALL;
        }
        if (at == 0)
            continue;
        read_memory(t, at, after, sizeof after);
        if (memcmp(before, after, sizeof before) == 0)
            continue;
        t->stores++;
        return TRACER_STORE;
    }
    return TRACER_STORE;
}

bool tracer_steps(void)
{
    return true;
}

enum tracer_stop tracer_next(struct tracer *t, enum tracer_pace pace, uint64_t steps)
{
    return pace == TRACER_CALLS ? to_call(t) : to_store(t, steps);
}

#else

bool tracer_steps(void)
{
    return false;
}

enum tracer_stop tracer_next(struct tracer *t, enum tracer_pace pace, uint64_t steps)
{
    (void)pace;
    (void)steps;
    return to_call(t);
}

#endif
