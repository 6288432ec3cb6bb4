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
#define _GNU_SOURCE
#include "gc/snap_graph.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BUFFER ((size_t)64 << 10)
#define ROOM 512 /* more than anything that is written at once, but strings */
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
	int fd;          /* where to */
	int err;         /* an errno: nothing more is written */
	char *buffer;    /* BUFFER bytes */
	size_t used;     /* of them */
	uint64_t first;  /* number of the first object's node */
	size_t root;     /* the next to be written */
	uint32_t *roots; /* by source: references */
	bool big;        /* addresses do not fit an id */
	bool begun;      /* in the array under way: not the first line */
};

/* ---- Bytes --------------------------------------------------------------- */

/* 0 or an errno.  SIGPIPE is not raised: it is pending now, was not before, and
 * is this thread's. */
static int write_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t done = write(fd, p, n);

		if (done > 0) {
			p += done;
			n -= (size_t)done;
		} else if (done == 0) {
			return EIO;
		} else if (errno == EAGAIN) {
			struct pollfd wait = {.fd = fd, .events = POLLOUT};

			if (poll(&wait, 1, -1) < 0 && errno != EINTR)
				return errno;
		} else if (errno != EINTR) {
			return errno;
		}
	}
	return 0;
}

static void flush(struct dump *d)
{
	static const struct timespec now;
	sigset_t ours, mask, waiting;

	if (d->err)
		return;
	sigemptyset(&ours);
	sigaddset(&ours, SIGPIPE);
	sigaddset(&ours, SIGXFSZ);
	sigpending(&waiting);
	pthread_sigmask(SIG_BLOCK, &ours, &mask);
	d->err = write_all(d->fd, d->buffer, d->used);
	d->used = 0;
	if (d->err == EPIPE || d->err == EFBIG) {
		for (int sig = 1; sig < NSIG; sig++)
			if (sigismember(&waiting, sig) > 0)
				sigdelset(&ours, sig);
		while (sigtimedwait(&ours, NULL, &now) < 0 && errno == EINTR)
			;
	}
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

static void room(struct dump *d)
{
	if (d->used > BUFFER - ROOM)
		flush(d);
	if (d->err)
		d->used = 0;
}

static void put_char(struct dump *d, char c)
{
	d->buffer[d->used++] = c;
}

static void put_number(struct dump *d, uint64_t n)
{
	char digits[20];
	unsigned i = 0;

	do
		digits[i++] = (char)('0' + n % 10);
	while (n /= 10);
	while (i)
		put_char(d, digits[--i]);
}

static void put_text(struct dump *d, const char *text)
{
	for (; *text; text++) {
		room(d);
		put_char(d, *text);
	}
}

/* A line of numbers of the array under way. */
static void put_line(struct dump *d, const uint64_t *n, unsigned count)
{
	room(d);
	if (d->begun)
		put_char(d, ',');
	d->begun = true;
	for (unsigned i = 0; i < count; i++) {
		if (i)
			put_char(d, ',');
		put_number(d, n[i]);
	}
	put_char(d, '\n');
}

/* Bytes of the character of UTF-8 at p, or 0. */
static unsigned utf8(const unsigned char *p)
{
	unsigned n = p[0] < 0x80                   ? 1
		     : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
		     : p[0] >= 0xe0 && p[0] < 0xf0 ? 3
		     : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
						   : 0;

	for (unsigned i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	/* Overlong, surrogates, beyond the last. */
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

static void put_string(struct dump *d, const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	char code[8];

	put_text(d, d->begun ? ",\n\"" : "\"");
	d->begun = true;
	while (*p) {
		unsigned n = utf8(p);

		room(d);
		if (!n) {
			put_text(d, "\xef\xbf\xbd");
			p++;
		} else if (*p < 0x20 || *p == 0x7f) {
			snprintf(code, sizeof(code), "\\u%04x", *p++);
			put_text(d, code);
		} else {
			if (*p == '"' || *p == '\\')
				put_char(d, '\\');
			while (n--)
				put_char(d, (char)*p++);
		}
	}
	put_char(d, '"');
}

static void array_begin(struct dump *d, const char *key)
{
	put_text(d, key);
	d->begun = false;
}

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

	array_begin(d, "\"strings\":[");
	for (unsigned i = 0; i < NAMES; i++)
		put_string(d, names[i]);
	for (size_t i = 0; i < s->sources.count; i++)
		put_string(d, source[i].name);
	for (unsigned what = 0; what < 2; what++)
		for (unsigned c = 0; c < SIZES; c++) {
			size_name(text, sizeof(text), what ? "leaf" : "object",
				  c);
			put_string(d, text);
		}
	for (uint32_t i = 0; i < s->kind_count; i++) {
		kind_name(text, sizeof(text), &s->kinds[i], i);
		put_string(d, text);
	}
	put_text(d, "]}\n");
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

	put_line(d, n, NODE_FIELDS);
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

	array_begin(d, "\"nodes\":[");
	put_node(d, NODE_SYNTHETIC, NAME_ROOT, id_of_synthetic(0), 0, 1);
	put_node(d, NODE_SYNTHETIC, NAME_GC_ROOTS, id_of_synthetic(1), 0,
		 sources + 1);
	for (uint64_t i = 0; i < sources; i++)
		put_node(d, NODE_SYNTHETIC, NAMES + i, id_of_synthetic(2 + i),
			 0, d->roots[i]);
	put_node(d, NODE_SYNTHETIC, NAME_OTHERS, id_of_synthetic(2 + sources),
		 0, d->graph.others.count);
	for (size_t g = 0; wg_snap_next(s, &g) && !d->err;) {
		put_object(d, g, number++, &link);
		g += wg_snap_bytes(s, g) >> WEIR_GRANULE_SHIFT;
	}
	put_text(d, "],\n");
}

/* ---- Edges --------------------------------------------------------------- */

static void put_edge(struct dump *d, unsigned type, uint64_t name, uint64_t to)
{
	const uint64_t n[3] = {type, name, to * NODE_FIELDS};

	put_line(d, n, 3);
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
	return !d->err;
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

	array_begin(d, "\"edges\":[");
	put_edge(d, EDGE_ELEMENT, 1, 1);
	for (uint64_t i = 0; i <= s->sources.count; i++)
		put_edge(d, EDGE_ELEMENT, i + 1, 2 + i);
	put_root_edges(d);
	for (size_t i = 0; i < d->graph.others.count; i++)
		put_edge(d, EDGE_ELEMENT, i, node_of(d, other[i]));
	for (size_t g = 0; wg_snap_next(s, &g) && !d->err;) {
		wg_snap_refs(s, g, &link, put_reference, d);
		g += wg_snap_bytes(s, g) >> WEIR_GRANULE_SHIFT;
	}
	put_text(d, "],\n");
}

/* ---- All of it ----------------------------------------------------------- */

static void put_header(struct dump *d)
{
	const struct weir_heap_snapshot *s = d->s;
	uint64_t nodes = d->first + d->graph.objects;
	uint64_t edges = 1 + s->sources.count + 1 + s->roots.count +
			 d->graph.others.count + d->graph.edges;

	put_text(d, meta);
	put_text(d, "\"node_count\":");
	put_number(d, nodes);
	put_text(d, ",\"edge_count\":");
	put_number(d, edges);
	put_text(d, ",\"trace_function_count\":0},\n");
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
	put_text(d, "\"trace_function_infos\":[],\n\"trace_tree\":[],\n"
		    "\"samples\":[],\n\"locations\":[],\n");
	put_strings(d);
	flush(d);
	return d->err;
}

/* Errors are 0 or a negative errno with a text. */
static int dump_to(const struct weir_heap_snapshot *s, int fd,
		   const char *function, const char *name)
{
	struct dump d = {.s = s, .fd = fd};
	int err = wg_snap_graph_make(&d.graph, s);

	if (err)
		return err;
	d.buffer = malloc(BUFFER);
	d.roots = calloc(s->sources.count, sizeof(*d.roots));
	if (!d.buffer || !d.roots)
		err = wr_error(ENOMEM, "no memory for a heap dump; free some");
	else if (write_dump(&d))
		err = wr_error(d.err,
			       "%s: %s: cannot write: "
			       "%s; %s",
			       function, name, strerror(d.err),
			       d.err == ENOSPC ? "make room on its file system"
					       : "take another place");
	free(d.buffer);
	free(d.roots);
	wg_snap_graph_free(&d.graph);
	return err;
}

int weir_heap_snapshot_dump_fd(const weir_heap_snapshot *s, int fd)
{
	int err = wg_snap_valid(s, __func__);
	char name[32];

	if (err)
		return err;
	snprintf(name, sizeof(name), "descriptor %d", fd);
	return dump_to(s, fd, __func__, name);
}

static int cannot(const char *path, const char *what, int err)
{
	return wr_error(err,
			"weir_heap_snapshot_dump_file: %s: cannot %s: "
			"%s",
			path, what, strerror(err));
}

/* The directory knows of the new name. */
static int sync_directory(const char *path)
{
	char *copy = strdup(path), *slash = copy ? strrchr(copy, '/') : NULL;
	int fd, err = 0;

	if (!copy)
		return cannot(path, "sync its directory", ENOMEM);
	if (slash)
		slash[slash == copy] = 0;
	fd = open(slash ? copy : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd))
		err = cannot(path, "sync its directory", errno);
	if (fd >= 0)
		close(fd);
	free(copy);
	return err;
}

static int dump_beside(const struct weir_heap_snapshot *s, const char *path)
{
	size_t room_for = strlen(path) + sizeof(".XXXXXX");
	char *temp = malloc(room_for);
	int err, fd;

	if (!temp)
		return cannot(path, "write the heap dump", ENOMEM);
	snprintf(temp, room_for, "%s.XXXXXX", path);
	fd = mkostemp(temp, O_CLOEXEC);
	if (fd < 0) {
		err = cannot(path, "create a file beside it", errno);
		free(temp);
		return err;
	}
	err = dump_to(s, fd, "weir_heap_snapshot_dump_file", path);
	if (!err && fsync(fd))
		err = cannot(path, "write to the disk", errno);
	if (close(fd) && !err)
		err = cannot(path, "write to the disk", errno);
	if (!err && rename(temp, path))
		err = cannot(path, "rename to it", errno);
	if (err)
		unlink(temp);
	else
		err = sync_directory(path);
	free(temp);
	return err;
}

int weir_heap_snapshot_dump_file(const weir_heap_snapshot *s, const char *path)
{
	int err = wg_snap_valid(s, __func__);
	struct stat st;
	char *real;

	if (err)
		return err;
	if (!path || !*path)
		return wr_invalid(__func__, "the path is NULL or empty");
	if (stat(path, &st))
		/* None there yet; or why not shows when it is created. */
		return dump_beside(s, path);
	if (!S_ISREG(st.st_mode))
		return wr_error(EINVAL,
				"weir_heap_snapshot_dump_file: %s: not a "
				"regular file; open it and call "
				"weir_heap_snapshot_dump_fd()",
				path);
	real = realpath(path, NULL);
	if (!real)
		return cannot(path, "follow it", errno);
	err = dump_beside(s, real);
	free(real);
	return err;
}

int weir_heap_dump(weir_heap *h, const char *path)
{
	struct weir_mutator *m = wg_mutator_self();
	weir_heap_snapshot *s;
	int err = wg_heap_enter(h);
	bool blocked;

	if (!err && (!path || !*path))
		err = wr_invalid(__func__, "the path is NULL or empty");
	if (!err)
		err = weir_heap_snapshot_take(h, &s);
	if (err)
		return err;
	/* It takes long, and no part of the heap. */
	blocked = wg_region_enter(m);
	err = weir_heap_snapshot_dump_file(s, path);
	weir_heap_snapshot_free(s);
	wg_region_leave(m, blocked);
	return err;
}
