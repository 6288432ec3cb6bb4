#!/bin/sh
# SPDX-License-Identifier: MIT
#
# What a user gets: install into an empty directory, then compile and run the
# README's program through pkg-config, as C and as C++, shared and static;
# include every installed header alone.
set -u
. "$WEIR_SRCDIR/tests/tap.sh"

if [ "${WEIR_SANITIZER:-no}" != no ]; then
	tap_skip "installation" "a sanitized library links with nothing else"
	tap_done
	exit 0
fi

unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL
work=$WEIR_BUILDDIR/tests/install.work
root=$work/root
rm -rf "$work"
mkdir -p "$work"

finish()
{
	tap_done
	exit 0
}

tap_run "make install" $MAKE -C "$WEIR_BUILDDIR" install DESTDIR="$root" ||
	finish

pc=$(find "$root" -name weir.pc)
tap_run "weir.pc is installed once" test -f "$pc" || finish
pcdir=$(dirname "$pc")

# pkg-config as a user of this installation calls it: paths in weir.pc are
# below the prefix, the prefix is below DESTDIR.
pkgconf()
{
	PKG_CONFIG_LIBDIR=$pcdir PKG_CONFIG_PATH= \
		PKG_CONFIG_SYSROOT_DIR=$root $PKG_CONFIG "$@"
}

libdir=$root$(PKG_CONFIG_LIBDIR=$pcdir $PKG_CONFIG --variable=libdir weir)
includedir=$root$(PKG_CONFIG_LIBDIR=$pcdir \
	$PKG_CONFIG --variable=includedir weir)
# Directories that pkg-config takes for the system's are not in its output,
# but here they are below DESTDIR.
cflags="$(pkgconf --cflags weir) -I$includedir"
libs="-L$libdir $(pkgconf --libs weir)"
static_libs="-L$libdir $(pkgconf --static --libs weir)"
strict="-Wall -Wextra -Werror -pedantic"

awk '/^```c$/ { on = 1; next } /^```/ { if (on) exit } on' \
	"$WEIR_SRCDIR/README.md" >"$work/sample.c"
tap_run "the README has a program" test -s "$work/sample.c"
cp "$work/sample.c" "$work/sample.cc"

# Without set -f and quotes on purpose: flags are words.
compile_c()
{
	$CC -std=c11 $strict $cflags -o "$1" "$work/sample.c" $2
}

compile_cxx()
{
	$CXX -std=c++17 -x c++ $strict $cflags -o "$1" "$work/sample.cc" \
		-x none $2
}

run_sample()
{
	LD_LIBRARY_PATH=$libdir "$1"
}

needs_libweir()
{
	ldd "$1" 2>/dev/null | grep -q 'libweir\.so'
}

# try LANGUAGE LINKING LIBS
try()
{
	program=$work/sample-$1-$2
	tap_run "the README's program compiles as $1, $2" \
		"compile_$1" "$program" "$3" || return
	tap_run "the README's program runs as $1, $2" run_sample "$program"
	case $2 in
	shared)
		tap_run "$1, $2: linked with libweir.so" \
			needs_libweir "$program"
		;;
	static)
		tap_run "$1, $2: not linked with libweir.so" \
			eval '! needs_libweir "$program"'
		;;
	esac
}

if [ -f "$libdir/libweir.so" ]; then
	try c shared "$libs"
	try cxx shared "$libs"
else
	tap_skip "shared linking" "configured with --disable-shared"
fi
if [ -f "$libdir/libweir.a" ]; then
	static_libs=$(printf '%s\n' "$static_libs" |
		sed 's/-lweir/-Wl,-Bstatic -lweir -Wl,-Bdynamic/')
	try c static "$static_libs"
	try cxx static "$static_libs"
else
	tap_skip "static linking" "configured with --disable-static"
fi

# include_alone COMPILER STANDARD SUFFIX HEADER
include_alone()
{
	printf '#include <%s>\nint main(void) { return 0; }\n' "$4" \
		>"$work/alone.$3"
	$1 -std=$2 $strict $cflags -fsyntax-only "$work/alone.$3"
}

headers=$(cd "$includedir" && find weir -name '*.h' | sort)
tap_run "headers are installed" test -n "$headers"
for header in $headers; do
	tap_run "<$header> alone as C11" include_alone "$CC" c11 c "$header"
	tap_run "<$header> alone as C++11" \
		include_alone "$CXX" c++11 cc "$header"
done
has_image=false
[ ! -f "$WEIR_BUILDDIR/libweir-image.la" ] || has_image=true
for header in "$WEIR_SRCDIR"/include/weir/*.h; do
	name=weir/$(basename "$header")
	if [ "$name" = weir/image.h ] && ! $has_image; then
		continue
	fi
	tap_run "<$name> is installed" test -f "$includedir/$name"
done

version=$(pkgconf --modversion weir)
printf '#include <weir/weir.h>\n#include <stdio.h>\n%s\n' \
	'int main(void) { puts(weir_version()); return 0; }' >"$work/version.c"
tap_run "the version program compiles" \
	$CC $cflags -o "$work/version" "$work/version.c" $libs
tap_run "weir_version() is the version in weir.pc" \
	test "$(run_sample "$work/version")" = "$version"

# The tool is for users: installed, and it runs with nothing but the library
# beside it.
info=$(find "$root" -name weir-info -type f)
run_info()
{
	(cd / && env -i PATH="$PATH" LD_LIBRARY_PATH="$libdir" "$info" "$@")
}
tap_run "weir-info is installed and may be run" test -x "$info"
tap_run "the installed weir-info has the library's version" \
	test "$(run_info --version)" = "$version"
if [ "${WEIR_SANITIZER:-no}" = no ]; then
	tap_run "weir-kernel-check, which it points to, is installed too" \
		eval 'run_info | grep -q weir-kernel-check &&
			"${info%/*}/weir-kernel-check" --list'
fi
tap_run "the installed weir-info prints JSON" \
	eval 'run_info --json | grep -q "\"barrier\": \""'
tap_run "the installed weir-info lists the options" \
	eval 'run_info --options | grep -q heap-max'

# The library of snapshot files, with its own pkg-config file, beside libweir.
image_program()
{
	cat <<'EOF'
#include <errno.h>
#include <string.h>
#include <weir/image.h>
int main(void)
{
	const char *path = "/none/image";
	weir_image *image;
	return weir_image_open(&path, 1, &image) != -ENOENT ||
	       !strstr(weir_error_text(), path);
}
EOF
}

# What it needs of the system is found where the system has it.
image_libs()
{
	PKG_CONFIG_PATH=$pcdir PKG_CONFIG_SYSROOT_DIR=$root \
		$PKG_CONFIG "$@" --libs weir-image
}

run_snap()
{
	(cd / && env -i PATH="$PATH" LD_LIBRARY_PATH="$libdir" "$snap" "$@")
}

if $has_image; then
	image_program >"$work/image.c"
	tap_run "weir-image.pc is installed" test -f "$pcdir/weir-image.pc"
	tap_run "weir-image has weir's version" test "$version" = \
		"$(PKG_CONFIG_PATH=$pcdir $PKG_CONFIG --modversion weir-image)"
	if [ -f "$libdir/libweir-image.so" ]; then
		tap_run "weir/image.h's program compiles" \
			$CC -std=c11 $strict $cflags -o "$work/image" \
			"$work/image.c" -L"$libdir" $(image_libs)
		tap_run "weir/image.h's program runs" run_sample "$work/image"
	else
		tap_skip "libweir-image" "configured with --disable-shared"
	fi
	snap=$(find "$root" -name weir-snap -type f)
	tap_run "the installed weir-snap has the library's version" \
		test "$(run_snap --version)" = "$version"
else
	tap_skip "libweir-image" "it is not built here"
fi

tap_run "make uninstall" $MAKE -C "$WEIR_BUILDDIR" uninstall DESTDIR="$root"
left=$(find "$root" ! -type d)
tap_run "make uninstall leaves nothing: $left" test -z "$left"
tap_done
