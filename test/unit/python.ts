// Python as an oracle, where one with the wanted packages is at hand: PYTHON, the one beside LIBTORCH_ROOT, or python3.
// Elsewhere its tests are skipped with a printed reason.
import { execFile, execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

const { PYTHON: named, LIBTORCH_ROOT: libtorch } = process.env;
const candidates = named ? [named] : [...(libtorch ? [join(libtorch, '../../../../bin/python3')] : []), 'python3'];

/** The interpreter, or undefined where none has the packages. */
export function pythonWith(...packages: string[]): string | undefined {
  for (const python of candidates) {
    try {
      execFileSync(python, ['-c', `import ${packages.join(', ')}`], { stdio: 'ignore' });
      return python;
    } catch {
      // not there, or without a package
    }
  }
  const tried = candidates.join(' and ');
  process.stderr.write(`skipped: ${tried} without ${packages.join(', ')} (set PYTHON to one that has them)\n`);
  return undefined;
}

/** What a script prints. */
export async function runPython(
  python: string,
  script: string,
  args: string[],
  env: Record<string, string> = {},
): Promise<string> {
  const { stdout } = await promisify(execFile)(python, ['-c', script, ...args], { env: { ...process.env, ...env } });
  return stdout;
}
