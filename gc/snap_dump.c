/* SPDX-License-Identifier: MIT */
/*
 * A snapshot of the heap as Chrome DevTools load it (.heapsnapshot).
 *
 * The format is that of V8's HeapSnapshotJSONSerializer: arrays of numbers,
 * whose meaning `meta` tells.  Nodes come in the order of their numbers:
 *
 *	0             the root, without a name
 *	1             "(GC roots)", its only child
 *	2 ...         the snapshot's sources of roots, children of that
 *	behind them   "(otherwise alive)", likewise
 *	behind it     objects by address
 *
 * and the edges of the first node, those of the second, and so on.  A node is
 * named by its number times the fields of a node.  Numbers of the header have
 * to be known first, so the snapshot is gone through three times, and nothing
 * is kept of it but bits (snap_graph.c).
 *
 * Strings come last, in the order that name_of() counts on.
 *
 *   any thread; a dump on one
 */
#include "gc/snap_dump.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gc/snap_graph.h"
#include "gc/snap_out.h"

#define NODE_FIELDS 7

/* Positions in meta's node_types and edge_types. */
enum { NODE_OBJECT = 3, NODE_NATIVE = 8, NODE_SYNTHETIC = 9 };
enum { EDGE_ELEMENT = 1, EDGE_PROPERTY = 2, EDGE_INTERNAL = 3, EDGE_WEAK = 6 };

static const char meta[] =
	"{\"snapshot\":{\"meta\":{\n"
	"\"node_fields\":[\"type\",\"name\",\"id\",\"self_size\","
	"\"edge_count\",\"trace_node_id\",\"detachedness\"],\n"
	"\"node_types\":[[\"hidden\",\"array\",\"string\",\"object\",\"code\","
	"\"closure\",\"regexp\",\"number\",\"native\",\"synthetic\","
	"\"concatenated string\",\"sliced string\",\"symbol\",\"bigint\","
	"\"object shape\"],\"string\",\"number\",\"number\",\"number\","
	"\"number\",\"number\"],\n"
	"\"edge_fields\":[\"type\",\"name_or_index\",\"to_node\"],\n"
	"\"edge_types\":[[\"context\",\"element\",\"property\",\"internal\","
	"\"hidden\",\"shortcut\",\"weak\"],\"string_or_number\",\"node\"],\n"
	"\"trace_function_info_fields\":[\"function_id\",\"name\","
	"\"script_name\",\"script_id\",\"line\",\"column\"],\n"
	"\"trace_node_fields\":[\"id\",\"function_info_index\",\"count\","
	"\"size\",\"children\"],\n"
	"\"sample_fields\":[\"timestamp_us\",\"last_assigned_id\"],\n"
	"\"location_fields\":[\"object_index\",\"script_id\",\"line\","
	"\"column\"]},\n";

/* The first strings; then sources, sizes of objects and of leaf ones, kinds. */
enum {
	NAME_ROOT,
	NAME_GC_ROOTS,
	NAME_OTHERS,
	NAME_WEAK,
	NAME_KEY,
	NAME_VALUE,
	NAME_LINK,
	NAMES
};
static const char *const names[NAMES] = {
	"", "(GC roots)", "(otherwise alive)", "weak", "key", "value", "link"};

/* Sizes: 16 to 512 bytes one by one, then powers of two. */
#define FINE 32
#define SIZES (FINE + 40)

struct dump {
	const struct weir_heap_snapshot *s;
	struct wg_snap_graph graph;
	struct wg_snap_out out; /* where to */
	uint64_t first;         /* number of the first object's node */
	size_t root;            /* the next to be written */
	uint32_t *roots;        /* by source: references */
	bool big;               /* addresses do not fit an id */
};

/* ---- Names --------------------------------------------------------------- */

static unsigned size_class(size_t bytes)
{
	size_t granules = (bytes + WEIR_GRANULE - 1) >> WEIR_GRANULE_SHIFT;
	unsigned log;

	if (granules <= FINE)
		return granules ? (unsigned)granules - 1 : 0;
	log = 63 - (unsigned)__builtin_clzll(granules - 1); /* 5 or more */
	return FINE + log - 5 < SIZES ? FINE + log - 5 : SIZES - 1;
}

static void size_name(char *to, size_t room_for, const char *what, unsigned c)
{
	static const char *const unit[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
	uint64_t n;
	unsigned u = 0;

	if (c < FINE) {
		snprintf(to, room_for, "%s, %u bytes", what, (c + 1) * 16);
		return;
	}
	for (n = 1024ull << (c - FINE); n >= 1024 && u < 4; n >>= 10)
		u++;
	snprintf(to, room_for, "%s, up to %llu %s", what, (unsigned long long)n,
		 unit[u]);
}

static uint64_t name_of(const struct dump *d, uint32_t kind, size_t bytes)
{
	uint64_t sizes = NAMES + d->s->sources.count;

	if (kind > WEIR_KIND_LEAF || *d->s->kinds[kind].name)
		return sizes + 2 * SIZES + kind;
	return sizes + (kind == WEIR_KIND_LEAF ? SIZES : 0) + size_class(bytes);
}

static void kind_name(char *to, size_t room_for, const struct wg_snap_kind *k,
		      uint32_t number)
{
	static const char *const type[] = {
		[WG_KIND_CONSERVATIVE] = "conservative",
		[WG_KIND_LEAF] = "leaf",
		[WG_KIND_BITMAP] = "bitmap",
		[WG_KIND_TRACE] = "traced",
	};

	if (*k->name)
		snprintf(to, room_for, "%s", k->name);
	else if (k->type == WG_KIND_EPHEMERON)
		snprintf(to, room_for, "ephemeron");
	else
		snprintf(to, room_for, "kind %u (%s)", number, type[k->type]);
}

static void put_strings(struct dump *d)
{
	const struct weir_heap_snapshot *s = d->s;
	const struct wg_snap_source *source = s->sources.entries;
	char text[160];

	wg_out_array(&d->out, "\"strings\":[");
	for (unsigned i = 0; i < NAMES; i++)
		wg_out_string(&d->out, names[i]);
	for (size_t i = 0; i < s->sources.count; i++)
		wg_out_string(&d->out, source[i].name);
	for (unsigned what = 0; what < 2; what++)
		for (unsigned c = 0; c < SIZES; c++) {
			size_name(text, sizeof(text), what ? "leaf" : "object",
				  c);
			wg_out_string(&d->out, text);
		}
	for (uint32_t i = 0; i < s->kind_count; i++) {
		kind_name(text, sizeof(text), &s->kinds[i], i);
		wg_out_string(&d->out, text);
	}
	wg_out_text(&d->out, "]}\n");
}

/* ---- Nodes --------------------------------------------------------------- */

/* Odd, and apart from those of objects with references: their granules are not
 * those of the first block. */
static uint64_t id_of_synthetic(uint64_t number)
{
	return number < WG_BLOCK_GRANULES ? 2 * number + 1
					  : UINT32_MAX - 2 * number;
}

/* Odd for objects with references, even for leaf ones; DevTools keep 32 bits.
 * Where addresses need more, by number. */
static uint64_t id_of(const struct dump *d, size_t g, uint64_t number)
{
	size_t leaf = (size_t)d->s->first[1] * WG_BLOCK_GRANULES;

	if (d->big)
		return 2 * (WG_BLOCK_GRANULES + number) + 1;
	return g >= leaf ? 2 * (g - leaf) + 2 : 2 * g + 1;
}

static void put_node(struct dump *d, unsigned type, uint64_t name, uint64_t id,
		     uint64_t size, uint64_t edges)
{
	const uint64_t n[NODE_FIELDS] = {type, name, id, size, edges, 0, 0};

	wg_out_line(&d->out, n, NODE_FIELDS);
}

static bool count_one(void *arg, size_t to, uint32_t kind, uint32_t word)
{
	(void)to, (void)kind, (void)word;
	++*(uint64_t *)arg;
	return true;
}

static void put_object(struct dump *d, size_t g, uint64_t number, size_t *link)
{
	const struct weir_heap_snapshot *s = d->s;
	size_t bytes = wg_snap_bytes(s, g);
	uint32_t kind = wg_snap_kind_of(s, g, bytes);
	uint64_t edges = 0;

	wg_snap_refs(s, g, link, count_one, &edges);
	put_node(d,
		 s->kinds[kind].type == WG_KIND_LEAF ? NODE_NATIVE
						     : NODE_OBJECT,
		 name_of(d, kind, bytes), id_of(d, g, number), bytes, edges);
}

static void put_nodes(struct dump *d)
{
	const struct weir_heap_snapshot *s = d->s;
	uint64_t sources = s->sources.count, number = 0;
	size_t link = 0;

	wg_out_array(&d->out, "\"nodes\":[");
	put_node(d, NODE_SYNTHETIC, NAME_ROOT, id_of_synthetic(0), 0, 1);
	put_node(d, NODE_SYNTHETIC, NAME_GC_ROOTS, id_of_synthetic(1), 0,
		 sources + 1);
	for (uint64_t i = 0; i < sources; i++)
		put_node(d, NODE_SYNTHETIC, NAMES + i, id_of_synthetic(2 + i),
			 0, d->roots[i]);
	put_node(d, NODE_SYNTHETIC, NAME_OTHERS, id_of_synthetic(2 + sources),
		 0, d->graph.others.count);
	for (size_t g = 0; wg_snap_next(s, &g) && !d->out.err;) {
		put_object(d, g, number++, &link);
		g += wg_snap_bytes(s, g) >> WEIR_GRANULE_SHIFT;
	}
	wg_out_text(&d->out, "],\n");
}

/* ---- Edges --------------------------------------------------------------- */

static void put_edge(struct dump *d, unsigned type, uint64_t name, uint64_t to)
{
	const uint64_t n[3] = {type, name, to * NODE_FIELDS};

	wg_out_line(&d->out, n, 3);
}

static uint64_t node_of(const struct dump *d, size_t g)
{
	return d->first + wg_snap_number(&d->graph, g);
}

static bool put_reference(void *arg, size_t to, uint32_t kind, uint32_t word)
{
	struct dump *d = arg;
	uint64_t node = node_of(d, to);

	switch (kind) {
	case WEIR_REFERENCE_KEY:
		put_edge(d, EDGE_WEAK, NAME_KEY, node);
		break;
	case WEIR_REFERENCE_VALUE:
		put_edge(d, EDGE_INTERNAL, NAME_VALUE, node);
		break;
	case WEIR_REFERENCE_LINK:
		put_edge(d, EDGE_WEAK, NAME_LINK, node);
		break;
	default:
		put_edge(d, EDGE_ELEMENT, word, node);
		break;
	}
	return !d->out.err;
}

/* The roots of the sources from `at` on; they come in the order of these but
 * for the weak ones, which come last in both. */
static void put_root_edges(struct dump *d)
{
	const struct weir_heap_snapshot *s = d->s;
	const struct wg_snap_root *root = s->roots.entries;
	const struct wg_snap_source *source = s->sources.entries;

	for (uint32_t i = 0; i < s->sources.count; i++) {
		bool strong = wg_snap_root_strong(source[i].kind);

		/* Weak references and links are mixed: once for each. */
		for (size_t k = strong ? d->root : 0; k < s->roots.count; k++) {
			if (root[k].source != i) {
				if (strong)
					break;
				continue;
			}
			put_edge(d, strong ? EDGE_ELEMENT : EDGE_WEAK,
				 strong ? root[k].word : NAME_WEAK,
				 node_of(d, (root[k].object - s->base) >>
						    WEIR_GRANULE_SHIFT));
			if (strong)
				d->root = k + 1;
		}
	}
}

static void put_edges(struct dump *d)
{
	const struct weir_heap_snapshot *s = d->s;
	const size_t *other = d->graph.others.entries;
	size_t link = 0;

	wg_out_array(&d->out, "\"edges\":[");
	put_edge(d, EDGE_ELEMENT, 1, 1);
	for (uint64_t i = 0; i <= s->sources.count; i++)
		put_edge(d, EDGE_ELEMENT, i + 1, 2 + i);
	put_root_edges(d);
	for (size_t i = 0; i < d->graph.others.count; i++)
		put_edge(d, EDGE_ELEMENT, i, node_of(d, other[i]));
	for (size_t g = 0; wg_snap_next(s, &g) && !d->out.err;) {
		wg_snap_refs(s, g, &link, put_reference, d);
		g += wg_snap_bytes(s, g) >> WEIR_GRANULE_SHIFT;
	}
	wg_out_text(&d->out, "],\n");
}

/* ---- All of it ----------------------------------------------------------- */

static void put_header(struct dump *d)
{
	const struct weir_heap_snapshot *s = d->s;
	uint64_t nodes = d->first + d->graph.objects;
	uint64_t edges = 1 + s->sources.count + 1 + s->roots.count +
			 d->graph.others.count + d->graph.edges;

	wg_out_text(&d->out, meta);
	wg_out_text(&d->out, "\"node_count\":");
	wg_out_number(&d->out, nodes);
	wg_out_text(&d->out, ",\"edge_count\":");
	wg_out_number(&d->out, edges);
	wg_out_text(&d->out, ",\"trace_function_count\":0},\n");
}

static int write_dump(struct dump *d)
{
	const struct weir_heap_snapshot *s = d->s;
	const struct wg_snap_root *root = s->roots.entries;

	d->first = 3 + s->sources.count;
	for (int sp = 0; sp < 2; sp++)
		d->big |= (size_t)(s->high[sp] - s->first[sp]) *
				  WG_BLOCK_GRANULES >
			  UINT32_MAX / 2 - 1 - WG_BLOCK_GRANULES;
	for (size_t i = 0; i < s->roots.count; i++)
		d->roots[root[i].source]++;
	put_header(d);
	put_nodes(d);
	put_edges(d);
	wg_out_text(&d->out,
		    "\"trace_function_infos\":[],\n\"trace_tree\":[],\n"
		    "\"samples\":[],\n\"locations\":[],\n");
	put_strings(d);
	wg_out_flush(&d->out);
	return d->out.err;
}

int wg_snap_dump_to(const struct weir_heap_snapshot *s, int fd,
		    const char *function, const char *name)
{
	struct dump d = {.s = s, .out.fd = fd};
	int err = wg_snap_graph_make(&d.graph, s);

	if (err)
		return err;
	d.out.buffer = malloc(WG_OUT_BUFFER);
	d.roots = calloc(s->sources.count, sizeof(*d.roots));
	if (!d.out.buffer || !d.roots)
		err = wr_error(ENOMEM, "no memory for a heap dump; free some");
	else if (write_dump(&d))
		err = wr_error(d.out.err,
			       "%s: %s: cannot write: "
			       "%s; %s",
			       function, name, strerror(d.out.err),
			       d.out.err == ENOSPC
				       ? "make room on its file system"
				       : "take another place");
	free(d.out.buffer);
	free(d.roots);
	wg_snap_graph_free(&d.graph);
	return err;
}
