// A click on a header sorts its table by that column: up, down, and as it was. What is missing stays last.
"use strict";
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const order = [...body.rows];
  const headers = [...table.tHead.rows[0].cells];
  const key = (row, i) => row.cells[i].dataset.key;
  const compare = (i, sign) => (a, b) => {
    const [x, y] = [key(a, i), key(b, i)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    const [p, q] = [Number(x), Number(y)];
    const numbers = !Number.isNaN(p) && !Number.isNaN(q);
    return sign * (numbers ? p - q : x.localeCompare(y, "en", { numeric: true }));
  };
  headers.forEach((header, i) => {
    header.querySelector("button").addEventListener("click", () => {
      const next = { none: "ascending", ascending: "descending", descending: "none" }[header.getAttribute("aria-sort")];
      for (const other of headers) other.setAttribute("aria-sort", "none");
      header.setAttribute("aria-sort", next);
      const sorted = next === "none" ? order : [...order].sort(compare(i, next === "ascending" ? 1 : -1));
      body.append(...sorted);
    });
  });
}
