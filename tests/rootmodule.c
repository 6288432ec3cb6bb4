/* SPDX-License-Identifier: MIT */
/* A shared object for test_roots: its data holds a root once it is told to.
 * Two pages of zeros behind it make the segment's end lie in memory that no
 * file backs. */
#include <stdint.h>

uintptr_t rootmodule_marker = 1;
char rootmodule_zeros[8192];

void rootmodule_set(uintptr_t marker);

void rootmodule_set(uintptr_t marker)
{
	rootmodule_marker = marker;
	rootmodule_zeros[sizeof(rootmodule_zeros) - 1] = 1;
}
