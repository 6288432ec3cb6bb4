# SPDX-License-Identifier: MIT
# Trees, hashes, strings, arrays, closures: made, dropped, summed.  The first
# argument divides the work.
SCALE = (ARGV[0]? || "1").to_i

def scaled(n)
  {n // SCALE, 1}.max
end

class Tree
  getter left : Tree?
  getter right : Tree?

  def initialize(depth)
    if depth > 0
      @left = Tree.new(depth - 1)
      @right = Tree.new(depth - 1)
    end
  end

  def count : Int32
    1 + (@left.try(&.count) || 0) + (@right.try(&.count) || 0)
  end
end

kept = Tree.new(14)
4.step(to: 14, by: 2) do |depth|
  sum = 0
  scaled(1 << (18 - depth)).times { sum += Tree.new(depth).count }
  puts "trees of #{depth}: #{sum}"
end
puts "kept: #{kept.count}"

# Old objects refer to young ones.
ring = Array(Array(Int32)).new(20000) { [] of Int32 }
scaled(600000).times do |i|
  k = (i.to_i64 * 7919 % 20000).to_i
  ring[k] = (i % 13 > 0 && !ring[k].empty?) ? [i, ring[k][0]] : [i]
end
puts "ring: #{ring.reduce(0_i64) { |sum, x| (sum * 31 + x.sum) % 1000003 }}"

table = Hash(String, Array(Int32)).new
scaled(200000).times { |i| table["key-#{i}"] = [i, i &* i] }
scaled(200000).times { |i| table.delete("key-#{i}") if i % 3 == 0 }
puts "table: #{table.size} #{table["key-77"]}"

strings = (0...scaled(20000)).map { |i| "#{i}-#{"x" * 50}" }
puts "strings: #{strings.size} #{strings.sum(&.size)}"
bytes = (0...scaled(3000)).map { |i| Bytes.new(1 + i * 37 % 5000, (i % 256).to_u8) }
puts "bytes: #{bytes.sum { |b| b[-1].to_i }}"

counters = (0...scaled(50000)).map do |i|
  seen = [i]
  ->{ seen << seen.last + 1; seen.size }
end
counters.each &.call
puts "closures: #{counters.sum &.call}"

joined = String.build do |s|
  scaled(100000).times { |i| s << i << ',' }
end
puts "joined: #{joined.size} #{joined.split(',').size}"
puts "sorted: #{(0...scaled(50000)).map { |i| (i.to_i64 * 104729) % 99991 }.sort!.first(10)}"
puts "lazy: #{(1..scaled(100000)).each.map { |i| [i] }.select { |a| a[0].odd? }.map(&.first.to_i64).sum}"
