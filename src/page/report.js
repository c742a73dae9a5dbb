"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const NS = "http://www.w3.org/2000/svg";
  const live = document.getElementById("live");
  const say = (text) => { live.textContent = text; };

  // Text reaches the page as text nodes and attributes alone.
  const make = (element, attributes, children) => {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (typeof value === "function") element.addEventListener(name, value);
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    for (const child of children) if (child !== null && child !== undefined) element.append(child);
    return element;
  };
  const el = (tag, attributes, ...children) => make(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) => make(document.createElementNS(NS, tag), attributes, children);

  // The same as units.rs: three digits, cut and not rounded.
  const three = (value, unit) => {
    const whole = Math.floor(value / unit);
    if (whole >= 100) return String(whole);
    const hundredths = Math.floor((value % unit) * 100 / unit);
    return whole >= 10 ? `${whole}.${Math.floor(hundredths / 10)}` : `${whole}.${String(hundredths).padStart(2, "0")}`;
  };
  const duration = (ns) => {
    if (ns === null) return "–";
    if (ns === 0) return "0";
    const seconds = Math.floor(ns / 1e9);
    if (ns < 1e3) return `${Math.round(ns)} ns`;
    if (ns < 1e6) return `${three(ns, 1e3)} µs`;
    if (ns < 1e9) return `${three(ns, 1e6)} ms`;
    if (seconds < 60) return `${three(ns, 1e9)} s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
    if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds % 3600 / 60)} min`;
    return `${Math.floor(seconds / 86400)} d ${Math.floor(seconds % 86400 / 3600)} h`;
  };
  const bytes = (size) => {
    if (size === null) return "–";
    if (size < 1024) return `${size} B`;
    const power = Math.min(Math.floor(Math.log2(size) / 10), 5);
    return `${three(size, 1024 ** power)} ${["KiB", "MiB", "GiB", "TiB", "PiB"][power - 1]}`;
  };
  const count = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ",");
  const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
  const time = (ns) => {
    if (ns === null) return "–";
    const date = new Date(data.base + Math.floor(ns / 1e6));
    if (isNaN(date)) return "–";
    const text = date.toISOString();
    return data.day ? text.slice(11, 23) : text.slice(0, 23).replace("T", " ");
  };

  const REQUEST = ["time", "duration", "method", "host", "path", "protocol", "code", "grpc", "flags", "origin", "reason", "sent",
    "received", "side", "connection", "file", "offset", "id", "moments", "requestLatency", "responseLatency", "pairing", "attempts",
    "detail", "route"];
  const CONNECTION = ["begin", "duration", "side", "source", "destination", "protocol", "id", "requests", "sent", "received", "file", "note"];
  const named = (names, texts) => (row, index) => {
    const object = { index };
    names.forEach((name, at) => { object[name] = texts.has(name) ? data.texts[row[at]] : row[at]; });
    return object;
  };
  const requests = data.requests.map(named(REQUEST, new Set(["method", "host", "path", "protocol", "origin", "reason", "side", "id", "pairing"])));
  const connections = data.connections.map(named(CONNECTION, new Set(["side", "source", "destination", "protocol", "id", "file", "note"])));
  for (const request of requests) {
    request.failed = (request.flags & 1) !== 0;
    request.complete = (request.flags & 2) !== 0;
    request.what = `${request.method || "?"} ${request.host}${request.path}`;
    const known = request.moments.filter((moment) => moment !== null);
    request.length = request.duration !== null ? request.duration : Math.max(0, ...known);
    request.status = (request.code === null ? "no response" : String(request.code)) + (request.grpc === null ? "" : `, grpc ${request.grpc}`);
    request.kind = request.failed ? "bad" : request.code === null || request.code >= 400 ? "warn" : "ok";
    request.sign = request.failed ? "✕" : request.code === null ? "?" : request.code >= 400 ? "!" : "✓";
  }
  const status = (request) => el("span", { class: `status ${request.kind}` }, el("span", { "aria-hidden": "true" }, request.sign), ` ${request.status}`);

  const facts = (request) => {
    const [requestEnd, upstreamBegin, upstreamFirst, responseBegin, responseEnd] = request.moments;
    const list = el("dl", { class: "facts" });
    const add = (name, operator, value) => {
      if (value === "" || value === "–") return;
      list.append(el("div", {}, el("dt", {}, name, operator ? " " : null, operator ? el("code", {}, operator) : null), el("dd", {}, value)));
    };
    add("Request", "", request.what);
    add("Failure from", "", request.origin && request.reason ? `${request.origin}: ${request.reason}` : request.origin);
    add("Request's last byte in", "%REQUEST_DURATION%", duration(requestEnd));
    add("First byte to the upstream", "", duration(upstreamBegin));
    add("First byte from the upstream", "%RESPONSE_DURATION%", duration(upstreamFirst));
    add("Response's first byte out", "", duration(responseBegin));
    add("Response's last byte out", "%DURATION%", duration(responseEnd));
    add("Envoy's share of the request", "", duration(request.requestLatency));
    add("Envoy's share of the response", "", duration(request.responseLatency));
    add("Pairing", "", request.pairing);
    request.attempts.forEach((attempt, index) => {
      const [, took, code, address, id] = attempt;
      add(`Attempt ${index + 1}`, "", `${code === null ? "no response" : code}, ${duration(took)}, ${data.texts[address]}, connection ${id}`);
    });
    add("Connection", "%CONNECTION_ID%", request.id);
    add("Trace", "", `${data.files[request.file] || ""}, offset ${request.offset}`);
    if (!request.complete) add("Completeness", "", "parts are missing in the trace");
    if (request.detail !== null) list.append(el("div", {}, el("dt", {}, "More"), el("dd", {}, el("a", { href: `#d-${request.detail}` }, "Heads, bodies and commands"))));
    return list;
  };

  // A table in pages, which sorts by every column.
  const pagedTable = (place, name, columns, rows, keep, more) => {
    let page = 0, size = 50, sort = null, descending = false, shown = rows;
    const head = el("tr", {}), body = el("tbody", {}), where = el("span", { class: "where" });
    const heads = columns.map((column) => {
      const button = el("button", { type: "button", click: () => {
        descending = sort === column ? !descending : false;
        sort = column;
        page = 0;
        draw();
        say(`Sorted by ${column.name}, ${descending ? "descending" : "ascending"}`);
      } }, column.name);
      const cell = el("th", { scope: "col", class: column.class }, button);
      head.append(cell);
      return { column, cell };
    });
    const step = (label, to) => el("button", { type: "button", click: () => { page = to(); draw(); say(where.textContent); } }, label);
    const pages = () => Math.max(1, Math.ceil(shown.length / size));
    const steps = [step("First", () => 0), step("Previous", () => page - 1), step("Next", () => page + 1), step("Last", () => pages() - 1)];
    const sizes = el("select", { change: (event) => { size = Number(event.target.value); page = 0; draw(); } },
      ...[50, 100, 500].map((rows) => el("option", { value: rows }, String(rows))));
    place.append(
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table of ${name.toLowerCase()}` },
        el("table", { class: "data" }, el("thead", {}, head), body)),
      el("div", { class: "pager" }, ...steps, where, el("label", {}, "Rows on a page", sizes)));
    const draw = () => {
      shown = keep ? rows.filter(keep) : rows.slice();
      if (sort) {
        const key = sort.key, way = descending ? -1 : 1;
        shown.sort((left, right) => {
          const a = key(left), b = key(right);
          // The absent ones stay last.
          if (a === b) return left.index - right.index;
          if (a === null || a === "") return 1;
          if (b === null || b === "") return -1;
          return (a < b ? -1 : 1) * way;
        });
      }
      page = Math.min(Math.max(page, 0), pages() - 1);
      for (const { column, cell } of heads) {
        if (column === sort) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
        else cell.removeAttribute("aria-sort");
        cell.firstChild.textContent = column.name + (column === sort ? (descending ? " ▼" : " ▲") : "");
      }
      const part = shown.slice(page * size, (page + 1) * size);
      body.replaceChildren(...part.map((row) => {
        const line = el("tr", {}, ...columns.map((column) => el("td", { class: column.class }, column.show(row, () => line))));
        return line;
      }));
      if (!part.length) body.append(el("tr", {}, el("td", { colspan: columns.length }, `None of ${counted(rows.length, name.toLowerCase().replace(/s$/, ""))}`)));
      steps[0].disabled = steps[1].disabled = page === 0;
      steps[2].disabled = steps[3].disabled = page >= pages() - 1;
      where.textContent = shown.length
        ? `${count(page * size + 1)} to ${count(page * size + part.length)} of ${count(shown.length)}${shown.length < rows.length ? ` (${count(rows.length)} without filters)` : ""}`
        : `0 of ${count(rows.length)}`;
      if (more) more(shown);
    };
    return { draw: () => { page = 0; draw(); }, columns: columns.length };
  };

  // Requests: filters and the table.
  const filter = { text: "", status: "", origin: "", route: "", inWindow: false };
  const view = { from: 0, until: 0 };
  const inWindow = (request) => request.time !== null && request.time <= view.until && request.time + request.length >= view.from;
  const keeps = (request) => {
    if (filter.text && !`${request.what} ${request.status} ${request.id} ${request.protocol}`.toLowerCase().includes(filter.text)) return false;
    if (filter.status === "failed" && !request.failed) return false;
    if (filter.status === "none" && request.code !== null) return false;
    if (/^\d$/.test(filter.status) && Math.floor((request.code || 0) / 100) !== Number(filter.status)) return false;
    if (filter.origin && request.origin !== filter.origin) return false;
    if (filter.route !== "" && request.route !== Number(filter.route)) return false;
    return !filter.inWindow || inWindow(request);
  };
  let table = null;
  const refilter = () => {
    if (!table) return;
    table.draw();
    say(document.querySelector("#request-table .where").textContent);
  };
  const choose = (label, id, options, change) => el("label", {}, label,
    el("select", { id, change: (event) => change(event.target.value) }, ...options.map(([value, text]) => el("option", { value }, text))));
  const buildRequests = () => {
    const place = document.getElementById("request-table");
    if (!requests.length) { place.append(el("p", { class: "empty" }, "No requests.")); return; }
    const origins = [...new Set(requests.map((request) => request.origin))].filter(Boolean).sort();
    const text = el("input", { type: "search", id: "filter-text", autocomplete: "off", input: (event) => { filter.text = event.target.value.toLowerCase(); refilter(); } });
    place.append(el("div", { class: "controls", role: "search", "aria-label": "Filter requests" },
      el("label", {}, "Text in host, path, status", text),
      choose("Status", "filter-status", [["", "all"], ["failed", "failed"], ["2", "2xx"], ["3", "3xx"], ["4", "4xx"], ["5", "5xx"], ["1", "1xx"], ["none", "no response"]],
        (value) => { filter.status = value; refilter(); }),
      choose("Failure from", "filter-origin", [["", "all"], ...origins.map((origin) => [origin, origin])], (value) => { filter.origin = value; refilter(); }),
      data.routes.length ? choose("Route", "filter-route", [["", "all"], ...data.routes.map((route, index) => [index, route])], (value) => { filter.route = value; refilter(); }) : null,
      el("label", { class: "check" }, el("input", { type: "checkbox", id: "filter-window", change: (event) => { filter.inWindow = event.target.checked; refilter(); } }), "in the timeline's window"),
      el("button", { type: "button", click: () => {
        Object.assign(filter, { text: "", status: "", origin: "", route: "", inWindow: false });
        for (const input of place.querySelectorAll(".controls input, .controls select")) { if (input.type === "checkbox") input.checked = false; else input.value = ""; }
        refilter();
      } }, "Clear")));
    const toggle = (request, line) => {
      const button = el("button", { type: "button", class: "more", "aria-expanded": "false", "aria-label": `Facts of ${request.what}`, click: () => {
        const open = button.getAttribute("aria-expanded") === "true";
        button.setAttribute("aria-expanded", String(!open));
        button.textContent = open ? "▸" : "▾";
        if (open) line().nextSibling.remove();
        else line().after(el("tr", {}, el("td", { class: "inside", colspan: table.columns }, facts(request))));
      } }, "▸");
      return button;
    };
    const column = (name, key, show, kind) => ({ name, key, show, class: kind });
    const paired = requests.some((request) => request.requestLatency !== null || request.pairing);
    const columns = [
      column("Time", (r) => r.time, (r, line) => el("span", {}, toggle(r, line), ` ${time(r.time)}`)),
      column("Duration", (r) => r.duration, (r) => duration(r.duration), "n"),
      column("Status", (r) => r.code, status),
      column("Method", (r) => r.method, (r) => r.method),
      column("Host", (r) => r.host, (r) => r.host.length > 40 ? r.host : el("span", { class: "took" }, r.host)),
      column("Path", (r) => r.path, (r) => r.detail === null ? r.path : el("a", { href: `#d-${r.detail}` }, r.path || "/"), "long wide"),
      column("Failure from", (r) => r.origin, (r) => r.origin),
      column("Protocol", (r) => r.protocol, (r) => r.protocol, "extra"),
      column("Sent", (r) => r.sent, (r) => bytes(r.sent), "n"),
      column("Received", (r) => r.received, (r) => bytes(r.received), "n"),
      ...(paired ? [
        column("Envoy, request", (r) => r.requestLatency, (r) => duration(r.requestLatency), "n extra"),
        column("Envoy, response", (r) => r.responseLatency, (r) => duration(r.responseLatency), "n extra"),
        column("Attempts", (r) => r.attempts.length, (r) => String(r.attempts.length || "–"), "n extra"),
        column("Pairing", (r) => r.pairing, (r) => r.pairing, "extra")] : []),
      column("Side", (r) => r.side, (r) => r.side, "extra"),
      column("Connection", (r) => r.id.padStart(20, "0"), (r) => r.id, "n extra"),
    ];
    table = pagedTable(place, "Requests", columns, requests, keeps);
    table.draw();
  };

  const buildConnections = () => {
    const place = document.getElementById("connection-table");
    if (!connections.length) return;
    const column = (name, key, show, kind) => ({ name, key, show: show || key, class: kind });
    pagedTable(place, "Connections", [
      column("Begin", (c) => c.begin, (c) => time(c.begin)), column("Duration", (c) => c.duration, (c) => duration(c.duration), "n extra"),
      column("Side", (c) => c.side), column("Source", (c) => c.source), column("Destination", (c) => c.destination),
      column("Protocol", (c) => c.protocol), column("Connection", (c) => c.id.padStart(20, "0"), (c) => c.id, "n"),
      column("Requests", (c) => c.requests, (c) => count(c.requests), "n"), column("Sent", (c) => c.sent, (c) => bytes(c.sent), "n"),
      column("Received", (c) => c.received, (c) => bytes(c.received), "n"), column("Trace", (c) => c.file, null, "long extra"), column("Note", (c) => c.note, null, "long"),
    ], connections).draw();
  };

  // Tables that the server made.
  const sortable = (table) => {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    heads.forEach((cell, at) => {
      if (cell.classList.contains("fixed")) return;
      const name = cell.textContent;
      const button = el("button", { type: "button", click: () => {
        const descending = cell.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => { other.removeAttribute("aria-sort"); if (other.firstChild.dataset) other.firstChild.textContent = other.firstChild.dataset.name; });
        cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
        button.textContent = name + (descending ? " ▼" : " ▲");
        const key = (row) => row.cells[at].dataset.v === undefined ? row.cells[at].textContent : Number(row.cells[at].dataset.v);
        const rows = [...body.rows].sort((left, right) => { const a = key(left), b = key(right); return (a < b ? -1 : a > b ? 1 : 0) * (descending ? -1 : 1); });
        body.append(...rows);
        say(`Sorted by ${name}, ${descending ? "descending" : "ascending"}`);
      } }, name);
      button.dataset.name = name;
      cell.replaceChildren(button);
    });
  };

  // The timeline.
  const KINDS = ["arrive", "envoy", "wait", "respond", "other"];
  const WORDS = ["request arriving", "Envoy", "waiting for the response", "response", "not told apart"];
  const stretches = (request) => {
    const [requestEnd, upstreamBegin, upstreamFirst, responseBegin, responseEnd] = request.moments;
    const list = [];
    let at = 0;
    const until = (kind, moment) => {
      const end = Math.min(moment === null ? 0 : moment, request.length);
      if (end > at) { list.push({ kind, begin: at, end }); at = end; }
    };
    until(0, requestEnd); until(1, upstreamBegin); until(2, upstreamFirst);
    until(upstreamFirst === null ? 2 : 1, responseBegin); until(3, responseEnd); until(4, request.length);
    return list;
  };
  const ticks = (span) => {
    let step = 1;
    for (let power = 1; Math.floor(span / step) > 6; power *= 10) for (const factor of [2, 5, 10]) if (Math.floor(span / step) > 6) step = power * factor;
    const list = [];
    for (let at = 0; at <= span && list.length < 8; at += step) list.push(at);
    return list;
  };
  const buildTimeline = () => {
    const place = document.getElementById("waterfall"), controls = document.getElementById("timeline-controls");
    const chart = document.getElementById("overview-chart"), overview = document.getElementById("overview");
    const timed = requests.filter((request) => request.time !== null);
    if (!place || !timed.length) return;
    const first = timed.reduce((least, request) => Math.min(least, request.time), Infinity);
    const last = timed.reduce((most, request) => Math.max(most, request.time + request.length), 0);
    const all = { from: first, until: Math.max(last, first + 1000) };
    const start = timed.slice(0, data.rows);
    Object.assign(view, { from: first, until: Math.max(...start.map((request) => request.time + request.length), first + 1000) });
    let skip = 0, failedOnly = false;
    const brush = svg("rect", { class: "brush", y: 0, height: 72 });
    chart.append(brush);
    const percent = (part, whole) => `${(part * 100 / (whole || 1)).toFixed(3)}%`;
    const rowOf = (request, span, lines) => {
      const x = (at) => percent(at - view.from, span);
      const parts = [];
      let title = `${request.what} at ${time(request.time)}: ${request.status}`;
      const bar = (kind, begin, end, y, height) => parts.push(
        svg("rect", { class: `${kind} least`, x: x(begin), y, width: 2, height }),
        svg("rect", { class: kind, x: x(Math.max(begin, view.from - span)), y, width: percent(Math.max(0, Math.min(end, view.until + span) - Math.max(begin, view.from - span)), span), height }));
      for (const stretch of stretches(request)) {
        bar(KINDS[stretch.kind], request.time + stretch.begin, request.time + stretch.end, 3, 12);
        title += `, ${WORDS[stretch.kind]} ${duration(stretch.end - stretch.begin)}`;
      }
      request.attempts.slice(0, 8).forEach(([begin, took, code], index) => {
        title += `; attempt ${index + 1}: ${code === null ? "no response" : code}, ${duration(took)}`;
        if (begin !== null) bar(code === null || code >= 500 ? "attempt bad" : "attempt", request.time + begin, request.time + begin + (took || 0), 17 + 6 * index, 4);
      });
      const row = el("li", { class: `row ${request.kind}` });
      const button = el("button", { type: "button", class: "what", "aria-expanded": "false", click: () => {
        const open = row.querySelector(".facts");
        if (open) open.remove(); else row.append(facts(request));
        button.setAttribute("aria-expanded", String(!open));
      } }, status(request), ` ${request.what}`);
      row.append(button, svg("svg", { role: "img", "aria-label": title, width: "100%", height: 18 + 6 * Math.min(request.attempts.length, 8) },
        svg("title", {}, title), ...lines.map((at) => svg("line", { class: "grid", x1: percent(at, span), x2: percent(at, span), y1: 0, y2: "100%" })), ...parts),
        el("span", { class: "took" }, duration(request.duration)));
      return row;
    };
    const connectionLabel = (index) => {
      const connection = connections[index];
      if (!connection) return "No connection known";
      return [`${connection.source} → ${connection.destination}`, connection.side, connection.protocol, `connection ${connection.id}`].filter(Boolean).join(" · ");
    };
    const draw = (tell) => {
      const span = view.until - view.from;
      const groups = new Map();
      let total = 0;
      for (const request of timed) {
        if (!inWindow(request) || (failedOnly && !request.failed)) continue;
        total += 1;
        if (!groups.has(request.connection)) groups.set(request.connection, []);
        groups.get(request.connection).push(request);
      }
      skip = Math.max(0, Math.min(skip, Math.floor((total - 1) / data.rows) * data.rows));
      const lines = ticks(span), shown = [];
      let at = 0;
      for (const [connection, members] of groups) {
        const part = members.filter(() => { at += 1; return at > skip && at <= skip + data.rows; });
        if (part.length) shown.push(el("h3", { class: "group" }, connectionLabel(connection)), el("ul", { class: "rows" }, ...part.map((request) => rowOf(request, span, lines))));
      }
      const rowsTell = total > data.rows ? `, rows ${count(skip + 1)} to ${count(Math.min(skip + data.rows, total))}` : "";
      const text = `${counted(total, "request")} from ${time(view.from)} to ${time(view.until)}, ${duration(span)}${rowsTell}`;
      place.replaceChildren(el("p", { class: "note", id: "window" }, text),
        el("div", { class: "row axis" }, el("span", {}), svg("svg", { width: "100%", height: 16, "aria-hidden": "true" },
          ...lines.map((tick) => svg("text", { x: percent(tick, span), y: 12 }, duration(tick)))), el("span", {})), ...shown);
      brush.setAttribute("x", percent(view.from - data.start, data.span));
      brush.setAttribute("width", percent(span, data.span));
      rowButtons[0].disabled = skip === 0;
      rowButtons[1].disabled = skip + data.rows >= total;
      if (tell) say(text);
      if (filter.inWindow) refilter();
    };
    const show = (from, until) => {
      const span = Math.max(1000, Math.min(until - from, all.until - all.from));
      view.from = Math.max(all.from, Math.min(from, all.until - span));
      view.until = view.from + span;
      skip = 0;
      draw(true);
    };
    const zoom = (factor, at = 0.5) => {
      const span = view.until - view.from, middle = view.from + span * at;
      show(middle - span * factor * at, middle + span * factor * (1 - at));
    };
    const move = (part) => { const by = (view.until - view.from) * part; show(view.from + by, view.until + by); };
    const actions = { "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), ArrowLeft: () => move(-0.5), ArrowRight: () => move(0.5), "0": () => show(all.from, all.until), Home: () => show(all.from, all.until) };
    const button = (id, label, click) => el("button", { type: "button", id, click }, label);
    const rowButtons = [button("rows-back", "Previous rows", () => { skip -= data.rows; draw(true); }), button("rows-on", "Next rows", () => { skip += data.rows; draw(true); })];
    controls.append(button("zoom-in", "Zoom in", () => zoom(0.5)), button("zoom-out", "Zoom out", () => zoom(2)), button("earlier", "Earlier", () => move(-0.5)),
      button("later", "Later", () => move(0.5)), button("zoom-all", "All", () => show(all.from, all.until)), ...rowButtons,
      el("label", { class: "check" }, el("input", { type: "checkbox", id: "timeline-failed", change: (event) => { failedOnly = event.target.checked; skip = 0; draw(true); } }), "failed only"));
    make(overview, { tabindex: "0", role: "group", "aria-label": "Timeline: drag to choose a range; keys + and - zoom, arrows move, 0 shows all" }, []);
    overview.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(actions, event.key)) return;
      event.preventDefault();
      actions[event.key]();
    });
    const wheel = (event, box) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoom(event.deltaY < 0 ? 0.7 : 1 / 0.7, Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)));
    };
    place.addEventListener("wheel", (event) => { const bars = place.querySelector(".axis svg"); if (bars) wheel(event, bars.getBoundingClientRect()); }, { passive: false });
    chart.addEventListener("wheel", (event) => wheel(event, chart.getBoundingClientRect()), { passive: false });
    let dragged = null;
    const at = (event) => { const box = chart.getBoundingClientRect(); return data.start + data.span * Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)); };
    chart.addEventListener("pointerdown", (event) => { dragged = at(event); chart.setPointerCapture(event.pointerId); });
    chart.addEventListener("pointermove", (event) => {
      if (dragged === null) return;
      const to = at(event);
      brush.setAttribute("x", percent(Math.min(dragged, to) - data.start, data.span));
      brush.setAttribute("width", percent(Math.abs(to - dragged), data.span));
    });
    chart.addEventListener("pointerup", (event) => {
      if (dragged === null) return;
      const to = at(event), from = dragged;
      dragged = null;
      if (Math.abs(to - from) > data.span / 500) show(Math.min(from, to), Math.max(from, to));
      else { const half = (view.until - view.from) / 2; show(to - half, to + half); }
    });
    chart.addEventListener("pointercancel", () => { dragged = null; draw(false); });
    draw(false);
  };

  // Shell lines can be copied.
  const copyable = (pre) => {
    const button = el("button", { type: "button", "aria-label": `Copy: ${pre.textContent.slice(0, 80)}`, click: async () => {
      try {
        await navigator.clipboard.writeText(pre.textContent);
      } catch {
        getSelection().selectAllChildren(pre);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      say("Copied");
    } }, "Copy");
    const box = el("div", { class: "copy" });
    pre.replaceWith(box);
    box.append(pre, button);
  };

  const exchanges = [...document.querySelectorAll("details.exchange")];
  const buildDetails = () => {
    const controls = document.getElementById("detail-controls");
    if (!controls) return;
    controls.append(choose("Show", "filter-details", [["", "all"], ["failed", "failed"], ["slow", "slow"]], (value) => {
      for (const entry of exchanges) entry.hidden = value !== "" && entry.dataset[value] !== "true";
      say(counted(exchanges.filter((entry) => !entry.hidden).length, "request"));
    }));
  };
  const reveal = () => {
    const target = /^#d-\d+$/.test(location.hash) && document.getElementById(location.hash.slice(1));
    if (target) { target.hidden = false; target.open = true; target.scrollIntoView(); target.firstElementChild.focus(); }
  };

  document.documentElement.classList.add("scripted");
  buildTimeline();
  buildRequests();
  buildConnections();
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("pre.command").forEach(copyable);
  buildDetails();
  addEventListener("hashchange", reveal);
  addEventListener("beforeprint", () => exchanges.forEach((entry) => { entry.open = true; }));
  reveal();
})();
