;; SPDX-License-Identifier: MIT
;; Trees, lists, strings, bytevectors, bignums, vectors: made, dropped, summed.
(use-modules (rnrs bytevectors) (srfi srfi-1))

(define (make-tree depth)
  (if (zero? depth)
      (vector #f #f)
      (vector (make-tree (- depth 1)) (make-tree (- depth 1)))))
(define (count tree)
  (if (vector-ref tree 0)
      (+ 1 (count (vector-ref tree 0)) (count (vector-ref tree 1)))
      1))

(define kept (make-tree 14))
(do ((d 4 (+ d 2)))
    ((> d 14))
  (do ((i 0 (+ i 1)) (sum 0 (+ sum (count (make-tree d)))))
      ((= i (ash 1 (- 14 d))) (format #t "trees of ~a: ~a~%" d sum))))
(format #t "kept: ~a~%" (count kept))

;; Linked data that is changed all the time: old objects refer to young ones.
(define ring (make-vector 20000 '()))
(do ((i 0 (+ i 1)))
    ((= i 600000))
  (let ((k (modulo (* i 7919) 20000)))
    (vector-set! ring k (cons i (if (> (modulo i 13) 0)
                                    (let ((old (vector-ref ring k)))
                                      (if (pair? old) (list (car old)) '()))
                                    '())))))
(format #t "ring: ~a~%"
        (fold (lambda (x sum) (modulo (+ (* 31 sum) (apply + x)) 1000003)) 0
              (vector->list ring)))

(define strings
  (map (lambda (i) (string-append (number->string i) "-" (make-string 50 #\x)))
       (iota 20000)))
(format #t "strings: ~a ~a~%" (length strings)
        (apply + (map string-length strings)))

(define bytes
  (map (lambda (i) (make-bytevector (+ 1 (modulo (* i 37) 5000)) (modulo i 256)))
       (iota 3000)))
(format #t "bytes: ~a~%"
        (fold (lambda (b sum)
                (+ sum (bytevector-u8-ref b (- (bytevector-length b) 1))))
              0 bytes))

(define (factorial n) (if (zero? n) 1 (* n (factorial (- n 1)))))
(format #t "digits: ~a~%" (string-length (number->string (factorial 3000))))
(format #t "sorted: ~a~%"
        (list-head (sort (map (lambda (i) (modulo (* i 104729) 99991))
                              (iota 50000)) <) 10))
