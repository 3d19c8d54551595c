// The pictures of the documentation: a system with everything in it, in the middle of a hand-over.

import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { closePages, id, openBrowser, openDashboard, openPage, VIEWS } from './page.mjs';
import { freePort, out, sleep, until, World } from './world.mjs';

const WATCHED_MS = 60_000;
const folder = process.env.GENWATCH_SCREENSHOTS;
let world;
let browser;
let database;

before(async () => {
  browser = await openBrowser();
  // A Kafka of its own: the usual names are free.
  world = await World.create('pictures', { partitions: 12, topic: 'emergency_generators', group: 'genwatch' });
  const mqtt = await startMosquitto();
  const workers = ['w1', 'w2', 'w3'].map((name) => world.worker(name, ['--work', '500us']));
  world.start('bridge', 'bridge', ['--mqtt', mqtt]);
  world.start('sink', 'sink influx', ['--url', await startDatabase(), '--token', 'none'], { group: 'genwatch_influx' });
  await world.dashboard();
  await world.ready(workers);
  world.simulator({ generators: 240, rate: 480, args: ['--to', 'mqtt', '--mqtt', mqtt] });
  await sleep(WATCHED_MS);
  await workers[1].kill();
  await world.ready([workers[0], workers[2]]);
  await world.ready([world.worker('w4', ['--work', '500us'])]);
  await sleep(WATCHED_MS / 2);
});

after(async () => {
  await closePages(browser);
  await browser.close();
  await world.end();
  database.close();
});

async function startMosquitto() {
  const port = await freePort();
  const file = path.join(out, 'mosquitto.conf');
  writeFileSync(file, `listener ${port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 100000\n`);
  world.other('mosquitto', ['/usr/sbin/mosquitto', '/usr/local/sbin/mosquitto'].find(existsSync) ?? 'mosquitto', ['-c', file]);
  return `mqtt://127.0.0.1:${port}`;
}

/** What the sink sees of InfluxDB while all is well. */
async function startDatabase() {
  database = createServer((request, response) => {
    request.resume().on('end', () => response.writeHead(204).end());
  });
  await new Promise((resolve) => { database.listen(0, '127.0.0.1', resolve); });
  return `http://127.0.0.1:${database.address().port}`;
}

test('pictures for the documentation', async () => {
  mkdirSync(folder, { recursive: true });
  const page = await openPage(browser, { width: 1280, height: 800 });
  for (const view of VIEWS) {
    await openDashboard(page, world.url, `#/${view}`);
    if (view === 'partitions') await page.locator('label').filter({ hasText: '5 min' }).first().click();
    if (view === 'partitions') await page.locator(id('timeline')).scrollIntoViewIfNeeded();
    if (view === 'fleet') await page.waitForFunction(() => window.genwatchDebug.generators() >= 240);
    await until('the numbers are there', async () => /\d/.test(await page.locator('main').innerText()));
    await sleep(3000); // what moves has moved: rates, sparklines
    await page.screenshot({ path: path.join(folder, `dashboard-${view}.png`) });
  }
});
