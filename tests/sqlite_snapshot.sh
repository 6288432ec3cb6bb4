# SPDX-License-Identifier: MIT
# SQLite in memory, saved while it is written to: every way to save gives the
# state of its moment, by snapshots as the test is started, as another user and
# on huge pages, many times over; and the check can tell when it does not.
. "$WEIR_SRCDIR/tests/tap.sh"

program=$WEIR_BUILDDIR/examples/sqlite-snapshot
if [ ! -x "$program" ]; then
	tap_skip "SQLite in memory" "built without SQLite"
	tap_done
	exit 0
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/weir-sqlite.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 777 "$work"

# save ARGUMENT...: one run, the files not synced, for time.
save()
{
	$as "$program" --out "$work/a.db" --no-sync --json --quick "$@" \
		>"$work/out"
	status=$?
	cat "$work/out"
	return "$status"
}

save_as_user()
{
	as=$other
	save "$@" && grep -q '"barrier":"sigbus"' "$work/out"
}

# detects ARGUMENT...: the check fails, and nothing else does.
detects()
{
	save "$@" 2>"$work/err"
	[ $? -eq 1 ] && [ ! -s "$work/err" ] && grep -q '"ok":false' "$work/out"
}

# Copied while it is written to.  It may be whole by chance.
detects_torn()
{
	for try in 1 2 3 4 5; do
		detects --method torn --mb 64 && return
	done
	return 1
}

# fills_pool FULL: writers come to wait for room.  On a busy machine the saver
# may be faster than they are.
fills_pool()
{
	for try in 1 2 3 4 5; do
		save --mb 24 --pool 4 --save-rate 64 --full "$1" || return
		grep -q '"waits":0' "$work/out" || return 0
	done
	return 1
}

refuses()
{
	"$program" "$@" 2>"$work/err"
	[ $? -eq 2 ] && grep -q 'it is one of' "$work/err"
}

transactions()
{
	sed 's/.*"transactions":\([0-9]*\).*/\1/' "$work/out"
}

# The library's and the program's view are one: SQLite's own program reads it.
saved_is_database()
{
	save --mb 8 --keep || return
	count=$(transactions)
	[ "$count" -gt 0 ] && echo "$count" >"$work/count" || return
	command -v sqlite3 >/dev/null || return 0
	[ "$(sqlite3 "$work/a.db" 'PRAGMA integrity_check')" = ok ] &&
		[ "$(sqlite3 "$work/a.db" 'SELECT max(txn) FROM log')" = \
			"$count" ]
}

# What was saved is the beginning of the next.
goes_on()
{
	save --from "$work/a.db" || return
	[ "$(transactions)" -gt "$(cat "$work/count")" ]
}

no_files_left()
{
	rm -f "$work/a.db"
	save --mb 4 && [ "$(echo "$work"/*.db*)" = "$work/*.db*" ]
}

small=16
as=
tap_run "a snapshot is a database" saved_is_database
tap_run "it is where another run begins" goes_on
tap_run "no file is left behind" no_files_left
tap_run "64 MiB, as started" save --mb 64
tap_run "three writers, many snapshots" \
	save --mb $small --writers 3 --snapshots 5
tap_run "writers at a rate" save --mb $small --writers 2 --rate 2000
tap_run "huge pages" save --mb $small --huge --snapshots 2
tap_run "huge pages saved by small ones" \
	save --mb $small --huge --small-units --snapshots 2
tap_run "a pool that is full" fills_pool stall
tap_run "a pool that is full, written through" fills_pool write-through
tap_run "sigbus" save --mb $small --barrier sigbus --snapshots 2
other="setpriv --reuid 65534 --regid 65534 --clear-groups"
if [ "$(id -u)" != 0 ]; then
	tap_skip "another user" "not root: all of this is another user"
elif $other "$program" --help >/dev/null 2>&1; then
	tap_run "another user" \
		save_as_user --mb 64 --writers 2 --snapshots 2
	tap_run "another user's huge pages" save_as_user --mb $small --huge
else
	tap_skip "another user" "it cannot run the program, or no setpriv"
fi
for method in backup backup-steps serialize fork; do
	tap_run "$method" save --method $method --mb 64
done
tap_run "fork, huge pages" save --method fork --mb $small --huge
tap_run "a byte that changed is found" detects --mb $small --flip
tap_run "a copy without care is found" detects_torn
tap_run "an unknown method is refused" refuses --method fast
tap_run "an unknown barrier is refused" refuses --barrier fast
tap_run "a comparison" "$program" --compare 1 --mb 8 --no-sync --quick \
	--out "$work/a.db"
tap_done
