/* SPDX-License-Identifier: MIT */
/*
 * The collector's cycle as a Spin model: two mutators and one collector over
 * a heap of a few objects on two pages.  check.sh runs it.
 *
 * The property, asserted at the remark and again whenever the sweep frees:
 * no object that a stack slot, the static root, or a chain of fields from
 * them leads to is ever freed.  The model starts with an empty heap and runs
 * cycle after cycle without end; the heap is finite, so a search that
 * completes has covered every number of cycles and every heap shape that the
 * mutators can build in it.
 *
 * What stands for what:
 *
 *   start             The mark epoch is turned: every object becomes unmarked
 *                     in one step.  A minor cycle leaves this out.  (colour
 *                     in wg_cycle_run, gc/cycle.c)
 *   arm               FETCH of one page after the other, mutators running.
 *                     In a full cycle nothing is marked yet, so this is the
 *                     plain arm.  In a minor cycle it is the fetch of what
 *                     was written since: old objects on dirty pages are
 *                     rescanned.  (arm, dirty_pass)
 *                     A page stands for its block as well: one that is not
 *                     NOTED for a black object is armed or left alone, by
 *                     free choice.  (`lazy_arm`, gc/dirty.c)
 *   concurrent roots  Each mutator in turn is held: its slots are marked from
 *                     and its newborn colour becomes black.  Then the static
 *                     root is read, mutators running.  (wg_roots_concurrent)
 *   mark              SCAN: one field is read and its target marked and
 *                     pushed; mutators run between any two fields, also
 *                     between two fields of one object.  (wg_team_mark)
 *   preclean          FETCH of a page, any number of times, when the mark
 *                     stack is empty, then SCAN until it is empty again.  It
 *                     arms what was left alone until an object there was
 *                     marked.  (dirty_pass with WR_FETCH_REARM)
 *   slices            The same with the mutators stopped until the mark stack
 *                     is empty: a run in which they idle.  SLICES makes it a
 *                     step of its own; that no state is new then shows that
 *                     it was covered.  (preclean_in_slices)
 *   black note        One step with the mark: no pass over pages runs between
 *                     the two.  (wg_note_black; the two jobs of gc/dirty.c)
 *   remark            One step: the mutators are stopped, so nothing runs
 *                     beside it.  That they stop one after the other is
 *                     covered: it is a run in which one of them idles.  They
 *                     stop between two of their steps, never within one: see
 *                     `critical` in weir/alloc.h.  (remark, pause)
 *   sweep             FREE, one object a step, in any order, beside the
 *                     mutators.  (gc/sweep.c)
 *
 *   mutator           `born` is its newborn colour, `buffer` the page that it
 *                     allocates in.  (gc/alloc.c)
 *   page trap         A store and the change of its page to DIRTY are one
 *                     step, because the kernel traps the store.  FETCH makes
 *                     the page CLEAN; fields are read in later steps.
 *                     (runtime/barrier.h)
 *
 * The rules that it rests on:
 *
 *   1. A page is armed before fields on it are read, and re-armed before, not
 *      after, it is rescanned, or it stays DIRTY.  A page with a black object
 *      is NOTED.  The remark rescans what is DIRTY and NOTED.
 *   2. The remark scans every root again.
 *   3. From its hold on until the remark a mutator's objects are born black.
 *      They are not pushed: their fields begin as nil, and a store to them
 *      finds its page DIRTY or makes it so.  (That a page becomes DIRTY when
 *      memory on it is taken, the barrier's forget, spares faults; nothing
 *      else rests on it.)
 *   4. A block is "fresh" when a mutator takes it wholly free while its own
 *      newborn colour is black, so every object ever born there in this
 *      cycle is marked.  Root scans skip references to fresh blocks.  That a
 *      cycle is running is not enough: a mutator that was not held yet gives
 *      birth to white objects.  While it has a buffer there, no other mutator
 *      allocates in the block.
 *   5. The sweep frees only what existed, unmarked, at the remark.  Memory
 *      that was free then is protected from it (in the code: a block is swept
 *      before it is allocated in, and not after), so objects born white after
 *      the remark survive.
 *   6. A page that may hold a reference from an old object to a young one is
 *      DIRTY between two cycles: a minor cycle starts from these and from the
 *      roots.
 *
 * Where the model is wider than the code, and so stronger as a proof: fields
 * are scanned in any order (many markers, any deque order); preclean has any
 * number of rounds, none included; what a mutator does is arbitrary; the
 * remark leaves out what is not NOTED, which the code does only when the
 * barrier knows nothing (all_dirty).  That the code looks at `armed` blocks
 * without a note too needs no state here: they have no black object, so
 * nothing is read again, and to make their pages CLEAN or not is a free
 * choice; a mutator that clears `armed` beside a pass makes no difference.
 *
 * What makes it small, and why this loses nothing: the objects to rescan are
 * chosen in the step of the re-arm (later would choose more, not fewer); a
 * mutator's slots are kept sorted (a scan does not tell them apart); steps
 * that would change nothing are left out; a freed object's fields are
 * cleared at once (nobody reads them before the next birth clears them); in
 * a model without minor cycles the marks and page states, which nobody reads
 * between the remark and the next arm, are reset in the remark.
 *
 * What is not in the model: torn or stale reads (the machine's memory order;
 * the arm flushes the TLBs), weak references, finalizers, fork, failure of
 * the barrier, threads that attach or detach.
 *
 * Macros.  Size: OBJECTS (2-4), SPLIT (objects 1..SPLIT are on page 1, the
 * others on page 2), TWO (objects 1..TWO have two fields, the others one),
 * SLOTS1 (stack slots of the second mutator, 1 or 2; the first has two).
 * SLICES: see above.
 * MINOR: each cycle is full or minor, by free choice.  WHITE: objects are born
 * white while marking, the library's default (born-black=off): they get marked
 * if they are reached, no block is fresh, and rules 3 and 4 fall away.
 *
 * Mutants; each breaks a rule and must be caught:
 *
 *   SKIP_DIRTY_PAGE  the remark leaves out page 1
 *   FORGET_STACK     the remark leaves out the second mutator's stack
 *   NO_REARM         preclean notes a page as CLEAN and does not protect it,
 *                    so later stores go unnoticed.  (To leave it DIRTY would
 *                    be no error: the remark would rescan it.)
 *   BORN_WHITE       objects are born white during marking (rules 3, 4; it
 *                    is rule 4 that makes this wrong: if root scans skipped
 *                    nothing, the model would hold)
 *   EARLY_FRESH      a block acquired before its mutator was held counts as
 *                    fresh (rule 4)
 *   NO_PROTECT       the sweep frees by colour alone (rule 5)
 *   MINOR_ARM        (with MINOR) a minor cycle arms without a rescan, as a
 *                    full one may (rule 6)
 *   NO_NOTE          a mark makes no note: what was left unarmed stays so, and
 *                    passes look at what was armed only (rule 1)
 *
 * The first four have their like in gc/mutant.h.
 */

#ifndef OBJECTS
#define OBJECTS 3
#endif
#ifndef SPLIT
#define SPLIT 2
#endif
#ifndef TWO
#define TWO 0
#endif
#ifndef SLOTS1
#define SLOTS1 1
#endif

/* Objects are 1..OBJECTS, nil is 0; a set of objects is a bit mask, in which
 * nil has no bit.  Pages are 1 and 2, and are their own masks. */
#define FIELDS (OBJECTS + TWO)
#define BIT(o) ((1 << (o)) >> 1)
#define ALL ((1 << OBJECTS) - 1)
#define PAGE(o) ((o) <= SPLIT -> 1 : 2)
#define ON_PAGE(p) ((p) == 1 -> (1 << SPLIT) - 1 : ALL - (1 << SPLIT) + 1)
#define FIRST_ON(p) ((p) == 1 -> 1 : SPLIT + 1)

/* Field f (0 or 1) of object o, and the mask of all its fields. */
#define FIELD(o, f) field[(f) * OBJECTS + (o) - 1]
#define HAS(o, f) ((f) == 0 || (o) <= TWO)
#define FIELDS_OF(o) (BIT(o) | ((o) <= TWO -> BIT(OBJECTS + (o)) : 0))

/* Slot s of mutator m. */
#define SLOT(m, s) slot[2 * (m) + (s)]

byte field[FIELDS]; /* the heap's contents */
byte slot[4];	    /* the mutators' stacks */
byte root;	    /* the static root */

byte live;	/* objects that exist: the side table's START bytes */
byte black;	/* objects with the mark colour of this cycle */
byte pushed;	/* fields that are still to be read: the mark stack */
byte dirty = 3; /* pages that are DIRTY */
byte noted;	/* pages that are NOTED for a black object */
byte buffer[2]; /* page in which a mutator allocates, or 0 */
byte fresh;	/* pages that root scans skip */
byte born;	/* mutators whose newborn colour is black */
byte doomed;	/* objects that the sweep has yet to free */
#ifdef NO_REARM
byte deaf; /* pages noted as CLEAN that are not protected */
#define HEARD(p) ((p) & ~deaf)
#else
#define HEARD(p) (p)
#endif
#ifdef EARLY_FRESH
byte cycle; /* marking is on */
#define FRESH_BORN(m) cycle
#else
#define FRESH_BORN(m) (born & (1 << (m)))
#endif

#ifdef NO_NOTE
byte armed; /* pages that were armed in this cycle */
#define WANTED armed
#else
#define WANTED noted
#endif

/* Scratch of a single step; no part of the state. */
hidden byte o;
hidden byte i;
hidden byte found;

/* ---- Mutators ----------------------------------------------------------- */

/* Slots that hold the same are one: the second stands for both. */
#define DISTINCT(m, s) ((s) == 1 || SLOT(m, 0) != SLOT(m, 1))
#define HELD(m, s) (SLOT(m, s) && DISTINCT(m, s))

inline sort(m)
{
	if
	:: SLOT(m, 0) > SLOT(m, 1) ->
		o = SLOT(m, 0);
		SLOT(m, 0) = SLOT(m, 1);
		SLOT(m, 1) = o
	:: else
	fi
}

/* Take free memory for mutator m on page p, and give birth to an object. */
inline birth(m, s, p)
{
	if
	:: buffer[m] == 0 ->
		buffer[m] = p;
		dirty = dirty | p; /* the barrier's forget */
#ifndef WHITE
		if
		:: born & (1 << m) -> noted = noted | p
		:: else
		fi;
		if
		:: FRESH_BORN(m) && !(live & ON_PAGE(p)) -> fresh = fresh | p
		:: else
		fi
#endif
	:: else
	fi;
	o = FIRST_ON(p);
	do
	:: live & BIT(o) -> o++
	:: else -> break
	od;
	live = live | BIT(o);
#if !defined(BORN_WHITE) && !defined(WHITE)
	if
	:: born & (1 << m) -> black = black | BIT(o)
	:: else
	fi;
#endif
	SLOT(m, s) = o;
	if
	:: (live & ON_PAGE(p)) == ON_PAGE(p) -> buffer[m] = 0 /* full */
	:: else
	fi;
	sort(m)
}

/* slot t := field f of what slot s holds */
#define LOAD(m, s, f, t)                                                       \
	:: d_step {                                                            \
		HELD(m, s) && HAS(SLOT(m, s), f) &&                            \
				FIELD(SLOT(m, s), f) != SLOT(m, t) ->          \
			SLOT(m, t) = FIELD(SLOT(m, s), f);                     \
			sort(m)                                                \
	}

/* field f of what slot s holds := value, if the mutator has it */
#define STORE(m, s, f, value, has)                                             \
	:: d_step {                                                            \
		HELD(m, s) && HAS(SLOT(m, s), f) && (has) &&                   \
				(FIELD(SLOT(m, s), f) != (value) ||            \
				 !(dirty & PAGE(SLOT(m, s)))) ->               \
			FIELD(SLOT(m, s), f) = (value);                        \
			dirty = dirty | HEARD(PAGE(SLOT(m, s)))                \
	}

/* A mutator has one buffer, and the page is its own until it is full. */
#define CAN_TAKE(m, p)                                                         \
	(buffer[m] == (p) || (buffer[m] == 0 && buffer[1 - (m)] != (p)))

/* slot s := a new object on page p */
#define ALLOCATE(m, s, p)                                                      \
	:: d_step {                                                            \
		DISTINCT(m, s) && CAN_TAKE(m, p) &&                            \
				(live & ON_PAGE(p)) != ON_PAGE(p) ->           \
			birth(m, s, p)                                         \
	}

/* All that can be done with one slot. */
#define WITH_SLOT(m, s)                                                        \
	LOAD(m, s, 0, s)                                                       \
	LOAD(m, s, 1, s)                                                       \
	STORE(m, s, 0, 0, true)                                                \
	STORE(m, s, 1, 0, true)                                                \
	STORE(m, s, 0, SLOT(m, s), true)                                       \
	STORE(m, s, 1, SLOT(m, s), true)                                       \
	ALLOCATE(m, s, 1)                                                      \
	ALLOCATE(m, s, 2)                                                      \
	:: d_step { HELD(m, s) -> SLOT(m, s) = 0; sort(m) }                    \
	:: d_step { HELD(m, s) && root != SLOT(m, s) -> root = SLOT(m, s) }    \
	:: d_step {                                                            \
		root && DISTINCT(m, s) && SLOT(m, s) != root ->                \
			SLOT(m, s) = root;                                     \
			sort(m)                                                \
	}

/* What takes slot s and another one, t. */
#define WITH_SLOTS(m, s, t)                                                    \
	LOAD(m, s, 0, t)                                                       \
	LOAD(m, s, 1, t)                                                       \
	STORE(m, s, 0, SLOT(m, t), SLOT(m, t) && DISTINCT(m, 0))               \
	STORE(m, s, 1, SLOT(m, t), SLOT(m, t) && DISTINCT(m, 0))

active proctype mutator0()
{
	do
	WITH_SLOT(0, 0)
	WITH_SLOT(0, 1)
	WITH_SLOTS(0, 0, 1)
	WITH_SLOTS(0, 1, 0)
	:: d_step { root -> root = 0 }
	od
}

active proctype mutator1()
{
	do
	WITH_SLOT(1, 1)
#if SLOTS1 > 1
	WITH_SLOT(1, 0)
	WITH_SLOTS(1, 0, 1)
	WITH_SLOTS(1, 1, 0)
#endif
	od
}

/* ---- Collector ---------------------------------------------------------- */

/* Mark x and push its fields, unless it is marked. */
inline mark(x)
{
	if
	:: (x) && !(black & BIT(x)) ->
		assert(live & BIT(x));
		black = black | BIT(x);
		noted = noted | PAGE(x);
		pushed = pushed | FIELDS_OF(x)
	:: else
	fi
}

/* A reference found in a stack or a static root. */
inline mark_root(x)
{
	if
	:: (x) && !(fresh & PAGE(x)) -> mark(x)
	:: else
	fi
}

/* Push the fields of all marked objects of page p. */
inline rescan(p)
{
	o = 1;
	do
	:: o > OBJECTS -> break
	:: else ->
		if
		:: black & BIT(o) & ON_PAGE(p) -> pushed = pushed | FIELDS_OF(o)
		:: else
		fi;
		o++
	od;
	o = 0 /* a d_step must not end in a loop */
}

/* A DIRTY page becomes CLEAN, and its marked objects are to be read again
 * from now on. */
inline fetch(p)
{
	dirty = dirty & ~(p);
	rescan(p)
}

/* found := all that the stacks and the static root lead to */
inline reach()
{
	found = BIT(slot[0]) | BIT(slot[1]) | BIT(slot[2]) | BIT(slot[3]) |
		  BIT(root);
	i = 1;
	do
	:: i >= OBJECTS -> break
	:: else ->
		o = 1;
		do
		:: o > OBJECTS -> break
		:: else ->
			if
			:: found & BIT(o) ->
				found = found | BIT(FIELD(o, 0));
				if
				:: HAS(o, 1) ->
					found = found | BIT(FIELD(o, 1))
				:: else
				fi
			:: else
			fi;
			o++
		od;
		i++
	od
}

/* Read field number n of the heap, if it is to be read. */
#define READ(n)                                                                \
	pushed & (1 << (n)) ->                                                 \
		pushed = pushed & ~(1 << (n));                                 \
		mark(field[n])
#define SCAN(n) :: d_step { READ(n) }
#define DRAIN(n) :: READ(n)

#if FIELDS == 3
#define EACH_FIELD(what) what(0) what(1) what(2)
#elif FIELDS == 4
#define EACH_FIELD(what) what(0) what(1) what(2) what(3)
#elif FIELDS == 5
#define EACH_FIELD(what) what(0) what(1) what(2) what(3) what(4)
#else
#error FIELDS (OBJECTS + TWO) must be 3, 4 or 5
#endif

/* One page of a preclean round. */
#ifdef NO_REARM
#define PRECLEAN(p)                                                            \
	:: d_step {                                                            \
		pushed == 0 && (dirty & (p)) ->                                \
			fetch(p);                                              \
			deaf = deaf | (p)                                      \
	}
#else
#define PRECLEAN(p)                                                            \
	:: d_step { pushed == 0 && (dirty & PRECLEANED & (p)) -> fetch(p) }
#endif
#ifdef NO_NOTE
#define PRECLEANED armed
#else
#define PRECLEANED 3
#endif

/* The same in a stop that ends when the mark stack is empty. */
#ifdef SLICES
#define SLICE(p)                                                               \
	:: d_step {                                                            \
		pushed == 0 && (dirty & PRECLEANED & (p)) ->                   \
			fetch(p);                                              \
			drain();                                               \
			o = 0                                                  \
	}
#else
#define SLICE(p)
#endif

inline drain()
{
	do
	EACH_FIELD(DRAIN)
	:: else -> break
	od
}

/* The sweep comes to object x. */
#define FREE(x)                                                                \
	:: d_step {                                                            \
		doomed & BIT(x) ->                                             \
			doomed = doomed & ~BIT(x);                             \
			reach();                                               \
			assert(!(found & BIT(x)));                           \
			live = live & ~BIT(x);                                 \
			FIELD(x, 0) = 0;                                       \
			if                                                     \
			:: HAS(x, 1) -> FIELD(x, 1) = 0                        \
			:: else                                                \
			fi                                                     \
	}

inline remark()
{
	mark_root(slot[0]);
	mark_root(slot[1]);
#ifndef FORGET_STACK
	mark_root(slot[2]);
	mark_root(slot[3]);
#endif
	mark_root(root);
#ifndef SKIP_DIRTY_PAGE
	if
	:: dirty & WANTED & 1 -> rescan(1)
	:: else
	fi;
#endif
	if
	:: dirty & WANTED & 2 -> rescan(2)
	:: else
	fi;
	drain();

	reach();
	assert(!(found & ~black));
#ifdef NO_PROTECT
	doomed = ALL & ~black;
#else
	doomed = live & ~black;
#endif
	fresh = 0;
	born = 0;
	buffer[0] = 0; /* retired */
	buffer[1] = 0;
#ifdef EARLY_FRESH
	cycle = 0;
#endif
#ifdef MINOR
	/* The sweep's notes. */
	noted = (black & ON_PAGE(1) -> 1 : 0) | (black & ON_PAGE(2) -> 2 : 0)
#else
	black = 0;
	noted = 0;
	dirty = 3
#endif
#ifdef NO_NOTE
	;
	armed = 0
#endif
}

/* Arm page p, or leave it alone.  With no marked object on it the rescan is
 * empty. */
inline arm(p)
{
	if
	:: d_step {
		dirty & (p) ->
#ifdef NO_NOTE
			armed = armed | (p);
#endif
#ifdef MINOR_ARM
			dirty = dirty & ~(p)
#else
			fetch(p)
#endif
	}
	:: !(dirty & WANTED & (p))
	fi
}

active proctype collector()
{
	do
	::
		/* Turn the epoch; a minor cycle does not. */
#ifdef MINOR
		if
		:: d_step { black = 0; noted = 0 }
		:: skip
		fi;
#else
		black = 0;
#endif
#ifdef EARLY_FRESH
		cycle = 1;
#endif
#ifdef NO_REARM
		deaf = 0;
#endif
		arm(1);
		arm(2);

		/* Hold one mutator, then the other; then the static root. */
		d_step {
			born = born | 1;
#ifndef WHITE
			noted = noted | buffer[0];
#endif
			mark_root(slot[0]);
			mark_root(slot[1])
		};
		d_step {
			born = born | 2;
#ifndef WHITE
			noted = noted | buffer[1];
#endif
			mark_root(slot[2]);
			mark_root(slot[3])
		};
		d_step { mark_root(root) };

		/* Mark and preclean, until the remark. */
		do
		EACH_FIELD(SCAN)
		PRECLEAN(1)
		PRECLEAN(2)
		SLICE(1)
		SLICE(2)
		:: d_step { pushed == 0 -> remark() };
			break
		od;

		/* Sweep. */
		do
		FREE(1)
		FREE(2)
#if OBJECTS > 2
		FREE(3)
#endif
#if OBJECTS > 3
		FREE(4)
#endif
		:: doomed == 0 -> break
		od
	od
}
