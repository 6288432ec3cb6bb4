# SPDX-License-Identifier: MIT
# Functions that are called while a path is copied to the store, on the stack of
# a coroutine, with references that only the stack that was left has.
{ path, size ? 1 }:
let
  inherit (builtins) add foldl' genList length;
  churn = i: foldl' add 0 (genList (k: k * i) (50000 / size));
  filter = name: type: churn (builtins.stringLength name) >= 0;
  copy = i: "${builtins.path { name = "copy${toString i}"; inherit path filter; }}";
  kept = genList (i: { inherit i; list = genList (k: k + i) 100; }) 100;
in
{
  before = foldl' (a: x: a + length x.list + x.i) 0 kept;
  paths = map copy (genList (i: i) (10 / size));
  after = foldl' (a: x: a + foldl' add 0 x.list) 0 kept;
}
