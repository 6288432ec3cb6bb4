/* SPDX-License-Identifier: MIT */
/*
 * A strict JSON checker: recursive descent over RFC 8259, no extension.
 * Each function returns NULL and advances *s past what it read, or returns
 * the complaint and leaves *s at the fault.
 */
#include "tests/json.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEEPEST 64

static const char *check_value(const char **s, int depth);

static void skip_space(const char **s)
{
	*s += strspn(*s, " \t\r\n");
}

static const char *check_string(const char **s)
{
	for (++*s; **s != '"'; ++*s) {
		if ((unsigned char)**s < 32)
			return "control character or end in a string";
		if (**s != '\\')
			continue;
		++*s;
		if (**s == 'u') {
			for (int i = 0; i < 4; i++)
				if (!isxdigit((unsigned char)*++*s))
					return "bad \\u escape";
		} else if (!**s || !strchr("\"\\/bfnrt", **s)) {
			return "bad escape";
		}
	}
	++*s;
	return NULL;
}

static const char *check_digits(const char **s)
{
	if (!isdigit((unsigned char)**s))
		return "a digit is missing";
	while (isdigit((unsigned char)**s))
		++*s;
	return NULL;
}

static const char *check_number(const char **s)
{
	const char *fault;

	if (**s == '-')
		++*s;
	if (**s == '0')
		++*s;
	else if ((fault = check_digits(s)))
		return fault;
	if (**s == '.') {
		++*s;
		if ((fault = check_digits(s)))
			return fault;
	}
	if (**s == 'e' || **s == 'E') {
		++*s;
		if (**s == '+' || **s == '-')
			++*s;
		if ((fault = check_digits(s)))
			return fault;
	}
	return NULL;
}

/* An object if close is '}', else an array. */
static const char *check_container(const char **s, char close, int depth)
{
	const char *fault;

	if (depth > DEEPEST)
		return "nested too deeply";
	++*s;
	skip_space(s);
	if (**s == close) {
		++*s;
		return NULL;
	}
	for (;;) {
		if (close == '}') {
			skip_space(s);
			if (**s != '"')
				return "a key is missing";
			if ((fault = check_string(s)))
				return fault;
			skip_space(s);
			if (**s != ':')
				return "a colon is missing";
			++*s;
		}
		if ((fault = check_value(s, depth)))
			return fault;
		if (**s == close) {
			++*s;
			return NULL;
		}
		if (**s != ',')
			return "a comma or closing bracket is missing";
		++*s;
	}
}

static const char *check_value(const char **s, int depth)
{
	static const char *const words[] = {"true", "false", "null"};
	const char *fault = "a value is missing";

	skip_space(s);
	if (**s == '"') {
		fault = check_string(s);
	} else if (**s == '{') {
		fault = check_container(s, '}', depth + 1);
	} else if (**s == '[') {
		fault = check_container(s, ']', depth + 1);
	} else if (**s == '-' || isdigit((unsigned char)**s)) {
		fault = check_number(s);
	} else {
		for (int i = 0; i < 3; i++) {
			size_t n = strlen(words[i]);

			if (!strncmp(*s, words[i], n)) {
				*s += n;
				fault = NULL;
				break;
			}
		}
	}
	if (!fault)
		skip_space(s);
	return fault;
}

const char *json_check(const char *text, size_t *at)
{
	const char *s = text;
	const char *fault = check_value(&s, 0);

	if (!fault && *s)
		fault = "something follows the value";
	if (at)
		*at = (size_t)(s - text);
	return fault;
}

char *json_read_file(const char *name)
{
	FILE *f = fopen(name, "re");
	char *text = NULL;
	size_t size = 0, room = 0;

	if (!f)
		return NULL;
	do {
		if (size + 1 >= room) {
			room = room ? 2 * room : 65536;
			text = realloc(text, room);
			if (!text)
				abort();
		}
		size += fread(text + size, 1, room - 1 - size, f);
	} while (!feof(f) && !ferror(f));
	fclose(f);
	text[size] = '\0';
	return text;
}

size_t json_count(const char *text, const char *what)
{
	size_t n = 0;

	for (const char *s = text; (s = strstr(s, what)); s += strlen(what))
		n++;
	return n;
}
