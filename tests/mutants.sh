#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Does the torture program find bugs?  A library with bugs to choose from is
# built (configure --enable-mutants), and each of them must be found, with
# born-black on and off (the default): by the objects' own checks, and again by
# the verifier.  Without one the same command must pass.  A crash or a hang is
# not a find.  Exceptions: born-white is what the default does, so no bug there;
# what trust-ahead loses is mostly young, and not lost with born-black; and the
# verifier does not know of weak references (lose-pended).
#
# And does the torture of snapshots find theirs (runtime/snap_point.h)?  Without
# no-grace, which takes minutes to find.
#
# MUTANTS_TORTURE names a torture program of such a build, to save building; the
# other is beside it.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"

seconds=5
seeds="1 2 3 4 5 6 7 8 9 10 11 12" # that are tried until one finds the mutant
limit=60                           # seconds for one of them, or it hangs
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
		tests/torture/torture tests/torture/snapshots
}

# attempt BORN-BLACK VERIFY SEED MUTANT: fork is for other bugs, and snapshots of
# the heap are for their own.
attempt()
{
	without=fork,pressure,snapshot
	case $4 in
	snap-*) without=fork,pressure ;;
	esac
	WEIR_MUTANT=$4 timeout -k 5 "$limit" "$torture" --seconds "$seconds" \
		--seed "$3" --live 16m --without "$without" --options \
		"verify=$2,poison=on,heap-min=1m,stop=signals,born-black=$1,delay=300" \
		>"$log" 2>&1
}

# found MUTANT BORN-BLACK VERIFY PATTERN
# A seed finds one in three times of four, or fewer where others use the
# processors; each has its own ways, so more seeds help more than more seconds.
found()
{
	for seed in $seeds; do
		if attempt "$2" "$3" "$seed" "$1"; then
			echo "seed $seed: not found in $seconds seconds"
		elif grep -E "$4" "$log"; then
			return 0
		else
			echo "seed $seed: another failure"
			tail -n 5 "$log"
		fi
	done
	return 1
}

lives()
{
	attempt "$1" "$2" 1 "" || {
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
own="^torture: FAILED: (checksum|the (finalizer|ephemeron|weak reference))"
verifier="^weir: verify:"
for black in on off; do
	# The build must know mutants at all.
	tap_run "born-black=$black, no bug, own checks: passes" \
		lives "$black" off
	tap_run "born-black=$black, no bug, verify: passes" lives "$black" on
	for mutant in skip-dirty forget-stack no-rearm lose-later trust-ahead \
		born-white; do
		case "$black $mutant" in
		"off born-white" | "on trust-ahead") continue ;;
		esac
		what="born-black=$black, $mutant: found by"
		tap_run "$what the objects' own checks" \
			found "$mutant" "$black" off "$own"
		tap_run "$what verify" found "$mutant" "$black" on "$verifier"
	done
	tap_run "born-black=$black, lose-pended: found by the objects' own checks" \
		found lose-pended "$black" off "$own"
	for mutant in snap-lose snap-rearm; do
		tap_run "born-black=$black, $mutant: found in a snapshot" \
			found "$mutant" "$black" off \
			"^torture: FAILED: snapshot:"
	done
done
snapshots=$(dirname "$torture")/snapshots
found_snapshot()
{
	for seed in 1 2 3 4 5; do
		timeout -k 5 "$limit" "$snapshots" --seconds 5 --delay 300 \
			--seed "$seed" --mutant "$1" >"$log" 2>&1
		status=$?
		cat "$log"
		# The last: by the saver, which meets a unit that was passed by.
		if [ "$status" = 1 ] &&
			grep -E 'is not as it was|did not come' "$log"; then
			return 0
		elif [ "$status" = 2 ] &&
			grep 'while the snapshot began' "$log"; then
			return 0
		fi
		[ "$status" = 0 ] || return 1
	done
	return 1
}
tap_run "snapshots, no bug: passes" \
	"$snapshots" --seconds 5 --delay 300 --mutant none
for mutant in late-keep late-copy open-first skip-hot early-mark; do
	tap_run "snapshots, $mutant: found" found_snapshot "$mutant"
done
tap_done
echo "$((tap_count - tap_failed)) passed, $tap_failed failed"
