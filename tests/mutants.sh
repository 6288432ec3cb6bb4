#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Does the torture program find bugs?  A library with bugs to choose from is
# built (configure --enable-mutants), and each of them must be found twice: by
# the objects' own checks, and by the verifier.  Without one the same command
# must pass.  A crash or a hang is not a find.
#
# MUTANTS_TORTURE names a torture program of such a build, to save building.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"

seconds=6
limit=20 # for a mutant to be found, all tries together
top=$WEIR_BUILDDIR/mutants
torture=${MUTANTS_TORTURE:-$top/build/tests/torture/torture}
log=$(mktemp "${TMPDIR:-/tmp}/weir-mutants.XXXXXX")
trap 'rm -f "$log"' EXIT

if [ "${WEIR_SANITIZER:-no}" != no ]; then
	tap_skip "mutants" "this build has a sanitizer of its own"
	tap_done
	exit 0
fi

# The make that runs us is not to pass its targets and job slots on.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL WEIR_OPTIONS WEIR_MUTANT

build()
{
	source=$WEIR_SRCDIR
	mkdir -p "$top/build" || return 1
	# A source tree that is configured cannot be built elsewhere: copy it.
	if [ -f "$source/config.status" ]; then
		source=$top/source
		rm -rf "$source"
		$MAKE -C "$WEIR_BUILDDIR" distdir distdir=mutants/source ||
			return 1
	fi
	(cd "$top/build" && "$source/configure" --enable-mutants \
		--disable-shared --without-criterion) || return 1
	$MAKE -C "$top/build" -j "$(nproc 2>/dev/null || echo 1)" \
		tests/torture/torture
}

# attempt VERIFY SEED MUTANT: born-black=on is what born-white contradicts,
# and fork is for other bugs.
attempt()
{
	WEIR_MUTANT=$3 timeout -k 5 "$limit" "$torture" --seconds "$seconds" \
		--seed "$2" --live 16m --without fork,pressure --options \
		"verify=$1,poison=on,heap-min=1m,stop=signals,born-black=on,delay=300" \
		>"$log" 2>&1
}

# found MUTANT VERIFY PATTERN
found()
{
	end=$(($(date +%s) + limit))
	for seed in 1 2 3; do
		if attempt "$2" "$seed" "$1"; then
			echo "seed $seed: not found in $seconds seconds"
		elif grep -E "$3" "$log"; then
			return 0
		else
			echo "seed $seed: another failure"
			tail -n 5 "$log"
		fi
		[ "$(date +%s)" -lt "$end" ] || break
	done
	return 1
}

lives()
{
	attempt "$1" 1 "" || {
		cat "$log"
		return 1
	}
}

if [ -z "${MUTANTS_TORTURE:-}" ]; then
	if ! tap_run "a library with bugs to choose from is built" build; then
		tap_done
		exit 0
	fi
fi
# The build must know mutants at all.
tap_run "no bug, own checks: passes" lives off
tap_run "no bug, verify: passes" lives on
for mutant in skip-dirty forget-stack no-rearm born-white; do
	tap_run "$mutant: found by the objects' own checks" found "$mutant" off \
		"^torture: FAILED: (checksum|the (finalizer|ephemeron|weak reference))"
	tap_run "$mutant: found by verify" found "$mutant" on "^weir: verify:"
done
tap_done
echo "$((tap_count - tap_failed)) passed, $tap_failed failed"
