-- SPDX-License-Identifier: MIT
-- For wrk: what bench_guile.py reads, times in microseconds.
local quantiles = { 0, 10, 25, 50, 75, 80, 85, 90, 93, 95, 97, 98, 99, 99.5,
	99.8, 99.9, 99.95, 99.98, 99.99 }

function done(summary, latency, requests)
	local e = summary.errors
	io.write(string.format("requests %d\nduration %d\nerrors %d\nmax %d\n",
		summary.requests, summary.duration,
		e.connect + e.read + e.write + e.status + e.timeout,
		latency.max))
	for _, q in ipairs(quantiles) do
		io.write(string.format("quantile %g %d\n", q,
			q == 0 and latency.min or latency:percentile(q)))
	end
end
