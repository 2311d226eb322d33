/* tests/unit/recovery_of.h - a recovery of a log that was written by hand, and what it says. */
#ifndef TESTS_UNIT_RECOVERY_OF_H
#define TESTS_UNIT_RECOVERY_OF_H

#include <dirent.h>
#include <string.h>

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

/* Descriptors of this process. */
static inline unsigned open_files(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    CHECK(d != NULL);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

/* What a recovery leaves: in the store's directory root and one generation; in the log's nothing that is temporary. */
static inline void check_nothing_is_left(const char *dir, const char *log)
{
    unsigned files = 0;
    DIR *d = opendir(dir);
    CHECK(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        files += e->d_name[0] != '.';
    closedir(d);
    CHECK_IS(files, 2);
    d = opendir(log);
    CHECK(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        CHECK(strstr(e->d_name, "tmp") == NULL);
    closedir(d);
}

#endif
