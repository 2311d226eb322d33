/*
 * quote.c - arbitrary bytes as text that a terminal, a shell or a person can take, and back.
 *
 * Invariants
 *  1. cli_unquote(cli_quote(b)) is b, for all bytes; two different byte strings never have the same quoted form.
 *  2. A quoted form is one word: no spaces, no control bytes, nothing beyond ASCII, never empty.
 *  3. A line for the shell can't end its own quotes: a single quote is written '\''.
 *
 * If we die here: pure functions, nothing is left behind.
 */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* The quoted form of one byte; returns its length, 1 to 4. */
static size_t quote_byte(unsigned char byte, char out[4])
{
    static const char digits[] = "0123456789abcdef";
    const char *letter = NULL;
    if (byte == '\\')
        letter = "\\";
    else if (byte == '\n')
        letter = "n";
    else if (byte == '\t')
        letter = "t";
    else if (byte == '\r')
        letter = "r";
    if (letter != NULL) {
        out[0] = '\\';
        out[1] = *letter;
        return 2;
    }
    if (byte > 0x20 && byte < 0x7f) {
        out[0] = (char)byte;
        return 1;
    }
    out[0] = '\\';
    out[1] = 'x';
    out[2] = digits[byte >> 4];
    out[3] = digits[byte & 15];
    return 4;
}

static size_t quote_into(char *out, const unsigned char *bytes, size_t n)
{
    size_t used = 0;
    if (n == 0) {
        out[used++] = '-';
    } else if (n == 1 && bytes[0] == '-') {
        memcpy(out, "\\x2d", 4);
        used = 4;
    } else {
        for (size_t i = 0; i < n; i++)
            used += quote_byte(bytes[i], out + used);
    }
    return used;
}

char *cli_quote(const void *bytes, size_t n)
{
    if (n > (SIZE_MAX - 2) / 4) {
        cli_warn("out of memory (quoting %zu bytes)", n);
        exit(CLI_EXIT_TROUBLE);
    }
    char *out = cli_alloc(4 * n + 2);
    out[quote_into(out, bytes, n)] = '\0';
    return out;
}

void cli_print_quoted(FILE *out, const void *bytes, size_t n)
{
    const unsigned char *from = bytes;
    char piece[5];
    if (n <= 1) {
        (void)fwrite(piece, 1, quote_into(piece, from, n), out);
        return;
    }
    for (size_t i = 0; i < n; i++)
        (void)fwrite(piece, 1, quote_byte(from[i], piece), out);
}

char *cli_quote_key(const idem_key *key)
{
    char *name = cli_quote(key->key, key->key_bytes);
    if (key->scope_bytes == 0)
        return name;
    char *scope = cli_quote(key->scope, key->scope_bytes);
    size_t room = strlen(scope) + strlen(name) + 2;
    char *both = cli_alloc(room);
    (void)snprintf(both, room, "%s/%s", scope, name);
    free(scope);
    free(name);
    return both;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool cli_unquote(char *text, size_t *n)
{
    if (strcmp(text, "-") == 0) {
        *n = 0;
        return true;
    }
    const char *from = text;
    char *to = text;
    if (*from == '\0')
        return false;
    while (*from != '\0') {
        unsigned char byte = (unsigned char)*from++;
        if (byte <= 0x20 || byte >= 0x7f)
            return false;
        if (byte != '\\') {
            *to++ = (char)byte;
            continue;
        }
        char kind = *from;
        if (kind == '\0')
            return false;
        from++;
        if (kind == '\\') {
            *to++ = '\\';
        } else if (kind == 'n') {
            *to++ = '\n';
        } else if (kind == 't') {
            *to++ = '\t';
        } else if (kind == 'r') {
            *to++ = '\r';
        } else if (kind == 'x') {
            int high = hex_value(from[0]);
            int low = high < 0 ? -1 : hex_value(from[1]);
            if (low < 0)
                return false;
            *to++ = (char)(high * 16 + low);
            from += 2;
        } else {
            return false;
        }
    }
    *n = (size_t)(to - text);
    return true;
}

static void print_shell_line(FILE *out, const char *name, const char *suffix, const char *bytes, size_t n)
{
    (void)fprintf(out, "%s%s='", name, suffix);
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '\'')
            (void)fputs("'\\''", out);
        else
            (void)fputc(bytes[i], out);
    }
    (void)fputs("'\n", out);
}

void cli_print_shell_text(FILE *out, const char *name, const char *text)
{
    print_shell_line(out, name, "", text, strlen(text));
}

void cli_print_shell_bytes(FILE *out, const char *name, const void *bytes, size_t n)
{
    if (n == 0 || memchr(bytes, '\0', n) == NULL) {
        print_shell_line(out, name, "", bytes, n);
        print_shell_line(out, name, "_QUOTED", "", 0);
        return;
    }
    char *quoted = cli_quote(bytes, n);
    print_shell_line(out, name, "", "", 0);
    print_shell_line(out, name, "_QUOTED", quoted, strlen(quoted));
    free(quoted);
}
