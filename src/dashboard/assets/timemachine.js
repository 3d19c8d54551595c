// A slider over the time that is kept. It changes what the fleet and one generator show, until "Back to now".

import { moment, zone } from './format.js';
import { get, on, store, travel } from './store.js';
import { h, icon, setAttribute, setHidden, setText } from './ui.js';

const STEP_MS = 60000;
const SLIDER_MS = 1000;

export function createTimeMachine() {
  const label = h('output', { class: 'time-shown', for: 'time-slider' });
  const slider = h('input', { type: 'range', id: 'time-slider', 'data-testid': 'time-slider', step: SLIDER_MS, 'aria-label': 'Time shown' });
  const earliest = h('span', { class: 'muted' });
  const text = h('strong');
  const banner = h('div', { class: 'banner banner-past', 'data-testid': 'time-banner', role: 'status', hidden: true }, icon('notice'), h('p', null, text), h('button', { type: 'button', class: 'primary', onclick: () => travel(null) }, 'Back to now'));
  const stepButton = (name, title, by) => h('button', { type: 'button', class: 'icon-button small', 'aria-label': title, title, onclick: () => goTo((store.past.at ?? store.now()) + by) }, icon(name));
  const later = stepButton('forward', 'One minute later', STEP_MS);
  const element = h('div', { class: 'time-machine', role: 'group', 'aria-label': 'Time machine' },
    h('span', { class: 'time-title' }, 'Time machine'), stepButton('back', 'One minute earlier', -STEP_MS), earliest, slider, later, label);

  function goTo(at) {
    const now = store.now();
    travel(at >= now - 1500 ? null : Math.max(at, store.keptFrom || now - 24 * 3600000));
  }

  function update() {
    const now = store.now();
    const from = store.keptFrom || now - 24 * 3600000;
    setAttribute(slider, 'min', Math.floor(from));
    setAttribute(slider, 'max', Math.floor(now));
    slider.value = String(Math.floor(store.past.at ?? now));
    slider.style.setProperty('--filled', `${((Number(slider.value) - from) / Math.max(1, now - from)) * 100}%`);
    later.disabled = store.past.at === null;
    setText(earliest, moment(from, now));
    setText(label, store.past.at === null ? 'Now' : moment(store.past.at, now));
    setAttribute(slider, 'aria-valuetext', label.textContent);
    setHidden(banner, store.past.at === null);
    element.classList.toggle('is-past', store.past.at !== null);
    if (store.past.at !== null) setText(text, `You see ${moment(store.past.at, now)}, not now.${store.past.error ? ` It isn't complete: ${store.past.error}` : ''}`);
  }

  // The end of the slider is now, though its step and its age keep it a little behind.
  slider.addEventListener('input', () => goTo(Number(slider.value) > Number(slider.max) - SLIDER_MS ? store.now() : Number(slider.value)));
  slider.title = `Times: ${zone()}`;
  const stops = [on('past', update), on('tick', update), on('snapshot', update)];
  get('/api/time').then((time) => {
    store.keptFrom = time.kept_from;
    update();
  }).catch(() => {});
  update();
  return { element, banner, leave: () => stops.forEach((stop) => stop()) };
}
