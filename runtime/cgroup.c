/* SPDX-License-Identifier: MIT */
/*
 * The memory limit that control groups put on this process.
 *
 * /proc/self/cgroup names the process's group in each hierarchy, and
 * /proc/self/mountinfo where hierarchies are mounted and from which group on
 * ("root" below).  A container often sees only a part of the tree: where the
 * group is not under the mount's root, the mount point itself is the group.
 * A limit anywhere on the way up binds, so all are read.
 *
 *	version 2	0::/path	fstype cgroup2	memory.max
 *	version 1	N:memory:/path	fstype cgroup	memory.limit_in_bytes
 *
 * Everything is read anew at each call: limits change while a process runs.
 */
#include "runtime/cgroup.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One hierarchy that may limit memory. */
struct hierarchy {
	bool v2;              /* which version it is */
	char group[PATH_MAX]; /* the process's group, from /proc/self/cgroup */
	char mount[PATH_MAX]; /* mount point */
	char top[PATH_MAX];   /* the group that is mounted there */
};

/* Is `word` among the comma-separated words of `list`? */
static bool has_word(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list; p; p = strchr(p, ',')) {
		if (*p == ',')
			p++;
		if (!strncmp(p, word, n) && (!p[n] || p[n] == ','))
			return true;
	}
	return false;
}

static FILE *open_under(const char *root, const char *path)
{
	char name[2 * PATH_MAX];

	if (snprintf(name, sizeof name, "%s%s", root, path) >= (int)sizeof name)
		return NULL;
	return fopen(name, "re");
}

static bool copy_path(char *to, const char *from)
{
	size_t n = strlen(from);

	if (n >= PATH_MAX)
		return false;
	memcpy(to, from, n + 1);
	return true;
}

/* The line of /proc/self/cgroup for the hierarchy; false if there is none. */
static bool find_group(const char *root, struct hierarchy *h)
{
	FILE *f = open_under(root, "/proc/self/cgroup");
	char *line = NULL;
	size_t size = 0;
	bool found = false;

	if (!f)
		return false;
	while (!found && getline(&line, &size, f) > 0) {
		char *controllers = strchr(line, ':');
		char *path = controllers ? strchr(controllers + 1, ':') : NULL;

		if (!path)
			continue;
		*controllers++ = '\0';
		*path++ = '\0';
		path[strcspn(path, "\n")] = '\0';
		if (h->v2 ? !strcmp(line, "0") && !*controllers
			  : has_word(controllers, "memory"))
			found = copy_path(h->group, path);
	}
	free(line);
	fclose(f);
	return found;
}

/* mountinfo writes blanks and backslashes as \ooo. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] &&
		    s[3]) {
			*to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 +
				       (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/*
 * Where the hierarchy is mounted.  A line of mountinfo is
 *	id parent major:minor root mount-point options [tags...] - type
 *	source super-options
 */
static bool find_mount(const char *root, struct hierarchy *h)
{
	FILE *f = open_under(root, "/proc/self/mountinfo");
	char *line = NULL;
	size_t size = 0;
	bool found = false;

	if (!f)
		return false;
	while (!found && getline(&line, &size, f) > 0) {
		char *tail = strstr(line, " - ");
		char *field[5], *rest = line, *type, *options;
		int n = 0;

		if (!tail)
			continue;
		*tail = '\0';
		tail += 3;
		while (n < 5 && (field[n] = strsep(&rest, " ")))
			n++;
		type = strsep(&tail, " ");
		strsep(&tail, " ");
		options = strsep(&tail, " \n");
		if (n < 5 || !type)
			continue;
		if (h->v2 ? strcmp(type, "cgroup2") != 0
			  : strcmp(type, "cgroup") != 0 || !options ||
				    !has_word(options, "memory"))
			continue;
		unescape(field[3]);
		unescape(field[4]);
		found = copy_path(h->top, field[3]) &&
			copy_path(h->mount, field[4]);
	}
	free(line);
	fclose(f);
	return found;
}

/* The limit in one file; SIZE_MAX for "max", no file or no number. */
static size_t read_limit(const char *root, const struct hierarchy *h,
			 const char *group)
{
	char name[2 * PATH_MAX + 32];
	unsigned long long v;
	size_t limit = SIZE_MAX;
	FILE *f;

	if (snprintf(name, sizeof name, "%s%s/%s", h->mount, group,
		     h->v2 ? "memory.max" : "memory.limit_in_bytes") >=
	    (int)sizeof name)
		return limit;
	f = open_under(root, name);
	if (!f)
		return limit;
	/* Version 1 says "none" with the greatest number of whole pages. */
	if (fscanf(f, "%llu", &v) == 1 && v < (unsigned long long)LONG_MAX / 2)
		limit = (size_t)v;
	fclose(f);
	return limit;
}

static size_t hierarchy_limit(const char *root, struct hierarchy *h)
{
	size_t n, limit, least = SIZE_MAX;
	char *group;

	if (!find_group(root, h) || !find_mount(root, h))
		return SIZE_MAX;
	/* The group as a path below the mount point. */
	n = strcmp(h->top, "/") ? strlen(h->top) : 0;
	group = h->group;
	if (strncmp(group, h->top, n) || (group[n] && group[n] != '/') ||
	    strstr(group, "/.."))
		*group = '\0';
	else
		group += n;
	for (;;) {
		char *slash = strrchr(group, '/');

		limit = read_limit(root, h, strcmp(group, "/") ? group : "");
		if (limit < least)
			least = limit;
		if (!slash)
			return least;
		*slash = '\0';
	}
}

size_t wr_cgroup_memory_limit(const char *root)
{
	/* On the heap: three paths are too much for a small thread stack. */
	struct hierarchy *h = malloc(sizeof *h);
	size_t v1, v2;

	if (!h)
		return SIZE_MAX;
	h->v2 = true;
	v2 = hierarchy_limit(root, h);
	h->v2 = false;
	v1 = hierarchy_limit(root, h);
	free(h);
	return v1 < v2 ? v1 : v2;
}
