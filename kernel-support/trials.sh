# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
# What `kernels` tries its kernels with.  Sourced by it.

logs=$builddir/guest/logs

# ---- A kernel, the check, the library's tests -------------------------------

# Unit tests that need more memory, processors or time than a guest has, each
# with the reason; they are reported as skipped.
left_out()
{
	[ "${TRY:-}" != long ] || return 1
	case $1 in
	test_preclean | test_ephemeron_chain)
		why="takes minutes under emulation; TRY=long runs it" ;;
	*) return 1 ;;
	esac
}

# In a short trial only these unit tests: what asks most of the kernel's
# userfaultfd, and of the rest what is quick.
short_tests="test_barrier test_dirty test_probe test_sys
	test_snapshot test_snapshot_delta test_snapshot_end test_snapshot_life
	test_redis_hooks test_redis_memory"
# And where holes cannot be protected.
short_tests_old="test_snapshot_memory"

# What the guest of $kernel runs.
plan_trial()
{
	begin_root
	skipped=$logs/$kernel.skipped
	mkdir -p "$logs"
	: >"$skipped"
	plan 120 /bin/weir-kernel-check
	plan 60 /bin/weir-kernel-check --count 512 64
	add "$user/weir-info" /bin/weir-info
	plan 60 /bin/weir-info
	case ${TRY:-} in
	short)
		tests=$short_tests seconds=6 short=WEIR_TEST_SHORT=1
		barriers="async sync sigbus" # the others need no userfaultfd
		case $kernel in
		*-6.1 | *-6.1-*) tests="$tests $short_tests_old" ;;
		esac ;;
	*)
		short=
		tests=$(cd "$user/tests" && echo test_*.o | sed 's/\.o//g')
		barriers="async sync sigbus mprotect none"
		seconds=20 ;;
	esac
	# What tests open by the name it has in the build.
	mkdir -p "$root$top/include" "$root/b/tests"
	cp -r "$top/include/weir" "$root$top/include/"
	cp "$user/tests/rootmodule.so" "$root/b/tests/"
	for t in $tests; do
		[ -x "$user/tests/$t" ] || continue
		if left_out "$t"; then
			printf '%s %s\n' "$t" "$why" >>"$skipped"
		else
			add "$user/tests/$t" "/bin/$t"
			# shellcheck disable=SC2086 # a word or none
			plan 900 WEIR_BUILDDIR=/b $short "/bin/$t" --timeout 300
		fi
	done
	add "$user/tests/torture/torture" /bin/torture
	for b in $barriers; do
		plan $((seconds * 10 + 120)) /bin/torture --barrier "$b" \
			--seed 1 --seconds "$seconds" --live 4m --threads 2
	done
	add "$user/tests/torture/snapshots" /bin/snapshots
	plan $((seconds * 10 + 120)) /bin/snapshots --seed 1 \
		--seconds "$seconds"
}

# The console of a trial as TAP, each line with the kernel's name.
show_trial()
{
	awk -v kernel="$kernel" '
	function result(ok, what, why) {
		n++
		failed += !ok
		printf "%sok %d - %s: %s%s\n", ok ? "" : "not ", n, kernel,
			what, why ? " # SKIP " why : ""
	}
	FILENAME ~ /\.skipped$/ {
		name = $1
		sub(/^[^ ]* /, "")
		result(1, name, $0)
		next
	}
	/^guest: run / {
		for (i = 3; $i ~ /=/ || $i ~ /^@/; i++)
			;
		program = $i
		sub(".*/", "", program)
		what = program
		if (program == "torture")
			what = "torture --barrier " $(i + 2)
		else if (program == "snapshots")
			what = "torture of snapshots"
		else if ($(i + 1) == "--count")
			what = "events of " $(i + 2) " pages, " $(i + 3) \
				" of them protected, after a fork"
		lines = bad = 0
		why = counted = ""
		next
	}
	/^> (not )?ok / && (program ~ /^test_/ || what == "weir-kernel-check") {
		line = $0
		ok = line !~ /^> not/
		why = ""
		if (line ~ / # SKIP /) {
			why = line
			sub(/.* # SKIP /, "", why)
			sub(/ # SKIP .*/, "", line)
		}
		sub(/^> (not )?ok [0-9]*[ -]*/, "", line)
		result(ok, program ": " line, why)
		bad += !ok
		lines++
	}
	/^> pages / { counted = $0; sub("> ", "", counted) }
	/^[>|] (torture|snapshots): SKIP: / { why = $0; sub(/.*SKIP: /, "", why) }
	/^\| weir-kernel-check: cannot count: / {
		why = $0
		sub(/.*cannot count: /, "", why)
	}
	/^guest: exit / {
		status = $3
		if (program == "torture" || program == "snapshots")
			result(status == 0 || status == 77, what,
			       status == 77 ? why : "")
		else if (what ~ /^events of/ && status == 2 && why)
			result(1, what, why)
		else if (what ~ /^events of/)
			result(status == 0 && counted ~ / spurious 0 /,
			       what ": " counted)
		else if (program == "weir-info")
			result(status == 0, "weir-info")
		else if (!lines || (status != 0 && !bad))
			result(0, program " (exit status " status ")")
		if (status != 0 && status != 77)
			printf "# %s: exit status %d\n", program, status
	}
	END { printf "1..%d\n", n; exit failed != 0 }
	' "$logs/$kernel.skipped" "$1"
}

# Boot $1 with all of it; its console is in $logs/$1.log, the TAP on standard
# output.
try()
{
	(
		build "$1"
		plan_trial
		run_guest "$logs/$1.log" || {
			echo "not ok 1 - $1: the guest ran to its end"
			exit 1
		}
		show_trial "$logs/$1.log"
	)
}

do_try()
{
	[ $# -gt 0 ] || die "try which? There are:" $all_kernels
	rc=0
	for k; do
		try "$k" || rc=1
	done
	exit "$rc"
}

# ---- The matrix -------------------------------------------------------------

# A cell of the table: what of $1's lines match the pattern $2.
tally()
{
	awk -v pattern="$2" '
	/^(not )?ok / && $0 ~ pattern {
		if (/^not ok/)
			failed++
		else if (/ # SKIP /)
			skipped++
		else
			passed++
	}
	END {
		printf "%d", passed
		if (skipped)
			printf ", %d skipped", skipped
		if (failed)
			printf ", %d FAILED", failed
	}' "$1"
}

# Which back ends the torture program ran under: of $1's lines.
tortured()
{
	sed -n -e 's/^ok .*torture --barrier \([a-z]*\)$/\1/p' \
		-e 's/^not ok .*torture --barrier \([a-z]*\).*/\1 FAILED/p' "$1" |
		tr '\n' ' ' | sed 's/ $//; s/ \([a-z]\)/, \1/g'
}

do_matrix()
{
	rc=0
	mkdir -p "$logs"
	# shellcheck disable=SC2048,SC2086 # a list of names
	set -- ${*:-$all_kernels}
	for k; do
		try "$k" >"$logs/$k.tap" || {
			rc=1
			grep '^not ok' "$logs/$k.tap" >&2
		}
	done
	echo "| kernel | | barrier chosen | kernel check | events of 512 pages, 64 protected | unit tests | torture under |"
	echo "|---|---|---|---|---|---|---|"
	for k; do
		describe "$k"
		tap=$logs/$k.tap
		printf '| %s | %s | %s | %s | %s | %s | %s |\n' "$k" "$about" \
			"$(sed -n 's/^> barrier: //p' "$logs/$k.log")" \
			"$(tally "$tap" weir-kernel-check:)" \
			"$(sed -n 's/^ok .* events \([0-9]*\) spurious .*/\1/p' "$tap")" \
			"$(tally "$tap" ': test_')" "$(tortured "$tap")"
	done
	exit "$rc"
}

# ---- Bugs planted -----------------------------------------------------------

# The check that must fail is named at the head of the mutant's patch.
do_mutants()
{
	n=0 failed=0
	for k in riscv64-6.12-patched $(mutants); do
		n=$((n + 1))
		said=$("$0" boot "$k" check 2>&1) || :
		bad=$(printf '%s\n' "$said" | sed -n 's/^not ok [0-9]* - //p')
		case $k in
		*-mutant-*)
			file=$here/mutants/riscv64-6.12/${k##*-mutant-}.patch
			caught=$(sed -n 's/^Caught-by: //p' "$file")
			what="$k: caught by \"$caught\""
			printf '%s\n' "$bad" | grep -qF "$caught" ;;
		*)
			what="$k: no check fails"
			[ -z "$bad" ] && printf '%s\n' "$said" |
				grep -q '^# .* passed' ;;
		esac && echo "ok $n - $what" || {
			failed=$((failed + 1))
			echo "not ok $n - $what"
		}
		[ -z "$bad" ] || printf '%s\n' "$bad" | sed 's/^/# failed: /'
	done
	echo "1..$n"
	[ "$failed" -eq 0 ]
}

# ---- What the bit is worth --------------------------------------------------

# lowest-highest of the numbers on standard input, which are in units of $1.
range()
{
	sort -n | awk -v unit="$1" '
		NR == 1 { low = $1 }
		{ high = $1 }
		function show(x) {
			return unit > 1 ? sprintf("%.2f", x / unit) : x
		}
		END { print show(low) (high != low ? "-" show(high) : "") }'
}

# One boot: fills $results with lines "WHAT MODE EVENTS SPURIOUS MICROSECONDS".
measure_once()
{
	begin_root
	add "$user/kernel-support/measure/fork-load" /bin/fork-load
	plan 60 /bin/weir-kernel-check --count 512 64
	plan 600 /bin/fork-load
	plan 600 /bin/fork-load --no-look
	log=$logs/measure-$1.log
	# The guest's clock counts instructions: what else the host does is
	# not in its times.
	machine="$machine -icount shift=0,sleep=off"
	BOOT_ARGS="uffd_wp_vma=$2" run_guest "$log" || return 1
	awk -v mode="$2" '
		function of(name,  i) {
			for (i = 1; i < NF; i++)
				if ($i == name)
					return $(i + 1)
			return "-"
		}
		/^guest: run / { what = $3 $4; sub(".*/", "", what) }
		/^> .*events / {
			print what, mode, of("events"), of("spurious"),
				of("time_us")
			found++
		}
		END { exit found != 3 }' "$log" >>"$results" || {
		cat "$log" >&2
		die "$kernel did not print three counts"
	}
}

do_measure()
{
	rounds=${1:-3}
	mkdir -p "$logs"
	build x86-6.12-measure
	results=$logs/measure.txt
	: >"$results"
	for i in $(seq "$rounds"); do
		for mode in 0 1; do
			(measure_once "$i-$mode" "$mode") || exit 1
		done
	done
	echo "| program | faults by | barrier events | spurious | ms |"
	echo "|---|---|---|---|---|"
	for what in weir-kernel-check--count fork-load fork-load--no-look; do
		for mode in 0 1; do
			by="the bit"
			[ "$mode" = 0 ] || by="the mapping"
			of="$what $mode "
			printf '| %s | %s | %s | %s | %s |\n' \
				"$(echo "$what" | sed 's/--/ --/')" "$by" \
				"$(grep "^$of" "$results" | cut -d ' ' -f 3 | range 1)" \
				"$(grep "^$of" "$results" | cut -d ' ' -f 4 | range 1)" \
				"$(grep "^$of" "$results" | cut -d ' ' -f 5 | range 1000)"
		done
	done
	# Only the bit makes no spurious events, and without it there are.
	awk '$4 != "-" && ($2 ? $4 <= 0 : $4 != 0) { exit 1 }' "$results" ||
		die "that is not what the bit is for"
}

# ---- The kernel's own tests -------------------------------------------------

selftest_kernels="arm64-6.1 arm64-6.1-patched riscv64-6.12
	riscv64-6.12-patched"

# Compile them from the source of $kernel into $root/bin, and plan them.
plan_selftests()
{
	"${MAKE:-make}" -C "$tree" O="$out" ARCH="$karch" headers \
		>"$out/headers.log" 2>&1 || {
		tail "$out/headers.log" >&2
		die "no headers of $kernel"
	}
	tests=$tree/tools/testing/selftests
	set -- "$triplet-gcc" -O2 -static -w -D_GNU_SOURCE= \
		-isystem "$out/usr/include" -I "$tests" -pthread
	if [ -f "$tests/mm/uffd-unit-tests.c" ]; then
		for t in uffd-unit-tests uffd-stress; do
			"$@" -o "$root/bin/$t" "$tests/mm/$t.c" \
				"$tests/mm/uffd-common.c" \
				"$tests/mm/vm_util.c" -lrt ||
				die "$t.c cannot be compiled"
		done
		plan 600 /bin/uffd-unit-tests
		stress=/bin/uffd-stress
	else
		"$@" -o "$root/bin/userfaultfd" "$tests/vm/userfaultfd.c" \
			"$tests/vm/vm_util.c" \
			-lrt || die "userfaultfd.c cannot be compiled"
		stress=/bin/userfaultfd
	fi
	# As run_vmtests.sh does, smaller: MiB and rounds.
	plan 600 $stress anon 20 4
	plan 600 $stress shmem 20 4
	plan 600 $stress hugetlb 8 4
}

do_selftests()
{
	mkdir -p "$logs"
	rc=0
	# shellcheck disable=SC2048,SC2086 # a list of names
	for k in ${*:-$selftest_kernels}; do
		(
			build "$k"
			[ -n "$source" ] || die "$k is not built from source"
			unpack_source
			begin_root
			plan_selftests
			BOOT_ARGS="hugepages=160"
			log=$logs/selftests-$k.log
			bad=
			run_guest "$log" || bad=yes
			# Linux 6.1's tests fail where there is no bit, and say
			# so; a kernel that has it must pass.
			case $k in
			*-patched) ! grep -q '^guest: exit [^0]' "$log" ||
				bad=yes ;;
			esac
			echo "## $k"
			grep -E '^(guest: exit|> )' "$log" || bad=yes
			[ -z "$bad" ]
		) || rc=1
	done
	exit "$rc"
}

# ---- Do the patches apply? --------------------------------------------------

do_patches()
{
	n=0 failed=0
	for series in "6.1 patches/arm64-6.1" "6.12 patches/riscv64-6.12" \
		"6.12 measure/x86-6.12"; do
		source=${series% *} dir=$here/${series#* }
		fetch_package "linux-source-$source"
		n=$((n + 1))
		what="${series#* } applies to ${deb##*/}"
		work=$(mktemp -d)
		files=$(sed -n 's/^--- a\///p' "$dir"/*.patch | sort -u)
		if (
			cd "$work" &&
				dpkg-deb --fsys-tarfile "$deb" |
				tar -xO "./usr/src/linux-source-$source.tar.xz" |
				tar -xJ --strip-components=1 \
					$(printf "linux-source-$source/%s " $files) &&
				for p in "$dir"/*.patch; do
					apply "$p" || exit 1
				done
		); then
			echo "ok $n - $what"
		else
			failed=$((failed + 1))
			echo "not ok $n - $what"
		fi
		rm -rf "$work"
	done
	echo "1..$n"
	exit $((failed != 0))
}
