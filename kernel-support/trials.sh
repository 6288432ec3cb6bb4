# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
# What `kernels` tries its kernels with.  Sourced by it.

logs=$builddir/guest/logs

# ---- A kernel, the check, the library's tests -------------------------------

# Unit tests that need more memory, processors or time than a guest has, each
# with the reason; they are reported as skipped.
left_out()
{
	case $1 in
	*) return 1 ;;
	esac
}

# In a short trial only these unit tests: back ends, probing, registers,
# system calls, fork.
short_tests="test_barrier test_barrier_signal test_dirty test_mark test_probe
	test_read test_sys test_fork"

# What the guest of $kernel runs.
plan_trial()
{
	begin_root
	plan 120 /bin/weir-kernel-check
	plan 60 /bin/weir-kernel-check --count 512 64
	add "$user/weir-info" /bin/weir-info
	plan 60 /bin/weir-info
	case ${TRY:-} in
	short) tests=$short_tests seconds=5 ;;
	*)
		tests=$(cd "$user/tests" && echo test_*.o | sed 's/\.o//g')
		seconds=20 ;;
	esac
	# What tests open by the name it has in the build.
	mkdir -p "$root$top/include" "$root/b/tests"
	cp -r "$top/include/weir" "$root$top/include/"
	cp "$user/tests/rootmodule.so" "$root/b/tests/"
	for t in $tests; do
		[ -x "$user/tests/$t" ] || continue
		left_out "$t" || {
			add "$user/tests/$t" "/bin/$t"
			plan 900 WEIR_BUILDDIR=/b "/bin/$t" --timeout 300
		}
	done
	add "$user/tests/torture/torture" /bin/torture
	for b in async sync sigbus mprotect none; do
		plan $((seconds * 10 + 120)) /bin/torture --barrier "$b" \
			--seed 1 --seconds "$seconds" --live 4m --threads 2
	done
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
	/^guest: run / {
		for (i = 3; $i ~ /=/ || $i ~ /^@/; i++)
			;
		program = $i
		sub(".*/", "", program)
		what = program
		if (program == "torture")
			what = "torture --barrier " $(i + 2)
		else if ($(i + 1) == "--count")
			what = "events of " $(i + 2) " pages, " $(i + 3) \
				" of them protected, after a fork"
		lines = bad = lacking = 0
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
	/^\| torture: SKIP: / { why = $0; sub(/.*SKIP: /, "", why) }
	/^\| weir-kernel-check: cannot count: / {
		why = $0
		sub(/.*cannot count: /, "", why)
	}
	/^guest: exit / {
		status = $3
		if (program == "torture")
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
	' "$1"
}

# Boot $1 with all of it; its console is in $logs/$1.log, the TAP on standard
# output.
try()
{
	(
		build "$1"
		plan_trial
		mkdir -p "$logs"
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
