% SPDX-License-Identifier: MIT
% A score that is computed: four voices, dynamics, slurs, lyrics, chords; Scheme
% that conses.  SCALE in the environment divides the work.
\version "2.24.0"

#(define scale (string->number (or (getenv "SCALE") "1")))
#(define (scaled n) (max 1 (quotient n scale)))
#(define (note octave i)
   (make-music 'NoteEvent
     'duration (ly:make-duration (if (zero? (modulo i 5)) 3 4))
     'pitch (ly:make-pitch octave (modulo (* i i 3) 7)
              (if (zero? (modulo i 11)) SHARP NATURAL))))
#(define (run octave n)
   (make-music 'SequentialMusic 'elements
     (map (lambda (i)
            (if (zero? (modulo i 9))
                (make-music 'EventChord 'elements
                  (list (note octave i) (note (+ octave 1) (+ i 5))))
                (note octave i)))
          (iota n))))
#(define kept (map (lambda (i) (make-vector 10 i)) (iota 20000)))

voice = #(define-music-function (octave n) (integer? integer?)
  #{ { #(run octave (scaled n)) } #})

\header { title = "Computed" tagline = ##f }
\score {
  \new StaffGroup <<
    \new Staff { \clef treble \tempo 4 = 96 \voice #1 #600 }
    \new Staff { \clef treble \key d \major \voice #0 #600 }
    \new Staff { \clef bass \voice #-1 #600 }
    \new Staff \relative c' {
      \repeat unfold 20 { c8\p\<( d e f g a b c\f) | c4-. b-> a-- g\fermata }
    }
    \addlyrics { \repeat unfold 40 { la -- la le lu } }
    \chords { \repeat unfold 20 { c2 g:7 a:m f:maj7 } }
  >>
  \layout { }
  \midi { }
}
#(if (not (every (lambda (v i) (= (vector-ref v 9) i)) kept (iota 20000)))
     (ly:error "kept vectors have changed"))
