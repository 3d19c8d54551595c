// The fleet on a map (Mercator). Land and generators are drawn once into a layer that is larger than the window;
// panning only moves the layer, until its edge comes into sight or something changes.

import { compact, LEVEL_NAMES } from './format.js';
import { mercator } from './store.js';
import { colours, fitCanvas } from './ui.js';

const MOST_SCALE = 2 ** 22;
const CLUSTER_CELL = 60;
const CLUSTER_FROM = 5;
const CLUSTER_SPACE = 50;
const CROWD = 3000;
const PIECE = 48;
const ROW_KEY = 2 ** 20;
const EARTH_METRES = 40075017;
const HIT_RADIUS = 12;
const FONT = '600 12px -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans Condensed", system-ui, sans-serif';
const SMALL_FONT = FONT.replace('600 12px', '11px');
const GRATICULES = [30, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002];
const BARS = [1, 2, 5].flatMap((one) => [0, 1, 2, 3, 4, 5, 6].map((power) => one * 10 ** power)).sort((a, b) => b - a);

let world = null;

/** The outline as paths whose unit is the whole world; those that are out of sight needn't be drawn. */
async function loadWorld() {
  if (world) return world;
  const data = await (await fetch('/assets/world.json')).json();
  const rings = data.land.map((line) => points(line, data.scale));
  const borders = data.borders.map((line) => points(line, data.scale));
  world = {
    land: rings.map((ring) => shape(ring, 0, ring.length, true)),
    coasts: rings.flatMap(pieces),
    borders: borders.flatMap(pieces),
  };
  return world;
}

function points(line, scale) {
  const made = new Float64Array(line.length);
  let lon = 0;
  let lat = 0;
  for (let place = 0; place < line.length; place += 2) {
    lon += line[place];
    lat += line[place + 1];
    made[place] = (lon / scale + 180) / 360;
    made[place + 1] = mercator(lat / scale);
  }
  return made;
}

function pieces(line) {
  const made = [];
  for (let from = 0; from < line.length - 2; from += PIECE) made.push(shape(line, from, Math.min(line.length, from + PIECE + 2), false));
  return made;
}

function shape(line, from, to, closed) {
  const made = { path: new Path2D(), left: 1, right: 0, top: 1, bottom: 0 };
  for (let place = from; place < to; place += 2) {
    const x = line[place];
    const y = line[place + 1];
    if (place > from) made.path.lineTo(x, y);
    else made.path.moveTo(x, y);
    made.left = Math.min(made.left, x);
    made.right = Math.max(made.right, x);
    made.top = Math.min(made.top, y);
    made.bottom = Math.max(made.bottom, y);
  }
  if (closed) made.path.closePath();
  return made;
}

const remembered = { x: 0.5, y: 0.36, scale: 0, fitted: false };

export class FleetMap {
  constructor(canvas, { onselect, onhover, onmove }) {
    Object.assign(this, { canvas, onselect, onhover, onmove });
    this.context = canvas.getContext('2d');
    this.layer = document.createElement('canvas');
    this.layerContext = this.layer.getContext('2d');
    this.landLayer = document.createElement('canvas');
    this.landContext = this.landLayer.getContext('2d');
    this.landStale = true;
    this.dots = document.createElement('canvas');
    this.dotsContext = this.dots.getContext('2d');
    this.pixels = null;
    this.drawnAt = { x: 0, y: 0, scale: 0 };
    this.view = remembered;
    this.fleet = null;
    this.fleetVersion = -1;
    this.clustering = true;
    this.selected = null;
    this.cells = new Map();
    this.clusters = [];
    this.loose = new Uint32Array(0);
    this.looseCount = 0;
    this.stale = true;
    this.scheduled = 0;
    this.frames = new Float64Array(256);
    this.frameCount = 0;
    this.movedAt = -Infinity;
    this.sprites = new Map();
    this.frame = () => this.draw();
    this.listen();
    loadWorld().then(() => this.redrawLand()).catch(() => {});
  }

  listen() {
    const { canvas } = this;
    this.observer = new ResizeObserver(() => this.refresh());
    this.observer.observe(canvas);
    this.themed = () => {
      this.sprites.clear();
      this.redrawLand();
    };
    window.addEventListener('genwatch-theme', this.themed);
    const pointers = new Map();
    let moved = 0;
    let spread = 0;
    canvas.addEventListener('pointerdown', (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
      moved = 0;
      spread = 0;
    });
    canvas.addEventListener('pointermove', (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) {
        this.hover(event.offsetX, event.offsetY);
        return;
      }
      const dx = event.offsetX - before[0];
      const dy = event.offsetY - before[1];
      moved += Math.abs(dx) + Math.abs(dy);
      before[0] = event.offsetX;
      before[1] = event.offsetY;
      this.pan(-dx / pointers.size, -dy / pointers.size);
      if (pointers.size === 2) {
        const [[ax, ay], [bx, by]] = pointers.values();
        const distance = Math.hypot(ax - bx, ay - by);
        if (spread) this.zoom(distance / spread, (ax + bx) / 2, (ay + by) / 2);
        spread = distance;
      }
    });
    const release = (event) => {
      const held = pointers.delete(event.pointerId);
      spread = 0;
      if (held && event.type === 'pointerup' && moved < 5) this.press(event.offsetX, event.offsetY);
    };
    canvas.addEventListener('pointerup', release);
    canvas.addEventListener('pointercancel', release);
    canvas.addEventListener('pointerleave', () => this.onhover(null));
    canvas.addEventListener('wheel', (event) => {
      event.preventDefault();
      this.zoom(2 ** (-event.deltaY / (event.deltaMode ? 12 : 300)), event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener('dblclick', (event) => this.zoom(2, event.offsetX, event.offsetY));
    canvas.addEventListener('keydown', (event) => this.key(event));
  }

  key(event) {
    const step = event.shiftKey ? 240 : 80;
    const actions = {
      ArrowLeft: () => this.pan(-step, 0),
      ArrowRight: () => this.pan(step, 0),
      ArrowUp: () => this.pan(0, -step),
      ArrowDown: () => this.pan(0, step),
      '+': () => this.zoom(1.5),
      '=': () => this.zoom(1.5),
      '-': () => this.zoom(1 / 1.5),
      0: () => this.fit(),
    };
    if (!actions[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    actions[event.key]();
  }

  destroy() {
    this.observer.disconnect();
    window.removeEventListener('genwatch-theme', this.themed);
    cancelAnimationFrame(this.scheduled);
  }

  show(fleet) {
    this.fleet = fleet;
    if (!this.view.fitted && fleet.size) this.fit();
    this.refresh();
  }

  select(id) {
    this.selected = id;
    this.refresh();
  }

  setClustering(wanted) {
    this.clustering = wanted;
    this.refresh();
  }

  refresh() {
    this.stale = true;
    this.schedule();
  }

  redrawLand() {
    this.landStale = true;
    this.refresh();
  }

  schedule() {
    if (!this.scheduled) this.scheduled = requestAnimationFrame(this.frame);
  }

  get width() {
    return this.canvas.clientWidth;
  }

  get height() {
    return this.canvas.clientHeight;
  }

  leastScale() {
    return Math.max(this.width, 256);
  }

  pan(dx, dy) {
    this.onhover(null);
    this.movedAt = performance.now();
    this.view.x += dx / this.view.scale;
    this.view.y += dy / this.view.scale;
    this.keepInside();
    this.schedule();
  }

  zoom(factor, px = this.width / 2, py = this.height / 2) {
    const { view } = this;
    this.onhover(null);
    const before = view.scale;
    view.scale = Math.max(this.leastScale(), Math.min(MOST_SCALE, before * factor));
    const shift = 1 / before - 1 / view.scale;
    view.x += (px - this.width / 2) * shift;
    view.y += (py - this.height / 2) * shift;
    this.keepInside();
    this.refresh();
  }

  keepInside() {
    const { view } = this;
    const halfWidth = Math.min(0.5, this.width / 2 / view.scale);
    const halfHeight = Math.min(0.5, this.height / 2 / view.scale);
    view.x = Math.max(halfWidth, Math.min(1 - halfWidth, view.x));
    view.y = Math.max(halfHeight, Math.min(1 - halfHeight, view.y));
  }

  /** Shows the whole fleet, or one place of it closely. */
  fit(id = null) {
    const { fleet, view } = this;
    const place = id === null ? undefined : fleet?.index.get(id);
    if (place !== undefined && Number.isFinite(fleet.x[place])) {
      Object.assign(view, { x: fleet.x[place], y: fleet.y[place], scale: Math.max(view.scale, 2 ** 17) });
    } else {
      const box = bounds(fleet);
      if (!box) return;
      const scale = Math.min((this.width * 0.86) / Math.max(1e-6, box.right - box.left), (this.height * 0.8) / Math.max(1e-6, box.bottom - box.top));
      Object.assign(view, { x: (box.left + box.right) / 2, y: (box.top + box.bottom) / 2, scale: Math.max(this.leastScale(), Math.min(2 ** 15, scale)) });
    }
    view.fitted = true;
    this.keepInside();
    this.refresh();
  }

  /** Whether a generator is in sight. */
  sees(place) {
    const { fleet, view } = this;
    return Math.abs(fleet.x[place] - view.x) * view.scale <= this.width / 2 && Math.abs(fleet.y[place] - view.y) * view.scale <= this.height / 2;
  }

  draw() {
    this.scheduled = 0;
    const { width, height, context, view } = this;
    if (width < 20 || height < 20) return;
    if (!(view.scale >= this.leastScale())) {
      view.scale = this.leastScale();
      this.keepInside();
    }
    if (fitCanvas(this.canvas, context, width, height)) this.stale = true;
    const margin = Math.round(Math.min(width, height) * 0.35);
    const dx = (this.drawnAt.x - view.x) * view.scale;
    const dy = (this.drawnAt.y - view.y) * view.scale;
    const moved = this.landStale || this.drawnAt.scale !== view.scale || Math.abs(dx) > margin || Math.abs(dy) > margin;
    if (this.stale || moved) {
      this.landStale = moved || dx !== 0 || dy !== 0;
      this.drawLayer(width + margin * 2, height + margin * 2);
      this.drawnAt.x = view.x;
      this.drawnAt.y = view.y;
      this.drawnAt.scale = view.scale;
      this.stale = false;
      this.landStale = false;
      this.blit(-margin, -margin, width + margin * 2, height + margin * 2);
    } else {
      this.blit(dx - margin, dy - margin, width + margin * 2, height + margin * 2);
    }
    this.drawScaleBar(width, height);
    this.frames[this.frameCount % this.frames.length] = performance.now();
    this.frameCount += 1;
    this.onmove();
  }

  blit(x, y, width, height) {
    const scale = this.canvas.width / this.width;
    this.context.fillStyle = colours().water;
    this.context.fillRect(0, 0, this.width, this.height);
    this.context.drawImage(this.layer, Math.round(x * scale) / scale, Math.round(y * scale) / scale, width, height);
  }

  drawLayer(width, height) {
    const context = this.layerContext;
    fitCanvas(this.layer, context, width, height);
    const { view } = this;
    const left = view.x * view.scale - width / 2;
    const top = view.y * view.scale - height / 2;
    if (fitCanvas(this.landLayer, this.landContext, width, height) || this.landStale) this.drawLand(this.landContext, width, height, left, top);
    context.drawImage(this.landLayer, 0, 0, width, height);
    if (!this.fleet) return;
    this.group();
    this.drawPoints(context, width, height, left, top);
    this.drawClusters(context, width, height, left, top);
    this.drawSelected(context, left, top);
  }

  drawLand(context, width, height, left, top) {
    const palette = colours();
    const { scale } = this.view;
    context.fillStyle = palette.water;
    context.fillRect(0, 0, width, height);
    const device = this.landLayer.width / width;
    if (world) {
      context.setTransform(scale * device, 0, 0, scale * device, -left * device, -top * device);
      const window = { left: left / scale, right: (left + width) / scale, top: top / scale, bottom: (top + height) / scale };
      context.fillStyle = palette.land;
      for (const ring of world.land) if (inSight(ring, window)) context.fill(ring.path);
      context.lineWidth = 1 / scale;
      context.strokeStyle = palette.coast;
      for (const piece of world.coasts) if (inSight(piece, window)) context.stroke(piece.path);
      context.lineWidth = 0.8 / scale;
      context.strokeStyle = palette['land-border'];
      for (const piece of world.borders) if (inSight(piece, window)) context.stroke(piece.path);
      context.setTransform(device, 0, 0, device, 0, 0);
      // Below the last latitude of Mercator is only Antarctica.
      const end = scale - top - 2;
      context.fillStyle = palette.land;
      if (end < height) context.fillRect(0, end, width, height - end);
    }
    this.drawGraticule(context, width, height, left, top);
  }

  drawGraticule(context, width, height, left, top) {
    const palette = colours();
    const { scale } = this.view;
    const degrees = GRATICULES.find((one) => (one / 360) * scale < 190) ?? GRATICULES.at(-1);
    const decimals = degrees < 0.01 ? 3 : degrees < 0.1 ? 2 : degrees < 1 ? 1 : 0;
    context.strokeStyle = palette.graticule;
    context.fillStyle = palette['map-text'];
    context.font = SMALL_FONT;
    context.lineWidth = 1;
    context.textAlign = 'left';
    context.textBaseline = 'alphabetic';
    context.beginPath();
    const labelled = scale > 4000;
    const west = Math.ceil((Math.max(0, left / scale) * 360 - 180) / degrees);
    for (let step = west; ; step += 1) {
      const lon = step * degrees;
      const x = Math.round(((lon + 180) / 360) * scale - left) + 0.5;
      if (x > width || lon > 180) break;
      context.moveTo(x, 0);
      context.lineTo(x, height);
      if (labelled) for (let y = 140; y < height; y += 420) context.fillText(`${Math.abs(lon).toFixed(decimals)}° ${lon < 0 ? 'W' : 'E'}`, x + 4, y);
    }
    const south = latitude(Math.min(1, (top + height) / scale));
    for (let step = Math.ceil(south / degrees); ; step += 1) {
      const lat = step * degrees;
      if (lat > 85) break;
      const y = Math.round(mercator(lat) * scale - top) + 0.5;
      if (y < 0) break;
      context.moveTo(0, y);
      context.lineTo(width, y);
      if (labelled) for (let x = 260; x < width; x += 620) context.fillText(`${Math.abs(lat).toFixed(decimals)}° ${lat < 0 ? 'S' : 'N'}`, x, y - 4);
    }
    context.stroke();
  }

  /** Puts the generators into the cells of a grid that is fixed to the world; a crowded cell becomes a cluster. */
  group() {
    const { fleet, view } = this;
    if (this.grouped && this.grouped.version === fleet.version && this.grouped.fleet === fleet && this.grouped.scale === view.scale && this.grouped.clustering === this.clustering) return;
    this.grouped = { version: fleet.version, fleet, scale: view.scale, clustering: this.clustering };
    if (this.loose.length < fleet.size) this.loose = new Uint32Array(Math.max(1024, fleet.size * 2));
    this.looseCount = 0;
    this.clusters.length = 0;
    const clusters = this.clustering && view.scale < MOST_SCALE / 2;
    if (!clusters) {
      for (let place = 0; place < fleet.size; place += 1) this.loose[this.looseCount++] = place;
      return;
    }
    const cells = this.cells;
    cells.clear();
    const perCell = view.scale / CLUSTER_CELL;
    const { x, y, level } = fleet;
    for (let place = 0; place < fleet.size; place += 1) {
      if (!(x[place] >= 0)) continue;
      const key = Math.floor(y[place] * perCell) * ROW_KEY + Math.floor(x[place] * perCell);
      let cell = cells.get(key);
      if (!cell) {
        cell = { key, count: 0, x: 0, y: 0, levels: [0, 0, 0, 0], absorbed: false };
        cells.set(key, cell);
      }
      cell.count += 1;
      cell.x += x[place];
      cell.y += y[place];
      cell.levels[level[place]] += 1;
    }
    for (let place = 0; place < fleet.size; place += 1) {
      const cell = cells.get(Math.floor(y[place] * perCell) * ROW_KEY + Math.floor(x[place] * perCell));
      if (cell && cell.count < CLUSTER_FROM) this.loose[this.looseCount++] = place;
    }
    const crowded = [...cells.values()].filter((cell) => cell.count >= CLUSTER_FROM).sort((a, b) => b.count - a.count);
    for (const cell of crowded) {
      if (cell.absorbed) continue;
      this.absorbNeighbours(cell);
      this.clusters.push({ x: cell.x / cell.count, y: cell.y / cell.count, count: cell.count, levels: cell.levels, radius: 12 + Math.min(12, Math.log10(cell.count) * 4), text: compact(cell.count) });
    }
  }

  /** A crowded cell takes in its neighbours whose clusters would cover its own. */
  absorbNeighbours(cell) {
    cell.absorbed = true;
    for (let row = -1; row <= 1; row += 1) {
      for (let column = -1; column <= 1; column += 1) {
        const other = this.cells.get(cell.key + row * ROW_KEY + column);
        if (!other || other.absorbed || other.count < CLUSTER_FROM) continue;
        const distance = Math.hypot(other.x / other.count - cell.x / cell.count, other.y / other.count - cell.y / cell.count) * this.view.scale;
        if (distance > CLUSTER_SPACE) continue;
        other.absorbed = true;
        cell.count += other.count;
        cell.x += other.x;
        cell.y += other.y;
        other.levels.forEach((number, wanted) => { cell.levels[wanted] += number; });
      }
    }
  }

  drawPoints(context, width, height, left, top) {
    const { fleet, loose, looseCount } = this;
    const { scale } = this.view;
    if (looseCount > CROWD) {
      this.stampPoints(context, width, height, left, top);
      return;
    }
    for (let wanted = 0; wanted < 4; wanted += 1) {
      const sprite = this.sprite(wanted, false);
      const half = sprite.size / 2;
      for (let order = 0; order < looseCount; order += 1) {
        const place = loose[order];
        if (fleet.level[place] !== wanted) continue;
        const x = fleet.x[place] * scale - left;
        const y = fleet.y[place] * scale - top;
        if (!(x > -10 && y > -10 && x < width + 10 && y < height + 10)) continue;
        context.drawImage(sprite.image, x - half, y - half, sprite.size, sprite.size);
      }
    }
  }

  /** Very many marks as pixels, which is quicker than drawing each. */
  stampPoints(context, width, height, left, top) {
    const { fleet, loose, looseCount, dots } = this;
    const device = this.layer.width / width;
    if (!this.pixels || dots.width !== this.layer.width || dots.height !== this.layer.height) {
      dots.width = this.layer.width;
      dots.height = this.layer.height;
      this.image = this.dotsContext.createImageData(dots.width, dots.height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    const { pixels } = this;
    const across = dots.width;
    const scale = this.view.scale * device;
    pixels.fill(0);
    for (let wanted = 0; wanted < 4; wanted += 1) {
      const { shifts, colours: stamp, reach } = this.stamp(wanted, device);
      for (let order = 0; order < looseCount; order += 1) {
        const place = loose[order];
        if (fleet.level[place] !== wanted) continue;
        const x = Math.round(fleet.x[place] * scale - left * device);
        const y = Math.round(fleet.y[place] * scale - top * device);
        if (!(x >= reach && y >= reach && x < across - reach && y < dots.height - reach)) continue;
        const middle = y * across + x;
        for (let pixel = 0; pixel < shifts.length; pixel += 1) pixels[middle + shifts[pixel]] = stamp[pixel];
      }
    }
    this.dotsContext.putImageData(this.image, 0, 0);
    context.drawImage(dots, 0, 0, width, height);
  }

  /** The pixels of a small mark, as distances from its middle in the rows of the layer. */
  stamp(wanted, device) {
    const key = `stamp${wanted}/${device}/${this.dots.width}`;
    if (this.sprites.has(key)) return this.sprites.get(key);
    const { image, size } = this.sprite(wanted, true);
    const reach = Math.ceil((size * device) / 2) + 1;
    const side = reach * 2;
    const canvas = document.createElement('canvas');
    canvas.width = side;
    canvas.height = side;
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(image, reach - (size * device) / 2, reach - (size * device) / 2, size * device, size * device);
    const drawn = new Uint32Array(context.getImageData(0, 0, side, side).data.buffer);
    const shifts = [];
    const colour = [];
    drawn.forEach((pixel, place) => {
      if (pixel >>> 24 < 120) return;
      shifts.push((Math.floor(place / side) - reach) * this.dots.width + (place % side) - reach);
      colour.push((pixel | 0xff000000) >>> 0);
    });
    const made = { shifts: Int32Array.from(shifts), colours: Uint32Array.from(colour), reach };
    this.sprites.set(key, made);
    return made;
  }

  /** A generator's mark by severity: each level has its own shape. */
  sprite(wanted, small) {
    const key = `${wanted}${small}`;
    if (this.sprites.has(key)) return this.sprites.get(key);
    const palette = colours();
    const radius = (small ? [2, 3.5, 4, 4.5] : [4, 5.5, 6.5, 7])[wanted];
    const size = Math.ceil(radius * 2 + 4);
    const image = document.createElement('canvas');
    image.width = size * 2;
    image.height = size * 2;
    const context = image.getContext('2d');
    context.scale(2, 2);
    context.translate(size / 2, size / 2);
    context.fillStyle = palette[LEVEL_NAMES[wanted]];
    context.strokeStyle = palette['mark-edge'];
    context.lineWidth = small ? 0.8 : 1.5;
    outline(context, wanted, radius);
    context.fill();
    context.stroke();
    const made = { image, size };
    this.sprites.set(key, made);
    return made;
  }

  drawClusters(context, width, height, left, top) {
    const palette = colours();
    const { scale } = this.view;
    context.font = FONT;
    context.textAlign = 'center';
    context.textBaseline = 'middle';
    for (const cluster of this.clusters) {
      const x = cluster.x * scale - left;
      const y = cluster.y * scale - top;
      if (x < -40 || y < -40 || x > width + 40 || y > height + 40) continue;
      const { radius } = cluster;
      context.fillStyle = palette['mark-edge'];
      disc(context, x, y, radius + 5.5);
      let from = -Math.PI / 2;
      for (let wanted = 3; wanted >= 0; wanted -= 1) {
        if (!cluster.levels[wanted]) continue;
        const share = wanted ? Math.max(0.06, cluster.levels[wanted] / cluster.count) : 1;
        const to = Math.min(Math.PI * 1.5, from + share * Math.PI * 2);
        context.fillStyle = palette[LEVEL_NAMES[wanted]];
        context.beginPath();
        context.moveTo(x, y);
        context.arc(x, y, radius + 4, from, to);
        context.fill();
        from = to;
      }
      context.fillStyle = palette.surface;
      disc(context, x, y, radius);
      context.fillStyle = palette.text;
      context.fillText(cluster.text, x, y + 0.5);
      const worst = cluster.levels[3] ? 3 : cluster.levels[2] ? 2 : 0;
      if (worst) {
        const sprite = this.sprite(worst, false);
        context.drawImage(sprite.image, x + radius * 0.75 - sprite.size / 2, y - radius * 0.75 - sprite.size / 2, sprite.size, sprite.size);
      }
    }
  }

  drawSelected(context, left, top) {
    const place = this.selected === null ? undefined : this.fleet.index.get(this.selected);
    if (place === undefined) return;
    context.strokeStyle = colours().text;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(this.fleet.x[place] * this.view.scale - left, this.fleet.y[place] * this.view.scale - top, 12, 0, 7);
    context.stroke();
  }

  drawScaleBar(width, height) {
    const { context, view } = this;
    const palette = colours();
    const metresPerPixel = (EARTH_METRES * Math.cos((latitude(view.y) * Math.PI) / 180)) / view.scale;
    const metres = BARS.find((one) => one / metresPerPixel <= 120) ?? 1;
    const length = metres / metresPerPixel;
    const text = metres >= 1000 ? `${(metres / 1000).toLocaleString('en')} km` : `${metres} m`;
    context.font = SMALL_FONT;
    context.textAlign = 'left';
    context.textBaseline = 'alphabetic';
    const y = height - 14;
    context.strokeStyle = palette.water;
    context.lineWidth = 4;
    context.lineJoin = 'round';
    context.strokeText(text, 16, y - 8);
    context.fillStyle = palette.text;
    context.fillText(text, 16, y - 8);
    context.strokeStyle = palette.text;
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(14, y - 4);
    context.lineTo(14, y);
    context.lineTo(14 + length, y);
    context.lineTo(14 + length, y - 4);
    context.stroke();
  }

  /** The generator or cluster under a point of the window. */
  hit(px, py) {
    const { view, fleet } = this;
    if (!fleet) return null;
    const toX = (x) => (x - view.x) * view.scale + this.width / 2;
    const toY = (y) => (y - view.y) * view.scale + this.height / 2;
    for (const cluster of this.clusters) {
      if (Math.hypot(toX(cluster.x) - px, toY(cluster.y) - py) <= cluster.radius + 4) return { cluster };
    }
    let best = null;
    let nearest = HIT_RADIUS ** 2;
    for (let order = 0; order < this.looseCount; order += 1) {
      const place = this.loose[order];
      const dx = toX(fleet.x[place]) - px;
      const dy = toY(fleet.y[place]) - py;
      const distance = dx * dx + dy * dy;
      if (distance < nearest) {
        nearest = distance;
        best = place;
      }
    }
    return best === null ? null : { generator: fleet.items[best] };
  }

  hover(px, py) {
    const hit = this.hit(px, py);
    this.canvas.style.cursor = hit ? 'pointer' : '';
    this.onhover(hit, px, py);
  }

  press(px, py) {
    const hit = this.hit(px, py);
    this.onhover(null);
    if (hit?.cluster) {
      this.view.x = hit.cluster.x;
      this.view.y = hit.cluster.y;
      this.zoom(4);
    } else if (hit) {
      this.onselect(hit.generator.generatorID);
    }
  }

  /** Whether someone is moving the map just now. */
  get moving() {
    return performance.now() - this.movedAt < 1500;
  }

  /** Frames in the second before the newest frame. */
  fps() {
    const newest = this.frames[(this.frameCount - 1 + this.frames.length) % this.frames.length];
    let drawn = 0;
    for (const at of this.frames) if (at > 0 && at > newest - 1000 && at <= newest) drawn += 1;
    return drawn;
  }
}

function latitude(y) {
  return (Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180) / Math.PI;
}

function inSight(box, window) {
  return box.left < window.right && window.left < box.right && box.top < window.bottom && window.top < box.bottom;
}

function disc(context, x, y, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 7);
  context.fill();
}

function outline(context, wanted, radius) {
  context.beginPath();
  if (wanted === 3) {
    context.moveTo(0, -radius);
    context.lineTo(radius, 0);
    context.lineTo(0, radius);
    context.lineTo(-radius, 0);
  } else if (wanted === 2) {
    context.moveTo(0, -radius);
    context.lineTo(radius, radius * 0.8);
    context.lineTo(-radius, radius * 0.8);
  } else if (wanted === 1) {
    context.rect(-radius * 0.8, -radius * 0.8, radius * 1.6, radius * 1.6);
  } else {
    context.arc(0, 0, radius, 0, 7);
  }
  context.closePath();
}

function bounds(fleet) {
  if (!fleet?.size) return null;
  const box = { left: Infinity, right: -Infinity, top: Infinity, bottom: -Infinity };
  for (let place = 0; place < fleet.size; place += 1) {
    const x = fleet.x[place];
    const y = fleet.y[place];
    if (!Number.isFinite(x)) continue;
    box.left = Math.min(box.left, x);
    box.right = Math.max(box.right, x);
    box.top = Math.min(box.top, y);
    box.bottom = Math.max(box.bottom, y);
  }
  return box.left <= box.right ? box : null;
}
