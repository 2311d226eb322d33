/*
 * tests/support/hostile.h - a small store with a key in every state, its files as bytes, and using it by every public function.
 *
 * Owns: the template (both files, as the library wrote them), the mapping of the files that are damaged, and for each key which bytes are its
 * own: slot word, home header, entry, its owner's process slot. A key none of whose bytes was touched must be answered right, or with an error.
 */
#ifndef TESTS_SUPPORT_HOSTILE_H
#define TESTS_SUPPORT_HOSTILE_H

#include "support/crash.h"

#define HOSTILE_KEYS  28u
#define HOSTILE_PARTS 12u

enum hostile_file { HOSTILE_ROOT, HOSTILE_GENERATION, HOSTILE_FILES };

/* A run of bytes of a file that processes read. */
struct hostile_part {
    const char *name;
    enum hostile_file file;
    uint64_t from, bytes;
};

struct hostile_key {
    char name[24];
    int looked_up;                                                  /* what idem_lookup says of it */
    const char *body;                                               /* IDEM_REPLAY with a body: this one */
    uint64_t slot_at, header_at, entry_at, entry_bytes, process_at; /* in the files; process_at 0: none */
    idem_claim claim;                                               /* of its newest attempt, token 0: not known */
};

struct hostile {
    const char *dir;
    char gen_name[64];
    uint8_t *template[HOSTILE_FILES];
    uint64_t bytes[HOSTILE_FILES];
    uint8_t *map[HOSTILE_FILES]; /* the files themselves */
    struct hostile_key keys[HOSTILE_KEYS];
    unsigned keys_n;
    struct hostile_part parts[HOSTILE_PARTS];
    unsigned parts_n;
    uint64_t words; /* in all parts */
    bool expired;   /* time has passed: what keys are is not known */
};

void hostile_make(struct hostile *h);
void hostile_free(struct hostile *h);
/* The files are as the template again. */
void hostile_restore(struct hostile *h);

/* A damaged word: which file, offset (of 8 bytes), and what is there now. */
struct hostile_damage {
    enum hostile_file file;
    uint64_t at;
    const char *part;
};
/* Where the n-th word of all parts lies. */
struct hostile_damage hostile_word(const struct hostile *h, uint64_t n);
bool hostile_touches(const struct hostile_key *k, const struct hostile_damage *d);

/* Codes that a public function may return. */
bool hostile_legal(int code);
/* Opens the store and looks at every key: NULL, or in words what was wrong (static). *store NULL: it could not be opened. doing says which
   function is being called. */
const char *hostile_look(const struct hostile *h, const struct hostile_damage *d, idem_store **store,
                         const char *volatile *doing);
/* Calls everything that changes a store, too. NULL, or what was wrong. */
const char *hostile_use(const struct hostile *h, idem_store *store, uint64_t *random, const char *volatile *doing);

#endif
