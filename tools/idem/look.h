/*
 * look.h - what the subcommands that look at a store share (ls, get, why, stat, top, and operate.c's): a story as JSON,
 * commands to paste, rates. Implemented in look.c; plain functions without state.
 */
#ifndef IDEM_LOOK_H
#define IDEM_LOOK_H

#include "cli.h"

int64_t look_wall_ms(void); /* since 1970 */
int64_t look_monotonic_ms(void);

/* Since this attempt was claimed or completed; never negative, whatever the clock did. */
int64_t look_age_ms(const idem_story *story);

/*
 * "idem VERB --store S --scope 'SCOPE' --key 'KEY' --token T", ready for a shell; bytes that don't go through a command
 * line go in quoted form with --quoted. token 0: no --token. malloc'ed.
 */
char *look_command(const struct cli_common *common, const char *verb, uint64_t token);

/* All of a story but its key. */
void look_story_json(struct json_object *object, const idem_story *story);

/* Of idem_story.log_state: "none", "written", "durable". */
const char *look_log_state_word(uint32_t log_state);

/* IDEM_HOLD on a lost attempt: nobody redoes it. */
bool look_is_held(const idem_story *story);

/* What a claim was told: hits got a stored answer, all are all that asked. */
uint64_t look_begins(const idem_stats_data *stats);

/* idem_stats() with the size set: IDEM_OK, or its error. */
int look_stats(idem_store *store, idem_stats_data *stats);

/* What a walk over all keys counts. */
struct look_census {
    uint64_t by_state[5]; /* by enum idem_state */
    uint64_t held;        /* of the lost ones */
    bool any_running;
    int64_t oldest_age_ms; /* of the attempt that has been in progress longest */
    int64_t oldest_lease_left_ms;
    int64_t oldest_pid;
    bool oldest_lease_only;
    char oldest_key[96]; /* quoted, scope/key, cut */
};
/* idem_walk() over all keys: IDEM_OK, or its error. */
int look_census(idem_store *store, struct look_census *census);

char *look_uuid_text(const idem_stats_data *stats, char out[CLI_TEXT_BYTES]); /* returns out */
/* "1234567" as "1,234,567". Returns out. */
char *look_count_text(uint64_t count, char out[CLI_TEXT_BYTES]);
/* Per second, to three digits: "0", "0.25", "12.3", "4560", "1.2M". Returns out. */
char *look_rate_text(double per_second, char out[CLI_TEXT_BYTES]);
/* "12.3 %", "0.004 %"; "-" if whole is 0. Returns out. */
char *look_percent_text(uint64_t part, uint64_t whole, char out[CLI_TEXT_BYTES]);
/* A class of lives in the arena: "claims", "answers up to 24h". Returns out. */
char *look_class_text(int64_t ttl_ms, char out[CLI_TEXT_BYTES]);

/*
 * Why a store has no huge pages, and the command that changes it.
 * command: to be run as root, then the store is made anew; "" if the store only has to be made anew, or nothing helps.
 */
struct look_huge {
    char why[384];
    char command[384];
};
void look_huge_advice(const char *store_path, struct look_huge *advice);

#endif
