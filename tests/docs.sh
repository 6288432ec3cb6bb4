#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The README against the tree: the sample's length, the commands that it
# names, the files that it points to.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"

cd "$WEIR_SRCDIR" || exit 1

lines=$(awk '/^```c$/ { on = 1; next } /^```/ { if (on) exit } on' README.md |
	wc -l)
tap_run "the README's program has at most 20 lines ($lines)" \
	test "$lines" -ge 1 -a "$lines" -le 20

# Commands: indented lines that begin with ./, and `./...` in the text.  Those
# below build/ exist once the tree is built.
commands=$({
	sed -n -e 's/ *#.*//' -e 's/^ \{4\}\(\.\/[^ ]*.*\)$/\1/p' README.md
	grep -o '`\./[^`]*`' README.md | tr -d '`'
} | sort -u)
tap_run "the README names commands" test -n "$commands"

exists()
{
	case $1 in
	./build/*) [ -x "$WEIR_BUILDDIR/${1#./build/}" ] ;;
	*) [ -x "$1" ] ;;
	esac
}

old_ifs=$IFS
IFS='
'
for line in $commands; do
	IFS=$old_ifs
	# shellcheck disable=SC2086 # words of a command
	set -- $line
	tap_run "$line: the command exists" exists "$1"
	if [ "$1" = ./bootstrap ] && [ $# -ge 2 ]; then
		tap_run "$line: the job exists" \
			grep -q "^$2)" bootstrap
	fi
done
IFS=$old_ifs

# Links to files of the tree.
links=$(grep -o '](\([^)#]*\)' README.md | sed 's/^](//' |
	grep -v '^[a-z]*:' | sort -u)
for link in $links; do
	tap_run "$link: the file exists" test -e "$link"
done
tap_done
