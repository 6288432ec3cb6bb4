/* SPDX-License-Identifier: MIT */
/* The checker that other tests lean on: what it must take and must not. */
#include <criterion/criterion.h>
#include <string.h>

#include "tests/json.h"

Test(json, good)
{
	static const char *const good[] = {
		"0",
		"-0",
		"12.5",
		"1e9",
		"-1.25E-3",
		"\"\"",
		"\"a\\\"b\\\\c\\u00e9\\n\"",
		"true",
		"false",
		"null",
		"[]",
		"{}",
		" [ 1 , \"a\" , [ ] , { } ] \n",
		"{\"a\":1,\"b\":{\"c\":[null,true]}}",
	};

	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		cr_expect_null(json_check(good[i], NULL), "%s: %s", good[i],
			       json_check(good[i], NULL));
}

Test(json, bad)
{
	static const char *const bad[] = {
		"",           " ",       "[",     "]",         "[1",
		"[1,",        "[1,]",    "[,1]",  "[1 2]",     "{",
		"{\"a\"",     "{\"a\":", "{a:1}", "{1:1}",     "{\"a\":}",
		"{\"a\":1,}", "01",      "1.",    ".5",        "+1",
		"1e",         "-",       "nan",   "inf",       "TRUE",
		"'a'",        "\"",      "\"a",   "\"\\x\"",   "\"\\u12g4\"",
		"\"\n\"",     "1 2",     "[] []", "[}",        "{]",
		"// c\n1",    "tru",     "[1}",   "{\"a\" 1}",
	};

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		cr_expect(json_check(bad[i], NULL), "%s", bad[i]);
}

Test(json, says_where)
{
	size_t at;

	cr_assert(json_check("[1, x]", &at));
	cr_assert_eq(at, 4);
}

Test(json, depth_is_bounded)
{
	char deep[20001];

	memset(deep, '[', 10000);
	memset(deep + 10000, ']', 10000);
	deep[20000] = '\0';
	cr_assert(json_check(deep, NULL));
}

Test(json, count)
{
	cr_assert_eq(json_count("abcabcab", "ab"), 3);
	cr_assert_eq(json_count("abc", "x"), 0);
}
