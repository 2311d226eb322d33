/*
 * server.h - a server that a peer starts, a buffered connection to it, and what is the same in all peers that are one.
 *
 * Owns: the child process and its socket's path; it asks the kernel for SIGTERM when the host dies, so nothing outlives a run
 * that is killed. Unix sockets only. Every wait is bounded: for the socket, for an answer, for the server's end.
 */
#ifndef BENCH_PEER_SERVER_H
#define BENCH_PEER_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "peer.h"

#define SERVER_PATH_BYTES 108u /* what a Unix address holds */

struct server {
    pid_t pid;
    char socket[SERVER_PATH_BYTES];
};

/* dir/name as a socket's path. 0, or -1 with a sentence in why: it is too long for an address. */
int server_socket(struct server *s, const char *dir, const char *name, char *why);

/* Starts argv[0] and waits until it accepts connections on s->socket; what it says goes to `log`. 0, or -1 with a sentence in why. */
int server_start(struct server *s, const char *const argv[], const char *log, char *why);

/* SIGTERM, and SIGKILL for who does not end within seconds. Safe after a failed start. */
void server_end(struct server *s);

/* What follows `mark` in the first line that the command prints, up to a blank; "?" if there is none. Not for user's words: it goes through a shell. */
void server_says(const char *command, const char *mark, char *text, size_t text_bytes);

/* What is written is collected until wire_send(); what is read stays valid until the next read. */
struct wire {
    int fd;
    char *out;
    size_t out_bytes, out_room;
    char *in;
    size_t in_from, in_to, in_room;
    char error[PEER_WHY_BYTES];
};

/* 0, or -1: w->error says why, as for all of these. */
int wire_open(struct wire *w, const char *path);
void wire_close(struct wire *w);
int wire_fail(struct wire *w, const char *what); /* always -1; errno's words are added */
/* Room for n bytes more behind what is collected; the caller fills them. NULL: no memory. */
char *wire_more(struct wire *w, size_t n);
int wire_put(struct wire *w, const void *bytes, size_t n);
int wire_send(struct wire *w);
/* The next line without its CR LF, terminated. NULL: none came. */
char *wire_line(struct wire *w);
/* The next n bytes. NULL: they did not come. */
const char *wire_take(struct wire *w, size_t n);

/* An answer that is none: who asked `what` was told `said` (NULL: w->error says why there was none). Always -1. */
int wire_unexpected(struct wire *w, const char *what, const char *said);

/* What such a peer's prepare() makes, and its attach(). The functions are those of struct peer. */
struct server_peer {
    struct server server;
    uint64_t empty_bytes; /* what it takes without a key */
};
struct server_worker {
    struct wire wire;
    const struct server_peer *peer;
};
void *server_attach(void *peer, unsigned me, char *why);
const char *server_error(void *worker);
void server_detach(void *worker);
void server_stop(void *peer);
/* What it uses now, less what it took when it was empty. */
uint64_t server_used(const struct server_worker *w, uint64_t bytes);

#endif
