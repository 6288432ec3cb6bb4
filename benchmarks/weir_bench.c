/* SPDX-License-Identifier: MIT */
/* weir-bench: the command line.  benchmarks/driver.h says what it does. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "benchmarks/driver.h"

static const char *const workloads[] = {
	"gcbench", "binary-trees", "mt-trees", "graph-latency",
	"churn",   "write-storm",  NULL,
};

/* Those that "all" leaves out. */
static const char *const guile_workloads[] = {
	"guile-trees",   "guile-table", "guile-lists",
	"guile-compile", "guile-http",  NULL,
};

/* What was asked for. */
static struct {
	unsigned pairs; /* 0: as the command does by default */
	bool json;
	bool choose;                         /* libgc's best configuration */
	bool no_choose;                      /* the default one */
	const char *peers;                   /* names, or NULL */
	const struct peer *extra[MAX_PEERS]; /* --weir */
	size_t extras;
} want;

static void usage(FILE *f)
{
	fprintf(f,
		"usage: weir-bench [option...] WORKLOAD [--parameter "
		"value...]\n"
		"       weir-bench [option...] barrier [--parameter value...]\n"
		"       weir-bench [option...] snapshot [--parameter "
		"value...]\n"
		"       weir-bench [option...] snapshot-rates [--parameter "
		"value...]\n"
		"       weir-bench [option...] all\n"
		"       weir-bench [option...] targets [NAME...]\n"
		"\n"
		"Runs the peers in turn, at least once each, and prints "
		"medians and ratios.\n"
		"Workloads: gcbench binary-trees mt-trees graph-latency "
		"churn write-storm;\n"
		"bench-malloc --help tells their parameters.\n"
		"In Guile, on weir's libgc.so.1 and on Debian's: guile-trees "
		"guile-table\n"
		"guile-lists guile-compile guile-http; bench-guile --help "
		"tells "
		"more.\n"
		"Snapshots against fork(): snapshot, and snapshot-rates at one "
		"rate of writes\n"
		"after the other; bench-snapshot --help tells their "
		"parameters.\n"
		"\n"
		"  --pairs N       rounds of all peers (5; targets: 3, of "
		"snapshot 5)\n"
		"  --peers A,B...  who runs; the first is compared to the "
		"others\n"
		"                  (weir,weir-idle,libgc,malloc,jemalloc)\n"
		"  --weir OPTIONS  one more peer: weir with WEIR_OPTIONS; "
		"may be repeated\n"
		"  --choose        try libgc's configurations first, three "
		"runs each;\n"
		"                  \"libgc\" is the fastest by the median\n"
		"                  (the default but for graph-latency and "
		"write-storm)\n"
		"  --no-choose     \"libgc\" is its default configuration\n"
		"  --json          one JSON object instead of tables\n"
		"  --bin DIR       where the peers' programs are\n"
		"  --timeout S     seconds that one run may take (900)\n"
		"\n"
		"Exit status: 0 done (targets: all met); 1 a target was "
		"missed; 2 a peer could\n"
		"not be run or did other work than the others.\n"
		"\npeers:\n");
	peers_print(f);
}

static void die(const char *what, const char *which)
{
	fprintf(stderr, "weir-bench: %s%s (--help tells more)\n", what, which);
	exit(2);
}

static unsigned number(const char *text, unsigned max)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end || end == text || n < 1 || n > max)
		die("not a number in its range: ", text);
	return (unsigned)n;
}

/* The directory of this program, where its peers are by default. */
static void find_programs(void)
{
	static char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	char *slash;

	if (n < 0)
		die("cannot find my own program; give ", "--bin");
	path[n] = '\0';
	slash = strrchr(path, '/');
	*slash = '\0';
	/* libtool keeps what it runs in a directory below its wrappers. */
	if (slash - path > 6 && !strcmp(slash - 6, "/.libs"))
		slash[-6] = '\0';
	run_directory = path;
}

static bool is_guile(const char *workload)
{
	return !strncmp(workload, "guile-", 6);
}

static bool is_one_of(const char *const *names, const char *name)
{
	while (*names && strcmp(*names, name) != 0)
		names++;
	return *names != NULL;
}

static bool chooses(const char *workload)
{
	if (want.choose || want.no_choose)
		return want.choose;
	return strcmp(workload, "graph-latency") != 0 &&
	       strcmp(workload, "write-storm") != 0 &&
	       strcmp(workload, "snapshot") != 0 && !is_guile(workload);
}

static void add_peer(struct series *s, const struct peer *p)
{
	if (s->peers == MAX_PEERS)
		die("too many peers: ", p->name);
	s->peer[s->peers++] = p;
}

static void add_peers(struct series *s)
{
	const char *names = want.peers;
	char *rest, *name;
	const struct peer *p;
	size_t i;

	if (!names && is_guile(s->args[0]))
		names = "guile-weir,guile-libgc";
	else if (!names && !strcmp(s->args[0], "snapshot"))
		names = "snapshot-weir,snapshot-fork";
	else if (!names && !strcmp(s->args[0], "write-storm"))
		names = "weir,weir-idle,libgc,libgc-idle,malloc,jemalloc";
	else if (!names)
		names = "weir,weir-idle,libgc,malloc,jemalloc";
	rest = strdup(names);
	while ((name = strsep(&rest, ","))) {
		p = peer_find(name);
		if (!p)
			die("no such peer: ", name);
		add_peer(s, p);
	}
	for (i = 0; i < want.extras; i++)
		add_peer(s, want.extra[i]);
}

/* Run and tell one workload.  False: a peer failed. */
static bool run_workload(const char *const *args)
{
	struct series s = {.args = args, .rounds = want.pairs};
	const struct peer *best;
	int libgc;

	if (!strcmp(args[0], "snapshot"))
		s.table = &snapshot_table;
	add_peers(&s);
	libgc = series_index(&s, "libgc");
	if (libgc >= 0 && chooses(args[0])) {
		best = series_choose_gc(&s, "wall_s");
		if (!best) {
			fprintf(stderr, "weir-bench: no configuration of "
					"libgc could be run\n");
			return false;
		}
		s.peer[libgc] = best;
	}
	if (!series_run(&s))
		return false;
	if (want.json)
		table_json(&s, stdout);
	else
		table_print(&s, stdout);
	return true;
}

/* The one that snapshot-rates compares with fork. */
static const char *rates_peer(void)
{
	if (!want.peers)
		return "snapshot-weir";
	if (!peer_find(want.peers) || strncmp(want.peers, "snapshot-", 9) != 0)
		die("snapshot-rates wants one of the snapshot peers, not ",
		    want.peers);
	return want.peers;
}

static int run_all(void)
{
	const char *hot[] = {"graph-latency", "--shape", "hot", NULL};
	const char *args[2] = {NULL, NULL};
	bool ok = true;
	size_t i;

	if (want.json)
		printf("[");
	for (i = 0; workloads[i]; i++) {
		args[0] = workloads[i];
		if (want.json && i)
			printf(",\n");
		ok = run_workload(args) && ok;
		if (strcmp(args[0], hot[0]))
			continue;
		/* Its default shape is "wide". */
		if (want.json)
			printf(",\n");
		ok = run_workload(hot) && ok;
	}
	args[0] = "barrier";
	if (want.json)
		printf(",\n");
	ok = barrier_run(want.pairs, args, want.json, NULL) && ok;
	if (want.json)
		printf("]\n");
	return ok ? 0 : 2;
}

static int parse(int argc, char **argv)
{
	int i;

	for (i = 1; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--help")) {
			usage(stdout);
			exit(0);
		}
		if (!strcmp(argv[i], "--json"))
			want.json = true;
		else if (!strcmp(argv[i], "--choose"))
			want.choose = true;
		else if (!strcmp(argv[i], "--no-choose"))
			want.no_choose = true;
		else if (i + 1 == argc)
			die("unknown option, or one that wants a value: ",
			    argv[i]);
		else if (!strcmp(argv[i], "--pairs"))
			want.pairs = number(argv[++i], MAX_ROUNDS);
		else if (!strcmp(argv[i], "--timeout"))
			run_timeout_s = number(argv[++i], 1000000);
		else if (!strcmp(argv[i], "--bin"))
			run_directory = argv[++i];
		else if (!strcmp(argv[i], "--peers"))
			want.peers = argv[++i];
		else if (!strcmp(argv[i], "--weir") && want.extras < MAX_PEERS)
			want.extra[want.extras++] =
				peer_weir_options(argv[++i]);
		else
			die("unknown option: ", argv[i]);
	}
	return i;
}

int main(int argc, char **argv)
{
	const char *const *args;
	int first, rc;

	find_programs();
	first = parse(argc, argv);
	if (first == argc) {
		usage(stderr);
		return 2;
	}
	args = (const char *const *)argv + first;
	if (!strcmp(args[0], "targets"))
		return targets_run(want.pairs, args + 1, want.json);
	if (!want.pairs)
		want.pairs = 5;
	if (!strcmp(args[0], "all"))
		return run_all();
	if (!strcmp(args[0], "barrier")) {
		rc = barrier_run(want.pairs, args, want.json, NULL) ? 0 : 2;
		if (want.json)
			printf("\n");
		return rc;
	}
	if (!strcmp(args[0], "snapshot-rates"))
		return snapshot_rates(want.pairs, rates_peer(), args + 1,
				      want.json)
			       ? 0
			       : 2;
	if (strcmp(args[0], "snapshot") != 0 &&
	    !is_one_of(workloads, args[0]) &&
	    !is_one_of(guile_workloads, args[0]))
		die("no such workload: ", args[0]);
	rc = run_workload(args) ? 0 : 2;
	if (want.json)
		printf("\n");
	return rc;
}
