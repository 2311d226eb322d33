/*
 * dedup_lines.c - cuts standard input into lines for `idem dedup`. Owns one buffer.
 *
 * Invariants
 *  1. A line is all bytes up to and with a newline; NUL and carriage return are bytes like any other. The last line may
 *     lack its newline; it is handed out as it is.
 *  2. Whether a line is over-long depends on its length alone, never on how the bytes came in: the buffer holds
 *     line_max + 1 bytes before any piece is handed out.
 *  3. The buffer moves in dedup_fill() only, so that lines of a batch may point into it.
 *  4. A complete line never waits for the ones behind it: dedup_fill() is one read(), which returns what is there, and it
 *     is called only when no complete line is left.
 *
 * If we die here: bytes read and not written are gone from the pipe. That is so for every filter; lines of a file are read
 * again by whoever runs the pipeline again, and those that were written are dropped then.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dedup.h"

#define FIRST_CAPACITY ((size_t)128 << 10)

void dedup_reader_init(struct dedup_reader *reader, int fd, size_t line_max)
{
    memset(reader, 0, sizeof(*reader));
    reader->fd = fd;
    reader->line_max = line_max;
    reader->capacity = FIRST_CAPACITY;
    reader->buffer = cli_alloc(reader->capacity);
}

void dedup_reader_free(struct dedup_reader *reader)
{
    free(reader->buffer);
    reader->buffer = NULL;
}

static void hand_out(struct dedup_reader *reader, struct dedup_line *line, size_t n, bool newline)
{
    line->bytes = reader->buffer + reader->start;
    line->n = n;
    line->text_bytes = newline ? n - 1 : n;
    line->number = reader->line;
    reader->start += n;
    reader->scanned = 0;
}

enum dedup_next dedup_next_line(struct dedup_reader *reader, struct dedup_line *line)
{
    size_t there = reader->end - reader->start;
    const char *from = reader->buffer + reader->start;
    const char *newline = memchr(from + reader->scanned, '\n', there - reader->scanned);
    size_t n = newline != NULL ? (size_t)(newline - from) + 1 : there;

    if (reader->in_long_line) {
        if (there == 0)
            return reader->ended ? DEDUP_END : DEDUP_NEED_MORE;
        reader->in_long_line = newline == NULL;
        hand_out(reader, line, n, newline != NULL);
        return DEDUP_LONG_MORE;
    }
    size_t text_bytes = newline != NULL ? n - 1 : n;
    if (text_bytes > reader->line_max) {
        reader->line++;
        reader->in_long_line = newline == NULL;
        hand_out(reader, line, n, newline != NULL);
        return DEDUP_LONG;
    }
    if (newline == NULL && !reader->ended) {
        reader->scanned = there;
        return DEDUP_NEED_MORE;
    }
    if (there == 0)
        return DEDUP_END;
    reader->line++;
    hand_out(reader, line, n, newline != NULL);
    return DEDUP_LINE;
}

static void make_room(struct dedup_reader *reader)
{
    size_t there = reader->end - reader->start;
    if (reader->start > 0) {
        memmove(reader->buffer, reader->buffer + reader->start, there);
        reader->start = 0;
        reader->end = there;
    }
    if (reader->end < reader->capacity)
        return;
    /* Only an unfinished line of at most line_max bytes fills the buffer, so this ends at twice that. */
    size_t capacity = reader->capacity * 2;
    char *grown = cli_alloc(capacity);
    memcpy(grown, reader->buffer, there);
    free(reader->buffer);
    reader->buffer = grown;
    reader->capacity = capacity;
}

bool dedup_fill(struct dedup_reader *reader)
{
    make_room(reader);
    for (;;) {
        ssize_t n = read(reader->fd, reader->buffer + reader->end, reader->capacity - reader->end);
        if (n > 0) {
            reader->end += (size_t)n;
            return true;
        }
        if (n == 0) {
            reader->ended = true;
            return true;
        }
        if (errno == EAGAIN) {
            /* Somebody made our standard input non-blocking. */
            struct pollfd readable = {.fd = reader->fd, .events = POLLIN};
            (void)poll(&readable, 1, -1);
        } else if (errno != EINTR) {
            return false;
        }
    }
}
