/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the first process of a guest does before and after its work.  Errors
 * are said on standard output, as TAP comments: what is missing then fails or
 * is skipped by name.
 */
#ifndef WEIR_GUEST_SETUP_H
#define WEIR_GUEST_SETUP_H

/* Mount /proc, /sys, /dev and /tmp, load the modules in /modules in the order
 * of their names, set huge pages aside, make swap space of /dev/ram0. */
void guest_begin(void);

/* Power off, or whatever ends the guest. */
void guest_end(void) __attribute__((noreturn));

#endif
