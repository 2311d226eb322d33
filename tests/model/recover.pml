/*
 * recover.pml - recovery from the log, while the old segment's leader still writes, and again after the machine died: who may write, what is copied before
 * anything is given out, tokens from reboot to reboot.
 *
 * One leader of a segment that was removed: he writes two records into the log's file (0), syncs (it may fail), acknowledges, gives out tokens. One recovery
 * after another, each of which may die before any step; each makes the next file. The machine dies as often as CRASHES says: of what was not
 * synced anything may be lost.
 *
 * Proves by assertion: a recovered store has all that anybody was told is durable, and all that a store before it may have shown; it refuses nothing;
 * no token is given out twice, nor one below another that was.
 *
 * One atomic block is one system call, or steps between which nobody else looks. run.sh sets DROP and the rest through the environment; each
 * DROPPED(rule) is a rule that spin must find needed.
 */
#define FILES 5

hidden byte drop;
hidden byte crashes, deaths, failures;
c_decl { \#include <stdlib.h> }
#define GET(name) (getenv(name) ? (unsigned char)atoi(getenv(name)) : 0)
#define SET_PARAMETERS c_code { drop = GET("DROP"); now.crashes_left = GET("CRASHES"); now.deaths_left = GET("DEATHS"); now.failures_left = GET("FAILURES"); }
#define DROPPED(rule) (drop == rule)
#define OWN_FIRST       1 /* the id names the new instance before the log is read */
#define OURS_AFTER_SYNC 2 /* a leader asks whose log it is after his sync, not only before he writes */
#define TAIL_COPIED     3 /* what was not proven is written anew before the store is seen */
#define PREV_END_PROVEN 4 /* the new file says that what was proven is on the disk, not all that was read */
#define SYNC_FIRST      5 /* its bytes are synced before it has its name */
#define DIRECTORY_SYNC  6 /* its name is, before the store is seen */
#define FLOOR_ABOVE     7 /* tokens begin above the ceiling: those at it may have been given out */
#define NAMES_FIRST     9 /* the names of files that died recoveries made are synced before the next one has its own: no gap */
#define CEILING_FIRST   8 /* the new file's header promises what the store gives out before it has written anything */

byte crashes_left, deaths_left, failures_left;
byte machine;              /* counts its lives */
byte instance;             /* that the id names; the old segment's is 0 */
bool store;                /* there is one that everybody can open */

/* File 0: record i is bit i. It says how many were durable when it was written, and promises tokens up to i + 1. */
byte written, synced, durable_then[2];
/* The others: bytes and names, in the cache and on the disk. */
bool named[FILES], named_disk[FILES], bytes_disk[FILES];
byte has[FILES], prev_end[FILES], ceiling[FILES];

byte told;                 /* records that somebody was told of */
byte token;                /* the greatest that was given out */

/* What a reader of the log finds. */
byte last, known, proven, promised;
hidden byte j;
inline read_log() {
    d_step {
        last = 0; known = 0; proven = 0; promised = 0;
        for (j : 1 .. FILES - 1) {
            if
            :: named[j] ->
                assert(j == 1 || named[j - 1]); /* a gap is refused */
                last = j;
                if
                :: prev_end[j] > proven -> proven = prev_end[j]
                :: else
                fi;
                if
                :: ceiling[j] > promised -> promised = ceiling[j]
                :: else
                fi
            :: else
            fi
        }
        for (j : 0 .. 1) {
            if
            :: last == 0 || prev_end[1] > j ->
                if
                :: (written & (1 << j)) && (j == 0 || (known & 1)) ->
                    known = known | (1 << j);
                    if
                    :: durable_then[j] > proven -> proven = durable_then[j]
                    :: else
                    fi;
                    if
                    :: j + 1 > promised -> promised = j + 1
                    :: else
                    fi
                :: else ->
                    assert(last == 0); /* the next file says that it was there: refused */
                    assert(!(j == 0 && (written & 2) && durable_then[1] > 0)) /* a later batch says so: refused */
                fi
            :: else /* void */
            fi
        }
        j = 0;
        if
        :: last > 0 -> known = known | has[last]
        :: else
        fi
    }
}

inline sync_names() {
    for (j : 1 .. FILES - 1) {
        named_disk[j] = named[j]
    }
    j = 0
}

/* The machine dies. Names and bytes that no sync covered are kept or not. */
proctype crash() {
    byte f;
    do
    :: atomic {
           crashes_left > 0 ->
           crashes_left--;
           machine++;
           store = false;
           if
           :: written = synced
           :: true
           :: written = synced | (written & 1)
           :: written = synced | (written & 2)
           fi;
           synced = written;
           for (f : 1 .. FILES - 1) {
               if
               :: named[f] && !named_disk[f] -> named[f] = false
               :: named[f] -> named_disk[f] = true
               :: else
               fi;
               if
               :: named[f] && !bytes_disk[f] -> has[f] = 0
               :: bytes_disk[f] = true
               fi
           }
           f = 0
       }
    :: atomic { crashes_left == 0 -> break }
    od
}

/* The old segment's leader, and who claims there. */
proctype leader() {
    byte i, durable, promise;
    bool ours;
end_gone:
    do
    :: atomic { machine == 0 && token < promise -> token++ } /* a claim; his is in memory only */
    :: atomic {
           machine == 0 && i < 2 ->
           ours = (instance == 0);
           if
           :: !ours -> break
           :: else
           fi
       }
       atomic {
           if
           :: machine == 0 -> written = written | (1 << i); durable_then[i] = durable
           :: else -> break
           fi
       }
       atomic {
           if
           :: machine == 0 -> synced = synced | written
           :: machine == 0 && failures_left > 0 -> failures_left--; break /* the file is given up */
           :: machine != 0 -> break
           fi
       }
       atomic {
           if
           :: machine == 0 ->
               if
               :: !DROPPED(OURS_AFTER_SYNC) -> ours = (instance == 0)
               :: else
               fi;
               if
               :: ours -> told = told | (1 << i); i++; durable = i; promise = i
               :: else -> break
               fi
           :: else -> break
           fi
       }
    :: atomic { machine != 0 || i == 2 -> break }
    od
}

#define LIVES (machine == mine)
/* One recovery after another; they exclude each other by the directory's lock, which goes with who holds it. */
proctype recovery() {
    byte mine, number, tail, end, promise, all;
end_rest:
    do
    :: atomic { !store -> mine = machine; number = 0 };
       if
       :: atomic {
              LIVES ->
              instance = (DROPPED(OWN_FIRST) -> instance : 1);
              if
              :: !DROPPED(NAMES_FIRST) -> sync_names() /* with the id's */
              :: else
              fi
          }
       :: atomic { !LIVES -> goto over }
       fi;
recover_owned:
       atomic {
           if
           :: !LIVES || deaths_left > 0 -> deaths_left = (LIVES -> deaths_left - 1 : deaths_left); goto over
           :: LIVES ->
               read_log();
               all = known;
               number = last + 1;
               if
               :: number == FILES -> goto over /* enough */
               :: else
               fi;
               end = proven;
               promise = promised + 1;
               tail = (last > 0 -> has[last] : known & ~((1 << proven) - 1) & 3)
           fi
       }
       atomic {
           if
           :: LIVES && DROPPED(OWN_FIRST) -> instance = 1
           :: else
           fi
       }
recover_copied: /* under a name of its own: nobody sees it */
       atomic {
           if
           :: !LIVES || deaths_left > 0 -> deaths_left = (LIVES -> deaths_left - 1 : deaths_left); goto over
           :: LIVES -> /* synced, then renamed */
               named[number] = true;
               named_disk[number] = false;
               bytes_disk[number] = !DROPPED(SYNC_FIRST);
               has[number] = (DROPPED(TAIL_COPIED) -> 0 : tail);
               prev_end[number] = (DROPPED(PREV_END_PROVEN) && number == 1 -> (all & 1) + (all >> 1) : end);
               ceiling[number] = (DROPPED(CEILING_FIRST) -> promise - 1 : promise)
           fi
       }
       atomic {
           if
           :: !LIVES || deaths_left > 0 -> deaths_left = (LIVES -> deaths_left - 1 : deaths_left); goto over
           :: LIVES && !DROPPED(DIRECTORY_SYNC) -> /* of all names in it */
               sync_names()
           :: LIVES && DROPPED(DIRECTORY_SYNC)
           fi
       }
recover_sealed:
       atomic {
           if
           :: !LIVES || deaths_left > 0 -> deaths_left = (LIVES -> deaths_left - 1 : deaths_left); goto over
           :: LIVES ->
               store = true;
               assert((told & ~all) == 0);
               told = told | all; /* whoever asks is shown them */
               promise = (DROPPED(FLOOR_ABOVE) -> promise - 1 : promise);
               assert(promise > token);
               token = promise
           fi
       }
recover_visible:
       atomic { /* somebody removes the segment, or the machine dies */
           if
           :: LIVES -> store = false
           :: !LIVES
           fi
       }
over:
       atomic {
           if
           :: number == FILES -> break
           :: else
           fi
       }
    od
}

init {
    SET_PARAMETERS;
    atomic {
        run leader();
        run recovery();
        run crash()
    }
}
