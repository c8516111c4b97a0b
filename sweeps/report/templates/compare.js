// Compares the experiments that are picked; which ones stands in the address.

const page = JSON.parse(here("content").textContent);
const AXES = { tokens: "tokens", flops: "FLOPs", seconds: "seconds of training" };
const FEW = 6;  // experiments, of many, that are compared before any were picked
const REACH = 1.5;
let state = fromAddress();

function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const list = (name) => (given.get(name) ?? "").split(",").filter(Boolean);
  const named = page.experiments.filter((one) => list("pick").includes(one.name) || list("sweeps").includes(one.sweep));
  const latest = page.experiments[page.experiments.length - 1];
  const picked = named.length ? named : page.experiments.filter((one) => one.group === latest.group).slice(-FEW);
  return { pick: picked.map((one) => one.name), x: given.get("x") in AXES ? given.get("x") : "tokens", against: given.get("against") ?? "" };
}

function change(changes) {
  state = { ...state, ...changes };
  const words = new URLSearchParams({ pick: state.pick.join(","), x: state.x, against: state.against });
  history.replaceState(null, "", `#${words.toString().replace(/%2C/g, ",").replace(/%2F/g, "/")}`);
  showAll();
}

const picked = () => page.experiments.filter((one) => state.pick.includes(one.name));
const reference = () => picked().find((one) => one.name === state.against) ?? picked()[0];
const colorOf = (number) => ofPage(page.colors[number % page.colors.length]);
const lossOf = (one) => one.losses.length ? mean(one.losses.map(([, loss]) => loss)) : null;

// ---- what differs between two of them

// Why their losses can't be compared; empty if they can be.
function whyNot(one, other) {
  if (one.metric !== other.metric) return `they are compared by ${one.metric_name}, and it by ${other.metric_name}`;
  if (one.group === other.group) return "";
  const terms = (some) => page.groups[some.group] ?? "";
  return `they have ${terms(one)}; it has ${terms(other)}`;
}

// The difference of the losses, with an interval if at least two seeds finished in both.
function difference(one, other) {
  if (one.effect?.baseline === other.name) return one.effect;
  if (other.effect?.baseline === one.name) return negated(other.effect);
  const theirs = new Map(other.losses);
  const found = one.losses.filter(([seed]) => theirs.has(seed)).map(([seed, loss]) => loss - theirs.get(seed));
  if (!found.length) return null;
  const center = mean(found);
  if (found.length < 2) return { n: 1, mean: center, low: null, high: null };
  const error = Math.sqrt(sum(found.map((one) => (one - center) ** 2)) / (found.length - 1) / found.length);
  const half = page.reach[found.length] * error;
  return { n: found.length, mean: center, low: center - half, high: center + half };
}

function negated({ n, mean, low, high }) {
  const of = (value) => value === null ? null : -value;
  return { n, mean: of(mean), low: of(high), high: of(low) };
}

const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(4);

function differenceWords(one, other) {
  if (one === other) return "";
  if (whyNot(one, other)) return "not comparable";
  const found = difference(one, other);
  if (!found) return "no seed finished in both";
  const chosen = one.chosen || other.chosen ? "; values chosen by these losses" : "";
  const seeds = found.n === 1 ? "one shared seed" : `${found.n} shared seeds`;
  const interval = found.low === null ? "no interval" : `${signed(found.low)} to ${signed(found.high)}`;
  return `${signed(found.mean)} (${interval}; ${seeds}${chosen})`;
}

// ---- the page

function fillPicks() {
  here("picks").replaceChildren(...page.experiments.map((one) => {
    const label = element("label");
    const box = element("input", null, { type: "checkbox", checked: state.pick.includes(one.name), name: one.name });
    box.addEventListener("change", () => change({ pick: box.checked ? [...state.pick, one.name] : state.pick.filter((name) => name !== one.name) }));
    label.append(box, ` ${one.name}`);
    return label;
  }));
  here("choice").hidden = page.experiments.length < 2;
  here("x").value = state.x;
  here("against").replaceChildren(...picked().map((one) => new Option(one.name, one.name)));
  here("against").value = reference()?.name ?? "";
}

function fillLosses() {
  const heads = [...here("losses").tHead.rows[0].cells].map((cell) => cell.textContent);
  here("losses").tBodies[0].replaceChildren(...picked().map((one) => {
    const link = element("a", one.name, { href: one.report });
    const loss = lossOf(one);
    const cells = [link, one.values, loss === null ? "not finished" : `${loss.toFixed(4)} ${one.unit}`, one.losses.length, one.where,
      differenceWords(one, reference()), one.params.toLocaleString("en"), count(one.flops, true)];
    const row = document.createElement("tr");
    cells.forEach((cell, n) => {
      const made = row.insertCell();
      made.append(cell);
      made.dataset.name = heads[n];
    });
    return row;
  }));
  const names = (why) => picked().filter((one) => whyNot(one, reference()) === why).map((one) => one.name).join(", ");
  const reasons = unique(picked().map((one) => whyNot(one, reference()))).filter(Boolean);
  here("why-not").replaceChildren(...reasons.map((why) => element("li", `Not comparable with ${reference().name}: ${names(why)}, because ${why}.`)));
}

function fillConfigs() {
  const some = picked();
  const value = (one, path) => JSON.stringify(one.config[path]) ?? "";
  const paths = unique(some.flatMap((one) => Object.keys(one.config))).filter((path) => unique(some.map((one) => value(one, path))).length > 1);
  here("config-section").hidden = !paths.length;
  const row = (head, cells, name) => {
    const made = document.createElement("tr");
    made.append(element("th", head), ...cells.map((cell) => element(name, cell)));
    return made;
  };
  here("configs").replaceChildren(row("", some.map((one) => one.name), "th"), ...paths.map((path) => row(path, some.map((one) => value(one, path)), "td")));
}

function drawCurves() {
  const some = picked().filter((one) => one.curve.tokens.length);
  here("curves-section").hidden = !some.length;
  if (!some.length) return;
  const units = unique(some.map((one) => `${one.metric_name} (${one.unit})`));
  here("curve-words").textContent = (units.length > 1 ? "Their losses have different units. " : "")
    + (unique(some.map((one) => one.group)).length > 1 ? "Their losses can't all be compared: see below. " : "") + "A band is from the lowest to the highest seed.";
  const dashes = ["solid", "dash", "dashdot", "dot"];
  const traces = some.flatMap((one, n) => curveOf(one, colorOf(n), dashes[Math.floor(n / 7) % 4]));
  const layout = layoutOf(AXES[state.x], units.length > 1 ? "loss" : units[0]);
  layout.yaxis.range = limits(some.flatMap((one) => [...one.curve.mean, ...one.curve.low]), REACH);
  layout.xaxis.rangemode = "tozero";
  layout.xaxis.exponentformat = state.x === "flops" ? "SI" : "B";
  layout.uirevision = state.x;
  if (!isNarrow() && !printing) {
    const ends = some.map((one, n) => ({ y: one.curve.mean[one.curve.mean.length - 1], text: brief(one.name, 34), color: colorOf(n) })).filter((end) => end.y <= layout.yaxis.range[1]);
    layout.annotations = labelsAt(ends, layout.yaxis.range, 340);
    layout.margin.r = 35 + 6.6 * Math.min(34, Math.max(...some.map((one) => one.name.length)));
    layout.showlegend = false;
  }
  here("curves").style.height = "";
  draw("curves", traces, layout);
}

function curveOf(one, color, dash) {
  const { mean: middle, low, high } = one.curve;
  const x = one.curve[state.x];
  const band = { x: [...x, ...[...x].reverse()], y: [...high, ...[...low].reverse()], mode: "lines", fill: "toself", fillcolor: color, opacity: 0.2,
    line: { width: 0 }, hoverinfo: "skip", showlegend: false, meta: { isDecoration: true } };
  const line = { x, y: middle, mode: "lines+markers", name: brief(one.name, 40), line: { color, width: 2, dash }, marker: { size: 4 },
    hovertemplate: `<b>${plain(one.name)}</b><br>%{x:.5s} ${AXES[state.x]}: %{y:.4f}<extra></extra>` };
  return [band, line];
}

function showAll() {
  fillPicks();
  fillLosses();
  fillConfigs();
  if (window.Plotly) drawCurves();
}

for (const name of ["x", "against"]) here(name).addEventListener("change", (event) => change({ [name]: event.target.value }));
window.addEventListener("hashchange", () => {
  state = fromAddress();
  showAll();
});
redrawOn(showAll);
showAll();
load().then(showAll, () => here("curve-words").append("This browser is too old to draw the chart."));
