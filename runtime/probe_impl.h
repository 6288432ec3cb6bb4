/* SPDX-License-Identifier: MIT */
/* Between the files of the probe table. */
#ifndef WEIR_RUNTIME_PROBE_IMPL_H
#define WEIR_RUNTIME_PROBE_IMPL_H

#include "runtime/probe.h"

#define X(function, name, use) \
	void wr_probe_##function(const char *root, struct wr_probe_result *r);
#include "runtime/probe.def"
#undef X

void wr_probe_yes(struct wr_probe_result *r, const char *detail, ...)
	__attribute__((format(printf, 2, 3)));
void wr_probe_no(struct wr_probe_result *r, const char *cause,
		 const char *cure);

/* First line of root/path without its newline; false: cannot be read. */
bool wr_probe_read(const char *root, const char *path, char *text, size_t size);

#endif
