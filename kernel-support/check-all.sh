#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# `make kernel-check`: all that can be tried of the kernels, one after the
# other, and whether all went well.  An hour or two on two processors.
set -u
kernels=$(dirname "$0")/kernels
bad=

for what in patches fetch matrix mutants measure selftests; do
	printf '\n== kernels %s\n\n' "$what"
	"$kernels" "$what" || bad="$bad $what"
done
echo
if [ -n "$bad" ]; then
	echo "kernel-check: not well:$bad"
	exit 1
fi
echo "kernel-check: all went well"
