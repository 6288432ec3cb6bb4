;; SPDX-License-Identifier: MIT
;; Threads that allocate and share, and a child process that collects.
(use-modules (ice-9 threads) (srfi srfi-1))

(define (work seed)
  (let loop ((i 0) (acc '()) (sum 0))
    (if (= i 200000)
        sum
        (loop (+ i 1)
              (if (zero? (modulo i 1000)) '() (cons (list seed i) acc))
              (+ sum (if (pair? acc) (cadar acc) 0))))))
(format #t "~a~%" (map join-thread
                       (map (lambda (s) (call-with-new-thread
                                         (lambda () (work s))))
                            (iota 4))))

(define table (make-hash-table))
(define m (make-mutex))
(define (fill t)
  (do ((i 0 (+ i 1))) ((= i 5000))
    (let ((k (list t i)))
      (with-mutex m (hash-set! table k (vector t i k))))))
(for-each join-thread
          (map (lambda (t) (call-with-new-thread (lambda () (fill t))))
               (iota 4)))
(gc)
(format #t "~a ~a~%" (hash-count (const #t) table)
        (every (lambda (t)
                 (every (lambda (i)
                          (let ((v (hash-ref table (list t i))))
                            (and (= (vector-ref v 0) t) (= (vector-ref v 1) i))))
                        (iota 5000)))
               (iota 4)))
(format #t "~a~%" (par-map (lambda (i) (length (iota (* 1000 i)))) (iota 8)))

;; Deep recursion: the stack of the virtual machine grows, and is scanned.
(define (deep n) (if (zero? n) '() (cons n (deep (- n 1)))))
(format #t "~a~%" (length (deep 300000)))
(format #t "~a~%"
        (call-with-prompt 'p
          (lambda () (let loop ((i 0)) (abort-to-prompt 'p i) (loop (+ i 1))))
          (lambda (k i)
            (let again ((k k) (i i))
              (if (= i 20000)
                  i
                  (call-with-prompt 'p k again))))))
