;; SPDX-License-Identifier: MIT
;;
;; trees.scm LIVE-MIB MAKE-MIB: gcbench in Guile.  Trees that live to the end
;; fill LIVE-MIB; meanwhile trees of MAKE-MIB in all come and go, of depth 4 to
;; 16, half of them made from the top down, half from the bottom up.  A node is
;; a vector of four: 48 bytes.
;;
;; Prints a checksum, and the seconds that it took.

(define live-mib (string->number (cadr (command-line))))
(define make-mib (string->number (caddr (command-line))))
(define deepest 16)
(define begin-time (get-internal-real-time))

(define (node)
  (vector #f #f 0 0))

(define (bottom-up depth)
  (if (= depth 0)
      (node)
      (let* ((left (bottom-up (- depth 1)))
             (right (bottom-up (- depth 1))))
        (vector left right 0 0))))

(define (populate! depth n)
  (when (> depth 0)
    (vector-set! n 0 (node))
    (vector-set! n 1 (node))
    (populate! (- depth 1) (vector-ref n 0))
    (populate! (- depth 1) (vector-ref n 1))))

(define (top-down depth)
  (let ((root (node)))
    (populate! depth root)
    root))

(define (count n)
  (if n
      (+ 1 (count (vector-ref n 0)) (count (vector-ref n 1)))
      0))

(define (bytes depth)
  (* 48 (- (ash 1 (+ depth 1)) 1)))

(define trees
  (let loop ((left (* live-mib 1048576)) (trees '()))
    (if (< left (bytes deepest))
        trees
        (loop (- left (bytes deepest)) (cons (top-down deepest) trees)))))

(define made
  (let loop ((depth 4) (sum 0))
    (if (> depth deepest)
        sum
        (let ((n (quotient (* make-mib 1048576) (* 14 (bytes depth)))))
          (do ((i 0 (+ i 1))) ((= i n))
            (top-down depth)
            (bottom-up depth))
          (loop (+ depth 2) (+ sum n))))))

(display (+ (apply + (map count trees)) made))
(newline)
(display (exact->inexact
          (/ (- (get-internal-real-time) begin-time)
             internal-time-units-per-second)))
(newline)
