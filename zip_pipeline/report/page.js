"use strict";
// Words of the data are only ever set as text: no string of them becomes markup or an address.
const $ = (id) => document.getElementById(id);
const make = (tag, words = "", kind = "") => {
  const element = document.createElement(tag);
  element.textContent = words;
  if (kind) element.className = kind;
  return element;
};
const num = (value, digits = 0) =>
  value === null || value === undefined
    ? "–" : value.toLocaleString("en", {maximumFractionDigits: digits});
const plain = (name) => state.ledger.labels[name] ?? name.replaceAll("_", " ");

async function unpack(id) {
  const letters = $(id).textContent.trim();
  $(id).textContent = "";
  // Older browsers lack the first.
  const bytes = Uint8Array.fromBase64?.(letters) ?? Uint8Array.from(atob(letters), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const state = {ledger: null, texts: null, history: null, lowered: null, shown: []};
const ROW = 30;
const name_of = (column, row) => {
  const {names, codes} = state.ledger.coded[column];
  return names[codes[row]];
};
const number_of = (column, row) => (state.ledger.numbers[column] || [])[row];

// ---- The list of every sample: only the rows that are seen are in the document.

function fill_choices() {
  for (const id of ["fate", "source", "change"]) {
    const {names, codes} = state.ledger.coded[id];
    const counts = new Array(names.length).fill(0);
    for (const code of codes) counts[code]++;
    const order = names.map((_, n) => n).filter((n) => id !== "change" || names[n]);
    order.sort((a, b) => counts[b] - counts[a]);
    $(id).append(new Option("all", ""));
    for (const n of order) {
      const name = id === "source" ? names[n] || "(no source)" : plain(names[n]);
      $(id).append(new Option(`${name} (${num(counts[n])})`, String(n)));
    }
  }
}

function words_to_search() {
  // Made at the first search, as it takes a moment.
  const {ids} = state.ledger, {texts, evidence} = state.texts;
  state.lowered ??= ids.map((id, row) =>
    [id, name_of("source", row), name_of("batch", row), name_of("source_file", row),
      (evidence || [])[row] || "", texts[row] || ""].join("\n").toLowerCase());
  return state.lowered;
}

function stands_at(row, [, file, number]) {
  // As zip-pipeline trace reads FILE:ROW: the name of the drop, or of a file in it, with any path.
  return number_of("source_row", row) === Number(number) &&
    ["batch", "source_file"].some((id) => name_of(id, row) && `/${file}`.endsWith(`/${name_of(id, row)}`));
}

function filter() {
  const query = $("query").value.trim().toLowerCase();
  const lowered = query && state.texts ? words_to_search() : null;
  const place = /^(.+):([1-9][0-9]*)$/.exec($("query").value.trim());
  const wanted = ["fate", "source", "change"]
    .filter((id) => $(id).value !== "")
    .map((id) => [state.ledger.coded[id].codes, Number($(id).value)]);
  const rows = [];
  for (let row = 0; row < state.ledger.ids.length; row++) {
    if (wanted.every(([codes, code]) => codes[row] === code) &&
        (!lowered || lowered[row].includes(query) || (place && stands_at(row, place)))) rows.push(row);
  }
  const order = $("order").value;
  if (order) {
    const values = state.ledger.numbers[order.replace("-", "")];
    const sign = order.endsWith("-") ? -1 : 1;
    const known = (row) => values[row] !== null && values[row] !== undefined;
    rows.sort((a, b) => known(a) && known(b)
      ? sign * (values[a] - values[b]) : Number(known(b)) - Number(known(a)));
  }
  state.shown = rows;
  $("count").textContent = `${num(rows.length)} of ${num(state.ledger.ids.length)} rows`
    + (place && !rows.length ? "; the row may be among the rejected, zip-pipeline trace tells" : "");
  $("list").scrollTop = 0;
  draw();
}

function draw() {
  const list = $("list");
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
  const last = Math.min(state.shown.length, first + Math.ceil(list.clientHeight / ROW) + 10);
  const space = make("div");
  space.style.height = `${state.shown.length * ROW}px`;
  const rows = [space];
  for (let place = first; place < last; place++) {
    const row = state.shown[place], link = make("a");
    link.href = `#sample=${state.ledger.ids[row]}`;
    link.style.top = `${place * ROW}px`;
    link.append(
      make("span", state.ledger.ids[row].slice(0, 10), "id"), make("span", plain(name_of("fate", row))),
      make("span", name_of("source", row)), make("span", num(number_of("pi", row), 3)),
      make("span", num(number_of("num_bytes", row))),
      make("span", state.texts ? (state.texts.texts[row] || "").slice(0, 200) : ""));
    rows.push(link);
  }
  list.replaceChildren(...rows);
}

// ---- Texts side by side, with the passages that both have.

const IN_A_ROW = 5;
const words_of = (text) => [...text.matchAll(/\S+/g)].map((m) => [m.index, m[0]]);
const runs_of = (words) => words.slice(0, Math.max(0, words.length - IN_A_ROW + 1))
  .map((_, n) => words.slice(n, n + IN_A_ROW).map(([, word]) => word.toLowerCase()).join(" "));

function shared_spans(text, other) {
  // Spans [start, end] of characters that lie in five words in a row which the other text has.
  const theirs = new Set(runs_of(words_of(other))), words = words_of(text), spans = [];
  runs_of(words).forEach((run, n) => {
    if (!theirs.has(run)) return;
    const [start, [at, word]] = [words[n][0], words[n + IN_A_ROW - 1]];
    const last = spans.at(-1);
    if (last && start <= last[1] + 1) last[1] = at + word.length;
    else spans.push([start, at + word.length]);
  });
  return spans;
}

function text_box(text, spans) {
  const box = make("div", "", "text");
  let from = 0;
  for (const [start, end] of spans) {
    box.append(text.slice(from, start), make("mark", text.slice(start, end)));
    from = end;
  }
  box.append(text.slice(from));
  return box;
}

function text_of(id) {
  const row = row_of(id);
  return row < 0 ? null : state.texts.texts[row];
}

function column(id, spans, with_link) {
  const part = make("div"), row = row_of(id), text = text_of(id);
  const head = make("div", "", "soft");
  const name = make(with_link ? "a" : "span", id, "id");
  if (with_link) name.href = `#sample=${id}`;
  head.append(name);
  if (row >= 0) head.append(` · ${plain(name_of("fate", row))} · ${name_of("source", row)}`);
  part.append(head);
  if (text === null || text === undefined) {
    part.append(make("p", "Its text is not shown: it has left the pool, or holds personal data.", "soft"));
    return part;
  }
  const repeated = spans.reduce((sum, [start, end]) => sum + end - start, 0) / text.length;
  if (repeated) head.append(` · ${num(100 * repeated)}% of what is shown stands in the other`);
  part.append(text_box(text, spans));
  const whole = state.texts.characters[row], size = [...text].length;
  if (whole > size) part.append(make("p", `The first ${num(size)} of ${num(whole)} characters.`, "soft"));
  return part;
}

function beside(id, other, with_link) {
  const grid = make("div", "", "beside"), text = text_of(id), theirs = other && text_of(other);
  grid.append(column(id, text && theirs ? shared_spans(text, theirs) : [], with_link));
  if (other) grid.append(column(other, text && theirs ? shared_spans(theirs, text) : [], true));
  return grid;
}

function scroll_to_marks(part) {
  for (const box of part.querySelectorAll(".text")) {
    const first = box.querySelector("mark");
    if (first && first.offsetTop > box.clientHeight - 60) box.scrollTop = first.offsetTop - 40;
  }
}

function show_examples() {
  const parts = state.ledger.examples.map(({title, items}) => {
    const part = make("div");
    part.append(make("h3", title));
    for (const [id, other] of items) {
      const article = make("article"), row = row_of(id);
      article.append(make("p", `${state.texts.why[row]}.`), beside(id, other, true));
      part.append(article);
    }
    return part;
  });
  $("shown_examples").replaceChildren(...(parts.length ? parts : [make("p", "none", "soft")]));
  scroll_to_marks($("shown_examples"));
}

// ---- The page of a sample.

let places = null;
function rows_of(id) {
  if (places === null) {
    places = new Map();
    state.ledger.ids.forEach((one, row) =>
      places.has(one) ? places.get(one).push(row) : places.set(one, [row]));
  }
  return places.get(id) || [];
}
function row_of(id) {
  // A copy's row only points to the sample that took part in its place.
  const rows = rows_of(id);
  return rows.find((row) => name_of("fate", row) !== "duplicate") ?? rows[0] ?? -1;
}

const NAMES = {
  num_bytes: "bytes", num_tokens: "tokens", pi: "last known ratio", initial_pi: "ratio alone",
};

function facts_of(row) {
  const facts = make("dl"), {numbers} = state.ledger;
  const told = {source: name_of("source", row), place: place_of(row)};
  for (const name of Object.keys(numbers)) {
    if (name !== "source_row" && number_of(name, row) !== null)
      told[NAMES[name] || plain(name)] = num(number_of(name, row), 4);
  }
  for (const [name, words] of Object.entries(told)) facts.append(make("dt", name), make("dd", words));
  return facts;
}

function place_of(row) {
  const batch = name_of("batch", row), file = name_of("source_file", row);
  return `${batch}${file && file !== batch ? `, ${file}` : ""}, row ${num(number_of("source_row", row))}`;
}

function fates_of(row) {
  const {versions, names, codes, whys} = state.history, table = make("table"), body = make("tbody");
  versions.forEach(([version, created], n) => {
    const fate = names[codes[n].charCodeAt(row) - 97] ?? "unknown", line = make("tr");
    const is_this = version === state.ledger.version, told = whys[n];
    const why = is_this ? state.texts.why[row] : told ? told.names[told.codes[row]] : "";
    line.append(make("td", `${version}${is_this ? " (this)" : ""}`, "date"),
      make("td", created.slice(0, 16).replace("T", " "), "date"), make("td", plain(fate), "date"),
      make("td", why));
    body.prepend(line);
  });
  table.append(body);
  const wide = make("div", "", "wide");
  wide.append(table);
  return wide;
}

function show_sample() {
  const section = $("sample"), id = /^#sample=([0-9a-zA-Z]+)$/.exec(location.hash)?.[1];
  section.hidden = id === undefined;
  if (id === undefined) return;
  const row = row_of(id);
  const close = make("button", "Close");
  close.addEventListener("click", () => { location.hash = "#ledger"; });
  const parts = [make("h2", `Sample ${id}`)];
  if (row < 0) parts.push(make("p", "This version's ledger has no such sample."));
  else {
    const evidence = (state.texts.evidence || [])[row], other = (state.texts.other || [])[row];
    parts.push(make("p", `${state.texts.why[row]}.`), facts_of(row));
    if (evidence) parts.push(make("p", `Evidence: ${evidence}`));
    for (const copy of rows_of(id)) {
      if (copy !== row) parts.push(make("p", `${place_of(copy)}: ${state.texts.why[copy]}`));
    }
    parts.push(make("h3", other ? "Its text, beside the sample that took part in its place" : "Its text"),
      beside(id, other, false), make("h3", "Its fate in every version"), fates_of(row),
      make("p", `zip-pipeline trace ${id} tells why, for each version.`, "soft"));
  }
  parts.push(close);
  section.replaceChildren(...parts);
  scroll_to_marks(section);
  section.scrollIntoView();
}

// ---- Start

$("theme").addEventListener("click", () => {
  const root = document.documentElement, now = getComputedStyle(root).colorScheme;
  const is_dark = now === "dark" || (now !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  root.style.colorScheme = is_dark ? "light" : "dark";
});

(async () => {
  state.ledger = await unpack("data_ledger");
  fill_choices();
  filter();
  [state.texts, state.history] = await Promise.all([unpack("data_texts"), unpack("data_history")]);
  filter();
  show_examples();
  show_sample();
  for (const id of ["fate", "source", "change", "order"]) $(id).addEventListener("change", filter);
  $("query").addEventListener("input", filter);
  $("list").addEventListener("scroll", draw, {passive: true});
  addEventListener("resize", draw);
  addEventListener("hashchange", show_sample);
  document.documentElement.dataset.ready = "yes";
})();
