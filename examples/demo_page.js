// SPDX-License-Identifier: MIT
// Draws the demo's page from the JSON in the element "data": an object with
// `runs` (the programs' own reports, in the order they ran), `summary` (rows
// of the table), `machine`, `info`, `warning` and `remarks`, and `guile`, which
// demo_guile.js draws.  No library, no network.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
for (const s of [...data.summary, ...data.guile.summary])
	for (const k of ["weir", "libgc"])
		s[k] = s[k].replace(/ us$/, " µs");
const peers = ["weir", "libgc"];
const byPeer = Object.fromEntries(
	peers.map(p => [p, data.runs.filter(r => r.peer === p)]));
const pairs = Math.max(...peers.map(p => byPeer[p].length));
const S = 1e9, MIB = 1 << 20;

// ---- Small helpers --------------------------------------------------------

const el = id => document.getElementById(id);
const round = x => Math.round(x * 10) / 10;

function node(parent, name, attributes, text) {
	const svg = name !== "div" && name !== "span" && name !== "table" &&
		name !== "tr" && name !== "td" && name !== "th" &&
		name !== "figure" && name !== "figcaption";
	const n = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) :
		document.createElement(name);
	for (const k in attributes || {})
		n.setAttribute(k, attributes[k]);
	if (text !== undefined)
		n.textContent = text;
	parent.appendChild(n);
	return n;
}

function digits(x) {
	return x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x.toFixed(2);
}

function time(ns) {
	if (ns >= 1e9)
		return digits(ns / 1e9) + " s";
	if (ns >= 1e6)
		return digits(ns / 1e6) + " ms";
	return (ns >= 1e3 ? digits(ns / 1e3) : (ns / 1e3).toFixed(1)) + " µs";
}

const size = b => (b / MIB).toFixed(0) + " MiB";

// ---- One chart ------------------------------------------------------------

// Axes: { min, max, log, ticks: [[value, text], ...], title }.  Series:
// { peer, name, points: [[x, y], ...], style: "line" | "thin" | "dash" |
// "stem" | "dot", text(point) }.  Bands: [from, to] in x.
function chart(parent, o) {
	const W = o.width || 540, H = o.height || 250;
	const L = 78, R = o.right || 16, T = 12, B = 42;
	const svg = node(parent, "svg", { viewBox: `0 0 ${W} ${H}`, role: "img",
		"aria-label": o.label });
	const scale = (a, from, to) => {
		const f = a.log ? Math.log10 : v => v;
		const lo = f(a.min), hi = f(a.max);
		return v => from + (to - from) *
			(f(Math.min(Math.max(v, a.min), a.max)) - lo) / (hi - lo);
	};
	const X = scale(o.x, L, W - R), Y = scale(o.y, H - B, T);

	for (const [from, to] of o.bands || [])
		node(svg, "rect", { class: "band", x: round(X(from)), y: T,
			width: round(X(to) - X(from)), height: H - B - T });
	for (const [v, text] of o.y.ticks) {
		node(svg, "line", { class: "grid", x1: L, x2: W - R,
			y1: round(Y(v)), y2: round(Y(v)) });
		node(svg, "text", { x: L - 7, y: round(Y(v)) + 4,
			"text-anchor": "end" }, text);
	}
	for (const [v, text] of o.x.ticks) {
		node(svg, "line", { class: "axis", x1: round(X(v)),
			x2: round(X(v)), y1: H - B, y2: H - B + 4 });
		node(svg, "text", { x: round(X(v)), y: H - B + 17,
			"text-anchor": "middle" }, text);
	}
	node(svg, "line", { class: "axis", x1: L, x2: W - R, y1: H - B,
		y2: H - B });
	node(svg, "text", { x: (L + W - R) / 2, y: H - 6,
		"text-anchor": "middle" }, o.x.title);
	node(svg, "text", { x: 12, y: (T + H - B) / 2,
		"text-anchor": "middle",
		transform: `rotate(-90 12 ${(T + H - B) / 2})` }, o.y.title);

	for (const s of o.series) {
		if (s.style === "stem" || s.style === "dot")
			marks(svg, s, X, Y, H - B);
		else if (s.points.length)
			node(svg, "path", {
				class: `line s-${s.peer} ${s.style}`,
				d: s.points.map(([x, y], i) => (i ? "L" : "M") +
					round(X(x)) + " " + round(Y(y))).join(""),
			});
	}
	ends(svg, o.series.filter(s => s.end && s.points.length), X, Y);
	hover(svg, o, X, { L, R, T, B, W, H });
}

// Names at the ends of lines, one above the other where the ends are close.
function ends(svg, series, X, Y) {
	const labels = series.map(s => {
		const [x, y] = s.points[s.points.length - 1];
		return { s, x: round(X(x)) + 6, y: round(Y(y)) + 4 };
	}).sort((a, b) => a.y - b.y);
	const gaps = labels.slice(1).map((l, i) => l.y - labels[i].y);
	gaps.forEach((gap, i) => {
		const lack = Math.max(13 - gap, 0) / 2;
		labels[i].y -= lack;
		labels[i + 1].y += lack;
	});
	for (const { s, x, y } of labels)
		node(svg, "text", { class: `label f-${s.peer}`,
			style: `fill: var(--${s.peer})`, x, y }, s.end);
}

function marks(svg, s, X, Y, floor) {
	for (const [x, y] of s.points) {
		const at = { cx: round(X(x)), cy: round(Y(y)) };
		if (s.style === "stem")
			node(svg, "line", { class: `line s-${s.peer}`,
				x1: at.cx, x2: at.cx, y1: floor, y2: at.cy });
		node(svg, "circle", { ...at, r: s.style === "stem" ? 3.5 : 2.2,
			class: s.style === "stem" ? `f-${s.peer}` :
				`hollow s-${s.peer}` });
	}
}

// A line under the pointer and the nearest point of each series.
function hover(svg, o, X, box) {
	const cross = node(svg, "line", { class: "cross", y1: box.T,
		y2: box.H - box.B, visibility: "hidden" });
	const tip = el("tip");
	const leave = () => {
		tip.style.display = "none";
		cross.setAttribute("visibility", "hidden");
	};
	svg.addEventListener("pointerleave", leave);
	svg.addEventListener("pointermove", e => {
		const r = svg.getBoundingClientRect();
		const x = (e.clientX - r.left) * box.W / r.width;
		if (x < box.L || x > box.W - box.R)
			return leave();
		const lines = [];
		let best = Infinity, place = x;
		for (const s of o.series) {
			let near = null, distance = o.reach || 30;
			for (const p of s.points) {
				const d = Math.abs(X(p[0]) - x);
				if (d < distance)
					[near, distance] = [p, d];
			}
			if (!near || !s.text)
				continue;
			if (distance < best)
				[best, place] = [distance, X(near[0])];
			lines.push(s.name + "  " + s.text(near));
		}
		if (!lines.length)
			return leave();
		cross.setAttribute("x1", place);
		cross.setAttribute("x2", place);
		cross.setAttribute("visibility", "visible");
		tip.textContent = lines.join("\n");
		tip.style.display = "block";
		tip.style.left = Math.min(e.clientX + 14,
			innerWidth - tip.offsetWidth - 8) + "px";
		tip.style.top = e.clientY + 14 + "px";
	});
}

function legend(id, entries) {
	for (const [peer, style, text] of entries) {
		const span = node(el(id), "span", {});
		const svg = node(span, "svg", { viewBox: "0 0 26 10",
			"aria-hidden": "true" });
		if (style === "stem")
			node(svg, "circle", { cx: 13, cy: 5, r: 4,
				class: `f-${peer}` });
		else if (style === "dot")
			node(svg, "circle", { cx: 13, cy: 5, r: 3,
				class: `hollow s-${peer}` });
		else
			node(svg, "path", { d: "M1 5L25 5",
				class: `line s-${peer} ${style}` });
		span.appendChild(document.createTextNode(text));
	}
}

// ---- Axes -----------------------------------------------------------------

function decades(values, title) {
	const positive = values.filter(v => v > 0);
	const low = Math.floor(Math.log10(Math.min(...positive)));
	const high = Math.ceil(Math.log10(Math.max(...positive)));
	const units = ["ns", "µs", "ms", "s"], ticks = [];
	for (let d = low; d <= high; d++) {
		const u = Math.min(Math.floor(d / 3), 3);
		ticks.push([10 ** d, 10 ** (d - 3 * u) + " " + units[u]]);
	}
	return { min: 10 ** low, max: 10 ** Math.max(high, low + 1), log: true,
		ticks, title };
}

function linear(min, max, format, title) {
	const rough = (max - min) / 6, power = 10 ** Math.floor(Math.log10(rough));
	const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= rough);
	const ticks = [];
	for (let v = Math.ceil(min / step) * step; v <= max * 1.0001; v += step)
		ticks.push([v, format(v)]);
	return { min, max, ticks, title };
}

// Of percentiles: 1 / (1 - q).
function rarity(last, title) {
	const ticks = [[1, "0 %"], [2, "50 %"]];
	for (let d = 1; 10 ** d <= last * 1.0001; d++)
		ticks.push([10 ** d, (100 - 100 / 10 ** d)
			.toFixed(Math.max(d - 2, 0)) + " %"]);
	return { min: 1, max: last, log: true, ticks, title };
}

const atPercent = p => time(p[1]) + " at " +
	(100 * (1 - 1 / p[0])).toFixed(3) + " %";

const inSeconds = v => String(Math.round(v / S * 10) / 10);

function runAxis(from, to) {
	return linear(from, to, inSeconds, "time since the first query was due [s]");
}

function eachPair(id, draw) {
	for (let i = 0; i < pairs; i++) {
		const f = node(el(id), "figure", {});
		node(f, "figcaption", {}, `Pair ${i + 1} of ${pairs}`);
		draw(f, peers.map(p => byPeer[p][i]).filter(r => r), i);
	}
}

// ---- The plots ------------------------------------------------------------

// [[1 / (1 - q), latency], ...] of merged histograms.
function percentiles(runs) {
	const bucket = new Map();
	let total = 0, seen = 0, max = 0;
	for (const r of runs) {
		for (const [low, width, count] of r.latency_histogram)
			bucket.set(low, [width, (bucket.get(low) || [0, 0])[1] + count]);
		max = Math.max(max, r.latency_ns.max);
	}
	for (const [, [, count]] of bucket)
		total += count;
	const points = [];
	for (const [low, [width, count]] of [...bucket].sort((a, b) => a[0] - b[0])) {
		const value = Math.min(low + width - 1, max);
		// A bucket covers a range of ranks: its latency holds from
		// the first of them to the last.
		points.push([total / (total - seen), value]);
		seen += count;
		points.push([total / Math.max(total - seen, 0.5), value]);
	}
	return points;
}

function drawPercentiles() {
	const series = [], all = [];
	for (const peer of peers) {
		if (!byPeer[peer].length)
			continue;
		if (byPeer[peer].length > 1)
			for (const r of byPeer[peer])
				series.push({ peer, style: "thin",
					points: percentiles([r]) });
		series.push({ peer, style: "", name: peer, end: peer,
			points: percentiles(byPeer[peer]), text: atPercent });
	}
	for (const s of series)
		all.push(...s.points);
	chart(el("percentile"), {
		label: "Query latency by percentile for weir and libgc",
		width: 1100, height: 340, right: 54, reach: 40, series,
		x: rarity(Math.max(...all.map(p => p[0])), "part of all queries"),
		y: decades(all.map(p => p[1]), "latency"),
	});
	legend("legend-percentile", peers.map(p => [p, "", p]));
}

function drawLatency() {
	const all = data.runs.flatMap(r => r.latency_windows.max_ns);
	const y = decades(all, "slowest query");
	eachPair("latency", (f, runs, i) => chart(f, {
		label: `Slowest query of every 50 ms, pair ${i + 1}`,
		x: runAxis(0, Math.max(...runs.map(r =>
			r.latency_windows.max_ns.length *
			r.latency_windows.width_ns))), y,
		series: runs.map(r => ({ peer: r.peer, name: r.peer, style: "",
			points: r.latency_windows.max_ns.map((v, k) =>
				[(k + 0.5) * r.latency_windows.width_ns, v]),
			text: p => time(p[1]) + " at " + inSeconds(p[0]) + " s" })),
	}));
	legend("legend-latency", peers.map(p => [p, "", p]));
}

function drawPauses() {
	const end = r => r.seconds * S;
	const of = (r, type) => r.events.filter(e => e[4] === type && e[0] >= 0)
		.map(e => [e[0] - e[1], e[1], e[3]]);
	const all = data.runs.flatMap(r => r.events.filter(e => e[0] >= 0)
		.map(e => e[1]));
	if (!all.length)
		all.push(1e3, 1e6);
	// Stems stand on the axis, so it begins a decade below the shortest.
	const y = decades([Math.min(...all) / 2, ...all], "length");
	const tell = what => p => (p[2] > 1 ? p[2] + " " + what + "s, longest " :
		what + " ") + time(p[1]) + " at " + inSeconds(p[0]) + " s";
	eachPair("pauses", (f, runs, i) => chart(f, {
		label: `Pauses, pair ${i + 1}`,
		x: runAxis(0, Math.max(...runs.map(end))), y,
		series: runs.flatMap(r => [
			{ peer: r.peer, name: r.peer, style: "dot",
				points: of(r, "assist"), text: tell("hold") },
			{ peer: r.peer, name: r.peer, style: "stem",
				points: of(r, "pause"), text: tell("stop") },
		]),
	}));
	legend("legend-pauses", [["weir", "stem", "weir: all threads stopped"],
		["weir", "dot", "weir: one thread held"],
		["libgc", "stem", "libgc: all threads stopped"]]);
}

function drawMemory() {
	const y = linear(0, Math.max(...data.runs.flatMap(r =>
		r.timeline.map(t => Math.max(t[1], t[3])))) * 1.03,
	v => (v / MIB).toFixed(0), "memory [MiB]");
	const top = 10 ** Math.floor(Math.log10(y.max / MIB / 3));
	const step = [1, 2, 5, 10].map(m => m * top)
		.find(s => y.max / MIB / s <= 6) || top * 20;
	y.ticks = [];
	for (let v = 0; v * MIB <= y.max; v += step)
		y.ticks.push([v * MIB, String(v)]);
	eachPair("memory", (f, runs, i) => chart(f, {
		label: `Heap and resident memory, pair ${i + 1}`,
		x: runAxis(Math.min(...runs.map(r => r.timeline.length ?
			r.timeline[0][0] : 0)),
		Math.max(...runs.map(r => r.seconds * S))), y,
		bands: [[0, Math.max(...runs.map(r => r.seconds * S))]],
		series: runs.flatMap(r => [
			{ peer: r.peer, name: r.peer, style: "dash",
				points: r.timeline.map(t => [t[0], t[3]]),
				text: p => "resident " + size(p[1]) },
			{ peer: r.peer, name: r.peer, style: "",
				points: r.timeline.map(t => [t[0], t[1]]),
				text: p => "heap " + size(p[1]) + " at " +
					inSeconds(p[0]) + " s" },
		]),
	}));
	legend("legend-memory", peers.flatMap(p => [
		[p, "", p + ": heap in use"], [p, "dash", p + ": resident set"]]));
}

// ---- Words and figures ----------------------------------------------------

function words() {
	const r = data.runs[0], c = r.corpus;
	el("what").textContent = `An index of ${size(c.indexed_bytes)} of text ` +
		(c.copies > 1 ? `(${size(c.text_bytes)} in ${c.files} files, ` +
			`indexed ${c.copies} times` : `(${c.files} files`) +
		`) as ${(r.build.postings / 1e6).toFixed(1)} million postings, each ` +
		`a small linked object, answering ${r.queries.rate} queries a second while ` +
		"another thread builds it anew, part by part. Latency counts from " +
		"the moment a query was due, not from when it was begun.";
	el("where").textContent = data.machine + " " + peers
		.filter(p => byPeer[p].length).map(p => byPeer[p][0])
		.map(x => `${x.peer} ${x.version} (${x.configuration})`)
		.join("; ") + ".";
	el("warning").textContent = data.warning;
	el("info").textContent = data.info;
	el("remarks").textContent = data.remarks.join(" ");
	for (const t of data.summary.filter(s => s.tile)) {
		const tile = node(el("tiles"), "div", { class: "card tile" });
		node(tile, "div", { class: "name" }, t.name);
		node(tile, "div", { class: "says" }, t.comparison);
		const both = node(tile, "div", { class: "both" });
		node(both, "span", { class: "weir" }, "weir " + t.weir);
		both.appendChild(document.createTextNode("   "));
		node(both, "span", { class: "libgc" }, "libgc " + t.libgc);
	}
	figures("figures", data.summary);
}

function figures(id, rows) {
	const head = node(el(id), "tr", {});
	for (const h of ["", "weir", "libgc", "weir is", "pair by pair"])
		node(head, "th", {}, h);
	for (const s of rows) {
		const row = node(el(id), "tr", {});
		for (const v of [s.name, s.weir, s.libgc, s.comparison, s.spread])
			node(row, "td", {}, v);
	}
}

words();
drawPercentiles();
drawLatency();
drawPauses();
drawMemory();
