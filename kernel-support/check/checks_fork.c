/* SPDX-License-Identifier: GPL-2.0-only */
/* fork: what a child has of the bit, and pages that are shared copy-on-write.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "checks.h"

bool start_child(struct child *c, int (*fn)(struct bench *), struct bench *b)
{
	int pipes[2];
	char byte;

	if (pipe(pipes))
		return fail("pipe: %s", strerror(errno));
	fflush(stdout);
	c->pid = fork();
	if (c->pid < 0)
		return fail("fork: %s", strerror(errno));
	if (!c->pid) {
		close(pipes[1]);
		while (read(pipes[0], &byte, 1) < 0 && errno == EINTR)
			;
		alarm(20);
		_exit(fn(b));
	}
	close(pipes[0]);
	c->go = pipes[1];
	return true;
}

int end_child(struct child *c)
{
	int status = 0;

	close(c->go);
	while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* The child of all tests with copies: it must see what was there at fork. */
int sees_old_values(struct bench *b)
{
	for (size_t i = 0; i < b->a.pages; i++)
		if (*area_word(&b->a, i) != i + 1)
			return 1;
	return 0;
}

/* At the event the writer stands still, and nothing was copied: the frame is
 * the one from before, its content old. */
static void look_before(struct watcher *w, size_t page)
{
	const char *p = w->area->mem + page * w->area->page;

	if (*area_word(w->area, page) != page + 1)
		w->note[0]++;
	if (w->note[2] && frame_of(p) != w->note[3] && page == 0)
		w->note[1]++;
}

void cow_order(void)
{
	struct child c;
	struct bench b;
	uint64_t before;

	if (!begin(&b, ANON, PAGES, WP))
		return;
	area_fill(&b.a, 0, PAGES);
	b.w.on_fault = look_before;
	if (!attach(&b))
		return;
	if (arm(&b, 0, PAGES / 2) && start_child(&c, sees_old_values, &b)) {
		before = frame_of(b.a.mem);
		b.w.note[2] = before != 0;
		b.w.note[3] = before;
		write_pages(&b, 0, PAGES);
		expect_events(&b, 0, PAGES / 2);
		expect(!b.w.note[0],
		       "%llu pages had been written when they "
		       "were reported",
		       (unsigned long long)b.w.note[0]);
		expect(!b.w.note[1], "a page had been copied when it was "
				     "reported");
		expect(!before || frame_of(b.a.mem) != before,
		       "a shared page was not copied after it was resolved");
		expect(!end_child(&c), "the child sees the parent's writes");
	}
	end(&b);
}

/* `before` pages armed, a fork, `after` pages armed or all of them not, and all
 * written: `events` come, and the child sees none of it. */
static void shared(size_t before, size_t after, bool disarm, size_t events)
{
	struct child c;
	struct bench b;

	if (!begin_filled(&b, WP))
		return;
	if (arm(&b, 0, before) && start_child(&c, sees_old_values, &b)) {
		arm(&b, 0, after);
		if (disarm)
			area_protect(&b.a, b.fd, 0, PAGES, false);
		write_pages(&b, 0, PAGES);
		expect_events(&b, 0, events);
		expect(!end_child(&c), "the child sees the parent's writes");
	}
	end(&b);
}

/* Copy-on-write pages without the bit, in the same mapping: nothing. */
void cow_alone(void)
{
	shared(0, 0, false, 0);
}

/* Armed after the fork, when the pages are shared already. */
void cow_armed_later(void)
{
	shared(0, PAGES / 2, false, PAGES / 2);
}

/* Disarmed while they are shared: still to be copied. */
void cow_disarmed(void)
{
	shared(PAGES, 0, true, 0);
}

static int writes_all(struct bench *b)
{
	for (size_t i = 0; i < b->a.pages; i++)
		*area_word(&b->a, i) = 7;
	return 0;
}

void fork_drops(void)
{
	struct child c;
	struct bench b;

	if (!begin_filled(&b, WP))
		return;
	if (arm(&b, 0, PAGES) && start_child(&c, writes_all, &b)) {
		expect(!end_child(&c), "the child was held, or died");
		expect_events(&b, 0, 0);
		/* The parent's are armed still. */
		for (size_t i = 0; i < PAGES; i++)
			expect(*area_word(&b.a, i) == i + 1,
			       "the parent sees the child's writes");
		write_pages(&b, 0, PAGES);
		expect_events(&b, 0, PAGES);
	}
	end(&b);
}

void fork_keeps(void)
{
	struct watcher theirs = {0};
	struct child c;
	struct bench b;

	if (!begin_filled(&b, WP | UFFD_FEATURE_EVENT_FORK))
		return;
	if (arm(&b, 0, PAGES / 2) && start_child(&c, writes_all, &b)) {
		int fd = watch_child(&b.w);

		if (fd < 0) {
			fail("no event came of the fork");
			kill(c.pid, SIGKILL);
			end_child(&c);
		} else {
			watch(&theirs, &b.a, fd);
			expect(!end_child(&c), "the child died");
			watch_end(&theirs);
			expect(theirs.events == PAGES / 2,
			       "%llu events of %d protected pages of the child",
			       (unsigned long long)theirs.events, PAGES / 2);
			close(fd);
		}
		expect_events(&b, 0, 0);
	}
	end(&b);
}
