"use strict";
(() => {
  const rows = JSON.parse(document.getElementById("data").textContent);
  const byName = new Map(rows.map((row) => [row.name, row]));
  const lines = new Map([...document.querySelectorAll("#zoo tbody tr")].map((line) => [line.dataset.name, line]));
  const form = document.getElementById("filters"), chart = document.getElementById("chart");
  const svg = chart.querySelector("svg"), tip = document.getElementById("tip");
  const dialog = document.querySelector("dialog");
  const colors = ["#0072b2", "#d58600", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8a8a8a", "#7a3b10"];
  const methods = [...new Set(rows.map((row) => row.method))].sort();
  const colorOf = (method) => colors[methods.indexOf(method) % colors.length];
  const metrics = { linear_top1: "linear probe, top-1 (%)", knn20_top1: "kNN (k = 20), top-1 (%)" };
  const axes = { params: "parameters (millions)", latency: "CPU latency (ms a picture)" };
  document.documentElement.classList.add("js");
  form.hidden = chart.hidden = false;

  // Filters
  const wanted = () => {
    const given = new FormData(form);
    const words = given.get("text").toLowerCase().split(/\s+/).filter(Boolean);
    return rows.filter((row) =>
      words.every((word) => row.text.includes(word)) &&
      ["architecture", "method", "supervision", "data", "licence", "weights"].every((key) => !given.get(key) || row[key] === given.get(key)) &&
      (!given.get("loadable") || row.loadable) && (!given.get("commercial") || row.commercial));
  };
  const show = () => {
    const kept = new Set(wanted().map((row) => row.name));
    for (const [name, line] of lines) line.hidden = !kept.has(name);
    const noun = rows.length === 1 ? "checkpoint" : "checkpoints";
    document.getElementById("count").textContent = kept.size ? `${kept.size} of ${rows.length} ${noun}` : "Nothing matches. Clear a filter.";
    draw();
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(show));

  // Sorting: by data-v, empty values last in both directions
  for (const [column, heading] of document.querySelectorAll("#zoo thead th").entries()) {
    heading.querySelector("button").addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") === "descending" || (!heading.hasAttribute("aria-sort") && !heading.classList.contains("number"));
      document.querySelectorAll("#zoo thead th").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const numeric = heading.classList.contains("number");
      const value = (line) => line.cells[column].dataset.v;
      const sorted = [...lines.values()].sort((a, b) => {
        const [left, right] = [value(a), value(b)];
        if (left === "" || right === "") return (left === "") - (right === "");
        return (numeric ? left - right : left.localeCompare(right)) * (up ? 1 : -1);
      });
      document.querySelector("#zoo tbody").append(...sorted);
    });
  }

  // Cards: #NAME opens one, so a link to it can be shared
  const open = () => {
    const card = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!card || card.tagName !== "ARTICLE") { if (dialog.open) dialog.close(); return; }
    const copy = card.cloneNode(true);
    copy.removeAttribute("id");
    dialog.querySelector("div").replaceChildren(copy);
    dialog.setAttribute("aria-label", card.id);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  };
  let opener = null;
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (link) opener = link;
    if (event.target === dialog || event.target.closest(".close")) dialog.close();
    const copied = event.target.closest(".copy");
    if (copied) navigator.clipboard?.writeText(copied.parentElement.querySelector("pre").textContent)
      .then(() => { copied.textContent = "Copied"; }, () => { copied.textContent = "Select it"; });
  });
  dialog.addEventListener("close", () => {
    history.replaceState(null, "", location.pathname + location.search);
    opener?.focus();
  });
  addEventListener("hashchange", open);

  // Chart
  const element = (name, attributes, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const option = (select, values) => {
    select.replaceChildren(...values.map(([value, text]) => new Option(text, value)));
    select.disabled = values.length < 2;
  };
  const pick = (name) => chart.querySelector(`select[name=${name}]`);
  const figured = (row, data, metric) => (!data || row.measuredOn === data) && row.figures[metric];
  const counts = new Map();
  for (const row of rows) if (Object.keys(row.figures).length) counts.set(row.measuredOn, (counts.get(row.measuredOn) ?? 0) + 1);
  option(pick("data"), [...counts].sort((a, b) => b[1] - a[1]).map(([data]) => [data, rows.find((row) => row.measuredOn === data).measuredOnTitle]));
  const fill = () => {
    const before = pick("metric").value, data = pick("data").value;
    option(pick("metric"), Object.entries(metrics).filter(([metric]) => rows.some((row) => figured(row, data, metric))));
    if ([...pick("metric").options].some((one) => one.value === before)) pick("metric").value = before;
  };
  option(pick("x"), Object.entries(axes).filter(([axis]) => rows.some((row) => row[axis])));
  pick("data").addEventListener("change", () => { fill(); draw(); });
  for (const name of ["metric", "x"]) pick(name).addEventListener("change", () => draw());

  const ticks = (low, high) => {
    const step = [0.5, 1, 2, 5, 10, 20].find((one) => (high - low) / one <= 6) ?? 25;
    const found = [];
    for (let at = Math.ceil(low / step) * step; at <= high; at += step) found.push(at);
    return found;
  };
  function draw() {
    const narrow = chart.clientWidth < 560, width = narrow ? 420 : 920, height = narrow ? 330 : 380;
    const left = 52, right = 16, top = 14, bottom = 46;
    const [data, metric, axis] = [pick("data").value, pick("metric").value, pick("x").value];
    const points = wanted().filter((row) => figured(row, data, metric) && row[axis]);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren();
    tip.textContent = points.length ? "Point at a mark, or move to it by the tabulator key; Enter opens its card." : "None of these checkpoints has such a figure.";
    const shown = methods.filter((method) => points.some((row) => row.method === method));
    document.getElementById("legend").replaceChildren(...[...shown.map((method) => [method, colorOf(method), true]),
      ["filled: measured here", "#777", true], ["hollow: reported", "#777", false], ["hollow, dashed: reported, not verified", "#777", false, true]]
      .map(([text, color, filled, dashed]) => {
        const mark = document.createElement("i"), item = document.createElement("span");
        mark.style.cssText = `border-color:${color};${filled ? `background:${color};` : ""}${dashed ? "border-style:dashed;" : ""}`;
        item.append(mark, text);
        return item;
      }));
    if (!points.length) return;
    const values = points.map((row) => row.figures[metric].value), xs = points.map((row) => Math.log(row[axis]));
    const low = Math.min(...values) - 1.5, high = Math.max(...values) + 1.5;
    const first = Math.min(...xs) - 0.3, last = Math.max(...xs) + 0.3;
    const x = (value) => left + (Math.log(value) - first) / (last - first) * (width - left - right);
    const y = (value) => height - bottom - (value - low) / (high - low) * (height - top - bottom);
    for (const at of ticks(low, high)) {
      svg.append(element("line", { class: "grid", x1: left, x2: width - right, y1: y(at), y2: y(at) }));
      svg.append(element("text", { x: left - 8, y: y(at) + 4, "text-anchor": "end" }, String(at)));
    }
    const marks = [...new Set(points.map((row) => row[axis]))].sort((a, b) => a - b);
    let taken = -Infinity;
    for (const at of marks) if (x(at) - taken > 34) {
      svg.append(element("text", { x: x(at), y: height - bottom + 20, "text-anchor": "middle" }, at.toFixed(1)));
      taken = x(at);
    }
    svg.append(element("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, axes[axis]));
    svg.append(element("text", { x: 14, y: (top + height - bottom) / 2, transform: `rotate(-90 14 ${(top + height - bottom) / 2})`, "text-anchor": "middle" }, metrics[metric]));
    for (const row of points) {
      const figure = row.figures[metric], color = colorOf(row.method), measured = figure.kind === "measured";
      const words = `${row.name}: ${figure.text}, ${figure.kind}; ${row.params} M parameters, ${row.method}, teacher ${row.teacher}`;
      const link = element("a", { href: `#${row.name}`, class: figure.kind, "aria-label": words });
      if (figure.std) link.append(element("line", { class: "spread", stroke: color, x1: x(row[axis]), x2: x(row[axis]), y1: y(figure.value - figure.std), y2: y(figure.value + figure.std) }));
      link.append(element("circle", { class: "dot", cx: x(row[axis]), cy: y(figure.value), r: 7, stroke: color, fill: measured ? color : "transparent" }), element("title", {}, words));
      for (const event of ["mouseenter", "focus"]) link.addEventListener(event, () => { tip.textContent = words; });
      svg.append(link);
    }
  }
  fill();
  show();
  open();
  addEventListener("resize", draw);
})();
