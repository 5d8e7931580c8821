// The engine: one thread of its own inside the addon that makes every call into libtorch. One per thread count and
// process, shared by all policies that ask for it, stopped when the process exits.
import { availableParallelism } from 'node:os';
import { callNative, float64 } from './job.js';
import { loadNative, registerEngine } from './load.js';
import type { BuildInfo, EngineSpans, MemoryParts, MemoryRequest, NativeEngine } from './types.js';

const engines = new Map<number, NativeEngine>();

/** @param numThreads size of the OpenMP team; 0 = the machine's cores. Part of what makes results bit-equal. */
export function getEngine(numThreads = 0): NativeEngine {
  const threads = resolveThreads(numThreads);
  let engine = engines.get(threads);
  if (!engine) {
    engine = callNative(() => new (loadNative().Engine)({ numThreads: threads }));
    registerEngine(engine);
    engines.set(threads, engine);
  }
  return engine;
}

export function resolveThreads(numThreads: number): number {
  return numThreads > 0 ? numThreads : availableParallelism();
}

/** What the addon was built from and runs on; recorded in every checkpoint's manifest. */
export function buildInfo(): BuildInfo {
  return { ...callNative(() => loadNative().buildInfo()) };
}

/** Resident memory of the process in bytes, now and at its peak. */
export function memoryStats(): { rssBytes: number; peakRssBytes: number } {
  return { ...callNative(() => loadNative().memoryStats()) };
}

/** What a job will take of memory, part by part, in bytes. */
export function memoryParts(request: MemoryRequest): MemoryParts {
  return { ...callNative(() => loadNative().memoryParts(request)) };
}

/** Spans of the engine's work are kept from now on, or no longer. */
export function switchProfile(on: boolean): void {
  callNative(() => loadNative().switchProfile(on));
}

/** Those that have ended since the last call. */
export function takeSpans(): EngineSpans {
  const { names, beginUs, endUs, lost } = callNative(() => loadNative().takeSpans());
  return { names: Array.from(names), beginUs: float64(beginUs), endUs: float64(endUs), lost };
}
