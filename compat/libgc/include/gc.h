/* SPDX-License-Identifier: MIT */
#include "gc/gc.h"
