;; SPDX-License-Identifier: MIT
;;
;; table.scm LIVE-MIB MAKE-MIB: a table of lists of 64 numbers fills LIVE-MIB;
;; then lists of MAKE-MIB in all take the places of others, any of them.  What
;; is new lives long and what is old dies: the opposite of what generations are
;; made for, and the program does nothing but allocate.
;;
;; Prints a checksum, and the seconds that it took.

(define live-mib (string->number (cadr (command-line))))
(define make-mib (string->number (caddr (command-line))))
(define length-of-one 64)
(define bytes-of-one (* 16 length-of-one))
(define begin-time (get-internal-real-time))

(define (build i)
  (let loop ((k 0) (l '()))
    (if (= k length-of-one)
        l
        (loop (+ k 1) (cons (logxor i k) l)))))

(define n (quotient (* live-mib 1048576) bytes-of-one))
(define table (make-vector n '()))

(do ((i 0 (+ i 1))) ((= i n))
  (vector-set! table i (build i)))

(define random-state 12345)
(define (next!)
  (set! random-state
        (logand (+ (* random-state 1103515245) 12345) #x7fffffff))
  random-state)

(do ((i (quotient (* make-mib 1048576) bytes-of-one) (- i 1))) ((= i 0))
  (let ((k (modulo (ash (next!) -4) n)))
    (vector-set! table k (build k))))

(display
 (let loop ((i 0) (sum 0))
   (if (= i n)
       sum
       (let ((l (vector-ref table i)))
         (unless (= (length l) length-of-one)
           (error "a list was damaged" i))
         (loop (+ i 1) (logand (+ sum (car l) (* i (cadr l))) #xffffffff))))))
(newline)
(display (exact->inexact
          (/ (- (get-internal-real-time) begin-time)
             internal-time-units-per-second)))
(newline)
