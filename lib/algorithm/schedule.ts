// The learning rate of a training step. Warm-up counts training steps, not updates (archer.md part 6, step 6).

/** In the words of actor.optim. */
export interface Schedule {
  lr: number;
  /** W */
  lr_warmup_steps: number;
  /** The reference's scheduler: step k of the warm-up runs at lr·k/W, so that the first one changes nothing. */
  lr_warmup_from_zero: boolean;
  lr_scheduler: 'constant' | 'linear' | 'cosine';
  /** Steps of the whole run; what linear and cosine fall towards. */
  total_steps: number;
}

/** The learning rate of step k, from 0: lr·(k+1)/W in the warm-up, then the schedule, which reaches 0 after the last step. */
export function learningRate(step: number, schedule: Schedule): number {
  const { lr, lr_warmup_steps: warmup, lr_warmup_from_zero: fromZero, lr_scheduler: kind, total_steps: total } = schedule;
  if (step < warmup) return (lr * (fromZero ? step : step + 1)) / warmup;
  if (kind === 'constant' || total <= warmup) return lr;
  const progress = Math.min(1, (step - warmup) / (total - warmup));
  return kind === 'linear' ? lr * (1 - progress) : (lr * (1 + Math.cos(Math.PI * progress))) / 2;
}
