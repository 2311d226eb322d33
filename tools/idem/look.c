/*
 * look.c - helpers of the subcommands that look at a store; see look.h.
 *
 * Invariant: everything said to a person can be pasted back. A command built here evaluates, in any POSIX shell, to the
 * same store, scope and key, whatever bytes these have.
 *
 * If we die here: nothing is changed by looking.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "look.h"

static int64_t clock_ms(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t look_wall_ms(void)
{
    return clock_ms(CLOCK_REALTIME);
}

int64_t look_monotonic_ms(void)
{
    return clock_ms(CLOCK_BOOTTIME);
}

int64_t look_age_ms(const idem_story *story)
{
    int64_t age_ms = look_wall_ms() - story->at_wall_ms;
    return age_ms > 0 ? age_ms : 0;
}

/* ------------------------------------------------------------------ commands to paste */

/* As one shell word: bare if harmless, else in single quotes. */
static void print_word(FILE *out, const char *bytes, size_t n)
{
    static const char harmless[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@%+,=";
    bool bare = n > 0;
    for (size_t i = 0; i < n && bare; i++)
        bare = bytes[i] != '\0' && strchr(harmless, bytes[i]) != NULL;
    if (bare) {
        fwrite(bytes, 1, n, out);
        return;
    }
    fputc('\'', out);
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '\'')
            fputs("'\\''", out);
        else
            fputc(bytes[i], out);
    }
    fputc('\'', out);
}

/* Whether a person sees what he pastes: no control bytes, no bytes beyond ASCII. */
static bool is_plain(const void *bytes, size_t n)
{
    const unsigned char *at = bytes;
    for (size_t i = 0; i < n; i++) {
        if (at[i] < 0x20 || at[i] > 0x7e)
            return false;
    }
    return true;
}

static void print_key_option(FILE *out, const char *option, const void *bytes, size_t n, bool quoted)
{
    fprintf(out, " --%s ", option);
    if (!quoted) {
        print_word(out, bytes, n);
        return;
    }
    char *text = cli_quote(bytes, n);
    print_word(out, text, strlen(text));
    free(text);
}

char *look_command(const struct cli_common *common, const char *verb, uint64_t token)
{
    const idem_key *key = &common->key;
    bool quoted = !is_plain(key->scope, key->scope_bytes) || !is_plain(key->key, key->key_bytes);
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    if (out == NULL) {
        cli_warn("out of memory");
        exit(CLI_EXIT_TROUBLE);
    }
    fprintf(out, "idem %s", verb);
    if (strcmp(common->store, "default") != 0) {
        fputs(" --store ", out);
        print_word(out, common->store, strlen(common->store));
    }
    if (quoted)
        fputs(" --quoted", out);
    if (key->scope_bytes > 0)
        print_key_option(out, "scope", key->scope, key->scope_bytes, quoted);
    print_key_option(out, "key", key->key, key->key_bytes, quoted);
    if (token != 0)
        fprintf(out, " --token %" PRIu64, token);
    if (fclose(out) != 0) {
        cli_warn("out of memory");
        exit(CLI_EXIT_TROUBLE);
    }
    return text;
}

/* ------------------------------------------------------------------ stories and figures */

bool look_is_held(const idem_story *story)
{
    return story->state == IDEM_STATE_LOST && (story->flags & IDEM_HOLD) != 0;
}

const char *look_log_state_word(uint32_t log_state)
{
    return log_state == 0 ? "none" : log_state == 1 ? "written" : "durable";
}

void look_story_json(struct json_object *object, const idem_story *story)
{
    bool runs = story->state == IDEM_STATE_IN_PROGRESS || story->state == IDEM_STATE_LOST;
    bool completed = story->state == IDEM_STATE_COMPLETED;
    cli_json_text(object, "state", cli_state_word(story->state));
    cli_json_bool(object, "hold", (story->flags & IDEM_HOLD) != 0);
    cli_json_bool(object, "lease_only", (story->flags & IDEM_LEASE_ONLY) != 0);
    cli_json_bool(object, "retained", completed && (story->reply_flags & IDEM_REPLY_NOT_RETAINED) == 0);
    cli_json_bool(object, "transient", (story->reply_flags & IDEM_REPLY_TRANSIENT) != 0);
    cli_json_count(object, "attempt", story->attempt);
    cli_json_token(object, "token", story->token);
    cli_json_fingerprint(object, "fingerprint", story->fingerprint);
    cli_json_number(object, "at_wall_ms", story->at_wall_ms);
    cli_json_number(object, "age_ms", look_age_ms(story));
    cli_json_ms(object, "expires_in_ms", story->expires_in_ms);
    if (runs) {
        cli_json_number(object, "lease_left_ms", story->lease_left_ms);
        cli_json_number(object, "owner_pid", story->owner_pid);
        cli_json_bool(object, "owner_alive", story->owner_alive != 0);
    }
    cli_json_bool(object, "waiters", story->waiters != 0);
    cli_json_text(object, "lost_reason", cli_lost_reason_word(story->lost_reason));
    cli_json_token(object, "lost_token", story->lost_token);
    if (completed) {
        cli_json_number(object, "status", story->status);
        cli_json_count(object, "meta_bytes", story->meta_bytes);
        cli_json_count(object, "body_bytes", story->body_bytes);
    }
    cli_json_bytes(object, "mark", story->mark, story->mark_bytes);
    cli_json_count(object, "bucket", story->bucket);
    cli_json_count(object, "distance", story->distance);
    cli_json_text(object, "log_state", look_log_state_word(story->log_state));
    if (story->log_state != 0)
        cli_json_count(object, "log_position", story->log_position);
}

uint64_t look_begins(const idem_stats_data *stats)
{
    return stats->claimed + stats->reclaimed + stats->replayed + stats->in_progress + stats->mismatched +
           stats->unknown;
}

int look_stats(idem_store *store, idem_stats_data *stats)
{
    memset(stats, 0, sizeof(*stats));
    stats->size = sizeof(*stats);
    return idem_stats(store, stats);
}

char *look_uuid_text(const idem_stats_data *stats, char out[CLI_TEXT_BYTES])
{
    size_t used = 0;
    for (size_t i = 0; i < sizeof(stats->store_uuid); i++) {
        bool dash = i == 4 || i == 6 || i == 8 || i == 10;
        used += (size_t)snprintf(out + used, CLI_TEXT_BYTES - used, "%s%02x", dash ? "-" : "", stats->store_uuid[i]);
    }
    return out;
}

char *look_count_text(uint64_t count, char out[CLI_TEXT_BYTES])
{
    char digits[24];
    size_t n = (size_t)snprintf(digits, sizeof(digits), "%" PRIu64, count);
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            out[used++] = ',';
        out[used++] = digits[i];
    }
    out[used] = '\0';
    return out;
}

char *look_rate_text(double per_second, char out[CLI_TEXT_BYTES])
{
    static const struct {
        double factor;
        const char *letter;
    } units[] = {{1e9, "G"}, {1e6, "M"}, {1e4, "k"}, {1, ""}};
    size_t unit = 0;
    double factor;
    while (unit + 1 < sizeof(units) / sizeof(units[0]) && per_second < units[unit].factor)
        unit++;
    factor = unit == 2 ? 1e3 : units[unit].factor;
    double value = per_second / factor;
    if (value < 0.005)
        (void)snprintf(out, CLI_TEXT_BYTES, "0");
    else
        (void)snprintf(out, CLI_TEXT_BYTES, "%.*f%s", value < 1 ? 2 : value < 100 ? 1 : 0, value, units[unit].letter);
    return out;
}

char *look_percent_text(uint64_t part, uint64_t whole, char out[CLI_TEXT_BYTES])
{
    double percent = whole > 0 ? 100.0 * (double)part / (double)whole : 0;
    if (whole == 0)
        (void)snprintf(out, CLI_TEXT_BYTES, "-");
    else
        (void)snprintf(out, CLI_TEXT_BYTES, "%.*f %%", percent > 0 && percent < 0.095 ? 3 : 1, percent);
    return out;
}

char *look_class_text(int64_t ttl_ms, char out[CLI_TEXT_BYTES])
{
    char ttl[CLI_TEXT_BYTES];
    if (ttl_ms == 0)
        (void)snprintf(out, CLI_TEXT_BYTES, "claims");
    else if (ttl_ms == IDEM_FOREVER)
        (void)snprintf(out, CLI_TEXT_BYTES, "kept forever");
    else
        (void)snprintf(out, CLI_TEXT_BYTES, "kept up to %.30s", cli_duration_text(ttl_ms, ttl));
    return out;
}

/* ------------------------------------------------------------------ huge pages */

#define SHMEM_ENABLED "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

struct mount {
    char point[256];
    char options[256]; /* of the file system: where "huge=" is */
};

/* The mount that `path` is on; false: not found. */
static bool find_mount(const char *path, struct mount *mount)
{
    struct stat status;
    if (stat(path, &status) != 0)
        return false;
    FILE *in = fopen("/proc/self/mountinfo", "re");
    if (in == NULL)
        return false;
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    /* ID PARENT MAJOR:MINOR ROOT MOUNT-POINT OPTIONS [FIELDS...] - TYPE SOURCE SUPER-OPTIONS */
    while (!found && getline(&line, &room, in) > 0) {
        unsigned major_number, minor_number;
        const char *rest = strstr(line, " - ");
        found = rest != NULL &&
                sscanf(line, "%*s %*s %u:%u %*s %255s", &major_number, &minor_number, mount->point) == 3 &&
                makedev(major_number, minor_number) == status.st_dev &&
                sscanf(rest, " - %*s %*s %255s", mount->options) == 1;
    }
    free(line);
    fclose(in);
    return found;
}

void look_huge_advice(const char *store_path, struct look_huge *advice)
{
    struct mount mount = {"/dev/shm", ""};
    char setting[128] = "";
    advice->command[0] = '\0';
    FILE *in = fopen(SHMEM_ENABLED, "re");
    if (in == NULL) {
        (void)snprintf(advice->why, sizeof(advice->why), "this kernel has none for tmpfs");
        return;
    }
    if (fgets(setting, sizeof(setting), in) != NULL && strstr(setting, "[deny]") != NULL) {
        (void)snprintf(advice->why, sizeof(advice->why), "this kernel is told to give none to any tmpfs");
        (void)snprintf(advice->command, sizeof(advice->command), "echo advise > %s", SHMEM_ENABLED);
        fclose(in);
        return;
    }
    fclose(in);
    bool found = find_mount(store_path, &mount);
    const char *huge = strstr(mount.options, "huge=");
    if (!found || huge == NULL || strncmp(huge, "huge=never", 10) == 0) {
        (void)snprintf(advice->why, sizeof(advice->why), "the tmpfs at %s is not mounted with huge=advise",
                       mount.point);
        (void)snprintf(advice->command, sizeof(advice->command), "mount -o remount,huge=advise %s", mount.point);
        return;
    }
    (void)snprintf(advice->why, sizeof(advice->why),
                   "%s gives them, but this store was made before that, or with --huge off, or when none were free",
                   mount.point);
}

/* ------------------------------------------------------------------ counting keys */

static int count_story(const idem_story *story, void *ctx)
{
    struct look_census *census = ctx;
    if (story->state > 0 && story->state < (int)(sizeof(census->by_state) / sizeof(census->by_state[0])))
        census->by_state[story->state]++;
    if (look_is_held(story))
        census->held++;
    int64_t age_ms = look_age_ms(story);
    if (story->state != IDEM_STATE_IN_PROGRESS || (census->any_running && age_ms <= census->oldest_age_ms))
        return 0;
    census->any_running = true;
    census->oldest_age_ms = age_ms;
    census->oldest_lease_left_ms = story->lease_left_ms;
    census->oldest_pid = story->owner_pid;
    census->oldest_lease_only = (story->flags & IDEM_LEASE_ONLY) != 0;
    char *key = cli_quote_key(&(idem_key){story->scope, story->scope_bytes, story->key, story->key_bytes});
    bool cut = strlen(key) >= sizeof(census->oldest_key);
    (void)snprintf(census->oldest_key, sizeof(census->oldest_key), "%.*s%s", cut ? 92 : 95, key, cut ? "..." : "");
    free(key);
    return 0;
}

int look_census(idem_store *store, struct look_census *census)
{
    memset(census, 0, sizeof(*census));
    return idem_walk(store, count_story, census);
}
