/* SPDX-License-Identifier: MIT */
/* What this takes of jemalloc's interface, which is the program's: its header
 * need not be there. */
#ifndef WEIR_COMPAT_REDIS_EXTENT_HOOKS_H
#define WEIR_COMPAT_REDIS_EXTENT_HOOKS_H

#include <stdbool.h>
#include <stddef.h>

/* As in <jemalloc/jemalloc.h>, since 5.0. */
struct extent_hooks {
	void *(*alloc)(struct extent_hooks *hooks, void *at, size_t size,
		       size_t alignment, bool *zero, bool *commit,
		       unsigned arena);
	bool (*dalloc)(struct extent_hooks *hooks, void *p, size_t size,
		       bool committed, unsigned arena);
	void (*destroy)(struct extent_hooks *hooks, void *p, size_t size,
			bool committed, unsigned arena);
	bool (*commit)(struct extent_hooks *hooks, void *p, size_t size,
		       size_t offset, size_t length, unsigned arena);
	bool (*decommit)(struct extent_hooks *hooks, void *p, size_t size,
			 size_t offset, size_t length, unsigned arena);
	bool (*purge_lazy)(struct extent_hooks *hooks, void *p, size_t size,
			   size_t offset, size_t length, unsigned arena);
	bool (*purge_forced)(struct extent_hooks *hooks, void *p, size_t size,
			     size_t offset, size_t length, unsigned arena);
	bool (*split)(struct extent_hooks *hooks, void *p, size_t size,
		      size_t size_a, size_t size_b, bool committed,
		      unsigned arena);
	bool (*merge)(struct extent_hooks *hooks, void *a, size_t size_a,
		      void *b, size_t size_b, bool committed, unsigned arena);
};

typedef int mallctl_fn(const char *name, void *old, size_t *old_size, void *new,
		       size_t new_size);

#endif
