// Within one step: which stage runs and how far it is. Fed by the trainer, read by the console.

export const stages = ['generate', 'reward', 'old_log_prob', 'ref', 'update', 'testing', 'save'] as const;
export type Stage = (typeof stages)[number];

export interface ProgressUpdate {
  /** The step that is being worked on: completed steps + 1. */
  step: number;
  stage: Stage;
  /** 0 to 1; undefined where the stage cannot tell. */
  fraction?: number;
  /** What everybody waits for, where that takes long. */
  detail?: string | undefined;
}

/** Remembers the current stage, since when it runs, and when it was last spoken of. Times in milliseconds. */
export class StageClock {
  #update: ProgressUpdate | undefined;
  #beganMs = 0;
  #saidMs = 0;

  /** The latest update, or undefined between steps. */
  get current(): ProgressUpdate | undefined {
    return this.#update;
  }

  update(update: ProgressUpdate, nowMs: number): void {
    if (this.#update?.stage !== update.stage || this.#update.step !== update.step) {
      this.#beganMs = nowMs;
      this.#saidMs = nowMs;
    }
    this.#update = update;
  }

  clear(): void {
    this.#update = undefined;
  }

  elapsedMs(nowMs: number): number {
    return nowMs - this.#beganMs;
  }

  /** True once per `everyMs` of a stage that goes on and on. */
  heartbeatDue(nowMs: number, everyMs: number): boolean {
    if (this.#update === undefined || nowMs - this.#saidMs < everyMs) return false;
    this.#saidMs = nowMs;
    return true;
  }
}
