/*
 * segment/process.h - who is alive.
 *
 * Owns: process slots of the root, their lock bytes, and this process's registrations.
 *
 * Invariants
 *  1. A handle holds the OFD write lock on its slot's byte from before the slot's incarnation became odd until it closes
 *     or dies. So (incarnation is still X) and (the byte is unlocked) means: the owner (slot, X) is dead, for ever.
 *  2. Only who holds the byte moves an incarnation from even to odd. Odd to even: the owner itself, or anyone who has
 *     established by 1 that it is dead, by CAS from that X. No lock is taken to judge or to reap, so a reaper that is
 *     stopped in the middle does not make a dead owner look alive.
 *  3. One's own slot is alive by definition: the query through the owning descriptor would say "unlocked".
 * A failing query counts as alive, and so does one through a descriptor that is not root's any more (a host that closes what it does
 * not know may have a file of its own under that number); only the lease ends such an owner's claims.
 *
 * If we die here: while registering, after the lock and before the odd incarnation: the slot is free again. After it: a dead
 * owner like any other.
 */
#ifndef IDEM_SEGMENT_PROCESS_H
#define IDEM_SEGMENT_PROCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "segment/layout.h"

/* An owner as it stands in lanes and claims: slot (16) | incarnation (48). Never 0, as incarnations in use are odd. */
static inline uint64_t idem_owner_pack(uint32_t slot, uint64_t incarnation)
{
    return incarnation << 16 | slot;
}
static inline uint32_t idem_owner_slot(uint64_t owner)
{
    return (uint32_t)(owner & 0xffff);
}
static inline uint64_t idem_owner_incarnation(uint64_t owner)
{
    return owner >> 16;
}
#define IDEM_INCARNATION_MASK ((UINT64_C(1) << 48) - 1)
/* The owner of a claim that recovery found in the log: of a slot that no table has, so never alive. */
#define IDEM_OWNER_CRASHED (UINT64_C(1) << 16 | UINT64_C(0xffff))

struct idem_process {
    struct idem_process_shm *table;
    uint32_t table_size;
    int fd;         /* of root, opened for this registration alone; holds the lock byte */
    uint64_t owner; /* 0: not registered */
    uint64_t epoch; /* the fork epoch in which it registered */
    dev_t device;   /* of root: what fd must be, or nothing is concluded from it */
    ino_t inode;
};

/* Takes a slot through p->fd (already open). Errors: IDEM_E_FULL, IDEM_E_SYSTEM. */
int idem_process_register(struct idem_process *p, int64_t now_ms);

/* Gives the slot back, if this very process took it; p->fd stays open. */
void idem_process_unregister(struct idem_process *p);

/* Established death only: false also when it cannot be told. */
bool idem_process_dead(const struct idem_process *p, uint64_t owner);

/* Frees the slots of dead processes, looking at up to `limit` slots from *at on. */
void idem_process_reap(const struct idem_process *p, uint32_t *at, uint32_t limit);

/* A number that changes in each forked child, kept on a page that the kernel wipes there. A handle that remembers another number
   has to register again. */
extern struct idem_a64 *idem_fork_page;
static inline uint64_t idem_fork_epoch(void)
{
    return load_relaxed(idem_fork_page); /* relaxed: only a fork of ours changes it */
}
int idem_fork_watch(void);            /* once, before the first use; serialised by the caller */
uint64_t idem_fork_acknowledge(void); /* the epoch from now on; serialised by the caller */

#endif
