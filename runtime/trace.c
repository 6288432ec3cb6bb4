/* SPDX-License-Identifier: MIT */
/*
 * The Chrome trace: a ring that everybody fills, a file that one thread writes.
 *
 * The ring's records are of fixed size, made and populated at open.  Producers
 * never wait, lock, allocate or make a system call that can block: a record
 * that finds the ring full is counted and dropped, and the trace says how many
 * were.  A thread of the library's own, never stopped by the collector, writes
 * the ring to the file.
 *
 * Slot i of a ring of N, at turn t (N divides t - i):
 *
 *	seq == t	free for the producer that takes turn t
 *	seq == t + 1	holds record t, for the writer
 *	seq == t + N	written; free for turn t + N
 *
 * A producer that is stopped between taking its turn and publishing it holds
 * up the writer, which tries again later, and nobody else before the ring is
 * full.
 *
 * The file is a JSON array of events, the form whose closing bracket viewers
 * do not insist on: the trace of a program that died is still readable.
 */
#define _GNU_SOURCE
#include "runtime/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "runtime/check.h"
#include "runtime/lock.h"

#define RING 16384u        /* records, a power of two */
#define WRITE_EVERY_MS 50  /* how often the writer looks */
#define NAMED_THREADS 256u /* threads whose names the trace gives */

enum record_type {
	RECORD_SPAN,
	RECORD_COUNTER,
};

struct record {
	uint64_t seq;      /* whose turn it is, see above */
	uint64_t begin_ns; /* when it began, or the counter's time */
	uint64_t end_ns;   /* spans: when it ended */
	uint64_t value;    /* what was done, or counted */
	int32_t tid;       /* thread that told */
	uint8_t type;      /* enum record_type */
	uint8_t phase;     /* spans: enum wr_phase */
	char text[26];     /* unit, or the counter's name; "" for none */
};
_Static_assert(sizeof(struct record) == 64, "a record is a cache line");

struct wr_trace {
	struct record *ring;  /* RING records */
	uint64_t head;        /* next turn to be taken (atomic) */
	uint64_t dropped;     /* records that found no slot (atomic) */
	uint64_t tail;        /* next turn to be written; `lock` */
	FILE *file;           /* the file; `lock` */
	char *name;           /* its name, for complaints */
	bool failed;          /* a write failed, nothing more is; `lock` */
	bool any;             /* an event was written; `lock` */
	bool stop;            /* the writer is to end; `lock` */
	struct wr_mutex lock; /* held by the writer while it writes, and over
			       * a fork; never by a producer */
	pthread_cond_t wake;  /* with `lock`: stop was set */
	pthread_t writer;     /* writes the ring to the file */
	unsigned named;       /* entries of `names`; `lock` */
	int32_t names[NAMED_THREADS]; /* threads already named; `lock` */
};

static const char *const phase_text[] = {
#define X(name, text) text,
#include "runtime/events.def"
#undef X
};

static const char *const phase_name[] = {
#define X(name, text) #name,
#include "runtime/events.def"
#undef X
};

/* ---- The producers' side ------------------------------------------------ */

static int32_t own_tid(void)
{
	/* A child has another thread id than its parent, but no trace. */
	static _Thread_local int32_t tid;

	if (!tid)
		tid = gettid();
	return tid;
}

/* Take a turn: its slot, or NULL if the ring is full. */
static struct record *take(struct wr_trace *t, uint64_t *turn)
{
	*turn = __atomic_load_n(&t->head, __ATOMIC_RELAXED);
	for (;;) {
		struct record *slot = &t->ring[*turn & (RING - 1)];
		/* Acquire, with the writer's release of the slot: its reads of
		 * the old record are over before we overwrite it. */
		uint64_t seq = __atomic_load_n(&slot->seq, __ATOMIC_ACQUIRE);
		int64_t ahead = (int64_t)(seq - *turn);

		if (ahead < 0) {
			__atomic_fetch_add(&t->dropped, 1, __ATOMIC_RELAXED);
			return NULL;
		}
		/* Relaxed: the turn alone is claimed; publish() shows the
		 * record. */
		if (ahead > 0)
			*turn = __atomic_load_n(&t->head, __ATOMIC_RELAXED);
		else if (__atomic_compare_exchange_n(&t->head, turn, *turn + 1,
						     true, __ATOMIC_RELAXED,
						     __ATOMIC_RELAXED))
			return slot;
	}
}

static void publish(struct record *slot, uint64_t turn, const char *text)
{
	size_t n = text ? strnlen(text, sizeof slot->text - 1) : 0;

	if (n)
		memcpy(slot->text, text, n);
	slot->text[n] = '\0';
	slot->tid = own_tid();
	/* Release, with drain()'s acquire: it sees the whole record. */
	__atomic_store_n(&slot->seq, turn + 1, __ATOMIC_RELEASE);
}

void wr_trace_span(struct wr_trace *t, enum wr_phase phase, uint64_t begin_ns,
		   uint64_t end_ns, uint64_t value, const char *unit)
{
	uint64_t turn;
	struct record *slot = take(t, &turn);

	if (!slot)
		return;
	slot->type = RECORD_SPAN;
	slot->phase = (uint8_t)phase;
	slot->begin_ns = begin_ns;
	slot->end_ns = end_ns;
	slot->value = value;
	publish(slot, turn, unit);
}

void wr_trace_counter(struct wr_trace *t, const char *name, uint64_t now_ns,
		      uint64_t value)
{
	uint64_t turn;
	struct record *slot = take(t, &turn);

	if (!slot)
		return;
	slot->type = RECORD_COUNTER;
	slot->begin_ns = now_ns;
	slot->value = value;
	publish(slot, turn, name);
}

/* ---- The writer's side ------------------------------------------------- */

/* A JSON string.  Names of threads are the program's and may hold anything:
 * what is not plain ASCII is written as a question mark. */
static void write_string(FILE *f, const char *s)
{
	putc('"', f);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			putc('\\', f);
		putc((unsigned char)*s < 32 || (unsigned char)*s > 126 ? '?'
								       : *s,
		     f);
	}
	putc('"', f);
}

/* Begin an event object; the caller ends it with "}". */
static void begin_object(struct wr_trace *t, const char *type, int32_t tid)
{
	fprintf(t->file, "%s{\"ph\":\"%s\",\"pid\":%d,\"tid\":%d",
		t->any ? ",\n" : "", type, (int)getpid(), (int)tid);
	t->any = true;
}

/* Microseconds with the nanoseconds as decimals. */
static void write_time(FILE *f, const char *key, uint64_t ns)
{
	fprintf(f, ",\"%s\":%llu.%03u", key, (unsigned long long)(ns / 1000),
		(unsigned)(ns % 1000));
}

static void name_process(struct wr_trace *t)
{
	begin_object(t, "M", (int32_t)getpid());
	fputs(",\"name\":\"process_name\",\"args\":{\"name\":", t->file);
	write_string(t->file, program_invocation_short_name);
	fputs("}}", t->file);
}

static void name_thread(struct wr_trace *t, int32_t tid)
{
	char path[64], name[32] = "";
	FILE *f;

	for (unsigned i = t->named; i-- > 0;)
		if (t->names[i] == tid)
			return;
	if (t->named == NAMED_THREADS)
		return;
	t->names[t->named++] = tid;
	snprintf(path, sizeof path, "/proc/self/task/%d/comm", (int)tid);
	f = fopen(path, "re");
	if (!f)
		return; /* it has exited */
	if (fgets(name, sizeof name, f)) {
		name[strcspn(name, "\n")] = '\0';
		begin_object(t, "M", tid);
		fputs(",\"name\":\"thread_name\",\"args\":{\"name\":", t->file);
		write_string(t->file, name);
		fputs("}}", t->file);
	}
	fclose(f);
}

static void write_record(struct wr_trace *t, const struct record *r)
{
	FILE *f = t->file;

	name_thread(t, r->tid);
	if (r->type == RECORD_COUNTER) {
		begin_object(t, "C", r->tid);
		write_time(f, "ts", r->begin_ns);
		fputs(",\"cat\":\"weir\",\"name\":", f);
		write_string(f, r->text);
		fprintf(f, ",\"args\":{\"value\":%llu}}",
			(unsigned long long)r->value);
		return;
	}
	begin_object(t, "X", r->tid);
	write_time(f, "ts", r->begin_ns);
	write_time(f, "dur",
		   r->end_ns > r->begin_ns ? r->end_ns - r->begin_ns : 0);
	fprintf(f, ",\"cat\":\"weir,%s\",\"name\":\"%s\"", phase_name[r->phase],
		phase_text[r->phase]);
	if (*r->text) {
		fputs(",\"args\":{", f);
		write_string(f, r->text);
		fprintf(f, ":%llu}", (unsigned long long)r->value);
	}
	putc('}', f);
}

static void note_failure(struct wr_trace *t, int err)
{
	if (t->failed)
		return;
	t->failed = true;
	dprintf(STDERR_FILENO,
		"weir: trace=%s: %s; the rest of the trace is lost\n", t->name,
		strerror(err ? err : EIO));
}

/* Write what the ring holds.  Holds `lock`. */
static void drain(struct wr_trace *t)
{
	bool some = false;

	for (;;) {
		struct record *slot = &t->ring[t->tail & (RING - 1)];
		struct record copy;

		/* Acquire, with publish()'s release of the record. */
		if (__atomic_load_n(&slot->seq, __ATOMIC_ACQUIRE) !=
		    t->tail + 1)
			break;
		copy = *slot;
		/* Release, with take()'s acquire: the copy is complete. */
		__atomic_store_n(&slot->seq, t->tail + RING, __ATOMIC_RELEASE);
		t->tail++;
		if (!t->failed)
			write_record(t, &copy);
		some = true;
	}
	if (some && !t->failed && (fflush(t->file) || ferror(t->file)))
		note_failure(t, errno);
}

static void *writer(void *arg)
{
	struct wr_trace *t = arg;
	struct timespec until;

	wr_mutex_lock(&t->lock);
	while (!t->stop) {
		drain(t);
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += WRITE_EVERY_MS * 1000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_nsec -= 1000000000;
			until.tv_sec++;
		}
		wr_mutex_timedwait(&t->lock, &t->wake, &until);
	}
	wr_mutex_unlock(&t->lock);
	return NULL;
}

/* ---- Open and close ----------------------------------------------------- */

static void init_sync(struct wr_trace *t)
{
	pthread_condattr_t attr;

	wr_mutex_init(&t->lock, WR_RANK_events);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&t->wake, &attr);
	pthread_condattr_destroy(&attr);
}

/* Start the writer with every signal blocked: the program's handlers are not
 * to run on a thread that it does not know. */
static int start_writer(struct wr_trace *t)
{
	sigset_t all, old;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&t->writer, NULL, writer, t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err)
		return wr_error(err, "trace: no thread to write it: %s",
				strerror(err));
	pthread_setname_np(t->writer, "weir-trace");
	return 0;
}

static void free_trace(struct wr_trace *t)
{
	if (t->file)
		fclose(t->file);
	if (t->ring)
		munmap(t->ring, RING * sizeof *t->ring);
	free(t->name);
	free(t);
}

int wr_trace_open(const char *name, struct wr_trace **out)
{
	struct wr_trace *t = calloc(1, sizeof *t);
	int err;

	if (!t || !(t->name = strdup(name))) {
		err = wr_error(ENOMEM, "trace: out of memory");
		goto fail;
	}
	t->file = fopen(name, "we");
	if (!t->file) {
		err = errno;
		err = wr_error(err,
			       "trace=%s: %s; name a file in a directory that "
			       "exists and may be written",
			       name, strerror(err));
		goto fail;
	}
	/* Populated now: a producer in a pause is to take no page fault. */
	t->ring = mmap(NULL, RING * sizeof *t->ring, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (t->ring == MAP_FAILED) {
		t->ring = NULL;
		err = wr_error(ENOMEM, "trace: out of memory");
		goto fail;
	}
	for (uint64_t i = 0; i < RING; i++)
		t->ring[i].seq = i;
	init_sync(t);
	fputs("[\n", t->file);
	name_process(t);
	err = start_writer(t);
	if (err)
		goto fail;
	*out = t;
	return 0;
fail:
	if (t)
		free_trace(t);
	return err;
}

void wr_trace_close(struct wr_trace *t)
{
	wr_mutex_lock(&t->lock);
	t->stop = true;
	pthread_cond_signal(&t->wake);
	wr_mutex_unlock(&t->lock);
	pthread_join(t->writer, NULL);
	drain(t);
	if (t->dropped) {
		begin_object(t, "M", (int32_t)getpid());
		fprintf(t->file,
			",\"name\":\"dropped\",\"args\":{\"events\":%llu}}",
			(unsigned long long)t->dropped);
	}
	fputs("\n]\n", t->file);
	if (!t->failed && (fflush(t->file) || ferror(t->file)))
		note_failure(t, errno);
	if (t->failed)
		__fpurge(t->file);
	free_trace(t);
}

/* ---- Fork --------------------------------------------------------------- */

void wr_trace_fork_prepare(struct wr_trace *t)
{
	wr_mutex_lock(&t->lock);
	/* What stdio holds back would be written by both processes. */
	if (!t->failed && fflush(t->file))
		note_failure(t, errno);
}

void wr_trace_fork_parent(struct wr_trace *t)
{
	wr_mutex_unlock(&t->lock);
}

void wr_trace_fork_child(struct wr_trace *t)
{
	/* Taken in prepare: this thread must not be left with a lock that is
	 * no more. */
	wr_mutex_unlock(&t->lock);
	__fpurge(t->file);
	free_trace(t);
}
