// How the diagram is drawn. A frame looks only at what is in view, and draws messages as arrows or, where they are too many, as
// heights.

const GUTTER = 90, RIGHT = 12, BAND = 30, AXIS = 22, COLUMN = 4, MOST_ARROWS = 2500;
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
const HUES = [217, 142, 275, 190, 320, 95, 245, 168];
const LINES = ["#2a5bd7", "#1e8a4c", "#c05a1c", "#8e44ad", "#0e8a9b", "#c2286b", "#86760a"];
// Cells of this size, in pixels, keep labels apart.
const CELL_WIDTH = 6, CELL_HEIGHT = 11;

const plot = $("plot").getContext("2d"), overlay = $("overlay").getContext("2d"), map = $("map").getContext("2d");
const place = {
  width: 0, height: 0, right: 0, laneY: [], arrowY: [], above: [], faultsY: 8, lanesBottom: 0, bannerY: 0, chartTop: 0, chartBottom: 0,
};
const replicas = story.lanes.flatMap(([, replica], lane) => (replica ? [lane] : []));
const clients = story.lanes.flatMap(([, replica], lane) => (replica ? [] : [lane]));
const drawn = {
  size: 0, arrows: new Int32Array(MOST_ARROWS), asArrows: FAMILIES.map(() => true), inView: 0,
  heights: new Float32Array(0), tops: new Float32Array(0), columns: 0,
};
const counts = new Int32Array(FAMILIES.length);
const frameTimes = new Float64Array(240);
let frames = 0, waiting = false, ink = {}, hatch = null, taken = new Uint8Array(0), takenWidth = 0;

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  const names = ["paper", "rule", "grid", "ink", "faint", "lane", "request", "lost", "bar", "fault", "fault-ink", "good", "amber",
    "paused", "view-change"];
  ink = Object.fromEntries(names.map((name) => [name, of(`--${name}`)]));
  ink.families = FAMILIES.map(({ colour }) => of(colour));
  ink.views = HUES.map((hue) => `hsl(${hue} 85% ${of("--tint-light")} / ${of("--tint")})`);
  ink.strongViews = HUES.map((hue) => `hsl(${hue} 75% ${of("--tint-light")} / ${of("--tint-strong")})`);
  const tile = document.createElement("canvas"), pen = tile.getContext("2d");
  tile.width = tile.height = 7;
  pen.strokeStyle = of("--hatch");
  pen.lineWidth = 1.2;
  pen.beginPath();
  for (const shift of [-7, 0, 7]) { pen.moveTo(shift, 7); pen.lineTo(shift + 7, 0); }
  pen.stroke();
  hatch = plot.createPattern(tile, "repeat");
}

function layOut() {
  readColours();
  // What the page leaves free goes to the lanes and the chart.
  const lanes = clients.reduce((sum, lane) => sum + operations[lane].rows * 20 + 14, 0) + faults.rows * 19;
  const free = innerHeight - $("stage").offsetTop - lanes - 140;
  const pitch = Math.min(Math.max(88, (free * 0.68) / Math.max(1, replicas.length)), 128);
  place.width = Math.max(500, $("diagram").clientWidth);
  place.right = place.width - RIGHT;
  let y = place.faultsY + faults.rows * 19 + 22;
  for (const lane of clients) {
    const height = operations[lane].rows * 20 + (clients.length > 6 ? 6 : 14);
    place.laneY[lane] = y + height / 2;
    place.arrowY[lane] = place.laneY[lane] + operations[lane].rows * 10;
    place.above[lane] = 8;
    y += height;
  }
  for (const lane of replicas) {
    place.laneY[lane] = place.arrowY[lane] = y + pitch - BAND / 2 - 8;
    place.above[lane] = pitch - BAND - 14;
    y += pitch;
  }
  place.lanesBottom = y + 6;
  place.bannerY = y + 20;
  place.chartTop = y + 38;
  place.chartBottom = place.chartTop + Math.min(Math.max(130, free - pitch * replicas.length), 260);
  place.height = place.chartBottom + AXIS;
  for (const pen of [plot, overlay]) size(pen, place.width, place.height);
  $("stage").style.height = `${place.height}px`;
  size(map, place.width - 2, 60);
  drawn.columns = Math.ceil((place.right - GUTTER) / COLUMN);
  drawn.heights = new Float32Array(story.lanes.length * FAMILIES.length * drawn.columns);
  drawn.tops = new Float32Array(drawn.columns);
  takenWidth = Math.ceil(place.width / CELL_WIDTH);
  taken = new Uint8Array(takenWidth * Math.ceil(place.height / CELL_HEIGHT));
  drawMap();
  redraw();
}

function size(pen, width, height) {
  const ratio = devicePixelRatio || 1, { canvas } = pen;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
}

const xOf = (time) => GUTTER + ((time - view.from) / (view.to - view.from)) * (place.right - GUTTER);
const timeOf = (x) => view.from + ((x - GUTTER) / (place.right - GUTTER)) * (view.to - view.from);
const clamped = (time) => Math.min(Math.max(xOf(time), GUTTER), place.right);

function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(draw);
}

function draw() {
  const begun = performance.now();
  waiting = false;
  taken.fill(0);
  plot.fillStyle = ink.paper;
  plot.fillRect(0, 0, place.width, place.height);
  plot.save();
  plot.beginPath();
  plot.rect(GUTTER, 0, place.right - GUTTER, place.height);
  plot.clip();
  drawTimes();
  drawFaults();
  replicas.forEach(drawBands);
  clients.forEach(drawOperations);
  chooseArrows();
  drawHeights();
  replicas.forEach(nameBands);
  drawArrows();
  drawNotes();
  drawChart();
  drawBreach();
  plot.restore();
  drawNames();
  drawOverlay();
  placeWindow();
  frameTimes[frames++ % frameTimes.length] = performance.now() - begun;
  afterFrame();
}

// Text with a halo, unless another label is there already.
function label(text, x, y, colour, { font = 11, weight = "", force = false, halo = true } = {}) {
  const width = text.length * font * 0.56 + 4;
  const first = Math.max(0, Math.floor(x / CELL_WIDTH)), last = Math.min(takenWidth - 1, Math.floor((x + width) / CELL_WIDTH));
  const top = Math.floor((y - font + 2) / CELL_HEIGHT), bottom = Math.floor((y + 1) / CELL_HEIGHT);
  for (let row = top; row <= bottom && !force; row++) {
    for (let cell = first; cell <= last; cell++) if (taken[row * takenWidth + cell]) return false;
  }
  for (let row = top; row <= bottom; row++) taken.fill(1, row * takenWidth + first, row * takenWidth + last + 1);
  plot.font = `${weight} ${font}px ${FONT}`;
  if (halo) {
    plot.strokeStyle = ink.paper;
    plot.lineWidth = 3;
    plot.lineJoin = "round";
    plot.strokeText(text, x, y);
  }
  plot.fillStyle = colour;
  plot.fillText(text, x, y);
  return true;
}

// The part of a text that fits into a width.
function fitting(text, width, font = 11) {
  const most = Math.floor(width / (font * 0.56));
  return text.length <= most ? text : most < 4 ? "" : `${text.slice(0, most - 1)}…`;
}

function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= least * 0.999);
}

function drawTimes() {
  const step = niceStep((view.to - view.from) / Math.max(3, (place.right - GUTTER) / 115));
  const [unit, ns] = view.to >= 1e10 ? ["s", 1e9] : ["ms", 1e6];
  const digits = Math.max(0, -Math.floor(Math.log10(step / ns) + 1e-9));
  plot.font = `11px ${FONT}`;
  plot.textAlign = "center";
  for (let k = Math.max(0, Math.ceil(view.from / step)); k * step <= Math.min(view.to, story.end * 1.05); k++) {
    const x = Math.round(xOf(k * step)) + 0.5;
    plot.fillStyle = ink.grid;
    plot.fillRect(x - 0.5, place.faultsY, 1, place.chartBottom - place.faultsY);
    plot.fillStyle = ink.faint;
    const text = `${((k * step) / ns).toLocaleString("en", { minimumFractionDigits: digits })} ${unit}`, half = text.length * 3.4;
    plot.fillText(text, Math.min(Math.max(x, GUTTER + half), place.right - half), place.chartBottom + 16);
  }
  plot.textAlign = "left";
}

function drawFaults() {
  const glyphY = place.faultsY + faults.rows * 19 + 13;
  let after = -Infinity;
  for (let k = 0; k < faults.length; k++) {
    const fault = faults[k], x = xOf(fault.from);
    if (fault.from > view.to) break;
    if (!shown[fault.record] && pastOf === NONE) continue;
    if (fault.row !== NONE) {
      const left = Math.max(x, GUTTER), right = Math.min(xOf(fault.to), place.right), y = place.faultsY + fault.row * 19;
      if (right < left) continue;
      plot.fillStyle = ink.fault;
      plot.fillRect(left, y, Math.max(right - left, 2), 16);
      plot.strokeStyle = ink.lost;
      plot.lineWidth = 0.8;
      plot.strokeRect(left, y + 0.5, Math.max(right - left, 2), 15);
      label(fitting(fault.text, right - left - 8), left + 5, y + 12, ink["fault-ink"], { force: true, halo: false });
    } else if (x > GUTTER - 8 && x > after + 3) {
      after = x;
      const colour = fault.good ? ink.good : ink["fault-ink"];
      plot.fillStyle = colour;
      plot.fillRect(x - 0.5, glyphY + 3, 1, 5);
      const next = faults.slice(k + 1, k + 4).find((other) => other.row === NONE);
      const room = (next ? Math.min(xOf(next.from), place.right) : place.right) - x - 8;
      label(`${fault.glyph} ${fitting(fault.text, room - 16)}`, x - 4, glyphY, colour, { force: true });
    }
  }
}

function drawBands(lane) {
  const y = place.laneY[lane], top = y - BAND / 2;
  for (const band of bands[lane]) {
    if (band.to < view.from || band.from > view.to) continue;
    const left = clamped(band.from), width = Math.max(clamped(band.to) - left, 0.7);
    plot.fillStyle = [ink.views[band.view % HUES.length], ink.amber, ink.grid, ink.paused][band.state];
    plot.fillRect(left, top, width, BAND);
    if (band.state === DOWN) {
      plot.fillStyle = hatch;
      plot.fillRect(left, top, width, BAND);
    } else if (band.state === VIEW_CHANGE && width > 5) {
      plot.strokeStyle = ink["view-change"];
      plot.lineWidth = 1.2;
      plot.setLineDash([3, 2]);
      plot.strokeRect(left + 0.5, top + 0.5, width - 1, BAND - 1);
      plot.setLineDash([]);
    }
  }
  plot.fillStyle = ink.lane;
  plot.fillRect(clamped(0), y - 0.5, clamped(story.end) - clamped(0), 1);
}

// The name of each band above its beginning, or above where it comes into view.
function nameBands(lane) {
  for (const band of bands[lane]) {
    if (band.to < view.from || band.from > view.to) continue;
    const left = clamped(band.from), text = bandText(band), begins = xOf(band.from) >= GUTTER;
    if (clamped(band.to) - left < text.length * 6 + 4) continue;
    const colour = band.state === VIEW_CHANGE ? ink["view-change"] : begins ? ink.ink : ink.faint;
    label(text, left + 3, place.laneY[lane] - BAND / 2 - 4, colour, { force: true });
  }
}

function drawOperations(lane) {
  const list = operations[lane], top = place.laneY[lane] - list.rows * 10;
  plot.fillStyle = ink.grid;
  plot.fillRect(GUTTER, place.laneY[lane] - 0.5, place.right - GUTTER, 1);
  // What would cover the pixels of the one before in its row is left out.
  const covered = [-1, -1, -1];
  for (const operation of list) {
    if (operation.to < view.from || operation.from > view.to) continue;
    const left = Math.max(xOf(operation.from), GUTTER - 4), right = Math.min(xOf(operation.to), place.right + 4);
    const width = right - left;
    if (right < covered[operation.row] + 0.6) continue;
    covered[operation.row] = right;
    plot.globalAlpha = shown[operation.record] || shown[operation.heard] ? 1 : 0.45;
    plot.fillStyle = width > 4 ? ink.bar : ink.request;
    plot.fillRect(left, top + operation.row * 20 + 1, Math.max(width, 0.8), 18);
    if (width > 4) {
      plot.strokeStyle = ink.request;
      plot.lineWidth = 1;
      plot.strokeRect(left, top + operation.row * 20 + 1.5, width, 17);
      const text = fitting(operation.text + (operation.to === Infinity ? " … no answer" : ""), width - 8);
      if (text) label(text, left + 4, top + operation.row * 20 + 14, ink.request, { force: true, halo: false });
    }
  }
  plot.globalAlpha = 1;
}

const isVisible = (k) => shown[arrows.record[k]] && enabled[arrows.group[k]] && enabled[arrows.family[k]];

// Calls with each visible arrow that touches the window.
function eachInView(visit) {
  const first = firstAtLeast(arrows.end, view.from), beyond = firstAtLeast(arrows.end, view.to + arrows.reach);
  for (let k = first; k < beyond; k++) if (arrows.start[k] <= view.to && isVisible(k)) visit(k);
  for (const k of arrows.long) if (k >= beyond && arrows.start[k] <= view.to && isVisible(k)) visit(k);
}

// The rarest families are drawn as arrows, as long as there is room; the others are counted by column.
function chooseArrows() {
  const { heights, columns, asArrows } = drawn, { start, from, group } = arrows, perLane = FAMILIES.length * columns;
  counts.fill(0);
  heights.fill(0);
  eachInView((k) => { counts[group[k]]++; });
  drawn.inView = counts.reduce((sum, count) => sum + count, 0);
  let room = drawn.inView <= MOST_ARROWS ? MOST_ARROWS : MOST_ARROWS / 10;
  for (const family of [...counts.keys()].sort((one, other) => counts[one] - counts[other])) {
    asArrows[family] = counts[family] <= room;
    if (asArrows[family]) room -= counts[family];
  }
  drawn.size = 0;
  const scale = columns / (view.to - view.from);
  eachInView((k) => {
    if (asArrows[group[k]]) {
      drawn.arrows[drawn.size++] = k;
    } else {
      const column = Math.floor((start[k] - view.from) * scale);
      if (column >= 0 && column < columns) heights[from[k] * perLane + group[k] * columns + column]++;
    }
  });
}

function drawHeights() {
  const { heights, columns, asArrows, tops } = drawn, perLane = FAMILIES.length * columns;
  if (asArrows.every(Boolean)) return;
  for (const kind of [clients, replicas]) {
    let most = 6;
    for (const lane of kind) {
      for (let column = 0; column < columns; column++) {
        let sum = 0;
        for (let family = 0; family < FAMILIES.length; family++) sum += heights[lane * perLane + family * columns + column];
        most = Math.max(most, sum);
      }
    }
    for (const lane of kind) {
      const unit = place.above[lane] / most;
      tops.fill(place.laneY[lane] - (kind === replicas ? BAND / 2 : operations[lane].rows * 10));
      for (let family = 0; family < FAMILIES.length; family++) {
        if (asArrows[family]) continue;
        plot.fillStyle = ink.families[family];
        for (let column = 0; column < columns; column++) {
          const height = heights[lane * perLane + family * columns + column] * unit;
          if (height) plot.fillRect(GUTTER + column * COLUMN, tops[column] -= height, COLUMN - 0.5, height);
        }
      }
    }
  }
}

// The two ends of an arrow in pixels, cut to what can be seen; a lost one ends where it was lost, one still under way soon.
const ends = { x0: 0, y0: 0, x1: 0, y1: 0, seen: false, whole: false };
function findEnds(k) {
  const { from, to, start, end, group, record } = arrows, flying = story.what[record[k]] === SENT;
  let x0 = xOf(start[k]), y0 = place.arrowY[from[k]], x1 = xOf(end[k]), y1 = place.arrowY[to[k]];
  if (flying) { x1 = x0 + 14; y1 = y0 + (y1 - y0) * 0.4; }
  if (group[k] === LOST_FAMILY) {
    const part = /down/.test(textOf(record[k])) ? 0.9 : 0.62;
    x1 = x0 + (x1 - x0) * part;
    y1 = y0 + (y1 - y0) * part;
  }
  const low = GUTTER - 20, high = place.right + 20, slope = x1 > x0 ? (y1 - y0) / (x1 - x0) : 0;
  ends.whole = x1 <= high;
  if (x0 < low) { y0 += (low - x0) * slope; x0 = low; }
  if (x1 > high) { y1 -= (x1 - high) * slope; x1 = high; }
  ends.x0 = x0;
  ends.y0 = y0;
  ends.x1 = x1;
  ends.y1 = y1;
  ends.seen = x1 >= low && x0 <= high;
}

function drawArrows() {
  const { size, arrows: list } = drawn, { family, group, again, record } = arrows, crowded = size > 700;
  plot.globalAlpha = crowded ? 0.6 : 1;
  plot.lineWidth = crowded ? 0.8 : 1.3;
  const [PLAIN, AGAIN, FLYING] = [0, 1, 2];
  const styleOf = (k) => (story.what[record[k]] === SENT ? FLYING : again[k] ? AGAIN : PLAIN);
  for (let colour = 0; colour < LOST_FAMILY; colour++) {
    plot.strokeStyle = plot.fillStyle = ink.families[colour];
    for (const style of [PLAIN, AGAIN, FLYING]) {
      plot.setLineDash([[], [5, 3], [1.5, 3]][style]);
      plot.beginPath();
      for (let n = 0; n < size; n++) {
        const k = list[n];
        if (family[k] !== colour || styleOf(k) !== style) continue;
        findEnds(k);
        plot.moveTo(ends.x0, ends.y0);
        plot.lineTo(ends.x1, ends.y1);
      }
      plot.stroke();
    }
    plot.beginPath();
    for (let n = 0; n < size && size < 1500; n++) {
      const k = list[n];
      if (family[k] !== colour || group[k] === LOST_FAMILY || styleOf(k) === FLYING) continue;
      findEnds(k);
      if (ends.whole) addHead(plot, crowded ? 5 : 8);
    }
    plot.fill();
  }
  plot.setLineDash([]);
  plot.strokeStyle = ink.lost;
  plot.lineWidth = 1.6;
  plot.beginPath();
  for (let n = 0; n < size; n++) {
    if (group[list[n]] !== LOST_FAMILY) continue;
    findEnds(list[n]);
    const { x1: x, y1: y } = ends, arm = crowded ? 2.2 : 3.5;
    plot.moveTo(x - arm, y - arm); plot.lineTo(x + arm, y + arm);
    plot.moveTo(x - arm, y + arm); plot.lineTo(x + arm, y - arm);
  }
  plot.stroke();
  plot.globalAlpha = 1;
  if (size <= 260 && size === drawn.inView) for (let n = 0; n < size; n++) labelArrow(list[n]);
}

function addHead(pen, length) {
  const { x0, y0, x1, y1 } = ends, far = Math.hypot(x1 - x0, y1 - y0) || 1;
  const dx = ((x1 - x0) / far) * length, dy = ((y1 - y0) / far) * length;
  pen.moveTo(x1, y1);
  pen.lineTo(x1 - dx - dy * 0.36, y1 - dy + dx * 0.36);
  pen.lineTo(x1 - dx + dy * 0.36, y1 - dy - dx * 0.36);
}

function labelArrow(k) {
  findEnds(k);
  const { x0, y0, x1, y1 } = ends, text = shortLabel(arrows.sent[k]), colour = ink.families[arrows.family[k]];
  for (const part of [0.45, 0.6, 0.32, 0.75]) {
    const x = x0 + (x1 - x0) * part + 4, y = y0 + (y1 - y0) * part + 3;
    if (x > GUTTER && label(text, x, y, colour, { font: 10.5 })) return;
  }
}

function drawNotes() {
  const { at, lane } = story, inView = notes.filter((i) => shown[i] && at[i] >= view.from && at[i] <= view.to);
  for (const i of inView.length <= 200 ? inView : []) {
    const x = xOf(at[i]), y = place.laneY[lane[i]];
    plot.fillStyle = ink.ink;
    plot.fillRect(x - 1.5, y - 3, 3, 6);
    if (inView.length <= 60) label(textOf(i), x + 3, y + BAND / 2 + 11, ink.faint, { font: 10.5, weight: "italic" });
  }
}

function drawChart() {
  const { chartTop: top, chartBottom: bottom } = place;
  let low = Infinity, high = -Infinity;
  for (const lane of replicas) {
    const { at, head, commit } = levels[lane], last = firstAtLeast(at, view.to);
    for (let n = Math.max(0, firstAtLeast(at, view.from) - 1); n < last; n++) {
      low = Math.min(low, commit[n], head[n]);
      high = Math.max(high, head[n], commit[n]);
    }
  }
  if (low > high) [low, high] = [0, 1];
  const step = Math.max(1, niceStep((high - low + 1) / 6));
  low = Math.max(0, Math.floor(low / step) * step);
  high = Math.max(low + step, Math.ceil((high + 0.3) / step) * step);
  const yOf = (op) => bottom - 6 - ((op - low) / (high - low)) * (bottom - top - 12);
  place.ticks = { low, high, step, yOf };
  plot.fillStyle = ink.grid;
  for (let op = low; op <= high; op += step) plot.fillRect(GUTTER, yOf(op), place.right - GUTTER, 1);
  replicas.forEach((lane, n) => {
    const shift = (n - (replicas.length - 1) / 2) * 2;
    plot.fillStyle = LINES[n % LINES.length];
    drawSteps(levels[lane], levels[lane].head, 1, (op) => yOf(op) + shift);
    drawSteps(levels[lane], levels[lane].commit, 2.6, (op) => yOf(op) + shift);
  });
}

// A line of steps, made of rectangles; the steps within two pixels are one upright.
function drawSteps({ at }, values, width, yOf) {
  const first = Math.max(0, firstAtLeast(at, view.from) - 1), last = firstAtLeast(at, view.to);
  if (first >= last) return;
  let x = clamped(at[first]), y = yOf(values[first]), low = y, high = y;
  const advance = (nextX) => {
    if (high > low) plot.fillRect(x - width / 2, low - width / 2, width, high - low + width);
    plot.fillRect(x, y - width / 2, nextX - x, width);
    x = nextX;
    low = high = y;
  };
  for (let n = first + 1; n < last; n++) {
    const nextX = clamped(at[n]);
    if (nextX - x > 1.6) advance(nextX);
    y = yOf(values[n]);
    low = Math.min(low, y);
    high = Math.max(high, y);
  }
  advance(clamped(story.end));
}

function drawBreach() {
  const breach = story.violation;
  if (!breach || breach.at < view.from || breach.at > view.to) return;
  const x = xOf(breach.at), text = fitting(`✖ ${breach.checker}: ${breach.message}`, place.right - GUTTER - 20, 13);
  plot.fillStyle = ink.lost;
  plot.fillRect(x - 1, place.faultsY, 2, place.chartBottom - place.faultsY);
  plot.font = `bold 13px ${FONT}`;
  const width = plot.measureText(text).width;
  label(text, Math.max(GUTTER + 6, Math.min(x - width - 8, place.right - width - 8)), place.bannerY, ink.lost,
    { font: 13, weight: "bold", force: true });
}

function drawNames() {
  plot.fillStyle = ink.paper;
  plot.fillRect(0, 0, GUTTER, place.height);
  plot.fillRect(place.right, 0, RIGHT, place.height);
  const name = (text, y, colour = ink.ink, weight = "") => {
    plot.font = `${weight} 12px ${FONT}`;
    plot.fillStyle = colour;
    plot.fillText(fitting(text, GUTTER, 12), 4, y);
  };
  name("faults", place.faultsY + 13);
  for (const lane of clients.concat(replicas)) name(laneName(lane), place.laneY[lane] + 4, ink.ink, "bold");
  const { chartTop: top, ticks: { low, high, step, yOf } } = place;
  name("op (thin)", top - 16);
  name("commit (bold)", top - 1, ink.ink, "bold");
  replicas.slice(0, 8).forEach((lane, n) => name(`━ ${laneName(lane)}`, top + 20 + n * 16, LINES[n % LINES.length], "bold"));
  plot.font = `11px ${FONT}`;
  plot.fillStyle = ink.faint;
  plot.textAlign = "right";
  for (let op = low; op <= high; op += step) plot.fillText(op, GUTTER - 6, yOf(op) + 4);
  plot.textAlign = "left";
}

// What the mouse is on, what is pinned and what led to it, above the rest.
function drawOverlay() {
  overlay.clearRect(0, 0, place.width, place.height);
  overlay.save();
  overlay.beginPath();
  overlay.rect(GUTTER, 0, place.right - GUTTER, place.height);
  overlay.clip();
  for (const root of [hovered, pinned]) {
    if (root === NONE) continue;
    overlay.strokeStyle = overlay.fillStyle = ink.ink;
    overlay.globalAlpha = root === pinned ? 1 : 0.7;
    let i = root;
    for (let steps = 0; i !== NONE && steps < 60; steps++, i = story.link[i] !== NONE ? story.link[i] : story.cause[i]) {
      const k = story.what[i] === SENT && i !== root ? NONE : arrows.of[i];
      if (k === NONE) continue;
      findEnds(k);
      if (!ends.seen) continue;
      overlay.lineWidth = i === root ? 2.6 : 1.8;
      overlay.beginPath();
      overlay.moveTo(ends.x0, ends.y0);
      overlay.lineTo(ends.x1, ends.y1);
      overlay.stroke();
      overlay.beginPath();
      addHead(overlay, 9);
      overlay.fill();
    }
    const heights = story.what[root] <= LOST ? place.arrowY : place.laneY;
    let x = xOf(story.at[root]), y = heights[story.lane[root]] ?? place.faultsY + faults.rows * 19 + 9;
    if (story.what[root] === LOST && arrows.of[root] !== NONE) {
      findEnds(arrows.of[root]);
      x = ends.x1;
      y = ends.y1;
    }
    overlay.lineWidth = 2;
    overlay.beginPath();
    overlay.arc(x, y, 6, 0, 7);
    overlay.stroke();
  }
  overlay.restore();
}

// The whole run: a row for each replica's view, and how much happened.
function drawMap() {
  const width = place.width - 2, columns = Math.ceil((place.right - GUTTER) / 2), density = new Float32Array(columns);
  const x = (time) => GUTTER + (time / story.end) * (place.right - GUTTER);
  const row = Math.min(9, 34 / Math.max(1, replicas.length)), base = 58 - row * replicas.length;
  map.fillStyle = ink.paper;
  map.fillRect(0, 0, width, 60);
  for (let i = 0; i < story.count; i++) density[Math.min(columns - 1, Math.floor((story.at[i] / story.end) * columns))]++;
  const most = density.reduce((one, other) => Math.max(one, other), 1);
  map.fillStyle = ink.lane;
  density.forEach((many, column) => {
    const height = (many / most) * (base - 6);
    map.fillRect(GUTTER + column * 2, base - 3 - height, 1.6, height);
  });
  replicas.forEach((lane, n) => {
    for (const { from, to, view, state } of bands[lane]) {
      map.fillStyle = [ink.strongViews[view % HUES.length], ink["view-change"], ink.ink, ink.faint][state];
      map.fillRect(x(from), base + n * row, Math.max(x(to) - x(from), 0.8), row - 1.5);
    }
  });
  map.fillStyle = ink.lost;
  for (const { from, to, row } of faults) map.fillRect(x(from), base - 3, row === NONE ? 1 : Math.max(1, x(to) - x(from)), 2);
  if (story.violation) map.fillRect(x(story.violation.at) - 1, 0, 2, 60);
  map.fillStyle = ink.faint;
  map.font = `11.5px ${FONT}`;
  map.fillText("whole run", 4, base - 6);
  map.fillText(lasting(story.end), 4, base + 9);
}

function placeWindow() {
  const part = (time) => GUTTER + (Math.min(Math.max(time, 0), story.end) / story.end) * (place.right - GUTTER);
  const left = part(view.from), width = Math.max(part(view.to) - left, 4);
  $("window").style.transform = `translateX(${left - 1}px)`;
  $("window").style.width = `${width + 2}px`;
}
