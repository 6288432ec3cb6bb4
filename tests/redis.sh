#!/bin/sh
# SPDX-License-Identifier: MIT
#
# redis-server, Debian's, under weir-redis: what it saves, rewrites and sends
# to replicas while it is written to is what it held at the moment.  In
# tests/redis.py; WEIR_REDIS_ROUNDS=20 for more than three saves.
. "$WEIR_SRCDIR/tests/tap.sh"

for program in redis-server redis-cli python3; do
	if ! command -v "$program" >/dev/null; then
		tap_skip "redis" "$program is not installed"
		tap_done
		exit 0
	fi
done
if [ "${WEIR_SANITIZER:-no}" != no ]; then
	tap_skip "redis" "a sanitizer's library cannot be preloaded"
	tap_done
	exit 0
fi
if [ ! -x "$WEIR_BUILDDIR/weir-redis" ]; then
	tap_skip "redis" "configured with --disable-shared"
	tap_done
	exit 0
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/weir-redis.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
WEIR_REDIS_DIR=$WEIR_BUILDDIR/compat/redis/.libs
export WEIR_REDIS_DIR
python3 "$WEIR_SRCDIR/tests/redis.py" "$WEIR_BUILDDIR/weir-redis" "$work" \
	"${WEIR_REDIS_ROUNDS:-3}"
