/* SPDX-License-Identifier: MIT */
/*
 * A thread whose markers are in registers only, machine by machine: the stops
 * must find them.  The caller has but the inverse of the first, so that no
 * copy of a marker is in its frame; the others are that plus 1, 2 and 3.
 *
 * Only test_thread_found.c includes this.
 */
#ifndef WEIR_TESTS_MARKERS_H
#define WEIR_TESTS_MARKERS_H

#include <stdint.h>

#include "runtime/thread.h"

#define MARKERS 4

/*
 * call_with_markers(t, fn, inverse): with markers in registers only, in those
 * that a call must preserve, call fn(t).
 *
 * CLEAR_MARKER_REGISTERS(): of call_with_markers(); what the caller had in them
 * is in the frame of the function that does this.
 *
 * spin_with_markers(go_on, inverse): with one in a preserved, two in scratch
 * registers and one in a vector register, spin until *go_on is 0.
 */
#if defined(__x86_64__)
#define CLEAR_MARKER_REGISTERS()                                      \
	__asm__ volatile("xor %%ebx, %%ebx\n\txor %%r12d, %%r12d\n\t" \
			 "xor %%r13d, %%r13d\n\txor %%r14d, %%r14d"   \
			 :                                            \
			 :                                            \
			 : "rbx", "r12", "r13", "r14", "cc")

static void call_with_markers(struct wr_thread *t, void *fn, uintptr_t inverse)
{
	__asm__ volatile("mov %[inverse], %%rbx\n\t"
			 "not %%rbx\n\t"
			 "lea 1(%%rbx), %%r12\n\t"
			 "lea 2(%%rbx), %%r13\n\t"
			 "lea 3(%%rbx), %%r14\n\t"
			 "mov %%rsp, %%r15\n\t"
			 "sub $128, %%rsp\n\t"
			 "and $-16, %%rsp\n\t"
			 "call *%%rax\n\t"
			 "mov %%r15, %%rsp\n\t"
			 "xor %%ebx, %%ebx\n\t"
			 : "+D"(t), "+a"(fn)
			 : [inverse] "S"(inverse)
			 : "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12",
			   "r13", "r14", "r15", "memory", "cc", "xmm0", "xmm1",
			   "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7");
}

static inline void spin_with_markers(const int *go_on, uintptr_t inverse)
{
	__asm__ volatile("mov %[inverse], %%r13\n\t"
			 "not %%r13\n\t"
			 "lea 1(%%r13), %%r10\n\t"
			 "lea 2(%%r13), %%r11\n\t"
			 "movq %%r11, %%xmm5\n\t"
			 "lea 3(%%r13), %%r11\n\t"
			 "1:\n\t"
			 "cmpl $0, (%[go_on])\n\t"
			 "jne 1b\n\t"
			 "xor %%r13d, %%r13d\n\t"
			 :
			 : [inverse] "r"(inverse), [go_on] "r"(go_on)
			 : "r10", "r11", "r13", "xmm5", "memory", "cc");
}

#elif defined(__aarch64__)
#define CLEAR_MARKER_REGISTERS()                            \
	__asm__ volatile("mov x25, xzr\n\tmov x26, xzr\n\t" \
			 "mov x27, xzr\n\tmov x28, xzr"     \
			 :                                  \
			 :                                  \
			 : "x25", "x26", "x27", "x28")

static void call_with_markers(struct wr_thread *t, void *fn, uintptr_t inverse)
{
	register struct wr_thread *x0 __asm__("x0") = t;
	register uintptr_t x1 __asm__("x1") = inverse;
	register void *x9 __asm__("x9") = fn;

	__asm__ volatile("mvn x25, x1\n\t"
			 "add x26, x25, #1\n\t"
			 "add x27, x25, #2\n\t"
			 "add x28, x25, #3\n\t"
			 "blr x9\n\t"
			 "mov x25, xzr\n\t"
			 : "+r"(x0), "+r"(x1), "+r"(x9)
			 :
			 : "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x10",
			   "x11", "x12", "x13", "x14", "x15", "x16", "x17",
			   "x25", "x26", "x27", "x28", "x30", "memory", "cc",
			   "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7",
			   "v16", "v17", "v18", "v19", "v20", "v21", "v22",
			   "v23", "v24", "v25", "v26", "v27", "v28", "v29",
			   "v30", "v31");
}

static inline void spin_with_markers(const int *go_on, uintptr_t inverse)
{
	__asm__ volatile("mvn x19, %[inverse]\n\t"
			 "add x10, x19, #1\n\t"
			 "add x11, x19, #2\n\t"
			 "fmov d5, x11\n\t"
			 "add x11, x19, #3\n\t"
			 "1:\n\t"
			 "ldr w12, [%[go_on]]\n\t"
			 "cbnz w12, 1b\n\t"
			 "mov x19, xzr\n\t"
			 :
			 : [inverse] "r"(inverse), [go_on] "r"(go_on)
			 : "x10", "x11", "x12", "x19", "v5", "memory", "cc");
}

#elif defined(__riscv)
#define CLEAR_MARKER_REGISTERS()                                          \
	__asm__ volatile("li s8, 0\n\tli s9, 0\n\tli s10, 0\n\tli s11, 0" \
			 :                                                \
			 :                                                \
			 : "s8", "s9", "s10", "s11")

static void call_with_markers(struct wr_thread *t, void *fn, uintptr_t inverse)
{
	register struct wr_thread *a0 __asm__("a0") = t;
	register uintptr_t a1 __asm__("a1") = inverse;
	register void *t0 __asm__("t0") = fn;

	__asm__ volatile("not s8, a1\n\t"
			 "addi s9, s8, 1\n\t"
			 "addi s10, s8, 2\n\t"
			 "addi s11, s8, 3\n\t"
			 "jalr t0\n\t"
			 "li s8, 0\n\t"
			 : "+r"(a0), "+r"(a1), "+r"(t0)
			 :
			 : "a2", "a3", "a4", "a5", "a6", "a7", "t1", "t2", "t3",
			   "t4", "t5", "t6", "s8", "s9", "s10", "s11", "ra",
			   "memory", "ft0", "ft1", "ft2", "ft3", "ft4", "ft5",
			   "ft6", "ft7", "ft8", "ft9", "ft10", "ft11", "fa0",
			   "fa1", "fa2", "fa3", "fa4", "fa5", "fa6", "fa7");
}

static inline void spin_with_markers(const int *go_on, uintptr_t inverse)
{
	__asm__ volatile("not s2, %[inverse]\n\t"
			 "addi t3, s2, 1\n\t"
			 "addi t4, s2, 2\n\t"
			 "fmv.d.x ft5, t4\n\t"
			 "addi t4, s2, 3\n\t"
			 "1:\n\t"
			 "lw t5, (%[go_on])\n\t"
			 "bnez t5, 1b\n\t"
			 "li s2, 0\n\t"
			 :
			 : [inverse] "r"(inverse), [go_on] "r"(go_on)
			 : "s2", "t3", "t4", "t5", "ft5", "memory");
}

#else
#error "registers of this machine: not known to the tests"
#endif

#endif
