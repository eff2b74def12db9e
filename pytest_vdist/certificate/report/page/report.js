"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const LETTERS = { error: "E", crash: "C", hang: "H", failed: "F", flaky: "~", waived: "W", not_run: "–", unsupported: "U", passed: "P" };
  const PAGE = 100;
  const worst = data.outcomes.indexOf("waived"); // what comes before it is a failure
  const tests = data.tests.map((row, index) => ({
    index, name: row[0], requirements: row[1], outcome: row[2], mode: row[3], sizes: row[4],
    seconds: row[5], margin: row[6], reason: row[7] || "", failure: row[8],
    words: `${row[0]} ${row[1].join(" ")} ${data.modes[row[3]]} ${data.outcomes[row[2]]}`.toLowerCase(),
  }));
  const byId = (id) => document.getElementById(id);
  const said = (outcome) => data.outcomes[outcome].replace("_", " ");
  const ranks = (sizes) => sizes.length ? `${sizes.join(", ")} ${sizes.length === 1 && sizes[0] === 1 ? "rank" : "ranks"}` : "no ranks";
  const duration = (s) => s < 0.00095 ? `${(s * 1e3).toFixed(1)} ms` : s < 0.9995 ? `${(s * 1e3).toFixed(0)} ms` : s < 60 ? `${s.toFixed(1)} s` : `${(s / 60).toFixed(1)} min`;

  // Text only ever enters the page as text: nothing in a report can become markup.
  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null && child !== ""));
    return made;
  }
  const badge = (outcome) => element("span", { class: `badge ${data.outcomes[outcome]}` }, said(outcome));

  async function copied(text, button) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const field = element("textarea", {}, text);
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }
  function reproduction(command) {
    const button = element("button", { type: "button", "aria-label": "Copy the command" }, "Copy");
    button.addEventListener("click", () => copied(command, button));
    return element("div", { class: "reproduce" }, element("pre", {}, command), button);
  }
  function details(test) {
    const list = element("dl", {});
    const add = (term, ...value) => list.append(element("dt", {}, term), element("dd", {}, ...value));
    add("test", element("code", {}, test.name));
    for (const id of test.requirements) add("requirement", element("code", {}, id), data.texts[id] ? ` ${data.texts[id]}` : "");
    add("mode", `${data.modes[test.mode]}, ${ranks(test.sizes)}, ${duration(test.seconds)}`);
    if (test.margin !== null && test.margin !== undefined) add("margin", String(test.margin));
    if (test.reason) add("reason", test.reason);
    const parts = [list];
    if (test.failure) {
      if (typeof test.failure.rank === "number") add("rank", String(test.failure.rank));
      parts.push(element("pre", { tabindex: "0" }, test.failure.text || test.failure.headline));
      if (test.failure.reproduce) parts.push(element("p", {}, "Reproduce it:"), reproduction(test.failure.reproduce));
    }
    return parts;
  }

  function showFailures() {
    const failures = tests.filter((test) => test.outcome < worst).sort((a, b) => a.outcome - b.outcome || a.index - b.index);
    const place = byId("failure-list");
    if (!failures.length) { place.append(element("p", {}, "None.")); return; }
    const more = element("button", { type: "button" }, "Show more failures");
    let shown = 0;
    const show = () => {
      for (const test of failures.slice(shown, shown + 25)) {
        const headline = (test.failure && test.failure.headline) || test.reason || said(test.outcome);
        const item = element("details", { class: "failure" }, element("summary", {}, badge(test.outcome), " ",
          element("span", { class: "headline" }, headline), element("code", { class: "where" }, test.name)));
        item.addEventListener("toggle", () => {
          if (item.open && item.children.length === 1) item.append(element("div", { class: "body" }, ...details(test)));
        });
        if (shown === 0) item.open = true;
        place.insertBefore(item, more);
        shown += 1;
      }
      more.hidden = shown >= failures.length;
      more.textContent = `Show more failures (${failures.length - shown} left)`;
    };
    place.append(element("p", {}, `${failures.length} of ${tests.length} tests failed; the worst come first.`), more);
    more.addEventListener("click", show);
    show();
  }

  let filter = { text: "", outcomes: new Set(data.outcomes.keys()), requirement: null, column: null };
  let order = { key: "outcome", up: true };
  const form = document.querySelector("form.filter");
  const columnOf = (test, size) => `${test.mode} ${size}`;
  const sizesOf = (test) => test.sizes.length ? test.sizes : [0];
  const matches = (test) => filter.outcomes.has(test.outcome) && (!filter.text || test.words.includes(filter.text))
    && (!filter.requirement || (test.requirements.includes(filter.requirement) && sizesOf(test).some((size) => columnOf(test, size) === filter.column)));

  function readFilter() {
    const ticked = [...form.querySelectorAll("input[name=outcome]")].filter((box) => box.checked).map((box) => Number(box.value));
    filter = { text: byId("filter-text").value.trim().toLowerCase(), outcomes: new Set(ticked), requirement: null, column: null };
    render();
  }

  const columns = [...new Set(tests.flatMap((test) => sizesOf(test).map((size) => columnOf(test, size))))]
    .map((key) => ({ key, mode: Number(key.split(" ")[0]), size: Number(key.split(" ")[1]) }))
    .sort((a, b) => data.modes[a.mode].localeCompare(data.modes[b.mode]) || a.size - b.size);

  function matrixHead() {
    const modes = element("tr", {}, element("th", { scope: "col", class: "corner", rowspan: "2" }, "Requirement"));
    const sizes = element("tr", {});
    columns.forEach((column, index) => {
      const first = index === 0 || columns[index - 1].mode !== column.mode;
      if (first) {
        const span = columns.filter((other) => other.mode === column.mode).length;
        modes.append(element("th", { scope: "colgroup", class: "mode", colspan: span }, data.modes[column.mode]));
      }
      sizes.append(element("th", { scope: "col", class: first ? "first" : null, title: column.size ? ranks([column.size]) : "did not run on ranks" }, column.size ? String(column.size) : "–"));
    });
    document.querySelector("#matrix-table thead").append(modes, sizes);
  }

  function showMatrix(chosen) {
    const rows = new Map();
    for (const test of chosen) {
      for (const id of test.requirements) {
        if (!rows.has(id)) rows.set(id, { worst: test.outcome, cells: new Map() });
        const row = rows.get(id);
        row.worst = Math.min(row.worst, test.outcome);
        for (const size of sizesOf(test)) {
          const key = columnOf(test, size);
          if (!row.cells.has(key)) row.cells.set(key, new Map());
          const counts = row.cells.get(key);
          counts.set(test.outcome, (counts.get(test.outcome) || 0) + 1);
        }
      }
    }
    const sorted = [...rows].sort((a, b) => (byId("failures-first").checked ? a[1].worst - b[1].worst : 0) || a[0].localeCompare(b[0]));
    document.querySelector("#matrix-table tbody").replaceChildren(...sorted.map(([id, row]) => matrixRow(id, row)));
  }
  function matrixRow(id, row) {
    const line = element("tr", {}, element("th", { scope: "row", title: data.texts[id] }, id));
    columns.forEach((column, index) => {
      const counts = row.cells.get(column.key);
      const first = index === 0 || columns[index - 1].mode !== column.mode;
      const cell = element("td", { class: first ? "first" : null });
      if (counts) cell.append(matrixCell(id, column, counts));
      line.append(cell);
    });
    return line;
  }
  function matrixCell(id, column, counts) {
    const outcome = Math.min(...counts.keys());
    const name = data.outcomes[outcome];
    const told = [...counts].sort((a, b) => a[0] - b[0]).map(([key, count]) => `${count} ${said(key)}`).join(", ");
    const text = `${id}, ${data.modes[column.mode]}, ${column.size ? ranks([column.size]) : "no ranks"}: ${told}`;
    if (name === "passed") return element("span", { class: `cell ${name}`, title: text }, LETTERS[name]);
    const button = element("button", { type: "button", class: `cell ${name}`, title: text, "aria-label": text }, LETTERS[name]);
    button.addEventListener("click", () => {
      filter = { ...filter, requirement: id, column: column.key };
      order = { key: "outcome", up: true };
      showTests(tests.filter(matches), `${id}, ${data.modes[column.mode]}`);
      byId("tests").scrollIntoView();
      document.querySelector("#tests-table .name button").focus({ preventScroll: true });
    });
    return button;
  }

  const COLUMNS = [
    ["outcome", "Outcome", "", (test) => test.outcome],
    ["name", "Test", "name", (test) => test.name],
    ["requirement", "Requirement", "wide", (test) => test.requirements.join(" ")],
    ["mode", "Mode", "wide", (test) => data.modes[test.mode]],
    ["ranks", "Ranks", "wide", (test) => test.sizes[0] || 0],
    ["seconds", "Time", "number", (test) => test.seconds],
    ["margin", "Margin", "wide number", (test) => test.margin ?? -1],
  ];
  function testsHead() {
    const line = element("tr", {});
    for (const [key, title, kind] of COLUMNS) {
      const button = element("button", { type: "button" }, title);
      button.addEventListener("click", () => {
        const larger = key === "seconds" || key === "margin"; // the largest first
        order = { key, up: order.key === key ? !order.up : !larger };
        showTests(tests.filter(matches));
      });
      line.append(element("th", { scope: "col", class: kind.replace("name", ""), "data-key": key }, button));
    }
    document.querySelector("#tests-table thead").append(line);
  }
  let waiting = [];
  function showTests(chosen, selection) {
    const value = COLUMNS.find(([key]) => key === order.key)[3];
    const sign = order.up ? 1 : -1;
    const keyed = chosen.map((test) => [value(test), test]);
    keyed.sort((a, b) => (a[0] < b[0] ? -sign : a[0] > b[0] ? sign : a[1].index - b[1].index));
    waiting = keyed.map(([, test]) => test);
    for (const head of document.querySelectorAll("#tests-table th")) {
      if (head.dataset.key === order.key) head.setAttribute("aria-sort", order.up ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
    byId("filter-count").textContent = `${chosen.length} of ${tests.length} tests${selection ? ` (${selection})` : ""}`;
    document.querySelector("#tests-table tbody").replaceChildren();
    showMore();
  }
  function showMore() {
    document.querySelector("#tests-table tbody").append(...waiting.splice(0, PAGE).map(testRow));
    byId("more").hidden = waiting.length === 0;
    byId("more").textContent = `Show more (${waiting.length} left)`;
  }
  function testRow(test) {
    const name = element("button", { type: "button", "aria-expanded": "false" }, test.name);
    const line = element("tr", {},
      element("td", {}, badge(test.outcome)), element("td", { class: "name" }, name),
      element("td", { class: "wide" }, test.requirements.join(", ")), element("td", { class: "wide" }, data.modes[test.mode]),
      element("td", { class: "wide number" }, test.sizes.join(", ") || "–"), element("td", { class: "number" }, duration(test.seconds)),
      element("td", { class: "wide number" }, typeof test.margin === "number" ? test.margin.toFixed(3) : ""));
    name.addEventListener("click", () => {
      const open = name.getAttribute("aria-expanded") === "true";
      name.setAttribute("aria-expanded", String(!open));
      if (open) line.nextSibling.remove();
      else line.after(element("tr", { class: "detail" }, element("td", { colspan: COLUMNS.length }, ...details(test))));
    });
    return line;
  }

  function bars(place, rows, scale, text) {
    if (!rows.length) { place.append(element("p", {}, "None recorded.")); return; }
    const list = element("ul", { class: "bars" });
    for (const [name, value] of rows) {
      const fill = element("span", {});
      fill.style.width = `${Math.min(100, 100 * value / scale)}%`;
      list.append(element("li", {}, element("code", {}, name), element("span", { class: value > scale ? "bar over" : "bar", "aria-hidden": "true" }, fill), element("span", { class: "value" }, text(value))));
    }
    place.append(list);
  }
  function showNumbers() {
    const margins = tests.filter((test) => typeof test.margin === "number").sort((a, b) => b.margin - a.margin);
    bars(byId("margin-list"), margins.slice(0, 15).map((test) => [test.name, test.margin]), 1, (value) => value.toFixed(3));
    const slow = [...tests].sort((a, b) => b.seconds - a.seconds).slice(0, 12);
    bars(byId("slow-list"), slow.map((test) => [test.name, test.seconds]), slow.length ? slow[0].seconds || 1 : 1, duration);
    const chapters = new Map();
    for (const test of tests) {
      const chapter = test.name.split("/")[0];
      chapters.set(chapter, (chapters.get(chapter) || 0) + test.seconds);
    }
    const totals = [...chapters].sort((a, b) => b[1] - a[1]);
    bars(byId("chapter-list"), totals, totals.length ? totals[0][1] || 1 : 1, duration);
  }

  function render() {
    const chosen = tests.filter(matches);
    showMatrix(chosen);
    showTests(chosen);
  }
  for (const place of document.querySelectorAll("[data-letter]")) place.prepend(`${LETTERS[place.dataset.letter]} `);
  matrixHead();
  testsHead();
  render();
  showFailures();
  showNumbers();
  let pending = 0;
  byId("filter-text").addEventListener("input", () => { clearTimeout(pending); pending = setTimeout(readFilter, 80); });
  // Not for the text: it says "change" when the focus leaves it, and rows must not be made anew under a click.
  form.addEventListener("change", (event) => { if (event.target.type === "checkbox") readFilter(); });
  form.addEventListener("reset", () => setTimeout(readFilter));
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("more").addEventListener("click", showMore);
})();
