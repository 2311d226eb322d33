/*
 * segment/path.h - where a store lies, and opening its files without being led astray.
 *
 * Owns: name resolution, the checks on directory and files, the directory lock under which stores are made and removed.
 * A planted symlink, FIFO, hard link, foreign file or a directory others may write to gives IDEM_E_PERMISSION.
 */
#ifndef IDEM_SEGMENT_PATH_H
#define IDEM_SEGMENT_PATH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#define IDEM_PATH_MAX 1024

/* Name or directory -> absolute path. With create, /dev/shm/idem-UID is made if it is needed. */
int idem_path_resolve(const char *dir, bool create, char path[IDEM_PATH_MAX]);

/* Opens the directory (O_RDONLY). IDEM_E_NO_STORE if it is not there, unless made is given: then it is made, for the group if
   group != 0, and *made says so. */
int idem_path_open_dir(const char *path, bool *made, int64_t group, int *fd);

/* Opens a file of the store read-write. IDEM_E_NO_STORE if it is not there. */
int idem_path_open_file(int dir_fd, const char *path, const char *name, int *fd, struct stat *st);

/* Takes the directory's flock, waiting up to 10 s; freed by closing dir_fd. */
int idem_path_lock(int dir_fd, const char *path);

#endif
