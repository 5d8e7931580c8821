// Programs that are right, wrong or hostile, at every level of isolation that this machine has: each has a typed outcome,
// none reaches what is expected of it, and nothing outlives its test.
import { chownSync, existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, describe, expect, test } from '@jest/globals';
import { checkCodeVerifier } from '../../lib/reward/code/check.js';
import { type InterpreterKind, isolationLevels } from '../../lib/reward/code/sandbox.js';
import { type CodeVerifier, createCodeVerifier } from '../../lib/reward/code.js';
import { createScorer } from '../../lib/reward/score.js';
import type { RewardInput, Verdict } from '../../lib/reward/types.js';

const printed = JSON.stringify({ inputs: ['3 4\n'], outputs: ['7\n'] });
const called = JSON.stringify({ fn_name: 'add', inputs: ['3\n4', '1\n2'], outputs: ['7', '3'] });
const asserted = ['assert add(3, 4) == 7', 'assert add(1, 2) == 3'];

const input = (program: string, groundTruth: string | string[], extraInfo = {}): RewardInput => ({
  prompt: '',
  response: `\`\`\`python\n${program}\n\`\`\``,
  groundTruth,
  extraInfo,
  dataSource: 'codecontests',
});

/** The processes that descend from this one: [pid, command]. */
function descendants(): [number, string][] {
  const parents = new Map<number, { parent: number; command: string }>();
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const [, command = '', rest = ''] = /^\d+ \((.*)\) (.*)$/s.exec(readFileSync(`/proc/${name}/stat`, 'utf8')) ?? [];
      const [state, parent] = rest.split(' ');
      if (state !== 'Z') parents.set(Number(name), { parent: Number(parent), command });
    } catch {
      // It has ended meanwhile.
    }
  }
  const isOurs = (pid: number): boolean => {
    const parent = parents.get(pid)?.parent;
    return parent !== undefined && (parent === process.pid || isOurs(parent));
  };
  return [...parents].filter(([pid]) => isOurs(pid)).map(([pid, { command }]) => [pid, command]);
}

const sandboxed = () => descendants().filter(([, command]) => /^(python|pyodide|bwrap)/.test(command));

async function untilNone(pids: number[]): Promise<number[]> {
  for (let i = 0; i < 40; i += 1) {
    const alive = new Set(descendants().map(([pid]) => pid));
    const left = pids.filter((pid) => alive.has(pid));
    if (left.length === 0 || i === 39) return left;
    await new Promise((done) => setTimeout(done, 50));
  }
  return [];
}

const stdinCases: [name: string, program: string, outcome: string, needs?: RegExp][] = [
  ['right', 'a, b = map(int, input().split())\nprint(a + b)', 'ok'],
  [
    'right, behind a main guard, with a thread and a deep stack',
    'import threading\ndef main():\n  sys.setrecursionlimit(10**6)\n  print(sum(map(int, input().split())))\nif __name__ == "__main__":\n  threading.stack_size(2**26)\n  t = threading.Thread(target=main)\n  t.start()\n  t.join()',
    'ok',
    /seccomp|bubblewrap/,
  ],
  ['right, and then exit()', 'print(7)\nexit()', 'ok'],
  ['wrong', 'print(8)', 'wrong'],
  ['right output, exit status 1', 'print(7)\nexit(1)', 'wrong exit'],
  ['no Python', 'print(', 'wrong exception'],
  ['an exception', 'print(7)\n1 / 0', 'wrong exception'],
  ['says that it passed, and leaves', 'import os\nprint("ok passed True")\nos._exit(0)', 'wrong'],
  ['endless print', 'while True: print("x" * 100)', 'crash output'],
  ['100 GB at once', 'x = bytearray(100 * 10**9)', 'crash memory'],
  ['memory piece by piece', 'x = []\nwhile True: x.append(bytearray(10**8))', 'crash memory'],
  ['deep recursion', 'def f(n): return f(n + 1)\nf(0)', 'wrong exception'],
  ['ctypes', 'import ctypes\nctypes.string_at(0)', 'crash signal'],
  ['kills its parent', 'import os\nos.kill(os.getppid(), 9)\nprint(7)', 'wrong exception'],
  ['kills its group', 'import os\nos.kill(0, 9)\nprint(7)', 'crash signal'],
  [
    'forks 200 times',
    'import os\nfor _ in range(200):\n  if os.fork() == 0: os._exit(0)\nprint(7)',
    'crash processes',
    /seccomp/,
  ],
  ['runs a command', 'import subprocess\nsubprocess.run(["ls"])\nprint(7)', 'crash processes', /seccomp/],
  ['a socket', 'import socket\nsocket.create_connection(("127.0.0.1", 22), 1)', 'wrong exception'],
  ['reads /etc/passwd', 'open("/etc/passwd")\nprint(7)', 'wrong exception', /bubblewrap|landlock/],
  [
    'looks for the environment',
    'import os\nprint(7 if set(os.environ) <= {"PATH", "HOME", "PWD", "LC_ALL", "PYTHONHASHSEED", "PYTHONIOENCODING"} else 8)',
    'ok',
  ],
  ['writes elsewhere', 'open("/usr/lib/x", "w")\nprint(7)', 'wrong exception'],
  [
    'writes much',
    'for i in range(200): open(f"/tmp/archer-{i}", "wb").write(b"x" * 10**7)\nprint(7)',
    'wrong exception',
  ],
  [
    'writes into the process that guards it',
    'for p in (1, os.getppid()):\n  open(f"/proc/{p}/mem", "r+b")\nprint(7)',
    'wrong exception',
    /bubblewrap|landlock/,
  ],
  [
    'sends a signal as the owner of a descriptor',
    'import fcntl, socket\nfcntl.fcntl(socket.socketpair()[0], 8, os.getppid())\nprint(7)',
    'wrong exception',
    /seccomp/,
  ],
  [
    'clears its death signal',
    'import ctypes\nprint(7 if ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == -1 else 8)',
    'ok',
    /seccomp/,
  ],
  [
    'a queue that outlives it',
    'import ctypes\nprint(7 if ctypes.CDLL(None).syscall(68, 0, 0o600) == -1 else 8)',
    'ok',
    /seccomp/,
  ],
  [
    'finds no descriptors but its own',
    'import os\ndef is_open(fd):\n  try: return bool(os.fstat(fd))\n  except OSError: return False\nprint(7 if not any(map(is_open, range(3, 2000))) else 8)',
    'ok',
  ],
  [
    'symbolic links, which no limit counts',
    'import os\nos.symlink("a" * 4000, "/tmp/x")\nprint(7)',
    'wrong exception',
    /seccomp|landlock/,
  ],
  [
    'thousands of threads',
    'import threading, time\nthreading.stack_size(32768)\nfor _ in range(200): threading.Thread(target=time.sleep, args=(1,), daemon=True).start()\nprint(7)',
    'crash processes',
    /bubblewrap with seccomp/,
  ],
  ['errors without end', 'import sys\nwhile True: sys.stderr.write("x" * 10**6)', 'crash output'],
  ['memory behind file descriptors', 'import os\nos.memfd_create("x")\nprint(7)', 'wrong exception', /seccomp/],
];

/** What is otherwise where there are no processes, no signals and no memory that cannot be read. */
const inWebAssembly = new Map([
  ['ctypes', 'wrong'],
  ['kills its group', 'wrong exception'],
  ['forks 200 times', 'wrong exception'],
  ['runs a command', 'wrong exception'],
  ['writes much', 'crash signal'],
  ['memory behind file descriptors', 'wrong exception'],
]);

const slowCases: [name: string, program: string, outcome: string][] = [
  ['endless loop', 'while True: pass', 'timeout wall'],
  ['a sleep', 'import time\ntime.sleep(60)', 'timeout wall'],
  [
    'a loop that catches everything',
    'import signal\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)\nwhile True:\n  try:\n    while True: pass\n  except BaseException: pass',
    'timeout wall',
  ],
];

const valueCases: [name: string, program: string, outcome: string][] = [
  ['right', 'def add(a, b): return a + b', 'ok'],
  [
    'without the imports that graders give',
    'def add(a: int, b: Optional[List[int]]): return reduce(lambda x, y: x + y, [a, b])',
    'ok',
  ],
  ['wrong on the second test', 'def add(a, b): return 7', 'wrong'],
  ['not there', 'x = 1', 'wrong exception'],
  ['raises', 'def add(a, b): raise ValueError("no")', 'wrong exception'],
  ['equals everything', 'class E:\n  def __eq__(self, other): return True\ndef add(a, b): return E()', 'wrong'],
  [
    'an int that equals everything',
    'class E(int):\n  def __eq__(self, other): return True\ndef add(a, b): return E(5)',
    'wrong',
  ],
  ['leaves when loaded', 'import os\nos._exit(0)', 'wrong exit'],
  ['leaves when called', 'import os\ndef add(a, b): os._exit(0)', 'wrong exit'],
  [
    'searches its process for what is expected',
    'import gc, sys\ndef add(a, b):\n  seen = [o for o in gc.get_objects() if isinstance(o, dict) and "expected" in o]\n  return seen or sys._getframe(1).f_locals.get("expected", 0)',
    'wrong',
  ],
];

const label = (verdict: Verdict) => `${verdict.outcome}${verdict.detail === undefined ? '' : ` ${verdict.detail}`}`;

/** Each level with python3, the strongest with pyodide. */
const places = [
  ...isolationLevels.map((isolation) => ({ interpreter: 'python3', isolation }) as const),
  { interpreter: 'pyodide', isolation: 'auto' } as const,
];

for (const place of places) {
  // What python3 prints in a tenth of a second takes WebAssembly seconds.
  const testSeconds = place.interpreter === 'pyodide' ? 20 : 5;
  const made: CodeVerifier | string = await createCodeVerifier({ ...place, testSeconds, memoryMiB: 512 }).catch(
    (error: Error) => error.message,
  );
  if (typeof made === 'string') {
    const name = Object.values(place).join(' in ');
    console.log(`skipped: ${name}, because: ${made}`);
    describe.skip(name, () => test('is not to be had here', () => {}));
    continue;
  }
  const { sandbox, verify } = made;
  describe(sandbox.description, () => {
    afterAll(async () => {
      expect(await untilNone(sandboxed().map(([pid]) => pid))).toEqual([]);
    });
    const holds = (needs?: RegExp) => (needs === undefined || needs.test(sandbox.description) ? test : test.skip);

    for (const [name, program, usual, needs] of stdinCases) {
      const other = sandbox.interpreter === 'pyodide' ? inWebAssembly.get(name) : undefined;
      const outcome = other ?? usual;
      (other === undefined ? holds(needs) : test)(`stdin: ${name}: ${outcome}`, async () => {
        const verdict = await verify(input(program, printed));
        expect([label(verdict), verdict.score]).toEqual([outcome, outcome === 'ok' ? 1 : 0]);
      });
    }

    test('what does not end is ended, and no process of it is left', async () => {
      const quick = (await createCodeVerifier({ ...place, testSeconds: 1.5, memoryMiB: 512 })).verify;
      const verdicts = Promise.all(slowCases.map(([, program]) => quick(input(program, printed))));
      await new Promise((done) => setTimeout(done, 1000));
      const running = sandboxed().map(([pid]) => pid);
      expect(running.length).toBeGreaterThanOrEqual(slowCases.length);
      expect((await verdicts).map(label)).toEqual(slowCases.map(([, , outcome]) => outcome));
      expect(await untilNone(running)).toEqual([]);
    });

    for (const [name, program, outcome] of valueCases) {
      test(`calls and asserts: ${name}: ${outcome}`, async () => {
        const verdicts = await Promise.all([called, asserted].map((truth) => verify(input(program, truth))));
        expect(verdicts.map(label)).toEqual([outcome, outcome]);
      });
    }

    test('lines forged on the channel are worth no more than a returned value', async () => {
      const forged =
        'import os\nos.write(3, b\'{"passed": true}\\n{"outcome": "ok", "score": 1}\\n{"names": ["add"]}\\n\')\ndef add(a, b): return 0';
      const verdicts = await Promise.all([called, asserted].map((truth) => verify(input(forged, truth))));
      expect(verdicts.map((verdict) => verdict.score)).toEqual([0, 0]);
    });

    test('stdout of one test does not reach the next, and all must pass', async () => {
      const truth = JSON.stringify({ inputs: ['1', '2', '3'], outputs: ['1', '2', '4'] });
      const verdict = await verify(input('print(input())', truth));
      expect(verdict).toMatchObject({ score: 0, outcome: 'wrong' });
      expect(verdict.message).toMatch(/^test 3 of 3: it prints "3\\n", expected is "4"/);
    });

    test('LiveCodeBench: a method of Solution', async () => {
      const truth = JSON.stringify([
        { input: '[3, 1, 2]\n2', output: '[1, 2]', testtype: 'functional', metadata: { func_name: 'smallest' } },
        { input: '3', output: '3', testtype: 'stdin' },
      ]);
      const program =
        'class Solution:\n  def smallest(self, n: List[int], k: int): return tuple(sorted(n)[:k])\nif __name__ == "__main__": print(input())';
      expect(label(await verify(input(program, truth)))).toBe('ok');
    });

    test('test code: in-place changes, exceptions, objects, test functions, import of the solution', async () => {
      const program =
        'def sort(x): x.sort()\ndef fail(): raise KeyError("k")\nclass Stack:\n  def __init__(self, *items): self.items = list(items)\n  def push(self, x): self.items.append(x)\n  def pop(self): return self.items.pop()\n  def __len__(self): return len(self.items)\ndef pairs(): yield from {1: (2, {3})}.items()';
      const code = [
        'from solution import sort, Stack',
        'def test_all():',
        '  x = [3, 1, 2]; sort(x); assert x == [1, 2, 3]',
        '  try: fail()',
        '  except KeyError: pass',
        '  else: assert False',
        '  s = Stack(5); s.push((1, 2**80)); assert len(s) == 2 and s.pop() == (1, 2**80) and s.items == [5]',
        '  assert list(pairs()) == [(1, (2, {3}))]',
      ].join('\n');
      expect(await verify(input(program, JSON.stringify({ functional: code })))).toMatchObject({ outcome: 'ok' });
    });

    test('test code computes with its own functions, not with those of the answer', async () => {
      const program =
        'def add(a, b): return 0\ndef abs(x): return 0\ndef isinstance(*a): return True\nclass math:\n  isclose = lambda *a: True';
      for (const code of [
        'assert abs(add(3, 4) - 7) < 1e-6',
        'assert math.isclose(add(3, 4), 7)',
        'assert isinstance(add(3, 4), str)',
      ]) {
        expect(label(await verify(input(program, code)))).toBe('wrong');
      }
    });

    test.each([
      [
        'its own __builtins__',
        '__builtins__ = type("B", (), {"__call__": lambda s: 0, "__getitem__": lambda s, k: lambda *a: 0})()\ndef add(a, b): return 0',
        'assert abs(add(3, 4) - 7) < 1e-6',
      ],
      [
        'an exception that ends the loop of the tests',
        'def add(a, b): raise StopIteration',
        'assert all(map(lambda case: add(*case) == 7, [(3, 4)]))',
      ],
      [
        'an object that contains everything',
        'class E:\n  def __contains__(self, x): return True\ndef add(a, b): return E()',
        'assert 7 in add(3, 4)',
      ],
      [
        'emptying what the tests compare with',
        'def add(x): x.clear(); return []',
        'x = [3, 1]\nassert add(x) == sorted(x)',
      ],
      [
        'names that it forges',
        'import os\nos.write(3, b\'{"names": ["add", "__builtins__", "__name__", "AssertionError"]}\\n\')\ndef add(a, b): return 0',
        'assert abs(add(3, 4) - 7) < 1e-6',
      ],
    ])('test code is not to be had by %s', async (_name, program, code) => {
      expect(await verify(input(program, [code]))).toMatchObject({ score: 0, outcome: 'wrong' });
    });

    test('a value nested without end is an outcome', async () => {
      const deep = 'import os\ndef add(a, b): os.write(3, b\'{"value":\' + b"[" * 10**5 + b"]" * 10**5 + b"}\\n")';
      expect(await verify(input(deep, called))).toMatchObject({ score: 0, outcome: 'wrong' });
    });

    holds(/rlimits with landlock and seccomp/)('files of its own user keep their rights and times', async () => {
      const file = join(mkdtempSync(join(tmpdir(), 'archer-rights-')), 'file');
      writeFileSync(file, '');
      if (process.getuid?.() === 0) chownSync(file, 65534, 65534);
      const change = (how: string) => `try: ${how}\nexcept OSError: print(7)`;
      for (const how of [`os.chmod("${file}", 0)`, `os.utime("${file}")`, `os.truncate("${file}", 0)`]) {
        expect(label(await verify(input(change(how), printed)))).toBe('ok');
      }
    });

    test('tests that are no tests are a crash, not a reward', async () => {
      const program = 'def add(a, b): return a + b';
      for (const code of [
        'def helper(): assert add(3, 4) == 8',
        'assert True',
        'assert add(3, 4) ==',
        'import os\nadd(3, 4)\nos._exit(0)',
      ]) {
        expect(await verify(input(program, code))).toMatchObject({ score: 0, outcome: 'crash' });
      }
      expect(await verify(input(program, '{"answer": 5}'))).toMatchObject({ score: 0, outcome: 'crash' });
    });

    test('the same verdict every time: sets print in one order, random is seeded', async () => {
      const truth = JSON.stringify({ inputs: [''], outputs: ['x'] });
      const program = 'import random\nprint({"a", "b", "c", "d"}, random.random())';
      const messages = await Promise.all([1, 2, 3].map(async () => (await verify(input(program, truth))).message));
      expect(new Set(messages).size).toBe(1);
    });

    test('max_tests: a spread of the tests', async () => {
      const numbers = Array.from({ length: 20 }, (_, i) => String(i));
      const truth = JSON.stringify({ inputs: numbers, outputs: numbers });
      const stages: string[] = [];
      const few = await createCodeVerifier({ ...place, maxTests: 3 });
      await few.verify(input('print(input())', truth), (stage) => stages.push(stage));
      expect(stages).toEqual(['test 1 of 3', 'test 2 of 3', 'test 3 of 3']);
    });

    test('doctor’s own test passes', async () => {
      expect(await checkCodeVerifier(place)).toMatch(/judged as they must be/);
    });

    test('in the pool: one hang costs one response, its processes end with the worker, the heartbeat names it', async () => {
      const scorer = await createScorer({
        name: 'code',
        timeoutSeconds: 2,
        workers: 2,
        heartbeatSeconds: 0.5,
        code: { ...place, testSeconds: 60 },
      });
      try {
        const waited: unknown[] = [];
        const right = 'print(7)';
        const work = scorer.score(
          [right, 'import time\ntime.sleep(60)', right, right].map((program) => input(program, printed)),
          { onProgress: ({ waiting }) => waiting && waited.push(`${waiting.index} ${waiting.stage}`) },
        );
        // Looked at whenever the heartbeat says that the sleeper is waited for: when that is depends on the machine.
        let running: number[] = [];
        const looking = setInterval(() => {
          if (waited.includes('1 test 1 of 1'))
            running = [...new Set([...running, ...sandboxed().map(([pid]) => pid)])];
        }, 100);
        const verdicts = await work.finally(() => clearInterval(looking));
        expect(verdicts.map((verdict) => verdict.outcome)).toEqual(['ok', 'timeout', 'ok', 'ok']);
        expect(verdicts[1]?.message).toBe('no verdict within 2 s, at test 1 of 1');
        expect(waited).toContain('1 test 1 of 1');
        expect(running.length).toBeGreaterThan(0);
        expect(await untilNone(running)).toEqual([]);
      } finally {
        await scorer.dispose();
      }
    });
  });
}

/** Everything that Python may find of JavaScript, however deeply it was put away. */
const findBridge =
  'import gc\nbridge = next(o.jsproxies["pyodide_js"] for o in gc.get_objects() if type(o).__name__ == "JsFinder")\n';

const weakest = await createCodeVerifier({
  interpreter: 'pyodide',
  isolation: 'rlimits',
  testSeconds: 5,
  memoryMiB: 512,
}).catch(() => undefined);

(weakest === undefined ? describe.skip : describe)('pyodide alone, without namespaces', () => {
  test.each([
    ['imports the bridge', 'import js', 'wrong exception'],
    [
      'evaluates JavaScript',
      `${findBridge}bridge.runPython.constructor("return process")()\nprint(7)`,
      'wrong exception',
    ],
    [
      'evaluates it through C',
      'import ctypes\nctypes.CDLL(None).emscripten_run_script(b"1")\nprint(7)',
      'wrong exception',
    ],
    ['mounts the disk', `${findBridge}bridge.mountNodeFS("/tmp/disk", "/etc")\nprint(7)`, 'wrong exception'],
    ['starts a shell', 'import os\nos.system("true")\nprint(7)', 'wrong exception'],
    ['listens', 'import socket\ns = socket.socket()\ns.bind(("", 4444))\ns.listen()\nprint(7)', 'wrong exception'],
    [
      'memory of JavaScript',
      `${findBridge}kind, x = bridge._module.HEAPU8.constructor, []\nwhile True: x.append(kind.new(10**8).fill(1))`,
      'wrong exception',
    ],
    ['reads what no memory holds', 'import ctypes\nctypes.memset(2**32 - 65536, 1, 65536)', 'crash signal'],
    ['frees a deep value', 'x = []\nfor i in range(10**6): x = [x]\ndel x\nprint(7)', 'wrong exception'],
  ])('%s', async (_name, program, outcome) => {
    expect(label((await weakest?.verify(input(program, printed))) as Verdict)).toBe(outcome);
  });

  test('doctor’s own test passes', async () => {
    expect(await checkCodeVerifier({ interpreter: 'pyodide', isolation: 'rlimits' })).toMatch(/judged as they must be/);
  });
});

const humanEval = '../shared/data/humaneval/HumanEval.jsonl.gz';
const withHumanEval = existsSync(humanEval) ? test : test.skip;
if (!existsSync(humanEval)) console.log(`skipped: HumanEval, because there is no ${humanEval}`);

const humanEvalRows = () =>
  gunzipSync(readFileSync(humanEval))
    .toString()
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
const withPyodide = weakest === undefined ? test.skip : withHumanEval;

/** The outcomes of the reference solutions, changed by what `change` adds to each. */
async function judgeHumanEval(
  interpreter: InterpreterKind,
  rows: ReturnType<typeof humanEvalRows>,
  change: (name: string) => string,
) {
  const scorer = await createScorer({ name: 'code', workers: 2, timeoutSeconds: 30, code: { interpreter } });
  try {
    const inputs = rows.map(({ prompt, canonical_solution: body, test: code, entry_point }) =>
      input(`${prompt}${body}\n${change(entry_point)}`, code, { entry_point }),
    );
    return (await scorer.score(inputs)).map((verdict) => verdict.outcome);
  } finally {
    await scorer.dispose();
  }
}

const unchanged = () => '';
const broken = (name: string) =>
  `_right = ${name}\ndef ${name}(*args):\n  value = _right(*args)\n  if isinstance(value, bool): return not value\n  if isinstance(value, (int, float)): return value + 1\n  if isinstance(value, (str, list, tuple)): return value + type(value)("x")\n  return 0\n`;

withHumanEval(
  'HumanEval: every reference solution passes, and every one with a changed result fails',
  async () => {
    expect(new Set(await judgeHumanEval('python3', humanEvalRows(), unchanged))).toEqual(new Set(['ok']));
    expect(new Set(await judgeHumanEval('python3', humanEvalRows(), broken))).toEqual(new Set(['wrong']));
  },
  120_000,
);

withPyodide(
  'HumanEval in WebAssembly: the same of every 20th',
  async () => {
    const rows = humanEvalRows().filter((_, i) => i % 20 === 0);
    expect(new Set(await judgeHumanEval('pyodide', rows, unchanged))).toEqual(new Set(['ok']));
    expect(new Set(await judgeHumanEval('pyodide', rows, broken))).toEqual(new Set(['wrong']));
  },
  120_000,
);
