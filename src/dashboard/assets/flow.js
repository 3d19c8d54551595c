// The flow of data as a graph: what is where, how fast it moves, what stands still.

import { layOut } from './flowlayout.js';
import { count, duration, eta, rate, visible } from './format.js';
import { createPlan } from './plan.js';
import { on, store } from './store.js';
import { badge, calm, colours, figure, fitCanvas, h, icon, keyed, s, setAttribute, setBadge, setHidden, setText, table } from './ui.js';

const KINDS = { devices: 'Devices', simulator: 'Simulator', mqtt: 'MQTT broker', bridge: 'Bridge', topic: 'Topic', workers: 'Workers', worker: 'Worker', downsample: 'Downsampler', sink: 'Sink', connector: 'Kafka Connect', store: 'Store', source: 'Source', process: 'Process' };
const STATUS = {
  ok: ['normal', 'OK', 'normal'],
  warn: ['warning', 'Warning', 'warning'],
  error: ['critical', 'Problem', 'critical'],
  idle: ['idle', 'Idle', 'idle'],
  absent: ['idle', 'Not there', 'absent'],
};
const ROLES = { alerts: 'Alerts', state: 'Alarm states', dlq: 'Dead letters', '1m': 'Aggregates, 1\u00a0min', status: 'Device status' };
const VERDICTS = { OK: '', BEHIND: '!', STALLED: '×', UNOWNED: '?' };
const MOST_CELLS = 64;
const MOST_LABELS_ABREAST = 4;
const DOT_GAP = 46;
const FRAME_MS = 33;

export function mount(root) {
  const figures = {
    arrivals: figure('Readings arriving'),
    processed: figure('Readings processed'),
    lag: figure('Lag'),
    time: figure('Time lag'),
    generators: figure('Generators'),
    alarms: figure('Active alarms'),
    workers: figure('Workers'),
  };
  const problems = h('ul', { class: 'problems' });
  const fine = h('p', { class: 'all-well' }, icon('normal'), 'Nothing needs attention.');
  const graph = createGraph();
  const list = edgeTable();
  const plan = createPlan();
  const empty = h('p', { class: 'empty' }, 'Waiting for the first data of the dashboard.');

  root.append(
    h('div', { class: 'view-head' }, h('h1', null, 'Flow'), h('p', { class: 'muted' }, 'From the devices to the stores, with the rate and the lag of each step.')),
    h('dl', { class: 'figures', 'aria-label': 'The most important numbers' }, Object.values(figures).map((one) => one.element)),
    h('section', { class: 'attention', 'aria-label': 'What needs attention' }, fine, problems),
    h('section', { class: 'panel graph-panel', 'aria-label': 'Graph of the flow' }, empty, graph.element),
    plan.element,
    h('details', { class: 'panel' }, h('summary', null, 'The flow as a table'), list.holder));

  function update() {
    setHidden(empty, Boolean(store.lineage));
    showFigures(figures);
    const found = findProblems();
    setHidden(fine, found.length > 0 || !store.lineage || !store.live || store.kafka?.ok === false);
    setHidden(problems, found.length === 0);
    keyed(problems, found, (problem) => problem.text, createProblem, () => {});
    if (!store.lineage) return;
    graph.update(store.lineage);
    list.update(store.lineage);
  }

  const leave = [on('state', update), on('connection', update), on('alert', () => showFigures(figures)), on('alerts', () => showFigures(figures)), graph.watch(), on('plan', plan.update)];
  update();
  plan.update();
  return { name: 'Flow', leave: () => leave.forEach((stop) => stop()) };
}

function showFigures(figures) {
  const { partitions, counts, alerts } = store;
  figures.generators.set(count(counts.count), '');
  const critical = counts.active?.critical ?? 0;
  figures.alarms.set(count(alerts.active.size), critical ? `${count(critical)} critical` : 'none critical', critical ? 'critical' : 'plain');
  if (!partitions) return;
  figures.arrivals.set(rate(partitions.arrivals), 'into the topic');
  const slow = partitions.trend === 'growing';
  figures.processed.set(rate(partitions.processed), slow ? 'less than arrive' : 'by all workers', slow ? 'warning' : 'plain');
  figures.lag.set(count(partitions.lag), lagNote(partitions), slow ? 'warning' : 'plain');
  figures.time.set(duration(partitions.time_lag_ms), 'behind the newest reading');
  const workers = (partitions.workers ?? []).filter((worker) => worker.kind === 'worker' && worker.state !== 'left');
  const bad = workers.filter((worker) => worker.state === 'overdue' || worker.state === 'not ready').length;
  const idle = workers.filter((worker) => worker.state === 'idle').length;
  const note = bad ? `${bad} of them not well` : idle ? `${idle} idle` : workers.length ? 'all have partitions' : 'start one: genwatch worker';
  figures.workers.set(count(workers.length), note, bad || !workers.length ? 'critical' : 'plain');
}

function lagNote(partitions) {
  if (!partitions.lag) return 'caught up';
  const gone = partitions.eta_seconds >= 1 && !partitions.eta_never ? `, gone ${eta(partitions)}` : '';
  return `${partitions.trend ?? 'trend unknown'}${gone}`;
}

/** What is wrong, worst first; the server's sentences win over what the page can see by itself. */
function findProblems() {
  const { lineage, partitions } = store;
  const nodes = lineage?.nodes ?? [];
  const found = nodes.filter((node) => node.reason && (node.status === 'warn' || node.status === 'error'))
    .map((node) => ({ status: node.status, text: visible(node.reason.startsWith(node.name) ? node.reason : `${node.name}: ${node.reason}`), link: linkOf(node) }));
  if (!partitions) return found;
  const explained = (kind) => nodes.some((node) => node.kind.startsWith(kind) && node.reason && node.status !== 'ok');
  if (!explained('topic')) {
    for (const [verdict, status, text] of [['UNOWNED', 'error', 'No worker owns'], ['STALLED', 'error', 'Nothing moves in'], ['BEHIND', 'warn', 'The lag is too large in']]) {
      const numbers = (partitions.partitions ?? []).filter((one) => one.verdict === verdict).map((one) => one.partition);
      if (numbers.length) found.push({ status, text: `${text} ${numbers.length === 1 ? 'partition' : 'partitions'} ${listed(numbers)}.`, link: `#/partitions/${numbers[0]}` });
    }
  }
  if (!explained('worker')) {
    for (const worker of partitions.workers ?? []) {
      if (nodes.some((node) => node.name === worker.worker && node.reason && node.status !== 'ok')) continue;
      if (worker.state === 'overdue') found.push({ status: 'error', text: `${visible(worker.worker)} is overdue: it has not reported when it said it would.`, link: '#/partitions' });
      if (worker.state === 'not ready') found.push({ status: 'warn', text: `${visible(worker.worker)} isn't ready: ${visible(worker.not_ready ?? 'no reason given')}.`, link: '#/partitions' });
    }
  }
  return found.sort((a, b) => (a.status === 'error' ? 0 : 1) - (b.status === 'error' ? 0 : 1));
}

function listed(numbers) {
  return numbers.length > 12 ? `${numbers.slice(0, 12).join(', ')} and ${numbers.length - 12} more` : numbers.join(', ');
}

function createProblem(problem) {
  const kind = problem.status === 'error' ? 'critical' : 'warning';
  const text = problem.link ? h('a', { href: problem.link }, problem.text) : h('span', null, problem.text);
  return h('li', { class: `problem problem-${kind}` }, badge(kind, problem.status === 'error' ? 'Problem' : 'Warning'), text);
}

function linkOf(node) {
  if (typeof node.link === 'string' && node.link.startsWith('#/')) return node.link;
  if (/_alerts$/.test(node.name ?? '')) return '#/alarms';
  if (['topic', 'worker', 'workers', 'downsample', 'bridge', 'sink', 'source', 'process'].includes(node.kind)) return '#/partitions';
  return node.kind === 'devices' || node.kind === 'simulator' ? '#/fleet' : null;
}

function createGraph() {
  const lines = s('svg', { class: 'flow-lines', role: 'group', 'aria-label': 'Edges' });
  const groups = s('g');
  const labels = s('g');
  lines.append(groups);
  const texts = s('svg', { class: 'flow-lines flow-texts', 'aria-hidden': 'true' });
  texts.append(labels);
  const dots = h('canvas', { class: 'flow-dots', 'aria-hidden': 'true' });
  const cards = h('ul', { class: 'flow-nodes', 'aria-label': 'Parts of the system' });
  const element = h('div', { class: 'flow' }, lines, dots, texts, cards);
  let edges = [];
  let lineage = null;
  let frame = 0;
  let drawnAt = 0;
  let width = 0;
  let height = 0;

  function update(next) {
    lineage = next;
    keyed(cards, next.nodes, (node) => node.id, createCard, updateCard);
    arrange();
  }

  function arrange() {
    const room = element.clientWidth;
    if (!lineage || room === 0) return;
    const boxes = new Map(lineage.nodes.map((node) => [node.id, { node, card: cards.keyedChildren.get(node.id) }]));
    const plan = layOut(boxes, lineage.edges, room);
    ({ width, height } = plan);
    element.style.height = `${height}px`;
    for (const drawing of [lines, texts]) {
      setAttribute(drawing, 'viewBox', `0 0 ${width} ${height}`);
      setAttribute(drawing, 'width', width);
      setAttribute(drawing, 'height', height);
    }
    edges = plan.edges;
    keyed(groups, edges, edgeKey, createEdge, updateEdge);
    placeLabels(labels, edges, [...boxes.values()].map((box) => box.rect));
    for (const edge of edges) edge.samples = sample(groups.keyedChildren.get(edgeKey(edge)).line, edge);
    drawDots(performance.now());
  }

  function drawDots(time) {
    const context = dots.getContext('2d');
    fitCanvas(dots, context, width, height);
    context.clearRect(0, 0, width, height);
    const palette = colours();
    for (const { edge, samples } of edges) {
      if (!samples || !(edge.rate > 0) || edge.status === 'absent') continue;
      context.fillStyle = edge.status === 'error' ? palette.critical : edge.status === 'warn' ? palette.warning : palette.accent;
      const speed = 14 + 16 * Math.log10(1 + edge.rate);
      context.beginPath();
      const shift = calm.matches ? DOT_GAP / 2 : ((time / 1000) * speed) % DOT_GAP;
      for (let along = shift; along < samples.length * 2; along += DOT_GAP) {
        const place = Math.min(samples.length / 2 - 1, Math.floor(along / 4)) * 2;
        context.moveTo(samples[place] + 2.2, samples[place + 1]);
        context.arc(samples[place], samples[place + 1], 2.2, 0, 7);
      }
      context.fill();
    }
  }

  function animate(time) {
    frame = requestAnimationFrame(animate);
    if (time - drawnAt < FRAME_MS || calm.matches || !store.live) return;
    drawnAt = time;
    drawDots(time);
  }

  function watch() {
    const resized = new ResizeObserver(arrange);
    resized.observe(element);
    frame = requestAnimationFrame(animate);
    return () => {
      resized.disconnect();
      cancelAnimationFrame(frame);
    };
  }

  return { element, update, watch };
}

const HEADS = {
  down: ({ x, y }) => `M${x - 4} ${y - 7}h8l-4 7z`,
  up: ({ x, y }) => `M${x - 4} ${y + 7}h8l-4 -7z`,
  right: ({ x, y }) => `M${x - 7} ${y - 4}v8l7 -4z`,
  left: ({ x, y }) => `M${x + 7} ${y - 4}v8l-7 -4z`,
};
const edgeKey = ({ edge }) => `${edge.from}\u0000${edge.to}`;

function createCard() {
  const parts = {
    kind: h('span', { class: 'node-kind' }),
    status: h('span', { class: 'node-status' }),
    title: h('span', { class: 'node-name' }),
    rate: h('span', { class: 'node-rate' }),
    detail: h('p', { class: 'node-detail' }),
    cells: h('ul', { class: 'cells', 'aria-label': 'Partitions' }),
  };
  const card = h('li', { class: 'node', 'data-testid': 'flow-node' },
    h('div', { class: 'node-head' }, parts.kind, parts.status),
    h('div', { class: 'node-line' }, parts.title, parts.rate),
    parts.detail, parts.cells);
  card.parts = parts;
  return card;
}

function updateCard(card, node) {
  const { parts } = card;
  const [kind, word, sign] = STATUS[node.status] ?? STATUS.ok;
  setAttribute(card, 'data-node', node.id);
  setAttribute(card, 'data-status', node.status);
  setAttribute(card, 'title', [visible(node.name), node.reason && visible(node.reason)].filter(Boolean).join('\n'));
  const role = roleOf(node);
  setText(parts.kind, role ? `Topic …_${role}` : KINDS[node.kind] ?? node.kind);
  setBadge(parts.status, kind, word, sign);
  showName(parts.title, node);
  setText(parts.rate, typeof node.rate === 'number' && node.status !== 'absent' ? rate(node.rate) : '');
  setText(parts.detail, visible(node.detail ?? ''));
  setHidden(parts.detail, !node.detail);
  const shown = (node.partitions ?? []).slice(0, MOST_CELLS);
  setHidden(parts.cells, shown.length === 0);
  keyed(parts.cells, shown, (one) => one.partition, createCell, updateCell);
}

/** The ending of a topic that belongs to the readings' topic. */
function roleOf(node) {
  if (node.kind !== 'topic' || !store.topic || !node.name.startsWith(`${store.topic}_`)) return null;
  const ending = node.name.slice(store.topic.length + 1);
  return Object.hasOwn(ROLES, ending) ? ending : null;
}

/** A name that breaks where its parts end. */
function breakable(name) {
  return visible(name).split(/(?<=[_./:-])/).flatMap((part, place) => (place ? [h('wbr'), part] : [part]));
}

function showName(holder, node) {
  const link = linkOf(node);
  const sign = `${node.name}|${link}`;
  if (holder.sign === sign) return;
  holder.sign = sign;
  const name = ROLES[roleOf(node)] ? [ROLES[roleOf(node)]] : breakable(node.name);
  holder.replaceChildren(link ? h('a', { href: link }, name) : h('span', null, name));
}

function createCell({ partition }) {
  const text = h('span');
  const cell = h('li', null, h('a', { href: `#/partitions/${partition}`, class: 'cell' }, text));
  cell.text = text;
  return cell;
}

function updateCell(cell, one) {
  const verdict = one.verdict ?? (one.owner ? 'OK' : 'UNOWNED');
  const link = cell.firstElementChild;
  setAttribute(link, 'data-verdict', verdict);
  setText(cell.text, `${one.partition}${VERDICTS[verdict] ?? ''}`);
  const owner = one.owner ? `owned by ${visible(one.owner)}` : 'no owner';
  setAttribute(link, 'title', `Partition ${one.partition}: ${verdict.toLowerCase()}, ${owner}, lag ${count(one.lag)}`);
  setAttribute(link, 'aria-label', link.getAttribute('title'));
}

function createEdge(item) {
  const line = s('path', { class: 'edge-line' });
  const wide = s('path', { class: 'edge-hit' });
  const title = s('title');
  const head = s('path', { class: 'edge-head' });
  const group = s('g', { class: 'edge', 'data-testid': 'flow-edge', 'data-from': item.edge.from, 'data-to': item.edge.to, onclick: () => { if (group.link) location.hash = group.link; } }, title, line, head, wide);
  Object.assign(group, { line, wide, title, head });
  return group;
}

function updateEdge(group, { edge, path, tip, direction, target }) {
  setAttribute(group, 'data-status', edge.status ?? 'ok');
  setAttribute(group.line, 'd', path);
  setAttribute(group.wide, 'd', path);
  setAttribute(group.head, 'd', HEADS[direction](tip));
  setAttribute(group.line, 'stroke-width', (1.2 + Math.min(2.6, Math.log10(1 + (edge.rate || 0)) * 0.75)).toFixed(2));
  setText(group.title, edgeText(edge));
  group.link = linkOf(target);
  setAttribute(group, 'class', group.link ? 'edge edge-link' : 'edge');
}

function edgeText(edge) {
  const parts = [visible(edge.label || rate(edge.rate))];
  if (typeof edge.lag === 'number') parts.push(`lag ${count(edge.lag)}`);
  if (typeof edge.time_lag_ms === 'number') parts.push(`${duration(edge.time_lag_ms)} behind`);
  return parts.join(', ');
}

function shortLabel(edge) {
  const lines = [edge.label ? visible(edge.label) : rate(edge.rate)];
  if (edge.lag > 0) lines.push(`lag ${count(edge.lag)}`);
  return lines;
}

/** Bundles of edges keep only the labels of those that are in trouble; no label covers a card or another label. */
function placeLabels(holder, edges, rects) {
  const taken = rects.map((rect) => ({ ...rect }));
  const abreast = new Map();
  for (const edge of edges) abreast.set(edge.bundle, (abreast.get(edge.bundle) ?? 0) + 1);
  const shown = [];
  const urgent = (item) => (item.edge.status === 'error' || item.edge.status === 'warn' ? 0 : 1);
  for (const item of [...edges].sort((a, b) => urgent(a) - urgent(b))) {
    const quiet = item.edge.status === 'absent' || (item.edge.status === 'idle' && !item.edge.lag);
    if (quiet || (abreast.get(item.bundle) > MOST_LABELS_ABREAST && urgent(item))) continue;
    const all = shortLabel(item.edge);
    // Where not all of it has room, the rate alone may have.
    const placed = placeLabel(item, all, taken) ?? (all.length > 1 ? placeLabel(item, all.slice(0, 1), taken) : null);
    if (!placed) continue;
    taken.push(placed.box);
    shown.push({ ...item, ...placed });
  }
  keyed(holder, shown, edgeKey, () => s('text', { class: 'edge-label', 'aria-hidden': 'true' }), (text, { edge, at, lines }) => {
    setAttribute(text, 'data-status', edge.status ?? 'ok');
    while (text.childNodes.length > lines.length) text.lastChild.remove();
    while (text.childNodes.length < lines.length) text.append(s('tspan'));
    lines.forEach((line, place) => {
      const part = text.childNodes[place];
      setText(part, line);
      setAttribute(part, 'x', at.x.toFixed(1));
      setAttribute(part, 'y', (at.y + 4 + (place - (lines.length - 1) / 2) * 13).toFixed(1));
    });
  });
}

function placeLabel(item, lines, taken) {
  const width = Math.max(...lines.map((line) => line.length)) * 6.1 + 6;
  const height = lines.length * 13 + 2;
  for (const at of item.labelPlaces) {
    const box = { x: at.x - width / 2, y: at.y - height / 2, width, height };
    if (!taken.some((other) => overlap(box, other))) return { at, lines, box };
  }
  return null;
}

function overlap(a, b) {
  return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
}

/** Points every four pixels, so that a frame needs no geometry. */
function sample(line, item) {
  if (line.sampledPath === item.path) return line.samples;
  const length = line.getTotalLength();
  const points = Math.max(1, Math.floor(length / 4));
  const samples = new Float32Array(points * 2);
  for (let place = 0; place < points; place += 1) {
    const at = line.getPointAtLength(place * 4);
    samples[place * 2] = at.x;
    samples[place * 2 + 1] = at.y;
  }
  line.sampledPath = item.path;
  line.samples = samples;
  return samples;
}

function edgeTable() {
  const { holder, body } = table('Edges of the flow', ['From', 'To', ['Rate', 'number'], ['Lag', 'number'], ['Time lag', 'number'], 'Status']);
  function update({ nodes, edges }) {
    const names = new Map(nodes.map((node) => [node.id, node.name]));
    keyed(body, edges, (edge) => `${edge.from}\u0000${edge.to}`, createRow, (row, edge) => {
      const [from, to, speed, lag, time, status] = row.children;
      setText(from, visible(names.get(edge.from) ?? edge.from));
      setText(to, visible(names.get(edge.to) ?? edge.to));
      setText(speed, rate(edge.rate));
      setText(lag, count(edge.lag));
      setText(time, duration(edge.time_lag_ms));
      setBadge(status, ...(STATUS[edge.status] ?? STATUS.ok));
    });
  }
  const createRow = () => h('tr', null, h('td'), h('td'), h('td', { class: 'number' }), h('td', { class: 'number' }), h('td', { class: 'number' }), h('td'));
  return { holder, update };
}
