/*
 * base/order.h - the list of ordering pairs.
 *
 * Each ordered atomic operation in src/ names its pair and its side in a comment; a test fails when a side is missing.
 * The text of a tag proves nothing by itself: the arguments are here, the models under tests/model/ check sequential
 * consistency only, and TSan checks threads on one mapping.
 *
 * P1 entry bytes before the slot word that names them: release by every CAS on a slot word, acquire by every load of it.
 * P2 slot word before the home header that names it as pending: release by every CAS on a bucket header, acquire by
 *    every load of it.
 * P3 a recycled region's new bytes after the old word left its slot: a writer fences release once it holds its chunk,
 *    before the first byte; a reader fences acquire after its copy, before it loads the slot word again. If the reader saw one new
 *    byte, it also sees that the word is gone.
 * P4 hazard against sweep: the operation stores its hazard, then loads the region state (or the slot word); the sweeper
 *    changes the region state (or the slot word), then loads the hazards. All four are seq_cst: one of the two sees the other.
 * P5 region state: what was set up before the region was opened, and what was cleared before it was freed; release by every
 *    CAS on a state, acquire by every load. Also a state before the meta and drain words of that life: who opens a region and finds one of these
 *    sees that it is not FREE any more.
 * P6 the magic of root and generation is stored last: everything before it is complete.
 * P7 a process slot's incarnation: its lock byte is held before it is raised to odd.
 * P8 a lane's owner: what the last owner did with the lane before the next owner uses it.
 * P9 the sweep's cursor: all work of a slice before the cursor leaves it.
 * P10 a view pointer: the view is complete before a thread finds it (liburcu's assign and dereference are used there); who uses it outside of
 *    a read section has done so before who takes the last pin away unmaps it.
 * P11 a hazard is cleared after the last access it covers: release by the operation, acquire by the sweeper.
 * P12 a log ring: the cell before the head that covers it, for the leader; the leader's use of a cell, and the durable position, before the
 *    flushed count, for the lane.
 */
#ifndef IDEM_BASE_ORDER_H
#define IDEM_BASE_ORDER_H
#endif
