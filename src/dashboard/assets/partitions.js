// Partitions and workers: who owns what, how far behind, and since when.

import { drawSpark } from './charts.js';
import { age, capital, count, duration, eta, lasting, percent, rate, visible } from './format.js';
import { on, store } from './store.js';
import { createTimeline, ownerColour } from './timeline.js';
import { figure, h, keyed, panel, setAttribute, setBadge, setHidden, setText, table } from './ui.js';

const VERDICTS = {
  OK: ['normal', 'OK', 'normal'],
  BEHIND: ['warning', 'Behind', 'warning'],
  STALLED: ['critical', 'Stalled', 'critical'],
  UNOWNED: ['critical', 'Unowned', 'critical'],
};
const STATES = {
  active: ['normal', 'Active', 'normal'],
  idle: ['idle', 'Idle', 'idle'],
  restoring: ['notice', 'Restoring', 'notice'],
  draining: ['notice', 'Draining', 'notice'],
  'not ready': ['warning', 'Not ready', 'warning'],
  overdue: ['critical', 'Overdue', 'critical'],
  left: ['idle', 'Left', 'absent'],
};
const TRENDS = { growing: 'up', falling: 'down', steady: 'flat' };
const ORDER = ['overdue', 'not ready', 'restoring', 'draining', 'active', 'idle', 'left'];
const KINDS = ['worker', 'downsample', 'bridge', 'sink', 'source'];
const WITH_PARTITIONS = ['worker', 'downsample'];

export function mount(root, wanted) {
  const figures = { lag: figure('Lag'), time: figure('Time lag'), arrivals: figure('Arriving'), processed: figure('Processed'), gone: figure('Lag gone'), owned: figure('Partitions owned') };
  const workers = workerTable();
  const partitions = partitionTable(wanted);
  const timeline = createTimeline();
  root.append(
    h('div', { class: 'view-head' }, h('h1', null, 'Partitions and workers'), h('p', { class: 'muted' }, 'Who owns what, how far behind it is, and every hand-over of the last 24 hours.')),
    h('dl', { class: 'figures', 'aria-label': 'The group' }, Object.values(figures).map((one) => one.element)),
    panel('Workers', null, workers.element),
    panel('Partitions', null, partitions.element),
    timeline.element);

  function update() {
    const group = store.partitions;
    if (!group) return;
    const growing = group.trend === 'growing' ? 'warning' : 'plain';
    figures.lag.set(count(group.lag), group.trend ?? '', growing);
    figures.time.set(duration(group.time_lag_ms), 'of the slowest partition');
    figures.arrivals.set(rate(group.arrivals), 'into the topic');
    figures.processed.set(rate(group.processed), 'by all workers', growing);
    figures.gone.set(group.eta_never ? 'Never' : capital(eta(group)), group.eta_never ? 'at this rate' : 'for the slowest partition', group.eta_never ? 'critical' : 'plain');
    const all = group.partitions ?? [];
    const owned = all.filter((one) => one.owner).length;
    figures.owned.set(`${count(owned)} of ${count(all.length)}`, owned < all.length ? `${all.length - owned} without an owner` : all.length ? 'each has an owner' : 'none is known yet', owned < all.length ? 'critical' : 'plain');
    workers.update(group.workers ?? []);
    partitions.update(all);
  }

  const stops = [on('state', update), timeline.leave];
  update();
  if (wanted) partitions.reveal();
  return { name: 'Partitions', leave: () => stops.forEach((stop) => stop()) };
}

/** Kinds that this page doesn't know come last. */
const kindOrder = ({ kind }) => (KINDS.includes(kind) ? KINDS.indexOf(kind) : KINDS.length);

function workerTable() {
  const empty = h('p', { class: 'empty' }, 'No worker runs. Start one: ', h('code', null, 'genwatch worker'));
  const { holder, body } = table('Workers', ['Worker', 'State', 'Partitions', ['Records/s', 'number'], ['Busy', 'number'], ['CPU', 'number'], ['Generators', 'number'], ['In flight', 'number'], ['Hand-overs', 'number'], 'Last report', 'Version']);
  function update(workers) {
    const shown = [...workers].sort((a, b) => kindOrder(a) - kindOrder(b) || ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || String(a.worker).localeCompare(b.worker));
    setHidden(empty, workers.some((worker) => worker.kind === 'worker' && worker.state !== 'left'));
    setHidden(holder, shown.length === 0);
    keyed(body, shown, (worker) => `${worker.kind}|${worker.worker}`, workerRow, updateWorker);
  }
  return { element: h('div', null, empty, holder), update };
}

function workerRow(worker) {
  const swatch = h('span', { class: 'swatch', 'aria-hidden': 'true' });
  if (worker.kind === 'worker') swatch.style.background = `var(--${ownerColour(worker.worker)})`;
  const note = h('span', { class: 'muted' });
  const reason = h('p', { class: 'cell-note' });
  const state = h('span');
  const row = h('tr', { 'data-testid': 'worker-row', 'data-worker': worker.worker, 'data-kind': worker.kind },
    h('th', { scope: 'row' }, h('span', { class: 'named' }, swatch, h('span', null, visible(worker.worker)), note)),
    h('td', null, state, reason),
    h('td', { class: 'numbers' }),
    ...Array.from({ length: 6 }, () => h('td', { class: 'number' })),
    h('td', { class: 'nowrap' }), h('td', { class: 'nowrap' }));
  return Object.assign(row, { state, note, reason });
}

function updateWorker(row, worker) {
  const [, , partitions, speed, busy, cpu, generators, flight, moves, report, version] = row.children;
  setAttribute(row, 'data-state', worker.state);
  setText(row.note, worker.kind === 'worker' ? '' : visible(worker.kind));
  setBadge(row.state, ...(STATES[worker.state] ?? ['notice', capital(worker.state), 'notice']));
  const why = worker.not_ready ? visible(worker.not_ready) : worker.state === 'overdue' ? `No report since ${lasting(worker.at, store.now())}. It was killed, hangs or is cut off.` : '';
  setText(row.reason, why);
  setHidden(row.reason, !why);
  setText(partitions, worker.partitions?.length ? worker.partitions.join(', ') : WITH_PARTITIONS.includes(worker.kind) ? 'none' : '–');
  setText(speed, count(worker.rate));
  setText(busy, percent(worker.busy));
  setText(cpu, percent(worker.cpu));
  setText(generators, count(worker.generators));
  setText(flight, count(worker.in_flight));
  setText(moves, count(worker.rebalances));
  setText(report, age(worker.at, store.now()));
  setText(version, visible(worker.version ?? '–'));
}

function partitionTable(wanted) {
  const empty = h('p', { class: 'empty' }, 'No partition is known yet. Create the topics: ', h('code', null, 'genwatch topics create'));
  const { holder, body } = table('Partitions', [['Partition', 'number'], 'Verdict', 'Owner', ['Lag', 'number'], 'Trend', ['Time lag', 'number'], ['Arriving', 'number'], ['Processed', 'number'], 'Lag gone', ['Committed', 'number'], ['End', 'number']]);
  function update(partitions) {
    setHidden(empty, partitions.length > 0);
    setHidden(holder, partitions.length === 0);
    keyed(body, partitions, (one) => one.partition, (one) => partitionRow(one, wanted), updatePartition);
  }
  function reveal() {
    requestAnimationFrame(() => body.querySelector('.wanted')?.scrollIntoView({ block: 'center' }));
  }
  return { element: h('div', null, empty, holder), update, reveal };
}

function partitionRow(one, wanted) {
  const verdict = h('span');
  const note = h('p', { class: 'cell-note' });
  const swatch = h('span', { class: 'swatch', 'aria-hidden': 'true' });
  const owner = h('span');
  const phase = h('span', { class: 'muted' });
  const spark = h('canvas', { class: 'spark', 'aria-hidden': 'true' });
  const trend = h('span');
  const row = h('tr', { 'data-testid': 'partition-row', 'data-partition': one.partition, class: String(one.partition) === wanted ? 'wanted' : null },
    h('th', { scope: 'row', class: 'number' }, String(one.partition)),
    h('td', null, verdict, note),
    h('td', null, h('span', { class: 'named' }, swatch, owner, phase)),
    h('td', { class: 'number strong' }),
    h('td', null, h('span', { class: 'trend' }, spark, trend)),
    h('td', { class: 'number' }), h('td', { class: 'number' }), h('td', { class: 'number' }),
    h('td', { class: 'nowrap' }), h('td', { class: 'number' }), h('td', { class: 'number' }));
  return Object.assign(row, { verdict, note, swatch, owner, phase, spark, trend });
}

function updatePartition(row, one) {
  const [, , , lag, , time, arrivals, processed, gone, committed, end] = row.children;
  const [kind, word, sign] = VERDICTS[one.verdict] ?? ['notice', one.verdict ?? 'Unknown', 'notice'];
  setAttribute(row, 'data-verdict', one.verdict ?? '');
  setBadge(row.verdict, kind, word, sign);
  const since = one.verdict !== 'OK' && one.since ? `for ${lasting(one.since, store.now())}` : '';
  setText(row.note, since);
  setHidden(row.note, !since);
  setText(row.owner, one.owner ? visible(one.owner) : 'nobody');
  setHidden(row.swatch, !one.owner);
  if (one.owner) row.swatch.style.background = `var(--${ownerColour(one.owner)})`;
  setText(row.phase, one.phase && one.phase !== 'active' ? one.phase : '');
  setText(lag, count(one.lag));
  setBadge(row.trend, one.trend === 'growing' ? 'warning' : 'plain', one.trend ?? 'unknown', TRENDS[one.trend] ?? 'flat');
  drawSpark(row.spark, store.lagHistory.get(one.partition) ?? [], one.trend === 'growing' ? 'warning' : 'accent');
  setText(time, duration(one.time_lag_ms));
  setText(arrivals, rate(one.arrivals));
  setText(processed, rate(one.processed));
  setText(gone, capital(eta(one)));
  setText(committed, count(one.committed));
  setText(end, count(one.end));
}
