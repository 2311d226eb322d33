/*
 * free.pml - two who forget and free the same key's slot at the same time, and claimants who have the slot between them and after them.
 *
 * The home bucket of claim.pml with less of it and one more who frees: no tokens, no time, no reach, nobody dies. One key, two slots; each attempt has
 * an entry of its own that no other ever gets, so that no word comes back (claim.pml and region.pml show that hazards see to that). Who forgets a
 * key, frees a slot, or does the one for the other, may sleep anywhere; meanwhile the slot is claimed in place, forgotten, freed, reserved, published.
 *
 * Proves by assertion, over all interleavings: at most one owner; the key in one final slot; a header never names a free slot; who is told
 * CLAIMED was granted it.
 *
 * One atomic block is at most one access to a word that others change. Labels are the code's crash points, with "_" for ".". run.sh sets the
 * parameters through the environment; each DROPPED(rule) is a rule that spin must find needed.
 */
#define SLOTS 2
#define ENTRIES 8

hidden byte drop, steps, claims;
c_decl { \#include <stdlib.h> }
c_code {
    static unsigned char parameter(const char *name)
    {
        const char *text = getenv(name);
        return (unsigned char)(text ? atoi(text) : 0);
    }
}
#define SET_PARAMETERS c_code { drop = parameter("DROP"); steps = parameter("STEPS"); claims = parameter("CLAIMS"); }
#define DROPPED(rule) (drop == rule)
#define GOTO_IF(condition, label) if :: condition -> goto label :: else fi
#define LOOK_AGAIN 1       /* where the header names the slot, who frees it looks whether it is still his word */
#define LOOK_AFTER 2       /* and he looks after he loaded the header */
#define WORD_THEN_HEADER 3 /* he knows the word before he loads the header */
#define UNNAME 4           /* a slot is freed only when no header names it */
#define UNNAME_BY_CAS 5    /* it is taken out by CAS from the header that he loaded */
#define FREE_BY_CAS 6      /* it is freed by CAS from the word that he knows */

/* Slot word: state * 16 + entry; 0 is free. */
#define TENTATIVE 1
#define IN_PROGRESS 2
#define FORGOTTEN 3
#define WORD(state, e) ((state) * 16 + (e))
#define STATE(w) ((w) >> 4)
#define ENTRY(w) ((w) & 15)
#define FINAL(w) (STATE(w) >= IN_PROGRESS)

byte slot[SLOTS];
byte version, pending; /* the header; pending: slot + 1, 0 none */

/* Ghosts. */
byte entries;      /* given out */
byte running;      /* the entry whose attempt runs; 0 none */
bool granted[ENTRIES + 1];

inline new_entry(e) {
    entries++; e = entries;
    assert(e <= ENTRIES)
}
inline grant(e, where) {
    assert(running == 0 && !FINAL(slot[1 - (where)]));
    running = e; granted[e] = 1
}
/* CAS of a tentative slot to in progress. */
inline finish(where, w) {
    if
    :: slot[where] == w ->
        grant(ENTRY(w), where);
        slot[where] = WORD(IN_PROGRESS, ENTRY(w))
    :: else
    fi
}

proctype claimant() {
    byte h_version, h_pending, w, i, at, mine, claimed;

begin:
    atomic {
        w = 0; i = 0; at = 0;
        h_version = version; h_pending = pending;
        GOTO_IF(h_pending == 0, scan)
    }
    atomic { /* help */
        w = slot[h_pending - 1];
        GOTO_IF(STATE(w) != TENTATIVE, scan)
    }
    atomic { GOTO_IF(version != h_version, begin) }
    atomic { finish(h_pending - 1, w) }
help_finished:
scan:
    atomic {
        w = slot[i];
        if
        :: STATE(w) == IN_PROGRESS -> goto over
        :: STATE(w) == FORGOTTEN -> goto takeover
        :: else -> w = 0; i++;
            GOTO_IF(i < SLOTS, scan)
        fi
    }
    atomic {
        if
        :: mine == 0 -> new_entry(mine)
        :: else
        fi;
        if
        :: slot[0] == 0 -> at = 0
        :: slot[0] != 0 && slot[1] == 0 -> at = 1
        :: else -> goto over /* full */
        fi;
        slot[at] = WORD(TENTATIVE, mine)
    }
claim_reserved:
    atomic {
        GOTO_IF(version != h_version, giveback);
        version++; pending = at + 1; i = 0; h_version = 0; h_pending = 0
    }
claim_published:
    atomic {
        finish(at, WORD(TENTATIVE, mine)); /* done already: a helper was here */
        assert(granted[mine]);
        goto claim_finished
    }
giveback:
    atomic { assert(slot[at] == WORD(TENTATIVE, mine)); slot[at] = 0 }
claim_given_back:
    goto begin;
takeover:
    atomic {
        if
        :: mine == 0 -> new_entry(mine)
        :: else
        fi
    }
takeover_filled:
    atomic {
        GOTO_IF(slot[i] != w, begin);
        grant(mine, i); slot[i] = WORD(IN_PROGRESS, mine)
    }
takeover_swapped:
claim_finished: /* told CLAIMED; it works for ever, or until somebody forgets the key */
    atomic { w = 0; i = 0; at = 0; mine = 0; h_version = 0; h_pending = 0; claimed++ }
end_working:
    atomic { claimed < claims && running == 0 -> goto begin }
over:
    atomic { w = 0; i = 0; at = 0; h_version = 0; h_pending = 0 }
end_over:
    atomic { running == 0 -> goto begin } /* comes again when the key is not in progress */
}

proctype freer() {
    byte h_version, h_pending, w, s, done;

rest:
    atomic { w = 0; s = 0; h_version = 0; h_pending = 0 }
end_idle:
    atomic {
        done < steps -> done++;
        if
        :: s = 0
        :: s = 1
        fi;
        if
        :: DROPPED(WORD_THEN_HEADER) -> h_version = version; h_pending = pending
        :: else
        fi
    }
    atomic {
        w = slot[s];
        if
        :: STATE(w) == IN_PROGRESS
        :: STATE(w) == FORGOTTEN -> goto free
        :: else -> goto rest
        fi
    }
    atomic { /* idem_forget() */
        if
        :: slot[s] != w -> goto rest
        :: else -> assert(running == ENTRY(w)); running = 0; w = WORD(FORGOTTEN, ENTRY(w)); slot[s] = w
        fi
    }
operate_swapped:
free: /* unname() */
    if
    :: DROPPED(LOOK_AFTER) -> atomic { GOTO_IF(slot[s] != w, rest) }
    :: else
    fi;
    atomic {
        if
        :: DROPPED(WORD_THEN_HEADER)
        :: else -> h_version = version; h_pending = pending
        fi;
        GOTO_IF(h_pending != s + 1 || DROPPED(UNNAME), free_unnamed)
    }
    if
    :: DROPPED(LOOK_AGAIN) || DROPPED(LOOK_AFTER)
    :: else -> atomic { GOTO_IF(slot[s] != w, rest) }
    fi;
    atomic {
        if
        :: version != h_version && !DROPPED(UNNAME_BY_CAS) -> goto free
        :: else -> version++; pending = 0
        fi
    }
free_unnamed:
    atomic {
        if
        :: slot[s] == w || (FINAL(slot[s]) && DROPPED(FREE_BY_CAS)) -> slot[s] = 0; assert(pending != s + 1)
        :: else
        fi
    }
free_freed:
    goto rest
}

init {
    atomic {
        SET_PARAMETERS;
        slot[0] = WORD(IN_PROGRESS, 1); entries = 1; running = 1; granted[1] = 1;
        if
        :: pending = 1
        :: skip /* claimed long ago: the header names it no longer */
        fi;
        run claimant(); run claimant(); run freer(); run freer()
    }
end_init:
    false
}
