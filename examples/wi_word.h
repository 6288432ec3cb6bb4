/* SPDX-License-Identifier: MIT */
/*
 * Words of a text: runs of 2 to WORD_MAX ASCII letters, digits, '_' and bytes
 * above 127, letters in lower case; a longer run is cut to WORD_MAX.
 *
 * The text may be indexed several times over.  Words of copy k > 0 carry the
 * prefix "k:", so copies have no word in common and a query has the same
 * amount of work to do however many copies there are.
 */
#ifndef WEIR_EXAMPLES_WI_WORD_H
#define WEIR_EXAMPLES_WI_WORD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define WORD_MAX 32u
#define WORD_PREFIX_MAX 7u /* six digits and a colon */

struct word {
	uint32_t hash;   /* FNV-1a of text[0..length) */
	uint32_t length; /* bytes of text[], prefix included */
	uint32_t offset; /* where the word begins in the scanned text */
	uint32_t prefix; /* bytes of the prefix in text[] */
	uint32_t seed;   /* hash of the prefix */
	char text[WORD_PREFIX_MAX + WORD_MAX + 1]; /* not ended by a zero */
};

/* What an ASCII byte becomes in a word; 0: it ends one. */
static const unsigned char word_letter[128] = {
	['0'] = '0', '1',         '2', '3', '4', '5', '6', '7', '8',
	'9',         ['A'] = 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h',
	'i',         'j',         'k', 'l', 'm', 'n', 'o', 'p', 'q',
	'r',         's',         't', 'u', 'v', 'w', 'x', 'y', 'z',
	['_'] = '_', ['a'] = 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h',
	'i',         'j',         'k', 'l', 'm', 'n', 'o', 'p', 'q',
	'r',         's',         't', 'u', 'v', 'w', 'x', 'y', 'z',
};

static inline unsigned char word_byte(char c)
{
	unsigned char b = (unsigned char)c;

	return b > 127 ? b : word_letter[b];
}

static inline uint32_t word_mix(uint32_t hash, unsigned char c)
{
	return (hash ^ c) * 16777619u;
}

/* Prepare *w for words of copy `copy`, at most 999999. */
static inline void word_start(struct word *w, uint32_t copy)
{
	uint32_t i;
	int n = copy ? snprintf(w->text, WORD_PREFIX_MAX + 1, "%u:", copy) : 0;

	w->prefix = (uint32_t)n;
	w->seed = 2166136261u;
	for (i = 0; i < w->prefix; i++)
		w->seed = word_mix(w->seed, (unsigned char)w->text[i]);
}

/* The next word at or after *position, which moves on; false at the end. */
static inline bool word_next(struct word *w, const char *text, uint32_t length,
			     uint32_t *position)
{
	uint32_t i = *position, n, hash;
	unsigned char c;

	do {
		while (i < length && !word_byte(text[i]))
			i++;
		w->offset = i;
		hash = w->seed;
		n = w->prefix;
		while (i < length && (c = word_byte(text[i])) != 0) {
			if (n < w->prefix + WORD_MAX) {
				w->text[n++] = (char)c;
				hash = word_mix(hash, c);
			}
			i++;
		}
		*position = i;
		if (w->offset == length)
			return false;
	} while (n < w->prefix + 2);
	w->length = n;
	w->hash = hash;
	return true;
}

#endif
