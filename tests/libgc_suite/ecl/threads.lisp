;;; SPDX-License-Identifier: MIT
;;; Processes that build and check lists at the same time, hand them over by a
;;; mailbox, a queue with a lock and a condition variable, and end while
;;; collections go on.
(defvar *scale* (let ((s (ext:getenv "SCALE"))) (if s (parse-integer s) 1)))
(defun scaled (n) (max 1 (floor n *scale*)))

(defun make-list* (length value)
  (loop for i below length collect (list value i (* value i))))
(defun sum-list (list)
  (loop for (v i p) in list
        do (unless (= p (* v i)) (format t "NO: ~a ~a ~a~%" v i p))
        sum (+ v i p)))

(defun work (seed)
  (let ((kept (make-array 50 :initial-element nil)) (sum 0))
    (dotimes (k (scaled 2000))
      (let ((at (mod (+ seed (* k 31)) 50)))
        (incf sum (sum-list (aref kept at)))
        (setf (aref kept at) (make-list* (mod (* k seed) 60) k))))
    (+ sum (reduce #'+ kept :key #'sum-list))))

(let ((processes (loop for i from 1 to 6
                       collect (let ((i i))
                                 (mp:process-run-function 'worker
                                                          (lambda ()
                                                            (work i)))))))
  (format t "workers: ~a~%" (mapcar #'mp:process-join processes)))

;; A bounded queue.
(defvar *lock* (mp:make-lock :name 'queue))
(defvar *changed* (mp:make-condition-variable))
(defvar *queue* nil)
(defvar *total* 0)
(defun put (x)
  (mp:with-lock (*lock*)
    (loop while (> (length *queue*) 20)
          do (mp:condition-variable-wait *changed* *lock*))
    (setf *queue* (append *queue* (list x)))
    (mp:condition-variable-broadcast *changed*)))
(defun take ()
  (mp:with-lock (*lock*)
    (loop while (null *queue*)
          do (mp:condition-variable-wait *changed* *lock*))
    (mp:condition-variable-broadcast *changed*)
    (pop *queue*)))
(let* ((n (scaled 1000))
       (producers (loop for i from 1 to 3
                        collect (let ((i i))
                                  (mp:process-run-function
                                   'producer
                                   (lambda ()
                                     (dotimes (k n) (put (make-list* 20 (* i k))))
                                     (put :end))))))
       (consumer (mp:process-run-function
                  'consumer
                  (lambda ()
                    (let ((ends 0) (sum 0))
                      (loop until (= ends 3)
                            do (let ((x (take)))
                                 (if (eq x :end)
                                     (incf ends)
                                     (incf sum (sum-list x)))))
                      sum)))))
  (mapc #'mp:process-join producers)
  (format t "queue: ~d~%" (mp:process-join consumer)))

(let* ((box (mp:make-mailbox :name 'box :count 32))
       (n (scaled 2000))
       (sender (mp:process-run-function
                'sender
                (lambda () (dotimes (k n)
                             (mp:mailbox-send box (make-list* 10 k)))))))
  (format t "mailbox: ~d~%"
          (loop repeat n sum (sum-list (mp:mailbox-read box))))
  (mp:process-join sender))

;; Many that live for a moment.
(format t "short: ~d~%"
        (loop for k below (scaled 200)
              sum (mp:process-join
                   (mp:process-run-function 'short #'sum-list
                                            (make-list* 30 k)))))

;; Collections that are asked for, beside one that conses.
(let* ((stop nil)
       (other (mp:process-run-function
               'other (lambda () (loop until stop do (work 3)) t))))
  (dotimes (i (scaled 20)) (si:gc t))
  (setf stop t)
  (format t "collected beside: ~a~%" (mp:process-join other)))
(ext:quit 0)
