# SPDX-License-Identifier: MIT
# Sourced by the test scripts: TAP lines and the count.
#
#   tap_ok WHAT            passed
#   tap_not_ok WHAT        failed
#   tap_skip WHAT WHY      could not be tried
#   tap_run WHAT CMD...    passed if the command succeeds; its output is shown
#                          if it does not
#   tap_take FILE [NAME]   another program's TAP: each result is one here,
#                          after the name; its comments are shown
#   tap_done               the plan; call it last
#
# A script that ends early has no plan, which the driver counts as an error.

tap_count=0
tap_failed=0

tap_ok()
{
	tap_count=$((tap_count + 1))
	printf 'ok %d - %s\n' "$tap_count" "$1"
}

tap_not_ok()
{
	tap_count=$((tap_count + 1))
	tap_failed=$((tap_failed + 1))
	printf 'not ok %d - %s\n' "$tap_count" "$1"
}

tap_skip()
{
	tap_count=$((tap_count + 1))
	printf 'ok %d - %s # SKIP %s\n' "$tap_count" "$1" "$2"
}

tap_run()
{
	tap_what=$1
	shift
	if tap_output=$("$@" 2>&1); then
		tap_ok "$tap_what"
	else
		tap_not_ok "$tap_what"
		printf '%s\n' "failed: $*" "$tap_output" >&2
		return 1
	fi
}

tap_take()
{
	while read -r tap_line; do
		tap_what=${2:-}${tap_line#*ok [0-9]* - }
		case $tap_line in
		"ok "*" # SKIP "*)
			tap_skip "${tap_what%% # SKIP*}" \
				"${tap_line#* # SKIP }" ;;
		"ok "*) tap_ok "$tap_what" ;;
		"not ok "*) tap_not_ok "$tap_what" ;;
		"# "*) printf '%s\n' "$tap_line" >&2 ;;
		esac
	done <"$1"
}

tap_done()
{
	printf '1..%d\n' "$tap_count"
}
