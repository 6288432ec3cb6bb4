/* SPDX-License-Identifier: MIT */
/*
 * Run-time options, parsed by one table.
 *
 * Numbers are read by hand, not by strtod(), so that neither the locale nor
 * an exponent, a sign or "inf" changes what a string means.  Every limit of
 * the table is below 2^53: a double holds it exactly, and one pair of limits
 * serves all types.
 *
 * A struct belongs to one thread at a time.
 */
#include "runtime/options.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/check.h"

enum option_type {
	TYPE_SIZE,
	TYPE_UINT,
	TYPE_FRAC,
	TYPE_BOOL,
	TYPE_ENUM_BARRIER,
	TYPE_ENUM_STOP,
	TYPE_STR,
};

/* How wr_options_print() calls the types. */
static const char *const type_names[] = {
	[TYPE_SIZE] = "size",         [TYPE_UINT] = "number",
	[TYPE_FRAC] = "decimal",      [TYPE_BOOL] = "on|off",
	[TYPE_ENUM_BARRIER] = "word", [TYPE_ENUM_STOP] = "word",
	[TYPE_STR] = "text",
};

struct option {
	const char *key;       /* as the user writes it */
	enum option_type type; /* how the value is read */
	size_t offset;         /* of the field in struct wr_options */
	double min;            /* numbers: the least allowed */
	double max;            /* numbers: the greatest allowed */
	const char *help;      /* one line */
};

static const struct option table[] = {
#define X(field, key, type, dflt, lo, hi, help) \
	{key, TYPE_##type, offsetof(struct wr_options, field), lo, hi, help},
#include "runtime/options.def"
#undef X
};

#define X(field, key, type, dflt, lo, hi, help) \
	_Static_assert((hi) <= 1ull << 53, "limit of " key " in a double");
#include "runtime/options.def"
#undef X

#define LONGEST_KEY 32
#define X(field, key, type, dflt, lo, hi, help) \
	_Static_assert(sizeof key - 1 <= LONGEST_KEY, "distance() of " key);
#include "runtime/options.def"
#undef X

#define OPTIONS (sizeof table / sizeof *table)

static const char *const stop_names[] = {
	[WR_STOP_SIGNALS] = "signals",
	[WR_STOP_SAFEPOINTS] = "safepoints",
};

/* A value under way, for the parsers' error texts. */
struct item {
	const struct option *option; /* whose value it is */
	const char *text;            /* the value, NUL-terminated */
	const char *source;          /* where it was given */
};

static int bad_value(const struct item *i, const char *allowed)
{
	return wr_error(EINVAL, "%s: %s=%s: %s", i->source, i->option->key,
			i->text, allowed);
}

/* ---- Numbers ------------------------------------------------------------ */

/* "64", "32m", "1.5": what a limit or default looks like to the user. */
static void format_number(const struct option *o, double v, char *to,
			  size_t size)
{
	static const char suffix[] = "kmgt";
	uint64_t n = (uint64_t)v;
	int power = -1;

	if (o->type == TYPE_FRAC) {
		snprintf(to, size, "%g", v);
		return;
	}
	while (o->type == TYPE_SIZE && n && n % 1024 == 0 && power < 3) {
		n /= 1024;
		power++;
	}
	if (power < 0)
		snprintf(to, size, "%llu", (unsigned long long)n);
	else
		snprintf(to, size, "%llu%c", (unsigned long long)n,
			 suffix[power]);
}

static int check_limits(const struct item *i, double v)
{
	char lo[32], hi[32], allowed[128];

	if (v >= i->option->min && v <= i->option->max)
		return 0;
	format_number(i->option, i->option->min, lo, sizeof lo);
	format_number(i->option, i->option->max, hi, sizeof hi);
	snprintf(allowed, sizeof allowed, "must be from %s to %s", lo, hi);
	return bad_value(i, allowed);
}

/* Digits at *s; false if there are none or they pass 2^64. */
static bool read_digits(const char **s, uint64_t *v)
{
	const char *p = *s;

	*v = 0;
	if (!isdigit((unsigned char)*p))
		return false;
	for (; isdigit((unsigned char)*p); p++) {
		if (__builtin_mul_overflow(*v, 10, v) ||
		    __builtin_add_overflow(*v, (unsigned)(*p - '0'), v))
			return false;
	}
	*s = p;
	return true;
}

/* log2 of a size suffix's unit, -1 if it is none. */
static int suffix_shift(char c)
{
	switch (tolower((unsigned char)c)) {
	case 'k':
		return 10;
	case 'm':
		return 20;
	case 'g':
		return 30;
	case 't':
		return 40;
	}
	return -1;
}

static int parse_integer(const struct item *i, uint64_t *to)
{
	bool is_size = i->option->type == TYPE_SIZE;
	const char *s = i->text;
	uint64_t v;
	int shift = 0, err;

	if (!read_digits(&s, &v))
		goto bad;
	if (is_size && *s) {
		shift = suffix_shift(*s++);
		if (shift < 0)
			goto bad;
	}
	if (*s)
		goto bad;
	if (v > UINT64_MAX >> shift)
		v = UINT64_MAX; /* above every limit, as it should be */
	else
		v <<= shift;
	err = check_limits(i, (double)v);
	if (!err)
		*to = v;
	return err;
bad:
	return bad_value(i, is_size ? "must be a whole number of bytes with "
				      "or without a suffix k, m, g or t"
				    : "must be a whole number");
}

static int parse_fraction(const struct item *i, double *to)
{
	const char *s = i->text;
	uint64_t digits;
	double unit = 1;
	int err;

	if (!read_digits(&s, &digits))
		goto bad;
	if (*s == '.') {
		if (!isdigit((unsigned char)*++s))
			goto bad;
		/* Both sides of the division stay exact, so its result is the
		 * nearest double.  Digits past the tenth change no option. */
		for (; isdigit((unsigned char)*s); s++) {
			if (digits >= 1ull << 48 || unit >= 1e10)
				continue;
			digits = digits * 10 + (unsigned)(*s - '0');
			unit *= 10;
		}
	}
	if (*s)
		goto bad;
	err = check_limits(i, (double)digits / unit);
	if (!err)
		*to = (double)digits / unit;
	return err;
bad:
	return bad_value(i, "must be a decimal number such as 0.5");
}

/* ---- Words -------------------------------------------------------------- */

static int parse_bool(const struct item *i, bool *to)
{
	if (!strcmp(i->text, "on"))
		*to = true;
	else if (!strcmp(i->text, "off"))
		*to = false;
	else
		return bad_value(i, "must be on or off");
	return 0;
}

static int parse_barrier(const struct item *i, enum wr_barrier_kind *to)
{
	if (wr_barrier_parse(i->text, to))
		return bad_value(i, "must be auto, async, sync, sigbus, "
				    "mprotect or none");
	return 0;
}

static int parse_stop(const struct item *i, enum wr_stop_mode *to)
{
	for (size_t k = 0; k < sizeof stop_names / sizeof *stop_names; k++) {
		if (!strcmp(i->text, stop_names[k])) {
			*to = (enum wr_stop_mode)k;
			return 0;
		}
	}
	return bad_value(i, "must be signals or safepoints");
}

static int parse_string(const struct item *i, char **to)
{
	char *copy = strdup(i->text);

	if (!copy)
		return wr_error(ENOMEM, "%s: %s: out of memory", i->source,
				i->option->key);
	free(*to);
	*to = copy;
	return 0;
}

/* ---- The string --------------------------------------------------------- */

/* How many characters to insert, delete or replace to make b of a. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[LONGEST_KEY + 1];
	size_t lb = strlen(b);

	for (size_t j = 0; j <= lb; j++)
		row[j] = (unsigned)j;
	for (size_t i = 0; a[i]; i++) {
		unsigned diagonal = row[0]++;

		for (size_t j = 0; j < lb; j++) {
			unsigned best = diagonal + (a[i] != b[j]);

			diagonal = row[j + 1];
			if (diagonal + 1 < best)
				best = diagonal + 1;
			if (row[j] + 1 < best)
				best = row[j] + 1;
			row[j + 1] = best;
		}
	}
	return row[lb];
}

static int unknown_key(const char *key, const char *source)
{
	const char *nearest = NULL;
	unsigned least = 4; /* farther keys are not what was meant */

	for (size_t k = 0; k < OPTIONS && strlen(key) <= LONGEST_KEY; k++) {
		unsigned d = distance(key, table[k].key);

		if (d < least) {
			least = d;
			nearest = table[k].key;
		}
	}
	if (nearest)
		return wr_error(EINVAL,
				"%s: unknown option \"%s\"; did you mean "
				"\"%s\"? weir-info --options lists all",
				source, key, nearest);
	return wr_error(EINVAL,
			"%s: unknown option \"%s\"; weir-info --options lists "
			"all",
			source, key);
}

/* One "key=value", NUL-terminated and writable. */
static int parse_item(struct wr_options *o, char *text, const char *source)
{
	char *value = strchr(text, '=');
	struct item i = {.source = source};
	void *field;

	if (value)
		*value++ = '\0';
	for (size_t k = 0; k < OPTIONS; k++)
		if (!strcmp(text, table[k].key))
			i.option = &table[k];
	if (!i.option)
		return unknown_key(text, source);
	if (!value)
		return wr_error(EINVAL,
				"%s: option \"%s\" needs a value: %s=...",
				source, text, text);
	i.text = value;
	field = (char *)o + i.option->offset;
	switch (i.option->type) {
	case TYPE_SIZE:
	case TYPE_UINT:
		return parse_integer(&i, field);
	case TYPE_FRAC:
		return parse_fraction(&i, field);
	case TYPE_BOOL:
		return parse_bool(&i, field);
	case TYPE_ENUM_BARRIER:
		return parse_barrier(&i, field);
	case TYPE_ENUM_STOP:
		return parse_stop(&i, field);
	case TYPE_STR:
		return parse_string(&i, field);
	}
	return wr_error(EINVAL, "%s: option \"%s\" has no type", source, text);
}

int wr_options_parse(struct wr_options *o, const char *text, const char *source)
{
	char *copy, *next;
	int err = 0;

	if (!*text)
		return 0;
	copy = strdup(text);
	if (!copy)
		return wr_error(ENOMEM, "%s: out of memory", source);
	next = copy;
	while (!err && next) {
		char *item = strsep(&next, ",");

		if (*item)
			err = parse_item(o, item, source);
		else
			err = wr_error(EINVAL,
				       "%s: \"%s\": an option is missing at a "
				       "comma",
				       source, text);
	}
	free(copy);
	return err;
}

/* ---- Defaults and the list ---------------------------------------------- */

#define DEFAULT_SIZE(v) (v)
#define DEFAULT_UINT(v) (v)
#define DEFAULT_FRAC(v) (v)
#define DEFAULT_BOOL(v) (v)
#define DEFAULT_ENUM_BARRIER(v) (v)
#define DEFAULT_ENUM_STOP(v) (v)
#define DEFAULT_STR(v) strdup(v)

int wr_options_init(struct wr_options *o)
{
#define X(field, key, type, dflt, lo, hi, help) o->field = DEFAULT_##type(dflt);
#include "runtime/options.def"
#undef X
	for (size_t k = 0; k < OPTIONS; k++) {
		char **s = (char **)(void *)((char *)o + table[k].offset);

		if (table[k].type == TYPE_STR && !*s) {
			wr_options_fini(o);
			return wr_error(ENOMEM, "options: out of memory");
		}
	}
	return 0;
}

void wr_options_fini(struct wr_options *o)
{
	for (size_t k = 0; k < OPTIONS; k++) {
		char **s = (char **)(void *)((char *)o + table[k].offset);

		if (table[k].type == TYPE_STR) {
			free(*s);
			*s = NULL;
		}
	}
}

void wr_options_print(FILE *f)
{
	struct wr_options defaults;

	if (wr_options_init(&defaults))
		return;
	for (size_t k = 0; k < OPTIONS; k++) {
		const struct option *o = &table[k];
		const void *field = (const char *)&defaults + o->offset;
		const char *text = "";
		char number[32];

		switch (o->type) {
		case TYPE_SIZE:
		case TYPE_UINT:
			format_number(o, (double)*(const uint64_t *)field,
				      number, sizeof number);
			text = number;
			break;
		case TYPE_FRAC:
			format_number(o, *(const double *)field, number,
				      sizeof number);
			text = number;
			break;
		case TYPE_BOOL:
			text = *(const bool *)field ? "on" : "off";
			break;
		case TYPE_ENUM_BARRIER:
			text = wr_barrier_name(
				*(const enum wr_barrier_kind *)field);
			break;
		case TYPE_ENUM_STOP:
			text = stop_names[*(const enum wr_stop_mode *)field];
			break;
		case TYPE_STR:
			text = *(char *const *)field;
			break;
		}
		fprintf(f, "%-17s %-8s %-8s %s\n", o->key, type_names[o->type],
			*text ? text : "-", o->help);
	}
	wr_options_fini(&defaults);
}
