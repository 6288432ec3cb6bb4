/* SPDX-License-Identifier: MIT */
/*
 * redis-load SOCKET RATE SECONDS KEYS BYTES [WINDOW]: an open-loop client of a
 * Redis server.  SETs keys of DEBUG POPULATE's ("key:N") at random, RATE a
 * second, each at its time whether or not the ones before have been answered;
 * prints the latencies from that time on, in microseconds, as JSON, and the
 * longest of each WINDOW milliseconds, by when they were due.  start_ns is on
 * CLOCK_MONOTONIC.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define OUT ((size_t)4 << 20)

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int connect_to(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	if (strlen(path) >= sizeof(a.sun_path)) {
		errno = ENAMETOOLONG;
		fail(path);
	}
	strcpy(a.sun_path, path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)))
		fail(path);
	return fd;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

struct load {
	int fd;              /* to the server */
	uint64_t start;      /* of the first request */
	uint64_t interval;   /* between two */
	uint64_t total;      /* requests to be made */
	uint64_t made;       /* so far */
	uint64_t answered;   /* so far */
	uint64_t keys;       /* to choose from */
	uint64_t state;      /* of the random numbers */
	uint64_t *latency;   /* of each that was answered, ns */
	char *value;         /* of all */
	char *out;           /* not yet sent */
	size_t out_at;       /* of it: sent */
	size_t out_end;      /* of it: made */
	size_t value_length; /* bytes */
};

static uint64_t due(const struct load *l, uint64_t n)
{
	return l->start + n * l->interval;
}

static void make(struct load *l, uint64_t now)
{
	if (l->out_at == l->out_end)
		l->out_at = l->out_end = 0;
	while (l->made < l->total && due(l, l->made) <= now &&
	       l->out_end + l->value_length + 128 < OUT) {
		char key[32];
		int n;

		l->state ^= l->state << 13;
		l->state ^= l->state >> 7;
		l->state ^= l->state << 17;
		n = snprintf(key, sizeof(key), "key:%llu",
			     (unsigned long long)(l->state % l->keys));
		l->out_end += (size_t)sprintf(
			l->out + l->out_end,
			"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%zu\r\n%s\r\n", n,
			key, l->value_length, l->value);
		l->made++;
	}
}

/* Each answer is "+OK\r\n". */
static void take(struct load *l)
{
	char in[65536];
	ssize_t n = read(l->fd, in, sizeof(in));
	uint64_t now = now_ns();

	if (!n || (n < 0 && errno != EAGAIN && errno != EINTR))
		fail("the server");
	for (ssize_t i = 0; i < n; i++) {
		if (in[i] == '-') {
			fprintf(stderr, "redis-load: %.60s\n", in + i);
			exit(1);
		}
		if (in[i] == '\n') {
			l->latency[l->answered] = now - due(l, l->answered);
			l->answered++;
		}
	}
}

static void run(struct load *l)
{
	l->start = now_ns();
	while (l->answered < l->total) {
		uint64_t now = now_ns(), next = due(l, l->made);
		struct pollfd p = {.fd = l->fd, .events = POLLIN};
		struct timespec wait = {.tv_sec = 1};

		make(l, now);
		if (l->out_at < l->out_end) {
			ssize_t n = write(l->fd, l->out + l->out_at,
					  l->out_end - l->out_at);

			if (n < 0 && errno != EAGAIN)
				fail("the server");
			if (n > 0)
				l->out_at += (size_t)n;
			if (l->out_at < l->out_end)
				p.events |= POLLOUT;
		}
		next = due(l, l->made);
		if (l->made < l->total) {
			wait.tv_sec = 0;
			wait.tv_nsec = next > now ? (long)(next - now) : 0;
			if (wait.tv_nsec > 999999999)
				wait.tv_nsec = 999999999;
		}
		if (ppoll(&p, 1, &wait, NULL) > 0 && p.revents & ~POLLOUT)
			take(l);
	}
}

/* While they are in the order of their requests. */
static void print_windows(const struct load *l, uint64_t width_ms)
{
	uint64_t width = width_ms * 1000000 / l->interval, longest = 0;

	if (!width)
		width = 1;
	printf("\"window_us\": %.1f, \"windows_us\": [",
	       (double)(width * l->interval) / 1e3);
	for (uint64_t i = 0; i < l->total; i++) {
		if (l->latency[i] > longest)
			longest = l->latency[i];
		if (i % width == width - 1 || i == l->total - 1) {
			printf("%s%.1f", i < width ? "" : ", ",
			       (double)longest / 1e3);
			longest = 0;
		}
	}
	printf("], ");
}

int main(int argc, char **argv)
{
	struct load l = {.state = 88172645463325252u};
	double rate;

	if (argc != 6 && argc != 7) {
		fprintf(stderr, "usage: redis-load SOCKET RATE SECONDS KEYS "
				"BYTES [WINDOW]\n");
		return 2;
	}
	rate = atof(argv[2]);
	l.total = (uint64_t)(rate * atof(argv[3]));
	l.keys = strtoull(argv[4], NULL, 10);
	l.value_length = strtoull(argv[5], NULL, 10);
	if (!(rate > 0) || !l.total || !l.keys || !l.value_length ||
	    l.value_length > OUT / 4) {
		fprintf(stderr, "redis-load: wrong arguments\n");
		return 2;
	}
	l.interval = (uint64_t)(1e9 / rate);
	l.latency = calloc(l.total, sizeof(*l.latency));
	l.value = calloc(1, l.value_length + 1);
	l.out = malloc(OUT);
	if (!l.latency || !l.value || !l.out)
		fail("memory");
	memset(l.value, 'v', l.value_length);
	l.fd = connect_to(argv[1]);
	run(&l);
	printf("{\"start_ns\": %llu, ", (unsigned long long)l.start);
	if (argc == 7)
		print_windows(&l, strtoull(argv[6], NULL, 10));
	qsort(l.latency, l.total, sizeof(*l.latency), compare);
	printf("\"requests\": %llu, \"p50_us\": %.1f, \"p99_us\": %.1f, "
	       "\"p999_us\": %.1f, \"max_us\": %.1f}\n",
	       (unsigned long long)l.total,
	       (double)l.latency[l.total / 2] / 1e3,
	       (double)l.latency[l.total * 99 / 100] / 1e3,
	       (double)l.latency[l.total * 999 / 1000] / 1e3,
	       (double)l.latency[l.total - 1] / 1e3);
	free(l.latency);
	free(l.value);
	free(l.out);
	close(l.fd);
	return 0;
}
