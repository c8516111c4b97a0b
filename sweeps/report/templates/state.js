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
  const best = new Set(unique(trials.map((trial) => seriesOf(trial.id))).slice(0, Number(state.best)));
  return trials.filter((trial) => best.has(seriesOf(trial.id)));
}

const seriesOf = (id) => page.series.findIndex((series) => series.trials.includes(id));

// The level that charts of one point compare at: the chosen one, else the latest that all trials share.
function levelNumber() {
  const last = page.levels.length - 1;
  if (state.at !== "all" && page.levels[state.at]) return Number(state.at);
  const common = page.levels.findIndex((level) => level.common);
  return common < 0 ? last : common;
}
