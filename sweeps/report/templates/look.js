"use strict";
// What the charts of all pages share: colors, numbers, axes, marks at the edge, files to download.

const NONCE = document.currentScript.nonce;  // of a live page, which runs no other scripts
const dark = window.matchMedia("(prefers-color-scheme: dark)");
let printing = false;

const here = (id) => document.getElementById(id);
const isDark = () => dark.matches && !printing;
const isNarrow = () => !printing && window.innerWidth < 700;
const inks = () => isDark() ? ["#ececec", "#3a3a3a"] : ["#1a1a1a", "#dddddd"];  // of text, of thin lines
const ofPage = (colors) => colors[isDark() ? 1 : 0];  // of a pair: on light, on dark
const sum = (numbers) => numbers.reduce((total, one) => total + one, 0);
const mean = (numbers) => sum(numbers) / numbers.length;
const unique = (values) => [...new Set(values)];

// Plotly reads text as HTML, which the text of a ledger is not.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const cut = (text, most) => text.length > most ? text.slice(0, most - 1) + "…" : text;
const brief = (text, most) => plain(cut(text, most));

// A number in a table: losses with the digits that seeds can resolve.
const numeral = (value) => Number.isInteger(value) ? value.toLocaleString("en")
  : Math.abs(value) < 5e-5 ? value.toExponential(1) : value.toFixed(Math.abs(value) < 100 ? 4 : 1);
// A swept value in few characters, as `sweeps.text.show` writes it.
const show = (value) => {
  if (typeof value !== "number" || Number.isInteger(value)) return String(value);
  const exact = Number(value.toPrecision(6));
  return String(exact === value ? exact : Number(value.toPrecision(4)));
};
// A count on an axis: 98k, 1.6M; FLOPs have the prefixes of SI.
function count(value, si = false) {
  const names = si ? ["", "k", "M", "G", "T", "P", "E", "Z"] : ["", "k", "M", "B", "T"];
  const step = Math.min(names.length - 1, Math.max(0, Math.floor(Math.log10(Math.abs(value) || 1) / 3 + 1e-9)));
  return `${Number((value / 1000 ** step).toPrecision(4))}${names[step]}`;
}

// The color mixed with that of the page, less so on a dark one, where it would vanish.
function tint(color, share) {
  const strength = isDark() ? 0.4 + 0.6 * share : share;
  const ground = isDark() ? [22, 24, 27] : [255, 255, 255];
  const parts = [1, 3, 5].map((at, n) => Math.round(parseInt(color.slice(at, at + 2), 16) * strength + ground[n] * (1 - strength)));
  return `rgb(${parts.join(",")})`;
}

// The limits of a loss axis, such that a few huge losses do not squeeze the others together.
function limits(losses, reach) {
  const sorted = losses.filter(Number.isFinite).sort((a, b) => a - b);
  if (!sorted.length) return [0, 1];
  const place = 0.75 * (sorted.length - 1);
  const [below, above] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
  const quartile = below + (above - below) * (place % 1);
  const [low, top] = [sorted[0], sorted[sorted.length - 1]];
  const high = Math.min(top, quartile + reach * (quartile - low));
  const margin = 0.05 * (high - low) || 0.05 * Math.abs(low) || 1;
  return [low - margin, high + margin];
}

// Evenly spaced round ticks, at most about seven.
function evenTicks(low, high) {
  const rough = (high - low) / 6 || Math.abs(low) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-6);
  const number = Math.floor(high / step + 1e-6) - first + 1;
  return [...Array(Math.max(0, number)).keys()].map((n) => Number(((first + n) * step).toPrecision(12)));
}

// Round ticks of a logarithmic axis, all of them written out; at most about eight.
function roundTicks(low, high) {
  const decades = Math.log10(high / low);
  const steps = decades < 1.5 ? [1, 2, 5] : decades < 4 ? [1, 3] : [1];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const step of steps) {
      const tick = Number(`${step}e${power}`);
      if (tick >= low * 0.97 && tick <= high * 1.03) ticks.push(tick);
    }
  }
  return ticks.length > 2 ? ticks : evenTicks(low, high);
}

// The first row for each label in which it touches no other one; positions ascend, in pixels.
function inRows(positions, labels) {
  const ends = [];
  return positions.map((position, n) => {
    const half = 3.6 * labels[n].length + 4;
    let row = ends.findIndex((end) => end <= position - half);
    if (row < 0) row = ends.length;
    ends[row] = position + half;
    return row;
  });
}

// The numbers of the positions, which ascend, that are so many pixels from the last one that was kept.
function apart(positions, gap) {
  let last = -Infinity;
  return positions.map((_, n) => n).filter((n) => positions[n] - last >= gap && (last = positions[n]) > -Infinity);
}

// Ticks at the values themselves where these were chosen and are few, else round ones; the labels of an upright axis
// that would touch the one below are left out, and those of the other one stand in the next row.
function valueTicks(axis, swept, pixels, most, isUpright = false) {
  const values = swept.values;
  const [low, high] = [values[0], values[values.length - 1]];
  const scale = swept.log ? Math.log10 : Number;
  const margin = 0.05 * (scale(high) - scale(low)) || 0.5;
  axis.type = swept.log ? "log" : "linear";
  axis.range = [scale(low) - margin, scale(high) + margin];
  if (!swept.sampled && values.length <= most) {
    const labels = values.map(show);
    const room = pixels / (axis.range[1] - axis.range[0]);
    const places = values.map((value) => (scale(value) - axis.range[0]) * room);
    const rows = isUpright ? places.map(() => 0) : inRows(places, labels);
    const kept = isUpright ? apart(places, 14) : values.map((_, n) => n);
    axis.tickvals = kept.map((n) => values[n]);
    axis.ticktext = kept.map((n) => "<br>".repeat(rows[n]) + labels[n]);
  } else if (swept.log) {
    axis.tickvals = roundTicks(low, high);
    axis.ticktext = axis.tickvals.map(show);
  }
  axis.tickangle = 0;
}

function countTicks(axis, values, si) {
  axis.type = "log";
  const [low, high] = [Math.min(...values), Math.max(...values)];
  axis.range = [Math.log10(low) - 0.1, Math.log10(high) + 0.1];
  axis.tickvals = roundTicks(low * 0.8, high * 1.25);
  axis.ticktext = axis.tickvals.map((tick) => count(tick, si));
}

const BELOW = { orientation: "h", x: 0, yref: "container", y: 0, yanchor: "bottom", font: { size: 11 } };  // of a legend

// Room for a legend below the axis: its rows, those of the ticks and of the axis title.
function makeRoom(id, traces, layout) {
  const names = traces.filter((trace) => trace.name && trace.showlegend !== false).map((trace) => trace.name.replace(/<[^>]*>/g, ""));
  if (layout.legend.orientation !== "h" || !names.length || layout.showlegend === false) return;
  const width = (printing ? 680 : here(id).offsetWidth) - 20;
  const each = 6 * Math.max(...names.map((name) => name.length)) + 46;
  const rows = Math.ceil(names.length / Math.max(1, Math.floor(width / each)));
  const lines = (words) => words.split("<br>").length;
  const ticks = Math.max(1, ...(layout.xaxis.ticktext ?? []).map((tick) => lines(String(tick))));
  layout.margin.b = 24 + 15 * ticks + 17 * lines(layout.xaxis.title.text) + 20 * rows;
  const more = 15 * (ticks - 1) + 17 * (lines(layout.xaxis.title.text) - 1) + 20 * (rows - 1) + layout.margin.t - 10;
  here(id).style.height = `${here(id).offsetHeight + more}px`;  // so that the axes keep theirs
}

function layoutOf(x, y) {
  const [ink, line] = inks();
  const axis = { gridcolor: line, zeroline: false, automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: isNarrow() ? 11 : 12 },
    margin: { l: isNarrow() ? 46 : 60, r: 10, t: 10, b: 46 }, hovermode: "closest", uirevision: "kept",
    xaxis: { ...axis, title: { text: x, standoff: 8 } }, yaxis: { ...axis, title: { text: y, standoff: 6 } },
    hoverlabel: { align: "left" }, dragmode: isNarrow() ? false : "zoom",
    legend: isNarrow() || printing ? BELOW : { font: { size: 11 } },
  };
}

// Labels beside points on the right, moved apart so that none overprints another.
function labelsAt(points, range, height) {
  const gap = 14 * (range[1] - range[0]) / height;
  const sorted = [...points].sort((a, b) => b.y - a.y);
  let last = Infinity;
  for (const point of sorted) last = point.at = Math.min(point.y, last - gap);
  let floor = range[0];
  for (const point of sorted.reverse()) floor = (point.at = Math.max(point.at, floor)) + gap;
  return sorted.map((point) => ({
    x: 1, xref: "paper", y: point.at, xanchor: "left", yanchor: "middle", xshift: 6, showarrow: false, align: "left",
    text: `<span style="color:${point.color}">━</span> ${point.text}`, font: { size: 11 },
  }));
}

function draw(id, traces, layout) {
  makeRoom(id, traces, layout);
  if (printing) Object.assign(layout, { width: 680, autosize: false });
  return Plotly.react(id, traces, layout, { responsive: true, displayModeBar: false });
}

function save(name, content, kind) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: kind }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// What a chart shows as a table: a row for each point.
function csvOf(chart) {
  const cell = (value) => /[",\n]/.test(String(value ?? "")) ? `"${String(value).replace(/"/g, '""')}"` : String(value ?? "");
  const rows = [["series", "trials", "x", "y", "z"]];
  for (const trace of chart.data) {
    if (trace.type === "parcoords") {
      rows.length = 0;
      rows.push(trace.dimensions.map((one) => one.name));
      trace.dimensions[0].values.forEach((_, n) => rows.push(trace.dimensions.map((one) => one.raw[n])));
    } else if (!trace.meta?.isDecoration) {
      (trace.x ?? []).forEach((x, n) => {
        if (x !== null) rows.push([trace.name, trace.customdata?.[n], trace.base ? trace.base[n] : x, trace.y?.[n], trace.marker?.color?.[n]?.toFixed ? trace.marker.color[n] : ""]);
      });
    }
  }
  return rows.map((row) => row.map(cell).join(",")).join("\n") + "\n";
}

document.addEventListener("click", (event) => {
  const { figure, kind } = event.target.dataset ?? {};
  if (!figure) return;
  const name = `${document.body.dataset.name}_${figure}`;
  if (kind === "csv") save(`${name}.csv`, csvOf(here(figure)), "text/csv");
  else Plotly.downloadImage(here(figure), { format: kind, filename: name, width: 900, height: here(figure).offsetHeight, scale: 2 });
});

// Loads the chart library, which the page holds compressed.
async function load() {
  const packed = Uint8Array.from(atob(here("plotly").textContent), (letter) => letter.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.nonce = NONCE;
  script.textContent = await new Response(unpacked).text();
  document.head.append(script);
}

// Draws again what depends on the width, the colors of the page and whether it is printed.
function redrawOn(drawAll) {
  dark.addEventListener("change", drawAll);
  let narrow = isNarrow();
  window.addEventListener("resize", () => {
    if (narrow !== isNarrow()) drawAll();
    narrow = isNarrow();
  });
  for (const [event, is] of [["beforeprint", true], ["afterprint", false]]) {
    window.addEventListener(event, () => {
      printing = is;
      drawAll();
    });
  }
}

function element(name, text, more = {}) {
  const made = Object.assign(document.createElement(name), more);
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

// A sentence whose parts between backquotes are code.
function sentence(name, words) {
  const made = document.createElement(name);
  words.split("`").forEach((part, n) => made.append(n % 2 ? element("code", part) : part));
  return made;
}
