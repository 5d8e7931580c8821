// What a person sees of a run: a short report, a table with a row per step, a last report. On a terminal a line below
// the table shows how far the run is; elsewhere a stage that takes long says so now and then.
import pc from 'picocolors';
import { formatBar, formatDuration, formatNumber, formatRow } from './format.js';
import { type ProgressUpdate, StageClock } from './progress.js';
import type { MetricsSink, RunEnd, RunInfo, StepRecord } from './sink.js';

/** The part of a writable stream that is needed; process.stdout and process.stderr have it. */
export interface ConsoleStream {
  write(text: string): unknown;
  isTTY?: boolean;
  columns?: number;
}

export interface ConsoleOptions {
  /** Default process.stdout; process.stderr where stdout belongs to a machine (--json). */
  stream?: ConsoleStream;
  /** Default: what picocolors finds out (NO_COLOR, FORCE_COLOR), and only on a terminal. */
  color?: boolean;
  /** Default 30,000: a stage that runs longer than this says so where there is no terminal. */
  heartbeatMs?: number;
  nowMs?: () => number;
}

interface Column {
  title: string;
  width: number;
  value: (record: StepRecord) => string;
}

const metric = (name: string) => (record: StepRecord) => formatNumber(record.metrics[name]);

const columns: Column[] = [
  { title: 'reward', width: 7, value: metric('critic/score/mean') },
  { title: 'groups', width: 6, value: metric('batch/kept_groups') },
  { title: 'entropy', width: 7, value: metric('actor/entropy') },
  { title: 'kl', width: 7, value: metric('actor/kl_loss') },
  { title: 'clipped', width: 7, value: metric('actor/pg_clipfrac') },
  { title: 'grad', width: 7, value: metric('actor/grad_norm') },
  { title: 'length', width: 6, value: metric('response_length/mean') },
  { title: 'tokens/s', width: 8, value: (record) => formatNumber(record.timings['perf/throughput']) },
  { title: 'time', width: 6, value: (record) => formatDuration(record.timings['timing_s/step'] ?? Number.NaN) },
];

const headerEvery = 25;
const redrawEveryMs = 100;
const stepsForRate = 20;
const valPrefix = 'val-core/';

interface Evaluated {
  name: string;
  value: number;
  /** 95 % interval, where there is one. */
  interval?: [low: number, high: number];
}

/** What people look at: avg@n and maj@n with their intervals. pass@k is in the files; here pass@1 would repeat avg@n. */
function validation({ metrics }: StepRecord): Evaluated[] {
  return Object.entries(metrics)
    .filter(([name]) => name.startsWith(valPrefix) && !name.includes('/ci_') && !name.includes('/pass@'))
    .map(([name, value]) => {
      const [low, high] = [metrics[`${name}/ci_low`], metrics[`${name}/ci_high`]];
      const interval: Evaluated['interval'] = low === undefined || high === undefined ? undefined : [low, high];
      return { name: name.slice(valPrefix.length), value, interval };
    });
}

function withInterval({ value, interval }: Evaluated): string {
  const range = interval === undefined ? '' : ` (${formatNumber(interval[0])} to ${formatNumber(interval[1])})`;
  return `${formatNumber(value)}${range}`;
}

export class ConsoleSink implements MetricsSink {
  readonly #stream: ConsoleStream;
  readonly #isTTY: boolean;
  readonly #colors: ReturnType<typeof pc.createColors>;
  readonly #heartbeatMs: number;
  readonly #nowMs: () => number;
  readonly #stage = new StageClock();
  #timer: NodeJS.Timeout | undefined;
  #info: RunInfo | undefined;
  #beganMs = 0;
  #drawnMs = Number.NEGATIVE_INFINITY;
  #hasStatus = false;
  #rows = 0;
  #stepSeconds: number[] = [];
  #last: StepRecord | undefined;
  #rewards: [step: number, reward: number][] = [];
  #validations: ({ step: number } & Evaluated)[] = [];

  constructor(options: ConsoleOptions = {}) {
    this.#stream = options.stream ?? process.stdout;
    this.#isTTY = this.#stream.isTTY === true;
    this.#colors = pc.createColors(options.color ?? (this.#isTTY && pc.isColorSupported));
    this.#heartbeatMs = options.heartbeatMs ?? 30_000;
    this.#nowMs = options.nowMs ?? Date.now;
  }

  #line(text: string): void {
    this.#stream.write(`${this.#hasStatus ? '\r\x1b[2K' : ''}${text}\n`);
    this.#hasStatus = false;
  }

  note(line: string): void {
    this.#line(line);
    this.#draw();
  }

  start(info: RunInfo): void {
    this.#info = info;
    this.#beganMs = this.#nowMs();
    this.#line(this.#colors.bold(info.title));
    this.#line(`  folder: ${info.runDir}`);
    for (const detail of info.details ?? []) this.#line(`  ${detail}`);
    const from = info.startStep > 0 ? `, going on after step ${info.startStep}` : '';
    this.#line(`  ${info.totalSteps} training steps${from}`);
    this.#timer = setInterval(() => this.tick(), 1000);
    this.#timer.unref();
  }

  #stepWidth(): number {
    return Math.max(4, String(this.#info?.totalSteps ?? 0).length);
  }

  #row(first: string, cells: readonly string[]): string {
    return formatRow([first, ...cells], [this.#stepWidth(), ...columns.map((column) => column.width)]);
  }

  step(record: StepRecord): void {
    this.#stage.clear();
    this.#last = record;
    const seconds = record.timings['timing_s/step'];
    if (seconds !== undefined) this.#stepSeconds = [...this.#stepSeconds, seconds].slice(-stepsForRate);
    const reward = record.metrics['critic/score/mean'];
    if (reward !== undefined && Number.isFinite(reward)) this.#rewards.push([record.step, reward]);
    const found = validation(record);
    // Step 0 is the evaluation before training: it has no row, only its results.
    if (record.step > 0 || found.length === 0) {
      if (this.#rows++ % headerEvery === 0) {
        const titles = columns.map((column) => column.title);
        this.#line(this.#colors.dim(this.#row('step', titles)));
      }
      const cells = columns.map((column) => column.value(record));
      this.#line(this.#row(String(record.step), cells));
    }
    if (found.length > 0) {
      for (const one of found) this.#validations.push({ step: record.step, ...one });
      const results = found.map((one) => `${one.name} ${withInterval(one)}`).join('   ');
      this.#line(this.#colors.green(`${String(record.step).padStart(this.#stepWidth())}  evaluation: ${results}`));
    }
    this.#draw();
  }

  progress(update: ProgressUpdate): void {
    const now = this.#nowMs();
    const isNew = this.#stage.current?.stage !== update.stage;
    this.#stage.update(update, now);
    if (isNew || now - this.#drawnMs >= redrawEveryMs) this.#draw();
  }

  /** Called every second: redraws the status line, or says that a long stage still runs. */
  tick(): void {
    if (this.#isTTY) {
      this.#draw();
      return;
    }
    const now = this.#nowMs();
    if (this.#stage.heartbeatDue(now, this.#heartbeatMs)) {
      const elapsed = formatDuration(this.#stage.elapsedMs(now) / 1000);
      this.#line(`${this.#stageText()} (${elapsed})`);
    }
  }

  #stageText(): string {
    const current = this.#stage.current;
    if (current === undefined) return `step ${this.#last?.step ?? this.#info?.startStep ?? 0}`;
    const percent = current.fraction === undefined ? '' : ` ${Math.floor(current.fraction * 100)} %`;
    const detail = current.detail === undefined ? '' : `, ${current.detail}`;
    return `step ${current.step}/${this.#info?.totalSteps ?? '?'}: ${current.stage}${percent}${detail}`;
  }

  #secondsLeft(): number {
    const { totalSteps = 0, startStep = 0 } = this.#info ?? {};
    if (this.#stepSeconds.length === 0) return Number.NaN;
    const mean = this.#stepSeconds.reduce((sum, value) => sum + value, 0) / this.#stepSeconds.length;
    return mean * Math.max(0, totalSteps - (this.#last?.step ?? startStep));
  }

  #draw(): void {
    if (!this.#isTTY || this.#info === undefined) return;
    this.#drawnMs = this.#nowMs();
    const { totalSteps, startStep } = this.#info;
    const done = this.#last?.step ?? startStep;
    const validated = this.#validations.at(-1);
    const parts = [
      formatBar(done / Math.max(1, totalSteps), 16),
      this.#stageText(),
      this.#last && `reward ${formatNumber(this.#last.metrics['critic/score/mean'])}`,
      validated && `${validated.name} ${formatNumber(validated.value)}`,
      this.#last && `${formatNumber(this.#last.timings['perf/throughput'])} tokens/s`,
      this.#stepSeconds.length > 0 && `${formatDuration(this.#secondsLeft())} left`,
    ];
    const text = parts.filter(Boolean).join('  ');
    // A line that wraps could not be taken back.
    this.#stream.write(`\r\x1b[2K${this.#colors.cyan(text.slice(0, (this.#stream.columns ?? 80) - 1))}`);
    this.#hasStatus = true;
  }

  #lineOfChange(name: string, values: readonly [step: number, value: number][]): void {
    if (values.length === 0) return;
    const ends = values.length > 1 ? [values[0], values.at(-1)] : values;
    this.#line(`  ${name}: ${ends.map((end) => `${formatNumber(end?.[1])} (step ${end?.[0]})`).join(' -> ')}`);
  }

  close(end: RunEnd): void {
    clearInterval(this.#timer);
    this.#stage.clear();
    if (this.#info === undefined) return;
    const { startStep, totalSteps, runDir } = this.#info;
    const done = this.#last?.step ?? startStep;
    const took = formatDuration((this.#nowMs() - this.#beganMs) / 1000);
    this.#line(this.#colors.bold(`${end.status}: ${done} of ${totalSteps} steps, ${took}`));
    this.#lineOfChange('reward', this.#rewards);
    for (const name of new Set(this.#validations.map((one) => one.name))) {
      const results = this.#validations.filter((one) => one.name === name);
      const ends = results.length > 1 ? [results[0], results.at(-1)] : results;
      this.#line(`  ${name}: ${ends.map((one) => `${one && withInterval(one)} (step ${one?.step})`).join(' -> ')}`);
    }
    for (const detail of end.details ?? []) this.#line(`  ${detail}`);
    this.#line(`  folder: ${runDir}`);
    this.#info = undefined;
  }
}
