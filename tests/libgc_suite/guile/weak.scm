;; SPDX-License-Identifier: MIT
;; Weak tables, weak vectors and guardians: what lives stays in them, what
;; died leaves them.
(use-modules (ice-9 weak-vector) (srfi srfi-1))

(define (say what ok) (format #t "~a: ~a~%" what (if ok "yes" "NO")))
(define (churn)
  (do ((i 0 (+ i 1))) ((= i 200000)) (list i i i)))

(define n 2000)
(define (numbers) (iota n))

;; Keys that live keep their values; garbage goes.
(define by-key (make-weak-key-hash-table))
(define keys (map list (numbers)))
(for-each (lambda (k) (hashq-set! by-key k (list 'value (car k)))) keys)
(do ((i 0 (+ i 1))) ((= i 50000)) (hashq-set! by-key (list i) (list i)))
(churn) (gc) (churn) (gc)
(say "live keys keep values"
     (every (lambda (k) (equal? (hashq-ref by-key k) (list 'value (car k))))
            keys))
(say "dead keys leave"
     (< (hash-fold (lambda (k v sum) (+ sum 1)) 0 by-key) (* 10 n)))

(define by-value (make-weak-value-hash-table))
(define values* (map (lambda (i) (list 'v i)) (numbers)))
(for-each (lambda (v) (hashv-set! by-value (cadr v) v)) values*)
(do ((i n (+ i 1))) ((= i 50000)) (hashv-set! by-value i (list i)))
(churn) (gc) (churn) (gc)
(say "live values stay"
     (every (lambda (v) (eq? (hashv-ref by-value (cadr v)) v)) values*))
(say "dead values leave"
     (< (count (lambda (i) (hashv-ref by-value i)) (iota 48000 n)) 5000))

(define both (make-doubly-weak-hash-table))
(for-each (lambda (k v) (hashq-set! both k v)) keys values*)
(churn) (gc)
(say "doubly weak" (every (lambda (k v) (eq? (hashq-ref both k) v))
                          keys values*))

;; A weak table that grows while collections go on.
(define grown (make-weak-key-hash-table))
(define more '())
(do ((i 0 (+ i 1))) ((= i 30000))
  (let ((k (cons i i)))
    (when (zero? (modulo i 3)) (set! more (cons k more)))
    (hashq-set! grown k (vector i))))
(say "grown" (every (lambda (k) (= (vector-ref (hashq-ref grown k) 0) (car k)))
                    more))

(define wv (make-weak-vector n #f))
(for-each (lambda (i k) (weak-vector-set! wv i k)) (numbers) keys)
(gc) (churn) (gc)
(say "weak vector keeps"
     (every (lambda (i k) (eq? (weak-vector-ref wv i) k)) (numbers) keys))
(for-each (lambda (i) (weak-vector-set! wv i (list i))) (numbers))
(churn) (gc) (churn) (gc)
(say "weak vector clears"
     (< (count (lambda (i) (weak-vector-ref wv i)) (numbers)) (/ n 2)))

;; A symbol that only the dropped ones had would leave the symbol table with
;; them, under any collector, and be another one when it is read again.
(define dropped 'dropped)
(define g (make-guardian))
(define guarded (map (lambda (i) (list 'kept i)) (iota 100)))
(for-each g guarded)
(do ((i 0 (+ i 1))) ((= i n)) (g (list dropped i)))
(churn) (gc) (churn) (gc)
(define got (let loop ((got '())) (let ((x (g))) (if x (loop (cons x got)) got))))
(say "guardian returns what died" (> (length got) (/ n 2)))
(say "guardian returns it whole"
     (every (lambda (x) (and (eq? (car x) dropped) (< -1 (cadr x) n))) got))
(say "guardian returns each once"
     (= (length got) (length (delete-duplicates (map cadr got)))))
(say "what lives is not returned" (every (lambda (x) (eq? (car x) 'kept))
                                         guarded))
(say "gc-stats" (> (assq-ref (gc-stats) 'gc-times) 3))
