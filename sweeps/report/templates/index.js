// Sorts the table of sweeps, and links to the comparison of those that are checked.

const table = document.getElementById("sweeps");
const rows = () => [...(table?.tBodies[0].rows ?? [])];

function valueOf(row, column) {
  const text = row.cells[column].dataset.sort;
  return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

function sortBy(heading) {
  const down = heading.getAttribute("aria-sort") === "ascending";
  table.tHead.querySelectorAll("th.sorts").forEach((one) => one.setAttribute("aria-sort", "none"));
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  table.tBodies[0].replaceChildren(...inOrder(rows(), (row) => valueOf(row, heading.cellIndex), down));
}

function linkComparison() {
  const checked = rows().filter((row) => row.querySelector("input").checked).map((row) => row.dataset.sweep);
  const link = document.getElementById("compare");
  link.href = checked.length ? `compare.html#sweeps=${checked.map(encodeURIComponent).join(",")}` : "compare.html";
  link.textContent = checked.length ? `compare ${checked.length} of them` : "compare all";
  document.getElementById("compare-words").hidden = checked.length > 0;
}

table?.tHead.querySelectorAll("th.sorts").forEach((heading) => heading.firstElementChild.addEventListener("click", () => sortBy(heading)));
table?.addEventListener("change", linkComparison);
if (table) linkComparison();
