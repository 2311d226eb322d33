/*
 * share.pml - what a lane's chunk has left becomes everybody's: OPEN -> SEALED -> SHARED (arena.h, invariant 7).
 *
 * One region R of one chunk with room for ROOM entries, through lives of two generation values. Workers have a lane each: some allocate, from the lane's
 * chunk or by taking it; some share the region when it is theirs to want, and take what is left, above the chunk's span or above the region's own
 * cursor. Who allocates may die, and its lane's next owner goes on with the chunk. A sweeper drains the region from any phase and opens it again.
 *
 * Proves by assertion, over all interleavings, with the death of a worker before any step: nobody writes where somebody who lives writes, or where an
 * entry was published in this life; nobody writes, or moves a span, in another life than the one that he entered; the region becomes free only when no
 * slot names it, also by the counts alone.
 *
 * One atomic block is at most one access to a word that others change. Labels are the code's crash points, with "_" for ".". run.sh sets the
 * parameters through the environment; each DROPPED(rule) is a rule that spin must find needed.
 */
#define GENERATIONS 2
#define ROOM 2
#define LANES 3

hidden byte drop, deaths, victims, lives, drains, roles0, roles1, roles2;
c_decl { \#include <stdlib.h> }
c_code {
    static unsigned char parameter(const char *name)
    {
        const char *text = getenv(name);
        return (unsigned char)(text ? atoi(text) : 0);
    }
}
#define SET_PARAMETERS c_code { \
    drop = parameter("DROP"); deaths = parameter("DEATHS"); victims = parameter("VICTIMS"); lives = parameter("LIVES"); \
    drains = parameter("DRAINS");     roles0 = parameter("ROLES0"); roles1 = parameter("ROLES1"); roles2 = parameter("ROLES2"); }
#define DROPPED(rule) (drop == rule)
#define GOTO_IF(condition, label) if :: condition -> goto label :: else fi
#define CHECK_3 1           /* no live lane's hazard names the SEALED region when it becomes SHARED */
#define SEAL_FIRST 2        /* it is sealed before the hazards are looked at */
#define SPAN_BY_CAS 3       /* what is left is taken by CAS */
#define HAZARD_FIRST 4      /* a lane sets its hazard before it looks at the region's state */
#define OPEN_ONLY 5         /* a lane allocates in OPEN, not in SEALED */
#define SPAN_FIRST 6        /* the span moves before the entry is published: the next one goes on behind */
#define LIFE_IN_SPAN 7      /* a span tells lives apart by more than the generation */
#define JUDGE_AFTER_SEAL 8  /* who is dead is judged anew for check 3 */
#define TAKER_HAZARD 9      /* who takes what is left sets its hazard first */
#define TAKER_LOOKS 10      /* and then looks whether the region is SHARED still, in the same life */
#define COUNT_BY_CAS 11     /* entries in a SHARED region are counted by CAS */
#define CHECK_1 12          /* no live lane's hazard names the draining region */

/* Roles of a worker. */
#define ALLOCATES 1
#define SHARES 2

#define FREE 0
#define OPEN 1
#define SEALED 2
#define SHARED 3
#define DRAINING 4
#define IN_USE(p) ((p) == OPEN || (p) == SEALED || (p) == SHARED)
/* The state word: in the code expiry and opening time tell lives apart. raised: its expiry was. */
byte phase, life;
bool raised;
#define GENERATION(l) ((l) % GENERATIONS)

byte cursor, cursor_generation = 255;
#define CURSOR(l) (cursor_generation == GENERATION(l) -> cursor : 0)
byte span, span_life;
#define TAG(l) (DROPPED(LIFE_IN_SPAN) -> 1 + GENERATION(l) : l)
#define LEFT(l) (span_life == TAG(l) && span < ROOM)
byte filled, filled_life, emptied, emptied_life;
#define FILLED(l) (filled_life == (l) -> filled : 0)
#define EMPTIED(l) (emptied_life == (l) -> emptied : 0)

bool hazard[LANES];  /* names R */
byte owner[LANES];   /* lane + 1; after a death and a new owner + LANES */
bool dead[2 * LANES + 1];
byte died;
bool dying; /* a death is one step: nobody else moves until the victim has left */

/* A slot names the entry at this place. */
bool named_by_slot[ROOM];
/* Ghosts, of this life: who wrote at this place, was it published. */
byte writer[ROOM];
bool published[ROOM];

inline write_entry(at) {
    assert(my_life == life && phase != FREE);                          /* nobody writes into recycled memory */
    assert(!published[at] && (writer[at] == 0 || writer[at] == owner[lane] || dead[writer[at]])); /* nor where somebody else does */
    writer[at] = owner[lane]
}
inline publish(at) {
    assert(my_life == life && phase != FREE && writer[at] == owner[lane] && !published[at]);
    published[at] = 1; named_by_slot[at] = 1
}

/* Checks 1 and 3. Goes to `refused` if a live lane's hazard names R. */
inline unhazarded(refused) {
    l = 0;
    do
    :: atomic { l == LANES -> l = 0; break }
    :: atomic { l < LANES && !hazard[l] -> l++ }
    :: atomic { l < LANES && hazard[l] } /* the owner is loaded after the hazard: it is who set it, or somebody later */
       atomic {
        if
        :: !dead[owner[l]] && !(DROPPED(JUDGE_AFTER_SEAL) && l == 0 && known_dead) -> l = 0; goto refused
        :: else -> l++
        fi
       }
    od
}

/* False: it is not in use any more. */
inline raise_or(refused) {
    atomic {
        if
        :: !IN_USE(phase) -> goto refused
        :: else -> raised = 1
        fi
    }
}

proctype worker(byte lane; byte roles) provided (!dying || dead[owner[_pid - 1]]) {
    byte chunk_life;         /* the lane's chunk: 0 none. It outlives its owner */
    byte my_life, was, from, count;
    bool was_raised, known_dead; /* known_dead: of lane 0 */
    byte l;

born:
    {
    skip;
idle:
    atomic { my_life = 0; was = 0; from = 0; count = 0; was_raised = 0; l = 0; known_dead = 0; hazard[lane] = 0 }
end_idle:
    if
    :: atomic { /* rest_of(), or the thread's private copy, which is older */
        (roles & ALLOCATES) && chunk_life != 0 && phase == OPEN ->
        if
        :: span_life == TAG(chunk_life) && span < ROOM -> from = span; goto allocate
        :: else -> chunk_life = 0; goto idle
        fi
       }
    :: atomic { (roles & ALLOCATES) && chunk_life == 0 && phase == OPEN && CURSOR(life) == 0 -> goto enter }
    :: atomic { /* has_left(): something is left, as it seems */
        (roles & SHARES) && IN_USE(phase) && (LEFT(life) || CURSOR(life) < ROOM) ->
        my_life = life; was = phase; was_raised = raised;
        if
        :: DROPPED(JUDGE_AFTER_SEAL) -> known_dead = dead[owner[0]]
        :: else
        fi;
        goto share
       }
    fi;

allocate:
    atomic { count = FILLED(chunk_life) }
enter:
    atomic {
        if
        :: DROPPED(HAZARD_FIRST)
        :: else -> hazard[lane] = 1
        fi
    }
reserve_hazard:
    atomic {
        if
        :: phase != OPEN && !(phase == SEALED && DROPPED(OPEN_ONLY)) -> chunk_life = 0; goto idle
        :: (phase == OPEN || (phase == SEALED && DROPPED(OPEN_ONLY))) && chunk_life != 0 && chunk_life != life ->
            chunk_life = 0; goto idle
        :: else -> my_life = life
        fi
    }
    if
    :: DROPPED(HAZARD_FIRST) -> atomic { hazard[lane] = 1 }
    :: else
    fi;
    if
    :: chunk_life == 0 ->
        atomic { /* idem_region_take(): a whole chunk */
            if
            :: CURSOR(my_life) != 0 -> goto idle
            :: else -> cursor = ROOM; cursor_generation = GENERATION(my_life)
            fi
        }
chunk_taken:
        skip
    :: else
    fi;
    raise_or(idle);
    atomic { write_entry(from) } /* the straight way writes before it takes the place, idem_arena_peek() */
complete_written:
    if
    :: DROPPED(SPAN_FIRST)
    :: else -> atomic { assert(my_life == life && phase != FREE); span = from + 1; span_life = TAG(my_life) }
    fi;
    atomic { filled = count + 1; filled_life = my_life; chunk_life = my_life }
    atomic { write_entry(from) } /* the other one after that */
complete_filled:
    atomic { publish(from) }
complete_swapped:
    if
    :: DROPPED(SPAN_FIRST) -> atomic { span = from + 1; span_life = TAG(my_life) }
    :: else
    fi;
    goto idle;

share: /* share_region() */
    if
    :: was == OPEN && DROPPED(SEAL_FIRST) ->
        unhazarded(idle);
        atomic {
            if
            :: phase == OPEN && life == my_life && raised == was_raised -> phase = SHARED; goto shared
            :: else -> goto idle
            fi
        }
    :: was == OPEN && !DROPPED(SEAL_FIRST) ->
        atomic {
            if
            :: phase == OPEN && life == my_life && raised == was_raised -> phase = SEALED
            :: else -> goto idle
            fi
        }
    :: else
    fi;
region_sealed:
    if
    :: was != SHARED ->
        if
        :: DROPPED(CHECK_3)
        :: else -> unhazarded(idle)
        fi;
        atomic {
            if
            :: phase == SEALED && life == my_life && raised == was_raised -> phase = SHARED
            :: else -> goto idle
            fi
        }
    :: else
    fi;
shared:
region_shared:
    atomic { /* from_left_of() */
        was = 0; was_raised = 0; known_dead = 0;
        if
        :: DROPPED(TAKER_HAZARD)
        :: else -> hazard[lane] = 1
        fi
    }
    if
    :: DROPPED(TAKER_LOOKS)
    :: else -> atomic { GOTO_IF(phase != SHARED || life != my_life, idle) }
    fi;
again:
    atomic {
        GOTO_IF(!(span_life == TAG(my_life) && span < ROOM), own);
        from = span
    }
    atomic {
        if
        :: span_life != TAG(my_life) || (span != from && !DROPPED(SPAN_BY_CAS)) -> goto again
        :: else -> assert(my_life == life && phase != FREE); span = from + 1; goto taken
        fi
    }
own:
    atomic { /* idem_region_take(): exact */
        GOTO_IF(CURSOR(my_life) >= ROOM, idle);
        from = CURSOR(my_life); cursor = from + 1; cursor_generation = GENERATION(my_life)
    }
taken:
share_taken:
    if
    :: DROPPED(TAKER_HAZARD) -> atomic { hazard[lane] = 1 }
    :: else
    fi;
    raise_or(idle);
    if
    :: DROPPED(COUNT_BY_CAS) ->
        atomic { count = FILLED(my_life) }
        atomic { filled = count + 1; filled_life = my_life }
    :: else -> atomic { filled = FILLED(my_life) + 1; filled_life = my_life }
    fi;
    atomic { write_entry(from) }
    atomic { publish(from) }
    goto idle
    } unless {
        atomic { /* what it did not finish stays as it is */
            dead[owner[lane]];
            dying = 0; my_life = 0; was = 0; from = 0; count = 0; was_raised = 0; l = 0; known_dead = 0
        }
    };
    /* The next process takes the lane over, with the chunk that was left in it, and goes on like the first. */
    atomic { owner[lane] = lane + 1 + LANES }
lane_taken:
    atomic { hazard[lane] = 0 }
    goto born
}

/* It drains the region whenever it likes: its time is over, or it is evicted or compacted. */
proctype sweeper() provided (!dying) {
    byte at_life, was, in, out, l;
    bool was_raised, known_dead;

rest:
    atomic { at_life = 0; was = 0; in = 0; out = 0; was_raised = 0; l = 0 }
end_rest:
    if
    :: atomic { phase == FREE && life < lives -> life++; phase = OPEN }
region_opened:
       goto rest
    :: atomic { drains && IN_USE(phase) -> at_life = life; was = phase; was_raised = raised }
       atomic {
        if
        :: phase == was && life == at_life && raised == was_raised -> phase = DRAINING; was = 0; was_raised = 0
        :: else -> goto rest
        fi
       }
    :: atomic { phase == DRAINING -> at_life = life }
    fi;
sweep_draining:
    if
    :: DROPPED(CHECK_1)
    :: else -> unhazarded(rest)
    fi;
    if
    :: atomic { out = EMPTIED(at_life) }
       atomic { in = FILLED(at_life) }
       GOTO_IF(in != out, rest)
    :: atomic { !named_by_slot[0] && !named_by_slot[1] } /* a pass that began after check 1 */
    fi;
sweep_retiring:
    atomic { /* nobody compares here, so check 2 is nothing */
        assert(phase == DRAINING && life == at_life);
        assert(!named_by_slot[0] && !named_by_slot[1]);
        phase = FREE; raised = 0; writer[0] = 0; writer[1] = 0; published[0] = 0; published[1] = 0
    }
sweep_recycled:
    goto rest
}

/* A worker dies; an entry's slot is freed, or names another. */
proctype world() provided (!dying) {
end_idle:
    do
    :: atomic {
        died < deaths -> died++;
        if
        :: !dead[1] -> dead[1] = 1 /* the first owner of lane 0 */
        :: victims > 1 && !dead[2] -> dead[2] = 1
        fi;
        dying = 1
       }
    :: atomic { phase == DRAINING && named_by_slot[0] -> named_by_slot[0] = 0; emptied = EMPTIED(life) + 1; emptied_life = life }
    :: atomic { phase == DRAINING && named_by_slot[1] -> named_by_slot[1] = 0; emptied = EMPTIED(life) + 1; emptied_life = life }
    od
}

init {
    atomic {
        SET_PARAMETERS;
        owner[0] = 1; owner[1] = 2; owner[2] = 3;
        run worker(0, roles0); run worker(1, roles1); run worker(2, roles2); /* pids 1 to 3: lane + 1, as owner */
        run sweeper(); run world()
    }
end_init:
    false
}
