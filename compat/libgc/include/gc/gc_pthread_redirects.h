/* SPDX-License-Identifier: MIT */
/* Threads made by these are the collector's to stop: as in libgc 8.2. */
#ifndef GC_PTHREAD_REDIRECTS_H
#define GC_PTHREAD_REDIRECTS_H

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>

#ifdef __cplusplus
extern "C" {
#endif

extern void *GC_dlopen(const char *, int);
#ifdef SIG_BLOCK /* <signal.h> has signal sets: not so in strict C */
extern int GC_pthread_sigmask(int, const sigset_t *, sigset_t *);
#endif
extern int GC_pthread_create(pthread_t *, const pthread_attr_t *,
			     void *(*)(void *), void *);
extern int GC_pthread_join(pthread_t, void **);
extern int GC_pthread_detach(pthread_t);
extern int GC_pthread_cancel(pthread_t);
extern void GC_pthread_exit(void *) __attribute__((__noreturn__));

#ifdef __cplusplus
}
#endif

#if !defined(GC_NO_THREAD_REDIRECTS) && !defined(GC_USE_LD_WRAP)
#undef pthread_create
#undef pthread_join
#undef pthread_detach
#undef pthread_sigmask
#undef pthread_cancel
#undef pthread_exit
#undef dlopen
#define pthread_create GC_pthread_create
#define pthread_join GC_pthread_join
#define pthread_detach GC_pthread_detach
#if defined(SIG_BLOCK) && !defined(GC_NO_PTHREAD_SIGMASK)
#define pthread_sigmask GC_pthread_sigmask
#endif
#ifndef GC_NO_PTHREAD_CANCEL
#define pthread_cancel GC_pthread_cancel
#define pthread_exit GC_pthread_exit
#endif
#ifndef GC_NO_DLOPEN
#define dlopen GC_dlopen
#endif
#endif

#endif
