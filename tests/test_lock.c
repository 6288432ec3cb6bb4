/* SPDX-License-Identifier: MIT */
/*
 * runtime/lock.h: locking, and the witness.  The witness is in checking builds
 * only, so the file under test is compiled into this one with checking on.
 */
#define _GNU_SOURCE
#undef WEIR_CHECKING
#define WEIR_CHECKING 1
#include "runtime/lock.c"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static struct wr_mutex low, middle, high;

static void make_locks(void)
{
	wr_mutex_init(&low, WR_RANK_roots);
	wr_mutex_init(&middle, WR_RANK_registry);
	wr_mutex_init(&high, WR_RANK_events);
}

TestSuite(lock, .init = make_locks);

/* Run `body` in a child; what it wrote to standard error, if it aborted. */
static const char *dying_words(void (*body)(void))
{
	static char text[1024];
	size_t length = 0;
	int pipe_ends[2], status;
	ssize_t n;
	pid_t pid;

	cr_assert_eq(pipe(pipe_ends), 0);
	pid = fork();
	if (pid == 0) {
		struct rlimit none = {0, 0};

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGABRT, SIG_DFL);
		dup2(pipe_ends[1], STDERR_FILENO);
		body();
		_exit(0);
	}
	close(pipe_ends[1]);
	while ((n = read(pipe_ends[0], text + length,
			 sizeof(text) - 1 - length)) > 0)
		length += (size_t)n;
	text[length] = '\0';
	close(pipe_ends[0]);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return NULL;
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT,
		  "status %x: %s", status, text);
	return text;
}

static void expect_death(void (*body)(void), const char *first,
			 const char *second)
{
	const char *text = dying_words(body);

	cr_assert(text, "survived");
	cr_assert(strstr(text, first), "\"%s\" is not in: %s", first, text);
	if (second)
		cr_assert(strstr(text, second), "\"%s\" is not in: %s", second,
			  text);
}

/* ---- Locking ------------------------------------------------------------- */

static long counter;

static void *count(void *arg)
{
	for (int i = 0; i < 20000; i++) {
		wr_mutex_lock(arg);
		counter++;
		wr_mutex_unlock(arg);
	}
	return NULL;
}

Test(lock, excludes)
{
	pthread_t t[3];

	for (int i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, count, &middle);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	cr_assert_eq(counter, 60000);
}

static void *try_it(void *arg)
{
	bool got = wr_mutex_trylock(arg);

	if (got)
		wr_mutex_unlock(arg);
	return (void *)(uintptr_t)got;
}

Test(lock, trylock_says_whether_it_was_free)
{
	pthread_t t;
	void *got;

	wr_mutex_lock(&low);
	pthread_create(&t, NULL, try_it, &low);
	pthread_join(t, &got);
	cr_assert_null(got);
	wr_mutex_unlock(&low);
	pthread_create(&t, NULL, try_it, &low);
	pthread_join(t, &got);
	cr_assert_not_null(got);
}

static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int stage;

static void *second_stage(void *arg)
{
	(void)arg;
	wr_mutex_lock(&middle);
	while (stage != 1)
		wr_mutex_wait(&middle, &cond);
	stage = 2;
	pthread_cond_broadcast(&cond);
	wr_mutex_unlock(&middle);
	return NULL;
}

Test(lock, waits_let_go_of_the_lock)
{
	struct timespec past = {1, 0};
	pthread_t t;

	pthread_create(&t, NULL, second_stage, NULL);
	wr_mutex_lock(&low);
	wr_mutex_lock(&middle);
	cr_assert_eq(wr_mutex_timedwait(&middle, &cond, &past), -ETIMEDOUT);
	wr_mutex_assert_held(&middle);
	stage = 1;
	pthread_cond_broadcast(&cond);
	while (stage != 2)
		wr_mutex_wait(&middle, &cond);
	wr_mutex_assert_held(&middle);
	wr_mutex_unlock(&middle);
	wr_mutex_unlock(&low);
	pthread_join(t, NULL);
}

Test(lock, a_forked_child_unlocks)
{
	int status;
	pid_t pid;

	wr_mutex_lock(&low);
	wr_mutex_lock(&middle);
	pid = fork();
	wr_mutex_unlock(&middle);
	wr_mutex_unlock(&low);
	if (pid == 0) {
		alarm(60);
		wr_mutex_lock(&low);
		wr_mutex_lock(&middle);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- The witness --------------------------------------------------------- */

static void in_order(void)
{
	for (int i = 0; i < 3; i++) {
		wr_mutex_lock(&low);
		wr_mutex_lock(&middle);
		wr_mutex_lock(&high);
		/* Let go in any order. */
		wr_mutex_unlock(i == 0 ? &low : &high);
		wr_mutex_unlock(&middle);
		wr_mutex_unlock(i == 0 ? &high : &low);
	}
	wr_mutex_lock(&low);
	wr_mutex_lock(&high);
	wr_mutex_unlock(&high);
	wr_mutex_lock(&middle);
	wr_mutex_unlock(&middle);
	wr_mutex_unlock(&low);
}

Test(lock, rising_order_is_allowed)
{
	cr_assert_null(dying_words(in_order));
}

static void out_of_order(void)
{
	wr_mutex_lock(&middle);
	wr_mutex_lock(&low);
}

static void out_of_order_below_the_top(void)
{
	wr_mutex_lock(&middle);
	wr_mutex_lock(&high);
	wr_mutex_unlock(&middle);
	wr_mutex_lock(&middle);
}

static void same_rank(void)
{
	struct wr_mutex other;

	wr_mutex_init(&other, WR_RANK_registry);
	wr_mutex_lock(&middle);
	wr_mutex_lock(&other);
}

Test(lock, falling_order_aborts_and_names_both)
{
	expect_death(out_of_order, "taking the roots lock",
		     "holding the registry lock");
	expect_death(out_of_order_below_the_top, "taking the registry lock",
		     "holding the events lock");
	expect_death(same_rank, "taking the registry lock",
		     "holding the registry lock");
}

static void twice(void)
{
	wr_mutex_lock(&high);
	wr_mutex_lock(&high);
}

static void not_held(void)
{
	wr_mutex_unlock(&middle);
}

static void not_held_here(void)
{
	wr_mutex_lock(&low);
	wr_mutex_assert_held(&low);
	wr_mutex_assert_held(&middle);
}

Test(lock, misuse_aborts)
{
	expect_death(twice, "events lock taken twice", NULL);
	expect_death(not_held, "releasing the registry lock", NULL);
	expect_death(not_held_here, "registry lock must be held", NULL);
}

static void try_falling(void)
{
	wr_mutex_lock(&middle);
	if (!wr_mutex_trylock(&low))
		_exit(1);
	wr_mutex_lock(&high);
}

static void lock_below_tried(void)
{
	if (!wr_mutex_trylock(&high))
		_exit(1);
	wr_mutex_lock(&low);
}

static void wait_out_of_order(void)
{
	struct timespec past = {1, 0};

	wr_mutex_lock(&middle);
	wr_mutex_lock(&high);
	wr_mutex_timedwait(&middle, &cond, &past);
}

Test(lock, only_what_waits_must_keep_the_order)
{
	cr_assert_null(dying_words(try_falling));
	expect_death(lock_below_tried, "taking the roots lock",
		     "holding the events lock");
	expect_death(wait_out_of_order, "taking the registry lock",
		     "holding the events lock");
}

static void *lock_low(void *arg)
{
	(void)arg;
	wr_mutex_lock(&low);
	wr_mutex_unlock(&low);
	return NULL;
}

static void other_thread(void)
{
	pthread_t t;

	wr_mutex_lock(&high);
	pthread_create(&t, NULL, lock_low, NULL);
	pthread_join(t, NULL);
}

Test(lock, each_thread_has_its_own_witness)
{
	other_thread(); /* dies if it has not */
}

Test(lock, ranks_have_names)
{
	cr_assert_str_eq(wr_rank_name(WR_RANK_create), "create");
	cr_assert_str_eq(wr_rank_name(WR_RANK_events), "events");
	cr_assert_str_eq(wr_rank_name(WR_RANKS), "of no rank");
	/* A pause takes roots before it stops; a stopper walks the list. */
	cr_assert_lt(WR_RANK_loader, WR_RANK_roots);
	cr_assert_lt(WR_RANK_roots, WR_RANK_stop);
	cr_assert_lt(WR_RANK_stop, WR_RANK_registry);
}
