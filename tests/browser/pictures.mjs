// The pictures of the documentation: a system with everything in it, in the middle of a hand-over.

import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { closePages, id, openBrowser, openDashboard, openPage } from './page.mjs';
import { sleep, until, World } from './world.mjs';

const WATCHED_MS = 120_000;
const folder = process.env.GENWATCH_SCREENSHOTS;
let world;
let browser;
let workers;

before(async () => {
  browser = await openBrowser();
  // A Kafka of its own: the usual names are free.
  world = await World.create('pictures', { partitions: 12, topic: 'emergency_generators', group: 'genwatch' });
  workers = ['w1', 'w2', 'w3'].map((name) => world.worker(name, ['--work', '500us']));
  world.downsampler();
  await Promise.all([world.everythingByMqtt({ generators: 240, rate: 480 }), world.sink(), world.dashboard()]);
  await world.ready(workers);
});

after(async () => {
  await closePages(browser);
  await browser.close();
  await world.end();
});

async function take(view) {
  // The whole way, from devices to database, has room beside each other.
  const [width, height] = view === 'flow' ? [1440, 900] : [1280, 800];
  const page = await openPage(browser, { width, height });
  await openDashboard(page, world.url, `#/${view}`);
  if (view === 'partitions') {
    await page.locator('label').filter({ hasText: '5 min' }).click();
    await page.locator(id('timeline')).scrollIntoViewIfNeeded();
  }
  if (view === 'fleet') await page.waitForFunction(() => window.genwatchDebug.generators() >= 240);
  await until('the numbers are there', async () => /\d/.test(await page.locator('main').innerText()));
  await sleep(3000); // rates and sparklines, too
  await page.screenshot({ path: path.join(folder, `dashboard-${view}.png`) });
}

test('pictures for the documentation', async () => {
  mkdirSync(folder, { recursive: true });
  await sleep(WATCHED_MS);
  await take('flow');
  await take('fleet');
  await workers[1].kill();
  await world.ready([workers[0], workers[2]]);
  await world.ready([world.worker('w4', ['--work', '500us'])]);
  await sleep(WATCHED_MS / 2);
  await take('partitions');
  await take('alarms');
});
