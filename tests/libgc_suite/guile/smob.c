/* SPDX-License-Identifier: MIT */
/* A program of Guile's with a type of its own (a smob) whose mark procedure
 * reports references that are in memory of malloc(), and whose free procedure
 * gives that back; on threads, beside collections. */
#include <libguile.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct image {
	SCM name; /* references */
	SCM other;
	int check; /* 4711 until it is freed */
};

static scm_t_bits tag;
static unsigned marks, frees; /* atomic */

static SCM mark_image(SCM s)
{
	struct image *i = (struct image *)SCM_SMOB_DATA(s);

	__atomic_add_fetch(&marks, 1, __ATOMIC_RELAXED);
	if (i->check != 4711)
		abort();
	scm_gc_mark(i->name);
	return i->other;
}

static size_t free_image(SCM s)
{
	struct image *i = (struct image *)SCM_SMOB_DATA(s);

	__atomic_add_fetch(&frees, 1, __ATOMIC_RELAXED);
	i->check = 0;
	free(i);
	return 0;
}

static SCM make_image(SCM name, SCM other)
{
	struct image *i = malloc(sizeof(*i));
	SCM s;

	*i = (struct image){SCM_BOOL_F, SCM_BOOL_F, 4711};
	s = scm_new_smob(tag, (scm_t_bits)i);
	i->name = name;
	i->other = other;
	scm_remember_upto_here_2(name, other);
	return s;
}

static struct image *image_of(SCM s)
{
	scm_assert_smob_type(tag, s);
	return (struct image *)SCM_SMOB_DATA(s);
}

static SCM image_name(SCM s)
{
	return image_of(s)->name;
}

static SCM image_other(SCM s)
{
	return image_of(s)->other;
}

/* Without a write to anything in the heap. */
static SCM image_set(SCM s, SCM other)
{
	image_of(s)->other = other;
	return SCM_UNSPECIFIED;
}

static const char program[] =
	"(use-modules (ice-9 threads))"
	"(define (name i) (string-append \"n\" (number->string i)))"
	"(define (churn n)"
	"  (do ((i 0 (+ i 1))) ((= i n))"
	"    (make-image (string #\\a #\\b) (list i))))"
	"(define (check l)"
	"  (let loop ((l l) (i 0))"
	"    (cond ((null? l) 'ok)"
	"          ((and (equal? (image-name (car l)) (name i))"
	"                (equal? (image-other (car l)) (list i (* i i))))"
	"           (loop (cdr l) (+ i 1)))"
	"          (else (list 'NO i)))))"
	"(define (work n)"
	"  (let ((l (map (lambda (i) (make-image (name i) #f)) (iota 1000))))"
	"    (do ((k 0 (+ k 1))) ((= k n))"
	"      (churn 20000)"
	"      (for-each (lambda (s i) (image-set! s (list i (* i i))))"
	"                l (iota 1000))"
	"      (gc))"
	"    (check l)))"
	"(display (work 10)) (newline)"
	"(display (map join-thread"
	"  (map (lambda (i) (call-with-new-thread (lambda () (work 4))))"
	"       (iota 3))))"
	"(newline)";

static void *body(void *data)
{
	tag = scm_make_smob_type("image", 0);
	scm_set_smob_mark(tag, mark_image);
	scm_set_smob_free(tag, free_image);
	scm_c_define_gsubr("make-image", 2, 0, 0, make_image);
	scm_c_define_gsubr("image-name", 1, 0, 0, image_name);
	scm_c_define_gsubr("image-other", 1, 0, 0, image_other);
	scm_c_define_gsubr("image-set!", 2, 0, 0, image_set);
	scm_c_eval_string(program);
	scm_force_output(scm_current_output_port());
	return data;
}

int main(void)
{
	scm_with_guile(body, NULL);
	printf("marked: %s, freed: %s\n", marks > 1000 ? "yes" : "NO",
	       frees > 10000 ? "yes" : "NO");
	fflush(stdout);
	/* Guile's finalizer thread is at work: on libgc it may crash while what
	 * it uses is taken down. */
	_exit(0);
}
