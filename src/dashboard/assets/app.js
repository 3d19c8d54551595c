// Starts the page: routes, connection, banners, the newest alert.

import * as alarms from './alarms.js';
import * as fleet from './fleet.js';
import * as flow from './flow.js';
import { age, capital, compact, generatorLink, levelName, plural, timeOfDay, visible, withUnit, zone } from './format.js';
import * as generator from './generator.js';
import * as partitions from './partitions.js';
import { connect, on, store } from './store.js';
import { badge, h, icon, setAttribute, setHidden, setText } from './ui.js';

const VIEWS = { flow, partitions, fleet, generator, alarms };
const ANNOUNCE_EVERY_MS = 6000;

const element = (id) => document.getElementById(id);
const main = element('main');
let current = null;

function route() {
  const [, name, ...rest] = location.hash.split('/');
  const view = Object.hasOwn(VIEWS, name ?? '') ? name : 'flow';
  return { view, parameter: decode(rest.join('/').split('?')[0]) };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show() {
  const { view, parameter } = route();
  if (current?.view === view && current.parameter === parameter) return;
  const first = current === null;
  current?.leave();
  const root = h('div', { class: `view view-${view}`, 'data-testid': `view-${view}` });
  main.replaceChildren(root);
  const mounted = VIEWS[view].mount(root, parameter);
  current = { view, parameter, name: mounted.name, leave: mounted.leave };
  for (const link of document.querySelectorAll('nav.views a')) {
    const here = link.dataset.view === view || (view === 'generator' && link.dataset.view === 'fleet');
    if (here) link.setAttribute('aria-current', link.dataset.view === view ? 'page' : 'true');
    else link.removeAttribute('aria-current');
  }
  showTitle();
  if (!first) {
    window.scrollTo(0, 0);
    const heading = root.querySelector('h1');
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  }
}

function showTitle() {
  const active = store.alerts.active.size;
  const title = `${active ? `(${active}) ` : ''}${current?.name ?? 'Flow'} · genwatch`;
  if (document.title !== title) document.title = title;
}

function showAlarmCount() {
  const active = store.alerts.active.size;
  const holder = element('alarm-count');
  setHidden(holder, active === 0);
  setText(holder, compact(active));
  setAttribute(holder, 'aria-label', `${active} active`);
  setAttribute(holder, 'role', 'img');
  showTitle();
}

function showConnection() {
  const holder = element('connection');
  holder.dataset.state = store.live ? 'live' : 'lost';
  setText(holder, store.live ? 'Live' : store.started ? 'No data' : 'Connecting');
  showBanners();
}

const shownBanners = new Map();

function banner(key, kind, text) {
  const old = shownBanners.get(key);
  if (old?.text === text) return;
  old?.element.remove();
  shownBanners.delete(key);
  if (!text) return;
  const made = h('div', { class: `banner banner-${kind}`, role: 'alert' }, icon(kind), h('p', null, text));
  element('banners').append(made);
  shownBanners.set(key, { text, element: made });
}

function showBanners() {
  const lost = !store.live && store.started;
  banner('connection', 'critical', lost ? `No data since ${timeOfDay(store.lastEvent + store.skew)}. Trying again. What you see may be old.` : null);
  const { kafka } = store;
  const away = kafka && kafka.ok === false;
  const since = away && kafka.since ? ` since ${timeOfDay(kafka.since)}` : '';
  banner('kafka', 'critical', away ? `The dashboard doesn't reach Kafka${since}: ${sentence(kafka.reason)} Readings and alarms stand still here until it does.` : null);
}

function sentence(text) {
  const clean = visible(text || 'no reason is known').trim();
  return /[.!?]$/.test(clean) ? clean : `${clean}.`;
}

function showLatest() {
  const alert = store.latest;
  if (!alert) return;
  const holder = element('latest-alert');
  if (holder.dataset.id !== alert.id) {
    holder.dataset.id = alert.id;
    const raised = alert.state === 'raised';
    holder.replaceChildren(
      raised ? badge(levelName(alert.severity), capital(visible(alert.severity))) : badge('normal', 'Cleared'),
      h('a', { href: generatorLink(alert.generatorID) }, visible(alert.generatorID)),
      h('span', { class: 'latest-rule' }, `${visible(alert.rule)} ${raised ? 'raised' : 'cleared'}`),
      h('span', { class: 'latest-value' }, alert.field ? withUnit(alert.value, alert.field) : ''),
      h('time', { class: 'muted' }, age(alert.at, store.now())));
  }
  setText(holder.querySelector('time'), age(alert.at, store.now()));
}

let unannounced = 0;
let announcedAt = 0;

function noteAlerts(fresh) {
  unannounced += fresh.filter((alert) => alert.state === 'raised').length;
  announce();
}

function announce() {
  if (!unannounced || Date.now() - announcedAt < ANNOUNCE_EVERY_MS) return;
  announcedAt = Date.now();
  const raised = store.alerts.recent.find((alert) => alert.state === 'raised');
  setText(element('announce'), `${plural(unannounced, 'new alarm')}. The newest: ${visible(raised.rule)} of ${visible(raised.generatorID)}.`);
  unannounced = 0;
}

function showFacts() {
  const facts = [
    store.topic && `Topic ${visible(store.topic)}`,
    store.group && `Group ${visible(store.group)}`,
    `Times: ${zone()}`,
    store.version && `genwatch ${visible(store.version)}`,
  ].filter(Boolean);
  element('facts').replaceChildren(...facts.map((fact) => h('span', null, fact)));
}

function showTheme() {
  const dark = window.genwatchTheme.current() === 'dark';
  const button = element('theme-toggle');
  button.replaceChildren(icon(dark ? 'sun' : 'moon'));
  button.setAttribute('aria-label', dark ? 'Use the light theme' : 'Use the dark theme');
  button.title = button.getAttribute('aria-label');
}

element('theme-toggle').addEventListener('click', () => window.genwatchTheme.toggle());
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener('genwatch-theme', showTheme);
window.addEventListener('hashchange', show);

Object.defineProperty(window, 'genwatchDebug', {
  value: Object.freeze({ mapFps: () => fleet.mapFps(), generators: () => store.fleet.size }),
});

on('connection', showConnection);
on('state', showBanners);
on('snapshot', () => {
  showFacts();
  showAlarmCount();
  showLatest();
});
on('alerts', showAlarmCount);
on('alert', (fresh) => {
  showLatest();
  showAlarmCount();
  noteAlerts(fresh);
});
on('tick', () => {
  showLatest();
  announce();
});

showTheme();
showFacts();
show();
connect();
