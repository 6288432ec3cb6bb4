;;; SPDX-License-Identifier: MIT
;;; Trees, tables, strings, bignums, arrays, closures, instances: made, dropped,
;;; summed.  SCALE in the environment divides the work.
(defvar *scale* (let ((s (ext:getenv "SCALE"))) (if s (parse-integer s) 1)))
(defun scaled (n) (max 1 (floor n *scale*)))

(defun make-tree (depth)
  (if (zerop depth)
      (cons nil nil)
      (cons (make-tree (1- depth)) (make-tree (1- depth)))))
(defun count-tree (tree)
  (if (car tree)
      (+ 1 (count-tree (car tree)) (count-tree (cdr tree)))
      1))
(defvar *kept* (make-tree 14))
(loop for depth from 4 to 14 by 2
      do (format t "trees of ~d: ~d~%" depth
                 (loop repeat (scaled (ash 1 (- 15 depth)))
                       sum (count-tree (make-tree depth)))))
(format t "kept: ~d~%" (count-tree *kept*))

;; Old objects refer to young ones.
(defvar *ring* (make-array 20000 :initial-element nil))
(loop for i below (scaled 400000)
      for k = (mod (* i 7919) 20000)
      do (setf (aref *ring* k)
               (cons i (if (plusp (mod i 13))
                           (let ((old (aref *ring* k)))
                             (and old (list (car old))))
                           nil))))
(format t "ring: ~d~%"
        (let ((sum 0))
          (loop for x across *ring*
                do (setf sum (mod (+ (* 31 sum) (reduce #'+ x)) 1000003)))
          sum))

(let ((table (make-hash-table :test 'equal)))
  (dotimes (i (scaled 100000))
    (setf (gethash (format nil "key-~d" i) table) (list i (* i i))))
  (dotimes (i (scaled 100000))
    (when (zerop (mod i 3))
      (remhash (format nil "key-~d" i) table)))
  (format t "table: ~d ~a~%" (hash-table-count table)
          (gethash "key-77" table)))

(let ((strings (loop for i below (scaled 20000)
                     collect (concatenate 'string (princ-to-string i) "-"
                                          (make-string 50 :initial-element
                                                       #\x)))))
  (format t "strings: ~d ~d~%" (length strings)
          (reduce #'+ strings :key #'length)))

(let ((vectors (loop for i below (scaled 3000)
                     collect (make-array (1+ (mod (* i 37) 5000))
                                         :element-type '(unsigned-byte 8)
                                         :initial-element (mod i 256)))))
  (format t "bytes: ~d~%"
          (loop for v in vectors sum (aref v (1- (length v))))))

(labels ((factorial (n) (if (zerop n) 1 (* n (factorial (1- n))))))
  (format t "digits: ~d~%"
          (length (princ-to-string (factorial (scaled 2000))))))

(let ((closures (loop for i below (scaled 50000)
                      collect (let ((i i) (c (list i)))
                                (lambda () (incf i) (push i c) (length c))))))
  (dolist (c closures) (funcall c))
  (format t "closures: ~d~%" (reduce #'+ closures :key #'funcall)))

(defclass node () ((next :initarg :next :reader next)
                   (value :initarg :value :accessor value)))
(let ((list nil))
  (dotimes (i (scaled 50000))
    (setf list (make-instance 'node :next list :value (list i))))
  (format t "instances: ~d~%"
          (loop for n = list then (next n)
                while n sum (first (value n)))))

(format t "sorted: ~a~%"
        (subseq (sort (loop for i below (scaled 50000)
                            collect (mod (* i 104729) 99991)) #'<)
                0 10))
(format t "adjusted: ~d~%"
        (let ((v (make-array 1 :adjustable t :fill-pointer 0)))
          (dotimes (i (scaled 200000)) (vector-push-extend (list i) v))
          (loop for x across v sum (car x))))
(ext:quit 0)
