#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Does ./bootstrap build work on a bare Debian 12?  Make one (debootstrap's
# minimal variant) in a temporary directory, clone HEAD into it, run the job
# there, first as an ordinary user, who must be told what to install, then as
# root.  Needs root, debootstrap, git and a few hundred megabytes; run on
# request.
#
# usage: tools/check-fresh.sh [build|check|demo]
#
# Environment: WEIR_MIRROR  Debian archive (default: the one apt-get uses here)
#              WEIR_KEEP=1  leave the directory behind
#              TMPDIR       where to make it (default /tmp)
set -eu

die()
{
	printf 'check-fresh: %s\n' "$*" >&2
	exit 1
}

job=${1:-build}
top=$(cd "$(dirname "$0")/.." && pwd)
[ "$(id -u)" -eq 0 ] || die "needs root: debootstrap and chroot do"
command -v debootstrap >/dev/null || die "apt-get install debootstrap"
command -v git >/dev/null || die "apt-get install git"

mirror=${WEIR_MIRROR:-}
if [ -z "$mirror" ]; then
	mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' \
		'Created-By: Packages' |
		awk '$2 == "bookworm" { print $1; exit }')
fi
[ -n "$mirror" ] || die "no bookworm archive in apt's sources; set WEIR_MIRROR"

dir=$(mktemp -d "${TMPDIR:-/tmp}/weir-fresh.XXXXXX")
root=$dir/root
say()
{
	printf 'check-fresh: %s\n' "$*" >&2
}

cleanup()
{
	umount "$root/proc" 2>/dev/null || :
	if mountpoint -q "$root/proc"; then
		say "$root/proc is still mounted; $dir stays"
	elif [ "${WEIR_KEEP:-0}" = 1 ]; then
		say "left in $dir"
	else
		rm -rf "$dir"
	fi
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

say "debootstrap from $mirror"
debootstrap --variant=minbase bookworm "$root" "$mirror" \
	>"$dir/debootstrap.log" 2>&1 || {
	tail -n 20 "$dir/debootstrap.log" >&2
	die "debootstrap failed"
}
mount -t proc proc "$root/proc"
# How this machine reaches the archive: names and, where there is one, a proxy.
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
apt-config dump | grep -E '^Acquire::https?::Proxy ' \
	>"$root/etc/apt/apt.conf.d/90proxy" || :

git clone -q --no-hardlinks "$top" "$root/weir"
rm -rf "$root/weir/.git"
chown -R 65534:65534 "$root/weir"

inside()
{
	chroot "$root" /usr/bin/env -i HOME=/root TERM=dumb \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		"$@"
}

say "as an ordinary user: must name the packages and fail"
if inside setpriv --reuid 65534 --regid 65534 --clear-groups \
	/weir/bootstrap build >"$dir/user.log" 2>&1; then
	die "./bootstrap build succeeded without a compiler"
fi
cat "$dir/user.log"
grep -q 'apt-get install .*libcriterion-dev' "$dir/user.log" ||
	die "the apt-get command is not told"

say "as root: ./bootstrap $job"
inside /weir/bootstrap "$job"

if [ "$job" = build ]; then
	inside test -f /weir/build/.libs/libweir.so ||
		die "libweir.so was not built"
	inside test -f /weir/build/.libs/libweir.a ||
		die "libweir.a was not built"
fi
say "passed"
