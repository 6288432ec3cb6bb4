#!/bin/sh
# SPDX-License-Identifier: MIT
#
# weir-libgc PROGRAM ARGS...: run a program that is linked to libgc.so.1 on
# weir's.  WEIR_LIBGC_DIR is where that is, if not where it was installed.
dir=${WEIR_LIBGC_DIR:-@pkglibdir@}
case ${1:-} in
"" | -h | --help)
	cat <<-EOF
	usage: weir-libgc PROGRAM ARGS...
	Run PROGRAM with weir in place of the Boehm collector, libgc.so.1.
	WEIR_OPTIONS has options of weir's (weir-info --options); libgc's own
	variables that count here are listed in weir's docs/LIBGC.md.
	EOF
	[ $# -gt 0 ]
	exit ;;
esac
if [ ! -e "$dir/libgc.so.1" ]; then
	echo "weir-libgc: there is no $dir/libgc.so.1; install weir, or set" \
		"WEIR_LIBGC_DIR" >&2
	exit 127
fi
LD_LIBRARY_PATH=$dir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
exec "$@"
