/*
 * rescue.pml - two completers of one claim that find no memory; it is moved, renewed or taken over meanwhile.
 *
 * Proves by assertion, over all interleavings, with the death of a completer before any step: an answer is stored
 * whole; once stored it never changes, also when its entry is moved; there is one answer a token.
 *
 * One slot; entries are never used again here (region.pml looks at that). The outcome has two words, so that a torn one
 * shows. One atomic block is at most one access to a word that others change. Labels are the code's crash points, with
 * "_" for ".". run.sh sets the parameters through the environment; each DROPPED(rule) is a rule that spin must find
 * needed.
 */
#define COMPLETERS 2
#define ENTRIES 8

hidden byte drop, deaths, changes;
c_decl { \#include <stdlib.h> }
c_code {
    static unsigned char parameter(const char *name)
    {
        const char *text = getenv(name);
        return (unsigned char)(text ? atoi(text) : 0);
    }
}
#define SET_PARAMETERS c_code { \
    drop = parameter("DROP"); deaths = parameter("DEATHS"); changes = parameter("CHANGES"); }
#define DROPPED(rule) (drop == rule)
#define ARBITER 1           /* one completer at a time fills the rescue words */
#define JUDGE_DEATH 2       /* only a dead one's place as arbiter is taken */
#define FILL_THEN_STATE 3   /* the words are filled before the state says so */
#define RECHECK 4           /* the slot is loaded again after the arbiter's place was taken */
#define WORD_THEN_COPY 5    /* who moves an entry loads its word before its bytes */
#define MOVE_RESCUE 6       /* moving a completed claim takes the rescue words along */

/* Slot word: waiters * 64 + state * 16 + entry. */
#define IN_PROGRESS 1
#define COMPLETED 2
#define WAITERS 64
#define WORD(state, e) ((state) * 16 + (e))
#define STATE(w) (((w) >> 4) & 3)
#define ENTRY(w) ((w) & 15)
byte slot = 17; /* WORD(IN_PROGRESS, 1) */

byte arbiter[ENTRIES], first[ENTRIES], second[ENTRIES]; /* the rescue words: completer + 1; the outcome twice */
byte token[ENTRIES];
bool answered[ENTRIES]; /* an entry of its own for the answer: first, second are the answer */
bool dead[COMPLETERS], dying;
byte died, next_entry = 2, changed;

/* Ghosts. */
byte answer; /* the answer that was stored for token 0 */

inline stored(e) {
    assert(first[e] == second[e] && first[e] != 0);
    assert(answer == 0);
    answer = first[e]
}
/* To be asked after a store into the rescue words of e. */
inline unanswered(e, value) {
    assert(!(STATE(slot) == COMPLETED && ENTRY(slot) == e && value != answer && !DROPPED(FILL_THEN_STATE)))
}

/* Completes token 0 with outcome p + 1. */
proctype completer(byte p) provided (!dying || dead[_pid - 1]) {
    byte w, e, seen;

    {
    skip;
again:
    atomic {
        e = 0; seen = 0; w = slot;
        if
        :: token[ENTRY(w)] != 0 -> goto end_over                          /* lost */
        :: token[ENTRY(w)] == 0 && STATE(w) == COMPLETED -> goto end_over /* said before */
        :: else
        fi
    }
    if
    :: atomic { /* room is found */
        next_entry < ENTRIES -> e = next_entry; next_entry++;
        first[e] = p + 1; second[e] = p + 1; answered[e] = 1
       }
complete_filled:
       atomic {
        if
        :: slot == w -> slot = WORD(COMPLETED, e); stored(e); goto end_over
        :: else -> goto again
        fi
       }
    :: skip
    fi;
    /* No room: the hazard is set, the slot loaded again. */
    atomic {
        e = ENTRY(w);
        if
        :: slot != w -> goto again
        :: DROPPED(ARBITER) -> goto filling
        :: else
        fi
    }
arbitrate:
    atomic {
        if
        :: arbiter[e] == seen -> arbiter[e] = p + 1; goto taken
        :: else -> seen = arbiter[e]
        fi
    }
    atomic {
        if
        :: seen == p + 1 -> goto taken
        :: seen != p + 1 && !dead[seen - 1] && !DROPPED(JUDGE_DEATH) -> goto end_over /* full: he may ask again */
        :: else -> goto arbitrate
        fi
    }
taken:
    atomic {
        if
        :: slot != w && !DROPPED(RECHECK) -> goto again
        :: else
        fi
    }
filling:
    if
    :: DROPPED(FILL_THEN_STATE) -> atomic {
        if
        :: slot == w -> slot = WORD(COMPLETED, e); answer = p + 1
        :: else -> goto again
        fi
       }
    :: else
    fi;
    atomic { first[e] = p + 1; unanswered(e, p + 1) }
    atomic { second[e] = p + 1; unanswered(e, p + 1) }
rescue_filled:
    atomic {
        if
        :: DROPPED(FILL_THEN_STATE) -> goto end_over
        :: slot == w && !DROPPED(FILL_THEN_STATE) -> slot = WORD(COMPLETED, e); stored(e); goto end_over
        :: else -> goto again
        fi
    };
end_over:
    false
    } unless {
        atomic { dead[p]; dying = 0; w = 0; e = 0; seen = 0 }
    };
end_dead:
    false
}

/* Renews, moves, flags as waiting, takes over; reads the answer. */
proctype others() provided (!dying) {
    byte w, to, one, two;

end_rest:
    atomic { changed < changes -> changed++; w = 0; to = 0; one = 0; two = 0 }
    if
    :: atomic { STATE(slot) == IN_PROGRESS && slot < WAITERS -> w = slot }
       atomic {
        if
        :: slot == w -> slot = w + WAITERS
        :: else
        fi
       }
wait_flagged:
       goto end_rest
    :: atomic { STATE(slot) == IN_PROGRESS -> w = slot; to = next_entry; next_entry++; token[to] = 1 }
takeover_filled:
       atomic {
        if
        :: slot == w -> slot = WORD(IN_PROGRESS, to); assert(answer == 0)
        :: else
        fi
       }
       goto end_rest
    :: atomic { /* move; of a running claim it is a renewal, too */
        if
        :: DROPPED(WORD_THEN_COPY)
        :: else -> w = slot
        fi;
        to = next_entry; next_entry++;
        two = ENTRY(slot)
       }
       atomic { one = first[two] }
       atomic { first[to] = one; second[to] = second[two]; token[to] = token[two]; answered[to] = answered[two] }
       atomic {
        if
        :: DROPPED(WORD_THEN_COPY) -> w = slot
        :: else
        fi;
        if
        :: STATE(w) == IN_PROGRESS || (DROPPED(MOVE_RESCUE) && !answered[to]) -> /* not half an outcome */
            first[to] = 0; second[to] = 0
        :: else
        fi
       }
       atomic {
        if
        :: slot == w && two == ENTRY(w) ->
            slot = w - ENTRY(w) + to;
            assert(STATE(w) != COMPLETED || DROPPED(FILL_THEN_STATE) || (first[to] == answer && second[to] == answer))
        :: else
        fi
       }
sweep_moved:
       goto end_rest
    :: atomic { STATE(slot) == COMPLETED -> w = slot } /* a reader: not validated reads don't count */
       atomic { one = first[ENTRY(w)] }
       atomic { two = second[ENTRY(w)] }
       atomic { assert(slot != w || (one == answer && two == answer)) }
       goto end_rest
    fi
}

proctype world() provided (!dying) {
end_world:
    do
    :: atomic {
        died < deaths -> died++;
        if
        :: !dead[0] -> dead[0] = 1
        :: !dead[1] -> dead[1] = 1
        fi;
        dying = 1
       }
    od
}

init {
    atomic {
        SET_PARAMETERS;
        run completer(0); run completer(1); run others(); run world()
    }
end_init:
    false
}
