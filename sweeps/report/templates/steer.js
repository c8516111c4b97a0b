// Steering the sweep, where its server takes requests. The token is in the address that the server printed; it is
// kept for this tab, and taken out of the address, which may be passed on.

const STEER_TOKEN = STEER ? tokenOfTab() : "";

function tokenOfTab() {
  const given = new URLSearchParams(location.search).get("steer");
  if (given) {
    sessionStorage.setItem("steer", given);
    history.replaceState(null, "", location.pathname + location.hash);
  }
  return sessionStorage.getItem("steer") || "";
}

async function steer(action, trial = "") {
  const headers = { "X-Steer": STEER_TOKEN };
  here("refused").textContent = "";  // what was asked before
  const answer = await fetch(STEER, { method: "POST", headers, body: JSON.stringify({ action, trial }) });
  here("steer-words").textContent = answer.status === 403 ? "The token is not that of this server." : await answer.text();
}

// What can be asked of a trial, as buttons.
function steerButtons(trial) {
  const words = { stop: "stop", finish: "train to its end" };
  const actions = { unfinished: ["stop", "finish"], stopped: ["finish"] }[trial.status] ?? [];
  const buttons = element("span", null, { className: "controls" });
  buttons.append(...actions.map((action) => {
    const button = element("button", words[action]);
    button.addEventListener("click", () => steer(action, trial.id));
    return button;
  }));
  return buttons;
}

here("steer").hidden = !STEER_TOKEN;
here("end").addEventListener("click", () => steer("end"));
