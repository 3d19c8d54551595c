// What the advisor says: the limit that binds, what to run, and what one more worker would bring.

import { count, duration, percent, plural, rate } from './format.js';
import { store } from './store.js';
import { figure, h, panel, setAttribute, setHidden, setText } from './ui.js';

const LIMITS = {
  handler: 'Handler',
  cpu: 'CPU',
  serial: 'Loop of a worker',
  fullest_partition: 'Fullest partition',
  hot_generator: 'Hot generator',
  partitions_exhausted: 'Too few partitions',
  uneven: 'Uneven deal',
  broker: 'Broker',
  produce: 'Producing',
  none: 'None',
};

const nameOf = (limit) => LIMITS[limit] ?? limit;
const inside = (limit) => (limit === 'cpu' ? LIMITS.cpu : nameOf(limit).toLowerCase());

export function createPlan() {
  const figures = { limit: figure('Limit that binds'), capacity: figure('Capacity'), workers: figure('Workers to run'), partitions: figure('Partitions to have'), more: figure('One more worker'), gone: figure('Lag gone') };
  const sentences = [h('p', { 'data-testid': 'plan-limit' }), h('p')];
  const told = h('div', { class: 'plan' },
    h('dl', { class: 'figures figures-flat', 'aria-label': 'The plan' }, Object.values(figures).map((one) => one.element)),
    sentences);
  const empty = h('p', { class: 'empty' }, 'Waiting for the first plan.');
  const element = panel('Capacity', { 'data-testid': 'plan', 'aria-label': 'Capacity' }, empty, told);

  function update() {
    const { plan } = store;
    const isThere = Boolean(plan?.binding);
    setHidden(told, !isThere);
    setHidden(empty, isThere);
    setAttribute(element, 'data-limit', isThere ? plan.binding.limit : '');
    if (isThere) show(figures, sentences, plan);
    else if (plan?.error) setText(empty, `There is no plan yet: ${plan.error}.`);
  }

  return { element, update };
}

function show(figures, sentences, plan) {
  const { binding, next, measured, recommend, one_more_replica: more } = plan;
  const free = binding.limit === 'none';
  figures.limit.set(nameOf(binding.limit), next ? `${free ? 'the first to bind' : 'then'}: ${inside(next.limit)}` : '', free ? 'plain' : 'warning');
  figures.capacity.set(rate(measured.capacity), `${rate(measured.arrival)} arrive`, measured.arrival > measured.capacity ? 'critical' : 'plain');
  figures.workers.set(count(recommend.replicas), versus(recommend.replicas, measured.replicas, recommend.is_enough), recommend.is_enough ? 'plain' : 'warning');
  figures.partitions.set(count(recommend.partitions), versus(recommend.partitions, measured.partitions, true));
  figures.more.set(`+${percent(more.gain)}`, more.worth_it ? 'worth it' : free ? 'not needed' : 'not worth it');
  const { drain_seconds: seconds } = plan;
  const waits = measured.lag >= Math.max(measured.rate, 1);
  if (seconds === null || seconds === undefined) figures.gone.set('Never', 'more arrives', 'critical');
  else figures.gone.set(waits ? `In ${duration(Math.max(1000, seconds * 1000))}` : 'Caught up', waits ? `${plural(measured.lag, 'reading')} wait` : '');
  sentences.forEach((sentence, place) => setText(sentence, plan.sentences?.[place] ?? ''));
}

function versus(wanted, present, enough) {
  const now = wanted === present ? 'as now' : `now ${count(present)}`;
  return enough ? now : `${now}; not enough`;
}
