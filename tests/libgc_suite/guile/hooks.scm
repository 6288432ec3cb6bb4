;; SPDX-License-Identifier: MIT
;; Whoever wants to know of collections is told; the figures move.
(define n 0)
(add-hook! after-gc-hook (lambda () (set! n (+ n 1))))
(define before (gc-stats))
(do ((i 0 (+ i 1))) ((= i 20))
  (gc)
  (do ((k 0 (+ k 1))) ((= k 20000)) (list k)))
(define after (gc-stats))
(define (moved key) (> (assq-ref after key) (assq-ref before key)))
(unless (and (> n 2) (moved 'gc-times) (moved 'heap-total-allocated)
             (> (assq-ref after 'heap-size) 0))
  (format #t "~a hooks~%~a~%~a~%" n before after)
  (exit 1))
