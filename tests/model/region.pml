/*
 * region.pml - a region's lives: writers, comparers, the pass over the index, the two checks.
 *
 * One region R with one chunk of one entry; two index slots, one a slice; generations of two values, so that the third
 * life looks like the first. Everything else (other regions) is "elsewhere", where entries live for ever.
 *
 * Proves by assertion, over all interleavings, with the death of a worker before any step: a region becomes free only
 * when no slot names it; nothing is published into another life of the region than the one it was written in; a chunk
 * is written by one lane only; a word is exchanged only for the entry it was read for; nobody writes into recycled
 * memory.
 *
 * One atomic block is at most one access to a word that others change. Labels are the code's crash points, with "_" for
 * ".". run.sh sets the parameters through the environment; each DROPPED(rule) is a rule that spin must find needed.
 */
#ifndef GENERATIONS
#define GENERATIONS 2
#endif
#define SLOTS 2
#define WORKERS 2
#define LANES 4 /* two workers', two sweepers' */

hidden byte drop, deaths, sweepers, roles0, roles1, lives, most_passes, most_put_off;
c_decl { \#include <stdlib.h> }
c_code {
    static unsigned char parameter(const char *name)
    {
        const char *text = getenv(name);
        return (unsigned char)(text ? atoi(text) : 0);
    }
}
#define SET_PARAMETERS c_code { \
    drop = parameter("DROP"); deaths = parameter("DEATHS"); sweepers = parameter("SWEEPERS"); \
    roles0 = parameter("ROLES0"); roles1 = parameter("ROLES1"); \
    lives = parameter("LIVES"); most_passes = parameter("PASSES"); \
    most_put_off = parameter("PUT_OFF"); }
#define DROPPED(rule) (drop == rule)
#define GOTO_IF(condition, label) if :: condition -> goto label :: else fi
#define CHECK_1 1            /* no writer is active in a draining region when its pass begins */
#define CHECK_2 2            /* nobody compares a word of a region when it becomes free */
#define WRITE_HAZARD_FIRST 3 /* a writer sets its hazard before it looks at the region's state */
#define COMPARE_REREAD 4     /* a comparer loads the slot again after setting its hazard */
#define WHOLE_PASS 5         /* only a pass that begins after check 1 counts */
#define NOTE_AFTER_CHECK_1 6 /* the pass is noted after check 1, not before */
#define NOTE_CLEARED 7       /* a note does not outlive its region's life */
#define CHUNK_IDENTITY 8     /* a lane knows its chunk by more than the generation */
#define CURSOR_THEN_STATE 9  /* a helper loads region states after the cursor */
#define PUT_OFF 10           /* a pass that leaves a word alone (no room to move it) puts the region's note off */
#define ONLY_OWN_HAZARD 11   /* nobody clears a hazard for a dead owner */
#define JUDGE_AFTER_STATE 12 /* who is dead is judged anew for each check */
#define COUNT_AFTER_CHECK_1 13 /* filled == emptied counts only after check 1 */
#define EMPTIED_AFTER_LEFT 14 /* an entry is counted emptied after it has left its slot */
#define FILLED_BEFORE 15     /* an entry is counted filled before it is published */
#define CURSOR_THEN_NOTE 18  /* a sweeper loads the cursor before the note that it may satisfy */
#define PUT_OFF_UNNOTED 19   /* putting off spoils a note that is just being made, too */
#define PUT_OFF_FIRST 20     /* a note is put off before the cursor leaves the slice */
#define COUNTS_BY_LIFE 17    /* the counts tell lives apart by more than the generation */
#define OPENER_LOOKS 21      /* who opens a region looks at its state again after loading the words that he will change */
#define SPAN_FIRST 16        /* a chunk is used up before it is written to: the lane's next owner goes on behind */

/* Roles of a worker. */
#define WRITES 1
#define COMPARES 2

#define FREE 0
#define OPEN 1
#define DRAINING 2
#define RETIRING 3
/* In the code expiry and opening time tell lives apart; the FREE word has but the generation. */
byte phase, generation, life;
byte meta; /* the life that it was set for; 0 none */
#define META_GENERATION(l) ((l) == 0 -> 255 : ((l) - 1) % GENERATIONS)
byte taken_generation = 255;  /* the region's cursor word: the chunk was taken in this generation */
byte filled_in, filled, emptied_in, emptied;  /* the counts and the life they are of */
/* The drain word: a pass, or how often it was put off before it was noted. */
byte note_generation = 255, note_pass, note_count;
byte put_off;
byte pass, slice; /* the cursor; slice 0: this pass has not begun */

/* Slot word: 0 free, 1 an entry elsewhere, 2 + generation * 2 + state: the entry in R. */
#define ELSEWHERE 1
#define WORD(g) (2 + (g) * 2)
#define IN_REGION(w) ((w) >= 2)
#define WORD_GENERATION(w) (((w) - 2) / 2)
#define OTHER_STATE(w) ((w) ^ 1)
byte slot[SLOTS];

byte hazard_write[LANES], hazard_compare[LANES]; /* 1: names R */
byte owner[LANES];                               /* lane + 1; after a death and a new owner + LANES */
bool dead[2 * LANES + 1];
byte died;
bool dying; /* a death is one step: nobody else moves until the victim has left */

/* Ghosts. */
byte slot_life[SLOTS];
byte written_life; /* the life in which the chunk's entry was written */

/* What the counts are tagged with: lives are told apart by it. */
#define TAG(l) (DROPPED(COUNTS_BY_LIFE) -> 1 + (l) % GENERATIONS : l)
inline count_emptied(l) {
    d_step {
        if
        :: emptied_in == TAG(l) -> emptied++
        :: else -> emptied_in = TAG(l); emptied = 1
        fi
    }
}
inline count_filled(l) {
    d_step {
        if
        :: filled_in == TAG(l) -> filled++
        :: else -> filled_in = TAG(l); filled = 1
        fi
    }
}
#define FILLED(l) (filled_in == TAG(l) -> filled : 0)
#define EMPTIED(l) (emptied_in == TAG(l) -> emptied : 0)

proctype worker(byte lane; byte roles) provided (!dying || dead[owner[_pid - 1]]) {
    byte s, w, at_life;
    byte chunk_life, chunk_generation; /* the lane's chunk: 0 none. It outlives its owner */
    byte my_life, my_generation;       /* where the operation writes */

born:
    {
    skip;
idle:
    atomic { s = 0; w = 0; at_life = 0 }
end_idle:
    if
    :: atomic { (roles & WRITES) && phase == OPEN -> goto enter }
    :: atomic { (roles & COMPARES) && IN_REGION(slot[0]) -> s = 0; w = slot[0] }
    :: atomic { (roles & COMPARES) && IN_REGION(slot[1]) -> s = 1; w = slot[1] }
    fi;

    /* Compare: complete, abandon, rescue, relocate ... an entry in R. */
    atomic { hazard_compare[lane] = 1 }
    atomic {
        if
        :: slot[s] != w && !DROPPED(COMPARE_REREAD) -> hazard_compare[lane] = 0; goto idle
        :: else -> at_life = slot_life[s]
        fi
    }
    if
    :: skip
    :: atomic { assert(at_life == life); assert(phase != FREE) } /* rescue words are written into the entry */
    fi;
    if
    :: atomic { /* state only */
        if
        :: slot[s] == w -> assert(slot_life[s] == at_life); slot[s] = OTHER_STATE(w)
        :: else
        fi
       }
    :: atomic {
        true;
        if
        :: DROPPED(EMPTIED_AFTER_LEFT) -> count_emptied(at_life)
        :: else
        fi
       }
       atomic { /* a new entry, or none */
        if
        :: slot[s] == w ->
            assert(slot_life[s] == at_life);
            if
            :: slot[s] = ELSEWHERE
            :: slot[s] = 0
            fi;
            slot_life[s] = 0
        :: else -> goto compared
        fi
       }
complete_swapped:
       atomic {
        if
        :: DROPPED(EMPTIED_AFTER_LEFT)
        :: else -> count_emptied(at_life)
        fi
       }
    fi;
compared:
    atomic { hazard_compare[lane] = 0; goto idle }

enter: /* Write: from the lane's chunk, or a new one. */
    atomic {
        if
        :: DROPPED(WRITE_HAZARD_FIRST)
        :: else -> hazard_write[lane] = 1
        fi
    }
reserve_hazard:
    atomic {
        if
        :: phase != OPEN -> hazard_write[lane] = 0; chunk_life = 0; chunk_generation = 0; goto idle
        :: else
        fi;
        if
        :: chunk_life != 0 && chunk_generation == generation &&
            (chunk_life == life || DROPPED(CHUNK_IDENTITY)) -> goto fill
        :: else
        fi;
        chunk_life = 0; chunk_generation = 0; my_life = life; my_generation = generation
    }
    atomic { /* take the chunk of this generation, if nobody has */
        if
        :: taken_generation == my_generation -> hazard_write[lane] = 0; my_life = 0; my_generation = 0; goto idle
        :: else -> taken_generation = my_generation
        fi
    }
    atomic { chunk_life = my_life; chunk_generation = my_generation; my_life = 0; my_generation = 0 }
chunk_taken:
    if
    :: atomic { hazard_write[lane] = 0; goto idle } /* an earlier entry of it was all for now */
    :: skip
    fi;
fill:
    atomic {
        if
        :: DROPPED(WRITE_HAZARD_FIRST) -> hazard_write[lane] = 1
        :: else
        fi;
        my_life = chunk_life; my_generation = chunk_generation;
        if
        :: DROPPED(SPAN_FIRST)
        :: else -> chunk_life = 0; chunk_generation = 0
        fi
    }
    atomic {
        if
        :: DROPPED(FILLED_BEFORE)
        :: else -> count_filled(my_life)
        fi
    }
    atomic {
        assert(phase != FREE && my_life == life); /* nobody writes into recycled memory */
        assert(written_life != life);             /* nor over another lane's entry */
        written_life = life
    }
complete_filled:
    atomic {
        if
        :: slot[0] == 0 -> s = 0
        :: slot[0] != 0 && slot[1] == 0 -> s = 1
        :: else -> s = SLOTS
        fi;
        if
        :: s < SLOTS ->
            slot[s] = WORD(my_generation); slot_life[s] = my_life;
            assert(my_life == life && phase != FREE)
        :: else
        fi
    }
claim_published:
    atomic {
        if
        :: DROPPED(FILLED_BEFORE) -> count_filled(my_life)
        :: else
        fi
    }
    atomic {
        if
        :: s == SLOTS -> count_emptied(my_life)
        :: else
        fi;
        hazard_write[lane] = 0; chunk_life = 0; chunk_generation = 0; my_life = 0; my_generation = 0; goto idle
    }
    } unless {
        atomic { /* what it did not finish stays as it is */
            dead[owner[lane]];
            dying = 0; s = 0; w = 0; at_life = 0; my_life = 0; my_generation = 0
        }
    };
    /* The next process takes the lane over, with the chunk that was left in it, and goes on like the first. */
    atomic { owner[lane] = lane + 1 + LANES }
lane_taken:
    atomic { hazard_write[lane] = 0 }
    atomic { hazard_compare[lane] = 0 }
    goto born
}

/* check 1: compare_too 0; check 2: 1. Goes to `rest` if a live lane's hazard names R. */
inline unhazarded(compare_too) {
    l = 0;
    do
    :: atomic { l == LANES -> l = 0; break }
    :: else ->
        atomic { named = hazard_write[l] || (compare_too && hazard_compare[l]) }
        atomic { /* the owner is loaded after the hazard: it is who set it, or somebody later */
            if
            :: named && !dead[owner[l]] && !(DROPPED(JUDGE_AFTER_STATE) && known_dead[l]) -> l = 0; named = 0; goto rest
            :: else -> l++; named = 0
            fi
        }
    od
}

/* passes: makes passes all the time, for other regions' sake, and does nothing else. */
proctype sweeper(byte lane; bool passes) provided (!dying) {
    byte g, m, at_life, n_generation, n_pass, n_count, c_pass, c_slice, w, l, in, out;
    bool named, known_dead[LANES];

rest:
    atomic {
        g = 0; m = 0; at_life = 0; n_generation = 0; n_pass = 0; n_count = 0; c_pass = 0; c_slice = 0; w = 0; in = 0; out = 0;
        hazard_compare[lane] = 0;
        known_dead[0] = 0; known_dead[1] = 0
    }
end_rest:
    if
    :: atomic { !passes && phase == FREE && life < lives -> g = generation; goto open }
    :: atomic {
        !passes && phase == OPEN -> g = generation; at_life = life;
        if
        :: DROPPED(JUDGE_AFTER_STATE) -> known_dead[0] = dead[owner[0]]; known_dead[1] = dead[owner[1]]
        :: else
        fi
       }
       atomic {
        if
        :: phase == OPEN && life == at_life -> phase = DRAINING
        :: else -> goto rest
        fi
       }
sweep_draining:
       goto drain
    :: atomic { !passes && phase == DRAINING -> g = generation; at_life = life; goto drain }
    :: atomic { !passes && phase == RETIRING -> g = generation; at_life = life; goto retire }
    :: atomic {
        (passes || (phase == DRAINING && note_pass != 0 && note_generation == generation && pass < note_pass)) &&
            pass < most_passes ->
        if
        :: DROPPED(CURSOR_THEN_STATE) -> g = generation; at_life = phase
        :: else
        fi
       }
       goto helping
    fi;

region_found:
open:
    atomic { m = meta }
    atomic { n_generation = note_generation; n_pass = note_pass; n_count = note_count }
    atomic { /* these are of a later life unless it is FREE still */
        if
        :: phase == FREE && generation == g -> at_life = life + 1
        :: else -> GOTO_IF(!DROPPED(OPENER_LOOKS), rest)
        fi
    }
    if
    :: META_GENERATION(m) != g ->
        atomic {
            if
            :: meta == m -> assert(phase == FREE && life + 1 == at_life); meta = at_life
            :: else -> GOTO_IF(META_GENERATION(meta) != g, rest)
            fi
        }
    :: else
    fi;
region_meta:
    atomic { at_life = 0; m = 0; GOTO_IF(n_generation != g || DROPPED(NOTE_CLEARED), opening) }
    /* a note with this generation is of an earlier life: nobody drains what is not open */
    atomic {
        if
        :: note_generation == n_generation && note_pass == n_pass && note_count == n_count ->
            note_generation = 255; note_pass = 0; note_count = 0
        :: else
        fi
    }
opening:
    atomic {
        if
        :: phase == FREE && generation == g -> phase = OPEN; life++
        :: else
        fi
    }
region_opened:
    goto rest;

drain:
    if
    :: DROPPED(CURSOR_THEN_NOTE)
    :: else -> atomic { c_pass = pass; c_slice = slice }
    fi;
    atomic { n_generation = note_generation; n_pass = note_pass; n_count = note_count }
    if
    :: DROPPED(CURSOR_THEN_NOTE) -> atomic { c_pass = pass; c_slice = slice }
    :: else
    fi;
    if
    :: atomic {
        n_generation == g && n_pass != 0 ->
        if
        :: c_pass < n_pass -> goto rest
        :: else -> goto drained
        fi
       }
    :: else
    fi;
    if
    :: DROPPED(COUNT_AFTER_CHECK_1) -> atomic { out = EMPTIED(at_life); in = FILLED(at_life) }
    :: else
    fi;
    if
    :: DROPPED(CHECK_1)
    :: else -> unhazarded(0)
    fi;
    if
    :: DROPPED(COUNT_AFTER_CHECK_1)
    :: else ->
        atomic { out = EMPTIED(at_life) }
        atomic { in = FILLED(at_life) }
    fi;
    if
    :: in == out -> goto drained
    :: else
    fi;
    /* Slice 0: this pass has not begun, all of it will come after check 1. */
    atomic {
        if
        :: DROPPED(NOTE_AFTER_CHECK_1)
        :: else -> c_pass = pass; c_slice = slice
        fi
    }
    atomic {
        if
        :: note_generation == n_generation && note_pass == n_pass && note_count == n_count ->
            note_generation = g; note_count = 0;
            note_pass = c_pass + ((c_slice == 0 || DROPPED(WHOLE_PASS)) -> 1 : 2)
        :: else
        fi
    }
sweep_noted:
    goto rest;
drained:
    atomic {
        if
        :: phase == DRAINING && life == at_life -> phase = RETIRING
        :: else -> goto rest
        fi
    }
sweep_retiring:
retire:
    if
    :: DROPPED(CHECK_2)
    :: else -> unhazarded(1)
    fi;
    atomic {
        if
        :: phase == RETIRING && life == at_life ->
            assert(!IN_REGION(slot[0]) && !IN_REGION(slot[1]));
            phase = FREE; generation = (generation + 1) % GENERATIONS
        :: else
        fi
    }
sweep_recycled:
    goto rest;

helping: /* one step of the pass */
    atomic { c_pass = pass; c_slice = slice }
    if
    :: atomic {
        c_slice == 0 ->
        if
        :: pass == c_pass && slice == 0 -> slice = 1
        :: else
        fi;
        goto rest
       }
    :: else
    fi;
settle:
    atomic {
        w = slot[c_slice - 1];
        if
        :: !IN_REGION(w) -> goto settled
        :: else
        fi
    }
    atomic {
        if
        :: DROPPED(CURSOR_THEN_STATE) && (at_life != DRAINING || g != WORD_GENERATION(w)) -> goto settled
        :: !DROPPED(CURSOR_THEN_STATE) && (phase != DRAINING || generation != WORD_GENERATION(w)) -> goto settled
        :: else
        fi
    }
    atomic { hazard_compare[lane] = 1 }
    atomic {
        if
        :: slot[c_slice - 1] != w -> hazard_compare[lane] = 0; goto settle
        :: else
        fi
    }
    if
    :: atomic { most_put_off > put_off -> put_off++ } /* no room to move it */
       if
       :: DROPPED(PUT_OFF_FIRST) -> atomic {
           if
           :: pass == c_pass && slice == c_slice ->
               if
               :: slice == SLOTS -> slice = 0; pass++
               :: else -> slice++
               fi
           :: else
           fi
          }
       :: else
       fi;
       atomic {
        if
        :: DROPPED(PUT_OFF)
        :: !DROPPED(PUT_OFF) && note_generation == WORD_GENERATION(w) && note_pass != 0 ->
            if
            :: note_pass < c_pass + 2 -> note_pass = c_pass + 2
            :: else
            fi
        :: !DROPPED(PUT_OFF) && !(note_generation == WORD_GENERATION(w) && note_pass != 0) ->
            if
            :: DROPPED(PUT_OFF_UNNOTED)
            :: else -> note_generation = WORD_GENERATION(w); note_pass = 0; note_count++
            fi
        fi;
        hazard_compare[lane] = 0;
        goto settled
       }
    :: skip
    fi;
    atomic {
        if
        :: slot[c_slice - 1] == w ->
            assert(slot_life[c_slice - 1] == life); at_life = life;
            if
            :: slot[c_slice - 1] = ELSEWHERE
            :: slot[c_slice - 1] = 0
            fi;
            slot_life[c_slice - 1] = 0
        :: else -> hazard_compare[lane] = 0; goto settle
        fi
    }
sweep_moved:
    atomic { count_emptied(at_life) }
    atomic { hazard_compare[lane] = 0; goto settled }
settled:
sweep_slice:
    atomic {
        if
        :: pass == c_pass && slice == c_slice ->
            if
            :: slice == SLOTS -> slice = 0; pass++
            :: else -> slice++
            fi
        :: else
        fi;
        goto rest
    }
}

/* A worker dies; with a rule dropped, a reaper clears its lane's hazards for it. */
proctype world() provided (!dying) {
    byte l;
end_idle:
    do
    :: atomic {
        died < deaths -> died++;
        if
        :: dead[1] = 1 /* the first owner of lane 0 */
        :: roles1 != 0 -> dead[2] = 1
        fi;
        dying = 1
       }
    :: atomic { DROPPED(ONLY_OWN_HAZARD) && dead[owner[0]] -> l = 1 }
       atomic { hazard_write[0] = 0; l = 0 }
    od
}

init {
    atomic {
        SET_PARAMETERS;
        owner[0] = 1; owner[1] = 2; owner[2] = 3; owner[3] = 4;
        run worker(0, roles0); run worker(1, roles1); /* pids 1, 2: lane + 1, as owner */
        run sweeper(2, 0);
        if
        :: sweepers == 2 -> run sweeper(3, 1)
        :: sweepers == 3 -> run sweeper(3, 0)
        :: else
        fi;
        run world()
    }
end_init:
    false
}
