;;; SPDX-License-Identifier: MIT
;;; Weak tables, weak pointers and finalizers: what lives stays in them, what
;;; died leaves them.  No conses as keys and values: ECL's weak references to
;;; them are neither weak nor strong, on any collector.
(defun say (what ok) (format t "~a: ~a~%" what (if ok "yes" "NO")))
(defun churn () (dotimes (i 100000) (list i i i)))
(defun collect () (dotimes (i 3) (churn) (si:gc t)))
(defconstant +n+ 1000)
(defun most-dead (n) (< n (/ +n+ 10)))

(defvar *keys* (loop for i below +n+ collect (vector 'key i)))
(defvar *values* (loop for i below +n+ collect (vector 'value i)))
(defun id (x) (aref x 1))

;; Keys that live keep their values; garbage goes.
(defun fill-by-key (table dead)
  (loop for k in *keys* do (setf (gethash k table) (id k)))
  (dotimes (i dead) (setf (gethash (vector i i) table) i)))
(defvar *by-key* (make-hash-table :test 'eq :weakness :key))
(fill-by-key *by-key* 20000)
(collect)
(say "live keys stay"
     (every (lambda (k) (eql (gethash k *by-key*) (id k))) *keys*))
(say "dead keys leave" (most-dead (- (hash-table-count *by-key*) +n+)))

(defvar *by-value* (make-hash-table :test 'eql :weakness :value))
(loop for v in *values* do (setf (gethash (id v) *by-value*) v))
(loop for i from +n+ below 20000
      do (setf (gethash i *by-value*) (vector i i)))
(collect)
(say "live values stay"
     (every (lambda (v) (eq (gethash (id v) *by-value*) v)) *values*))
(say "dead values leave" (most-dead (- (hash-table-count *by-value*) +n+)))

(dolist (weakness '(:key-and-value :key-or-value))
  (let ((table (make-hash-table :test 'eq :weakness weakness)))
    (loop for k in *keys* for v in *values* do (setf (gethash k table) v))
    (dotimes (i 5000) (setf (gethash (vector i) table) (vector i)))
    (collect)
    (say (format nil "~(~a~) keeps" weakness)
         (loop for k in *keys* for v in *values*
               always (eq (gethash k table) v)))
    (say (format nil "~(~a~) clears" weakness)
         (most-dead (- (hash-table-count table) +n+)))))

;; A weak table that grows while collections go on.
(let ((grown (make-hash-table :test 'eq :weakness :key)) (kept nil))
  (dotimes (i 20000)
    (let ((k (vector i i)))
      (when (zerop (mod i 3)) (push k kept))
      (setf (gethash k grown) i)))
  (say "grown" (every (lambda (k) (eql (gethash k grown) (id k))) kept)))

(defun dead-pointers ()
  (loop for i below +n+ collect (ext:make-weak-pointer (vector i))))
(let ((live (mapcar #'ext:make-weak-pointer *keys*)) (dead (dead-pointers)))
  (collect)
  (say "weak pointers keep"
       (every (lambda (p k) (eq (ext:weak-pointer-value p) k)) live *keys*))
  (say "weak pointers clear"
       (most-dead (count-if #'ext:weak-pointer-value dead))))

;; Each once, with what the object has, and none of a live object.
(defvar *ran* (make-array +n+ :initial-element 0))
(defvar *conses* 0)
(defvar *live-ran* 0)
(defvar *wrong* 0)
(defun guard-dead ()
  (dotimes (i +n+)
    (let ((n i))
      (ext:set-finalizer (vector 'dead (list i))
                         (lambda (o)
                           (incf (aref *ran* n))
                           (unless (equal (id o) (list n)) (incf *wrong*)))))
    (ext:set-finalizer (list i)
                       (lambda (o) (when (consp o) (incf *conses*))))))
(guard-dead)
(dolist (k *keys*)
  (ext:set-finalizer k (lambda (o) (declare (ignore o)) (incf *live-ran*))))
(collect) (collect)
(say "finalizers ran" (most-dead (- +n+ (count 1 *ran*))))
(say "none twice" (notany (lambda (n) (> n 1)) *ran*))
(say "nor of what was lost" (zerop *wrong*))
(say "those of conses" (most-dead (- +n+ *conses*)))
(say "none of the living" (zerop *live-ran*))
(say "the living are whole"
     (loop for k in *keys* for i from 0 always (equalp k (vector 'key i))))
(ext:quit 0)
