/* SPDX-License-Identifier: MIT */
/* What a real heap tells while it collects: its trace, its log lines, its USDT
 * probes.  (test_events.c has the formats, on made-up events.) */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/events.h"
#include "tests/heap_util.h"
#include "tests/json.h"
#include "tests/short.h"

static char name[64]; /* a file of this test's own */

static void setup(void)
{
	int fd;

	snprintf(name, sizeof(name), "/tmp/weir-events-XXXXXX");
	fd = mkstemp(name);
	cr_assert_geq(fd, 0);
	close(fd);
}

static void teardown(void)
{
	unlink(name);
}

TestSuite(events_heap, .init = setup, .fini = teardown);

/* ---- A heap under pressure ---------------------------------------------- */

static bool stop;

/* Every phase there is, in cycles of every kind, with three threads.  Returns
 * the statistics with the heap closed. */
static struct weir_stats busy_heap(const char *more)
{
	static void *kept[1024];
	char options[256];
	pthread_t t[2];
	struct weir_stats s;
	unsigned i = 0;

	snprintf(options, sizeof(options),
		 "heap-max=48m,heap-min=1m,verify=on,%s", more);
	heap_open(options);
	need_barrier(heap);
	cr_assert_eq(weir_root_add(heap, kept, sizeof(kept)), 0);
	for (int k = 0; k < 2; k++)
		cr_assert_eq(pthread_create(&t[k], NULL, allocate_until, &stop),
			     0);
	do {
		for (int k = 0; k < 1000; k++, i++) {
			kept[i % 1024] = weir_alloc(self, 8192);
			cr_assert_not_null(kept[i % 1024], "%s",
					   weir_error_text());
		}
		weir_collect(heap, i / 1000 % 2 ? WEIR_COLLECT_MINOR
						: WEIR_COLLECT_FULL);
		s = heap_stats();
	} while (!s.assist.count || !s.handshake.count ||
		 i < (unsigned)rounds(6000));
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int k = 0; k < 2; k++)
		pthread_join(t[k], NULL);
	weir_collect(heap, WEIR_COLLECT_STOPPED);
	s = heap_stats();
	heap_close();
	return s;
}

/* ---- The trace ---------------------------------------------------------- */

struct span {
	int phase;      /* enum wr_phase */
	int tid;        /* the thread's */
	double at, end; /* microseconds */
};

static const char *const phase_text[] = {
#define X(name, text) text,
#include "runtime/events.def"
#undef X
};

static double number_after(const char *line, const char *key)
{
	const char *at = strstr(line, key);

	cr_assert_not_null(at, "no %s in %s", key, line);
	return strtod(at + strlen(key), NULL);
}

static int phase_of(const char *line)
{
	char text[64];

	for (int p = 0; p < WR_PHASES; p++) {
		snprintf(text, sizeof(text), "\"name\":\"%s\"", phase_text[p]);
		if (strstr(line, text))
			return p;
	}
	cr_assert(false, "no known phase in %s", line);
	return 0;
}

static size_t read_spans(char *text, struct span **out)
{
	struct span *s = calloc(json_count(text, "\"ph\":\"X\""), sizeof(*s));
	size_t n = 0;
	char *line, *rest = text;

	cr_assert_not_null(s);
	while ((line = strsep(&rest, "\n"))) {
		if (!strstr(line, "\"ph\":\"X\""))
			continue;
		s[n].phase = phase_of(line);
		s[n].tid = (int)number_after(line, "\"tid\":");
		s[n].at = number_after(line, "\"ts\":");
		s[n].end = s[n].at + number_after(line, "\"dur\":");
		n++;
	}
	*out = s;
	return n;
}

/* By thread, then begin, then the longer first. */
static int in_order(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	if (x->tid != y->tid)
		return x->tid < y->tid ? -1 : 1;
	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return x->end > y->end ? -1 : x->end < y->end;
}

/* Two spans of a thread lie apart or one inside the other. */
static void check_nesting(const struct span *s, size_t n)
{
	const struct span *open[16];
	size_t depth = 0;

	for (size_t i = 0; i < n; i++) {
		while (depth && (open[depth - 1]->tid != s[i].tid ||
				 open[depth - 1]->end <= s[i].at))
			depth--;
		/* Half a nanosecond: what the decimals lose. */
		if (depth)
			cr_assert_leq(s[i].end, open[depth - 1]->end + 0.0005,
				      "%s from %f to %f sticks out of %s, "
				      "which ends at %f",
				      phase_text[s[i].phase], s[i].at, s[i].end,
				      phase_text[open[depth - 1]->phase],
				      open[depth - 1]->end);
		cr_assert_lt(depth, 16);
		open[depth++] = &s[i];
	}
}

Test(events_heap, trace_has_every_phase)
{
	char option[80], *text;
	size_t n, of[WR_PHASES] = {0}, at = 0;
	const char *fault;
	struct weir_stats stats;
	struct span *s;

	snprintf(option, sizeof(option), "trace=%s", name);
	stats = busy_heap(option);
	text = json_read_file(name);
	cr_assert_not_null(text);
	fault = json_check(text, &at);
	cr_assert_null(fault, "%s at %zu: %.60s", fault, at, text + at);
	cr_assert(strstr(text, "\"name\":\"live\""));
	cr_assert(strstr(text, "\"name\":\"used\""));
	/* A trace that had to leave something out proves less. */
	cr_assert_eq(json_count(text, "\"dropped\""), 0);
	n = read_spans(text, &s);
	for (size_t i = 0; i < n; i++)
		of[s[i].phase]++;
	for (int p = 0; p < WR_PHASES; p++)
		cr_assert_gt(of[p], 0, "no span of %s", phase_text[p]);
	cr_assert_eq(of[WR_PHASE_cycle],
		     stats.cycles_full + stats.cycles_minor);
	cr_assert_eq(of[WR_PHASE_pause], stats.pause.count);
	cr_assert_eq(of[WR_PHASE_stop], stats.stop.count);
	cr_assert_eq(of[WR_PHASE_handshake], stats.handshake.count);
	cr_assert_eq(of[WR_PHASE_assist], stats.assist.count);
	qsort(s, n, sizeof(*s), in_order);
	check_nesting(s, n);
	free(s);
	free(text);
}

/* ---- The log ------------------------------------------------------------ */

/* Lines of the file that match; each line has to match one of the patterns. */
static void count_lines(const char *const *pattern, unsigned *count, size_t n)
{
	char *text = json_read_file(name), *rest = text, *line;
	regex_t re[8];

	cr_assert_not_null(text);
	for (size_t i = 0; i < n; i++) {
		char whole[512];

		snprintf(whole, sizeof(whole), "^weir: [0-9]+\\.[0-9]{3} %s$",
			 pattern[i]);
		cr_assert_eq(regcomp(&re[i], whole, REG_EXTENDED | REG_NOSUB),
			     0);
		count[i] = 0;
	}
	while ((line = strsep(&rest, "\n"))) {
		bool known = !*line;

		for (size_t i = 0; i < n; i++)
			if (!regexec(&re[i], line, 0, NULL, 0)) {
				count[i]++;
				known = true;
			}
		cr_assert(known, "unknown line: %s", line);
	}
	for (size_t i = 0; i < n; i++)
		regfree(&re[i]);
	free(text);
}

#define N "[0-9]+"
#define MS "[0-9]+\\.[0-9]{3}"
#define TENTH "[0-9]+\\.[0-9]"

#define CYCLE_LINE                                                          \
	"gc " N " (full|minor)( stopped)?: pauses " N ", longest " MS       \
	" ms, in all " MS " ms \\| arm " TENTH " mark " TENTH               \
	" preclean " TENTH "/" N "\\+" N " sweep " TENTH " ms \\| dirty " N \
	" pages, marked " TENTH " MiB, live " TENTH " MiB, used " TENTH     \
	" MiB \\| waits so far " N ", longest " MS " ms"
#define PAUSE_LINE                                                     \
	"gc " N " pause " MS " ms: stop " MS " remark " MS " weak " MS \
	" verify " MS " \\| " N " pages, marked " MS " MiB"
#define SLICES_LINE                                                    \
	"gc " N " slices: " N " pauses, longest " MS " ms, in all " MS \
	" ms, put off for " N " ms \\| " N " pages"
#define CALLS_LINE                                                 \
	"barrier gc " N " [a-z]+: arm " N " fetch " N " forget " N \
	", system calls " N " \\| dirty " N " pages, faults (not seen|" N ")"

Test(events_heap, log_has_a_line_a_cycle_and_a_pause)
{
	static const char *const pattern[] = {CYCLE_LINE, PAUSE_LINE,
					      SLICES_LINE};
	unsigned count[3];
	struct weir_stats stats;
	char option[80];

	snprintf(option, sizeof(option), "log=gc,log-file=%s", name);
	stats = busy_heap(option);
	count_lines(pattern, count, 3);
	cr_assert_eq(count[0], stats.cycles_full + stats.cycles_minor);
	/* Each cycle has one pause that ends it, and those of its slices. */
	cr_assert_eq(count[1], count[0]);
	cr_assert_geq(stats.pause.count, count[1] + count[2]);
}

struct word {
	struct word *next; /* to some other */
	uint64_t pad[255]; /* half a page */
};

static struct word *words[16384];

static void *store_everywhere(void *arg)
{
	weir_mutator *m;
	uint64_t i = 1;

	(void)arg;
	cr_assert_eq(weir_thread_attach(heap, &m), 0);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		i = i * 6364136223846793005ull + 1442695040888963407ull;
		/* Relaxed: the threads store anywhere, nobody reads it. */
		__atomic_store_n(&words[i >> 50]->next, words[i >> 36 & 16383],
				 __ATOMIC_RELAXED);
		weir_safepoint_slow(m);
	}
	cr_assert_eq(weir_thread_detach(m), 0);
	return NULL;
}

/* The program writes pages faster than they can be cleaned beside it: sooner
 * or later there are slices, and the line that tells of them adds up. */
Test(events_heap, log_has_a_line_a_batch_of_slices)
{
	static const char *const pattern[] = {CYCLE_LINE, PAUSE_LINE,
					      SLICES_LINE};
	unsigned count[3], cycle, slices = 0, batches = 0;
	char option[120], *text, *rest, *line;
	unsigned long pauses = 0, all;
	pthread_t t[3];

	snprintf(option, sizeof(option),
		 "log=gc,log-file=%s,heap-min=256m,verify=on", name);
	heap_open(option);
	need_barrier(heap);
	cr_assert_eq(weir_root_add(heap, words, sizeof(words)), 0);
	for (size_t i = 0; i < 16384; i++)
		words[i] = weir_alloc(self, sizeof(struct word));
	for (int i = 0; i < 3; i++)
		cr_assert_eq(
			pthread_create(&t[i], NULL, store_everywhere, NULL), 0);
	for (int i = 0; i < 2000; i++) {
		uint64_t before = heap_stats().pause.count;

		cr_assert_eq(weir_collect(heap, WEIR_COLLECT_FULL), 0);
		if (heap_stats().pause.count > before + 1)
			break;
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	all = heap_stats().pause.count;
	heap_close();
	count_lines(pattern, count, 3);
	text = rest = json_read_file(name);
	while ((line = strsep(&rest, "\n"))) {
		char *at = strstr(line, " slices: ");

		if (at) {
			slices += (unsigned)atoi(at + 9);
			batches++;
		}
		at = strstr(line, ": pauses ");
		if (at && sscanf(at, ": pauses %u,", &cycle) == 1)
			pauses += cycle;
	}
	free(text);
	cr_assert_eq(pauses, all);
	cr_assert_eq(slices + count[1], all);
	cr_assert_eq(batches, count[2]);
	cr_assert_gt(batches, 0);
}

Test(events_heap, log_tells_of_the_barrier)
{
	static const struct {
		const char *option; /* which barrier */
		const char *choice; /* the first line */
	} cases[] = {
		{"barrier=auto", "barrier (async|sync|none): the first that "
				 "works here, for system calls too(; not .*)?"},
		{"barrier=none", "barrier none: asked for, and it works here"},
		{"barrier=mprotect",
		 "barrier mprotect: asked for, and it works here"},
	};
	uint64_t cycles;
	unsigned count[2];
	char option[160];

	for (size_t i = 0; i < 3; i++) {
		const char *pattern[] = {cases[i].choice, CALLS_LINE};

		cr_assert_eq(truncate(name, 0), 0);
		snprintf(option, sizeof(option),
			 "heap-min=1m,%s,log=barrier,log-file=%s",
			 cases[i].option, name);
		heap_open(option);
		for (unsigned k = 0; k < 8; k++) {
			for (int n = 0; n < 10000; n++)
				cr_assert_not_null(weir_alloc(self, 64));
			weir_collect(heap, k % 2);
		}
		cycles = heap_stats().cycles_full + heap_stats().cycles_minor;
		heap_close();
		count_lines(pattern, count, 2);
		cr_assert_eq(count[0], 1);
		cr_assert_geq(count[1], 8);
		cr_assert_eq(count[1], cycles);
	}
}

/* ---- The USDT probes ---------------------------------------------------- */

/* ThreadSanitizer dies of a store to code. */
#if defined(WEIR_USDT) && !defined(__SANITIZE_THREAD__)
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>

/*
 * A tracer puts a breakpoint where a note of the program says that a probe is;
 * so does this, and a handler counts which were hit.  The instruction there is
 * a nop, which may be skipped.
 */
struct probe {
	uintptr_t pc;   /* where it is */
	int phase;      /* enum wr_phase */
	bool end;       /* or begin */
	unsigned fired; /* atomic */
};

static struct probe probe[2 * WR_PHASES];
static size_t probes;
static unsigned depth_wrong; /* atomic: ends without a begin, by thread */
static _Thread_local int under_way[WR_PHASES]
	__attribute__((tls_model("initial-exec")));

static const char *const phase_name[] = {
#define X(name, text) #name,
#include "runtime/events.def"
#undef X
};

/* The library's threads block all signals.  A tracer sees breakpoints all the
 * same, a handler does not: in this program SIGTRAP cannot be blocked. */
int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t less;

	if (set && how != SIG_UNBLOCK) {
		less = *set;
		sigdelset(&less, SIGTRAP);
		set = &less;
	}
	return sigprocmask(how, set, old) ? errno : 0;
}

static void on_trap(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	uintptr_t pc;

	(void)sig;
	(void)info;
#if defined(__x86_64__)
	pc = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP] - 1;
#elif defined(__aarch64__)
	pc = (uintptr_t)uc->uc_mcontext.pc;
	uc->uc_mcontext.pc += 4;
#elif defined(__riscv)
	pc = (uintptr_t)uc->uc_mcontext.__gregs[REG_PC];
	uc->uc_mcontext.__gregs[REG_PC] += 2;
#endif
	for (size_t i = 0; i < probes; i++) {
		if (probe[i].pc != pc)
			continue;
		/* Relaxed: counts, read after all threads have ended. */
		__atomic_fetch_add(&probe[i].fired, 1, __ATOMIC_RELAXED);
		under_way[probe[i].phase] += probe[i].end ? -1 : 1;
		if (under_way[probe[i].phase] < 0 ||
		    under_way[probe[i].phase] > 1)
			__atomic_fetch_add(&depth_wrong, 1, __ATOMIC_RELAXED);
		return;
	}
	_exit(1);
}

static void break_at(uintptr_t pc)
{
	uintptr_t page = pc & ~((uintptr_t)sysconf(_SC_PAGESIZE) - 1);

	cr_assert_eq(mprotect((void *)page, pc - page + 4,
			      PROT_READ | PROT_WRITE | PROT_EXEC),
		     0);
#if defined(__x86_64__)
	cr_assert_eq(*(unsigned char *)pc, 0x90, "no nop at a probe");
	*(unsigned char *)pc = 0xcc;
#elif defined(__aarch64__)
	cr_assert_eq(*(uint32_t *)pc, 0xd503201f, "no nop at a probe");
	*(uint32_t *)pc = 0xd4200000;
	__builtin___clear_cache((char *)pc, (char *)pc + 4);
#elif defined(__riscv) /* the short forms: the C extension is everywhere */
	cr_assert_eq(*(uint16_t *)pc, 0x0001, "no nop at a probe");
	*(uint16_t *)pc = 0x9002;
	__builtin___clear_cache((char *)pc, (char *)pc + 2);
#endif
	cr_assert_eq(
		mprotect((void *)page, pc - page + 4, PROT_READ | PROT_EXEC),
		0);
}

/* A note: pc, base and semaphore, then provider, name, arguments.  `moved` is
 * how far the program was loaded from where it was linked to be. */
static void take_note(const char *desc, uintptr_t moved)
{
	const char *provider = desc + 24;
	const char *text = provider + strlen(provider) + 1;
	uint64_t pc;

	memcpy(&pc, desc, sizeof(pc));
	if (strcmp(provider, "weir"))
		return;
	for (int p = 0; p < WR_PHASES; p++) {
		size_t n = strlen(phase_name[p]);

		if (strncmp(text, phase_name[p], n) ||
		    (strcmp(text + n, "_begin") && strcmp(text + n, "_end")))
			continue;
		cr_assert_lt(probes, 2 * WR_PHASES);
		probe[probes++] = (struct probe){.pc = pc + moved,
						 .phase = p,
						 .end = text[n + 1] == 'e'};
		return;
	}
	cr_assert(false, "unknown probe %s", text);
}

static void read_notes(void)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct stat st;
	const char *file, *names;
	const Elf64_Ehdr *head;
	const Elf64_Shdr *section;
	uintptr_t moved;

	cr_assert_eq(fstat(fd, &st), 0);
	file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	cr_assert_neq(file, MAP_FAILED);
	close(fd);
	head = (const void *)file;
	section = (const void *)(file + head->e_shoff);
	names = file + section[head->e_shstrndx].sh_offset;
	moved = (uintptr_t)getauxval(AT_ENTRY) - head->e_entry;
	for (unsigned i = 0; i < head->e_shnum; i++) {
		const char *at = file + section[i].sh_offset;
		const char *end = at + section[i].sh_size;

		if (strcmp(names + section[i].sh_name, ".note.stapsdt"))
			continue;
		while (at < end) {
			const Elf64_Nhdr *note = (const void *)at;
			const char *desc = at + sizeof(*note) +
					   ((note->n_namesz + 3) & ~3u);

			take_note(desc, moved);
			at = desc + ((note->n_descsz + 3) & ~3u);
		}
	}
	munmap((void *)(uintptr_t)file, (size_t)st.st_size);
}

Test(events_heap, every_probe_fires)
{
	struct sigaction act = {.sa_sigaction = on_trap,
				.sa_flags = SA_SIGINFO | SA_RESTART};
	unsigned fired[WR_PHASES][2] = {{0}};
	struct weir_stats stats;

	read_notes();
	cr_assert_eq(probes, 2 * WR_PHASES);
	sigfillset(&act.sa_mask);
	cr_assert_eq(sigaction(SIGTRAP, &act, NULL), 0);
	for (size_t i = 0; i < probes; i++)
		break_at(probe[i].pc);
	stats = busy_heap("trace=");
	for (size_t i = 0; i < probes; i++)
		fired[probe[i].phase][probe[i].end] += probe[i].fired;
	for (int p = 0; p < WR_PHASES; p++) {
		cr_assert_gt(fired[p][0], 0, "%s_begin did not fire",
			     phase_name[p]);
		cr_assert_eq(fired[p][0], fired[p][1], "%s: %u begins, %u ends",
			     phase_name[p], fired[p][0], fired[p][1]);
	}
	cr_assert_eq(depth_wrong, 0);
	cr_assert_eq(fired[WR_PHASE_pause][0], stats.pause.count);
	cr_assert_eq(fired[WR_PHASE_stop][0], stats.stop.count);
	cr_assert_eq(fired[WR_PHASE_handshake][0], stats.handshake.count);
	cr_assert_eq(fired[WR_PHASE_assist][0], stats.assist.count);
}
#else
Test(events_heap, every_probe_fires)
{
	cr_skip("no probes in this build, or no breakpoints in it");
}
#endif
