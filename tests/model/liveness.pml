/*
 * liveness.pml - who is alive: one process slot, its lock byte, its incarnation.
 *
 * Proves by assertion, over all interleavings, with the death of a process before any step: an owner that is judged
 * dead is dead (or has given its slot back) and stays so; at most one living process believes that the slot is its own;
 * a dead owner is judged dead as soon as the kernel has taken its lock, but for a registrant which looked at the slot
 * before that owner came.
 *
 * The kernel's part: a lock byte belongs to an open file description, is freed when the last process that holds a
 * descriptor of it is gone (some time after its last instruction), and does not show to who asks through that very
 * description.
 *
 * One atomic block is at most one system call or one access to shared memory. Labels are the code's crash points, with
 * "_" for ".". run.sh sets the parameters through the environment; each DROPPED(rule) is a rule that spin must find to
 * be needed.
 */
#define PROCESSES 3
#define DESCRIPTIONS (PROCESSES + 1) /* the last one is the judges': they lock nothing */
#define INCARNATIONS (2 * PROCESSES + 2)

hidden byte drop, registrants, deaths, forks;
c_decl { \#include <stdlib.h> }
c_code {
    static unsigned char parameter(const char *name)
    {
        const char *text = getenv(name);
        return (unsigned char)(text ? atoi(text) : 0);
    }
}
#define SET_PARAMETERS c_code { \
    drop = parameter("DROP"); registrants = parameter("REGISTRANTS"); deaths = parameter("DEATHS"); \
    forks = parameter("FORKS"); }
#define DROPPED(rule) (drop == rule)
#define KNOWN_THEN_QUERY 1       /* who is judged is known before the lock is asked for: so it had locked by then */
#define LOCK_THEN_RAISE 2        /* a registrant holds the byte before it raises the incarnation to odd */
#define REAP_BY_CAS 3            /* a reaper moves the incarnation on from the one that it judged */
#define OWN_IS_ALIVE 4           /* one's own slot is alive by definition */
#define REAP_THEN_LOCK 5         /* a registrant locks only bytes of slots that are even */
#define CHILD_CLOSES 6           /* a forked child closes the inherited descriptor */
#define CHILD_OPENS_FIRST 7      /* a forked child judges nobody through the inherited descriptor */
#define CHILD_IS_NOBODY 8        /* a forked child does not give back its parent's slot */
#define COMPARE_INCARNATION 9    /* an owner is slot and incarnation, not slot alone */
#define ODD_AFTER_LOCK 10        /* a registrant that finds the slot odd under its lock does not take it */
#define LOWER_THEN_UNLOCK 11     /* giving back: by CAS, from one's own incarnation */

byte incarnation;
byte holder = DESCRIPTIONS; /* the description that has the lock; DESCRIPTIONS: none */
byte references[DESCRIPTIONS];
bool dead[PROCESSES], gone[PROCESSES]; /* gone: the kernel has closed its descriptors */
byte died, forked;
byte claim; /* the owner that stands in a claim: an incarnation */

/* Ghosts. */
bool alive[INCARNATIONS];     /* the process that registered as this one lives and has not given back */
bool left_over[INCARNATIONS]; /* it died, and the kernel has closed its descriptors */
byte believes[PROCESSES];     /* the incarnation a process holds to be its own; 0 none */
byte saw[PROCESSES];          /* the incarnation a registrant saw before it locked */

inline unlock(d) {
    if
    :: holder == d -> holder = DESCRIPTIONS
    :: else
    fi
}
#define BYTE_FREE(d) (holder == DESCRIPTIONS || holder == d)

proctype process(byte p) {
    byte x;

    {
    skip;
register:
    atomic { x = incarnation; saw[p] = x }
    if
    :: x % 2 == 1 && !DROPPED(REAP_THEN_LOCK) ->
        atomic {
            if
            :: !BYTE_FREE(p) -> goto end_idle
            :: else
            fi
        }
        atomic {
            if
            :: incarnation == x -> incarnation = x + 1
            :: else
            fi
        }
        atomic {
            x = incarnation; saw[p] = x;
            if
            :: x % 2 == 1 -> goto end_idle
            :: else
            fi
        }
    :: else
    fi;
    if
    :: DROPPED(LOCK_THEN_RAISE) && x % 2 == 0 -> goto raise
    :: else
    fi;
lock:
    atomic {
        if
        :: !BYTE_FREE(p) -> saw[p] = 0; goto end_idle
        :: else -> holder = p
        fi
    }
process_locked:
    if
    :: DROPPED(LOCK_THEN_RAISE) -> goto registered
    :: else
    fi;
raise:
    atomic {
        x = incarnation;
        if
        :: x % 2 == 1 && DROPPED(ODD_AFTER_LOCK) -> goto raised
        :: else
        fi
    }
    if
    :: x % 2 == 1 -> /* who holds the byte and did not raise it knows that its owner is dead */
        atomic {
            if
            :: incarnation == x -> incarnation = x + 1
            :: else
            fi
        }
        atomic {
            x = incarnation;
            if
            :: x % 2 == 1 -> goto refused
            :: else
            fi
        }
    :: else
    fi;
    atomic {
        if
        :: incarnation == x -> incarnation = x + 1; x = x + 1
        :: else -> goto refused
        fi;
raised:
        alive[x] = 1; believes[p] = x; claim = x;
        if
        :: DROPPED(LOCK_THEN_RAISE) && holder != p -> goto lock
        :: else
        fi
    }
registered:
    atomic {
        saw[p] = 0;
        assert(p == 0 || believes[0] != believes[p]);
        assert(p == 1 || believes[1] != believes[p]);
        assert(p == 2 || believes[2] != believes[p])
    }
    /* It works. It may give back, fork, or die at any time. */
end_registered:
    if
    :: atomic {
        p == 0 && forked < forks ->
        forked++; references[0]++; x = 0; run child(believes[0]); goto end_registered
       }
    :: atomic { alive[believes[p]] = 0; x = believes[p] }
    fi;
    if
    :: DROPPED(LOWER_THEN_UNLOCK) ->
        atomic { unlock(p) }
        atomic { incarnation = x + 1; believes[p] = 0; goto end_idle }
    :: else ->
        atomic {
            if
            :: incarnation == x -> incarnation = x + 1
            :: else
            fi;
            believes[p] = 0
        }
    fi;
refused:
    atomic { unlock(p); saw[p] = 0 }
end_idle:
    false
    } unless {
        atomic { dead[p]; x = 0 }
    };
    /* The kernel closes its descriptors some time later. */
    atomic {
        references[p]--; gone[p] = 1; saw[p] = 0;
        if
        :: references[p] == 0 -> unlock(p)
        :: else
        fi;
        if
        :: believes[p] != 0 && references[p] == 0 -> left_over[believes[p]] = 1
        :: else
        fi;
        believes[p] = 0
    }
end_dead:
    false
}

/* Forked off process 0: has its description, and its memory. */
proctype child(byte parent) {
    if
    :: atomic { DROPPED(CHILD_OPENS_FIRST) -> skip }
       atomic { incarnation == parent -> skip }
       atomic { BYTE_FREE(0) -> assert(!alive[parent]) }
    :: atomic { DROPPED(CHILD_IS_NOBODY) -> skip }
       atomic {
        if
        :: incarnation == parent -> incarnation = parent + 1
        :: else
        fi
       }
       atomic { unlock(0) }
    :: else
    fi;
    atomic {
        if
        :: DROPPED(CHILD_CLOSES) && dead[0] && gone[0] -> left_over[parent] = 1; goto end_child /* lives on */
        :: else -> references[0]--
        fi;
        if
        :: references[0] == 0 -> unlock(0); left_over[parent] = 1
        :: else
        fi
    }
end_child:
    false
}

/* Judges the owner in the claim, through description d (that of process d, if it is a process's), again and again; it
   reaps what is dead. */
proctype judge(byte d) {
    byte x;
    bool is_free, gone_on;

end_judge:
    atomic {
        d == PROCESSES || (!dead[d] && believes[d] != 0);
        x = 0; is_free = 0; gone_on = 0;
        if
        :: DROPPED(KNOWN_THEN_QUERY) -> is_free = BYTE_FREE(d)
        :: else
        fi
    }
end_no_claim:
    atomic { claim != 0 -> x = claim; gone_on = (incarnation != x) }
    if
    :: d < PROCESSES && believes[d] == x && !DROPPED(OWN_IS_ALIVE) -> goto end_judge
    :: else
    fi;
    atomic {
        if
        :: incarnation != x && !DROPPED(COMPARE_INCARNATION) -> assert(!alive[x]); goto end_judge /* dead, and reaped */
        :: incarnation % 2 == 0 -> goto end_judge
        :: else
        fi
    }
    atomic {
        if
        :: DROPPED(KNOWN_THEN_QUERY)
        :: else -> is_free = BYTE_FREE(d)
        fi;
        if
        :: is_free -> assert(!alive[x]) /* judged dead */
        :: else -> assert(!gone_on); goto end_judge /* judged alive; if it isn't, a later look will tell */
        fi
    }
    atomic {
        if
        :: incarnation == x || DROPPED(REAP_BY_CAS) -> incarnation = x + 1
        :: else
        fi;
        goto end_judge
    }
}

proctype world() {
end_world:
    do
    :: atomic {
        died < deaths -> died++;
        if
        :: !dead[0] -> dead[0] = 1; alive[believes[0]] = 0
        :: !dead[1] -> dead[1] = 1; alive[believes[1]] = 0
        fi
       }
    :: atomic { /* a dead owner, descriptors closed, slot not gone on: the byte is free, but for an old registrant */
        incarnation % 2 == 1 && left_over[incarnation] && holder != DESCRIPTIONS ->
        assert(holder < PROCESSES && saw[holder] < incarnation && !gone[holder])
       }
    od
}

init {
    byte i;
    atomic {
        SET_PARAMETERS;
        do
        :: i < registrants -> references[i] = 1; run process(i); i++
        :: else -> break
        od;
        i = 0;
        run judge(PROCESSES); run judge(0);
        run world()
    }
end_init:
    false
}
