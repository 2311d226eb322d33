/*
 * io.c - reading and writing whole things over EINTR and short counts, with bounded memory.
 *
 * If we die here: what was written stays written; the callers say what that means for a key.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli.h"

#define READ_STEP 65536

/* After a read or write on fd said no: true if it is worth trying again. A descriptor may be non-blocking because
   whoever shares it made it so. */
static bool wait_ready(int fd, short events)
{
    if (errno == EINTR)
        return true;
    if (errno != EAGAIN)
        return false;
    struct pollfd ready = {fd, events, 0};
    return poll(&ready, 1, -1) >= 0 || errno == EINTR;
}

bool cli_write_all(int fd, const void *bytes, size_t n)
{
    const char *from = bytes;
    while (n > 0) {
        ssize_t done = write(fd, from, n);
        if (done < 0) {
            if (wait_ready(fd, POLLOUT))
                continue;
            return false;
        }
        from += done;
        n -= (size_t)done;
    }
    return true;
}

bool cli_read_all(int fd, size_t limit, void **bytes, size_t *n, bool *over)
{
    size_t room = limit < READ_STEP ? limit : READ_STEP;
    char *kept = cli_alloc(room);
    char *dropped = NULL; /* where bytes over the limit are read to */
    size_t used = 0;
    bool ok = false;

    *over = false;
    for (;;) {
        if (used == room && room < limit) {
            room = room > limit / 2 ? limit : room * 2;
            char *grown = realloc(kept, room);
            if (grown == NULL) {
                errno = ENOMEM;
                break;
            }
            kept = grown;
        }
        if (used == limit && dropped == NULL)
            dropped = cli_alloc(READ_STEP);
        ssize_t got = used < limit ? read(fd, kept + used, room - used) : read(fd, dropped, READ_STEP);
        if (got < 0 && wait_ready(fd, POLLIN))
            continue;
        if (got < 0)
            break;
        if (got == 0) {
            ok = true;
            break;
        }
        if (used < limit)
            used += (size_t)got;
        else
            *over = true;
    }
    int kept_errno = errno;
    free(dropped);
    if (!ok) {
        free(kept);
        kept = NULL;
        used = 0;
    }
    errno = kept_errno;
    *bytes = kept;
    *n = used;
    return ok;
}
