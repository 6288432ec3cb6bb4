;;; SPDX-License-Identifier: MIT
;;; A large file is written, compiled to C, by the C compiler to a loadable
;;; file, loaded and called.  FUNCTIONS in the environment is how many it has.
(defvar *n* (let ((s (ext:getenv "FUNCTIONS"))) (if s (parse-integer s) 300)))
(defvar *name* (ext:getenv "NAME"))

(with-open-file (out (format nil "~a.lisp" *name*) :direction :output
                     :if-exists :supersede)
  (with-standard-io-syntax
    (print '(defstruct point x y (tag "none")) out)
    (print '(defmacro twice (form) `(progn ,form ,form)) out)
    (dotimes (i *n*)
      (let ((f (intern (format nil "F~d" i)))
            (g (intern (format nil "F~d" (max 0 (1- i))))))
        (print
         `(defun ,f (n &key (depth 2) (list '(,i "a" #\b ,(* i 1/3))))
            ,(format nil "The function number ~d." i)
            (let ((p (make-point :x n :y ,i)) (sum ,i))
              (labels ((walk (l) (cond ((null l) 0)
                                       ((consp l) (+ 1 (walk (cdr l))))
                                       (t (error "not a list")))))
                (twice (incf sum (walk list)))
                (dolist (x list)
                  (typecase x
                    (integer (incf sum (mod x 7)))
                    (string (incf sum (length x)))
                    (t (incf sum))))
                (handler-case (setf (point-x p) (/ n ,(mod i 3)))
                  (division-by-zero () (setf (point-x p) 0)))
                (funcall (lambda (&rest r) (incf sum (length r))) p n sum)
                ,(if (zerop i)
                     'sum
                     `(if (zerop depth)
                          sum
                          (+ sum (mod (,g n :depth (1- depth)) 1000)))))))
         out)))
    (print `(defun all (n)
              (+ ,@(loop for i below *n*
                         collect `(,(intern (format nil "F~d" i)) n))))
           out)))

(let ((fas (let ((*standard-output* (make-broadcast-stream)))
             (compile-file (format nil "~a.lisp" *name*)
                           :c-file t :h-file t :data-file t
                           :verbose nil :print nil))))
  (format t "compiled: ~a~%" (and fas t))
  (load fas)
  (format t "all: ~a~%" (loop for i below 20 collect (all i))))
(ext:quit 0)
