"use strict";
// A click on a heading sorts its table: numbers by value, words by letter, what is missing last.
// A second click turns the order round.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of headings) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => compare(keyOf(a, column), keyOf(b, column), ascending));
      table.tBodies[0].append(...rows);
    });
  });
}

function keyOf(row, column) {
  return row.cells[column].dataset.order;
}

function compare(a, b, ascending) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const numbers = !isNaN(a) && !isNaN(b);
  const order = numbers ? Number(a) - Number(b) : a.localeCompare(b);
  return ascending ? order : -order;
}
