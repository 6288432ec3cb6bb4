# SPDX-License-Identifier: MIT
# Tools.  An installed one: bin_PROGRAMS += weir-x, with
# weir_x_SOURCES = tools/weir_x.c and weir_x_LDADD = libweir.la.
EXTRA_DIST += tools/check-fresh.sh
