/*
 * frame.c - the metadata that `idem run` stores with an answer: where in the body stdout ends and stderr begins.
 *
 * Format, little endian: 6 bytes "idemrn", 2 bytes version (1), 8 bytes length of stdout, 8 bytes length of stderr.
 * The body is exactly that many bytes of stdout, then of stderr.
 *
 * Invariants
 *  1. A frame is believed only if magic, version and both lengths fit the body; anything else is "not ours".
 *
 * If we die here: pure functions, nothing is left behind.
 */
#include <string.h>

#include "cli.h"

#define FRAME_VERSION 1u

static const char magic[6] = {'i', 'd', 'e', 'm', 'r', 'n'};

static void put_le(uint8_t *out, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_le(const uint8_t *in, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t)in[i] << (8 * i);
    return value;
}

void cli_frame_encode(const struct cli_frame *frame, uint8_t out[CLI_FRAME_BYTES])
{
    memcpy(out, magic, sizeof(magic));
    put_le(out + 6, FRAME_VERSION, 2);
    put_le(out + 8, frame->stdout_bytes, 8);
    put_le(out + 16, frame->stderr_bytes, 8);
}

bool cli_frame_decode(const void *meta, size_t meta_bytes, size_t body_bytes, struct cli_frame *frame)
{
    const uint8_t *in = meta;
    if (in == NULL || meta_bytes != CLI_FRAME_BYTES || memcmp(in, magic, sizeof(magic)) != 0 ||
        get_le(in + 6, 2) != FRAME_VERSION)
        return false;
    frame->stdout_bytes = get_le(in + 8, 8);
    frame->stderr_bytes = get_le(in + 16, 8);
    return frame->stdout_bytes <= body_bytes && body_bytes - frame->stdout_bytes == frame->stderr_bytes;
}
