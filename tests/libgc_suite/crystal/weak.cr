# SPDX-License-Identifier: MIT
# Weak references and finalizers: what lives stays, what died goes.
require "weak_ref"

N = 1000

class Counted
  class_property ran = Array(Int32).new(N * 2, 0)
  getter id : Int32
  getter data : Array(Int32)

  def initialize(@id)
    @data = [@id, @id + 1]
  end

  def finalize
    Counted.ran[@id] += 1
  end
end

def say(what, ok)
  puts "#{what}: #{ok ? "yes" : "NO"}"
end

def collect
  5.times do
    200000.times { |i| [i, i] }
    GC.collect
  end
end

@[NoInline]
def make(range)
  range.map { |i| Counted.new(i) }
end

@[NoInline]
def weak_of(list)
  list.map { |x| WeakRef.new(x) }
end

@[NoInline]
def make_dead
  make(N...2 * N)
  (0...N).map { |i| WeakRef.new([i, i]) }
end

live = make(0...N)
weak = weak_of(live)
dead = make_dead
collect
say "live references stay", weak.zip(live).all? { |w, x| w.value.same?(x) }
say "dead references go", dead.count(&.value) < N // 10
say "finalizers ran", Counted.ran[N, N].count(1) > N * 9 // 10
say "none twice", Counted.ran.all? { |n| n < 2 }
say "none of the living", Counted.ran[0, N].all?(0)
say "the living are whole", live.each_with_index.all? { |x, i| x.data == [i, i + 1] }
