// A worker that is killed, a dashboard that hangs or is started again.

import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';

import { changes, closePages, id, openBrowser, openDashboard, openPage, openView, texts } from './page.mjs';
import { isName, until, World } from './world.mjs';

// A shorter pause between two owners is no gap.
const UNSEEN_MS = 50;
let world;
let browser;
let workers;
let dashboard;

before(async () => {
  world = await World.create('faults');
  workers = [world.worker('w1'), world.worker('w2')];
  [browser, dashboard] = await Promise.all([openBrowser(), world.dashboard()]);
  world.simulator();
  await world.ready(workers);
});

afterEach(() => closePages(browser));

after(async () => {
  await browser?.close();
  await world?.end();
});

const connection = (page, state) => page.locator(`${id('connection')}[data-state="${state}"]`);

test('a killed worker is overdue, then a gap, then its heir follows', { timeout: 90_000 }, async (t) => {
  const [, victim] = workers;
  const page = await openPage(browser);
  await openDashboard(page, world.url);
  await openView(page, 'partitions');
  const row = page.locator(id('worker-row')).filter({ has: page.locator(`xpath=self::*[contains(@data-worker, "-${victim.pid}")]`) });
  await until('it is active', async () => (await row.getAttribute('data-state')) === 'active');
  const before = await world.api('/api/partitions');
  const orphaned = before.partitions.filter((one) => isName(one.owner, victim)).map((one) => one.partition);
  assert.ok(orphaned.length > 0);

  const began = Date.now();
  await victim.kill();
  await until('the page calls it overdue', async () => (await row.getAttribute('data-state')) === 'overdue', { seconds: 15 });
  t.diagnostic(`measured: a killed worker is overdue on the page after ${((Date.now() - began) / 1000).toFixed(1)} s`);
  await until('the timeline has a gap', async () => Number(await page.locator(id('timeline')).getAttribute('data-gaps')) > 0, { seconds: 15 });

  await until('all partitions have the same heir', async () => {
    const { partitions } = await world.api('/api/partitions');
    return partitions.every((one) => one.owner && isName(one.owner, workers[0]));
  }, { seconds: 40 });
  t.diagnostic(`measured: its partitions have their heir after ${((Date.now() - began) / 1000).toFixed(1)} s`);

  const { timeline } = await world.api('/api/partitions');
  for (const { partition, spans } of timeline.rows.filter((one) => orphaned.includes(one.partition))) {
    const owners = spans.map((span) => (span.phase === 'gap' ? 'gap' : isName(span.owner, victim) ? 'victim' : 'heir'));
    const seen = owners.filter((owner, at) => owner !== owners[at - 1]).join(' ');
    assert.match(seen, /victim gap heir$/, `partition ${partition}: ${JSON.stringify(spans)}`);
    for (const [at, span] of spans.slice(1).entries()) {
      const hole = span.from - spans[at].to;
      assert.ok(hole >= 0 && hole < UNSEEN_MS, `partition ${partition}: ${hole} ms between spans: ${JSON.stringify(spans)}`);
    }
  }
  const table = page.locator(id('timeline-table'));
  await until('the table says so too', async () => {
    const text = await table.textContent();
    return text.includes(`-${victim.pid}`) && text.includes(`-${workers[0].pid}`);
  });
  assert.deepEqual(page.problems, []);
});

test('a dashboard that hangs is noticed, and goes on where it is', { timeout: 60_000 }, async () => {
  const page = await openPage(browser);
  await openDashboard(page, world.url);
  await openView(page, 'partitions');
  dashboard.signal('SIGSTOP');
  await connection(page, 'lost').waitFor({ timeout: 15_000 });
  assert.match(await page.locator('body').innerText(), /No data since \d\d:\d\d:\d\d/);
  dashboard.signal('SIGCONT');
  await connection(page, 'live').waitFor({ timeout: 20_000 });
  await changes('the table of partitions', () => texts(page, id('partition-row')));
});

test('a dashboard that is started again shows the same, and pages find it by themselves', { timeout: 90_000 }, async () => {
  const page = await openPage(browser);
  await openDashboard(page, world.url);
  await openView(page, 'partitions');
  const past = (spans) => spans.filter((span) => span.to !== null).map(({ owner, phase }) => `${owner} ${phase}`);
  const before = await world.api('/api/partitions');
  const alarms = async () => (await world.api('/api/alerts')).active.map((one) => `${one.generatorID} ${one.rule}`).sort();

  assert.equal((await dashboard.stop()).code, 0, dashboard.said());
  await connection(page, 'lost').waitFor({ timeout: 15_000 });
  dashboard = await world.dashboard();
  await connection(page, 'live').waitFor({ timeout: 20_000 });
  await changes('the table of partitions', () => texts(page, id('partition-row')));

  const later = await until('the timeline is back', async () => {
    const now = await world.api('/api/partitions');
    return now.timeline.rows.length === before.timeline.rows.length && now.timeline.rows.every((row) => row.spans.length > 0) && now;
  });
  for (const { partition, spans } of before.timeline.rows) {
    const again = later.timeline.rows.find((row) => row.partition === partition).spans;
    assert.deepEqual(past(again).slice(0, past(spans).length), past(spans), `partition ${partition}`);
    for (const [at, span] of spans.entries()) assert.ok(Math.abs(span.from - again[at].from) < 2500, `partition ${partition}, span ${at}`);
  }
  const committed = await until('what is active is what a reader of all alerts finds', async () => {
    const active = new Set();
    for (const alert of (await world.committed())) active[alert.state === 'raised' ? 'add' : 'delete'](`${alert.generatorID} ${alert.rule}`);
    const now = await alarms();
    return JSON.stringify(now) === JSON.stringify([...active].sort()) && now;
  });
  assert.ok(committed.length >= 0);
  await until('the timeline on the page shows the gap again', async () => Number(await page.locator(id('timeline')).getAttribute('data-gaps')) > 0);
});
