# SPDX-License-Identifier: MIT
# Examples: noinst_PROGRAMS += examples/x, with
# examples_x_LDADD = libweir.la.
