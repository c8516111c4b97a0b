// The charts: each function returns traces and a layout, or nothing if there is nothing to draw.

const AXES = { tokens: "tokens", step: "updates", seconds: "seconds of training", flops: "FLOPs" };
// FLOPs are the tokens times a constant of the trial.
const along = (trial, x) => x === "flops" ? trial.tokens.map((tokens) => tokens * trial.flops_per_token) : trial[x];
const lossTitle = () => `${page.metric_name}${isNarrow() ? "<br>" : " "}(${page.unit})`;
const GRAY = page.look.gray;
const onPage = (color) => color === "#000000" ? inks()[0] : color;  // black is the color of the text
const palette = () => page.look.colors.map(onPage);
const markOf = (kind) => [page.look.marks[kind][0], onPage(page.look.marks[kind][1])];
const colorOf = (trial) => ofPage(page.series[seriesOf(trial.id)].colors);
const last = (trial) => trial.loss.length ? trial.loss[trial.loss.length - 1] : null;
const statusOf = (trial) => [trial.status === "stopped" ? trial.by_hand || "stopped early" : trial.status, trial.outcome, isFresh(trial) && "confirmation run"]
  .filter((word, n, words) => word && words.indexOf(word) === n).join(", ");

const who = (trial) => [
  `<b>${plain(trial.label)}</b>`,
  ...Object.entries(trial.values).map(([path, value]) => `${plain(path)} = ${plain(show(value))}`),
  plain((trial.stopped_at === null ? "" : "stopped early, then ") + statusOf(trial)),
].join("<br>");

// What an entry of the legend explains without a point of its own.
const entry = (name, more) => ({ x: [null], y: [null], name, hoverinfo: "skip", meta: { isDecoration: true }, ...more });
const entryOf = (kind, name) => {
  const [symbol, color] = markOf(kind);
  return entry(name, { mode: "markers", marker: { symbol, color, size: 9, line: { width: 2, color } } });
};

// ---- learning curves

// Where a chart has colors to spare: runs that went to their ends, and chosen ones.
function brightOnes(trials) {
  const picked = chosen();
  const bright = trials.filter((trial) => picked.size ? picked.has(trial.id) : ["finished", "audited", "unfinished"].includes(trial.status));
  return new Set((bright.length ? bright : trials).map((trial) => trial.id));
}

// The mean over seeds wherever all of them were measured, and the lowest and the highest.
function merged(trials, x) {
  const alive = trials.filter((trial) => !isGone(trial));
  if (alive.length < 2 || state.seeds !== "merged") return null;
  const shared = alive[0].tokens.filter((tokens) => alive.every((trial) => trial.tokens.includes(tokens)));
  const rows = shared.map((tokens) => alive.map((trial) => trial.tokens.indexOf(tokens)));
  const losses = rows.map((row) => row.map((at, n) => alive[n].loss[at]));
  return {
    n: alive.length, alive,
    x: rows.map((row) => mean(row.map((at, n) => along(alive[n], x)[at]))),
    mean: losses.map(mean), low: losses.map((all) => Math.min(...all)), high: losses.map((all) => Math.max(...all)),
  };
}

function bandTraces(series, band, color, ids) {
  const outline = {
    x: [...band.x, ...[...band.x].reverse()], y: [...band.high, ...[...band.low].reverse()], mode: "lines", fill: "toself",
    line: { width: 0 }, fillcolor: color, opacity: 0.2, hoverinfo: "skip", showlegend: false, meta: { isDecoration: true },
    uid: `b${ids[0]}`,
  };
  const line = {
    x: band.x, y: band.mean, mode: "lines+markers", name: `${brief(series.name, 34)} (n=${band.n})`, line: { color, width: 2, dash: series.dash },
    marker: { size: 4, color }, customdata: band.x.map(() => ids.join(",")), uid: ids[0],
    text: band.mean.map((_, n) => `${band.low[n].toFixed(4)} to ${band.high[n].toFixed(4)}`),
    hovertemplate: `<b>${plain(series.name)}</b><br>%{x:.5s} ${AXES[state.x]}: mean %{y:.4f} over ${band.n} seeds<br>%{text}<extra></extra>`,
  };
  return [outline, line];
}

// The mark of each record: how the trial ended, where it was stopped before its audit; else a dot.
function markedLine(trial, color, width, dash) {
  const end = trial.outcome || (["stopped", "audited"].includes(trial.status) ? trial.status : "");
  const kinds = trial.loss.map((_, n) => n === trial.stopped_at ? "stopped" : n === trial.loss.length - 1 ? end : "");
  return {
    mode: "lines+markers", line: { color, width, dash },
    marker: { opacity: 1, color, size: kinds.map((kind) => kind ? 9 : 3), line: { width: kinds.map((kind) => kind ? 2 : 0), color },
      symbol: kinds.map((kind) => kind ? page.look.marks[kind][0] : "circle") },
  };
}

function curveOf(trial, name, color, dash, isBright) {
  const x = along(trial, state.x);
  const hover = `${who(trial)}<br>%{x:.5s} ${AXES[state.x]}: %{y:.4f}<extra></extra>`;
  const shared = { x, uid: trial.id, customdata: x.map(() => trial.id), hovertemplate: hover };
  const curve = { ...shared, y: trial.loss, name: brief(name, 36), showlegend: isBright, ...markedLine(trial, color, isBright ? 2 : 1, dash) };
  if (!state.train) return [curve];
  const thin = { ...shared, uid: `t${trial.id}`, y: trial.train_loss, mode: "lines", showlegend: false, opacity: 0.6,
    name: `${brief(name, 30)} (training)`, line: { color, width: 1, dash }, hovertemplate: hover.replace("<extra>", " (training)<extra>") };
  return [thin, curve];
}

// Many gray curves as one trace, which is drawn in a hundredth of the time.
function grayCurves(trials) {
  const joined = { x: [], y: [], customdata: [], text: [] };
  for (const trial of trials) {
    joined.x.push(...along(trial, state.x), null);
    joined.y.push(...trial.loss, null);
    joined.customdata.push(...trial.loss.map(() => trial.id), null);
    joined.text.push(...trial.loss.map(() => who(trial)), null);
  }
  return { ...joined, mode: "lines", name: "stopped or lost", line: { color: GRAY, width: 0.7 }, opacity: 0.6, hovertemplate: "%{text}<extra></extra>", showlegend: false };
}

function curves() {
  const trials = shown().filter((trial) => trial.loss.length);
  if (!trials.length) return null;
  const bright = brightOnes(trials);
  const visible = new Map(trials.map((trial) => [trial.id, trial]));
  const picked = chosen();
  const isAsked = (series) => state.kind === "all" || series.kind === state.kind || series.trials.some((id) => picked.has(id));
  const all = page.series.filter((series) => !page.is_study || isAsked(series));
  const [gray, colored, ends, drawn] = [[], [], [], []];
  for (const series of all) {
    const members = series.trials.filter((id) => visible.has(id)).map((id) => visible.get(id));
    drawn.push(...members);
    const color = ofPage(series.colors);
    const some = members.filter((trial) => bright.has(trial.id));
    const band = merged(some, state.x);
    if (band) colored.push(...bandTraces(series, band, color, band.alive.map((trial) => trial.id)));
    if (band && band.x.length) ends.push({ y: band.mean[band.mean.length - 1], text: `${brief(series.name, 30)} (n=${band.n})`, color });
    for (const trial of members) {
      if (band?.alive.includes(trial)) continue;
      if (!bright.has(trial.id)) gray.push(trial);
      else {
        const name = members.length > 1 || page.arms.length ? trial.label : series.name;
        colored.push(...curveOf(trial, name, color, series.dash, true));
        ends.push({ y: last(trial), text: brief(name, 36), color });
      }
    }
  }
  if (!drawn.length) return null;
  const behind = gray.length > 100 ? [grayCurves(gray)] : gray.flatMap((trial) => curveOf(trial, trial.label, GRAY, "solid", false));
  const layout = curveLayout(drawn, ends, colored);
  const kinds = unique(drawn.flatMap((trial) => [trial.stopped_at === null ? trial.status : "stopped", trial.status, trial.outcome]))
    .filter((kind) => kind && page.look.marks[kind] && !["finished", "unfinished", "withdrawn"].includes(kind));
  layout.showlegend = isNarrow() || printing || kinds.length > 0;
  const labeled = !isNarrow() && !printing;
  if (labeled) colored.forEach((trace) => { trace.showlegend = false; });
  const entries = kinds.map((kind) => entryOf(kind, { stopped: "stopped early there", audited: "end of an audit" }[kind] ?? kind));
  return { traces: [...behind, ...colored, ...edgeMarks(drawn, layout), ...entries, ...colorBar(ends)], layout };
}

const LABELED = 5;  // of the best curves, where a color bar explains the others

// At the upper edge, where trials diverged or failed, and where curves end above the axis.
function edgeMarks(trials, layout) {
  const top = state.y === "log" ? 10 ** layout.yaxis.range[1] : layout.yaxis.range[1];
  const kind = (trial) => isGone(trial) ? trial.outcome : "above the axis";
  const some = trials.filter((trial) => last(trial) > top || trial.status === "diverged");
  if (!some.length) return [];
  const color = (trial) => page.is_study ? colorOf(trial) : markOf(kind(trial))[1];
  return [{
    x: some.map((trial) => Math.max(...along(trial, state.x))), y: some.map(() => top), mode: "markers", name: "lost or above the axis", showlegend: false,
    customdata: some.map((trial) => trial.id), text: some.map(who), hovertemplate: "%{text}<extra></extra>", cliponaxis: false,
    marker: { symbol: some.map((trial) => page.look.marks[kind(trial)][0]), color: some.map(color), size: 10, line: { width: 2, color: some.map(color) } },
  }];
}

function curveLayout(trials, ends, colored) {
  const layout = layoutOf(AXES[state.x], lossTitle());
  const sound = trials.filter((trial) => trial.status !== "diverged");
  const losses = (sound.length ? sound : trials).flatMap((trial) => state.train ? [...trial.loss, ...trial.train_loss] : trial.loss);
  const range = limits(losses, page.look.reach);
  layout.yaxis.type = state.y;
  layout.yaxis.range = state.y === "log" ? range.map(Math.log10) : range;
  layout.xaxis.rangemode = "tozero";
  layout.xaxis.exponentformat = state.x === "flops" ? "SI" : "B";
  layout.xaxis.nticks = isNarrow() ? 5 : 10;
  if (state.y === "log") Object.assign(layout.yaxis, { tickvals: evenTicks(...range), ticktext: evenTicks(...range).map(show) });
  layout.uirevision = `${state.x} ${state.y}`;
  if (isNarrow() || printing) return layout;
  layout.margin.r = 20 + Math.min(250, 15 + 6.6 * Math.max(0, ...ends.map((end) => end.text.length)));
  const hasBar = colorBar(ends).length > 0;
  const few = [...ends].sort((a, b) => a.y - b.y).slice(0, hasBar ? LABELED : page.look.named).filter((end) => end.y <= range[1]);
  const places = few.map((end) => ({ ...end, y: state.y === "log" ? Math.log10(end.y) : end.y }));
  layout.annotations = labelsAt(places, layout.yaxis.range, here("curves").offsetHeight - (hasBar ? 180 : 110));
  layout.legend = BELOW;
  return layout;
}

// What the colors of many curves mean.
function colorBar(ends) {
  const by = page.colored_by;
  if (!by || ends.length <= page.look.named) return [];
  const scale = by.log ? Math.log10 : Number;
  const ticks = by.log ? roundTicks(by.low, by.high) : [by.low, by.high];
  return [entry(by.path, {
    mode: "markers", showlegend: false,
    marker: { color: [scale(by.low)], cmin: scale(by.low), cmax: scale(by.high), showscale: true, colorscale: lossScale(),
      colorbar: { orientation: "h", thickness: 10, len: 0.6, x: 0.3, y: -0.28, yanchor: "top", title: { text: plain(by.path), side: "bottom" },
        tickvals: ticks.map(scale), ticktext: ticks.map(show) } },
  })];
}

const lossScale = () => page.look.shades.map((colors, n, all) => [n / (all.length - 1), ofPage(colors)]);

// ---- the loss against the values

const valuePaths = () => page.swept.filter((swept) => swept.drawn);
const pathOf = () => [state.path, "optim.lr"].map((path) => valuePaths().find((swept) => swept.path === path)).find(Boolean)
  ?? valuePaths().find((swept) => swept.numeric) ?? valuePaths()[0];
const levelsShown = () => page.levels.map((_, n) => n).filter((n) => state.at === "all" || n === levelNumber());

// Trials by their other values: each group has a line of its own, if they are few.
function byOthers(trials, path) {
  const found = new Map();
  for (const trial of trials) {
    const others = Object.entries(trial.values).filter(([name]) => name !== path);
    const name = page.is_study ? trial.arm : others.map(([name, value]) => `${name.split(".").pop()}=${show(value)}`).join(" ");
    found.set(name, [...(found.get(name) ?? []), trial]);
  }
  return found;
}

// The trials in the order of their series, which is that of the plan: the figures number groups in this order.
function inPlan(trials) {
  const places = new Map(page.series.flatMap((series, place) => series.trials.map((id) => [id, place])));
  return [...trials].sort((one, other) => places.get(one.id) - places.get(other.id));
}

function values() {
  const swept = pathOf();
  const tuned = page.trials.some((trial) => trial.role === "tuning");
  const isDrawn = (trial) => swept.path in trial.values && !isFresh(trial) && (!tuned || trial.role === "tuning");
  const trials = swept ? inPlan(shown().filter(isDrawn)) : [];
  const levels = levelsShown();
  if (!trials.some((trial) => trial.at.some((loss) => loss !== null))) return null;
  const x = (trial) => swept.numeric ? trial.values[swept.path] : plain(show(trial.values[swept.path]));
  const groups = byOthers(trials, swept.path);
  const joined = swept.numeric && groups.size <= 7 && groups.size < trials.length;
  const series = joined ? [...groups] : [["", trials]];
  const range = limits(trials.flatMap((trial) => levels.map((n) => trial.at[n])), page.look.reach);
  const names = [...byOthers(inPlan(page.trials.filter((trial) => isDrawn(trial) && trial.status !== "withdrawn")), swept.path).keys()];
  const traces = series.flatMap(([name, some]) => levels.map((level) => levelTrace(name, some, level, x, joined, Math.max(0, names.indexOf(name)), series.length, range))).filter(Boolean);
  const layout = layoutOf(plain(swept.path), lossTitle());
  layout.yaxis.range = range;
  layout.uirevision = `${swept.path} ${state.at}`;
  layout.dragmode = isNarrow() ? false : "select";
  layout.selections = [];  // what was within the last one is chosen
  if (swept.numeric) valueTicks(layout.xaxis, swept, here("values").offsetWidth - (isNarrow() || printing ? 70 : 270), page.look.named);
  else Object.assign(layout.xaxis, { type: "category", categoryorder: "array", categoryarray: swept.values.map((value) => plain(show(value))) });
  const stable = rateMarks(layout, swept);
  const shades = series.length > 1 && levels.length > 1 ? levels.map(shadeEntry).reverse() : [];
  return { traces: [...traces, ...endMarks(trials, x, levels, range, series.length > 1), ...shades, ...stable], layout };
}

// Which point a shade is of, where the colors are of other things.
function shadeEntry(level) {
  const { words, strength, last: isLast } = page.levels[level];
  const color = tint(inks()[0], strength);
  return entry(words, { mode: "lines+markers", line: { color, width: isLast ? 2 : 1.2 }, marker: { color, size: isLast ? 9 : 7 } });
}

// The color and the mark of a group: of a study those of its arm.
function lookOf(trials, number) {
  if (!page.is_study) return [palette()[number % 7], page.look.symbols[number % page.look.symbols.length]];
  return [colorOf(trials[0]), page.series[seriesOf(trials[0].id)].symbol];
}

// One line for each point: losses at different token counts are never joined.
function levelTrace(name, trials, level, x, joined, number, groups, range) {
  const measured = trials.filter((trial) => trial.at[level] !== null);
  if (!measured.length) return null;
  const { words, strength, last: isLast } = page.levels[level];
  const [own, symbol] = lookOf(trials, number);
  const color = tint(own, strength);
  const points = merges(measured, level, x).sort((a, b) => joined ? a.x - b.x : 0);
  const picked = chosen();
  return {
    name: groups > 1 && isLast ? brief(name, 30) : groups > 1 ? `${brief(name, 20)} ${words}` : words, showlegend: groups < 2 || isLast,
    x: points.map((point) => point.x), y: points.map((point) => point.y > range[1] ? null : point.y),
    customdata: points.map((point) => point.ids), text: points.map((point) => `${point.text}<br>${point.y.toFixed(4)} ${words}`),
    mode: joined ? "lines+markers" : "markers", connectgaps: false,
    line: { color, width: isLast ? 2 : 1.2 }, hovertemplate: "%{text}<extra></extra>",
    error_y: points.some((point) => point.n > 1) ? { type: "data", symmetric: false, array: points.map((point) => point.high - point.y),
      arrayminus: points.map((point) => point.y - point.low), color, thickness: 1.2, width: 3 } : undefined,
    marker: { symbol, color, opacity: points.map((point) => !picked.size || point.ids.split(",").some((id) => picked.has(id)) ? 1 : 0.25),
      size: isLast ? 9 : 7, line: { width: 0.5, color: isDark() ? "#16181b" : "#ffffff" } },
  };
}

// The points of a level: one for each trial, or for each choice of values with the spread over its seeds.
function merges(trials, level, x) {
  const single = (trial) => ({ x: x(trial), y: trial.at[level], low: trial.at[level], high: trial.at[level], n: 1, ids: trial.id, text: who(trial) });
  if (state.seeds !== "merged") return trials.map(single);
  const groups = new Map();
  for (const trial of trials) groups.set(seriesOf(trial.id), [...(groups.get(seriesOf(trial.id)) ?? []), trial]);
  return [...groups].flatMap(([series, some]) => {
    if (some.length < 2) return some.map(single);
    const losses = some.map((trial) => trial.at[level]);
    return [{ x: x(some[0]), y: mean(losses), low: Math.min(...losses), high: Math.max(...losses), n: some.length, ids: some.map((trial) => trial.id).join(","),
      text: `<b>${plain(page.series[series].name)}</b><br>mean over ${some.length} seeds (${Math.min(...losses).toFixed(4)} to ${Math.max(...losses).toFixed(4)})` }];
  });
}

// Hollow squares around the last loss of stopped trials; at the upper edge those without a loss to draw.
function endMarks(trials, x, levels, range, isGrouped) {
  const kinds = {};
  const add = (kind, trial, y) => (kinds[kind] ??= []).push([trial, y]);
  for (const trial of trials) {
    const measured = levels.filter((n) => trial.at[n] !== null);
    const loss = measured.length ? trial.at[measured[measured.length - 1]] : null;
    const isEnd = state.at === "all" || loss === last(trial);
    if (isGone(trial)) add(trial.outcome, trial, range[1]);
    else if (loss !== null && loss > range[1]) add("above the axis", trial, range[1]);
    else if (loss !== null && isEnd && ["stopped", "audited"].includes(trial.status)) add(trial.status, trial, loss);
    if (loss !== null && loss <= range[1] && isEnd && trial.outcome && !isGone(trial)) add(trial.outcome, trial, loss);
  }
  return Object.entries(kinds).map(([kind, some]) => {
    const [symbol, own] = markOf(kind);
    const color = isGrouped && page.is_study && isGone(some[0][0]) ? some.map(([trial]) => colorOf(trial)) : own;
    return {
      name: { stopped: "stopped early there", audited: "end of an audit" }[kind] ?? kind, mode: "markers", cliponaxis: false,
      x: some.map(([trial]) => x(trial)), y: some.map(([, y]) => y), customdata: some.map(([trial]) => trial.id),
      text: some.map(([trial]) => who(trial)), hovertemplate: "%{text}<extra></extra>",
      marker: kind === "stopped" ? { symbol, ...frameOf(some.length) } : { symbol, color, size: 10, line: { width: 1.5, color } },
    };
  });
}

// The frame of a stopped trial; smaller and lighter where they are many.
const frameOf = (number) => number > 60 ? { color: GRAY, size: 7, opacity: 0.6 } : { color: inks()[0], size: number > page.look.named ? 9 : 12, line: { width: 1.5 } };

// The edge of stability and the interval of the best rate, in the colors of the figures.
function rateMarks(layout, swept) {
  const rate = page.rate;
  if (!rate || rate.path !== swept.path) return [];
  const [looks, sky] = [page.look.rates, page.look.interval];
  const { fit } = rate;
  const hasBand = fit && fit.low !== null;
  layout.shapes = rate.lines.map((line) => ({
    type: "line", x0: line.rate, x1: line.rate, y0: 0, y1: 1, yref: "paper", layer: "below", line: { color: looks[line.words][0], dash: looks[line.words][1], width: 1.5 },
  }));
  if (hasBand) layout.shapes.push({ type: "rect", x0: fit.low, x1: fit.high, y0: 0, y1: 1, yref: "paper", layer: "below", fillcolor: sky, opacity: 0.25, line: { width: 0 } });
  const entries = rate.lines.map((line) => entry(`${line.words}: ${show(line.rate)}`, { mode: "lines", line: { color: looks[line.words][0], dash: looks[line.words][1], width: 1.5 } }));
  const two = (value) => String(Number(value.toPrecision(2)));
  if (hasBand) entries.push(entry(`minimum of a parabola:<br>${two(fit.rate)} (95%: ${two(fit.low)} to ${two(fit.high)})`,
    { mode: "markers", marker: { symbol: "square", size: 12, color: sky, opacity: 0.4 } }));
  return entries;
}

// ---- arms, compute, importance

function arms() {
  const compared = armsShown().slice(1);
  if (!compared.length) return null;
  const known = compared.map((arm, row) => ({ ...arm, row })).filter((arm) => arm.difference !== null);
  const color = (arm) => page.look.verdicts[arm.verdict] ?? GRAY;
  const traces = known.map((arm) => ({
    x: [arm.difference], y: [arm.row], mode: "markers", name: arm.verdict, showlegend: false, marker: { color: color(arm), size: 11 },
    error_x: arm.low === null ? undefined : { type: "data", symmetric: false, array: [arm.high - arm.difference],
      arrayminus: [arm.difference - arm.low], color: color(arm), thickness: 2.5, width: 0 },
    text: [`<b>${plain(arm.arm)}</b><br>${plain(arm.words)}`], customdata: [arm.arm], hovertemplate: "%{text}<extra></extra>",
  }));
  const dots = { x: known.flatMap((arm) => arm.seeds), y: known.flatMap((arm) => arm.seeds.map(() => arm.row + 0.2)), mode: "markers", name: "a seed",
    hovertemplate: "a seed: %{x:.4f}<extra></extra>", marker: { symbol: "line-ns-open", size: 8, color: GRAY, line: { width: 1.5, color: GRAY } } };
  const seen = unique(known.map((arm) => arm.verdict)).map((kind) => entry(kind, { mode: "markers", marker: { size: 9, color: page.look.verdicts[kind] ?? GRAY } }));
  const line = isNarrow() ? "<br>" : " ";
  const layout = layoutOf(`difference from the baseline:${line}${lossTitle()};${line}left is better`, "");
  byRow(layout, "arms", compared.map((arm) => arm.arm), 3.2);
  Object.assign(layout.xaxis, { rangemode: "tozero", zeroline: true, zerolinecolor: layout.font.color, zerolinewidth: 1.5 });
  layout.yaxis.showgrid = false;
  layout.annotations = compared.map((arm, row) => ({ arm, row })).filter(({ arm }) => arm.difference === null)
    .map(({ arm, row }) => ({ x: 0, y: row, text: ` ${arm.verdict}`, showarrow: false, xanchor: "left" }));
  if (page.noise !== null) {
    layout.shapes = [{ type: "rect", x0: -page.noise, x1: page.noise, y0: 0, y1: 1, yref: "paper", layer: "below", fillcolor: GRAY, opacity: 0.18, line: { width: 0 } }];
    seen.push(entry("within the noise", { mode: "markers", marker: { symbol: "square", size: 12, color: GRAY, opacity: 0.3 } }));
  }
  const worth = [];
  if (page.speedups.length) {
    layout.xaxis2 = { ...layout.xaxis, overlaying: "x", matches: "x", side: "top", title: { text: "token speedup" }, zeroline: false, showgrid: false,
      tickvals: page.speedups.map((tick) => tick.at), ticktext: page.speedups.map((tick) => tick.name) };
    layout.margin = { ...layout.margin, t: 56 };
    worth.push({ x: [0], y: [0], xaxis: "x2", mode: "markers", marker: { opacity: 0 }, showlegend: false, hoverinfo: "skip", meta: { isDecoration: true } });
  }
  return { traces: [...traces, dots, ...seen, ...worth], layout };
}

function compute() {
  const trials = shown().filter((trial) => ["finished", "audited"].includes(trial.status) && trial.loss.length && !isFresh(trial));
  const flops = (trial) => trial.tokens[trial.tokens.length - 1] * trial.flops_per_token;
  if (unique(trials.map(flops)).length < 2) return null;
  const front = page.front.map(trialOf).filter((trial) => trials.includes(trial));
  const line = { x: front.map(flops), y: front.map(last), mode: "lines", name: "best for its compute", line: { shape: "hv", color: GRAY, width: 1 }, hoverinfo: "skip" };
  const points = { x: trials.map(flops), y: trials.map(last), mode: "markers", name: "trials", showlegend: false, customdata: trials.map((trial) => trial.id),
    text: trials.map((trial) => `${who(trial)}<br>${numeral(last(trial))}`), hovertemplate: "%{text}<extra></extra>", marker: seriesMarks(trials.map((trial) => seriesOf(trial.id))) };
  const numbers = unique(trials.map((trial) => seriesOf(trial.id)));
  const names = numbers.length > page.look.named ? colorBar(numbers)
    : numbers.map((number) => entry(brief(page.series[number].name, 34), { mode: "markers", marker: seriesMarks([number]) }));
  const audited = trials.filter((trial) => trial.status === "audited");
  const frames = { ...entryOf("audited", "end of an audit"), x: audited.map(flops), y: audited.map(last) };
  frames.marker = { ...frames.marker, size: 14, line: { ...frames.marker.line, width: 1.5 } };
  const layout = layoutOf("FLOPs of the trial", lossTitle());
  countTicks(layout.xaxis, trials.map(flops), true);
  layout.yaxis.range = limits(trials.map(last), page.look.reach);
  return { traces: [line, points, ...names, ...(audited.length ? [frames] : [])], layout };
}

// The marks of points of these series.
function seriesMarks(numbers) {
  const colors = numbers.map((number) => ofPage(page.series[number].colors));
  return { symbol: numbers.map((number) => page.series[number].symbol), color: colors, size: 10, line: { width: 1.5, color: colors } };
}

function importance() {
  if (!page.importance) return null;
  const found = Object.entries(page.importance.shares).sort((a, b) => a[1] - b[1]);
  here("importance-words").textContent = page.importance.words;
  const layout = layoutOf("share of the ranking", "");
  layout.xaxis.tickformat = ".0%";
  layout.xaxis.range = [0, 1.08];
  here("importance").style.height = `${5 + 2 * found.length}rem`;
  return { traces: [{ type: "bar", orientation: "h", x: found.map((one) => one[1]), y: found.map((one) => plain(one[0])),
    text: found.map((one) => `${(100 * one[1]).toFixed(0)}%`), textposition: "auto", marker: { color: palette()[0] }, hoverinfo: "skip" }], layout };
}

// ---- several paths at once, at equal tokens

const varied = () => page.swept.filter((swept) => swept.values.length > 1);
const atLevel = (level) => shown().filter((trial) => (trial.at[level] ?? null) !== null && !isGone(trial) && varied().every((swept) => swept.path in trial.values));

const WIDTH = 0.15;  // of the kernel, as a share of each range

// The loss between the trials, weighted by their distance (a Gaussian kernel).
function between(points, size) {
  const steps = [...Array(size).keys()].map((n) => n / (size - 1));
  return steps.map((y) => steps.map((x) => {
    const weights = points.map((point) => Math.exp(-((point.u - x) ** 2 + (point.v - y) ** 2) / (2 * WIDTH ** 2)) + 1e-9);
    return sum(points.map((point, n) => weights[n] * point.loss)) / sum(weights);
  }));
}

// The two paths of the map: the chosen ones, else those that the loss depends on most.
function pathsOfMap() {
  const share = (swept) => page.importance?.shares[swept.path] ?? 0;
  const numeric = varied().filter((swept) => swept.numeric);
  const ranked = [...numeric].sort((a, b) => share(b) - share(a));
  const across = numeric.find((swept) => swept.path === state.across) ?? numeric.find((swept) => ranked.slice(0, 2).includes(swept));
  const up = ranked.find((swept) => swept.path === state.up && swept !== across) ?? ranked.find((swept) => swept !== across);
  return [across, up].filter(Boolean);
}

function contour() {
  const paths = pathsOfMap();
  const level = levelNumber();
  const trials = page.is_study ? [] : atLevel(level);
  if (paths.length < 2 || trials.length < 6) return null;
  const [across, up] = paths.map((swept) => {
    const scale = swept.log ? Math.log10 : Number;
    const ends = [swept.values[0], swept.values[swept.values.length - 1]].map(scale);
    return { swept, share: (value) => (scale(value) - ends[0]) / (ends[1] - ends[0]), back: (share) => swept.log ? 10 ** (ends[0] + share * (ends[1] - ends[0])) : ends[0] + share * (ends[1] - ends[0]) };
  });
  const points = trials.map((trial) => ({ trial, loss: trial.at[level], u: across.share(trial.values[across.swept.path]), v: up.share(trial.values[up.swept.path]) }));
  const size = 40;
  const steps = [...Array(size).keys()].map((n) => n / (size - 1));
  const [low, high] = [Math.min(...points.map((p) => p.loss)), Math.max(...points.map((p) => p.loss))];
  const map = { type: "contour", x: steps.map(across.back), y: steps.map(up.back), z: between(points, size), zmin: low, zmax: high, colorscale: lossScale(), reversescale: true,
    ncontours: 12, contours: { coloring: "heatmap" }, line: { width: 0.5, color: "rgba(255,255,255,.4)" }, hoverinfo: "skip", opacity: 0.75, meta: { isDecoration: true },
    colorbar: { title: { text: "loss" }, thickness: 12, len: 0.9 } };
  const picked = chosen();
  const dots = { x: points.map((p) => p.trial.values[across.swept.path]), y: points.map((p) => p.trial.values[up.swept.path]), mode: "markers", name: "trials",
    customdata: points.map((p) => p.trial.id), text: points.map((p) => `${who(p.trial)}<br>${p.loss.toFixed(4)} ${page.levels[level].words}`), hovertemplate: "%{text}<extra></extra>", showlegend: false,
    marker: { size: points.map((p) => picked.has(p.trial.id) ? 14 : 9), color: points.map((p) => p.loss), cmin: low, cmax: high, colorscale: lossScale(), reversescale: true,
      symbol: points.map((p) => p.trial.status === "stopped" ? "square" : "circle"), line: { width: 1.5, color: "#ffffff" } } };
  const layout = layoutOf(plain(across.swept.path), plain(up.swept.path));
  valueTicks(layout.xaxis, across.swept, here("contour").offsetWidth - 160, page.look.named);
  valueTicks(layout.yaxis, up.swept, here("contour").offsetHeight - 60, page.look.named, true);
  here("contour-words").textContent = `${page.metric_name} ${page.levels[level].words}, between the trials that were measured there.${page.trials.some((one) => one.status === "stopped") ? " Squares are trials that were stopped early." : ""}`
    + (varied().length > 2 ? " The trials differ in other values too." : "");
  return { traces: [map, dots], layout };
}

function parallel() {
  const paths = varied();
  const level = levelNumber();
  const trials = page.is_study ? [] : atLevel(level);
  if (paths.length < 2 || trials.length < 2 || isNarrow()) return null;
  const losses = trials.map((trial) => trial.at[level]);
  const dimensions = paths.map((swept) => dimensionOf(swept, trials.map((trial) => trial.values[swept.path])));
  const ticks = evenTicks(Math.min(...losses), Math.max(...losses));
  dimensions.push(dimension(page.metric_name, losses, losses, ticks, ticks));
  here("parallel-words").textContent = `Each line is a trial, with its ${page.metric_name} ${page.levels[level].words}. Drag along an axis to choose trials.`;
  const [ink] = inks();
  const trace = { type: "parcoords", dimensions, labelfont: { color: ink }, tickfont: { color: ink }, rangefont: { color: "rgba(0,0,0,0)" },
    unselected: { line: { color: GRAY, opacity: 0.1 } }, ids: trials.map((trial) => trial.id),
    line: { color: losses, colorscale: lossScale(), reversescale: true, showscale: true, colorbar: { thickness: 12 } } };
  const layout = layoutOf("", "");
  const first = dimensions[0].ticktext.map((text) => text.length);
  layout.margin = { l: 30 + 6.5 * Math.max(0, ...first, dimensions[0].label.length / 2), r: 20, t: 50, b: 24 };
  nameAxes(trace, layout);
  return { traces: [trace], layout };
}

function dimensionOf(swept, raw) {
  const isListed = !swept.numeric || (!swept.sampled && swept.values.length <= 8);
  const scale = (value) => isListed ? swept.values.indexOf(value) : swept.log ? Math.log10(value) : value;
  const ticks = isListed ? swept.values : (swept.log ? roundTicks : evenTicks)(swept.values[0], swept.values[swept.values.length - 1]);
  return dimension(swept.path, raw, raw.map(scale), ticks, ticks.map(scale));
}

// An axis whose line, which Plotly draws from the first tick to the last, reaches all values.
function dimension(name, raw, values, ticks, places) {
  const ends = [Math.min(...values), Math.max(...values)].filter((end) => !places.includes(end));
  return { label: plain(name), name, raw, values, tickvals: [...places, ...ends], ticktext: [...ticks.map((tick) => plain(cut(show(tick), 16))), ...ends.map(() => "")] };
}

// The names above the axes: their last parts where the paths would touch, aslant where these would, too.
function nameAxes(trace, layout) {
  const each = (here("parallel").offsetWidth - layout.margin.l - 110) / (trace.dimensions.length - 1);
  const fit = () => trace.dimensions.every((one) => 7 * one.label.length < each);
  const short = trace.dimensions.map((one) => one.label.split(".").pop());
  if (!fit() && unique(short).length === short.length) trace.dimensions.forEach((one, n) => { one.label = short[n]; });
  if (fit()) return;
  trace.labelangle = -30;
  layout.margin.t = 40 + 3.5 * Math.max(...trace.dimensions.map((one) => one.label.length));
}

// ---- decisions

// Rows of a chart, from the top, each as high as a line of text.
function byRow(layout, id, labels, height = 1.4) {
  layout.yaxis = { ...layout.yaxis, tickvals: labels.map((_, n) => n), ticktext: labels.map((label) => brief(label, isNarrow() ? 22 : 40)), range: [labels.length - 0.5, -0.5] };
  here(id).style.height = `${Math.max(10, 7 + height * labels.length)}rem`;
}

const ROWS = 60;  // that can be read

function rungs() {
  const every = shown().filter((trial) => trial.marks.length || trial.ended);
  const trials = every.slice(0, ROWS);
  if (!every.some((trial) => trial.marks.some((mark) => mark.kind !== "finished"))) return null;
  here("rungs-words").textContent = every.length > ROWS ? `The first ${ROWS} of ${every.length} trials.` : "";
  const lines = { x: [], y: [], mode: "lines", line: { color: GRAY, width: 1.5 }, showlegend: false, hoverinfo: "skip", meta: { isDecoration: true } };
  const kinds = {};
  trials.forEach((trial, row) => {
    lines.x.push(0, trial.ended, null);
    lines.y.push(row, row, null);
    for (const mark of trial.marks) {
      const [symbol, color] = markOf(mark.kind);
      const kind = kinds[mark.kind] ??= { x: [], y: [], text: [], customdata: [], name: mark.kind, mode: "markers",
        marker: { symbol, color, size: 10, line: { width: 2, color } }, hovertemplate: "%{text}<extra></extra>" };
      kind.x.push(mark.tokens);
      kind.y.push(row);
      kind.customdata.push(trial.id);
      kind.text.push(`<b>${plain(trial.label)}</b><br>${mark.kind} at ${mark.tokens.toLocaleString("en")} tokens${mark.words ? `<br>${plain(mark.words)}` : ""}`);
    }
  });
  const layout = layoutOf("tokens", "");
  layout.xaxis.exponentformat = "B";
  layout.xaxis.nticks = isNarrow() ? 5 : 10;
  byRow(layout, "rungs", trials.map((trial) => trial.label));
  return { traces: [lines, ...Object.values(kinds)], layout };
}

function gantt() {
  const { bars, slots, utilization, nodes } = page.gantt;
  if (!bars.length) return null;
  here("nodes").hidden = !nodes.length;
  here("nodes").replaceChildren(...nodes.slice(-ROWS).map((node) => element("li", `${node.at.toFixed(0)} s: ${node.words}`)));
  here("utilization").textContent = utilization === null ? "" : `${(100 * utilization).toFixed(0)}% of the slots' time was used.`;
  const colors = palette();
  const trials = unique(bars.map((bar) => bar.trial));
  const trace = {
    type: "bar", orientation: "h", name: "attempts", base: bars.map((bar) => bar.from), x: bars.map((bar) => bar.to - bar.from), y: bars.map((bar) => bar.slot),
    marker: { color: bars.map((bar) => colors[trials.indexOf(bar.trial) % colors.length]), line: { width: 1, color: isDark() ? "#16181b" : "#ffffff" } },
    text: bars.map((bar) => `<b>${plain(bar.trial)}</b><br>${bar.from.toFixed(0)} s to ${bar.to.toFixed(0)} s`), textposition: "none", hovertemplate: "%{text}<extra></extra>",
  };
  const layout = layoutOf("seconds since the first start", "");
  layout.yaxis = { ...layout.yaxis, tickvals: [...slots.keys()], ticktext: slots, range: [slots.length - 0.4, -0.6] };
  here("gantt").style.height = `${8 + 2.2 * slots.length}rem`;
  return { traces: [trace], layout };
}

const CHARTS = { arms, values, compute, curves, contour, importance, parallel, rungs, gantt };
