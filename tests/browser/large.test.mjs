// A hundred thousand generators.

import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';

import { closePages, id, openBrowser, openDashboard, openPage } from './page.mjs';
import { until, World } from './world.mjs';

const GENERATORS = 100_000;
const ENOUGH_FPS = 30;
let world;
let browser;

before(async () => {
  world = await World.create('large', { partitions: 12 });
  const fill = world.simulator({ generators: GENERATORS, rate: 0, args: ['--count', String(GENERATORS)] });
  browser = await openBrowser();
  assert.equal((await fill.ended).code, 0, fill.said());
  world.worker('w1');
  await world.dashboard();
});

afterEach(() => closePages(browser));

after(async () => {
  await browser?.close();
  await world?.end();
});

test('a hundred thousand generators are on the map, which moves smoothly', { timeout: 120_000 }, async (t) => {
  await until('the dashboard has read them all', async () => (await world.api('/api/fleet')).count === GENERATORS, { seconds: 60, every: 500 });
  await until('the worker has evaluated them all', async () => {
    const { lag, partitions } = await world.api('/api/partitions');
    return lag === 0 && partitions.every((one) => one.owner);
  }, { seconds: 60, every: 500 });
  const asked = Date.now();
  const answer = await (await fetch(`${world.url}/api/fleet`)).arrayBuffer();
  t.diagnostic(`measured: the whole fleet is ${(answer.byteLength / 1e6).toFixed(1)} MB of JSON in ${Date.now() - asked} ms`);

  const page = await openPage(browser);
  const opened = Date.now();
  await openDashboard(page, world.url, '#/fleet');
  await page.waitForFunction((all) => window.genwatchDebug.generators() === all, GENERATORS, { timeout: 30_000 });
  t.diagnostic(`measured: they are on the map ${Date.now() - opened} ms after the page was asked for`);

  const map = await page.locator(id('map')).boundingBox();
  const [x, y] = [map.x + map.width / 2, map.y + map.height / 2];
  await page.mouse.move(x, y);
  await page.mouse.down();
  const began = Date.now();
  for (let step = 0; Date.now() - began < 3000; step += 1) {
    await page.mouse.move(x + 150 * Math.sin(step / 10), y + 80 * Math.cos(step / 13));
  }
  const fps = await page.evaluate(() => window.genwatchDebug.mapFps());
  await page.mouse.up();
  t.diagnostic(`measured: ${Math.round(fps)} frames a second while the map of ${GENERATORS} is dragged (${ENOUGH_FPS} are smooth)`);
  // Far below what is smooth: here other programs compete for the cores, and there is no graphics processor.
  assert.ok(fps >= ENOUGH_FPS / 5, `${fps} frames a second`);
  assert.deepEqual(page.problems, []);
});

test('search finds one of a hundred thousand', async () => {
  const page = await openPage(browser);
  await openDashboard(page, world.url, '#/fleet');
  await page.waitForFunction((all) => window.genwatchDebug.generators() === all, GENERATORS, { timeout: 30_000 });
  await page.locator(id('search')).fill('generator77777');
  await page.locator(id('search-results')).getByText('generator77777', { exact: true }).first().waitFor({ timeout: 3000 });
});
