-- SPDX-License-Identifier: MIT
-- Groebner bases, resolutions, matrices, tables and strings.  SCALE in the
-- environment divides the work.
scale = value (s := getenv "SCALE"; if s == "" then "1" else s)
scaled = n -> max(1, n // scale)

R = QQ[a..h]
I = ideal(a*b - c*d + e, b*c - d*e + f^2, c*d - e*f + g*a, d*e - f*g + h)
print numColumns gens gb I
print (dim I, degree I)
S = ZZ/32003[x_0..x_5]
J = monomialCurveIdeal(S, {1, 2, 3, 5, 8})
print betti res J
print hilbertPolynomial(J, Projective => false)
print sum for i from 1 to scaled 40 list rank random(S^20, S^20)

tree = n -> if n == 0 then {} else {tree(n - 1), tree(n - 1)}
count = t -> if #t == 0 then 1 else 1 + sum apply(t, count)
kept = tree 12
print sum for i from 1 to scaled 200 list count tree(i % 9)
print count kept

table' = new MutableHashTable
for i from 1 to scaled 50000 do table'#(toString i) = {i, i^2}
for i from 1 to scaled 50000 do if i % 3 == 0 then remove(table', toString i)
print (#table', table'#"77")
print sum apply(values table', l -> l#0)
print length concatenate for i from 1 to scaled 20000 list toString(i * 7)
print (det matrix for i from 1 to 12 list for j from 1 to 12 list 1/(i + j))
print length toString (scaled 3000)!
print factor(2^64 + 1)
print take(sort for i from 1 to scaled 20000 list (i * 104729) % 99991, 10)
f = i -> (l := toList(0..i); () -> (l = append(l, #l); #l))
print sum apply(for i from 1 to scaled 500 list f i, g -> (g(); g()))
exit 0
