/*
 * wake.pml - the log: who sleeps for which batch, who is woken, who leads next.
 *
 * Three workers, each with one sync push. Nobody dies and no sleep ends by itself, so that a wake which is missing
 * shows: in the code it would cost a sleeper his 10 or 100 ms.
 *
 * Proves by assertion: when nothing can go on, all pushes were served and nobody sleeps.
 *
 * One atomic block is at most one access to a word that others change, or one futex call. Batches' numbers don't wrap here. run.sh sets
 * DROP through the environment; each DROPPED(rule) is a rule that spin must find needed.
 */
#define WORKERS 3

hidden byte drop;
c_decl { \#include <stdlib.h> }
#define SET_PARAMETERS c_code { drop = (unsigned char)(getenv("DROP") ? atoi(getenv("DROP")) : 0); }
#define DROPPED(rule) (drop == rule)
#define COUNT_FIRST     1 /* the count is raised before it is looked who waits */
#define BYTE_FIRST      2 /* the byte is given back before the count is raised: who was woken may find it taken else */
#define WAKE_NEXT       3 /* one of those who wait for the next batch is woken to lead it */
#define PASS_ON         4 /* who was woken for that, but has what he wanted, wakes another one */
#define COUNT_THEN_BYTE 5 /* a sleeper has read the count before he tries the byte, or sees that a sync runs */
#define FLAG_THEN_COUNT 6 /* a sleeper raises his flags before the futex compares the count */
#define COUNT_AGAIN     7 /* who took a flag counts once more: its sleeper may not have compared yet */

byte number;               /* LOG_COLLECT */
bool collecting;           /* its lowest bit */
bool syncing;              /* LOG_SYNCING names the file */
bool held;                 /* the lock byte */
byte count;                /* LOG_WAKE */
byte waiters;              /* LOG_WAITERS: bit n for batch n */
bool pushed[WORKERS], flushed[WORKERS];
byte asleep[WORKERS];      /* the futex: for which bits; 0: not */
byte finished;

#define NEXT(n) (1 << ((n) + 1))

/* FUTEX_WAKE_BITSET: one, whichever; all. */
inline wake_one(bits) {
    atomic {
        if
        :: asleep[0] & (bits) -> asleep[0] = 0
        :: asleep[1] & (bits) -> asleep[1] = 0
        :: asleep[2] & (bits) -> asleep[2] = 0
        :: else
        fi
    }
}
inline wake_all(bits) {
    d_step {
        for (k : 0 .. WORKERS - 1) {
            if
            :: asleep[k] & (bits) -> asleep[k] = 0
            :: else
            fi
        }
        k = 0
    }
}

/* One batch, by who holds the byte; then he resigns. */
inline lead() {
    atomic { number++; collecting = 1; mine = number }
    atomic { got[0] = pushed[0] }
    atomic { got[1] = pushed[1] }
    atomic { got[2] = pushed[2] }
    atomic { collecting = 0 }
    atomic { syncing = 1 }
    atomic { syncing = 0 }
    d_step { /* each lane's own word, before anything that is shared */
        for (k : 0 .. WORKERS - 1) {
            flushed[k] = got[k]; got[k] = 0
        }
        k = 0
    }
    atomic {
        if
        :: DROPPED(BYTE_FIRST)
        :: else -> held = 0
        fi
    }
    atomic {
        if
        :: DROPPED(COUNT_FIRST)
        :: else -> count++
        fi
    }
    atomic { waited = waiters; waiters = waiters & NEXT(mine) }
    atomic {
        if
        :: DROPPED(COUNT_FIRST) || ((waited & ~NEXT(mine)) && !DROPPED(COUNT_AGAIN)) -> count++
        :: else
        fi
    }
    atomic {
        if
        :: (waited & NEXT(mine)) && !DROPPED(WAKE_NEXT) -> wake_one(NEXT(mine))
        :: else
        fi
    }
    atomic {
        if
        :: waited & ~NEXT(mine) -> wake_all(255 - NEXT(mine))
        :: else
        fi;
        mine = 0; waited = 0
    }
    if
    :: DROPPED(BYTE_FIRST) -> held = 0
    :: else
    fi
}

proctype worker(byte me) {
    byte bits, seen, mine, waited, k, got[WORKERS];
    bool fresh = 1, slept, leads;
    atomic { me == 0 || pushed[me - 1] -> pushed[me] = 1 } /* they are alike: the numbers go by that */
    atomic { bits = NEXT(number) | (collecting -> 1 << number : 0) }
    do
    :: flushed[me] -> break
    :: atomic { !flushed[me] -> skip }
        atomic {
            if
            :: DROPPED(COUNT_THEN_BYTE)
            :: else -> seen = count
            fi
        }
        atomic { leads = !(fresh && syncing); fresh = 0 }
        atomic {
            if
            :: leads && !held -> held = 1
            :: else -> leads = 0
            fi
        }
        if
        :: leads -> lead()
        :: else ->
            atomic {
                if
                :: DROPPED(COUNT_THEN_BYTE) -> seen = count
                :: else
                fi
            }
            atomic {
                slept = 1;
                if
                :: DROPPED(FLAG_THEN_COUNT)
                :: else -> waiters = waiters | bits
                fi
            }
            atomic {
                if
                :: count == seen -> asleep[me] = bits
                :: else
                fi
            }
            atomic {
                if
                :: DROPPED(FLAG_THEN_COUNT) -> waiters = waiters | bits
                :: else
                fi
            }
            atomic { asleep[me] == 0 -> seen = 0 }
        fi
    od;
    atomic { waited = (slept && !DROPPED(PASS_ON) && !collecting -> NEXT(number) & bits : 0) }
    atomic {
        if
        :: waited & waiters -> wake_one(waited)
        :: else
        fi;
        waited = 0; bits = 0
    }
    finished++
}

proctype stuck() {
end_stuck:
    timeout -> assert(finished == WORKERS)
}

init {
    atomic {
        SET_PARAMETERS;
        run worker(0); run worker(1); run worker(2); run stuck()
    }
}
