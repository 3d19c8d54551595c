// What the page knows, and the connection it comes by.

import { level } from './format.js';

const RECENT_KEPT = 500;
const HISTORY_KEPT = 180;
const SILENCE_MS = 5000;
const REOPEN_MS = 12000;
const CHATTER_WINDOW_MS = 60000;
const CHATTER_CYCLES = 3;

/** Generators in columns: what the map draws of 100,000 of them must not be objects. */
export class Fleet {
  constructor() {
    this.version = 0;
    this.clear();
  }

  /** `at` is 0 until generators were loaded; `version` changes with every change. */
  clear() {
    this.at = 0;
    this.version += 1;
    this.items = [];
    this.index = new Map();
    this.x = new Float64Array(0);
    this.y = new Float64Array(0);
    this.level = new Uint8Array(0);
  }

  load(answer) {
    this.clear();
    this.at = answer.at;
    this.reserve(answer.generators.length);
    for (const generator of answer.generators) this.put(generator);
  }

  merge(changed) {
    this.reserve(this.items.length + changed.length);
    for (const generator of changed) this.put(generator);
    this.version += 1;
  }

  reserve(size) {
    if (size <= this.x.length) return;
    const room = Math.max(1024, size, this.x.length * 2);
    for (const column of ['x', 'y', 'level']) {
      const wider = new this[column].constructor(room);
      wider.set(this[column]);
      this[column] = wider;
    }
  }

  put(generator) {
    let place = this.index.get(generator.generatorID);
    if (place === undefined) {
      place = this.items.length;
      this.index.set(generator.generatorID, place);
    }
    this.items[place] = generator;
    this.level[place] = level(generator.alarm);
    if (typeof generator.lat === 'number' && typeof generator.lon === 'number') {
      this.x[place] = (generator.lon + 180) / 360;
      this.y[place] = mercator(generator.lat);
    } else {
      this.x[place] = NaN;
      this.y[place] = NaN;
    }
  }

  get(id) {
    return this.items[this.index.get(id)];
  }

  get size() {
    return this.items.length;
  }
}

export function mercator(lat) {
  const sine = Math.sin((Math.max(-85.05, Math.min(85.05, lat)) * Math.PI) / 180);
  return 0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI);
}

const listeners = new Map();

export const store = {
  live: false,
  started: false,
  lastEvent: 0,
  skew: 0,
  version: '',
  topic: '',
  group: '',
  rules: [],
  keptFrom: 0,
  partitions: null,
  timeline: null,
  lineage: null,
  plan: null,
  counts: { count: null, active: {} },
  kafka: null,
  fleet: new Fleet(),
  past: { at: null, fleet: new Fleet(), loading: false },
  alerts: emptyAlerts(),
  latest: null,
  history: [],
  lagHistory: new Map(),
  now: () => Date.now() + store.skew,
};

function emptyAlerts() {
  return { active: new Map(), recent: [], known: new Set(), cycles: new Map(), byRule: [], ratePerHour: [], lastHour: null, benchmark: { acceptable: 6, maximum: 12 }, top: [] };
}

export function on(kind, listener) {
  if (!listeners.has(kind)) listeners.set(kind, new Set());
  listeners.get(kind).add(listener);
  return () => listeners.get(kind).delete(listener);
}

function emit(kind, value) {
  for (const listener of listeners.get(kind) ?? []) listener(value);
}

/** An answer of the API; a lost session leads to the login page. */
export async function get(path, signal) {
  const response = await fetch(path, { signal, headers: { accept: 'application/json' } });
  if (response.status === 401) {
    location.assign('/login');
    throw new Error('Sign in first.');
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) throw Object.assign(new Error(body?.error || `The server answered ${response.status}.`), { status: response.status });
  return body;
}

let source = null;
let openedAt = 0;
let loadingFleet = null;

export function connect() {
  open();
  setInterval(watch, 1000);
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden) watch();
  });
}

function open() {
  source?.close();
  openedAt = Date.now();
  source = new EventSource('/events');
  listen('snapshot', takeSnapshot);
  listen('state', takeState);
  listen('alert', (data) => takeAlerts(data.alerts ?? []));
  listen('fleet', takeFleet);
  listen('plan', takePlan);
  source.onerror = () => {
    setLive(false);
    if (source.readyState === EventSource.CLOSED) get('/api/time').catch(() => {});
  };
}

function listen(kind, take) {
  source.addEventListener(kind, (event) => {
    store.lastEvent = Date.now();
    take(JSON.parse(event.data));
    setLive(true);
  });
}

function watch() {
  const silent = Date.now() - Math.max(store.lastEvent, openedAt);
  if (silent > SILENCE_MS) setLive(false);
  if (silent > REOPEN_MS || source.readyState === EventSource.CLOSED) open();
  emit('tick');
}

function setLive(live) {
  if (store.live === live && store.started) return;
  store.live = live;
  store.started ||= live;
  emit('connection');
}

function takeSnapshot(data) {
  const reconnected = store.started;
  store.version = data.version ?? '';
  store.topic = data.topic ?? '';
  store.group = data.group ?? '';
  store.rules = data.rules ?? [];
  store.keptFrom = data.kept_from ?? store.keptFrom;
  takeState(data);
  if (data.alerts) setAlerts(data.alerts);
  if (data.plan) takePlan(data.plan);
  emit('snapshot');
  if (reconnected || store.fleet.at === 0) loadFleet();
}

function takePlan(plan) {
  store.plan = plan;
  emit('plan');
}

function takeState(data) {
  if (typeof data.at === 'number') store.skew = data.at - Date.now();
  if (data.lineage) store.lineage = data.lineage;
  if (data.fleet) store.counts = data.fleet;
  if (data.partitions) {
    if (data.partitions.timeline) store.timeline = data.partitions.timeline;
    store.partitions = data.partitions;
    remember(data.partitions);
  }
  if (data.kafka !== undefined) store.kafka = data.kafka;
  if (Array.isArray(data.rate_per_hour)) store.alerts.ratePerHour = data.rate_per_hour;
  emit('state');
}

function remember(partitions) {
  const push = (list, value) => {
    list.push(value);
    if (list.length > HISTORY_KEPT) list.shift();
  };
  push(store.history, { at: partitions.at, lag: partitions.lag, arrivals: partitions.arrivals, processed: partitions.processed });
  for (const { partition, lag } of partitions.partitions ?? []) {
    if (!store.lagHistory.has(partition)) store.lagHistory.set(partition, []);
    push(store.lagHistory.get(partition), lag ?? null);
  }
}

export const alarmKey = (alert) => `${alert.generatorID}\u0000${alert.rule}`;

export function setAlerts(data) {
  const old = store.alerts;
  const alerts = emptyAlerts();
  alerts.cycles = old.cycles;
  for (const alert of data.active ?? []) alerts.active.set(alarmKey(alert), alert);
  alerts.recent = (data.recent ?? []).slice(0, RECENT_KEPT);
  for (const alert of alerts.recent) alerts.known.add(alert.id);
  store.alerts = alerts;
  setStatistics(data);
  store.latest = alerts.recent[0] ?? store.latest;
  emit('alerts');
}

/** The counts that only the server knows; the lists of alerts stay as they are. */
export function setStatistics(data) {
  const { alerts } = store;
  alerts.byRule = data.by_rule ?? alerts.byRule;
  alerts.ratePerHour = data.rate_per_hour ?? alerts.ratePerHour;
  alerts.lastHour = data.last_hour ?? alerts.lastHour;
  alerts.benchmark = data.benchmark ?? alerts.benchmark;
  alerts.top = data.top ?? alerts.top;
}

function takeAlerts(incoming) {
  const fresh = incoming.filter((alert) => !store.alerts.known.has(alert.id));
  for (const alert of fresh) applyAlert(alert);
  if (fresh.length) emit('alert', fresh);
}

function applyAlert(alert) {
  const { alerts } = store;
  const key = alarmKey(alert);
  alerts.known.add(alert.id);
  alerts.recent.unshift(alert);
  if (alerts.recent.length > RECENT_KEPT) alerts.known.delete(alerts.recent.pop().id);
  if (alert.state === 'raised') {
    alerts.active.set(key, { ...alert, chattering: chatters(key, alert.at) });
    if (alerts.lastHour !== null) alerts.lastHour += 1;
  } else {
    alerts.active.delete(key);
    alerts.cycles.set(key, [...(alerts.cycles.get(key) ?? []).filter((at) => alert.at - at < CHATTER_WINDOW_MS), alert.at]);
  }
  store.latest = alert;
}

/** ISA-18.2: three cycles of one alarm within a minute. */
function chatters(key, at) {
  const cycles = store.alerts.cycles.get(key) ?? [];
  return cycles.filter((cleared) => at - cleared < CHATTER_WINDOW_MS).length >= CHATTER_CYCLES;
}

function takeFleet(data) {
  // Decommissioning is rare: the whole list shows who is gone.
  if (data.reload || data.removed?.length) return loadFleet();
  if (store.fleet.at === 0 || !data.changed?.length) return undefined;
  store.fleet.merge(data.changed);
  return emit('fleet');
}

export function loadFleet() {
  loadingFleet ??= get('/api/fleet')
    .then((answer) => {
      store.fleet.load(answer);
      emit('fleet');
    })
    .catch(() => {})
    .finally(() => { loadingFleet = null; });
  return loadingFleet;
}

let pastRequest = null;

/** Shows the fleet as it was; null is now. */
export async function travel(at) {
  store.past.at = at;
  pastRequest?.abort();
  pastRequest = null;
  store.past.error = null;
  emit('past');
  if (at === null) return store.past.fleet.clear();
  const request = new AbortController();
  pastRequest = request;
  await new Promise((resolve) => { setTimeout(resolve, 120); });
  if (request.signal.aborted) return undefined;
  try {
    const answer = await get(`/api/fleet?at=${Math.round(at)}`, request.signal);
    if (request.signal.aborted) return undefined;
    store.past.fleet.load(answer);
  } catch (error) {
    if (error.name === 'AbortError') return undefined;
    store.past.error = error.message;
  }
  return emit('past');
}

/** Who owned a partition at a time, as far as the timeline tells; undefined where it doesn't. */
export function ownerAt(partition, at) {
  const row = store.timeline?.rows?.find((one) => one.partition === partition);
  return row?.spans.find((span) => span.from <= at && (span.to === null || at < span.to))?.owner;
}

export const shownFleet = () => (store.past.at === null ? store.fleet : store.past.fleet);
export const shownTime = () => store.past.at ?? store.now();
