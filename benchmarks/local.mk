# SPDX-License-Identifier: MIT
# Benchmarks: noinst_PROGRAMS += benchmarks/x, with
# benchmarks_x_LDADD = libweir.la.
