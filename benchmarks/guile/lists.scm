;; SPDX-License-Identifier: MIT
;;
;; lists.scm LIVE-MIB MAKE-MIB: a table of lists, of 64 pairs each when they are
;; full, fills LIVE-MIB.  Pairs are put in front of any list, so that those of
;; one lie far apart; a list that has more than 64 begins anew.  MAKE-MIB of
;; pairs are made once the table is full.
;;
;; Prints a checksum, and the seconds that it took.

(define live-mib (string->number (cadr (command-line))))
(define make-mib (string->number (caddr (command-line))))
(define full 64)
(define n (quotient (* live-mib 1048576) (* 16 (quotient full 2))))
(define table (make-vector n '()))
(define begin-time (get-internal-real-time))

(define random-state 12345)
(define (next!)
  (set! random-state
        (logand (+ (* random-state 1103515245) 12345) #x7fffffff))
  random-state)

;; The first of a list is how many pairs there are.
(define (push! i)
  (let* ((l (vector-ref table i))
         (k (if (null? l) 0 (car l))))
    (vector-set! table i (if (= k full) '() (cons (+ k 1) l)))))

(do ((i 0 (+ i 1))) ((= i n))
  (do ((l '() (cons (+ k 1) l))
       (k 0 (+ k 1)))
      ((= k (modulo i full)) (vector-set! table i l))))

(do ((i (quotient (* make-mib 1048576) 16) (- i 1))) ((= i 0))
  (push! (modulo (ash (next!) -3) n)))

(display
 (let loop ((i 0) (sum 0))
   (if (= i n)
       sum
       (let ((l (vector-ref table i)))
         (unless (= (length l) (if (null? l) 0 (car l)))
           (error "a list was damaged" i))
         (loop (+ i 1) (logand (+ sum (* (modulo i 997) (length l)))
                               #xffffffff))))))
(newline)
(display (exact->inexact
          (/ (- (get-internal-real-time) begin-time)
             internal-time-units-per-second)))
(newline)
