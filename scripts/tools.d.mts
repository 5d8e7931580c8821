// Types of tools.mjs, for the tests.
export class SetupError extends Error {
  readonly code: 'ARCHER_E_SETUP';
}
export const packageRoot: string;
export function withLock<Result>(path: string, work: () => Promise<Result>): Promise<Result>;
export function parseVersion(text: string | undefined): [number, number] | undefined;
export function atLeast(version: [number, number], minimum: [number, number]): boolean;
export class Progress {
  constructor(label: string, total: number, stream?: { isTTY?: boolean; write(text: string): unknown });
  update(done: number): void;
  end(): void;
}
