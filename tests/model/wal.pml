/*
 * wal.pml - the log: pushing, leaders and their epochs, new files, failing syncs, succession, acknowledging.
 *
 * Two rings, two keys that are published and pushed (the first one twice: claimed, then completed by another lane), a third one
 * whose record lies in the oldest file; leaders that write one record a batch, may die before any step (and begin again as
 * another one), may sleep while a successor takes the next epoch, and whose syncs may fail.
 *
 * Proves by assertion: whenever the machine dies, whatever of the unsynced sectors is kept, whether or not a rename that no
 * directory sync followed is kept, recovery refuses nothing and finds everything that was acknowledged by then. Acknowledged
 * is what anybody could be told at any moment: a word that says its slot's state and lies below DURABLE, and each reference
 * that `flushed` has passed, or a wanted walk was for (so idem_sync() says).
 *
 * One atomic block is at most one access to a word that others change. The epoch lies here in ASSIGNED, SYNCING and DURABLE only: in the code FILE,
 * WRITTEN and each lane's flushed carry it, too, which is more than is needed. run.sh sets the parameters through the environment; each DROPPED(rule) is a rule that spin must find needed.
 */
#define LEADERS 2
#define LANES 2
#define FILES 6
#define POSITIONS 9
#define EPOCHS 3

hidden byte drop, deaths, steals, failures, second_state, walks, retain, pushed, one_old;
c_decl { \#include <stdlib.h> }
c_code {
    static unsigned char parameter(const char *name)
    {
        const char *text = getenv(name);
        return (unsigned char)(text ? atoi(text) : 0);
    }
}
#define SET_PARAMETERS c_code { \
    drop = parameter("DROP"); deaths = parameter("DEATHS"); steals = parameter("STEALS"); \
    failures = parameter("FAILURES"); second_state = parameter("SECOND_STATE"); \
    walks = parameter("WALKS"); retain = parameter("RETAIN"); pushed = parameter("PUSHED"); one_old = parameter("ONE_OLD"); }
#define DROPPED(rule) (drop == rule)
#define SEAL_ASSIGNED    1  /* ASSIGNED carries the epoch: who was succeeded hands out no positions any more */
#define SEAL_SYNCING     2  /* so does SYNCING: he takes nobody's mark away */
#define SEAL_DURABLE     3  /* so does DURABLE, and it is sealed before prev_end is read from it */
#define SYNCING_FIRST    4  /* SYNCING names the file before its sync begins, and stays if the sync fails */
#define NEW_AFTER_GAP    5  /* ASSIGNED past WRITTEN: a new file, not the same one behind the hole */
#define NEW_AFTER_EPOCH  6  /* another epoch than the file's: a new file */
#define BASE_IS_ASSIGNED 7  /* the new file's base lies past every position that was written */
#define NOTE_LAST        8  /* an entry's word names a position only after DURABLE has passed it */
#define RESOLVE          9  /* a reference whose slot says something else is resolved to that, not dropped */
#define WANTED_FIRST     10 /* a walk counts for what was wanted before it began */
#define DIRECTORY_FIRST  11 /* who finds a later file that he did not make syncs the directory before he makes his own */
#define LATER_EPOCH      12 /* who finds a file of a later epoch was succeeded, and makes none behind it */
#define FILE_FIRST       13 /* SYNCING is cleared after FILE names the new file: else the old one looks sound again */
#define DIRECTORY_SYNC   14 /* a new file is used after its directory was synced */

/* The root's words. */
byte epoch, assigned_epoch, assigned = 2, written = 2, syncing_epoch, syncing, file = 2;
byte durable_epoch, durable = 2;
byte holder[EPOCHS]; /* the lock bytes: leader, 0: free */
byte head[LANES], flushed[LANES];
byte cell[4];        /* lane * 2 + index: key * 4 + state */
byte wanted, walked; /* LOG_WALK_WANTED, LOG_WALK_DONE */
byte slot[3];        /* 0 absent, 1 claimed, 2 completed */
byte word[9];        /* key * 3 + state: position of the entry's record, 0: none */
bool dead[LEADERS + 1], dying;
byte died, stolen, failed, said; /* said: the steps of the lanes */

/* The disk. */
#define GONE 3
byte there[FILES]; /* 1 renamed, 2 its directory was synced, GONE */
byte base[FILES], prev_end[FILES], made_in[FILES];
#define DIRTY 64
#define LEFT 128 /* its sync failed: clean in the cache, not on the disk, and no later sync writes it */
#define ON_DISK 192
byte record[FILES * POSITIONS]; /* one of the above + key * 4 + state; 0: nothing was written */
byte says[FILES * POSITIONS];   /* that batch's "durable" */

/* Ghosts. */
byte acknowledged[3]; /* the state that somebody could be told is durable */

c_code {
    struct image { int f[FILES], n; };
    static int sound(int f, int p, unsigned long kept)
    {
        int r = now.record[f * POSITIONS + p];
        if (!(r & 63))
            return 0;
        return (r & 192) == ON_DISK || (kept >> (f * POSITIONS + p) & 1);
    }
    /* Recovery of an image. 0: it refuses, or something acknowledged is missing. */
    static int recovers(const struct image *m, unsigned long kept)
    {
        int best[3] = {0, 0, 0}, i, j, p, k;
        for (i = 0; i < m->n; i++) {
            int f = m->f[i], last = i + 1 == m->n, end = POSITIONS, stop;
            if (!last && m->f[i + 1] != f + 1)
                return 0; /* a gap in the numbers: a file is missing */
            for (j = i + 1; j < m->n; j++)
                if (now.prev_end[m->f[j]] < end)
                    end = now.prev_end[m->f[j]];
            for (p = now.base[f]; p < end && sound(f, p, kept); p++) {
                int r = now.record[f * POSITIONS + p] & 63;
                if ((r & 3) > best[r >> 2])
                    best[r >> 2] = r & 3;
            }
            stop = p;
            if (!last && stop < end)
                return 0; /* damage in the middle */
            for (; last && p < POSITIONS; p++)
                if (sound(f, p, kept) && now.says[f * POSITIONS + p] > stop)
                    return 0; /* so is this: it says that what is not sound was durable */
        }
        for (k = 0; k < 3; k++)
            if (best[k] < now.acknowledged[k])
                return 0;
        return 1;
    }
    /* All images that a crash at this moment can leave. */
    static int survives(void)
    {
        unsigned long unsynced = 0, kept = 0, names = 0, named = 0;
        int f, p;
        for (f = 1; f < FILES; f++) {
            if (now.there[f] == 1)
                names |= 1ul << f;
            if (now.there[f] == 1 || now.there[f] == 2)
                for (p = 1; p < POSITIONS; p++)
                    if ((now.record[f * POSITIONS + p] & 63) && (now.record[f * POSITIONS + p] & 192) != ON_DISK)
                        unsynced |= 1ul << (f * POSITIONS + p);
        }
        do {
            struct image m;
            m.n = 0;
            for (f = 1; f < FILES; f++)
                if (now.there[f] == 2 || (now.there[f] == 1 && (named >> f & 1)))
                    m.f[m.n++] = f;
            kept = 0;
            do {
                if (!recovers(&m, kept))
                    return 0;
                kept = (kept - unsynced) & unsynced; /* the next subset */
            } while (kept != 0);
            named = (named - names) & names;
        } while (named != 0);
        return 1;
    }
}

/* What anybody could be told now. */
inline acknowledge() {
    d_step {
        for (k_ : 0 .. 2) {
            if
            :: slot[k_] != 0 && word[k_ * 3 + slot[k_]] != 0 && word[k_ * 3 + slot[k_]] < durable &&
                acknowledged[k_] < slot[k_] -> acknowledged[k_] = slot[k_]
            :: else
            fi
        }
        k_ = 0
    }
}
inline acknowledge_flushed(l) {
    d_step {
        for (k_ : 0 .. (flushed[l] - 1)) {
            if
            :: acknowledged[cell[l * 2 + k_] / 4] < cell[l * 2 + k_] % 4 ->
                acknowledged[cell[l * 2 + k_] / 4] = cell[l * 2 + k_] % 4
            :: else
            fi
        }
        k_ = 0
    }
}
byte k_; /* theirs */

inline sync_file(f, before, after) {
    d_step {
        for (k_ : f * POSITIONS .. f * POSITIONS + POSITIONS - 1) {
            if
            :: (record[k_] & 192) == before -> record[k_] = (record[k_] & 63) + after
            :: else
            fi
        }
        k_ = 0
    }
}
inline sync_directory() {
    d_step {
        for (k_ : 1 .. FILES - 1) {
            if
            :: there[k_] == 1 -> there[k_] = 2
            :: else
            fi
        }
        k_ = 0
    }
}

inline note() {
    atomic {
        if
        :: word[k * 3 + s] == was -> word[k * 3 + s] = at; acknowledge()
        :: else
        fi
    }
}

proctype leader(byte me) provided (!dying || dead[me]) {
    byte e, f, b, at, known, k, s, was, n, cursor[LANES], from[LANES], w, walk;
    bool walking, recorded;

start:
    skip;
    {
    atomic {
        f = 0; b = 0; at = 0; known = 0; k = 0; s = 0; was = 0; n = 0; w = 0; walk = 0;
        cursor[0] = 0; cursor[1] = 0; from[0] = 0; from[1] = 0;
        walking = 0; recorded = 0; e = 0
    }
end_rest:
    if
    :: atomic { holder[epoch] == 0 && (!one_old || (me == 1) == (epoch == 0)) -> e = epoch }
    :: atomic { holder[epoch] != 0 && holder[epoch] != me && stolen < steals -> stolen++; epoch++; e = epoch }
    fi;
    atomic {
        if
        :: holder[e] == 0 -> holder[e] = me
        :: else -> goto start
        fi
    }
    atomic {
        if
        :: epoch == e
        :: else -> goto resign
        fi
    }
log_elected: /* what the leaders share is sealed before any of it is read */
    atomic {
        if
        :: DROPPED(SEAL_ASSIGNED)
        :: !DROPPED(SEAL_ASSIGNED) && assigned_epoch > e -> goto resign
        :: else -> assigned_epoch = e
        fi;
        at = assigned
    }
    atomic {
        if
        :: DROPPED(SEAL_SYNCING)
        :: !DROPPED(SEAL_SYNCING) && syncing_epoch > e -> goto resign
        :: else -> syncing_epoch = e
        fi;
        s = syncing
    }
    atomic {
        if
        :: DROPPED(SEAL_DURABLE)
        :: !DROPPED(SEAL_DURABLE) && durable_epoch > e -> goto resign
        :: else -> durable_epoch = e
        fi;
        known = durable
    }
log_sealed:
    atomic { f = file }
    atomic {
        if
        :: s == f && !DROPPED(SYNCING_FIRST) -> goto fresh
        :: made_in[f] != e && !DROPPED(NEW_AFTER_EPOCH) -> goto fresh
        :: written != at && !DROPPED(NEW_AFTER_GAP) ->
            if
            :: DROPPED(BASE_IS_ASSIGNED) -> at = written
            :: else
            fi;
            goto fresh
        :: else -> b = base[f]; goto log_ready
        fi
    }
fresh: /* the first number that is free behind the file known; of two who want it, the rename lets one have it */
    atomic {
        n = f;
        do
        :: n < FILES && there[n] != 0 && (made_in[n] <= e || DROPPED(LATER_EPOCH)) -> n++
        :: else -> break
        od;
        if
        :: n == FILES -> goto end_over
        :: n < FILES && there[n] != 0 -> goto resign
        :: n < FILES && there[n] == 0 && there[n - 1] == 1 && !DROPPED(DIRECTORY_FIRST)
        :: else -> goto log_file_made
        fi
    }
    atomic { sync_directory() }
log_file_made:
    atomic {
        if
        :: there[n] == 0 -> there[n] = 1; base[n] = at; prev_end[n] = known; made_in[n] = e
        :: else -> goto fresh /* somebody was faster */
        fi
    }
log_file_named:
    if
    :: DROPPED(DIRECTORY_SYNC)
    :: else -> atomic { sync_directory() }
    fi;
log_file_used:
    if
    :: DROPPED(FILE_FIRST)
    :: else -> atomic { file = n } atomic { written = at }
    fi;
    atomic {
        if
        :: !DROPPED(SEAL_SYNCING) && syncing_epoch != e -> goto resign
        :: else -> syncing = 0
        fi
    }
    if
    :: DROPPED(FILE_FIRST) -> atomic { file = n } atomic { written = at }
    :: else
    fi;
    atomic { f = n; b = at; n = 0; s = 0; recorded = 0 }

log_ready:
    atomic { w = wanted; from[0] = flushed[0]; cursor[0] = from[0] } /* by leaders only, sealed by their epoch */
    atomic { from[1] = flushed[1]; cursor[1] = from[1]; walking = (walked != w); walk = 0 }

batch:
    atomic { k = 0; s = 0; was = 0; recorded = 0 }
end_batch:
    if
    :: atomic { cursor[0] < head[0] -> k = cell[cursor[0]] / 4; s = cell[cursor[0]] % 4; cursor[0]++ }
    :: atomic { cursor[1] < head[1] -> k = cell[2 + cursor[1]] / 4; s = cell[2 + cursor[1]] % 4; cursor[1]++ }
    :: atomic {
        walking && walk < 2 -> k = walk; walk++; s = slot[k]; was = word[k * 3 + s];
        if
        :: s != 0 && was == 0
        :: else -> s = 0
        fi;
        if
        :: s == 0 && walk < 2 -> goto batch
        :: s == 0 && walk == 2 -> goto collected
        :: else
        fi
       }
    :: atomic { !walking && walked != wanted -> w = wanted; walking = 1; walk = 0; goto batch }
    :: atomic { /* copying forward, so that the oldest file can go */
        retain && f > 2 && there[1] == 2 -> k = 2; s = 1; was = word[7];
        if
        :: was < base[2]
        :: else ->
            if
            :: was < known -> there[1] = GONE /* REC_RETAIN and deleting are one step here */
            :: else
            fi;
            goto batch
        fi
       }
    :: !one_old -> goto resign
    fi;
    atomic { /* take: what the slot says now */
        if
        :: slot[k] == s
        :: slot[k] != s && DROPPED(RESOLVE) -> goto collected
        :: else -> s = slot[k]
        fi;
        was = word[k * 3 + s];
        if
        :: was >= (k == 2 -> base[2] : 1) -> goto collected /* on record */
        :: else
        fi
    }
    if
    :: DROPPED(NOTE_LAST) -> note()
    :: else
    fi;
    atomic {
        if
        :: at == POSITIONS -> goto end_over
        :: !DROPPED(SEAL_ASSIGNED) && assigned_epoch != e -> goto resign
        :: else -> assigned = at + 1
        fi
    }
log_assigned:
    atomic { record[f * POSITIONS + at] = DIRTY + k * 4 + s; says[f * POSITIONS + at] = known; at++; recorded = 1 }
log_written:
    atomic { written = at }
collected:
    if
    :: recorded
    :: else -> goto pass /* nothing to write */
    fi;
    if
    :: DROPPED(SYNCING_FIRST)
    :: else -> atomic {
        if
        :: !DROPPED(SEAL_SYNCING) && syncing_epoch != e -> goto resign
        :: syncing == f && (DROPPED(SEAL_SYNCING) || syncing_epoch == e) -> goto fresh
        :: else -> syncing = f
        fi
       }
    fi;
log_syncing:
    if
    :: atomic { failed < failures && (!one_old || me == 2) -> failed++; sync_file(f, DIRTY, LEFT) }
log_sync_failed:
       goto fresh
    :: atomic { sync_file(f, DIRTY, ON_DISK) }
    fi;
log_synced:
    atomic {
        if
        :: !DROPPED(SEAL_DURABLE) && (durable_epoch != e || durable != known) -> goto resign
        :: DROPPED(SEAL_DURABLE) && durable != known -> goto resign
        :: else -> durable = at; known = at; acknowledge()
        fi
    }
    if
    :: DROPPED(SYNCING_FIRST)
    :: else -> atomic {
        if
        :: DROPPED(SEAL_DURABLE) && syncing_epoch != e /* who is refused here would notice, too: he does not look */
        :: !DROPPED(SEAL_DURABLE) && !DROPPED(SEAL_SYNCING) && syncing_epoch != e -> goto resign
        :: else -> syncing = 0
        fi
       }
    fi;
log_durable:
    at = at - 1;
    if
    :: DROPPED(NOTE_LAST)
    :: else -> note()
    fi;
log_noted:
    at = at + 1;
pass:
    atomic {
        if
        :: flushed[0] == from[0] -> flushed[0] = cursor[0]; from[0] = cursor[0]; acknowledge_flushed(0)
        :: else -> goto resign
        fi
    }
    atomic {
        if
        :: flushed[1] == from[1] -> flushed[1] = cursor[1]; from[1] = cursor[1]; acknowledge_flushed(1)
        :: else -> goto resign
        fi
    }
log_flushed:
    atomic {
        if
        :: walking && walk == 2 ->
            walking = 0; walk = 0; walked = (DROPPED(WANTED_FIRST) -> wanted : w);
            if
            :: walked == wanted && (said & 64) && acknowledged[0] == 0 -> acknowledged[0] = 1
            :: else
            fi
        :: else
        fi;
        goto batch
    }
resign:
    atomic { holder[e] = 0; goto start }
end_over:
    false
    } unless {
        atomic {
            dead[me] -> dying = 0; dead[me] = 0;
            if
            :: holder[0] == me -> holder[0] = 0
            :: else
            fi;
            if
            :: holder[1] == me -> holder[1] = 0
            :: else
            fi;
            if
            :: holder[2] == me -> holder[2] = 0
            :: else
            fi;
            goto start
        }
    }
}

/* one_old: leader 1 leads in the first epoch only, and lives; leader 2 succeeds it, and may fail and die. */

/* The lanes: publish by the slot CAS, then push; a step may never come. And those who die. */
proctype world() provided (!dying) {
end_world:
    do
    :: atomic { (said & 1) == 0 -> said = said | 1; slot[0] = 1 }
    :: atomic { (said & 3) == 1 -> said = said | 2; cell[0] = 1; head[0] = 1 }
    :: atomic { walks && (said & 3) == 1 -> said = said | 66; wanted++ } /* its ring is full, or its owner died */
    :: atomic { second_state && (said & 6) == 2 -> said = said | 4; slot[0] = 2; acknowledge() }
    :: atomic { (said & 12) == 4 -> said = said | 8; cell[2 + head[1]] = 2; head[1]++ }
    :: atomic { died < deaths -> died++;
        if
        :: !one_old -> dead[1] = 1
        :: dead[2] = 1
        fi;
        dying = 1
       }
    od
}

/* The machine may die at any moment. */
proctype machine() {
end_machine:
    atomic { c_expr { (!survives()) } -> assert(false) }
}

init {
    atomic {
        SET_PARAMETERS;
        there[1] = 2; base[1] = 1; record[1 * POSITIONS + 1] = ON_DISK + 2 * 4 + 1;
        there[2] = 2; base[2] = 2; prev_end[2] = 2;
        slot[2] = 1; word[7] = 1; acknowledged[2] = 1;
        wanted = walks; /* one is under way */
        if
        :: pushed -> said = 3; slot[0] = 1; cell[0] = 1; head[0] = 1; slot[1] = 1; cell[2] = 5; head[1] = 1
        :: else
        fi;
        run leader(1); run leader(2); run world(); run machine()
    }
end_init:
    false
}
