// SPDX-License-Identifier: MIT
// Draws the part of the demo's page that is about Guile, with what demo_page.js,
// which comes before it, defines.  data.guile: `runs` (lines of bench-guile),
// `summary` and `remarks` as for the search engine, and `note`, which says why
// the others are empty if they are.
"use strict";

// [[1 / (1 - q), nanoseconds], ...] of "percent:nanoseconds ...".
function quantiles(run) {
	return run.quantiles.split(" ").map(pair => {
		const [percent, ns] = pair.split(":").map(Number);
		return [100 / (100 - percent), ns];
	});
}

const median = values => {
	const v = [...values].sort((a, b) => a - b), half = v.length >> 1;
	return v.length % 2 ? v[half] : (v[half - 1] + v[half]) / 2;
};

function drawResponses(http) {
	const series = [];
	for (const peer of peers) {
		const of = http.filter(r => r.peer === peer).map(quantiles);
		if (of.length > 1)
			for (const points of of)
				series.push({ peer, style: "thin", points });
		const points = of[0].map(([x], i) => [x, median(of.map(p => p[i][1]))]);
		series.push({ peer, style: "", name: peer, end: peer, points,
			text: atPercent });
	}
	const all = series.flatMap(s => s.points);
	chart(el("guile-percentile"), {
		label: "Response time by percentile for Guile on weir and on libgc",
		width: 1100, height: 340, right: 54, reach: 40, series,
		x: rarity(Math.max(...all.map(p => p[0])), "part of all responses"),
		y: decades(all.map(p => p[1]), "response time"),
	});
	legend("legend-guile", peers.map(p => [p, "", "Guile on " + p]));
}

function drawGuile() {
	const { runs, summary, remarks, note } = data.guile;
	const http = runs.filter(r => r.workload === "guile-http");
	el("guile").hidden = !runs.length && !note;
	el("guile-note").textContent = note;
	if (!http.length)
		return;
	el("guile-runs").hidden = false;
	const set = Object.fromEntries(http[0].params.split(" ")
		.map(p => p.split("=")));
	el("guile-what").textContent = "Guile's own web server keeps records of " +
		`${set.live_mib} MiB, replaces one at each request and makes a page of ` +
		`twenty-one; wrk asks for pages for ${set.seconds} s on ` +
		`${set.connections} connections.`;
	drawResponses(http);
	figures("guile-figures", summary);
	el("guile-remarks").textContent = remarks.join(" ");
}

drawGuile();
