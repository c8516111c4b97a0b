// Which trials the page shows and which are chosen; all of it stands in the address, so that a link shows the same.

let page = JSON.parse(here("content").textContent);
const DEFAULTS = {
  x: "tokens", y: "linear", train: "", seeds: "merged", at: "all", path: "", best: "", hide: "withdrawn",
  kind: "run", across: "", up: "", pick: "", only: "", sort: "",
};
let state = { ...DEFAULTS, ...fromAddress() };

function fromAddress() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  return Object.fromEntries(Object.entries(given).filter(([name]) => name in DEFAULTS));
}

function toAddress() {
  const changed = Object.entries(state).filter(([name, value]) => value !== DEFAULTS[name]);
  const words = new URLSearchParams(changed).toString().replace(/%2C/g, ",");
  history.replaceState(null, "", words ? `#${words}` : location.pathname + location.search);
}

function change(changes) {
  state = { ...state, ...changes };
  toAddress();
  showAll();
}

const listed = (text) => text ? text.split(",") : [];
const chosen = () => new Set(listed(state.pick).filter((id) => trialOf(id)));
const trialOf = (id) => page.trials.find((trial) => trial.id === id);

function choose(ids, { toggle = false } = {}) {
  const now = toggle ? chosen() : new Set();
  for (const id of ids) if (!now.delete(id)) now.add(id);
  change({ pick: [...now].join(","), only: now.size ? state.only : "" });
}

// The status that a trial is filtered by.
const isGone = (trial) => trial.status === "diverged" || trial.status === "failed";

// The trials that the filters leave, the best first.
function shown() {
  const hidden = new Set(listed(state.hide));
  const picked = chosen();
  let trials = page.trials.filter((trial) => !hidden.has(trial.status));
  if (state.only && picked.size) trials = trials.filter((trial) => picked.has(trial.id));
  if (!state.best) return trials;
  if (page.is_study) {
    const names = armsShown().map((arm) => arm.arm);
    const ids = new Set(page.series.filter((series) => names.includes(series.name)).flatMap((series) => series.trials));
    return trials.filter((trial) => names.includes(trial.arm) || ids.has(trial.id));
  }
  const best = new Set(unique(trials.map(valuesOf)).slice(0, Number(state.best)));
  return trials.filter((trial) => best.has(valuesOf(trial)));
}

// The arms of a study that the filter leaves: the baseline, and those with the lowest differences from it.
function armsShown() {
  const [baseline, ...compared] = page.arms;
  if (!state.best || !baseline) return page.arms;
  const best = new Set(inOrder(compared, (arm) => arm.difference).slice(0, Number(state.best)));
  return page.arms.filter((arm) => arm === baseline || best.has(arm));
}

// The number of the series of a trial, of a confirmation run that of the values it confirms.
const valuesOf = (trial) => page.series[seriesOf(trial.id)].confirms ?? seriesOf(trial.id);
const isFresh = (trial) => trial.role === "confirm";

const seriesOf = (id) => page.series.findIndex((series) => series.trials.includes(id));

// The level that charts of one point compare at: the chosen one, else the latest that all trials share.
function levelNumber() {
  const last = page.levels.length - 1;
  if (state.at !== "all" && page.levels[state.at]) return Number(state.at);
  const common = page.levels.findIndex((level) => level.common);
  return common < 0 ? last : common;
}
