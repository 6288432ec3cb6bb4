/* SPDX-License-Identifier: MIT */
/* Flat JSON objects: {"key":value,...}, values numbers, strings without
 * escapes, true, false, null.  It is what the peers print, no more. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "benchmarks/driver.h"

/* A copy of [from, to). */
static char *copy(const char *from, const char *to)
{
	char *s = strndup(from, (size_t)(to - from));

	if (!s)
		abort();
	return s;
}

/* A string at *p, which is left behind its closing quote; NULL if none. */
static char *take_string(const char **p)
{
	const char *start;

	if (**p != '"')
		return NULL;
	start = ++*p;
	while (**p && **p != '"' && **p != '\\')
		++*p;
	if (**p != '"')
		return NULL;
	return copy(start, (*p)++);
}

static bool take_value(const char **p, struct field *f)
{
	static const char *const words[] = {"true", "false", "null"};
	const char *start = *p;
	char *end;
	size_t i;

	if (**p == '"') {
		f->text = take_string(p);
		return f->text != NULL;
	}
	for (i = 0; i < 3; i++) {
		if (!strncmp(*p, words[i], strlen(words[i]))) {
			*p += strlen(words[i]);
			f->text = copy(start, *p);
			return true;
		}
	}
	if (!strchr("-0123456789", **p) || !**p)
		return false;
	f->number = strtod(*p, &end);
	f->is_number = end != *p;
	*p = end;
	f->text = copy(start, end);
	return f->is_number;
}

bool record_parse(const char *line, struct record *r)
{
	const char *p = line;
	struct field f, *grown;

	memset(r, 0, sizeof(*r));
	if (*p != '{')
		return false;
	do {
		p++;
		memset(&f, 0, sizeof(f));
		f.key = take_string(&p);
		if (!f.key || *p++ != ':' || !take_value(&p, &f))
			return false;
		grown = reallocarray(r->field, r->fields + 1, sizeof(f));
		if (!grown)
			abort();
		r->field = grown;
		r->field[r->fields++] = f;
	} while (*p == ',');
	if (*p != '}')
		return false;
	r->json = copy(line, p + 1);
	return p[1] == '\0' || p[1] == '\n';
}

static const struct field *find(const struct record *r, const char *key)
{
	size_t i;

	for (i = 0; i < r->fields; i++) {
		if (!strcmp(r->field[i].key, key))
			return &r->field[i];
	}
	return NULL;
}

double record_number(const struct record *r, const char *key)
{
	const struct field *f = find(r, key);

	return f && f->is_number ? f->number : NAN;
}

const char *record_text(const struct record *r, const char *key)
{
	const struct field *f = find(r, key);

	return f ? f->text : "";
}
