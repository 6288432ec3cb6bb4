# SPDX-License-Identifier: MIT
# The collector.  One file a line, sorted: WEIR_SOURCES += gc/x.c
