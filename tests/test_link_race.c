/* SPDX-License-Identifier: MIT */
/* Links (gc/link.c) beside collections, against a model, and in children of
 * fork(). */
#include "tests/link.h"

/* ---- fork --------------------------------------------------------------- */

/* Words 0, 1: linked to what is dead, to what lives.  In the object at root 3
 * the same.  Root 4: an object that dies, with a slot. */
static bool as_forked(weir_heap *h)
{
	return !value(&word[0]) && value(&word[1]) && !value(in(3)) &&
	       value(in(3) + 1) && links(h) == 2;
}

Test(link_race, a_child_of_fork_goes_on)
{
	weir_heap *h = open_heap(OPTIONS);
	int status;
	pid_t pid;

	hidden(h, make_leaf, (void *)3);
	hidden(h, make_leaf, (void *)4);
	cr_assert_eq(linked(h, &word[1], 0, WEIR_LINK_SHORT), 0);
	full(h);
	cr_assert_eq(linked(h, &word[0], -1, WEIR_LINK_SHORT), 0);
	cr_assert_eq(linked(h, in(3), -1, WEIR_LINK_LONG), 0);
	cr_assert_eq(linked_to(h, in(3) + 1, 0, WEIR_LINK_LONG), 0);
	cr_assert_eq(linked_to(h, in(4), 0, WEIR_LINK_LONG), 0);
	slot[4] = NULL;
	quiet_before_fork();
	pid = fork();
	cr_assert_geq(pid, 0);
	if (!pid) {
		bool ok = links(h) == 5;

		alarm(60);
		full(h);
		ok = ok && as_forked(h);
		/* And links of its own. */
		ok = ok && linked(h, &word[2], -1, WEIR_LINK_SHORT) == 0;
		minor(h);
		ok = ok && !value(&word[2]) && as_forked(h);
		_exit(ok ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%#x", status);
	cr_assert_eq(links(h), 5);
	full(h);
	cr_assert(as_forked(h));
	cr_assert_eq(weir_heap_destroy(h), 0);
}

/* ---- Races, against a model --------------------------------------------- */

#define CHURNERS 3
#define OUT 1024 /* slots outside of the heap */
#define HOLD 16  /* objects with slots */
#define HOLD_SLOTS 64
#define SLOTS (OUT + HOLD * HOLD_SLOTS)
#define KEPT 64 /* targets that live */

enum model {
	BARE,   /* no link; the word keeps its pattern */
	LIVING, /* linked to kept[target] */
	DOOMED, /* linked to what nobody keeps */
};

struct churner {
	weir_heap *heap;
	atomic_bool *stop;
	uint64_t seed;
	void *out[OUT];           /* slots */
	uint8_t model[2][SLOTS];  /* enum model, of short and long links */
	uint8_t target[2][SLOTS]; /* of LIVING ones */
	uintptr_t word[SLOTS];    /* what was stored there last */
	long cleared, moved, dropped;
};

/* Roots of the churners. */
static struct {
	void **hold[HOLD];
	struct node *kept[KEPT];
} rooted[CHURNERS];

static struct churner churner[CHURNERS];

static uint64_t rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static void **slot_at(struct churner *c, size_t i)
{
	size_t k = i - OUT;

	if (i < OUT)
		return &c->out[i];
	return &rooted[c - churner].hold[k / HOLD_SLOTS][k % HOLD_SLOTS];
}

/* A slot has one kind of link at a time, or two to the same object: then a
 * word that is 0 says that both are gone. */
static bool doomed(const struct churner *c, size_t i)
{
	return c->model[0][i] == DOOMED || c->model[1][i] == DOOMED;
}

static void store(struct churner *c, size_t i, void *p)
{
	c->word[i] = (uintptr_t)p;
	put(slot_at(c, i), p);
}

/* What may be in the word; to 0 only if it is linked to what may be dead. */
static void check_word(struct churner *c, size_t i)
{
	uintptr_t w = value(slot_at(c, i));

	must(w == c->word[i] || (w == 0 && doomed(c, i)));
}

static void unlink_slot(struct churner *c, size_t i)
{
	bool was = doomed(c, i);

	for (unsigned flags = 0; flags < 2; flags++) {
		int err = weir_link_remove(c->heap, slot_at(c, i), flags);
		uintptr_t w = value(slot_at(c, i));

		switch (c->model[flags][i]) {
		case BARE:
			must(err == -ENOENT);
			break;
		case LIVING:
			must(err == 0 && w == c->word[i]);
			break;
		case DOOMED:
			must(err == 0 || (err == -ENOENT && w == 0));
			c->cleared += err != 0;
			break;
		}
		must(w == c->word[i] || (w == 0 && was));
		c->model[flags][i] = BARE;
	}
	store(c, i, pattern(i));
}

static void link_slot(struct churner *c, weir_mutator *m, size_t i, uint64_t r)
{
	struct node **kept = rooted[c - churner].kept;
	unsigned which = r % KEPT, kinds = 1 + (r >> 8) % 3;
	bool doom = (r >> 16) % 2;
	struct node *n = doom ? node(m, 1) : kept[which];

	store(c, i, hide(n));
	for (unsigned flags = 0; flags < 2; flags++) {
		if (!(kinds >> flags & 1))
			continue;
		must(weir_link_add(c->heap, slot_at(c, i), n, flags) == 0);
		/* A second one to the same. */
		must((r >> 24) % 4 ||
		     weir_link_add(c->heap, slot_at(c, i), n, flags) == 1);
		c->model[flags][i] = doom ? DOOMED : LIVING;
		c->target[flags][i] = (uint8_t)which;
	}
	/* Until here both were there. */
	must(value(slot_at(c, i)) == (uintptr_t)hide(n));
	must(n->check == MAGIC + 1);
}

/* The link of a slot that has one, to a slot that has none. */
static void move_slot(struct churner *c, size_t i, size_t to, unsigned flags)
{
	uint8_t model = c->model[flags][i];
	uintptr_t was = c->word[i];
	int err;

	if (i == to || model == BARE || c->model[!flags][i] != BARE)
		return;
	if (c->model[flags][to] == LIVING) {
		err = weir_link_move(c->heap, slot_at(c, i), slot_at(c, to),
				     flags);
		must(err == -EEXIST || (err == -ENOENT && model == DOOMED));
		return;
	}
	if (c->model[0][to] != BARE || c->model[1][to] != BARE)
		return;
	store(c, to, (void *)was);
	err = weir_link_move(c->heap, slot_at(c, i), slot_at(c, to), flags);
	if (err) {
		must(err == -ENOENT && model == DOOMED &&
		     !value(slot_at(c, i)));
		store(c, to, pattern(to));
		c->cleared++;
	} else {
		must(value(slot_at(c, i)) == was);
		c->model[flags][to] = model;
		c->target[flags][to] = c->target[flags][i];
		c->moved++;
	}
	c->model[flags][i] = BARE;
	store(c, i, pattern(i));
}

/* What was linked to the object may be cleared from now on. */
static void new_kept(struct churner *c, weir_mutator *m, unsigned which)
{
	for (unsigned flags = 0; flags < 2; flags++)
		for (size_t i = 0; i < SLOTS; i++)
			if (c->model[flags][i] == LIVING &&
			    c->target[flags][i] == which)
				c->model[flags][i] = DOOMED;
	rooted[c - churner].kept[which] = node(m, 1);
}

/* Links in the old one are dropped, sooner or later. */
static void new_hold(struct churner *c, weir_mutator *m, size_t k)
{
	size_t first = OUT + k * HOLD_SLOTS;
	void **p = weir_alloc_leaf(m, HOLD_SLOTS * sizeof(void *));

	must(p);
	rooted[c - churner].hold[k] = p;
	for (size_t i = first; i < first + HOLD_SLOTS; i++) {
		c->dropped += c->model[0][i] != BARE || c->model[1][i] != BARE;
		c->model[0][i] = c->model[1][i] = BARE;
		store(c, i, pattern(i));
	}
}

static void churn(struct churner *c, weir_mutator *m)
{
	uint64_t r = rnd(&c->seed);
	size_t i = (r >> 8) % SLOTS, to = (r >> 20) % SLOTS;

	switch (r % 8) {
	case 0:
	case 1:
	case 2:
		unlink_slot(c, i);
		link_slot(c, m, i, rnd(&c->seed));
		break;
	case 3:
		unlink_slot(c, i);
		break;
	case 4:
	case 5:
		move_slot(c, i, to, (r >> 32) & 1);
		break;
	default:
		check_word(c, i);
		check_word(c, to);
	}
	if ((r >> 33) % 128 == 0)
		new_kept(c, m, (r >> 40) % KEPT);
	if ((r >> 46) % 512 == 0)
		new_hold(c, m, (r >> 55) % HOLD);
}

static void *churner_main(void *arg)
{
	struct churner *c = arg;
	weir_mutator *m;

	must(weir_thread_attach(c->heap, &m) == 0);
	for (size_t i = 0; i < OUT; i++)
		store(c, i, pattern(i));
	for (unsigned k = 0; k < KEPT; k++)
		new_kept(c, m, k);
	for (size_t k = 0; k < HOLD; k++)
		new_hold(c, m, k);
	while (!atomic_load_explicit(c->stop, memory_order_relaxed))
		churn(c, m);
	must(weir_thread_detach(m) == 0);
	return NULL;
}

/* The churners being gone, and with them what their stacks kept. */
static size_t settled(struct churner *c)
{
	size_t n = 0;

	for (size_t i = 0; i < SLOTS; i++) {
		uintptr_t w = value(slot_at(c, i));

		cr_assert_eq(w, doomed(c, i) ? 0 : c->word[i], "slot %zu", i);
		for (unsigned flags = 0; flags < 2; flags++)
			n += c->model[flags][i] == LIVING;
	}
	return n;
}

static void races(const char *options)
{
	weir_heap *h = hidden_heap(options);
	pthread_t t[CHURNERS];
	atomic_bool stop = false;
	long cycles, cleared = 0, moved = 0, dropped = 0;
	size_t living = 0;

	memset(churner, 0, sizeof(churner));
	memset(rooted, 0, sizeof(rooted));
	cr_assert_eq(weir_root_add(h, rooted, sizeof(rooted)), 0);
	for (int i = 0; i < CHURNERS; i++) {
		churner[i].heap = h;
		churner[i].stop = &stop;
		churner[i].seed = 0x9e3779b97f4a7c15ul * (unsigned)(i + 1);
		pthread_create(&t[i], NULL, churner_main, &churner[i]);
	}
	cycles = many_cycles(h);
	stop = true;
	for (int i = 0; i < CHURNERS; i++)
		pthread_join(t[i], NULL);
	full(h);
	for (int i = 0; i < CHURNERS; i++) {
		living += settled(&churner[i]);
		cleared += churner[i].cleared;
		moved += churner[i].moved;
		dropped += churner[i].dropped;
	}
	cr_assert_eq(links(h), living);
	cr_log_info("%ld cycles, %ld links cleared, %ld moved, %ld dropped, "
		    "%zu are left",
		    cycles, cleared, moved, dropped, living);
	cr_assert_gt(cleared, 100);
	cr_assert_gt(moved, 100);
	cr_assert_gt(dropped, 100);
	cr_assert_gt(living, 100);
	cr_assert_eq(weir_heap_destroy(h), 0);
}

#define RACES "heap-max=512m,verify=on,poison=on,heap-min=4m"

Test(link_race, races_with_collections)
{
	races(RACES);
}

Test(link_race, races_with_collections_delayed)
{
	races(RACES ",delay=200");
}

Test(link_race, races_with_collections_at_safepoints)
{
	races(RACES ",stop=safepoints");
}
