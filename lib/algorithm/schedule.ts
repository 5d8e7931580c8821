// The learning rate of a training step. Warm-up counts training steps, not updates (archer.md part 6, step 6).

export interface Schedule {
  lr: number;
  /** W */
  warmupSteps: number;
  /** The reference's scheduler: step k of the warm-up runs at lr·k/W, so that the first one changes nothing. */
  warmupFromZero: boolean;
  kind: 'constant' | 'linear' | 'cosine';
  /** Steps of the whole run; what linear and cosine fall towards. */
  totalSteps: number;
}

/** The learning rate of step k (from 0): lr·(k+1)/W in the warm-up, then the schedule, 0 after the last step. */
export function learningRate({ lr, warmupSteps, warmupFromZero, kind, totalSteps }: Schedule, step: number): number {
  if (step < warmupSteps) return (lr * (warmupFromZero ? step : step + 1)) / warmupSteps;
  if (kind === 'constant' || totalSteps <= warmupSteps) return lr;
  const progress = Math.min(1, (step - warmupSteps) / (totalSteps - warmupSteps));
  return kind === 'linear' ? lr * (1 - progress) : (lr * (1 + Math.cos(Math.PI * progress))) / 2;
}
