# SPDX-License-Identifier: MIT
# Fibers: what only their stacks refer to, deep and shallow, while they switch
# all the time, come and go; channels, select, mutexes, exceptions, a pipe and a
# child process.  The first argument divides the work.
SCALE = (ARGV[0]? || "1").to_i

def scaled(n)
  {n // SCALE, 1}.max
end

class Node
  getter next : Node?
  getter value : Int32

  def initialize(@value, @next)
  end
end

def make(length, value)
  list = nil
  length.times { |i| list = Node.new(value &+ i, list) }
  list
end

def sum(list)
  total = 0_i64
  while list
    total += list.value
    list = list.next
  end
  total
end

# Frames with a list each; the deepest lets others run.
def dive(depth, seed) : Int64
  list = make(1 + seed % 20, seed)
  below = depth > 0 ? dive(depth - 1, (seed &* 7 &+ depth) % 1000) : begin
    Fiber.yield
    0_i64
  end
  make(20, 0)
  Fiber.yield if seed % 5 == 0
  below + sum(list)
end

results = Channel(Int64).new
20.times do |k|
  spawn do
    total = 0_i64
    scaled(3000).times { |i| total += dive(i % 8, (i &* 31 &+ k) % 1000) }
    results.send(total)
  end
end
totals = [] of Int64
20.times { totals << results.receive }
puts "dives: #{totals.sum}"

puts "deep: #{begin
                done = Channel(Int64).new
                5.times { |k| spawn { done.send dive(3000, k) } }
                Array.new(5) { done.receive }.sum
              end}"

# Come and go: stacks are used again.
gone = Channel(Int64).new(16)
spawn do
  scaled(30000).times do |i|
    spawn { gone.send sum(make(i % 50, i)) }
    Fiber.yield if i % 10 == 0
  end
end
puts "come and gone: #{(0...scaled(30000)).sum { gone.receive }}"

# A chain of filters.
def numbers(n)
  out = Channel(Array(Int32)).new
  spawn do
    n.times { |i| out.send [i + 2] }
    out.send [0]
  end
  out
end

source = numbers(scaled(5000))
primes = [] of Int32
loop do
  prime = source.receive[0]
  break if prime == 0
  primes << prime
  input, output = source, Channel(Array(Int32)).new
  spawn do
    loop do
      x = input.receive
      output.send x.dup if x[0] == 0 || x[0] % prime != 0
      break if x[0] == 0
    end
  end
  source = output
end
puts "primes: #{primes.size} #{primes.sum}"

a = Channel(String).new
b = Channel(Array(String)).new(4)
spawn { scaled(20000).times { |i| a.send "a#{i}" } }
spawn { scaled(20000).times { |i| b.send ["b", i.to_s] } }
length = 0
(2 * scaled(20000)).times do
  select
  when s = a.receive
    length += s.size
  when l = b.receive
    length += l.sum &.size
  end
end
puts "selected: #{length}"

mutex = Mutex.new
shared = {} of String => Array(Int32)
finished = Channel(Nil).new
8.times do |k|
  spawn do
    scaled(4000).times do |i|
      mutex.synchronize do
        (shared["#{i % 50}"] ||= [] of Int32) << k
        Fiber.yield if i % 7 == 0
      end
    end
    finished.send nil
  end
end
8.times { finished.receive }
puts "shared: #{shared.size} #{shared.values.sum &.size}"

raised = Channel(Exception | Int32).new
20.times do |k|
  spawn do
    begin
      dive(k, k)
      raise "number #{k}" if k.odd?
      raised.send k
    rescue ex
      raised.send ex
    end
  end
end
puts "raised: #{(0...20).map { raised.receive }.map { |x| x.is_a?(Int32) ? x.to_s : x.message.not_nil! }.sort!}"

reader, writer = IO.pipe
spawn do
  scaled(30000).times { |i| writer.puts "line #{i} #{"y" * (i % 40)}" }
  writer.close
end
puts "piped: #{reader.each_line.map(&.size).sum}"

puts "child: #{Process.run("echo", {"from a child"}, output: Process::Redirect::Pipe) { |p| p.output.gets_to_end }}"
puts "slept: #{begin
                 awake = Channel(Int32).new
                 10.times { |k| spawn { sleep (10 - k).milliseconds; make(1000, k); awake.send k } }
                 Array.new(10) { awake.receive }.sort
               end}"
GC.collect
puts "end"
