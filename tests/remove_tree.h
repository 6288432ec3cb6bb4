/* SPDX-License-Identifier: MIT */
/* Removing a made-up tree of files, without the programs of a system: tests
 * run in guests that have none. */
#ifndef WEIR_TESTS_REMOVE_TREE_H
#define WEIR_TESTS_REMOVE_TREE_H

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>

static inline int remove_one(const char *path, const struct stat *st, int kind,
			     struct FTW *where)
{
	(void)st;
	(void)kind;
	(void)where;
	return remove(path);
}

static inline void remove_tree(const char *root)
{
	cr_assert_eq(nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0, "%s",
		     root);
}

#endif
