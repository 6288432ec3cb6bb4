# SPDX-License-Identifier: MIT
# Large attribute sets, lists and strings, folds, recursion, laziness: nothing
# but the evaluator.  `size` divides nothing when it is 1.
{ size ? 1 }:
let
  inherit (builtins) add all any attrNames attrValues concatStringsSep elemAt
    filter foldl' fromJSON genList groupBy hashString length listToAttrs
    mapAttrs replaceStrings sort split stringLength substring toJSON;
  n = k: k / size + 1;
  mod = a: b: a - (a / b) * b;
  sum = foldl' add 0;

  pairs = genList (i: { name = "attribute${toString i}"; value = i * i; })
    (n 100000);
  set = listToAttrs pairs;

  tree = d: if d == 0 then { } else { l = tree (d - 1); r = tree (d - 1); };
  count = t: if t == { } then 1 else 1 + count t.l + count t.r;
  kept = tree 13;

  updated = foldl'
    (a: i: a // { "k${toString (mod i 500)}" = [ i (a.k0 or null) ]; })
    { } (genList (i: i) (n 5000));

  fix = f: let x = f x; in x;
  fibs = fix (self: genList
    (i: if i < 2 then i else mod (elemAt self (i - 1) + elemAt self (i - 2))
      1000007) (n 2000));

  primes = let go = l: if l == [ ] then [ ] else
      let p = elemAt l 0; in [ p ] ++ go (filter (x: mod x p != 0) l);
    in go (genList (i: i + 2) (n 2000));

  text = concatStringsSep "," (map toString (genList (i: i * 7) (n 20000)));
  words = filter builtins.isString (split "," text);
  json = fromJSON (toJSON (mapAttrs (k: v: { inherit v; k = [ k ]; }) set));
in
{
  set = sum (attrValues set);
  names = hashString "sha256" (concatStringsSep ":" (attrNames set));
  trees = sum (map (i: count (tree (mod i 10))) (genList (i: i) (n 200)));
  updated = { names = length (attrNames updated); k7 = elemAt updated.k7 0; };
  fib = elemAt fibs (length fibs - 1);
  primes = { count = length primes; sum = sum primes; };
  text = hashString "sha256" (replaceStrings [ "1" "23" ] [ "one" "" ] text);
  words = length words;
  json = { n = length (attrNames json); v = json.attribute77.v; };
  sorted = hashString "md5" (toJSON (sort (a: b: a < b)
    (genList (i: mod (i * 104729) 99991) (n 20000))));
  groups = mapAttrs (k: length)
    (groupBy (s: substring 0 1 s) (attrNames set ++ words));
  kept = count kept;
  caught = (builtins.tryEval (throw "up")).success;
}
