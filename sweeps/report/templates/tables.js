// The head, the filters, the tables and the panel of the chosen trials.

function fillHead() {
  const count = page.counts;
  const of = (number, all, noun) => `${number} of ${all} ${noun}${all === 1 ? "" : "s"}`;
  here("state").textContent = `results for ${of(count.planned - count.unfinished, count.planned, "trial")}`
    + (count.confirming ? ` and ${of(count.confirmed, count.confirming, "confirmation run")}` : "");
  here("refused").textContent = page.refused && `Refused: ${page.refused}.`;
  here("verdict").replaceChildren(...page.verdict.map((words) => sentence("li", words)));
  here("next-section").hidden = !page.next.length;
  here("next").replaceChildren(...page.next.map((words) => sentence("li", words)));
}

function fillSamples() {
  here("samples-section").hidden = !page.samples;
  if (!page.samples) return;
  here("samples-words").textContent = page.samples.words;
  const shown = page.samples.settings.flatMap(({ words, texts }) => {
    const side = element("div", null, { className: "side-by-side" });
    side.append(...texts.map(({ of, text }) => {
      const figure = element("figure");
      figure.append(element("figcaption", of, { className: "small" }), element("blockquote", text.trim() || "(it ended the document at once)", { dir: "auto" }));
      return figure;
    }));
    return [element("h3", words), side];
  });
  here("samples").replaceChildren(...shown);
}

// ---- filters

function options(id, pairs, value) {
  const select = here(id);
  const words = JSON.stringify(pairs);
  if (select.dataset.words !== words) select.replaceChildren(...pairs.map(([key, text]) => new Option(text, key)));
  select.dataset.words = words;
  select.value = value;
  select.closest("label").hidden = pairs.length < 2;
}

function fillFilters() {
  const hidden = new Set(listed(state.hide));
  const having = (status) => page.trials.filter((trial) => trial.status === status).length;
  const statuses = unique(page.trials.map((trial) => trial.status));
  here("statuses").replaceChildren(...statuses.map((status) => {
    const label = element("label");
    const box = element("input", null, { type: "checkbox", checked: !hidden.has(status), name: status });
    box.addEventListener("change", () => {
      if (!hidden.delete(status)) hidden.add(status);
      change({ hide: [...hidden].join(",") });
    });
    label.append(box, ` ${having(status)} ${status === "stopped" ? "stopped early" : status}`);
    return label;
  }));
  here("statuses").hidden = statuses.length < 2;
  const number = page.is_study ? page.arms.length - 1 : unique(page.trials.map(valuesOf)).length;
  const sizes = (page.is_study ? [1, 2, 3, 5, 10, 20] : [3, 5, 10, 20, 50]).filter((size) => size < number);
  const words = (size) => page.is_study ? `the best ${size === 1 ? "arm" : `${size} arms`} and the baseline` : `best ${size}`;
  options("best", [["", "all"], ...sizes.map((size) => [String(size), words(size)])], state.best);
  options("at", [["all", "all points"], ...page.levels.map((level, n) => [String(n), level.words])], state.at);
  const hasSeeds = page.series.some((series) => series.trials.length > 1);
  options("seeds", hasSeeds ? [["merged", "merged"], ["single", "single runs"]] : [], state.seeds);
  options("kind", page.series.some((series) => series.kind === "re-tuning") ? [["run", "arms"], ["re-tuning", "re-tuning"], ["all", "all"]] : [], state.kind);
  options("path", valuePaths().map((swept) => [swept.path, swept.path]), pathOf()?.path ?? "");
  const numeric = varied().filter((swept) => swept.numeric).map((swept) => [swept.path, swept.path]);
  const [across, up] = pathsOfMap();
  options("across", numeric.length > 2 ? numeric : [], across?.path ?? "");
  options("up", numeric.length > 2 ? numeric.filter(([path]) => path !== across.path) : [], up?.path ?? "");
  here("x").value = state.x;
  here("y").value = state.y;
  here("train").checked = Boolean(state.train);
  fillChosen();
}

// ---- tables

function tableRow(cells) {
  const row = document.createElement("tr");
  for (const [value, name] of cells) {
    const cell = row.insertCell();
    const isNumber = typeof value === "number";
    if (value instanceof Node) cell.append(value);
    else cell.textContent = value === null || value === undefined ? "" : isNumber ? numeral(value) : value;
    cell.dataset.name = name;
    if (isNumber) cell.className = "number";
    else if (typeof value === "string" && value.length > 24) cell.className = "words";
  }
  return row;
}

const lossWords = (loss) => loss === null ? "" : loss.toFixed(4);
const MOST_PATHS = 6;  // that have columns of their own

// A label that breaks before a value rather than within it.
function breakable(label) {
  const words = element("span");
  label.split(/(?<==)/).forEach((part, n) => words.append(...(n ? [element("wbr")] : []), part));
  return words;
}

// The columns of the table: values, loss, tokens and status; the panel of a trial has the rest. On a phone
// one column, its label, stands for the arm, the values and the seed.
function columns() {
  const paths = page.swept.filter((swept) => page.is_study ? swept.drawn : swept.values.length > 1);
  const taken = new Set(["tokens", "status", "seed", "rank", page.metric_name]);
  const value = (swept) => ({ name: taken.has(swept.name) ? swept.path : swept.name, of: (trial) => {
    const found = trial.values[swept.path];
    return typeof found === "number" ? found : found === undefined ? null : show(found);
  }, words: (found) => found === null ? "" : show(found) });
  const seeds = unique(page.trials.map((trial) => trial.seed)).length > 1;
  const label = { name: "trial", of: (trial) => trial.label, words: breakable };
  const hasLabel = !page.is_study && (paths.length > MOST_PATHS || !paths.length);
  const wide = [
    ...(page.is_study ? [{ name: "arm", of: (trial) => trial.arm + (trial.role === "tuning" ? " (re-tune)" : "") }] : [{ name: "rank", of: (trial) => trial.rank }]),
    ...(hasLabel ? [] : paths.slice(0, MOST_PATHS).map(value)),
    ...(seeds ? [{ name: "seed", of: (trial) => trial.seed, words: String }] : []),
  ];
  const mean = { name: "mean over seeds", of: (trial) => trial.over_seeds, on: "wide" };
  return [
    { ...label, on: hasLabel ? "" : "narrow" },
    ...wide.map((one) => ({ ...one, on: "wide" })),
    { name: page.metric_name, of: last, words: lossWords },
    ...(page.trials.some((trial) => trial.over_seeds) ? [mean] : []),
    { name: "tokens", of: (trial) => trial.tokens.length ? trial.tokens[trial.tokens.length - 1] : null },
    { name: "status", of: statusOf },
  ];
}

function fillTrials() {
  const every = columns();
  const [sortedBy, way] = state.sort ? state.sort.split(":") : ["", ""];
  const column = every.find((one) => one.name === sortedBy);
  const head = document.createElement("tr");
  head.append(element("th", "", { ariaLabel: "chosen" }));
  for (const { name, of, on = "" } of every) {
    const isNumber = page.trials.some((trial) => typeof of(trial) === "number");
    const cell = head.appendChild(element("th", null, { className: `${isNumber ? "number" : ""} ${on}` }));
    cell.dataset.name = name;
    const button = cell.appendChild(element("button", name));
    button.addEventListener("click", () => change({ sort: name === sortedBy && way === "up" ? `${name}:down` : `${name}:up` }));
    cell.setAttribute("aria-sort", name === sortedBy ? (way === "down" ? "descending" : "ascending") : "none");
  }
  here("trials").tHead.replaceChildren(head);
  const trials = column ? inOrder(shown(), column.of, way === "down") : shown();
  const picked = chosen();
  here("trials").tBodies[0].replaceChildren(...trials.map((trial) => {
    const box = element("input", null, { type: "checkbox", checked: picked.has(trial.id), ariaLabel: trial.label });
    box.addEventListener("change", () => choose([trial.id], { toggle: true }));
    const cells = every.map(({ name, of, words }) => [words ? words(of(trial)) : of(trial), name]);
    const row = tableRow([[box, ""], ...cells]);
    every.forEach(({ of, on = "" }, n) => { row.cells[n + 1].className += ` ${typeof of(trial) === "number" ? "number" : ""} ${on}`; });
    row.dataset.trial = trial.id;
    row.classList.toggle("chosen", picked.has(trial.id));
    row.addEventListener("mouseenter", () => light([trial.id]));
    row.addEventListener("mouseleave", () => light([]));
    return row;
  }));
}

// What an arm is worth, what was expected of it and what to know of its losses, across the columns.
function aboutArm(arm, width) {
  const row = document.createElement("tr");
  const cell = row.appendChild(element("td", null, { colSpan: width, className: "about" }));
  for (const [name, words] of [["Token speedup", arm.speedup], ["Hypothesis", arm.hypothesis], ["Caveats", arm.cautions]]) {
    if (!words) continue;
    const line = cell.appendChild(element("p"));
    line.append(element("span", `${name}: `), words);
  }
  return cell.children.length ? [row] : [];
}

function fillArms() {
  here("arm-section").hidden = !page.arms.length;
  const difference = (arm) => arm.difference === null ? "" : numeral(arm.difference) + (arm.low === null ? "" : ` (${numeral(arm.low)} to ${numeral(arm.high)})`);
  const head = [...here("arm-table").tHead.rows[0].cells].map((cell) => cell.textContent);
  here("arm-table").replaceChildren(here("arm-table").tHead, ...armsShown().map((arm) => {
    const p = arm.p_holm === null ? "" : arm.p_holm < 0.0005 ? "< 0.001" : arm.p_holm.toFixed(3);
    const verdict = arm === page.arms[0] ? "the baseline" : arm.verdict;
    const cells = [arm.arm, arm.changes, arm.chosen, arm.n, lossWords(arm.mean), difference(arm), p, verdict];
    const body = element("tbody");
    body.append(tableRow(cells.map((cell, n) => [cell, head[n]])), ...aboutArm(arm, head.length));
    return body;
  }));
}

// ---- the chosen trials

function fillChosen() {
  const picked = page.trials.filter((trial) => chosen().has(trial.id));
  here("chosen-bar").hidden = !picked.length;
  here("chosen-words").textContent = picked.length === 1 ? cut(picked[0].label, 60) : `${picked.length} trials chosen`;
  here("only").checked = Boolean(state.only);
  here("chosen-section").hidden = !picked.length;
  if (!picked.length) return;
  const some = picked.slice(0, MOST_CHOSEN);
  here("chosen-title").textContent = picked.length === 1 ? "The chosen trial" : "The chosen trials";
  here("chosen-more").textContent = picked.length > MOST_CHOSEN ? `The first ${MOST_CHOSEN} of ${picked.length}.` : "";
  here("chosen").replaceChildren(headOf(some), ...factsOf(some), ...configOf(some));
}

const MOST_CHOSEN = 4;  // side by side

function headOf(trials) {
  const row = document.createElement("tr");
  row.append(element("th"), ...trials.map((trial) => element("th", trial.label)));
  return row;
}

function factRow(name, cells, is = "") {
  const row = document.createElement("tr");
  row.append(element("th", name), ...cells.map((cell) => {
    const made = element("td");
    made.append(cell instanceof Node ? cell : is && cell ? element(is, cell) : String(cell ?? ""));
    return made;
  }));
  return row;
}

function factsOf(trials) {
  const each = (name, of, is) => factRow(name, trials.map(of), is);
  const seconds = (trial) => trial.seconds.length ? `${numeral(Math.round(trial.seconds[trial.seconds.length - 1]))} s` : "";
  const loss = (trial) => trial.loss.length ? `${last(trial).toFixed(4)} ${page.unit} at ${trial.tokens[trial.tokens.length - 1].toLocaleString("en")} tokens` : "";
  return [
    each("id", (trial) => trial.id, "code"),
    each("status", statusOf),
    ...(STEER_TOKEN ? [each("steer", steerButtons)] : []),
    each("why it ended", (trial) => trial.reason),
    each(page.metric_name, loss),
    each("bits per byte", (trial) => trial.bits === null ? "" : trial.bits.toFixed(4)),
    each("training loss", (trial) => trial.train_loss.length ? trial.train_loss[trial.train_loss.length - 1].toFixed(4) : ""),
    each("training time", seconds),
    each("parameters", (trial) => trial.params.toLocaleString("en")),
    each("checkpoint", (trial) => trial.checkpoint, "code"),
    factRow("log", trials.map(() => element("a", "experiment log", { href: "../../EXPERIMENT_LOG.html" }))),
    each("train it again", (trial) => trial.command, "code"),
  ].filter((row) => [...row.cells].slice(1).some((cell) => cell.textContent));
}

const configOfTrial = (trial, path) => path in trial.set ? trial.set[path] : page.config[path];

// The config of one trial, or where those of several differ.
function configOf(trials) {
  const paths = trials.length === 1 ? Object.keys(page.config)
    : unique(trials.flatMap((trial) => Object.keys(trial.set))).filter((path) => unique(trials.map((trial) => JSON.stringify(configOfTrial(trial, path)))).length > 1);
  const title = document.createElement("tr");
  const words = trials.length === 1 ? "Config" : paths.length ? "Where their configs differ" : "Their configs are the same.";
  title.append(element("th", words, { colSpan: trials.length + 1, className: "title" }));
  return [title, ...paths.map((path) => factRow(path, trials.map((trial) => JSON.stringify(configOfTrial(trial, path)) ?? ""), "code"))];
}
