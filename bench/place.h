/*
 * place.h - the directory a run works in, on a tmpfs that gives huge pages where that can be had.
 *
 * Owns: one private directory under /dev/shm (or a folder the caller names) and, as root, a tmpfs mounted on it with
 * huge=advise in a mount namespace of this process alone. place_close() empties, unmounts and removes it.
 * If we die before that: the mount and all its memory go away with the namespace, that is with the last process of the
 * run; an empty directory may stay, which bench/run removes. Without the mount, files may stay too, and bench/run removes
 * those as well.
 */
#ifndef BENCH_PLACE_H
#define BENCH_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct place {
    char dir[256];
    bool made;         /* we made the directory */
    bool mounted;      /* we mounted a tmpfs on it */
    bool huge;         /* files here can have 2 MiB pages */
    char no_huge[256]; /* else: why not */
};

/* parent: an existing folder on a tmpfs, or NULL for /dev/shm. bytes: limit of the tmpfs, if one is mounted. 0, or -1 with a
   sentence on stderr. */
int place_open(struct place *p, const char *parent, uint64_t bytes);
void place_close(struct place *p);

/* Bytes that may still be written here without passing the file system's limit or the machine's free memory. */
uint64_t place_free_bytes(const struct place *p);

/* A shared mapping of a file in p->dir that is unlinked, allocated and touched. NULL with a sentence in why. */
void *place_map(const struct place *p, size_t bytes, bool huge, char *why, size_t why_bytes);
size_t place_rounded(size_t bytes); /* what place_map() takes for that many: whole 2 MiB */
void place_unmap(void *at, size_t bytes);

/* Maps every page of [at, at + bytes) in this process, so that no page fault falls into a measured block. 0 or -1 (errno). */
int place_touch(void *at, size_t bytes);

/* The same for every shared mapping of a file below `dir` in this process. 0 or -1 (errno). */
int place_touch_files(const char *dir);

/* Gives every large private mapping of this process 2 MiB pages at once, also what a library allocated without asking for any.
   Best effort: where the kernel has none, small pages are what the library's user gets. */
void place_collapse_memory(void);

/* Removes what lies at path, and everything below it on the same file system; no complaint if nothing does. */
void place_remove_tree(const char *path);

/* Of this process's mapping at `at`: bytes in 2 MiB pages, from /proc/self/smaps. */
uint64_t place_huge_bytes(const void *at);

#ifdef __cplusplus
}
#endif
#endif
