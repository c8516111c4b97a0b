"use strict";

const COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7f7f7f"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
// Stops of viridis, for values that have an order.
const VIRIDIS = ["440154", "482878", "3e4a89", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"]
  .map((stop) => [0, 2, 4].map((at) => parseInt(stop.slice(at, at + 2), 16)));
const AXES = { tokens: "tokens", step: "updates", seconds: "seconds of training", flops: "FLOPs" };
const MARKS = {
  promoted: ["triangle-right", "#009E73"], paused: ["line-ns-open", "#7f7f7f"],
  stopped: ["square", "#E69F00"], diverged: ["x", "#D55E00"], failed: ["cross", "#CC79A7"],
  finished: ["circle", "#0072B2"], spiked: ["star-triangle-up", "#D55E00"], stuck: ["line-ew-open", "#D55E00"],
  "blown up": ["x", "#D55E00"],
};

const VERDICTS = { better: "#009E73", worse: "#D55E00", "no difference": "#0072B2" };

let page = JSON.parse(document.getElementById("content").textContent);
let sorted = { column: null, down: false };
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const here = (id) => document.getElementById(id);
const isNarrow = () => window.innerWidth < 700;
const lossTitle = () => `${page.metric_name}${isNarrow() ? "<br>" : " "}(${page.unit})`;

// Charts show text as a little HTML; what stands in a ledger is none.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const brief = (text, most) => plain(text.length > most ? text.slice(0, most - 1) + "…" : text);
const numeral = (value) => Number.isInteger(value) ? value.toLocaleString("en")
  : Math.abs(value) < 5e-5 ? value.toExponential(1) : value.toFixed(Math.abs(value) < 100 ? 4 : 1);

function look(x, y) {
  const [ink, line] = dark.matches ? ["#ececec", "#3a3a3a"] : ["#1a1a1a", "#d9d9d9"];
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
  plain(trial.outcome || trial.status),
].join("<br>");

// The color of a share from 0 to 1; without the end of the scale that the paper swallows.
function shade(share) {
  const [low, high] = dark.matches ? [0.25, 1] : [0, 0.88];
  const place = (low + share * (high - low)) * (VIRIDIS.length - 1);
  const stop = Math.min(Math.floor(place), VIRIDIS.length - 2);
  const mix = VIRIDIS[stop].map((from, n) => Math.round(from + (place - stop) * (VIRIDIS[stop + 1][n] - from)));
  return `rgb(${mix.join(",")})`;
}

// Color and dashes of the trials: by value and seed where one path with an order was swept, else apart.
function lines(trials) {
  const varied = page.swept.filter((swept) => swept.values.length > 1);
  const seeds = [...new Set(trials.map((trial) => trial.seed))];
  if (varied.length !== 1 || !varied[0].numeric || page.arms.length) {
    return trials.map((_, number) => ({
      color: COLORS[number % COLORS.length],
      dash: DASHES[Math.floor(number / COLORS.length) % DASHES.length],
    }));
  }
  const { path, values, log } = varied[0];
  const scale = log ? Math.log : Number;
  const [low, high] = [scale(values[0]), scale(values[values.length - 1])];
  return trials.map((trial) => ({
    color: path in trial.values ? shade((scale(trial.values[path]) - low) / (high - low)) : "#7f7f7f",
    dash: DASHES[seeds.indexOf(trial.seed) % DASHES.length],
  }));
}

function drawCurves() {
  const x = here("curve-x").value;
  const train = here("curve-train").checked;
  const trials = page.trials.filter((trial) => trial.loss.length);
  const looks = lines(trials);
  const traces = trials.flatMap((trial, number) => {
    const line = looks[number];
    const shared = { x: trial[x], mode: "lines+markers", legendgroup: trial.id };
    const hover = `${who(trial)}<br>%{x:.5s} ${AXES[x]}: %{y:.4f}<extra></extra>`;
    const curve = { ...shared, y: trial.loss, name: brief(trial.label, 36), line,
      marker: { size: 4 }, hovertemplate: hover };
    const thin = { ...shared, y: trial.train_loss, mode: "lines", showlegend: false, opacity: 0.5,
      line: { ...line, width: 1 }, hovertemplate: hover.replace("<extra>", " (training)<extra>") };
    return train ? [curve, thin] : [curve];
  });
  const layout = look(AXES[x], lossTitle());
  layout.yaxis.type = here("curve-y").value;
  const range = lossRange(measured().flatMap((trial) => trial.loss));
  if (range) layout.yaxis.range = layout.yaxis.type === "log" ? range.map(Math.log10) : range;
  layout.xaxis.rangemode = "tozero";
  if (isNarrow()) layout.legend = { orientation: "h", y: -0.4, font: { size: 10 } };
  draw("curves", traces, layout);
}

function last(trial) {
  return trial.loss.length ? trial.loss[trial.loss.length - 1] : null;
}

// A few huge losses must not flatten the rest: no further above the upper quartile than 1.5 times its
// height above the lowest.
function lossRange(losses) {
  if (!losses.length) return null;
  const ordered = [...losses].sort((a, b) => a - b);
  const [low, quartile] = [ordered[0], ordered[Math.floor(0.75 * (ordered.length - 1))]];
  const high = Math.min(ordered[ordered.length - 1], quartile + 1.5 * (quartile - low));
  const margin = 0.05 * (high - low) || 0.05;
  return [low - margin, high + margin];
}

const measured = () => page.trials.filter((trial) => trial.loss.length && trial.status !== "diverged");

// A mark for every way that trials went wrong or ended, with those that did.
function byOutcome(trials, point) {
  const kind = (trial) => trial.outcome || trial.status;
  return [...new Set(trials.map(kind))].map((status) => {
    const some = trials.filter((trial) => kind(trial) === status);
    const [symbol, color] = MARKS[status] || ["circle-open", "#7f7f7f"];
    return {
      x: some.map((trial) => point(trial)[0]), y: some.map((trial) => point(trial)[1]),
      text: some.map(who), name: status, mode: "markers", marker: { symbol, color, size: 9 },
      hovertemplate: "%{text}<br>%{y:.4f}<extra></extra>",
    };
  });
}

function drawValues() {
  const path = here("value-path").value;
  here("values-section").hidden = !page.swept.length;
  if (!page.swept.length) return;
  const swept = page.swept.find((one) => one.path === path) || page.swept[0];
  const trials = measured().filter((trial) => swept.path in trial.values);
  const value = (trial) => swept.numeric ? trial.values[swept.path] : plain(trial.values[swept.path]);
  const layout = look(plain(swept.path), lossTitle());
  layout.xaxis.type = swept.log ? "log" : swept.numeric ? "linear" : "category";
  const gone = page.trials.filter((trial) => trial.status === "diverged" && swept.path in trial.values)
    .map((trial) => `${trial.values[swept.path]} (${trial.outcome})`);
  here("values-missing").textContent = gone.length ? `Diverged, without a loss to draw: ${[...new Set(gone)].join(", ")}.` : "";
  draw("values", byOutcome(trials, (trial) => [value(trial), last(trial)]), layout);
}

function drawCompute() {
  const trials = measured();
  const point = (trial) => [trial.flops[trial.flops.length - 1], last(trial)];
  const front = trials.map(point).sort((a, b) => a[0] - b[0] || a[1] - b[1])
    .reduce((best, at) => best.length && best[best.length - 1][1] <= at[1] ? best : [...best, at], []);
  const line = { x: front.map((at) => at[0]), y: front.map((at) => at[1]), mode: "lines",
    name: "best for its compute", line: { shape: "hv", color: "#7f7f7f", width: 1 }, hoverinfo: "skip" };
  const layout = look("FLOPs of the trial", lossTitle());
  layout.xaxis.type = "log";
  draw("compute", [line, ...byOutcome(trials, point)], layout);
}

// Rows of a chart by trial, from the top, each as high as a line of text.
function byTrial(layout, id, labels) {
  layout.yaxis = { ...layout.yaxis, tickvals: labels.map((_, n) => n),
    ticktext: labels.map((label) => brief(label, isNarrow() ? 22 : 34)),
    range: [labels.length - 0.5, -0.5] };
  here(id).style.height = `${Math.max(12, 6 + 1.4 * labels.length)}rem`;
}

function drawRungs() {
  const lines = { x: [], y: [], mode: "lines", line: { color: "#7f7f7f", width: 1.5 },
    showlegend: false, hoverinfo: "skip" };
  const kinds = {};
  page.rungs.forEach((fate, row) => {
    lines.x.push(0, fate.tokens, null);
    lines.y.push(row, row, null);
    for (const mark of fate.marks) {
      const [symbol, color] = MARKS[mark.kind];
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
  const bars = page.gantt.bars;
  const use = page.gantt.utilization;
  here("utilization").textContent = use === null ? "" : `${(100 * use).toFixed(0)}% of the slots' time was taken.`;
  const trials = [...new Set(bars.map((bar) => bar.trial))];
  const trace = {
    type: "bar", orientation: "h", base: bars.map((bar) => bar.from),
    x: bars.map((bar) => bar.to - bar.from), y: bars.map((bar) => bar.slot),
    marker: { color: bars.map((bar) => COLORS[trials.indexOf(bar.trial) % COLORS.length]),
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
    y: found.map((one) => plain(one[0])), marker: { color: COLORS[0] },
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
  const color = arms.map((arm) => VERDICTS[arm.verdict] || "#7f7f7f");
  const bounds = arms.map((arm) => arm.low === null ? [0, 0] : [arm.difference - arm.low, arm.high - arm.difference]);
  const trace = {
    x: arms.map((arm) => arm.difference), y: arms.map((_, n) => n), mode: "markers",
    marker: { color, size: 10 },
    error_x: { type: "data", symmetric: false, array: bounds.map((one) => one[1]),
      arrayminus: bounds.map((one) => one[0]), color: "#7f7f7f", thickness: 2 },
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
show();

if (FEED) {
  new EventSource(FEED).onmessage = (event) => {
    page = JSON.parse(event.data);
    show();
  };
}
