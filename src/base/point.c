/* base/point.c - the hooks of point.h; empty but in the testing build. */
#include "base/point.h"

#ifdef IDEM_TESTING
void (*idem_point_hook)(const char *name);
int (*idem_fault_hook)(const char *name);
#else
typedef int idem_point_unused;
#endif
