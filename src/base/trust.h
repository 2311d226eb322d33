/*
 * base/trust.h - whose files we open.
 *
 * Owns: the rule for directories and files that others could have planted; stores and logs keep the same one. Holds no state.
 */
#ifndef IDEM_BASE_TRUST_H
#define IDEM_BASE_TRUST_H

#include <stdbool.h>
#include <sys/stat.h>

/* Ours, root's, anyone's if we are root, or shared with a group of ours on purpose; never what everybody may write. */
bool idem_trusted(const struct stat *st);

#endif
