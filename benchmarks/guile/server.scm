;; SPDX-License-Identifier: MIT
;;
;; server.scm PORT LIVE-MIB: Guile's own web server on the loopback device, with
;; a store of records that fill LIVE-MIB.  A request replaces one record, and
;; gets a page that tells of it and of twenty more, made from SXML.
;;
;; Prints "ready" once it listens.

(use-modules (web server)
             (web server http) ; or the first request waits for it to load
             (web request)
             (web response)
             (web uri)
             (sxml simple)
             (ice-9 hash-table))

(define port (string->number (cadr (command-line))))
(define live-mib (string->number (caddr (command-line))))

;; A record: a vector of a number, a list and a string; about 1 KiB.
(define list-length 40)
(define (record i)
  (vector i (iota list-length i) (make-string 72 #\x) (make-vector 6 i)))
(define n (* live-mib 1024))
(define store (make-vector n #f))
(do ((i 0 (+ i 1))) ((= i n))
  (vector-set! store i (record i)))

(define turn 0)

(define (row i)
  (let ((r (vector-ref store (modulo i n))))
    `(tr (td ,(number->string (vector-ref r 0)))
         (td ,(number->string (apply + (vector-ref r 1))))
         (td (a (@ (href ,(string-append "/" (number->string i))))
                ,(vector-ref r 2))))))

(define (page i)
  `(html (head (title ,(number->string i)))
         (body (h1 "Record " ,(number->string i))
               (table ,@(map row (iota 20 i 7919))))))

(define (handler request body)
  (set! turn (modulo (+ turn 7477) n))
  (vector-set! store turn (record turn))
  (values '((content-type . (text/html)))
          (lambda (port) (sxml->xml (page turn) port))))

(define listener
  (let ((s (socket PF_INET SOCK_STREAM 0)))
    (setsockopt s SOL_SOCKET SO_REUSEADDR 1)
    (bind s AF_INET INADDR_LOOPBACK port)
    (listen s 128)
    s))

(display "ready")
(newline)
(force-output)
(run-server handler 'http `(#:socket ,listener))
