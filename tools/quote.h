/* SPDX-License-Identifier: MIT */
/* JSON strings for the tools. */
#ifndef WEIR_TOOLS_QUOTE_H
#define WEIR_TOOLS_QUOTE_H

#include <stdio.h>

/* Print `text` in quotes; what would upset a terminal is escaped in it too. */
static inline void quote(const char *text)
{
	putchar('"');
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			printf("\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

#endif
