// Kafka itself is away. Runs by itself, as it stops the others' brokers, too.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { changes, id, openBrowser, openDashboard, openPage, texts } from './page.mjs';
import { kafka, until, World } from './world.mjs';

const skip = process.env.GENWATCH_BROWSER_KAFKA ? false : 'the brokers are not ours to stop';
let world;
let browser;

before(async () => {
  if (skip) return;
  world = await World.create('outage');
  const worker = world.worker('w1');
  [browser] = await Promise.all([openBrowser(), world.dashboard()]);
  world.simulator();
  await world.ready([worker]);
});

after(async () => {
  await browser?.close();
  if (!skip) await kafka('resume-node', '1');
  await world?.end();
});

test('while Kafka is away the page says so, keeps what it knows, and goes on by itself', { skip, timeout: 180_000 }, async (t) => {
  const page = await openPage(browser);
  await openDashboard(page, world.url, '#/partitions');
  const away = page.getByText(/doesn't reach Kafka since \d\d:\d\d:\d\d/);
  const rows = () => texts(page, id('partition-row'));
  await until('the partitions are there', async () => (await rows()).length === 6);
  assert.equal(await away.count(), 0);

  await kafka('pause-node', '1');
  const paused = Date.now();
  await away.waitFor({ timeout: 60_000 });
  t.diagnostic(`measured: the page says after ${((Date.now() - paused) / 1000).toFixed(1)} s that Kafka is away`);
  assert.equal((await rows()).length, 6);
  assert.equal(await page.locator(id('connection')).getAttribute('data-state'), 'live');

  await kafka('resume-node', '1');
  const resumed = Date.now();
  await away.waitFor({ state: 'detached', timeout: 60_000 });
  await changes('the table of partitions', rows, { seconds: 60 });
  t.diagnostic(`measured: it moves again ${((Date.now() - resumed) / 1000).toFixed(1)} s after Kafka is back`);
  assert.deepEqual(page.problems, []);
});
