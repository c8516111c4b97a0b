// Draws the page, and joins its parts: what is hovered over or chosen in one is so in all.

// Marks trials in the curves and the table; the others fade.
function light(ids) {
  document.querySelectorAll("#trials tr.lit").forEach((row) => row.classList.remove("lit"));
  const curves = here("curves");
  curves.classList.toggle("faded", ids.length > 0);
  curves.querySelectorAll(".trace.lit").forEach((trace) => trace.classList.remove("lit"));
  for (const id of ids) {
    here("trials").querySelector(`tr[data-trial="${CSS.escape(id)}"]`)?.classList.add("lit");
    curves.querySelectorAll(`.trace${CSS.escape(id)}`).forEach((trace) => trace.classList.add("lit"));
  }
}

const idsAt = (event) => unique((event?.points ?? []).flatMap((point) => listed(point.customdata ?? ""))).filter(trialOf);

// Hovering and clicking in a chart; each chart is joined once.
function join(id) {
  const chart = here(id);
  if (chart.dataset.joined || !chart.on) return;
  chart.dataset.joined = "yes";
  chart.on("plotly_hover", (event) => light(idsAt(event)));
  chart.on("plotly_unhover", () => light([]));
  chart.on("plotly_click", (event) => idsAt(event).length && choose(idsAt(event), { toggle: true }));
  chart.on("plotly_selected", (event) => event?.points.length && choose(idsAt(event)));
  if (id === "parallel") chart.on("plotly_restyle", () => choose(brushed(chart)));
}

// The trials within what is brushed on the axes of the parallel coordinates.
function brushed(chart) {
  const [trace] = chart.data;
  const inside = (one, value) => !one.constraintrange || [one.constraintrange].flat(one.constraintrange[0]?.length ? 1 : 0).some(([low, high]) => value >= low && value <= high);
  if (!trace.dimensions.some((one) => one.constraintrange)) return [];
  return trace.ids.filter((_, n) => trace.dimensions.every((one) => inside(one, one.values[n])));
}

function drawChart(id) {
  const section = here(`${id}-section`);
  section.hidden = false;  // it has no width otherwise
  here(id).style.height = "";
  const made = CHARTS[id]();
  section.hidden = !made;
  if (!made) return;
  draw(id, made.traces, made.layout);
  join(id);
}

function showWords() {
  fillHead();
  fillSamples();
  fillFilters();
  fillArms();
  fillTrials();
  const [drawn, all] = [sum(page.trials.map((trial) => trial.loss.length)), page.records];
  here("curve-points").textContent = drawn === all ? ""
    : `${drawn.toLocaleString("en")} of ${all.toLocaleString("en")} records are drawn. curves.csv has all of them.`;
}

function showAll() {
  showWords();
  if (window.Plotly) Object.keys(CHARTS).forEach(drawChart);
  light([]);  // the row that was hovered over is gone
}

for (const name of ["x", "y", "seeds", "best", "at", "path", "kind", "across", "up"]) {
  here(name).addEventListener("change", (event) => change({ [name]: event.target.value }));
}
for (const name of ["train", "only"]) {
  here(name).addEventListener("change", (event) => change({ [name]: event.target.checked ? "1" : "" }));
}
here("clear").addEventListener("click", () => change({ pick: "", only: "" }));
window.addEventListener("hashchange", () => {
  state = { ...DEFAULTS, ...fromAddress() };
  showAll();
});
redrawOn(showAll);

showWords();
// Draws the charts one by one, the first one at once.
async function drawFirst() {
  const ids = [...document.querySelectorAll(".chart")].map((chart) => chart.id);
  for (const id of ids) {
    drawChart(id);
    await new Promise((done) => setTimeout(done));
  }
  document.body.dataset.drawn = "yes";
}

load().then(drawFirst, () => {
  here("state").textContent += "; this browser is too old to draw the charts";
}).finally(() => {
  if (!FEED) return;
  new EventSource(FEED).onmessage = (event) => {
    page = JSON.parse(event.data);
    showAll();
  };
});
