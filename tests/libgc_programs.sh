#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Debian's own programs on weir's libgc.so.1, by the launcher: what they print
# is what they print on Debian's libgc, byte for byte.  Guile with every pause
# verified and freed objects poisoned as well.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"
. "$WEIR_SRCDIR/tests/libgc_run.sh"

libgc_start libgc_programs
programs=$WEIR_SRCDIR/tests/libgc_suite/guile
mkdir files

tap_run "the launcher's library is what a program gets" sh -c '
	"$WEIR_BUILDDIR/weir-libgc" ldd "$(command -v guile || command -v w3m)" |
		grep "libgc.so.1 => $WEIR_LIBGC_DIR/"'
tap_run "the launcher says what is missing" sh -c '
	WEIR_LIBGC_DIR=/nowhere "$WEIR_BUILDDIR/weir-libgc" true 2>&1 |
		grep "there is no /nowhere/libgc.so.1"'

if have guile "Guile"; then
	for p in alloc weak threads fork; do
		same "Guile: $p" guile --no-auto-compile "$programs/$p.scm"
		cp expected "$p.expected"
		verified "Guile: $p" guile --no-auto-compile "$programs/$p.scm"
	done
	tap_run "Guile: nothing said NO" sh -c '! grep NO *.expected'
	module=$(find /usr/share/guile/3.0 -name psyntax-pp.scm | head -n 1)
	if [ -n "$module" ]; then
		timeout 300 guile --no-auto-compile "$programs/compile.scm" \
			"$module" expected.go >/dev/null 2>&1
		weir guile --no-auto-compile "$programs/compile.scm" \
			"$module" got.go >got 2>&1
		tap_run "Guile: psyntax-pp compiles to the same bytes" sh -c '
			cat got; [ -s expected.go ] && cmp expected.go got.go'
	fi
	# A type of its own, in C, with a mark procedure.
	if ${PKG_CONFIG:-pkg-config} --exists guile-3.0; then
		# shellcheck disable=SC2046,SC2086 # words
		tap_run "Guile: a program with smobs compiles" $CC -O1 \
			"$programs/smob.c" \
			$(${PKG_CONFIG:-pkg-config} --cflags --libs guile-3.0) -o smob
		same "Guile: smobs with mark procedures" ./smob
		verified "Guile: smobs with mark procedures" ./smob
		tap_run "Guile: smobs are marked and freed" \
			sh -c '! grep NO got'
	else
		tap_skip "Guile: smobs with mark procedures" \
			"guile-3.0-dev is not installed"
	fi
	# libgc's variables.
	GC_DONT_GC=1
	export GC_DONT_GC
	same "GC_DONT_GC: no collection" guile --no-auto-compile -c '(gc)
		(do ((i 0 (+ i 1))) ((= i 300000)) (list i i))
		(display (assq-ref (gc-stats) (quote gc-times))) (newline)'
	unset GC_DONT_GC
	tap_run "GC_PRINT_STATS: a line for each collection" sh -c '
		GC_PRINT_STATS=1 "$WEIR_BUILDDIR/weir-libgc" guile \
			--no-auto-compile -c "(gc) (gc)" 2>&1 | grep " gc 2 "'
	tap_run "GC_MAXIMUM_HEAP_SIZE: no more than that" sh -c '
		! GC_MAXIMUM_HEAP_SIZE=64m "$WEIR_BUILDDIR/weir-libgc" guile \
			--no-auto-compile -c "(define v (make-vector 20000000 0))
				(display (vector-length v))" | grep 20000000'
	tap_run "GC_INITIAL_HEAP_SIZE: no collection below" sh -c '
		[ "$(GC_INITIAL_HEAP_SIZE=256m "$WEIR_BUILDDIR/weir-libgc" \
			guile --no-auto-compile -c "
			(do ((i 0 (+ i 1))) ((= i 1000000)) (list i i))
			(display (assq-ref (gc-stats) (quote gc-times)))")" \
			-eq 0 ]'
	tap_run "Guile: hooks and statistics" "$WEIR_BUILDDIR/weir-libgc" \
		guile --no-auto-compile "$programs/hooks.scm"
fi

if have w3m "w3m"; then
	awk 'BEGIN {
		print "<html><body><h1>Rows</h1><table border=1>"
		for (i = 0; i < 4000; i++)
			printf "<tr><td>%d<td><b>%d</b><td><a href=\"#%d\">" \
				"link</a><td><ul><li>x<li>y %d</ul>\n",
				i, i * i, i, i % 7
		print "</table><p>end</body></html>"
	}' >page.html
	same "w3m: a large page" w3m -dump page.html
fi

if have mmv "mmv"; then
	for i in 1 2 3 4 5 6 7 8 9; do
		echo "$i" >"files/a$i.txt"
	done
	same "mmv: what it would do" mmv -n 'files/a*.txt' 'files/b#1.text'
	tap_run "mmv: renamed" sh -c '"$WEIR_BUILDDIR/weir-libgc" mmv \
		"files/a*.txt" "files/b#1.text" && [ "$(cat files/b7.text)" = 7 ]'
fi

if have debfoster "debfoster"; then
	same "debfoster: what depends on libc6" debfoster -d libc6
fi

if have neko "neko"; then
	same "neko: its version" neko -version
	if have nekoc "neko: a program"; then
		cp "$WEIR_SRCDIR/tests/libgc_suite/program.neko" .
		weir nekoc program.neko >got 2>&1
		same "neko: a program" neko program.n
	fi
fi
tap_done
