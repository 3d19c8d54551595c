// One generator: its readings with thresholds, its rules, its incidents, and who watches it.

import { fieldName, LineChart } from './charts.js';
import { age, capital, count, duration, FIELDS, lasting, level, levelName, moment, reading, timeOfDay, visible, withUnit } from './format.js';
import { get, on, ownerAt, shownTime, store } from './store.js';
import { createTimeMachine } from './timemachine.js';
import { badge, choices, h, keyed, panel, setAttribute, setBadge, setHidden, setText, table } from './ui.js';

const MINUTE = 60000;
const SPANS = [['5', '5 min'], ['15', '15 min'], ['60', '1 h'], ['360', '6 h'], ['1440', '24 h']];
const CHART_FIELDS = ['temperature', 'pressure', 'fuel', 'load', 'power'];
const PHASES = {
  normal: ['normal', 'Normal'],
  pending: ['notice', 'Pending'],
  raised: ['warning', 'Raised'],
  clearing: ['notice', 'Clearing'],
};
const TABLE_ROWS = 30;
const RETRY_MS = 10000;

let chosenSpan = '15';

export function mount(root, id) {
  let data = null;
  let failure = null;
  let request = null;
  let askedAt = 0;

  const machine = createTimeMachine();
  const facts = createFacts();
  const values = h('dl', { class: 'figures', 'data-testid': 'generator-values', 'aria-label': 'Readings' });
  const charts = createCharts();
  const rules = createRules();
  const incidents = createIncidents();
  const readings = createReadings();
  const state = h('span');
  const problem = h('p', { class: 'empty', hidden: true });
  const content = h('div', { class: 'stack' },
    facts.element, values,
    h('section', { class: 'panel', 'aria-labelledby': 'readings-title' },
      h('div', { class: 'panel-head' },
        h('h2', { id: 'readings-title' }, 'Readings'),
        h('div', { class: 'panel-tools' }, choices('generator-span', 'Length of the charts', SPANS, chosenSpan, (span) => {
          chosenSpan = span;
          load();
        }))),
      charts.element,
      h('p', { class: 'muted chart-key' }, 'A solid line raises the alarm, a dashed one clears it; in the band between them an alarm stays as it is. Shaded time: the alarm was on. Hatched: the delay that had to pass before.'),
      h('details', null, h('summary', null, 'The readings as a table'), readings.holder)),
    h('div', { class: 'two' }, panel('Rules', null, rules.holder), panel('Incidents', null, incidents.element)));

  root.append(
    machine.banner,
    h('div', { class: 'view-head' }, h('p', { class: 'crumb' }, h('a', { href: '#/fleet' }, 'Fleet')), h('h1', { class: 'long' }, visible(id)), state),
    machine.element, problem, content);

  async function load() {
    request?.abort();
    request = new AbortController();
    const { signal } = request;
    askedAt = Date.now();
    const to = Math.round(shownTime());
    const from = to - Number(chosenSpan) * MINUTE;
    const until = store.past.at === null ? '' : `&to=${to}`;
    try {
      data = await get(`/api/generators/${encodeURIComponent(id)}?from=${from}${until}`, signal);
      failure = null;
    } catch (error) {
      if (error.name === 'AbortError') return;
      failure = error.status === 404 ? 'No reading of this generator is known. Look for it in the fleet, or check its name.' : `The readings don't load: ${error.message}`;
    } finally {
      if (request?.signal === signal) request = null;
    }
    if (!signal.aborted) update();
  }

  function update() {
    setHidden(problem, !failure);
    setText(problem, failure ?? '');
    setHidden(content, !data);
    if (!data) return;
    const to = shownTime();
    const at = view(data, to, Number(chosenSpan) * MINUTE);
    showState(state, at);
    facts.update(at);
    showValues(values, at);
    charts.update(at);
    rules.update(at);
    incidents.update(at);
    readings.update(at);
  }

  const poll = () => {
    const wait = failure ? RETRY_MS : chosenSpan === '5' || chosenSpan === '15' ? 900 : chosenSpan === '60' ? 4000 : 15000;
    if (!request && !document.hidden && store.past.at === null && Date.now() - askedAt >= wait) load();
    else if (data) update();
  };
  const stops = [on('tick', poll), on('past', load), on('alert', (fresh) => { if (fresh.some((alert) => alert.generatorID === id)) load(); }), machine.leave, charts.leave, () => request?.abort()];
  setHidden(content, true);
  load();
  return { name: visible(id), leave: () => stops.forEach((stop) => stop()) };
}

/** The answer as it was at `to`: what came later is left out, what is only known for now is unknown. */
function view(data, to, span) {
  const past = store.past.at !== null;
  const series = data.series ?? { at: [] };
  const times = series.at ?? [];
  let end = times.length;
  while (past && end > 0 && times[end - 1] > to) end -= 1;
  const last = past ? lastOf(series, end) : data.last;
  return {
    ...data,
    past,
    from: to - span,
    to,
    series,
    end,
    last,
    owner: past ? ownerAt(data.partition, to) : data.owner,
    online: past ? null : data.online,
    offset: past ? null : data.offset,
    seen: past ? last?.at ?? null : data.last_seen,
    rules: (data.rules ?? []).map((rule) => ({ ...rule, level: level(rule.severity), phase: past ? null : rule.phase })),
    incidents: (data.incidents ?? []).filter((one) => !past || (one.raised ?? one.cleared ?? 0) <= to)
      .map((one) => ({ ...one, level: level(one.severity), cleared: past && one.cleared > to ? null : one.cleared })),
  };
}

function lastOf(series, end) {
  if (!end) return null;
  const last = { at: series.at[end - 1] };
  for (const field of CHART_FIELDS) last[field] = series[field]?.[end - 1];
  return last;
}

function showState(holder, data) {
  const active = data.incidents.filter((one) => one.raised && !one.cleared);
  const worst = active.reduce((most, one) => Math.max(most, one.level), 0);
  const kind = ['normal', 'notice', 'warning', 'critical'][worst];
  setBadge(holder, kind, active.length ? active.map((one) => visible(one.rule)).join(', ') : 'No alarm');
}

function createFacts() {
  const fact = (name, attributes) => {
    const value = h('dd', attributes);
    return { element: h('div', null, h('dt', null, name), value), value };
  };
  const seen = fact('Last seen', { 'data-testid': 'generator-last-seen' });
  const partition = fact('Partition');
  const owner = fact('Owner');
  const connection = fact('MQTT');
  const place = fact('Position');
  const offset = fact('Offset');
  const element = h('dl', { class: 'facts-row' }, [seen, partition, owner, connection, place, offset].map((one) => one.element));
  return {
    element,
    update(data) {
      setText(seen.value, data.seen ? `${moment(data.seen, store.now())} (${data.past ? `${duration(data.to - data.seen)} before` : age(data.seen, store.now())})` : 'not in the time shown');
      link(partition.value, count(data.partition), `#/partitions/${data.partition}`);
      if (data.owner) link(owner.value, visible(data.owner), '#/partitions');
      else setText(owner.value, data.owner === undefined ? 'not known' : 'nobody');
      setText(connection.value, data.online === true ? 'online' : data.online === false ? 'offline' : 'not known');
      setText(place.value, typeof data.lat === 'number' ? `${Math.abs(data.lat).toFixed(4)}° ${data.lat < 0 ? 'S' : 'N'}, ${Math.abs(data.lon).toFixed(4)}° ${data.lon < 0 ? 'W' : 'E'}` : 'not known');
      setText(offset.value, count(data.offset));
    },
  };
}

function link(holder, text, href) {
  if (holder.textContent === text && holder.firstElementChild) return;
  holder.replaceChildren(h('a', { href }, text));
}

function showValues(holder, data) {
  const fields = CHART_FIELDS.filter((field) => field in FIELDS && (typeof data.last?.[field] === 'number' || ['temperature', 'pressure', 'fuel'].includes(field)));
  keyed(holder, fields, (field) => field, (field) => h('div', { class: 'figure', 'data-field': field }, h('dt', null, FIELDS[field].name), h('dd', { class: 'figure-value' }), h('dd', { class: 'figure-note' })), (element, field) => {
    const active = data.incidents.filter((one) => one.raised && !one.cleared && data.rules.some((rule) => rule.rule === one.rule && rule.field === field));
    const worst = active.reduce((most, one) => Math.max(most, one.level), 0);
    setAttribute(element, 'data-state', worst === 3 ? 'critical' : worst ? 'warning' : 'plain');
    setText(element.children[1], withUnit(data.last?.[field], field));
    setText(element.children[2], active.length ? active.map((one) => visible(one.rule)).join(', ') : '\u00a0');
  });
}

function createCharts() {
  const element = h('div', { class: 'charts' });
  const charts = new Map();
  function update(data) {
    const fields = CHART_FIELDS.filter((field) => data.series[field]?.some((value) => value !== null) || ['temperature', 'pressure', 'fuel'].includes(field));
    element.dataset.count = fields.length;
    keyed(element, fields, (field) => field, (field) => {
      const canvas = h('canvas', { class: 'chart', role: 'img' });
      charts.set(field, new LineChart(canvas));
      return h('figure', null, h('figcaption', null, `${fieldName(field)} (${FIELDS[field].unit})`), canvas);
    }, (figure, field) => {
      const rules = data.rules.filter((rule) => rule.field === field);
      const values = data.series[field] ?? [];
      charts.get(field).set({
        field, from: data.from, to: data.to, at: data.series.at.slice(0, data.end), values: values.slice(0, data.end), rules,
        incidents: data.incidents.filter((one) => rules.some((rule) => rule.rule === one.rule)),
      });
      const thresholds = rules.filter((rule) => typeof rule.raise === 'number').map((rule) => `${visible(rule.rule)} raises ${rule.direction} ${withUnit(rule.raise, field)}`).join('; ');
      setAttribute(figure.lastElementChild, 'aria-label', `${fieldName(field)}, the last ${SPANS.find(([span]) => span === chosenSpan)[1]}. ${thresholds || 'No rule looks at it'}. The table below has the values.`);
    });
  }
  return { element, update, leave: () => charts.forEach((chart) => chart.destroy()) };
}

function createRules() {
  const { holder, body } = table('Rules of this generator', ['Rule', 'Raised', 'Cleared', 'Severity', 'Phase']);
  function update(data) {
    keyed(body, data.rules, (rule) => rule.rule, () => h('tr', null, h('th', { scope: 'row' }), h('td'), h('td'), h('td'), h('td')), (row, rule) => {
      const [name, raise, clear, severity, phase] = row.children;
      setText(name, visible(rule.rule));
      const below = rule.direction === 'below';
      setText(raise, rule.field ? `${visible(rule.field)} ${below ? 'below' : 'above'} ${withUnit(rule.raise, rule.field)}${delay(rule.on_delay_ms)}` : 'when nothing comes');
      setText(clear, rule.field && typeof rule.clear === 'number' ? `${below ? 'above' : 'below'} ${withUnit(rule.clear, rule.field)}${delay(rule.off_delay_ms)}` : rule.field ? 'when the condition ends' : 'with the next reading');
      setBadge(severity, levelName(rule.severity), capital(visible(rule.severity ?? '')));
      const [kind, word] = PHASES[rule.phase] ?? ['plain', 'Not known'];
      setBadge(phase, rule.phase === 'raised' ? levelName(rule.severity) : kind, rule.phase ? `${word}${rule.since && rule.phase !== 'normal' ? ` for ${lasting(rule.since, store.now())}` : ''}` : word, kind === 'plain' ? 'absent' : rule.phase === 'raised' ? levelName(rule.severity) : kind);
    });
  }
  return { holder, update };
}

const delay = (ms) => (ms ? ` for ${duration(ms)}` : '');

function createIncidents() {
  const empty = h('p', { class: 'empty' }, 'No incident in the time that is kept.');
  const { holder, body } = table('Incidents, newest first', ['Rule', 'Raised', 'Cleared', ['Lasted', 'number'], ['Value', 'number'], 'Reason']);
  function update(data) {
    setHidden(empty, data.incidents.length > 0);
    setHidden(holder, data.incidents.length === 0);
    const now = store.now();
    keyed(body, data.incidents, (one) => `${one.rule}|${one.raised ?? one.cleared}`, (one) => h('tr', null, h('th', { scope: 'row' }, badge(levelName(one.severity), visible(one.rule))), ...Array.from({ length: 5 }, (_, place) => h('td', { class: place === 2 || place === 3 ? 'number' : 'nowrap' }))), (row, one) => {
      const [, raised, cleared, lasted, value, reason] = row.children;
      setText(raised, one.raised ? moment(one.raised, now) : 'before what is kept');
      setText(cleared, one.cleared ? moment(one.cleared, now) : 'still on');
      setText(lasted, one.raised ? duration((one.cleared ?? data.to) - one.raised) : '–');
      const rule = data.rules.find((candidate) => candidate.rule === one.rule);
      setText(value, rule?.field ? withUnit(one.value, rule.field) : reading(one.value));
      setText(reason, one.reason ? visible(one.reason) : rule?.field ? 'threshold' : '–');
    });
  }
  return { element: h('div', null, empty, holder), update };
}

function createReadings() {
  const { holder, body } = table('The newest readings', ['Time', ...CHART_FIELDS.map((field) => [`${FIELDS[field].name} (${FIELDS[field].unit})`, 'number'])]);
  function update(data) {
    const rows = [];
    for (let place = data.end - 1; place >= 0 && rows.length < TABLE_ROWS; place -= 1) rows.push(place);
    keyed(body, rows, (place) => data.series.at[place], () => h('tr', null, h('th', { scope: 'row' }), ...CHART_FIELDS.map(() => h('td', { class: 'number' }))), (row, place) => {
      setText(row.children[0], timeOfDay(data.series.at[place]));
      CHART_FIELDS.forEach((field, order) => setText(row.children[order + 1], reading(data.series[field]?.[place])));
    });
  }
  return { holder, update };
}
