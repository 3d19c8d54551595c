// Alarms: what is on, what came last, and whether an operator can still cope.

import { drawHours } from './charts.js';
import { age, capital, count, generatorLink, lasting, level, levelName, moment, plural, shortTime, visible, withUnit } from './format.js';
import { alarmKey, get, on, setStatistics, store } from './store.js';
import { badge, figure, h, icon, keyed, panel, setHidden, setText, table } from './ui.js';

const MOST_ROWS = 200;
/** `/api/alerts` lists no more active ones. */
const MOST_LISTED = 1000;
const STATISTICS_MS = 10000;

const chosen = { rule: '' };

export function mount(root) {
  const figures = { active: figure('Active alarms'), critical: figure('Critical'), warning: figure('Warning'), hour: figure('Raised in the last hour'), chattering: figure('Chattering') };
  const active = activeTable();
  const recent = recentTable();
  const hours = hourChart();
  const rules = ruleTable();
  const top = topTable();
  const filter = h('select', { id: 'rule-filter', onchange: () => {
    chosen.rule = filter.value;
    update();
  } });

  root.append(
    h('div', { class: 'view-head' }, h('h1', null, 'Alarms'), h('div', { class: 'field inline' }, h('label', { for: 'rule-filter' }, 'Rule'), filter)),
    h('dl', { class: 'figures', 'aria-label': 'Alarms in numbers' }, Object.values(figures).map((one) => one.element)),
    h('div', { class: 'alarm-grid' },
      h('div', { class: 'stack' },
        panel('Active', null, active.element),
        panel('Recent', null, recent.element)),
      h('div', { class: 'stack' },
        panel('Alarms per hour', null, hours.element),
        panel('By rule', null, rules.element),
        panel('Ten generators with the most alarms', null, top.element))));

  function update() {
    updateFilter(filter);
    active.update();
    recent.update();
    updateNumbers();
  }

  function updateNumbers() {
    const alarms = [...store.alerts.active.values()];
    const critical = alarms.filter((alert) => level(alert.severity) === 3).length;
    const warning = alarms.filter((alert) => level(alert.severity) === 2).length;
    const chattering = alarms.filter((alert) => alert.chattering).length;
    const { lastHour, benchmark } = store.alerts;
    figures.active.set(count(alarms.length), 'now');
    figures.critical.set(count(critical), 'now', critical ? 'critical' : 'plain');
    figures.warning.set(count(warning), 'now', warning ? 'warning' : 'plain');
    figures.hour.set(count(lastHour), hourVerdict(lastHour, benchmark), lastHour > benchmark.maximum ? 'critical' : lastHour > benchmark.acceptable ? 'warning' : 'plain');
    figures.chattering.set(count(chattering), 'three cycles in a minute', chattering ? 'warning' : 'plain');
  }

  function updateStatistics() {
    hours.update();
    rules.update();
    top.update();
    updateNumbers();
  }

  async function ask() {
    if (document.hidden || !store.live) return;
    try {
      setStatistics(await get('/api/alerts?limit=1'));
      updateStatistics();
    } catch { /* the connection's state says it */ }
  }

  const asking = setInterval(ask, STATISTICS_MS);
  const stops = [
    on('alerts', () => { update(); updateStatistics(); }),
    on('alert', (fresh) => {
      recent.add(fresh);
      active.update();
      updateNumbers();
    }),
    on('tick', () => {
      active.age();
      recent.age();
    }),
    hours.leave,
    () => clearInterval(asking),
  ];
  update();
  updateStatistics();
  if (store.started) ask();
  return { name: 'Alarms', leave: () => stops.forEach((stop) => stop()) };
}

function hourVerdict(raised, benchmark) {
  if (typeof raised !== 'number') return '';
  if (raised > benchmark.maximum) return `too many: ISA allows ${benchmark.maximum}`;
  if (raised > benchmark.acceptable) return `more than ISA's ${benchmark.acceptable}`;
  return `ISA accepts ${benchmark.acceptable}`;
}

function updateFilter(filter) {
  const names = [...new Set([...store.rules.map((rule) => rule.rule ?? rule.name), ...store.alerts.byRule.map((one) => one.rule), ...[...store.alerts.active.values()].map((alert) => alert.rule)])].filter(Boolean).sort();
  keyed(filter, ['', ...names], (name) => name, (name) => h('option', { value: name }, name ? visible(name) : 'All rules'), () => {});
  filter.value = names.includes(chosen.rule) ? chosen.rule : '';
}

const passes = (alert) => !chosen.rule || alert.rule === chosen.rule;

function activeTable() {
  const empty = h('p', { class: 'empty' }, icon('normal'), 'No alarm is active.');
  const left = h('p', { class: 'muted more' });
  const { holder, body } = table('Active alarms', ['Severity', 'Generator', 'Rule', ['Value', 'number'], ['Threshold', 'number'], 'Since', 'For']);
  function update() {
    const alarms = [...store.alerts.active.values()].filter(passes).sort((a, b) => level(b.severity) - level(a.severity) || (b.at ?? b.since) - (a.at ?? a.since));
    const newest = store.latest?.state === 'raised' && store.alerts.active.get(alarmKey(store.latest));
    const shown = alarms.slice(0, MOST_ROWS);
    if (newest && passes(newest) && !shown.includes(newest)) shown.unshift(newest);
    setHidden(empty, alarms.length > 0);
    setHidden(holder, alarms.length === 0);
    setText(left, alarms.length > shown.length ? `${plural(alarms.length - shown.length, 'more active alarm')} not in this list. Choose a rule, or look in the fleet.` : '');
    setHidden(left, alarms.length <= shown.length);
    keyed(body, shown, (alert) => alert.id ?? alarmKey(alert), activeRow, () => {});
    ageRows();
  }
  function ageRows() {
    for (const row of body.children) setText(row.lastElementChild, lasting(row.since, store.now()));
  }
  return { element: h('div', null, empty, holder, left), update, age: ageRows };
}

function activeRow(alert) {
  const row = h('tr', { 'data-testid': 'alarm-active-row', 'data-id': alert.id, 'data-generator': alert.generatorID, 'data-severity': levelName(alert.severity) },
    h('td', null, severity(alert)),
    h('th', { scope: 'row' }, generator(alert)),
    h('td', null, h('span', null, visible(alert.rule)), alert.chattering ? badge('notice', 'Chattering', 'chatter') : null, why(alert)),
    h('td', { class: 'number' }, valueOf(alert)),
    h('td', { class: 'number' }, alert.field ? withUnit(alert.threshold, alert.field) : '–'),
    h('td', { class: 'nowrap' }, moment(alert.since ?? alert.at, store.now())),
    h('td', { class: 'nowrap' }));
  row.since = alert.since ?? alert.at;
  return row;
}

function recentTable() {
  const empty = h('p', { class: 'empty' }, 'No alert has come yet. Alerts appear here the moment a worker writes one.');
  const { holder, body } = table('Recent alerts, newest first', ['Time', 'Change', 'Severity', 'Generator', 'Rule', ['Value', 'number'], 'Age']);
  function update() {
    const shown = store.alerts.recent.filter(passes).slice(0, MOST_ROWS);
    keyed(body, shown, (alert) => alert.id, recentRow, () => {});
    finish();
  }
  function add(fresh) {
    const rows = fresh.filter(passes).slice(-MOST_ROWS);
    for (const alert of rows) {
      const row = recentRow(alert);
      row.classList.add('fresh');
      body.prepend(row);
      body.keyedChildren?.set(alert.id, row);
    }
    while (body.children.length > MOST_ROWS) {
      body.keyedChildren?.delete(body.lastElementChild.dataset.id);
      body.lastElementChild.remove();
    }
    finish();
  }
  function finish() {
    setHidden(empty, body.children.length > 0);
    setHidden(holder, body.children.length === 0);
    ageRows();
  }
  function ageRows() {
    for (const row of body.children) setText(row.lastElementChild, age(row.at, store.now()));
  }
  return { element: h('div', null, empty, holder), update, add, age: ageRows };
}

function recentRow(alert) {
  const raised = alert.state === 'raised';
  const row = h('tr', { 'data-testid': 'alarm-recent-row', 'data-id': alert.id, 'data-generator': alert.generatorID, 'data-state': alert.state },
    h('td', { class: 'nowrap' }, moment(alert.at, store.now())),
    h('td', null, raised ? badge('plain', 'Raised', 'up') : badge('plain', 'Cleared', 'down')),
    h('td', null, severity(alert)),
    h('th', { scope: 'row' }, generator(alert)),
    h('td', null, visible(alert.rule), why(alert)),
    h('td', { class: 'number' }, valueOf(alert)),
    h('td', { class: 'nowrap' }));
  row.at = alert.at;
  return row;
}

const severity = (alert) => badge(levelName(alert.severity), capital(visible(alert.severity ?? '')));
const generator = (alert) => h('a', { href: generatorLink(alert.generatorID) }, visible(alert.generatorID));
const why = (alert) => (alert.reason && alert.reason !== 'silent' ? h('span', { class: 'muted' }, ` ${visible(alert.reason)}`) : null);

function valueOf(alert) {
  if (alert.field) return withUnit(alert.value, alert.field);
  return alert.reason === 'silent' && typeof alert.value === 'number' ? `silent ${count(alert.value)}\u00a0s` : '–';
}

function hourChart() {
  const canvas = h('canvas', { class: 'hours', role: 'img' });
  const { holder, body } = table('Alarms per hour', ['Hour', ['Raised', 'number']]);
  const element = h('div', null,
    canvas,
    h('p', { class: 'muted' }, 'Against ISA-18.2: about 6 an hour are acceptable for one operator, about 12 the most that one can handle.'),
    h('details', null, h('summary', null, 'As a table'), holder));
  function update() {
    const { ratePerHour, benchmark } = store.alerts;
    drawHours(canvas, ratePerHour, benchmark);
    const highest = Math.max(0, ...ratePerHour.map((hour) => hour.raised));
    canvas.setAttribute('aria-label', `Alarms per hour over the last ${ratePerHour.length} hours, at most ${highest}. The table below has the numbers.`);
    keyed(body, [...ratePerHour].reverse(), (hour) => hour.hour, (hour) => h('tr', null, h('th', { scope: 'row' }, shortTime(hour.hour)), h('td', { class: 'number' })), (row, hour) => setText(row.lastElementChild, count(hour.raised)));
  }
  const resized = new ResizeObserver(update);
  resized.observe(canvas);
  window.addEventListener('genwatch-theme', update);
  return {
    element,
    update,
    leave() {
      resized.disconnect();
      window.removeEventListener('genwatch-theme', update);
    },
  };
}

function ruleTable() {
  const empty = h('p', { class: 'empty' }, 'No alarm of any rule in the time that is kept.');
  const { holder, body } = table('Alarms by rule', ['Rule', 'Severity', ['Active', 'number'], ['Last hour', 'number']]);
  function update() {
    const { byRule } = store.alerts;
    setHidden(empty, byRule.length > 0);
    setHidden(holder, byRule.length === 0);
    // The list is newer than the summary, as long as it has all of them.
    const { active } = store.alerts;
    const listed = new Map();
    for (const { rule } of active.values()) listed.set(rule, (listed.get(rule) ?? 0) + 1);
    const activeOf = (one) => (active.size < MOST_LISTED ? listed.get(one.rule) ?? 0 : one.active);
    keyed(body, byRule, (one) => `${one.rule}|${one.severity}`, (one) => h('tr', null, h('th', { scope: 'row' }, visible(one.rule)), h('td', null, badge(levelName(one.severity), capital(visible(one.severity ?? '')))), h('td', { class: 'number' }), h('td', { class: 'number' })), (row, one) => {
      setText(row.children[2], count(activeOf(one)));
      setText(row.children[3], count(one.last_hour));
    });
  }
  return { element: h('div', null, empty, holder), update };
}

function topTable() {
  const empty = h('p', { class: 'empty' }, 'No alarm was raised in the time that is kept.');
  const list = h('ol', { class: 'top-ten' });
  function update() {
    const { top } = store.alerts;
    const highest = Math.max(1, ...top.map((one) => one.raised));
    setHidden(empty, top.length > 0);
    keyed(list, top, (one) => one.generatorID, (one) => h('li', null, h('a', { href: generatorLink(one.generatorID) }, visible(one.generatorID)), h('span', { class: 'bar', 'aria-hidden': 'true' }, h('span')), h('span', { class: 'number' })), (row, one) => {
      row.children[1].firstElementChild.style.width = `${(one.raised / highest) * 100}%`;
      setText(row.children[2], count(one.raised));
    });
  }
  return { element: h('div', null, empty, list), update };
}
