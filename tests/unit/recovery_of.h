/* tests/unit/recovery_of.h - a recovery of a log that was written by hand, and what it says. */
#ifndef TESTS_UNIT_RECOVERY_OF_H
#define TESTS_UNIT_RECOVERY_OF_H

#include "unit/wal_log.h"

struct heard {
    unsigned n;
    char text[8192];
};

static inline void hear(void *ctx, const char *text)
{
    struct heard *h = ctx;
    h->n++;
    size_t used = strlen(h->text);
    snprintf(h->text + used, sizeof h->text - used, "%s\n", text);
}

static inline idem_recovery recovery_of(const struct hand_log *l, const char *dir, struct heard *h)
{
    idem_recovery r = IDEM_RECOVERY_INIT;
    memset(h, 0, sizeof *h);
    r.dir = dir;
    r.wal_dir = l->path;
    r.now_wall_ms = LOG_T0 + 5000;
    r.sentence = hear;
    r.ctx = h;
    return r;
}

#endif
