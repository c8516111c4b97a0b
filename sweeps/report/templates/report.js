"use strict";

const NONCE = document.currentScript.nonce;  // of a live page, which runs no other scripts
const AXES = { tokens: "tokens", step: "updates", seconds: "seconds of training", flops: "FLOPs" };
const GRAY = "#7f7f7f";

let page = JSON.parse(document.getElementById("content").textContent);
// FLOPs are the tokens times a constant of the trial.
const along = (trial, x) => x === "flops" ? trial.tokens.map((tokens) => tokens * trial.flops_per_token) : trial[x];
let sorted = { column: null, down: false };
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const here = (id) => document.getElementById(id);
const isNarrow = () => window.innerWidth < 700;
// The colors of the figures; black is the color of the text, so that it is seen on a dark page.
const colors = () => page.look.colors.map((color) => color === "#000000" ? inks()[0] : color);
const lossTitle = () => `${page.metric_name}${isNarrow() ? "<br>" : " "}(${page.unit})`;

// Plotly reads text as HTML, which the text of a ledger is not.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const brief = (text, most) => plain(text.length > most ? text.slice(0, most - 1) + "…" : text);
const numeral = (value) => Number.isInteger(value) ? value.toLocaleString("en")
  : Math.abs(value) < 5e-5 ? value.toExponential(1) : value.toFixed(Math.abs(value) < 100 ? 4 : 1);

// The colors of text and of thin lines.
const inks = () => dark.matches ? ["#ececec", "#3a3a3a"] : ["#1a1a1a", "#d9d9d9"];

function look(x, y) {
  const [ink, line] = inks();
  const axis = { gridcolor: line, zeroline: false, automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 12 },
    margin: { l: 60, r: 10, t: 10, b: 50 }, hovermode: "closest", uirevision: "kept",
    xaxis: { ...axis, title: { text: x } }, yaxis: { ...axis, title: { text: y } },
    hoverlabel: { align: "left" },
    legend: { font: { size: 11 } },
  };
}

function draw(id, traces, layout) {
  return Plotly.react(id, traces, layout, { responsive: true, displayModeBar: false });
}

const who = (trial) => [
  `<b>${plain(trial.label)}</b>`,
  ...Object.entries(trial.values).map(([path, value]) => `${plain(path)} = ${plain(value)}`),
  plain([trial.stopped_at === null ? "" : "stopped early", trial.outcome || trial.status].filter(Boolean).join(", ")),
].join("<br>");

// The color of a share from 0 to 1, without the end of the scale that is too close to the background.
function shade(share) {
  const viridis = page.look.viridis.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  const [low, high] = dark.matches ? [0.25, 1] : page.look.shades;
  const place = (low + share * (high - low)) * (viridis.length - 1);
  const stop = Math.min(Math.floor(place), viridis.length - 2);
  const mix = viridis[stop].map((from, n) => Math.round(from + (place - stop) * (viridis[stop + 1][n] - from)));
  return `rgb(${mix.join(",")})`;
}

// Color and dash of each trial: by its value and seed if one numeric path was swept, else by its number.
function lines(trials) {
  const [palette, dashes] = [colors(), page.look.dashes];
  const varied = page.swept.filter((swept) => swept.values.length > 1);
  const seeds = [...new Set(trials.map((trial) => trial.seed))];
  if (varied.length !== 1 || !varied[0].numeric || page.arms.length) {
    return trials.map((_, number) => ({
      color: palette[number % palette.length],
      dash: dashes[Math.floor(number / palette.length) % dashes.length],
    }));
  }
  const { path, values, log } = varied[0];
  const scale = log ? Math.log : Number;
  const [low, high] = [scale(values[0]), scale(values[values.length - 1])];
  return trials.map((trial) => ({
    color: path in trial.values ? shade((scale(trial.values[path]) - low) / (high - low)) : GRAY,
    dash: dashes[seeds.indexOf(trial.seed) % dashes.length],
  }));
}

function drawCurves() {
  const x = here("curve-x").value;
  const train = here("curve-train").checked;
  const trials = page.trials.filter((trial) => trial.loss.length);
  const looks = lines(trials);
  const traces = trials.flatMap((trial, number) => {
    const line = looks[number];
    const shared = { x: along(trial, x), mode: "lines+markers", legendgroup: trial.id };
    const hover = `${who(trial)}<br>%{x:.5s} ${AXES[x]}: %{y:.4f}<extra></extra>`;
    const end = trial.outcome || (["stopped", "audited"].includes(trial.status) ? trial.status : "");
    const mark = (number) => number === trial.stopped_at ? "stopped" : number === trial.loss.length - 1 ? end : "";
    const marks = trial.loss.map((_, number) => mark(number));
    const marker = { opacity: 1, size: marks.map((is) => is ? 9 : 4), line: { width: marks.map((is) => is ? 2 : 0), color: line.color },
      symbol: marks.map((is) => is ? page.look.marks[is][0] : "circle") };
    const curve = { ...shared, y: trial.loss, name: brief(trial.label, 36), line, marker, hovertemplate: hover };
    const thin = { ...shared, y: trial.train_loss, mode: "lines", showlegend: false, opacity: 0.5,
      line: { ...line, width: 1 }, hovertemplate: hover.replace("<extra>", " (training)<extra>") };
    return train ? [curve, thin] : [curve];
  });
  const [shown, all] = [trials.reduce((sum, trial) => sum + trial.loss.length, 0), page.records];
  here("curve-points").textContent = shown === all ? ""
    : `${shown.toLocaleString("en")} of ${all.toLocaleString("en")} records are drawn. curves.csv has all of them.`;
  const layout = look(AXES[x], lossTitle());
  layout.yaxis.type = here("curve-y").value;
  const range = page.limits.curves;
  layout.yaxis.range = layout.yaxis.type === "log" ? range.map(Math.log10) : range;
  layout.xaxis.rangemode = "tozero";
  if (isNarrow()) layout.legend = { orientation: "h", y: -0.4, font: { size: 10 } };
  draw("curves", traces, layout);
}

function last(trial) {
  return trial.loss.length ? trial.loss[trial.loss.length - 1] : null;
}

const isGone = (trial) => trial.status === "diverged" || trial.status === "failed";
const measured = () => page.trials.filter((trial) => trial.loss.length && !isGone(trial));

// The last loss of a trial, and what its mark means. At the upper edge of the axis are the trials
// that diverged or failed, and those whose loss is above it.
function placed(trial) {
  const top = page.limits.last[1];
  if (isGone(trial)) return [top, trial.outcome];
  return last(trial) > top ? [top, "above the axis"] : [last(trial), trial.outcome || trial.status];
}

// The trials as points, a group for each kind of mark.
function byMark(trials, x) {
  const kinds = [...new Set(trials.map((trial) => placed(trial)[1]))];
  return kinds.map((kind) => {
    const some = trials.filter((trial) => placed(trial)[1] === kind);
    const [symbol, color] = page.look.marks[kind];
    const loss = (trial) => isGone(trial) ? "" : `<br>${numeral(last(trial))}`;
    return {
      x: some.map(x), y: some.map((trial) => placed(trial)[0]), text: some.map((trial) => who(trial) + loss(trial)),
      name: kind, mode: "markers", marker: { symbol, color, size: 9, line: { width: 2, color } },
      cliponaxis: false, showlegend: true, hovertemplate: "%{text}<extra></extra>",
    };
  });
}

function drawValues() {
  const path = here("value-path").value;
  here("values-section").hidden = !page.swept.length;
  if (!page.swept.length) return;
  const swept = page.swept.find((one) => one.path === path) || page.swept[0];
  const trials = page.trials.filter((trial) => swept.path in trial.values && (isGone(trial) || trial.loss.length));
  const value = (trial) => swept.numeric ? trial.values[swept.path] : plain(trial.values[swept.path]);
  const layout = look(plain(swept.path), lossTitle());
  layout.xaxis.type = swept.log ? "log" : swept.numeric ? "linear" : "category";
  if (swept.numeric && swept.values.length <= page.look.named) {
    layout.xaxis.tickvals = swept.values;
    layout.xaxis.ticktext = swept.values.map((tick) => String(Number(tick.toPrecision(4))));
  }
  layout.yaxis.range = page.limits.last;
  draw("values", byMark(trials, value), layout);
}

function drawCompute() {
  const trials = measured();
  const point = (trial) => [trial.tokens[trial.tokens.length - 1] * trial.flops_per_token, last(trial)];
  const front = page.front.map((id) => point(trials.find((trial) => trial.id === id)));
  const line = { x: front.map((at) => at[0]), y: front.map((at) => at[1]), mode: "lines",
    name: "best for its compute", line: { shape: "hv", color: GRAY, width: 1 }, hoverinfo: "skip" };
  const layout = look("FLOPs of the trial", lossTitle());
  layout.xaxis.type = "log";
  layout.yaxis.range = page.limits.last;
  draw("compute", [line, ...byMark(trials, (trial) => point(trial)[0])], layout);
}

// Rows of a chart by trial, from the top, each as high as a line of text.
function byTrial(layout, id, labels) {
  layout.yaxis = { ...layout.yaxis, tickvals: labels.map((_, n) => n),
    ticktext: labels.map((label) => brief(label, isNarrow() ? 22 : 34)),
    range: [labels.length - 0.5, -0.5] };
  here(id).style.height = `${Math.max(12, 6 + 1.4 * labels.length)}rem`;
}

function drawRungs() {
  const lines = { x: [], y: [], mode: "lines", line: { color: GRAY, width: 1.5 },
    showlegend: false, hoverinfo: "skip" };
  const kinds = {};
  page.rungs.forEach((fate, row) => {
    lines.x.push(0, fate.tokens, null);
    lines.y.push(row, row, null);
    for (const mark of fate.marks) {
      const [symbol, color] = page.look.marks[mark.kind];
      kinds[mark.kind] ??= { x: [], y: [], text: [], name: mark.kind, mode: "markers",
        marker: { symbol, color, size: 10, line: { width: 2, color } },
        hovertemplate: "%{text}<extra></extra>" };
      kinds[mark.kind].x.push(mark.tokens);
      kinds[mark.kind].y.push(row);
      kinds[mark.kind].text.push(
        `<b>${plain(fate.label)}</b><br>${mark.kind} at ${mark.tokens.toLocaleString("en")} tokens`
        + (mark.words ? `<br>${plain(mark.words)}` : ""));
    }
  });
  const layout = look("tokens", "");
  byTrial(layout, "rungs", page.rungs.map((fate) => fate.label));
  draw("rungs", [lines, ...Object.values(kinds)], layout);
}

function drawGantt() {
  const [bars, palette] = [page.gantt.bars, colors()];
  const use = page.gantt.utilization;
  here("utilization").textContent = use === null ? "" : `${(100 * use).toFixed(0)}% of the slots' time was used.`;
  const trials = [...new Set(bars.map((bar) => bar.trial))];
  const trace = {
    type: "bar", orientation: "h", base: bars.map((bar) => bar.from),
    x: bars.map((bar) => bar.to - bar.from), y: bars.map((bar) => bar.slot),
    marker: { color: bars.map((bar) => palette[trials.indexOf(bar.trial) % palette.length]),
      line: { width: 1, color: dark.matches ? "#16181b" : "#ffffff" } },
    text: bars.map((bar) => `<b>${plain(bar.trial)}</b><br>${bar.from.toFixed(0)} s to ${bar.to.toFixed(0)} s`),
    textposition: "none", hovertemplate: "%{text}<extra></extra>",
  };
  const slots = Math.max(0, ...bars.map((bar) => bar.slot + 1));
  const layout = look("seconds since the first start", "");
  layout.yaxis = { ...layout.yaxis, tickvals: [...Array(slots).keys()],
    ticktext: [...Array(slots).keys()].map((n) => `slot ${n + 1}`), range: [slots - 0.4, -0.6] };
  here("gantt").style.height = `${8 + 2.2 * slots}rem`;
  draw("gantt", [trace], layout);
}

function drawImportance() {
  const found = Object.entries(page.importance).sort((a, b) => a[1] - b[1]);
  here("importance-section").hidden = !found.length;
  if (!found.length) return;
  const trace = { type: "bar", orientation: "h", x: found.map((one) => one[1]),
    y: found.map((one) => plain(one[0])), marker: { color: colors()[0] },
    hovertemplate: "%{y}: %{x:.0%}<extra></extra>" };
  const layout = look("share", "");
  layout.xaxis.tickformat = ".0%";
  draw("importance", [trace], layout);
}

function drawParallel() {
  const paths = page.swept.filter((swept) => swept.values.length > 1);
  const trials = measured().filter((trial) => paths.every((swept) => swept.path in trial.values));
  here("parallel-section").hidden = paths.length < 2 || trials.length < 2;
  if (paths.length < 2 || trials.length < 2) return;
  const losses = trials.map(last);
  const dimensions = paths.map((swept) => {
    const raw = trials.map((trial) => trial.values[swept.path]);
    const listed = !swept.numeric || swept.values.length <= 8;
    const scale = (value) => listed ? swept.values.indexOf(value) : swept.log ? Math.log10(value) : value;
    const dimension = { label: plain(swept.path), values: raw.map(scale) };
    if (listed) {
      dimension.tickvals = swept.values.map((_, n) => n);
      dimension.ticktext = swept.values.map((value) => brief(String(value), 16));
    } else if (swept.log) {
      const ends = [Math.min(...raw), Math.max(...raw)];
      dimension.tickvals = ends.map(Math.log10);
      dimension.ticktext = ends.map((value) => value.toPrecision(3));
    }
    return dimension;
  });
  dimensions.push({ label: plain(page.metric_name), values: losses });
  const trace = { type: "parcoords", dimensions,
    line: { color: losses, colorscale: "Viridis", reversescale: true, showscale: true } };
  const layout = look("", "");
  layout.margin = { l: 80, r: 20, t: 50, b: 30 };
  draw("parallel", [trace], layout);
}

function drawArms() {
  here("arms-section").hidden = !page.arms.length;
  if (!page.arms.length) return;
  const arms = page.arms.filter((arm) => arm.difference !== null);
  const color = arms.map((arm) => page.look.verdicts[arm.verdict] || GRAY);
  const bounds = arms.map((arm) => arm.low === null ? [0, 0] : [arm.difference - arm.low, arm.high - arm.difference]);
  const trace = {
    x: arms.map((arm) => arm.difference), y: arms.map((_, n) => n), mode: "markers",
    marker: { color, size: 10 },
    error_x: { type: "data", symmetric: false, array: bounds.map((one) => one[1]),
      arrayminus: bounds.map((one) => one[0]), color: GRAY, thickness: 2 },
    text: arms.map((arm) => `<b>${plain(arm.arm)}</b><br>${plain(arm.words)}`),
    hovertemplate: "%{text}<br>%{x:.4f}<extra></extra>",
  };
  const line = isNarrow() ? "<br>" : " ";
  const layout = look(`difference from the baseline:${line}${lossTitle()};${line}left is better`, "");
  byTrial(layout, "arms", arms.map((arm) => arm.arm));
  layout.xaxis.rangemode = "tozero";  // where the baseline is
  layout.xaxis.zeroline = true;
  layout.xaxis.zerolinecolor = layout.font.color;
  draw("arms", [trace], layout);
  const rows = page.arms.map((arm) => [
    arm.arm, arm.changes, arm.chosen, arm.n, arm.mean, arm.difference, arm.low, arm.high, arm.p_holm, arm.words,
    arm.hypothesis, arm.cautions,
  ]);
  here("arm-table").tBodies[0].replaceChildren(...rows.map((values) => tableRow(values)));
}

function tableRow(values) {
  const row = document.createElement("tr");
  for (const value of values) {
    const cell = row.insertCell();
    const number = typeof value === "number";
    cell.textContent = value === null ? "" : number ? numeral(value) : value;
    if (number) cell.className = "number";
    else if (value !== null && value.length > 40) cell.className = "words";
  }
  return row;
}

function fillTable() {
  const head = here("trials").tHead;
  const body = here("trials").tBodies[0];
  const { columns, rows } = page.table;
  if (!head.rows.length) {
    const row = head.insertRow();
    columns.forEach((name, column) => {
      const cell = row.appendChild(document.createElement("th"));
      const button = cell.appendChild(document.createElement("button"));
      button.textContent = name;
      button.addEventListener("click", () => {
        sorted = { column, down: sorted.column === column && !sorted.down };
        fillTable();
      });
    });
  }
  [...head.rows[0].cells].forEach((cell, column) => {
    const order = column === sorted.column ? (sorted.down ? "descending" : "ascending") : "none";
    cell.setAttribute("aria-sort", order);
  });
  const shown = [...rows];
  if (sorted.column !== null) {
    const missing = (value) => value === null || value === "";
    shown.sort((one, other) => {
      const [a, b] = [one[sorted.column], other[sorted.column]];
      if (missing(a) || missing(b)) return missing(a) - missing(b);  // always last
      const less = typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
      return sorted.down ? -less : less;
    });
  }
  body.replaceChildren(...shown.map((values) => tableRow(values)));
}

function fillHead() {
  const count = page.counts;
  here("state").textContent = `results for ${count.planned - count.unfinished} of ${count.planned} trial`
    + (count.planned === 1 ? "" : "s");
  here("verdict").replaceChildren(...page.verdict.map((sentence) => {
    const item = document.createElement("li");
    item.textContent = sentence;
    return item;
  }));
  const select = here("value-path");
  const paths = page.swept.map((swept) => swept.path);
  if (select.options.length !== paths.length) {
    select.replaceChildren(...paths.map((path) => new Option(path, path)));
  }
}

function fillSample() {
  here("sample-section").hidden = !page.sample;
  if (!page.sample) return;
  here("sample-words").textContent = page.sample.words;
  here("sample").textContent = page.sample.text.trim();
}

function show() {
  fillHead();
  fillSample();
  fillTable();
  for (const chart of [drawArms, drawCurves, drawValues, drawRungs, drawGantt, drawCompute, drawImportance, drawParallel]) {
    chart();
  }
}

for (const id of ["curve-x", "curve-y", "curve-train"]) here(id).addEventListener("change", drawCurves);
here("value-path").addEventListener("change", drawValues);
dark.addEventListener("change", show);
window.addEventListener("beforeprint", () => document.querySelectorAll(".chart").forEach((chart) => Plotly.Plots.resize(chart)));

// Loads the chart library, which the page holds compressed.
async function load() {
  const packed = Uint8Array.from(atob(here("plotly").textContent), (letter) => letter.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.nonce = NONCE;
  script.textContent = await new Response(unpacked).text();
  document.head.append(script);
}

fillHead();
fillSample();
fillTable();
load().then(() => {
  show();
  if (!FEED) return;
  new EventSource(FEED).onmessage = (event) => {
    page = JSON.parse(event.data);
    show();
  };
}, () => {
  here("state").textContent += "; this browser is too old to draw the charts";
});
