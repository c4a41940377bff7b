"use strict";
// The story of the page, decoded once into typed arrays ordered by time. Its texts are only ever set as text.

addEventListener("error", (event) => { document.body.dataset.error = event.message; });

const $ = (id) => document.getElementById(id);
const NONE = -1;
const [SENT, DELIVERED, LOST, STATUS, NUMBERS, FAULT, ASKED, HEARD, NOTE] = Array(9).keys();
const FIELDS = [3, 1, 2, 3, 2, 2, 1, 2, 1];
const TEXT_COLUMN = ["c", null, "b", null, null, "a", "a", "b", "a"];
const [NORMAL, VIEW_CHANGE, DOWN, PAUSED] = Array(4).keys();
const STATES = ["normal", "view change", "down", "paused"];

// What a message is for. What has no family is repair.
const FAMILIES = [
  { name: "request, reply", colour: "--request", kinds: ["Requests", "Replies", "Query", "Answer", "RequestStatus", "Status"] },
  { name: "prepare", colour: "--prepare", kinds: ["Prepare"] },
  { name: "ok", colour: "--ok", kinds: ["PrepareOk"] },
  { name: "view change", colour: "--view-change", kinds: ["StartViewChange", "DoViewChange", "StartView", "RequestStartView"] },
  { name: "repair", colour: "--repair", kinds: [] },
  { name: "commit, heartbeat", colour: "--beat", kinds: ["Commit", "CommitOk", "Ping", "ReadIndex", "ReadIndexOk"] },
  { name: "lost", colour: "--lost", kinds: [] },
];
const REPAIR_FAMILY = 4, LOST_FAMILY = 6;
// How a message is called in the diagram, and which of its numbers stands beside.
const SHORT = {
  Prepare: ["P", "op"], PrepareOk: ["ok", "op"], Commit: ["C", "commit"], CommitOk: ["Cok", ""], Requests: ["req", ""],
  Replies: ["rep", ""], StartViewChange: ["SVC ", "view"], DoViewChange: ["DVC ", "view"], StartView: ["SV ", "view"],
  RequestStartView: ["SV? ", "view"], RequestHeaders: ["hdr?", ""], Headers: ["hdr", ""], RequestEntries: ["ent?", ""],
  Entries: ["ent", ""], ReadIndex: ["read?", ""], ReadIndexOk: ["read", ""], Ping: ["ping", ""],
};

const story = decode(JSON.parse($("story").textContent));
const arrows = findArrows();
const { bands, levels, operations, faults, notes } = findPeriods();

function decode(raw) {
  const count = raw.what.length;
  const ints = () => new Int32Array(count).fill(NONE);
  const s = { ...raw, count, what: new Uint8Array(count), at: new Float64Array(count), lane: ints(), cause: ints(), link: ints(),
    a: new Float64Array(count), b: new Float64Array(count), c: new Float64Array(count),
    firstByCause: ints(), nextByCause: ints(), firstByLink: ints(), nextByLink: ints() };
  let at = 0, field = 0;
  for (let i = 0; i < count; i++) {
    const what = raw.what.charCodeAt(i) - 48;
    s.what[i] = what;
    s.at[i] = at += raw.at[i];
    s.lane[i] = raw.lane[i];
    if (raw.cause[i] > 0) s.cause[i] = i - raw.cause[i];
    s.a[i] = raw.fields[field++];
    if (FIELDS[what] > 1) s.b[i] = raw.fields[field++];
    if (FIELDS[what] > 2) s.c[i] = raw.fields[field++];
    const linked = i - s.a[i], wanted = what === HEARD ? ASKED : SENT;
    if ((what === DELIVERED || what === LOST || what === HEARD) && s.a[i] > 0 && s.what[linked] === wanted) s.link[i] = linked;
  }
  for (let i = count - 1; i >= 0; i--) {
    if (s.cause[i] !== NONE) { s.nextByCause[i] = s.firstByCause[s.cause[i]]; s.firstByCause[s.cause[i]] = i; }
    if (s.link[i] !== NONE) { s.nextByLink[i] = s.firstByLink[s.link[i]]; s.firstByLink[s.link[i]] = i; }
  }
  s.end = Math.max(at, raw.violation ? raw.violation.at : 0, 1);
  s.familyOf = Uint8Array.from(raw.texts, (text) => {
    const family = FAMILIES.findIndex(({ kinds }) => kinds.includes(text));
    return family === NONE ? REPAIR_FAMILY : family;
  });
  return s;
}

// One arrow for each arrival, each loss, and each message that did neither; ordered by their ends, as the records are.
function findArrows() {
  const { count, what, link, at, lane, a, b, lanes } = story;
  const ends = new Uint8Array(count);
  for (let i = 0; i < count; i++) if (link[i] !== NONE && what[i] !== HEARD) ends[link[i]] = 1;
  const records = [];
  for (let i = 0; i < count; i++) {
    const sent = what[i] === SENT ? i : link[i];
    if (what[i] === SENT ? ends[i] : what[i] !== DELIVERED && what[i] !== LOST) continue;
    if (sent !== NONE && lane[sent] < lanes.length && a[sent] < lanes.length) records.push(i);
  }
  const size = records.length;
  const found = { size, record: Int32Array.from(records), sent: new Int32Array(size), start: new Float64Array(size),
    end: new Float64Array(size), from: new Int32Array(size), to: new Int32Array(size), family: new Uint8Array(size),
    group: new Uint8Array(size), again: new Uint8Array(size), of: new Int32Array(count).fill(NONE) };
  const arrived = new Uint8Array(count);
  records.forEach((record, k) => {
    const sent = what[record] === SENT ? record : link[record];
    found.sent[k] = sent;
    found.start[k] = at[sent];
    found.end[k] = at[record];
    found.from[k] = lane[sent];
    found.to[k] = a[sent];
    found.family[k] = story.familyOf[b[sent]];
    found.group[k] = what[record] === LOST ? LOST_FAMILY : found.family[k];
    found.again[k] = what[record] === DELIVERED ? arrived[sent] : 0;
    if (what[record] === DELIVERED) arrived[sent] = 1;
    found.of[record] = k;
    if (found.of[sent] === NONE) found.of[sent] = k;
  });
  // Nearly all last no longer than the reach, so that a search by the end finds them; the few others are looked at in each frame.
  const lasting = found.end.map((end, k) => end - found.start[k]).sort();
  found.reach = size ? lasting[Math.floor(size * 0.995)] : 0;
  found.long = Int32Array.from(records.keys()).filter((k) => found.end[k] - found.start[k] > found.reach);
  return found;
}

// What lasts: bands of status, steps of op numbers, client operations, faults.
function findPeriods() {
  const { count, what, at, lane, a, b, c, link, lanes, texts, end } = story;
  const bands = lanes.map(() => []), operations = lanes.map(() => []), steps = lanes.map(() => []);
  const faults = [], notes = [], openOperations = new Map(), rowEnds = lanes.map(() => []), faultRows = [];
  const freeRow = (rows, from, until, most) => {
    let row = rows.findIndex((rowEnd) => rowEnd <= from);
    if (row === NONE) row = Math.min(rows.length, most - 1);
    rows[row] = until;
    return row;
  };
  for (let i = 0; i < count; i++) {
    const own = lane[i] < lanes.length;
    if (what[i] === STATUS && own) {
      const last = bands[lane[i]].at(-1);
      if (last && last.view === a[i] && last.state === b[i] && last.primary === c[i]) continue;
      if (last) last.to = at[i];
      bands[lane[i]].push({ record: i, from: at[i], to: end, view: a[i], state: b[i], primary: c[i] });
    } else if (what[i] === NUMBERS && own) {
      steps[lane[i]].push(i);
    } else if (what[i] === FAULT) {
      const text = faultText(i), glyph = /restart/i.test(text) ? "⟳" : /crash|kill/i.test(text) ? "⚡\uFE0E" : "▣";
      const row = b[i] > 0 ? freeRow(faultRows, at[i], at[i] + b[i], 4) : NONE;
      faults.push({ record: i, from: at[i], to: at[i] + b[i], row, text, glyph, good: glyph === "⟳" });
    } else if (what[i] === ASKED && own) {
      const operation = { record: i, from: at[i], to: Infinity, row: 0, text: texts[a[i]] };
      operations[lane[i]].push(operation);
      openOperations.set(i, operation);
    } else if (what[i] === HEARD && openOperations.has(link[i])) {
      const operation = openOperations.get(link[i]);
      openOperations.delete(link[i]);
      operation.to = at[i];
      operation.heard = i;
      operation.text += ` → ${texts[b[i]]}`;
    } else if (what[i] === NOTE && own) {
      notes.push(i);
    }
  }
  operations.forEach((list, lane) => list.forEach((one) => { one.row = freeRow(rowEnds[lane], one.from, one.to, 3); }));
  const column = (list, of) => Float64Array.from(list, (i) => of[i]);
  const levels = steps.map((list) => ({ at: column(list, at), head: column(list, a), commit: column(list, b) }));
  operations.forEach((list, lane) => { list.rows = Math.max(1, rowEnds[lane].length); });
  faults.rows = faultRows.length;
  return { bands, levels, operations, faults, notes: Int32Array.from(notes) };
}

// The first index whose value is not below.
function firstAtLeast(array, value) {
  let low = 0, high = array.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (array[middle] < value) low = middle + 1; else high = middle;
  }
  return low;
}

function laneName(lane) {
  return lane < story.lanes.length ? story.lanes[lane][0] : "cluster";
}

const kindOf = (sent) => story.texts[story.b[sent]];

function textOf(i) {
  const column = TEXT_COLUMN[story.what[i]];
  return column ? story.texts[story[column][i]] : "";
}

// Says where, if the text does not.
function faultText(i) {
  const text = textOf(i), name = laneName(story.lane[i]);
  return story.lane[i] >= story.lanes.length || text.includes(name) ? text : `${name}: ${text}`;
}

// A record in one line.
function sentence(i) {
  const { what, a, b, c, lane, link } = story, name = laneName(lane[i]), sent = link[i];
  const message = sent === NONE ? "a message" : `${kindOf(sent)} from ${laneName(lane[sent])}`;
  switch (what[i]) {
    case SENT: return `${name} sends ${kindOf(i)} to ${laneName(a[i])}`;
    case DELIVERED: return `${name} receives ${message}`;
    case LOST: return `${name} does not get ${message}: ${textOf(i)}`;
    case STATUS: return `${name}: ${bandText({ view: a[i], state: b[i], primary: c[i] })}`;
    case NUMBERS: return `${name}: head ${a[i]}, commit ${b[i]}`;
    case FAULT: return faultText(i);
    case ASKED: return `${name} asks: ${textOf(i)}`;
    case HEARD: return `${name} hears: ${textOf(i)}`;
    default: return `${name}: ${textOf(i)}`;
  }
}

function bandText({ view, state, primary }) {
  if (state === VIEW_CHANGE) return `view change to ${view}`;
  if (state !== NORMAL) return STATES[state];
  return `view ${view}${primary ? " · primary" : ""}`;
}

function shortLabel(sent) {
  const kind = kindOf(sent), [short, field] = SHORT[kind] ?? [kind.replace(/[^A-Z]/g, "") || kind.slice(0, 3), ""];
  const number = field && new RegExp(`\\b${field} (\\d+)`).exec(story.texts[story.c[sent]]);
  return number ? short + number[1] : short.trim();
}

const clock = (ns) => `${(ns / 1e6).toLocaleString("en", { minimumFractionDigits: 3, maximumFractionDigits: 3 })} ms`;

function lasting(ns) {
  const [unit, size] = ns < 1e3 ? ["ns", 1] : ns < 1e6 ? ["µs", 1e3] : ns < 1e10 ? ["ms", 1e6] : ["s", 1e9];
  return `${Number((ns / size).toPrecision(4))} ${unit}`;
}

// A replica's band and numbers at a time.
function stateAt(lane, time) {
  const band = bands[lane].findLast((band) => band.from <= time);
  const step = firstAtLeast(levels[lane].at, time + 1e-3) - 1;
  const numbers = step < 0 ? "" : `head ${levels[lane].head[step]}, commit ${levels[lane].commit[step]}`;
  return { band, numbers };
}
