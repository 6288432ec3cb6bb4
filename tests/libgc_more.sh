#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Larger programs of Debian's on weir's libgc.so.1: ECL, Guile 2.2, nix,
# asymptote, Crystal, LilyPond, Macaulay2, Inkscape.  What they print and write
# is what it is on Debian's libgc, byte for byte but for dates; and once more, a
# smaller input, with every pause verified.  `make libgc-check` runs it; it is
# no part of `make check`.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"
. "$WEIR_SRCDIR/tests/libgc_run.sh"

packages="ecl guile-2.2 nix-bin asymptote crystal lilypond macaulay2 inkscape"
suite=$WEIR_SRCDIR/tests/libgc_suite
libgc_start libgc_more

# same_files WHAT COMMAND...: the same, and the files that it leaves in out/,
# without the lines that have a date.
same_files()
{
	files_what=$1
	shift
	for side in debian weir; do
		rm -rf out
		mkdir out
		if [ $side = debian ]; then
			expect "$@"
		else
			got_it "$files_what" "$@"
		fi
		rm -rf "out.$side"
		mv out "out.$side"
	done
	for file in out.debian/*; do
		name=${file#out.debian/}
		for side in debian weir; do
			grep -av -e CreationDate -e '^/\*      Date: ' \
				"out.$side/$name" >"$side.bytes"
		done
		tap_run "$files_what: the same $name" sh -c '
			[ -s debian.bytes ] && cmp debian.bytes weir.bytes'
	done
}

# Guile 2.2: the programs for 3.0, and the compiler on its largest module.
if have guile-2.2 "Guile 2.2"; then
	for p in alloc weak threads fork; do
		same "Guile 2.2: $p" \
			guile-2.2 --no-auto-compile "$suite/guile/$p.scm"
		tap_run "Guile 2.2: $p did not say NO" sh -c '! grep NO expected'
		verified "Guile 2.2: $p" \
			guile-2.2 --no-auto-compile "$suite/guile/$p.scm"
	done
	tap_run "Guile 2.2: hooks and statistics" "$WEIR_BUILDDIR/weir-libgc" \
		guile-2.2 --no-auto-compile "$suite/guile/hooks.scm"
	module=$(find /usr/share/guile/2.2 -name psyntax-pp.scm | head -n 1)
	[ -z "$module" ] || same_files "Guile 2.2: compiling psyntax-pp" sh -c \
		"guile-2.2 --no-auto-compile '$suite/guile/compile.scm' \
			'$module' out/psyntax.go >/dev/null && echo compiled"
fi

if have ecl "ECL"; then
	for p in alloc weak threads; do
		same "ECL: $p" ecl --norc --shell "$suite/ecl/$p.lisp"
		tap_run "ECL: $p did not say NO" sh -c '! grep NO expected'
		SCALE=4
		export SCALE
		verified "ECL: $p" ecl --norc --shell "$suite/ecl/$p.lisp"
		unset SCALE
	done
	if have gcc "ECL: compiling"; then
		NAME=out/large
		export NAME
		same_files "ECL: compiling a file of 300 functions" \
			ecl --norc --shell "$suite/ecl/compile.lisp"
		FUNCTIONS=20
		export FUNCTIONS
		mkdir -p out
		verified "ECL: compiling" \
			ecl --norc --shell "$suite/ecl/compile.lisp"
		unset NAME FUNCTIONS
	fi
fi

# No store but one of its own; collections from the start.
if have nix-instantiate "nix"; then
	for v in STORE STATE LOG CONF; do
		export "NIX_${v}_DIR=$work/nix/$v"
	done
	GC_INITIAL_HEAP_SIZE=1m
	export GC_INITIAL_HEAP_SIZE
	mkdir -p files
	for i in 1 2 3 4 5 6; do
		seq "$i" 500 >"files/$i"
	done
	eval_nix="nix-instantiate --eval --strict --arg size"
	# shellcheck disable=SC2086 # words of a command
	{
		same "nix: evaluating" $eval_nix 1 "$suite/nix/eval.nix"
		same "nix: JSON" $eval_nix 2 --json "$suite/nix/eval.nix"
		verified "nix: evaluating" $eval_nix 20 "$suite/nix/eval.nix"
	}
	in_coroutines="rm -rf nix && $eval_nix"
	arguments="--arg path $work/files $suite/nix/path.nix"
	same "nix: functions that run in coroutines" \
		sh -c "$in_coroutines 1 $arguments"
	verified "nix: functions that run in coroutines" \
		sh -c "$in_coroutines 5 $arguments"
	unset GC_INITIAL_HEAP_SIZE
	same "nix: with the heap that it asks for" \
		nix-instantiate --eval --strict --arg size 1 "$suite/nix/eval.nix"
fi

if have asy "asymptote"; then
	same_files "asymptote: a large picture" \
		asy -noV -o out/drawn "$suite/asy/draw.asy"
	mkdir -p out
	verified "asymptote: a picture" \
		asy -noV -u scale=4 -o out/drawn "$suite/asy/draw.asy"
fi

if have crystal "Crystal"; then
	CRYSTAL_CACHE_DIR=$work/cache
	export CRYSTAL_CACHE_DIR
	for p in alloc fibers weak; do
		same_files "Crystal: building $p" sh -c "rm -rf cache &&
			crystal build -o out/$p '$suite/crystal/$p.cr' &&
			echo built"
		[ -x "out.weir/$p" ] || continue
		same "Crystal: $p" "out.weir/$p"
		tap_run "Crystal: $p did not say NO" sh -c '! grep NO expected'
		verified "Crystal: $p" "out.weir/$p" 10
		cp "out.weir/$p" .
	done
	same_files "Crystal: compiling much of its library" sh -c "rm -rf cache &&
		crystal build --cross-compile --target x86_64-pc-linux-gnu \
			-o out/much '$suite/crystal/compile.cr'"
	# Small heaps: a collection at every turn, in the middle of switches.
	WEIR_OPTIONS=heap-min=1m,growth=0.05
	export WEIR_OPTIONS
	same "Crystal: fibers, many collections" ./fibers 4
	unset WEIR_OPTIONS
	verified "Crystal: building" sh -c "rm -rf cache && mkdir -p out &&
		crystal build -o out/weak '$suite/crystal/weak.cr' && echo built"
fi

if have lilypond "LilyPond"; then
	same_files "LilyPond: a score" lilypond -l WARNING --ps -o out/score \
		"$suite/lilypond/score.ly"
	SCALE=10
	export SCALE
	mkdir -p out
	verified "LilyPond: a score" sh -c "lilypond -l WARNING --ps \
		-o out/score '$suite/lilypond/score.ly' && cat out/score.ps"
	unset SCALE
fi

if have M2 "Macaulay2"; then
	same "Macaulay2: algebra" M2 --script "$suite/macaulay2/algebra.m2"
	SCALE=5
	export SCALE
	verified "Macaulay2: algebra" M2 --script "$suite/macaulay2/algebra.m2"
	unset SCALE
fi

if have inkscape "Inkscape"; then
	awk 'BEGIN {
		print "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"600\"" \
			" height=\"600\">"
		for (i = 0; i < 400; i++)
			printf "<path d=\"M %d %d C %d 10 300 %d %d %d Z\" " \
				"fill=\"#%06x\" opacity=\".5\"/>\n", i, 600 - i,
				i * 2, i, 600 - i, (i * 37) % 600, i * 41231
		print "</svg>"
	}' >picture.svg
	same_files "Inkscape: a picture" sh -c "inkscape \
		--export-filename=out/picture.png picture.svg >/dev/null &&
		echo exported"
	mkdir -p out
	verified "Inkscape: a picture" sh -c "inkscape \
		--export-filename=out/picture.png picture.svg >/dev/null &&
		cksum <out/picture.png"
fi

tap_done
echo "# all of them: apt-get install -y --no-install-recommends $packages"
[ "$tap_failed" = 0 ]
