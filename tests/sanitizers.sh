#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Build the unit tests twice more, with the address and undefined-behaviour
# sanitizers together and with the thread sanitizer, all assertions on, and run
# them.  Every test of every build is one TAP line.  A canary with a planted bug
# for each sanitizer shows that it would have seen one.
#
# WEIR_SANITIZERS="address undefined" in the environment picks others.  What a
# test does many times it does a third as often (tests/short.h);
# WEIR_TEST_SHORT="" has it do all of it.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"

if [ "${WEIR_SANITIZER:-no}" != no ]; then
	tap_skip "sanitizer builds" "this build has a sanitizer of its own"
	tap_done
	exit 0
fi

# The make that runs us is not to pass its targets and job slots on.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL
jobs=$(nproc 2>/dev/null || echo 1)
WEIR_TEST_SHORT=${WEIR_TEST_SHORT-1}
export WEIR_TEST_SHORT
top=$WEIR_BUILDDIR/sanitize
mkdir -p "$top"

# Where to configure from: a configured source tree cannot be built elsewhere,
# so that one is copied as it would be released.
source=$WEIR_SRCDIR
if [ -f "$WEIR_SRCDIR/config.status" ]; then
	source=$top/source
	rm -rf "$source"
	if ! $MAKE -C "$WEIR_BUILDDIR" distdir distdir=sanitize/source \
		>"$top/distdir.log" 2>&1; then
		cat "$top/distdir.log" >&2
		tap_not_ok "copy of the sources"
		tap_done
		exit 0
	fi
fi

# A report must end the test that caused it: Criterion sees a crash.
ASAN_OPTIONS=abort_on_error=1:detect_stack_use_after_return=0
UBSAN_OPTIONS=abort_on_error=1:print_stacktrace=1
TSAN_OPTIONS=abort_on_error=1:halt_on_error=1:die_after_fork=0
export ASAN_OPTIONS UBSAN_OPTIONS TSAN_OPTIONS

canary_source()
{
	cat <<'EOF'
#include <pthread.h>
#include <stdlib.h>
static int shared;
static void *bump(void *arg)
{
	for (int i = 0; i < 100000; i++)
		shared++;
	return arg;
}
int main(int argc, char **argv)
{
	char *volatile p = malloc(10);
	volatile int shift = 40 + argc;
	pthread_t t;

	(void)argv;
	if (BUG == 1)
		p[9 + argc] = 1;
	if (BUG == 2)
		shared = 1 << shift;
	if (BUG == 3) {
		pthread_create(&t, NULL, bump, NULL);
		bump(NULL);
		pthread_join(t, NULL);
	}
	free(p);
	return 0;
}
EOF
}

# run_fixed COMMAND...: ThreadSanitizer cannot place its shadow under some
# address randomizations.
run_fixed()
{
	if setarch -R true 2>/dev/null; then
		setarch -R "$@"
	else
		"$@"
	fi
}

# The sanitizer lets a clean program pass and stops one with a bug.
canary()
{
	case $1 in
	address) bugs=1 ;;
	undefined) bugs=2 ;;
	address+undefined) bugs="1 2" ;;
	thread) bugs=3 ;;
	esac
	canary_source >"$top/canary.c"
	for b in 0 $bugs; do
		$CC -g -O0 -pthread "-fsanitize=$(echo "$1" | tr + ,)" \
			-fno-sanitize-recover=all "-DBUG=$b" \
			-o "$top/canary-$1-$b" "$top/canary.c" || return 1
	done
	run_fixed "$top/canary-$1-0" || return 1
	for b in $bugs; do
		if run_fixed "$top/canary-$1-$b"; then
			return 1
		fi
	done
}

# Configure and compile in $dir.
build()
{
	if [ ! -f "$dir/Makefile" ]; then
		(cd "$dir" && "$source/configure" --disable-shared \
			--enable-sanitizer="$1" --enable-checking=2 \
			--enable-werror CFLAGS='-g1 -O1') || return 1
	fi
	$MAKE -C "$dir" -j "$jobs" unit-tests
}

# Repeat the results of a build's unit tests as ours.  The driver's lines in
# the logs are "PASS: tests/test_x 12 - suite::test (0.01s)"; that a test could
# print one too is why they are counted against the total.
repeat_results()
{
	for trs in "$dir"/tests/*.trs; do
		[ -f "$trs" ] || continue
		program=$(basename "$trs" .trs)
		log=${trs%.trs}.log
		awk -v who="$1: $program " -v start=": tests/$program " '
			{ at = index($0, start) }
			!at || substr($0, 1, at - 1) !~ /^[A-Z]*$/ { next }
			{
				result = substr($0, 1, at - 1)
				what = substr($0, at + length(start))
				sub(/^[0-9]* *- */, "", what)
				sub(/ *\([0-9.]*s\)/, "", what)
				sub(/ *#/, " #", what)
				print result == "PASS" || result == "SKIP" ? \
					"ok 0 - " who what : "not ok 0 - " who what
			}' "$log" >>"$dir/results"
		if ! grep -q '^:global-test-result: \(PASS\|SKIP\)' "$trs"; then
			cat "$log" >&2
		fi
	done
	told=$(wc -l <"$dir/results")
	total=$(sed -n 's/^# TOTAL: *//p' "$dir/test-suite.log")
	tap_take "$dir/results"
	if [ "$told" -eq 0 ] || [ "$told" != "$total" ]; then
		tap_not_ok "$1: $told results told, $total counted"
	fi
}

# A minute of the fuzzer of snapshot files, beside what comes next.
fuzz_begin()
{
	fuzz=$dir/tests/test_image_fuzz
	[ -x "$fuzz" ] || return
	{
		LSAN_OPTIONS=suppressions=$WEIR_SRCDIR/tests/leaks.supp \
			WEIR_FUZZ_SECONDS=60 nice -n 19 timeout -k 10 300 "$fuzz" \
			>"$top/fuzz.log" 2>&1
		echo $? >"$top/fuzz.status"
	} &
}

fuzz_end()
{
	[ -x "${fuzz:-}" ] || return
	wait
	tap_run "a minute of the fuzzer of snapshot files under $fuzzed" \
		sh -c "cat '$top/fuzz.log'; test \$(cat '$top/fuzz.status') = 0"
}

for sanitizer in ${WEIR_SANITIZERS:-address+undefined thread}; do
	dir=$top/$sanitizer
	mkdir -p "$dir"
	tap_run "$sanitizer: catches a planted bug" canary "$sanitizer"
	tap_run "$sanitizer: builds" build "$sanitizer" || continue
	rm -f "$dir/test-suite.log" "$dir"/tests/*.trs "$dir"/tests/*.log \
		"$dir/results"
	# Criterion runs a binary's tests side by side, the runner that takes
	# its place under the thread sanitizer does not: there binaries are.
	side=1
	[ "$sanitizer" != thread ] || side=$jobs
	timeout -k 10 1800 $MAKE -C "$dir" -j "$side" check-TESTS \
		WEIR_SCRIPT_TESTS= >"$dir/check.log" 2>&1
	if [ ! -f "$dir/test-suite.log" ]; then
		tap_not_ok "$sanitizer: the tests end within 1800 seconds"
		tail -n 50 "$dir/check.log" >&2
		continue
	fi
	repeat_results "$sanitizer"
	case $sanitizer in
	address*)
		fuzzed=$sanitizer
		fuzz_begin
		;;
	esac
done
fuzz_end
tap_done
