/* SPDX-License-Identifier: MIT */
/* Finalization of all there is, and threads held from outside: declared as in
 * libgc 8.2. */
#ifndef GC_JAVAXFC_H
#define GC_JAVAXFC_H

#include "gc.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Run every finalizer, whether its object is in use or not. */
GC_API void GC_finalize_all(void);

#ifdef GC_THREADS
#include <pthread.h>
#ifndef GC_SUSPEND_THREAD_ID
#define GC_SUSPEND_THREAD_ID pthread_t
#endif
/* Hold a registered thread until the first resume; they do not nest. */
GC_API void GC_suspend_thread(GC_SUSPEND_THREAD_ID);
GC_API void GC_resume_thread(GC_SUSPEND_THREAD_ID);
GC_API int GC_is_thread_suspended(GC_SUSPEND_THREAD_ID);
#endif

#ifdef __cplusplus
}
#endif
#endif
