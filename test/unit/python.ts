// Python as an oracle, where one with the wanted package is at hand (PYTHON, else python3); its tests are skipped with a
// printed reason elsewhere.
import { execFile, execFileSync } from 'node:child_process';
import { promisify } from 'node:util';

const { PYTHON: python = 'python3' } = process.env;

/** The interpreter, or undefined where it lacks one of the packages. */
export function pythonWith(...packages: string[]): string | undefined {
  try {
    execFileSync(python, ['-c', `import ${packages.join(', ')}`], { stdio: 'ignore' });
    return python;
  } catch {
    process.stderr.write(`skipped: ${python} has no ${packages.join(', ')} (set PYTHON to one that has)\n`);
    return undefined;
  }
}

/** What a script prints. */
export async function runPython(
  interpreter: string,
  script: string,
  args: string[],
  env: Record<string, string> = {},
): Promise<string> {
  const { stdout } = await promisify(execFile)(interpreter, ['-c', script, ...args], {
    env: { ...process.env, ...env },
  });
  return stdout;
}
