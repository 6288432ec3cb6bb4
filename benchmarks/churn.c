/* SPDX-License-Identifier: MIT */
/*
 * churn: a cache that throws out what was used least lately.
 *
 * A hash table of chains and one list through all entries in order of use.
 * An entry has a key (a string) and a value: every fourth is an object of
 * three strings, the others one string of 16 to 1024 bytes.  Keys are drawn
 * so that a few are asked for often and many seldom; a key that is not there
 * is made and the oldest entry thrown out.  Every operation formats the key
 * that it asks for into a new string, as programs do.
 */
#include <stdio.h>
#include <string.h>

#include "benchmarks/bench.h"

enum { VALUE_STRING, VALUE_OBJECT };

struct object {
	char *part[3]; /* strings */
	uint64_t sum;  /* of the first bytes of the strings */
	uint64_t made; /* number of the operation that made it */
};

struct entry {
	struct entry *chain; /* next in the bucket */
	struct entry *newer; /* used just after this one */
	struct entry *older; /* used just before this one */
	char *key;           /* NUL-terminated */
	void *value;         /* string or struct object, see `kind` */
	uint64_t hash;       /* of the key */
	uint32_t kind;       /* VALUE_... */
	uint32_t size;       /* of the value, if a string */
};

/* The cache: a root. */
static struct {
	struct entry **bucket; /* chains; an object of the heap */
	struct entry *newest;  /* used last */
	struct entry *oldest;  /* next to be thrown out */
	uint64_t buckets;      /* a power of two */
	uint64_t entries;      /* now */
	uint64_t capacity;     /* most entries */
} cache;

static uint64_t hash_of(const char *key)
{
	uint64_t h = 0xcbf29ce484222325ull;

	while (*key)
		h = (h ^ (unsigned char)*key++) * 0x100000001b3ull;
	return h ^ h >> 29;
}

static void unlink_use(struct entry *e)
{
	if (e->newer)
		e->newer->older = e->older;
	else
		cache.newest = e->older;
	if (e->older)
		e->older->newer = e->newer;
	else
		cache.oldest = e->newer;
}

static void link_newest(struct entry *e)
{
	e->newer = NULL;
	e->older = cache.newest;
	if (cache.newest)
		cache.newest->newer = e;
	else
		cache.oldest = e;
	cache.newest = e;
}

static void throw_out_oldest(bench_mutator *m)
{
	struct entry *e = cache.oldest, **p;
	struct object *o;
	int i;

	unlink_use(e);
	p = &cache.bucket[e->hash & (cache.buckets - 1)];
	while (*p != e)
		p = &(*p)->chain;
	*p = e->chain;
	if (e->kind == VALUE_OBJECT) {
		o = e->value;
		for (i = 0; i < 3; i++)
			bench_free(m, o->part[i]);
	}
	bench_free(m, e->value);
	bench_free(m, e->key);
	bench_free(m, e);
	cache.entries--;
}

static char *new_string(bench_mutator *m, size_t size, uint64_t seed)
{
	char *s = bench_alloc_leaf(m, size);

	memset(s, 'a' + (int)(seed % 26), size - 1);
	s[size - 1] = '\0';
	return s;
}

static void make_value(bench_mutator *m, struct entry *e, uint64_t op)
{
	struct object *o;
	int i;

	if (e->hash % 4) {
		e->kind = VALUE_STRING;
		e->size = 16 + (uint32_t)(e->hash >> 20) % 1009;
		e->value = new_string(m, e->size, e->hash);
		return;
	}
	e->kind = VALUE_OBJECT;
	e->size = 0;
	o = bench_alloc(m, sizeof(*o));
	memset(o, 0, sizeof(*o));
	o->made = op;
	e->value = o;
	for (i = 0; i < 3; i++) {
		o->part[i] = new_string(m, 16 + (e->hash >> (16 + 8 * i)) % 113,
					e->hash + i);
		o->sum += (unsigned char)o->part[i][0];
	}
}

static uint64_t use(const struct entry *e)
{
	const struct object *o;

	if (e->kind == VALUE_STRING) {
		const char *s = e->value;

		return (unsigned char)s[0] + (unsigned char)s[e->size - 2];
	}
	o = e->value;
	if (o->sum != (uint64_t)(unsigned char)o->part[0][0] +
			      (unsigned char)o->part[1][0] +
			      (unsigned char)o->part[2][0])
		bench_die("an object of the cache was overwritten");
	return o->sum;
}

/* One operation.  Returns what is to go into the checksum. */
static uint64_t ask(bench_mutator *m, uint64_t number, uint64_t op)
{
	struct entry *e, **bucket;
	char *key = bench_alloc_leaf(m, 40);
	uint64_t hash;

	snprintf(key, 40, "user:%010llu:profile", (unsigned long long)number);
	hash = hash_of(key);
	bucket = &cache.bucket[hash & (cache.buckets - 1)];
	for (e = *bucket; e; e = e->chain) {
		if (e->hash == hash && !strcmp(e->key, key))
			break;
	}
	if (e) {
		bench_free(m, key);
		unlink_use(e);
		link_newest(e);
		return use(e);
	}
	if (cache.entries == cache.capacity)
		throw_out_oldest(m);
	e = bench_alloc(m, sizeof(*e));
	memset(e, 0, sizeof(*e));
	e->key = key;
	e->hash = hash;
	make_value(m, e, op);
	e->chain = *bucket;
	*bucket = e;
	link_newest(e);
	cache.entries++;
	return use(e) + 1000003;
}

/* Skewed: the square of a uniform draw in [0, 1). */
static uint64_t draw(struct bench_random *r, uint64_t keys)
{
	uint64_t u = bench_random_next(r) >> 32;

	return (u * u >> 32) * keys >> 32;
}

static void run_churn(struct bench_run *run)
{
	struct bench_random r = {0x9e3779b97f4a7c15ull};
	uint64_t keys = bench_number(run, "keys"), op, number = 0;
	uint64_t i;

	cache.capacity = bench_number(run, "entries");
	if (cache.capacity < 1 || keys < cache.capacity || keys >> 32)
		bench_die("1 <= --entries <= --keys < 2^32 must hold");
	for (cache.buckets = 1; cache.buckets < cache.capacity;)
		cache.buckets *= 2;
	bench_root(&cache, sizeof(cache));
	cache.bucket =
		bench_alloc(run->mutator, cache.buckets * sizeof(void *));
	for (i = 0; i < cache.buckets; i++)
		cache.bucket[i] = NULL;
	while (cache.entries < cache.capacity)
		ask(run->mutator, number++, 0);
	run->ops = bench_number(run, "ops");
	run->has_latency = true;
	bench_meter_create(&run->meter, 1);

	bench_begin(run);
	for (op = 0; op < run->ops; op++) {
		run->checksum = run->checksum * 31 +
				ask(run->mutator, draw(&r, keys), op);
		bench_meter_op(&run->meter, run->meter.last, bench_now());
	}
	bench_end(run);
}

static struct bench_option options[] = {
	{"entries", "200000", "most entries of the cache"},
	{"keys", "1000000", "different keys that are asked for"},
	{"ops", "6000000", "requests"},
	{NULL, NULL, NULL},
};

const struct bench_workload bench_churn = {
	.name = "churn",
	.about = "a cache of strings and objects that forgets the oldest",
	.option = options,
	.run = run_churn,
};
