// Every generator on a map and in a list, now or at an earlier time.

import { age, capital, count, generatorLink, level, levelName, plural, reading, timeOfDay, visible } from './format.js';
import { FleetMap } from './map.js';
import { loadFleet, on, shownFleet, shownTime, store } from './store.js';
import { createTimeMachine } from './timemachine.js';
import { badge, h, icon, keyed, setAttribute, setBadge, setHidden, setText, table } from './ui.js';

const PAGE = 50;
const SMALL_FLEET = 5000;
const REFRESH_MS = { small: 5000, large: 60000 };

let map = null;

export const mapFps = () => map?.fps() ?? 0;

const chosen = { text: '', severity: 'all', inView: false };

export function mount(root) {
  const machine = createTimeMachine();
  const list = createList();
  const canvas = h('canvas', {
    class: 'map', 'data-testid': 'map', tabindex: 0, role: 'application', 'aria-roledescription': 'map',
    'aria-label': 'Map of the generators. Arrow keys pan, plus and minus zoom, 0 shows all. The list has the same generators.',
  });
  const tip = h('div', { class: 'map-tip', hidden: true, 'aria-hidden': 'true' });
  const summary = h('p', { class: 'muted', role: 'status' });
  const empty = h('p', { class: 'empty map-empty', hidden: true });
  const tool = (name, label, act) => h('button', { type: 'button', class: 'icon-button', 'aria-label': label, title: label, onclick: act }, icon(name));
  const cluster = h('label', { class: 'check' }, h('input', { type: 'checkbox', checked: true, onchange: (event) => map.setClustering(event.target.checked) }), 'Group what is close');

  root.append(
    machine.banner,
    h('div', { class: 'view-head' }, h('h1', null, 'Fleet'), summary),
    machine.element,
    h('div', { class: 'fleet' },
      h('section', { class: 'map-holder', 'aria-label': 'Map' }, canvas, tip, empty,
        h('div', { class: 'map-tools' }, tool('plus', 'Zoom in', () => map.zoom(1.7)), tool('minus', 'Zoom out', () => map.zoom(1 / 1.7)), tool('fit', 'Show all generators', () => map.fit())),
        h('div', { class: 'map-legend' }, ['normal', 'notice', 'warning', 'critical'].map((kind) => legend(kind)), cluster)),
      list.element));

  map = new FleetMap(canvas, {
    onselect: (id) => { location.hash = generatorLink(id); },
    onhover: (hit, x, y) => showTip(tip, hit, x, y, canvas),
    onmove: () => { if (chosen.inView) list.later(); },
  });

  function update() {
    const fleet = shownFleet();
    const past = store.past.at !== null;
    map.show(fleet);
    list.update();
    setHidden(empty, fleet.size > 0);
    setText(empty, fleet.at === 0 ? 'Loading the generators.' : 'No generator has reported. Start some: genwatch simulate');
    setText(summary, fleet.size ? `${plural(fleet.size, 'generator')}, ${describe(fleet)}. Readings as of ${timeOfDay(past ? store.past.at : fleet.at)}.` : '');
  }

  const refresh = setInterval(() => {
    const wait = store.fleet.size <= SMALL_FLEET ? REFRESH_MS.small : REFRESH_MS.large;
    if (!document.hidden && store.live && !map.moving && store.past.at === null && store.now() - store.fleet.at >= wait) loadFleet();
  }, 1000);
  const stops = [on('fleet', () => { if (store.past.at === null) update(); }), on('past', update), machine.leave, () => clearInterval(refresh)];
  update();
  return {
    name: 'Fleet',
    leave() {
      stops.forEach((stop) => stop());
      list.leave();
      map.destroy();
      map = null;
    },
  };
}

function describe(fleet) {
  const levels = [0, 0, 0, 0];
  for (let place = 0; place < fleet.size; place += 1) levels[fleet.level[place]] += 1;
  const parts = [[3, 'critical'], [2, 'warning'], [1, 'notice']].filter(([one]) => levels[one]).map(([one, name]) => `${count(levels[one])} ${name}`);
  return parts.length ? parts.join(', ') : 'none with an alarm';
}

function legend(kind) {
  return h('span', { class: 'legend-mark' }, h('span', { class: `mark mark-${kind}`, 'aria-hidden': 'true' }), capital(kind));
}

function showTip(tip, hit, x, y, canvas) {
  setHidden(tip, !hit);
  if (!hit) return;
  if (hit.cluster) {
    const { levels } = hit.cluster;
    tip.replaceChildren(h('strong', null, plural(hit.cluster.count, 'generator')), h('span', null, `${count(levels[3])} critical, ${count(levels[2])} warning. Click to come closer.`));
  } else {
    const { generator } = hit;
    tip.replaceChildren(
      h('strong', null, visible(generator.generatorID)),
      generator.alarm ? badge(levelName(generator.alarm), `${capital(visible(generator.alarm))}: ${(generator.rules ?? []).map(visible).join(', ')}`) : badge('normal', 'No alarm'),
      h('span', null, `Last seen ${age(generator.last_seen, shownTime())}`));
  }
  tip.style.left = `${Math.min(x + 14, Math.max(8, canvas.clientWidth - 250))}px`;
  tip.style.top = `${Math.min(y + 14, canvas.clientHeight - 84)}px`;
}

function createList() {
  let shown = PAGE;
  let timer = 0;
  const search = h('input', { type: 'search', id: 'search', 'data-testid': 'search', autocomplete: 'off', spellcheck: 'false', placeholder: 'Name or rule', value: chosen.text, oninput: () => change({ text: search.value }), onkeydown: (event) => { if (event.key === 'Enter') body.querySelector('a')?.click(); } });
  const severity = h('select', { id: 'severity', onchange: () => change({ severity: severity.value }) },
    [['all', 'All'], ['any', 'With an alarm'], ['critical', 'Critical'], ['warning', 'Warning'], ['normal', 'Without an alarm']].map(([value, text]) => h('option', { value, selected: value === chosen.severity }, text)));
  const inView = h('input', { type: 'checkbox', checked: chosen.inView, onchange: () => change({ inView: inView.checked }) });
  const found = h('p', { class: 'muted', role: 'status' });
  const { holder, body } = table('Generators that match', ['Generator', 'Alarm', ['°C', 'number'], ['kPa', 'number'], ['Litres', 'number'], 'Last seen'], { 'data-testid': 'search-results' });
  const more = h('button', { type: 'button', onclick: () => { shown += PAGE; update(); } }, 'Show more');
  const element = h('section', { class: 'panel fleet-list', 'aria-labelledby': 'list-title' },
    h('div', { class: 'panel-head' }, h('h2', { id: 'list-title' }, 'Generators'), found),
    h('div', { class: 'filters' },
      h('div', { class: 'field grow' }, h('label', { for: 'search' }, 'Search'), search),
      h('div', { class: 'field' }, h('label', { for: 'severity' }, 'Alarm'), severity),
      h('label', { class: 'check' }, inView, 'Only what the map shows')),
    holder, more);

  function change(part) {
    Object.assign(chosen, part);
    shown = PAGE;
    update();
  }

  function later() {
    clearTimeout(timer);
    timer = setTimeout(update, 150);
  }

  function update() {
    const fleet = shownFleet();
    const { places, matches } = select(fleet, shown);
    setText(found, matches === fleet.size ? '' : `${count(matches)} of ${count(fleet.size)}`);
    setHidden(more, matches <= shown);
    setText(more, `Show more (${count(matches - Math.min(shown, matches))} left)`);
    keyed(body, places.map((place) => fleet.items[place]), (generator) => generator.generatorID, createRow, updateRow);
    if (!places.length) {
      if (!body.querySelector('.none')) body.append(h('tr', { class: 'none' }, h('td', { colspan: 6 }, 'No generator matches. Change the search or the filter.')));
    } else {
      body.querySelector('.none')?.remove();
    }
  }

  return { element, update, later, leave: () => clearTimeout(timer) };
}

/** The first matches, the worst alarms before the others. */
function select(fleet, most) {
  const text = chosen.text.trim().toLowerCase();
  const byLevel = [[], [], [], []];
  let matches = 0;
  for (let place = 0; place < fleet.size; place += 1) {
    const own = fleet.level[place];
    if (!wanted(own)) continue;
    if (chosen.inView && !map?.sees(place)) continue;
    if (text && !contains(fleet.items[place], text)) continue;
    matches += 1;
    if (byLevel[own].length < most) byLevel[own].push(place);
  }
  const places = [...byLevel[3], ...byLevel[2], ...byLevel[1], ...byLevel[0]].slice(0, most);
  return { places, matches };
}

function wanted(own) {
  const { severity } = chosen;
  if (severity === 'all') return true;
  if (severity === 'any') return own > 0;
  return own === level(severity);
}

function contains(generator, text) {
  return generator.generatorID.toLowerCase().includes(text) || visible(generator.generatorID).toLowerCase().includes(text) || Boolean(generator.rules?.some((rule) => rule.toLowerCase().includes(text)));
}

function createRow(generator) {
  const link = h('a', { href: generatorLink(generator.generatorID) }, visible(generator.generatorID));
  return h('tr', { 'data-generator': generator.generatorID }, h('th', { scope: 'row' }, link), h('td'), ...Array.from({ length: 3 }, () => h('td', { class: 'number' })), h('td', { class: 'nowrap' }));
}

function updateRow(row, generator) {
  const [, alarm, temperature, pressure, fuel, seen] = row.children;
  const rules = (generator.rules ?? []).map(visible).join(', ');
  setBadge(alarm, levelName(generator.alarm), generator.alarm ? rules || capital(visible(generator.alarm)) : 'None');
  setAttribute(alarm, 'title', generator.alarm ? `${capital(visible(generator.alarm))}: ${rules}` : '');
  setText(temperature, reading(generator.temperature));
  setText(pressure, reading(generator.pressure));
  setText(fuel, reading(generator.fuel));
  setText(seen, age(generator.last_seen, store.past.at ?? Math.max(store.fleet.at, generator.last_seen)));
}
