# SPDX-License-Identifier: MIT
# Much of the standard library for the compiler to chew on; it is compiled, not
# run.
require "benchmark"
require "colorize"
require "compiler/crystal/syntax"
require "complex"
require "csv"
require "digest/sha256"
require "ini"
require "json"
require "log"
require "option_parser"
require "spec"
require "string_pool"
require "uri"
require "uuid"

record Point, x : Int32, y : Float64, tags : Array(String) do
  include JSON::Serializable
end

points = Array(Point).from_json(STDIN)
puts points.group_by(&.x).transform_values(&.map(&.y).sum).to_json
puts CSV.build { |csv| points.each { |p| csv.row p.x, p.y, p.tags.join } }
puts INI.build({"a" => {"b" => points.size.to_s}})
puts Digest::SHA256.hexdigest(points.to_s), UUID.random, Complex.new(1, 2) * 2
puts Crystal::Parser.parse("1 + {2 => foo(&.bar)}").to_s.colorize(:red)
OptionParser.parse { |o| o.on("-u", "a URI") { puts URI.parse("http://a/b") } }
Log.info { Benchmark.realtime { points.sort_by!(&.y) }.to_s }
describe("points") { it("are some") { points.empty?.should be_false } }
