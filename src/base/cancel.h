/*
 * base/cancel.h - no cancellation while files are opened, locks held, read sections open.
 *
 * The data path has no cancellation points; what opens, closes and describes a store has, and would leave a lock held.
 */
#ifndef IDEM_BASE_CANCEL_H
#define IDEM_BASE_CANCEL_H

#include <pthread.h>

/* Returns what idem_cancel_restore() wants. */
static inline int idem_cancel_defer(void)
{
    int old;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
    return old;
}

static inline void idem_cancel_restore(int old)
{
    int unused;
    pthread_setcancelstate(old, &unused);
}

#endif
