// What is looked at, and how a person moves through it.

const shown = new Uint8Array(story.count).fill(1);
const enabled = FAMILIES.map(() => true);
const view = { from: 0, to: story.end };
let pinned = NONE, hovered = NONE, pastOf = NONE, pastSize = 0;
const breachRecord = findBreachRecord();

function findBreachRecord() {
  const breach = story.violation;
  if (!breach) return NONE;
  if (breach.record !== null && breach.record < story.count) return breach.record;
  for (let i = story.count - 1; i >= 0; i--) {
    if (story.at[i] <= breach.at && (breach.lane === null || story.lane[i] === breach.lane)) return i;
  }
  return NONE;
}

// Everything that led to a record: causes, and the sending of what was received.
function causalPast(root) {
  const past = new Uint8Array(story.count), stack = [root];
  while (stack.length) {
    const i = stack.pop();
    if (i === NONE || past[i]) continue;
    past[i] = 1;
    stack.push(story.cause[i], story.link[i]);
  }
  return past;
}

function applyFilter() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const past = pastOf === NONE ? null : causalPast(pastOf);
  pastSize = past ? past.reduce((sum, one) => sum + one, 0) : 0;
  const { count, what, cause, link } = story;
  for (let i = 0; i < count; i++) {
    // What was lost on the way belongs to the past of those who would have answered it.
    const lostThen = past && i < pastOf && what[i] === LOST && link[i] !== NONE && cause[link[i]] !== NONE && past[cause[link[i]]];
    shown[i] = (!past || past[i] || lostThen) && (!words.length || matches(i, words)) ? 1 : 0;
  }
  redraw();
}

function matches(i, words) {
  const { what, lane, link, a } = story, sent = what[i] === SENT ? i : what[i] === HEARD ? NONE : link[i];
  const text = `${sentence(i)} ${sent === NONE ? textOf(i) : story.texts[story.c[sent]]}`.toLowerCase();
  const lanes = sent === NONE ? [lane[i]] : [lane[sent], a[sent]];
  return words.every((word) => {
    if (word.startsWith("lane:")) return lanes.some((lane) => laneName(lane).toLowerCase() === word.slice(5));
    if (word.startsWith("kind:")) return sent !== NONE && kindOf(sent).toLowerCase() === word.slice(5);
    return text.includes(word);
  });
}

function look(from, to) {
  const most = story.end * 1.06, width = Math.min(Math.max(to - from, 500), most);
  const middle = (from + to) / 2, low = -0.03 * story.end;
  view.from = Math.max(low, Math.min(middle - width / 2, low + most - width));
  view.to = view.from + width;
  hovered = NONE;
  tip.hidden = true;
  redraw();
}

// Moves there smoothly, for the eye to follow.
function glide(from, to) {
  const old = { ...view }, begun = performance.now();
  const step = (now) => {
    const part = Math.min(1, Math.max(0, (now - begun) / 220)), eased = part * (2 - part);
    look(old.from + (from - old.from) * eased, old.to + (to - old.to) * eased);
    if (part < 1) requestAnimationFrame(step);
  };
  step(begun);
}

const lookAtAll = () => glide(0, story.end);
const zoom = (factor, around) => look(around - (around - view.from) * factor, around + (view.to - around) * factor);
const move = (part) => look(view.from + (view.to - view.from) * part, view.to + (view.to - view.from) * part);

function lookAtShown() {
  const first = shown.indexOf(1), last = shown.lastIndexOf(1);
  if (first === NONE) return;
  const margin = Math.max(1e4, (story.at[last] - story.at[first]) * 0.04);
  glide(story.at[first] - margin, story.at[last] + margin);
}

// The last 80 records that led to the violation; or else what fits well of the last 200 ms before it.
function breachWindow() {
  const end = story.violation.at, isPast = pastOf !== NONE && pastOf === breachRecord;
  let from = end, left = isPast ? 80 : 250;
  for (let i = breachRecord; i >= 0 && left > 0; i--) if (shown[i]) { from = story.at[i]; left--; }
  from = Math.max(0, Math.min(end - 5e6, isPast ? from : Math.max(from, end - 2e8)));
  return [from - (end - from) * 0.04, end + (end - from) * 0.07];
}

function showPast(root, go) {
  pastOf = root;
  $("past").setAttribute("aria-pressed", root !== NONE);
  applyFilter();
  if (root === NONE || !go) return;
  if (root === breachRecord) glide(...breachWindow()); else lookAtShown();
}

const togglePast = () => showPast(pastOf !== NONE ? NONE : pinned !== NONE ? pinned : breachRecord, true);

function pin(i) {
  pinned = i;
  if (i !== NONE) {
    const at = story.at[i], margin = (view.to - view.from) * 0.08;
    if (at < view.from || at > view.to) look(at - margin * 6, at + margin * 6);
    else if (at > view.to - margin) move(0.3);
    else if (at < view.from + margin) move(-0.3);
  }
  showPinned();
  redraw();
}

function stepEvent(direction) {
  let i = pinned + direction;
  if (pinned === NONE) i = firstAtLeast(story.at, (view.from + view.to) / 2);
  while (i >= 0 && i < story.count && !shown[i]) i += direction;
  if (i >= 0 && i < story.count) pin(i);
}

function stepFault(direction) {
  const from = pinned === NONE ? firstAtLeast(story.at, (view.from + view.to) / 2) : pinned;
  const next = direction > 0 ? faults.find((fault) => fault.record > from) : faults.findLast((fault) => fault.record < from);
  if (next) pin(next.record);
}

// ---- What a person does ----

// What is at a point: a record, if there is one, and lines that say more.
function find(x, y) {
  if (x < GUTTER || x > place.right || y > place.lanesBottom) return { record: NONE };
  const time = timeOf(x), glyphY = place.faultsY + faults.rows * 19;
  for (const fault of faults) {
    const hit = fault.row === NONE ? Math.abs(xOf(fault.from) - x) < 8 && y > glyphY - 2 && y < glyphY + 20
      : time >= fault.from && xOf(fault.to) >= x && y > place.faultsY + fault.row * 19 && y < place.faultsY + fault.row * 19 + 17;
    if (hit) return { record: fault.record };
  }
  for (const i of notes) {
    if (shown[i] && Math.hypot(xOf(story.at[i]) - x, place.laneY[story.lane[i]] - y) < 5) return { record: i };
  }
  const k = nearestArrow(x, y);
  if (k !== NONE) return { record: arrows.record[k] };
  for (const lane of clients) {
    const row = Math.floor((y - place.laneY[lane] + operations[lane].rows * 10) / 20);
    const hit = operations[lane].find((one) => one.row === row && one.from <= time && one.to >= time);
    if (!hit) continue;
    const more = [`${laneName(lane)}, ${lasting(Math.min(hit.to, story.end) - hit.from)}`];
    return { record: hit.record, heading: hit.text, more };
  }
  for (const lane of replicas) {
    if (Math.abs(y - place.laneY[lane]) > BAND / 2) {
      const heights = heightsAt(lane, x);
      if (y < place.laneY[lane] && place.laneY[lane] - y < BAND / 2 + place.above[lane] && heights) return heights;
      continue;
    }
    const { band, numbers } = stateAt(lane, time);
    if (band) return { record: band.record, heading: `${laneName(lane)}: ${bandText(band)}`, more: [numbers, `at ${clock(time)}`] };
  }
  return { record: NONE };
}

function nearestArrow(x, y) {
  let nearest = NONE, least = 6;
  for (let n = 0; n < drawn.size; n++) {
    findEnds(drawn.arrows[n]);
    const { x0, y0, x1, y1 } = ends, length = (x1 - x0) ** 2 + (y1 - y0) ** 2 || 1;
    const part = Math.min(1, Math.max(0, ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length));
    const distance = Math.hypot(x - x0 - part * (x1 - x0), y - y0 - part * (y1 - y0));
    if (distance < least) { least = distance; nearest = drawn.arrows[n]; }
  }
  return nearest;
}

function heightsAt(lane, x) {
  const column = Math.floor((x - GUTTER) / COLUMN), more = [];
  FAMILIES.forEach(({ name }, family) => {
    const many = drawn.heights[(lane * FAMILIES.length + family) * drawn.columns + column];
    if (many) more.push(`${many} ${name}`);
  });
  if (!more.length) return null;
  const from = timeOf(GUTTER + column * COLUMN), to = timeOf(GUTTER + (column + 1) * COLUMN);
  more.push(`at ${clock(from)}; zoom in to see each`);
  return { record: NONE, heading: `${laneName(lane)} sent within ${lasting(to - from)}`, more };
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// The lines that say more about a record.
function facts(i) {
  const { what, at, link } = story, sent = what[i] === SENT ? i : link[i];
  if (what[i] === HEARD && sent !== NONE) return [`${textOf(sent)}, asked ${lasting(at[i] - at[sent])} before`];
  if (sent === NONE) return [];
  const after = i !== sent ? [`${what[i] === LOST ? "lost" : "arrived"} ${lasting(at[i] - at[sent])} after it was sent`] : [];
  return [story.texts[story.c[sent]], ...after];
}

function showTip(event, { record, heading, more }) {
  tip.hidden = record === NONE && !heading;
  if (tip.hidden) return;
  const lines = more ?? [...facts(record), clock(story.at[record])];
  tip.replaceChildren(element("b", { textContent: heading ?? sentence(record) }),
    ...lines.filter(Boolean).map((line) => element("span", { textContent: line })));
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - width - 8)}px`;
  tip.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 12 : event.clientY + 18}px`;
}

function eventButton(i) {
  const button = element("button", { type: "button", className: i === pinned ? "event pinned" : "event" },
    element("time", { textContent: clock(story.at[i]).replace(" ms", "") }), element("span", { textContent: sentence(i) }));
  button.onclick = () => pin(i);
  return element("li", {}, button);
}

function showPinned() {
  const box = $("pinned"), i = pinned;
  box.hidden = i === NONE;
  $("guide").open = i === NONE && $("guide").open;
  if (i === NONE) return;
  const { lane, at, cause, link } = story, { band, numbers } = lane[i] < story.lanes.length ? stateAt(lane[i], at[i]) : {};
  const rows = [["at", clock(at[i])], ["lane", laneName(lane[i])], ["status", band && bandText(band)], ["numbers", numbers],
    ["record", i.toLocaleString("en")]];
  const effects = [];
  for (let to = story.firstByLink[i]; to !== NONE; to = story.nextByLink[to]) effects.push(to);
  for (let to = story.firstByCause[i]; to !== NONE; to = story.nextByCause[to]) if (link[to] !== i) effects.push(to);
  const causes = [...new Set([link[i], cause[i]])].filter((from) => from !== NONE);
  const list = (title, of) => {
    if (!of.length) return [];
    const items = of.slice(0, 15).map(eventButton);
    if (of.length > 15) items.push(element("li", { className: "more", textContent: `and ${of.length - 15} more` }));
    return [element("h3", { textContent: title }), element("ol", { className: "events" }, ...items)];
  };
  const button = (text, act) => element("button", { type: "button", textContent: text, onclick: act });
  const around = () => { showPast(NONE, false); glide(at[i] - 1e7, at[i] + 1e7); };
  box.replaceChildren(element("h2", { textContent: sentence(i) }),
    ...facts(i).map((text, n) => element(n ? "p" : "pre", { textContent: text })),
    element("dl", {}, ...rows.filter(([, value]) => value).flatMap(([name, value]) => [element("dt", { textContent: name }),
      element("dd", { textContent: value })])),
    ...list("Led to it", causes), ...list("It led to", effects),
    element("div", { className: "buttons" }, button("what led to it", () => showPast(i, true)),
      button("what is around it", around), button("let go", () => pin(NONE))));
}

let listTimer = 0;
function afterFrame() {
  clearTimeout(listTimer);
  listTimer = setTimeout(showEvents, 160);
  const messages = `${drawn.inView.toLocaleString("en")} ${drawn.inView === 1 ? "message" : "messages"}`;
  const parts = [`${clock(Math.max(0, view.from))} to ${clock(Math.min(view.to, story.end))}`, messages];
  if (pastOf !== NONE) {
    parts.push(`only the ${pastSize.toLocaleString("en")} of ${story.count.toLocaleString("en")} records that led to ${
      pastOf === breachRecord ? "the violation" : `“${sentence(pastOf)}”`}, and what was lost on the way`);
  } else if (!drawn.asArrows.every(Boolean)) {
    parts.push("heights above a lane are the messages that it sent: zoom in to see each");
  }
  $("status").textContent = parts.join(" · ");
  $("past").hidden = breachRecord === NONE && pinned === NONE && pastOf === NONE;
}

function showEvents() {
  if (!$("events").open) return;
  const items = [], most = 250;
  let i = firstAtLeast(story.at, view.from);
  for (; i < story.count && story.at[i] <= view.to && items.length < most; i++) if (shown[i]) items.push(eventButton(i));
  if (items.length === most) items.push(element("li", { className: "more", textContent: "zoom in for more" }));
  $("events").querySelector("ol").replaceChildren(...items);
}

const tip = element("div", { id: "tip", hidden: true });

function connect() {
  document.body.append(tip);
  $("copy").onclick = () => {
    // The clipboard's newer interface is not there for every page that comes from a file.
    getSelection().selectAllChildren($("repeat").querySelector("code"));
    if (document.execCommand("copy")) $("copy").textContent = "copied";
  };
  $("to-violation").onclick = () => {
    if (pastOf !== breachRecord) showPast(NONE, false);
    if (breachRecord !== NONE) pin(breachRecord);
    glide(...breachWindow());
  };
  $("past").onclick = togglePast;
  $("whole").onclick = lookAtAll;
  $("fit").onclick = lookAtShown;
  $("nearer").onclick = () => zoom(0.6, (view.from + view.to) / 2);
  $("farther").onclick = () => zoom(1.6, (view.from + view.to) / 2);
  let typing = 0;
  $("filter").oninput = () => { clearTimeout(typing); typing = setTimeout(applyFilter, 140); };
  FAMILIES.forEach(({ name, colour }, family) => {
    const box = element("input", { type: "checkbox", checked: true, onchange: () => { enabled[family] = box.checked; redraw(); } });
    const chip = element("label", {}, box, element("i"), name);
    chip.style.setProperty("--family", `var(${colour})`);
    $("families").append(chip);
  });
  $("counters").hidden = !story.counters.length;
  $("counters").querySelector("tbody").append(...story.counters.map(([name, count]) => element("tr", {},
    element("td", { textContent: name }), element("td", { textContent: count.toLocaleString("en") }))));
  $("events").ontoggle = showEvents;
  addEventListener("resize", layOut);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", layOut);
  connectMouse($("overlay"));
  connectOverview($("overview"));
  addEventListener("keydown", onKey);
}

function connectMouse(surface) {
  const fingers = new Map();
  let travelled = 0;
  const at = (event) => {
    const box = surface.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  surface.onwheel = (event) => {
    event.preventDefault();
    const unit = event.deltaMode === 1 ? 30 : 1;
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) move(((event.deltaX || event.deltaY) * unit) / 1200);
    else zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY * unit * 0.0022))), timeOf(Math.max(GUTTER, at(event).x)));
  };
  surface.onpointerdown = (event) => {
    surface.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, at(event));
    travelled = 0;
  };
  surface.onpointermove = (event) => {
    const now = at(event), before = fingers.get(event.pointerId);
    if (!before) return hover(event, now);
    fingers.set(event.pointerId, now);
    travelled += Math.abs(now.x - before.x) + Math.abs(now.y - before.y);
    if (travelled < 4) return;
    surface.className = "dragging";
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    const apart = (one) => Math.max(12, Math.abs(one.x - other.x));
    if (other) zoom(apart(before) / apart(now), timeOf((now.x + other.x) / 2));
    else move((before.x - now.x) / (place.right - GUTTER));
  };
  surface.onpointerup = surface.onpointercancel = (event) => {
    fingers.delete(event.pointerId);
    surface.className = "";
    if (event.type === "pointerup" && travelled < 4) pin(find(at(event).x, at(event).y).record);
  };
  surface.onpointerleave = () => { hovered = NONE; tip.hidden = true; drawOverlay(); };
  surface.ondblclick = (event) => zoom(0.3, timeOf(at(event).x));
  const hover = (event, { x, y }) => {
    const found = find(x, y), changed = hovered !== found.record;
    hovered = found.record;
    surface.className = found.record === NONE ? "" : "on-event";
    showTip(event, found);
    if (changed) drawOverlay();
  };
}

// Dragging moves the window, or one of its edges; elsewhere a click brings it there.
function connectOverview(strip) {
  let held = null;
  const timeAt = (event) => {
    const x = event.clientX - strip.getBoundingClientRect().left - 1;
    return ((x - GUTTER) / (place.right - GUTTER)) * story.end;
  };
  strip.onpointerdown = (event) => {
    const box = $("window").getBoundingClientRect(), width = view.to - view.from, time = timeAt(event);
    strip.setPointerCapture(event.pointerId);
    if (event.clientX < box.left - 5 || event.clientX > box.right + 5) look(time - width / 2, time + width / 2);
    const near = (x) => box.width >= 18 && Math.abs(event.clientX - x) < 6;
    const edge = near(box.left) ? "from" : near(box.right) ? "to" : "";
    held = { edge, time, from: view.from, to: view.to };
  };
  strip.onpointermove = (event) => {
    if (!held) return;
    const shift = timeAt(event) - held.time;
    const from = held.edge === "to" ? held.from : held.from + shift, to = held.edge === "from" ? held.to : held.to + shift;
    look(Math.min(from, to), Math.max(from, to));
  };
  strip.onpointerup = strip.onpointercancel = () => { held = null; };
  strip.ondblclick = lookAtAll;
}

function onKey(event) {
  if (event.target.matches?.("input[type=search]") || event.ctrlKey || event.metaKey || event.altKey) return;
  const arrow = (direction) => (event.shiftKey ? move(direction * 0.15) : stepEvent(direction));
  const middle = (view.from + view.to) / 2;
  const actions = {
    ArrowLeft: () => arrow(-1), ArrowRight: () => arrow(1), n: () => stepFault(1), p: () => stepFault(-1), c: togglePast,
    "+": () => zoom(0.6, middle), "=": () => zoom(0.6, middle), "-": () => zoom(1.6, middle), 0: lookAtAll, f: lookAtShown,
    v: () => { if (story.violation) $("to-violation").click(); }, Escape: () => pin(NONE),
  };
  if (!Object.hasOwn(actions, event.key)) return;
  event.preventDefault();
  actions[event.key]();
}

// For tests: how long a frame takes, with all of its pixels, over a scripted flight through the run.
function measure() {
  const middle = (story.violation?.at ?? story.end) / 2, times = [];
  showPast(NONE, false);
  for (let step = 0; step < 60; step++) {
    const width = story.end * 0.86 ** Math.min(step, 59 - step, 24), shift = (step - 30) * width * 0.01;
    const begun = performance.now();
    look(middle + shift - width / 2, middle + shift + width / 2);
    draw();
    plot.getImageData(0, 0, 1, 1);
    times.push(performance.now() - begun);
  }
  times.sort((one, other) => one - other);
  document.body.dataset.frameMedian = times[30].toFixed(1);
  document.body.dataset.frameWorst = times[59].toFixed(1);
}

window.__vsr = {
  eventCount: story.count, view, look, pin, showPast,
  frameTimes: () => [...frameTimes.subarray(0, Math.min(frames, frameTimes.length))],
};

function start() {
  $("title").textContent = document.title = story.title;
  $("verdict").textContent = story.verdict;
  $("verdict").className = story.violation || story.verdict !== "pass" ? "" : "pass";
  $("repeat").querySelector("code").textContent = story.repeat;
  $("repeat").hidden = !story.repeat;
  $("to-violation").hidden = !story.violation;
  layOut();
  connect();
  if (breachRecord !== NONE) {
    showPast(breachRecord, false);
    if (pastSize <= 8) showPast(NONE, false);
  }
  look(...(story.violation ? breachWindow() : [0, story.end]));
  draw();
  if (location.hash === "#bench") measure();
  document.body.dataset.drawn = story.count;
}

start();
