// SPDX-License-Identifier: MIT
// Draws the part of the demo's page that is about databases that are saved while
// they are written to, with what demo_page.js, which comes before it, defines.
// data.saves: of `sqlite` and `redis` the lines of sqlite-snapshot and of
// bench_redis.py as `runs`, and `note`, which says why there are none.
"use strict";

const DRAWN_US = 20e3;

// The longest wait of every 20 ms, as [since the save began, wait], both in ns.
function waits(windows, width_us, begin_us) {
	const n = Math.max(1, Math.round(DRAWN_US / width_us)), points = [];
	for (let i = 0; i < windows.length; i += n)
		points.push([((i + n / 2) * width_us - begin_us) * 1e3,
			Math.max(...windows.slice(i, i + n)) * 1e3]);
	return points.filter(p => p[1] > 0);
}

// weir beside another, each save's length as a band: { name, points, save }.
function drawWaits(id, weir, other, caption) {
	const f = node(el(id), "figure", {});
	node(f, "figcaption", {}, caption);
	const all = [...weir.points, ...other.points];
	const begin = Math.max(weir.points[0][0], other.points[0][0]);
	const end = Math.min(...[weir, other].map(s =>
		s.points[s.points.length - 1][0]));
	const inside = points => points.filter(p => p[0] >= begin && p[0] <= end);
	const key = `legend-${id}-${el(id).children.length}`;
	node(f, "div", { class: "legend", id: key });
	legend(key, [["weir", "", weir.name], ["other", "", other.name]]);
	chart(f, {
		label: caption,
		x: linear(begin, end, v => String(Math.round(v / S * 100) / 100),
			"time since the save began [s]"),
		y: decades(all.map(p => p[1]), "longest wait"),
		bands: [[0, Math.min(weir.save, end)], [0, Math.min(other.save, end)]],
		series: [["other", other], ["weir", weir]].map(([peer, s]) => ({
			peer, name: s.name, style: "", points: inside(s.points),
			text: p => time(p[1]) + " at " + (p[0] / S).toFixed(2) + " s",
		})),
	});
}

function ofSqlite(run, name) {
	return { name, save: run.save_ms * 1e6, points: waits(run.windows_us,
		run.window_ms * 1e3, run.save_at_ms * 1e3) };
}

function drawSqlite(runs) {
	const first = method => runs.find(r => r.method === method && !r.huge);
	const weir = first("weir");
	el("sqlite-what").textContent = `A database of ${size(weir.bytes)} in ` +
		`memory, written to by ${weir.writers} thread` +
		`${weir.writers > 1 ? "s" : ""}. Drawn is the longest transaction ` +
		"of every 20 ms, where it began; shaded: the saves, which begin together here, the shorter of the two darker.";
	for (const [method, name] of [["fork", "fork"],
		["serialize", "sqlite3_serialize"],
		["backup", "sqlite3_backup, at once"],
		["backup-steps", "sqlite3_backup, in steps"]]) {
		const other = first(method);
		if (other)
			drawWaits("sqlite-latency", ofSqlite(weir, "weir"),
				ofSqlite(other, name), "weir and " + name);
	}
}

function ofRedis(run, name) {
	return { name, save: run.save_s * S, points: waits(run.save.windows_us,
		run.save.window_us, run.save_at_s * 1e6) };
}

function drawRedis(runs) {
	const of = kind => runs.filter(r => r.kind === kind);
	const [plain, weir] = [of("plain"), of("weir")];
	el("redis-what").textContent = `redis-server with ${plain[0].gib} GiB of ` +
		`values and an open-loop client; drawn is the longest wait of ` +
		"every 20 ms, where the request was due; shaded: the saves (BGSAVE until its child has " +
		"gone), which begin together here. Under weir-redis what was written " +
		"meanwhile is folded back right after.";
	for (let i = 0; i < Math.min(plain.length, weir.length); i++)
		drawWaits("redis-latency", ofRedis(weir[i], "weir-redis"),
			ofRedis(plain[i], "Redis alone"), `Pair ${i + 1} of ` +
			Math.min(plain.length, weir.length));
}

function drawSaves() {
	for (const [id, draw] of [["sqlite", drawSqlite], ["redis", drawRedis]]) {
		const { runs, note } = data.saves[id];
		el(id).hidden = !runs.length && !note;
		el(id + "-note").textContent = note;
		if (runs.length)
			draw(runs);
	}
}

drawSaves();
