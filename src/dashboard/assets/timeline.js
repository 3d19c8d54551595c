// Who owned which partition when: a row a partition, a bar a time of ownership, red where nobody worked it.

import { FONT, hatch, timeTicks, tooltip } from './charts.js';
import { duration, moment, plural, timeOfDay, visible } from './format.js';
import { on, store } from './store.js';
import { choices, colours, fitCanvas, h, icon, keyed, setAttribute, setHidden, setText, table } from './ui.js';

const MINUTE = 60000;
const ROW = 24;
const LEFT = 34;
const AXIS = 24;
const MOST_TABLE_ROWS = 200;
const OWNER_COLOURS = 8;

const ownerPlaces = new Map();

/** The colour of an owner stays the same as long as the page is open. */
export function ownerColour(owner) {
  if (!ownerPlaces.has(owner)) ownerPlaces.set(owner, ownerPlaces.size);
  return `owner-${ownerPlaces.get(owner) % OWNER_COLOURS}`;
}

export function createTimeline() {
  let span = 60 * MINUTE;
  let end = null;
  let pointer = null;
  let scheduled = 0;

  const canvas = h('canvas', { class: 'timeline', 'data-testid': 'timeline', role: 'img', 'aria-label': 'Hand-over timeline', 'data-gaps': 0, 'data-owners': '' });
  const context = canvas.getContext('2d');
  const summary = h('p', { class: 'muted timeline-summary' });
  const owners = h('ul', { class: 'legend', 'aria-label': 'Legend' });
  const empty = h('p', { class: 'empty' }, 'No hand-over is known yet. The timeline begins with the first worker that takes a partition.');
  const { holder, body } = table('Hand-overs in the time shown, newest first', [['Partition', 'number'], 'Owner', 'Phase', 'From', 'To', ['For', 'number']], { 'data-testid': 'timeline-table' });
  const later = step('forward', 'Later', () => move(0.5));
  const element = h('section', { class: 'panel', 'aria-labelledby': 'timeline-title' },
    h('div', { class: 'panel-head' },
      h('h2', { id: 'timeline-title' }, 'Hand-over timeline'),
      h('div', { class: 'panel-tools' },
        step('back', 'Earlier', () => move(-0.5)), later,
        choices('timeline-span', 'Length of the timeline', [['5', '5 min'], ['60', '1 h'], ['1440', '24 h']], '60', (minutes) => {
          span = Number(minutes) * MINUTE;
          draw();
        }))),
    summary, empty, h('div', { class: 'timeline-holder' }, canvas), owners,
    h('details', null, h('summary', null, 'The timeline as a table'), holder));

  function step(name, label, onclick) {
    return h('button', { type: 'button', class: 'icon-button small', 'aria-label': label, title: label, onclick }, icon(name));
  }

  function move(share) {
    const now = store.now();
    const next = (end ?? now) + span * share;
    end = next >= now ? null : Math.max(next, now - 24 * 60 * MINUTE + span * 0.5);
    draw();
  }

  function schedule() {
    cancelAnimationFrame(scheduled);
    scheduled = requestAnimationFrame(draw);
  }

  function draw() {
    const rows = store.timeline?.rows ?? [];
    setHidden(empty, rows.length > 0);
    setHidden(canvas, rows.length === 0);
    later.disabled = end === null;
    const to = end ?? store.now();
    const from = to - span;
    const shown = visibleSpans(rows, from, to);
    describe(rows, shown, from, to);
    const width = canvas.clientWidth;
    if (width < 40 || !rows.length) return;
    const height = rows.length * ROW + AXIS;
    canvas.style.height = `${height}px`;
    fitCanvas(canvas, context, width, height);
    context.clearRect(0, 0, width, height);
    context.font = FONT;
    const x = (at) => LEFT + ((at - from) / span) * (width - LEFT);
    drawFrame(context, rows, from, to, width, height, x);
    for (const one of shown) if (one.phase !== 'gap') drawSpan(context, one, x, width);
    for (const one of shown) if (one.phase === 'gap') drawGap(context, one, x, width);
    if (pointer) drawTip(context, shown, rows, from, width, height, x);
  }

  function drawTip(target, shown, rows, from, width, height, x) {
    const row = Math.floor(pointer.y / ROW);
    const hit = shown.filter((one) => one.row === row && x(one.from) - 2 <= pointer.x && pointer.x <= x(one.to) + 2).sort((a, b) => (a.phase === 'gap' ? -1 : 0) - (b.phase === 'gap' ? -1 : 0))[0];
    if (!hit) return;
    const now = store.now();
    tooltip(target, [
      `Partition ${hit.partition}: ${hit.phase === 'gap' ? 'nobody worked it' : `${visible(hit.owner)}, ${hit.phase}`}`,
      `${moment(hit.began, now)} to ${hit.open ? 'now' : moment(hit.ended, now)}`,
      `for ${duration(hit.ended - hit.began)}`,
    ], pointer.x, pointer.y + 30, { right: width, top: 0, bottom: height });
  }

  function describe(rows, shown, from, to) {
    const gaps = shown.filter((one) => one.phase === 'gap');
    const current = new Set(rows.map(({ spans }) => spans.at(-1)).filter((last) => last && last.to === null && last.owner).map((last) => last.owner));
    const names = [...current].sort();
    setAttribute(canvas, 'data-gaps', gaps.length);
    setAttribute(canvas, 'data-owners', names.join(','));
    const lost = gaps.reduce((sum, gap) => sum + gap.to - gap.from, 0);
    const now = store.now();
    const text = gaps.length
      ? `${plural(gaps.length, 'gap')} between ${moment(from, now)} and ${moment(to, now)}: partitions went without a worker for ${duration(lost)} in sum.`
      : `No gap between ${moment(from, now)} and ${moment(to, now)}: a worker had each partition all the time that is known.`;
    setText(summary, rows.length ? text : '');
    setAttribute(canvas, 'aria-label', `Hand-over timeline. ${plural(gaps.length, 'gap')}. Owners now: ${names.map(visible).join(', ') || 'none'}. The table below has the same.`);
    const seen = [...new Set(shown.filter((one) => one.owner).map((one) => one.owner))];
    for (const owner of seen) ownerColour(owner);
    keyed(owners, [...seen.sort().slice(0, 16), ...(rows.length ? ['\u0000moving', '\u0000gap'] : [])], (name) => name, legendItem, () => {});
    keyed(body, [...shown].sort((a, b) => b.began - a.began).slice(0, MOST_TABLE_ROWS), (one) => `${one.partition}|${one.began}|${one.phase}|${one.owner}`, tableRow, (row, one) => {
      setText(row.children[4], one.open ? 'goes on' : moment(one.ended, now));
      setText(row.children[5], duration(one.ended - one.began));
    });
  }

  canvas.addEventListener('pointermove', (event) => {
    pointer = { x: event.offsetX, y: event.offsetY };
    schedule();
  });
  canvas.addEventListener('pointerleave', () => {
    pointer = null;
    schedule();
  });
  const resized = new ResizeObserver(schedule);
  resized.observe(canvas);
  window.addEventListener('genwatch-theme', schedule);
  const stops = [on('state', schedule), () => resized.disconnect(), () => window.removeEventListener('genwatch-theme', schedule), () => cancelAnimationFrame(scheduled)];
  draw();
  return { element, leave: () => stops.forEach((stop) => stop()) };
}

function visibleSpans(rows, from, to) {
  const now = store.now();
  const shown = [];
  rows.forEach(({ partition, spans }, row) => {
    for (const one of spans) {
      const ended = one.to ?? now;
      if (ended < from || one.from > to) continue;
      shown.push({ partition, row, owner: one.owner, phase: one.owner ? one.phase : 'gap', began: one.from, ended, open: one.to === null, from: Math.max(from, one.from), to: Math.min(to, ended) });
    }
  });
  return shown;
}

function drawFrame(context, rows, from, to, width, height, x) {
  const palette = colours();
  context.textBaseline = 'middle';
  context.textAlign = 'right';
  rows.forEach(({ partition }, row) => {
    context.fillStyle = palette.track;
    context.fillRect(LEFT, row * ROW + 3, width - LEFT, ROW - 6);
    context.fillStyle = palette.muted;
    context.fillText(String(partition), LEFT - 9, row * ROW + ROW / 2);
  });
  context.textAlign = 'center';
  context.textBaseline = 'alphabetic';
  context.strokeStyle = palette.grid;
  context.lineWidth = 1;
  context.beginPath();
  const { ticks, text } = timeTicks(from, to, Math.max(2, (width - LEFT) / 90));
  for (const tick of ticks) {
    const at = Math.round(x(tick)) + 0.5;
    context.moveTo(at, 0);
    context.lineTo(at, height - AXIS + 4);
    if (at > LEFT + 18 && at < width - 20) context.fillText(text(tick), at, height - 6);
  }
  context.stroke();
}

function drawSpan(context, one, x) {
  const palette = colours();
  const left = x(one.from);
  const width = Math.max(1, x(one.to) - left - (one.open ? 0 : 1));
  const top = one.row * ROW + 3;
  const colour = palette[ownerColour(one.owner)];
  const moving = one.phase !== 'active';
  context.globalAlpha = moving ? 0.18 : 0.3;
  context.fillStyle = colour;
  context.fillRect(left, top, width, ROW - 6);
  context.globalAlpha = 1;
  if (moving) hatch(context, left, top, Math.max(2, width), ROW - 6, colour, 5);
  context.fillStyle = colour;
  context.fillRect(left, top, Math.min(3, width), ROW - 6);
  name(context, moving ? one.phase : visible(one.owner), left + 8, width - 12, top, palette.text);
}

function drawGap(context, one, x, right) {
  const palette = colours();
  const width = Math.max(3, x(one.to) - x(one.from));
  const left = Math.min(x(one.from), right - width);
  const top = one.row * ROW + 3;
  context.fillStyle = palette.gap;
  context.fillRect(left, top, width, ROW - 6);
  name(context, 'nobody', left + 6, width - 8, top, palette['on-gap']);
}

function name(context, text, x, room, top, colour) {
  if (room < 30) return;
  context.save();
  context.beginPath();
  context.rect(x, top, room, ROW - 6);
  context.clip();
  context.textAlign = 'left';
  context.textBaseline = 'middle';
  context.fillStyle = colour;
  context.fillText(text, x, top + (ROW - 6) / 2 + 0.5);
  context.restore();
}

function legendItem(owner) {
  const swatch = h('span', { class: 'swatch', 'aria-hidden': 'true' });
  if (owner === '\u0000gap') swatch.classList.add('swatch-gap');
  else if (owner === '\u0000moving') swatch.classList.add('swatch-moving');
  else swatch.style.background = `var(--${ownerColour(owner)})`;
  const text = { '\u0000gap': 'Nobody worked it', '\u0000moving': 'Restoring or draining' }[owner] ?? visible(owner);
  return h('li', null, swatch, text);
}

function tableRow(one) {
  return h('tr', null,
    h('td', { class: 'number' }, String(one.partition)),
    h('td', null, one.owner ? visible(one.owner) : 'nobody'),
    h('td', null, one.phase),
    h('td', null, timeOfDay(one.began)),
    h('td'),
    h('td', { class: 'number' }));
}
