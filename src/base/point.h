/*
 * base/point.h - named crash points.
 *
 * IDEM_POINT("claim.published") marks the moment after a step of a protocol. In the library they are nothing; in the
 * testing build each one calls a hook that a test may set to kill, stop or pause the process there. The names are the
 * step names of docs/protocol.md and of the models.
 */
#ifndef IDEM_BASE_POINT_H
#define IDEM_BASE_POINT_H

#ifdef IDEM_TESTING
extern void (*idem_point_hook)(const char *name);
#define IDEM_POINT(name)           \
    do {                           \
        if (idem_point_hook != 0)  \
            idem_point_hook(name); \
    } while (0)
/* A seeded fault: true only when a test has switched it on by name. Shows that the tests can fail. */
extern int (*idem_fault_hook)(const char *name);
#define IDEM_FAULT(name) (idem_fault_hook != 0 && idem_fault_hook(name))
#else
#define IDEM_POINT(name) ((void)0)
#define IDEM_FAULT(name) 0
#endif

#endif
