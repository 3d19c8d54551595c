// A world for tests: topics of its own on a real Kafka, workers, a simulator, a dashboard. All by the built binary.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { appendFileSync, closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { createServer } from 'node:net';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const setting = (name) => process.env[name] ?? assert.fail(`${name} is not set: scripts/browser runs these tests`);
const brokers = setting('GENWATCH_TEST_BROKERS');
const binary = setting('GENWATCH_BINARY');
export const out = setting('GENWATCH_BROWSER_OUT');

export const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/** Waits until `look` returns something true, and returns that. What it throws counts as "not yet". */
export async function until(what, look, { seconds = 30, every = 50 } = {}) {
  const deadline = Date.now() + seconds * 1000;
  let last;
  for (;;) {
    try {
      last = await look();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) assert.fail(`not within ${seconds} s: ${what}; at the end: ${show(last)}`);
    await sleep(every);
  }
}

const show = (value) => (value instanceof Error ? value.message : JSON.stringify(value));

export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

// ---------------------------------------------------------------------------------------------------------------------
// Processes. Each is recorded for scripts/browser, which ends what a killed test leaves behind.

const running = new Set();

process.on('exit', () => running.forEach((one) => one.child.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

class Program {
  constructor(name, program, args, online) {
    mkdirSync(path.join(out, 'logs'), { recursive: true });
    this.name = name;
    this.log = path.join(out, 'logs', `${name}.log`);
    const log = openSync(this.log, 'a');
    this.child = spawn(program, args, { stdio: ['pipe', online ? 'pipe' : log, log] });
    closeSync(log);
    if (online) createInterface(this.child.stdout).on('line', online);
    this.child.stdin.on('error', () => {}); // it ended before it read all
    running.add(this);
    this.ended = new Promise((resolve) => {
      this.child.once('error', (error) => resolve({ error }));
      this.child.once('exit', (code, signal) => resolve({ code, signal }));
    }).then((end) => {
      running.delete(this);
      this.end = end;
      return end;
    });
    appendFileSync(path.join(out, 'pids'), `${this.child.pid}\n`);
  }

  get pid() {
    return this.child.pid;
  }

  /** What it has said, for messages. */
  said() {
    return readFileSync(this.log, 'utf8').split('\n').slice(-15).join('\n');
  }

  signal(name) {
    this.child.kill(name);
  }

  async kill() {
    this.signal('SIGKILL');
    return this.ended;
  }

  async stop() {
    this.signal('SIGTERM');
    this.signal('SIGCONT');
    const late = setTimeout(() => this.signal('SIGKILL'), 15_000);
    const end = await this.ended;
    clearTimeout(late);
    return end;
  }
}

/** A command of scripts/kafka on the brokers of these tests. */
export async function kafka(...command) {
  const args = [...command, '--dir', setting('GENWATCH_BROWSER_KAFKA')];
  const program = new Program(`kafka-${command[0]}`, path.join(root, 'scripts/kafka'), args);
  assert.equal((await program.ended).code, 0, program.said());
}

// ---------------------------------------------------------------------------------------------------------------------

export class World {
  /** Makes the topics; everything else starts on demand. */
  static async create(name, { partitions = 6, topic = `${name}_${process.pid}`, group = topic } = {}) {
    const world = new World();
    world.name = `${name}-${process.pid}`;
    world.topic = topic;
    world.group = group;
    world.programs = [];
    const made = world.start('topics', 'topics create', ['--partitions', String(partitions)]);
    assert.equal((await made.ended).code, 0, made.said());
    return world;
  }

  start(name, command, args = [], { group = this.group, online } = {}) {
    const cluster = ['--brokers', brokers, '--topic', this.topic, '--group', group];
    const program = new Program(`${this.name}-${name}`, binary, [...command.split(' '), ...cluster, ...args], online);
    this.programs.push(program);
    return program;
  }

  /** Workers, whose names end with their process ids. Killed, they are missed after the shortest session there is. */
  worker(name, args = []) {
    return this.start(name, 'worker', ['-X', 'session.timeout.ms=6000', ...args]);
  }

  simulator({ generators = 60, rate = 300, args = [] } = {}) {
    return this.start('simulator', 'simulate', ['--generators', String(generators), '--rate', String(rate), ...args]);
  }

  /** Starts the dashboard, again at the same address after it was stopped, and waits until it serves. */
  async dashboard(args = [], host = '127.0.0.1') {
    this.port ??= await freePort();
    this.url = `http://127.0.0.1:${this.port}`;
    const program = this.start('dashboard', 'dashboard', ['--http', `${host}:${this.port}`, ...args]);
    await until('the dashboard serves', async () => {
      assert.equal(program.end, undefined, `it has ended: ${program.said()}`);
      return (await fetch(this.url, { redirect: 'manual' })).status < 400;
    }, { seconds: 60 });
    return program;
  }

  async api(route, options) {
    const response = await fetch(this.url + route, options);
    assert.equal(response.status, 200, `${route}: ${response.status}`);
    return response.json();
  }

  /** Waits until each of these workers owns partitions, by the dashboard's own account. */
  async ready(workers) {
    await until('each worker owns partitions, and each partition has an owner', async () => {
      const { partitions } = await this.api('/api/partitions');
      const owners = partitions.map((one) => one.owner);
      return owners.every(Boolean) && workers.every((worker) => owners.some((owner) => isName(owner, worker)));
    }, { seconds: 90 });
  }

  /** A worker that makes aggregates of a minute, soon after its end. */
  downsampler() {
    return this.start('downsample', 'downsample', ['--grace', '1s']);
  }

  /** A producer of readings that the test makes up; Kafka's own, so that keys are placed as everybody's. */
  async producer(topic = this.topic) {
    const tool = 'org.apache.kafka.tools.ConsoleProducer';
    const program = new Program(`${this.name}-producer-${topic}`, path.join(root, 'scripts/kafka'), ['tool', tool,
      '--bootstrap-server', brokers, '--topic', topic, '--timeout', '0',
      '--reader-property', 'parse.key=true', '--reader-property', 'key.separator=\t']);
    this.programs.push(program);
    return {
      send(id, values = {}) {
        const reading = { generatorID: id, lat: 40.66, lon: -111.99, temperature: 74, pressure: 198, fuel: 901, ...values };
        this.write(id, reading);
      },
      write(key, value) {
        program.child.stdin.write(`${key}\t${JSON.stringify(value)}\n`);
      },
    };
  }

  /** Reads the readings as a task of a connector of this name does. */
  connector(name) {
    const program = new Program(`${this.name}-connector-${name}`, path.join(root, 'scripts/kafka'), ['tool',
      'org.apache.kafka.tools.consumer.ConsoleConsumer', '--bootstrap-server', brokers, '--topic', this.topic,
      '--group', `connect-${name}`, '--from-beginning', '--formatter-property', 'print.value=false']);
    this.programs.push(program);
    return program;
  }

  /** A simulator whose readings come by MQTT: devices, a broker, a bridge. */
  async everythingByMqtt({ generators, rate }) {
    const port = await freePort();
    const file = path.join(out, `${this.name}-mosquitto.conf`);
    writeFileSync(file, `listener ${port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 100000\n`);
    // Debian installs servers where only root's PATH looks.
    const mosquitto = ['/usr/sbin/mosquitto', '/usr/local/sbin/mosquitto'].find(existsSync) ?? 'mosquitto';
    this.programs.push(new Program(`${this.name}-mosquitto`, mosquitto, ['-c', file]));
    const mqtt = `mqtt://127.0.0.1:${port}`;
    this.start('bridge', 'bridge', ['--mqtt', mqtt]);
    this.simulator({ generators, rate, args: ['--to', 'mqtt', '--mqtt', mqtt] });
  }

  /** A sink, and what it sees of InfluxDB while all is well. */
  async sink() {
    this.database = createHttpServer((request, response) => request.resume().on('end', () => response.writeHead(204).end()));
    await new Promise((resolve) => { this.database.listen(0, '127.0.0.1', resolve); });
    const url = `http://127.0.0.1:${this.database.address().port}`;
    this.start('sink', 'sink influx', ['--url', url, '--org', 'o', '--bucket', 'b', '--token', 't']);
  }

  /** Reads alerts as soon as they are committed, and notes when. */
  alerts() {
    const seen = [];
    this.start('alerts', 'alerts', ['--json'], { online: (line) => seen.push({ ...JSON.parse(line), read: Date.now() }) });
    return seen;
  }

  /** All alerts that are committed. */
  async committed() {
    const all = [];
    const end = await this.start('all-alerts', 'alerts', ['--json', '--exit-at-end'], { online: (line) => all.push(JSON.parse(line)) }).ended;
    assert.equal(end.code, 0);
    return all;
  }

  async end() {
    await Promise.all(this.programs.splice(0).map((program) => program.stop()));
    this.database?.closeAllConnections();
    this.database?.close();
  }
}

/** A worker is named HOST-PID. */
export const isName = (name, program) => name.endsWith(`-${program.pid}`);
