/*
 * claim.pml - the claim protocol of one home bucket: a slot of its own (distance 0) and a spill slot (distance 1).
 *
 * Proves by assertion, over all interleavings, with the death of a claimant before any step: at most one owner a key; a
 * key in one slot at most; tokens of a key only grow; nobody clears or replaces what is published and still valid; a
 * fenced owner changes nothing; what a header names is published.
 *
 * Entries carry NO generation here: an entry's memory is used again the moment no slot, no live writer and no live
 * hazard names it. So a word can come back at once, and only the hazards keep a compare honest. (region.pml looks at
 * regions, generations and the two checks.)
 *
 * One atomic block is at most one access to a word that others change. Labels are the code's crash points, with "_" for
 * ".". run.sh sets the parameters through the environment; each DROPPED(rule) is a rule that spin must find needed.
 */
#ifndef CLAIMANTS
#define CLAIMANTS 2
#endif
#define SLOTS 2
#define KEYS 2
#define ENTRIES (2 * CLAIMANTS + 4) /* more than can be named at once: allocation never waits */

/* Parameters, constant in a run. */
hidden byte drop;   /* rule left out, 0 none */
hidden byte preset; /* how the bucket looks at first, see init */
hidden byte ticks, deaths;
hidden byte upkeep_steps; /* free, clear, relocate, lower reach, forget, flag as waiting: its choice */
hidden byte renewals;     /* before completing */
hidden byte mixed_keys;   /* 0: all claim key 0; 1: each claims either */
c_decl { \#include <stdlib.h> }
c_code {
    static unsigned char parameter(const char *name)
    {
        const char *text = getenv(name);
        return (unsigned char)(text ? atoi(text) : 0);
    }
}
#define SET_PARAMETERS c_code { \
    drop = parameter("DROP"); preset = parameter("PRESET"); ticks = parameter("TICKS"); deaths = parameter("DEATHS"); \
    upkeep_steps = parameter("UPKEEP"); renewals = parameter("RENEW"); mixed_keys = parameter("MIXED"); }
#define DROPPED(rule) (drop == rule)
#define HELP 1              /* help the pending slot before moving the header on */
#define VERSION 2           /* the publishing CAS compares the version too */
#define COMPARE_HAZARD 3    /* hold a hazard on what the compared word points to */
#define REREAD 4            /* re-read the slot after setting the hazard */
#define FENCE 5             /* an owner compares token and key before it replaces a word */
#define CLAIMED_IS_CLAIMED 6 /* a successful publish is never started again */
#define FREED_AFTER_SCAN 7  /* a time from before the scan is good if it lies after `freed`, read after the scan */
#define OLD_TOKEN 8         /* a slot is freed only when its token is older than now */
#define WORD_THEN_HEADER 9  /* who frees a slot reads its word before the header */
#define UNNAME 10           /* a slot is freed only when no header names it */
#define LOWER_BY_CAS 11     /* reach is lowered by a CAS on the header as scanned */
#define ONLY_FINAL 12       /* forget, release and the like touch final words only */
#define DEATH_THEN_HEADER 13 /* a dead reservation: death is established before the header is read */
#define JUDGE_DEATH 14      /* only a dead owner's reservation is cleared */
#define IN_PLACE 15         /* a key that has a slot is claimed in that slot */
#define FREED_FIRST 16      /* who frees a slot raises `freed` before */

/* Slot word: waiters * 128 + state * 16 + entry; 0 is free. */
#define TENTATIVE 1
#define IN_PROGRESS 2
#define COMPLETED 3
#define ABANDONED 4
#define FORGOTTEN 5
#define WAITERS 128
#define WORD(state, e) ((state) * 16 + (e))
#define STATE(w) (((w) >> 4) & 7)
#define ENTRY(w) ((w) & 15)
#define FINAL(w) (STATE(w) >= IN_PROGRESS)
#define EXPIRED(w) (now > entry_until[ENTRY(w)]) /* lease or time to live */
#define CLAIMABLE(w) (STATE(w) == ABANDONED || STATE(w) == FORGOTTEN || (STATE(w) == COMPLETED && EXPIRED(w)))
#define CLOCK_TOKEN (now * 4)
#define FOREVER 255
#define GOTO_IF(condition, label) if :: condition -> goto label :: else fi

byte slot[SLOTS];
byte version, pending, reach; /* the header; pending: slot + 1, 0 none */

byte entry_key[ENTRIES + 1], entry_token[ENTRIES + 1], entry_owner[ENTRIES + 1], entry_until[ENTRIES + 1];
byte writer[ENTRIES + 1];     /* who prepares this entry (write hazard): process + 1; 0 nobody */
byte hazard[CLAIMANTS + 1];   /* compare hazard of each process; the last one is upkeep's */
bool dead[CLAIMANTS + 1];
byte now = 1, died;
byte freed;                   /* no slot with a newer token was freed */
bool started[CLAIMANTS];      /* claimants are alike: they begin in order */
bool dying;                   /* a death is one step: nobody else moves until the victim has left */

/* Ghosts: what is true, not what anybody reads. */
bool published[ENTRIES + 1];  /* this entry's header CAS or in-place CAS has succeeded */
byte owner_token[KEYS];       /* token of the attempt that runs; 0 none */
byte last_token[KEYS];        /* newest token ever granted */

#if CLAIMANTS == 2
#define HAZARDED(e) ((hazard[0] == e && !dead[0]) || (hazard[1] == e && !dead[1]) || hazard[2] == e)
#else
#define HAZARDED(e) \
    ((hazard[0] == e && !dead[0]) || (hazard[1] == e && !dead[1]) || (hazard[2] == e && !dead[2]) || hazard[3] == e)
#endif
#define WRITTEN(e) (writer[e] != 0 && !dead[writer[e] - 1])
#define REACHABLE(e) (ENTRY(slot[0]) == e || ENTRY(slot[1]) == e || WRITTEN(e) || HAZARDED(e))

/* What nobody alive can reach is wiped, so that equal states are equal. */
inline collect(x) {
    d_step {
        x = 1;
        do
        :: x <= ENTRIES ->
            if
            :: !REACHABLE(x) ->
                entry_key[x] = 0; entry_token[x] = 0; entry_owner[x] = 0; entry_until[x] = 0; writer[x] = 0;
                published[x] = 0
            :: else
            fi;
            x++
        :: else -> break
        od;
        x = 0
    }
}

/* The lowest entry that nobody alive can reach. */
inline allocate(to) {
    collect(to);
    d_step {
        to = 1;
        do
        :: to <= ENTRIES && REACHABLE(to) -> to++
        :: else -> break
        od;
        assert(to <= ENTRIES);
        writer[to] = me + 1
    }
}

/* The key of e has just become in progress with e in slot `where`: the grant. */
inline granted(e, where) {
    assert(published[e]);
    assert(entry_token[e] > last_token[entry_key[e]]);
    last_token[entry_key[e]] = entry_token[e];
    owner_token[entry_key[e]] = entry_token[e];
    assert(!(FINAL(slot[1 - (where)]) && entry_key[ENTRY(slot[1 - (where)])] == entry_key[e]))
}

/* CAS a tentative slot to in progress. */
inline finish(where, w) {
    if
    :: slot[where] == w ->
        assert(owner_token[entry_key[ENTRY(w)]] == 0);
        slot[where] = WORD(IN_PROGRESS, ENTRY(w));
        granted(ENTRY(w), where)
    :: else
    fi
}

inline read_header() {
    h_version = version; h_pending = pending; h_reach = reach
}
inline forget_header() {
    h_version = 0; h_pending = 0; h_reach = 0
}
inline protect(e) {
    if
    :: DROPPED(COMPARE_HAZARD)
    :: else -> hazard[me] = e
    fi
}
#define MOVED(s, w) (slot[s] != w && !DROPPED(REREAD))
#define HEADER_MOVED (version != h_version && !(DROPPED(VERSION) && pending == h_pending))
#define FENCED(w) ((entry_token[ENTRY(w)] != token || entry_key[ENTRY(w)] != key) && !DROPPED(FENCE))

proctype claimant(byte me) provided (!dying || dead[_pid - 1]) {
    byte h_version, h_pending, h_reach; /* header as read */
    byte w, at, mine, token, key, place, i, want, renewed;

    {
    atomic {
        me == 0 || started[me - 1];
        started[me] = 1;
        if
        :: key = 0
        :: mixed_keys -> key = 1
        fi
    }
begin:
    atomic {
        hazard[me] = 0; w = 0; i = 0; at = 0;
        token = CLOCK_TOKEN;
        read_header();
        GOTO_IF(h_pending == 0 || DROPPED(HELP), scan)
    }
    /* Help: what the header names is published; who moves the header on makes it final first. */
    atomic {
        w = slot[h_pending - 1];
        if
        :: STATE(w) != TENTATIVE -> w = 0; goto scan
        :: else
        fi
    }
    atomic { protect(ENTRY(w)) }
    atomic {
        GOTO_IF(MOVED(h_pending - 1, w), begin)
    }
    atomic {
        GOTO_IF(version != h_version, begin)
    }
    atomic { finish(h_pending - 1, w); hazard[me] = 0; w = 0 }
help_finished:
    /* Scan: home, and as far as reach says. */
scan:
    atomic {
        w = slot[i];
        if
        :: FINAL(w)
        :: else -> goto next
        fi
    }
    atomic { protect(ENTRY(w)) }
    atomic {
        GOTO_IF(MOVED(i, w), begin);
        /* The entry's bytes can't change while the hazard stands. */
        if
        :: entry_key[ENTRY(w)] != key || (CLAIMABLE(w) && DROPPED(IN_PLACE)) -> hazard[me] = 0; goto next
        :: entry_key[ENTRY(w)] == key && STATE(w) == COMPLETED && !EXPIRED(w) -> goto over /* replay */
        :: entry_key[ENTRY(w)] == key && STATE(w) == IN_PROGRESS && !EXPIRED(w) && !dead[entry_owner[ENTRY(w)]] ->
            goto over                                                              /* in progress */
        :: else
        fi;
        /* Claimable, or its owner is dead or its lease over: a new attempt in the same slot. */
        forget_header();
        if
        :: mine == 0 -> allocate(mine); entry_key[mine] = key; entry_owner[mine] = me
        :: else
        fi;
        assert(!published[mine]);
        token = entry_token[ENTRY(w)] + 1;
        if
        :: CLOCK_TOKEN > token -> token = CLOCK_TOKEN
        :: else
        fi;
        entry_token[mine] = token; entry_until[mine] = now;
        goto takeover_filled
    }
next:
    atomic {
        w = 0; i++;
        GOTO_IF(i <= h_reach, scan);
        /* Absent: an entry with the time from before the scan, if that is good, or with one read now. */
        if
        :: mine == 0 -> allocate(mine); entry_key[mine] = key; entry_owner[mine] = me
        :: else
        fi;
        assert(!published[mine]); /* an entry's memory is filled again only if it never was published */
        if
        :: token > freed || DROPPED(FREED_AFTER_SCAN)
        :: token <= freed || token != CLOCK_TOKEN -> token = CLOCK_TOKEN
        fi;
        entry_token[mine] = token; entry_until[mine] = now; i = 0
    }
claim_filled:
    atomic {
        if
        :: slot[0] == 0 -> at = 0
        :: slot[0] != 0 && slot[1] == 0 -> at = 1
        :: else -> goto over /* full */
        fi;
        slot[at] = WORD(TENTATIVE, mine)
    }
claim_reserved:
    atomic {
        GOTO_IF(HEADER_MOVED, giveback);
        version++; pending = at + 1; published[mine] = 1;
        if
        :: at > reach -> reach = at
        :: else
        fi;
        forget_header()
    }
claim_published:
    atomic {
        if
        :: DROPPED(CLAIMED_IS_CLAIMED) && slot[at] != WORD(TENTATIVE, mine) && slot[at] != WORD(IN_PROGRESS, mine) ->
            goto begin
        :: else
        fi;
        finish(at, WORD(TENTATIVE, mine)); /* done already: a helper was here. It is ours all the same */
        assert(last_token[key] >= token); /* who is told CLAIMED was granted it */
        writer[mine] = 0; mine = 0; place = at;
        goto claim_finished
    }
giveback:
    atomic {
        assert(slot[at] == WORD(TENTATIVE, mine));
        assert(pending != at + 1);
        slot[at] = 0
    }
claim_given_back:
    goto begin;

takeover_filled: /* i, w: a final word of our key, hazard held */
    atomic {
        GOTO_IF(slot[i] != w, begin);
        assert(entry_key[ENTRY(w)] == key && entry_token[ENTRY(w)] < token);
        assert(CLAIMABLE(w) || (STATE(w) == IN_PROGRESS && (EXPIRED(w) || dead[entry_owner[ENTRY(w)]])));
        published[mine] = 1;
        slot[i] = WORD(IN_PROGRESS, mine) + (w & WAITERS);
        granted(mine, i);
        place = i; writer[mine] = 0; mine = 0
    }
takeover_swapped:
claim_finished: /* told CLAIMED: place, token. It may sleep here for ever, so "does nothing" needs no branch */
    atomic {
        hazard[me] = 0; w = 0; i = 0; at = 0; forget_header();
        collect(i);
        if
        :: want = COMPLETED
        :: want = ABANDONED
        :: renewals > 0 -> want = IN_PROGRESS /* renew, then complete */
        fi
    }
again:
    atomic {
        w = slot[place];
        GOTO_IF(STATE(w) != IN_PROGRESS, over) /* lost */
    }
    atomic { protect(ENTRY(w)) }
    atomic {
        if
        :: MOVED(place, w) -> hazard[me] = 0; goto again
        :: else
        fi;
        GOTO_IF(FENCED(w), over); /* lost */
        GOTO_IF(want == ABANDONED, complete_filled);
        if
        :: mine == 0 -> allocate(mine)
        :: else
        fi;
        entry_key[mine] = key; entry_owner[mine] = me; entry_token[mine] = token; entry_until[mine] = now
    }
complete_filled:
    atomic {
        if
        :: slot[place] != w -> hazard[me] = 0; goto again
        :: else
        fi;
        assert(owner_token[key] == token); /* who is fenced changes nothing */
        assert(entry_key[ENTRY(w)] == key && entry_token[ENTRY(w)] == token);
        hazard[me] = 0;
        if
        :: want == ABANDONED -> slot[place] = WORD(ABANDONED, ENTRY(w))
        :: want == COMPLETED -> slot[place] = WORD(COMPLETED, mine); published[mine] = 1; writer[mine] = 0; mine = 0
        :: want == IN_PROGRESS ->
            slot[place] = WORD(IN_PROGRESS, mine) + (w & WAITERS); published[mine] = 1; writer[mine] = 0; mine = 0
        fi;
        w = 0;
        collect(i);
        if
        :: want == IN_PROGRESS -> renewed++; want = (renewed < renewals -> IN_PROGRESS : COMPLETED); goto again
        :: else -> owner_token[key] = 0
        fi
    }
complete_swapped:
abandon_swapped:
over:
    atomic {
        hazard[me] = 0; w = 0; i = 0; at = 0; want = 0; forget_header(); token = 0; place = 0; key = 0; renewed = 0;
        if
        :: mine != 0 -> writer[mine] = 0; mine = 0
        :: else
        fi;
        collect(i)
    }
end_idle:
    false
    } unless {
        atomic {
            dead[me];
            started[me] = 1;
            w = 0; i = 0; at = 0; want = 0; forget_header(); token = 0; place = 0; mine = 0; key = 0; renewed = 0;
            collect(i);
            dying = 0
        }
    };
end_dead:
    false
}

/* Upkeep by anybody: some steps of its choice, wherever it likes. It may sleep anywhere as well. */
proctype upkeep(byte me) provided (!dying) {
    byte w, s, to, steps, h_version, h_pending, h_reach;
    bool is_dead;

rest:
    atomic {
        hazard[me] = 0; w = 0; s = 0; is_dead = 0; forget_header();
        if
        :: to != 0 -> writer[to] = 0; to = 0
        :: else
        fi;
        collect(to)
    }
end_idle:
    atomic {
        steps < upkeep_steps -> steps++;
        if
        :: s = 0
        :: s = 1
        :: read_header(); goto lower
        fi;
        if
        :: DROPPED(WORD_THEN_HEADER) -> read_header()
        :: else
        fi
    }
    atomic {
        w = slot[s];
        GOTO_IF(w == 0, rest)
    }
    atomic { protect(ENTRY(w)) }
    atomic {
        GOTO_IF(MOVED(s, w), rest);
        if
        :: STATE(w) == TENTATIVE -> goto clear
        :: CLAIMABLE(w) && (entry_token[ENTRY(w)] < CLOCK_TOKEN || DROPPED(OLD_TOKEN)) -> goto free
        :: FINAL(w) && STATE(w) != FORGOTTEN -> goto forget
        :: STATE(w) == TENTATIVE && DROPPED(ONLY_FINAL) -> goto forget
        :: STATE(w) == IN_PROGRESS && !(w & WAITERS) -> goto wait
        :: FINAL(w) && (writer[ENTRY(w)] == 0 || dead[writer[ENTRY(w)] - 1]) -> goto relocate /* check 1 waited */
        :: else -> goto rest
        fi
    }

clear: /* a reservation whose owner died */
    atomic {
        if
        :: DROPPED(DEATH_THEN_HEADER) -> read_header()
        :: else -> is_dead = dead[entry_owner[ENTRY(w)]]
        fi
    }
    atomic {
        if
        :: DROPPED(DEATH_THEN_HEADER) -> is_dead = dead[entry_owner[ENTRY(w)]]
        :: else -> read_header()
        fi;
        if
        :: h_pending == s + 1 -> goto help
        :: h_pending != s + 1 && !is_dead && !DROPPED(JUDGE_DEATH) -> goto rest
        :: else
        fi
    }
    atomic {
        if
        :: slot[s] == w -> assert(!published[ENTRY(w)]); slot[s] = 0
        :: else
        fi
    }
sweep_cleared:
    goto rest;
help:
    atomic {
        GOTO_IF(MOVED(s, w), rest)
    }
    atomic {
        GOTO_IF(version != h_version, rest)
    }
    atomic { finish(s, w); goto rest }

free:
    atomic {
        if
        :: DROPPED(WORD_THEN_HEADER)
        :: else -> read_header()
        fi;
        GOTO_IF(h_pending != s + 1 || DROPPED(UNNAME), free_unnamed)
    }
    atomic {
        if
        :: version != h_version -> goto rest
        :: else -> version++; pending = 0
        fi
    }
free_unnamed:
    atomic {
        if
        :: entry_token[ENTRY(w)] > freed && !DROPPED(FREED_FIRST) -> freed = entry_token[ENTRY(w)]
        :: else
        fi
    }
free_raised:
    atomic {
        if
        :: slot[s] == w -> slot[s] = 0; assert(pending != s + 1)
        :: else
        fi
    }
free_freed:
    atomic {
        if
        :: entry_token[ENTRY(w)] > freed && DROPPED(FREED_FIRST) -> freed = entry_token[ENTRY(w)]
        :: else
        fi;
        goto rest
    }

relocate:
    atomic {
        allocate(to);
        entry_key[to] = entry_key[ENTRY(w)]; entry_token[to] = entry_token[ENTRY(w)];
        entry_owner[to] = entry_owner[ENTRY(w)]; entry_until[to] = entry_until[ENTRY(w)]
    }
    atomic {
        if
        :: slot[s] == w ->
            assert(entry_token[to] == entry_token[ENTRY(w)]);
            published[to] = 1; slot[s] = WORD(STATE(w), to) + (w & WAITERS)
        :: else
        fi
    }
sweep_moved:
    goto rest;

forget: /* state only; release, declare and resolve-rerun are the same move */
    atomic {
        if
        :: slot[s] == w ->
            slot[s] = WORD(FORGOTTEN, ENTRY(w));
            owner_token[entry_key[ENTRY(w)]] = 0
        :: else
        fi
    }
operate_swapped:
    goto rest;

wait:
    atomic {
        if
        :: slot[s] == w -> slot[s] = w + WAITERS
        :: else
        fi
    }
wait_flagged:
    goto rest;

lower:
    atomic {
        GOTO_IF(h_reach != 1 || slot[1] != 0, rest)
    }
    atomic {
        if
        :: version == h_version || DROPPED(LOWER_BY_CAS) -> version++; reach = 0
        :: else
        fi;
        goto rest
    }
}

/* Time passes, processes die. */
proctype world() provided (!dying) {
end_idle:
    do
    :: now <= ticks -> now++
    :: atomic {
        died < deaths ->
        died++;
        if
        :: !dead[0] -> dead[0] = 1
        :: !dead[1] -> dead[1] = 1
#if CLAIMANTS > 2
        :: !dead[2] -> dead[2] = 1
#endif
        fi;
        dying = 1
       }
    od
}

inline stored(s, state, e, key, until) {
    slot[s] = WORD(state, e); entry_key[e] = key; entry_token[e] = CLOCK_TOKEN; entry_until[e] = until;
    published[e] = 1; last_token[key] = CLOCK_TOKEN
}

init {
    atomic {
        SET_PARAMETERS;
        if
        :: preset == 0 /* empty */
        :: preset == 1 -> stored(0, COMPLETED, 1, 1, FOREVER); reach = 1 /* another key's; a spilled one has gone */
        :: preset == 2 -> stored(0, ABANDONED, 1, 0, now)                /* abandoned, named no longer */
        :: preset == 3 -> stored(0, COMPLETED, 1, 0, now); pending = 1   /* a short-lived answer, still named */
        :: preset == 5 -> reach = 1                                      /* empty again, not lowered yet */
        :: preset == 4 -> stored(0, COMPLETED, 1, 1, now); stored(1, ABANDONED, 2, 0, now); reach = 1; pending = 1
        fi;
        run claimant(0); run claimant(1);
#if CLAIMANTS > 2
        run claimant(2);
#endif
        run upkeep(CLAIMANTS); run world()
    }
end_init:
    false
}
