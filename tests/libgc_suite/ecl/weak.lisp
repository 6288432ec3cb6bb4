;;; SPDX-License-Identifier: MIT
;;; Weak tables, weak pointers and finalizers: what lives stays in them, what
;;; died leaves them.
(defun say (what ok) (format t "~a: ~a~%" what (if ok "yes" "NO")))
(defun churn () (dotimes (i 100000) (list i i i)))
(defun collect () (dotimes (i 3) (churn) (si:gc t)))
(defconstant +n+ 1000)

(defvar *keys* (loop for i below +n+ collect (list 'key i)))
(defvar *values* (loop for i below +n+ collect (list 'value i)))

;; Keys that live keep their values; garbage goes.
(defun fill-by-key (table dead)
  (loop for k in *keys* do (setf (gethash k table) (list 'of (second k))))
  (dotimes (i dead) (setf (gethash (list i) table) (list i))))
(defvar *by-key* (make-hash-table :test 'eq :weakness :key))
(fill-by-key *by-key* 20000)
(collect)
(say "live keys keep values"
     (every (lambda (k) (equal (gethash k *by-key*) (list 'of (second k))))
            *keys*))
(say "dead keys leave" (< (hash-table-count *by-key*) (* 5 +n+)))

(defvar *by-value* (make-hash-table :test 'eql :weakness :value))
(loop for v in *values* do (setf (gethash (second v) *by-value*) v))
(loop for i from +n+ below 20000
      do (setf (gethash i *by-value*) (list i)))
(collect)
(say "live values stay"
     (every (lambda (v) (eq (gethash (second v) *by-value*) v)) *values*))
(say "dead values leave" (< (hash-table-count *by-value*) (* 5 +n+)))

(dolist (weakness '(:key-and-value :key-or-value))
  (let ((table (make-hash-table :test 'eq :weakness weakness)))
    (loop for k in *keys* for v in *values* do (setf (gethash k table) v))
    (collect)
    (say (format nil "~(~a~) keeps" weakness)
         (loop for k in *keys* for v in *values*
               always (eq (gethash k table) v)))))

;; A weak table that grows while collections go on.
(let ((grown (make-hash-table :test 'eq :weakness :key)) (kept nil))
  (dotimes (i 20000)
    (let ((k (cons i i)))
      (when (zerop (mod i 3)) (push k kept))
      (setf (gethash k grown) (vector i))))
  (say "grown" (every (lambda (k) (eql (aref (gethash k grown) 0) (car k)))
                      kept)))

(let ((pointers (mapcar #'ext:make-weak-pointer *keys*)))
  (collect)
  (say "weak pointers keep"
       (every (lambda (p k) (eq (ext:weak-pointer-value p) k))
              pointers *keys*)))
(defun dead-pointers ()
  (loop for i below +n+ collect (ext:make-weak-pointer (list i))))
(let ((pointers (dead-pointers)))
  (collect)
  (say "weak pointers clear"
       (< (count-if #'ext:weak-pointer-value pointers) (/ +n+ 10))))

;; Each once, and none of a live object.
(defvar *ran* (make-array +n+ :initial-element 0))
(defvar *live-ran* 0)
(defun guard-dead ()
  (dotimes (i +n+)
    (let ((n i))
      (ext:set-finalizer (list 'dead i)
                         (lambda (o) (incf (aref *ran* n))
                           (unless (eql (second o) n) (print "NO")))))))
(guard-dead)
(dolist (k *keys*)
  (ext:set-finalizer k (lambda (o) (declare (ignore o)) (incf *live-ran*))))
(collect) (collect)
(say "finalizers ran" (> (count 1 *ran*) (* 9/10 +n+)))
(say "none twice" (notany (lambda (n) (> n 1)) *ran*))
(say "none of the living" (zerop *live-ran*))
(say "the keys are whole"
     (loop for k in *keys* for i from 0 always (equal k (list 'key i))))
(ext:quit 0)
