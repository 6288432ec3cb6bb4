;; SPDX-License-Identifier: MIT
;; Compile the first argument to the second.
(use-modules (system base compile))
(let ((args (command-line)))
  (compile-file (cadr args) #:output-file (caddr args)))
