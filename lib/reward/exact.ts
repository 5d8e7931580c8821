// The verifier `exact`: the answer is the ground truth as text, nothing more. Ignored: white space at the ends, runs of
// white space, Unicode composition, a final full stop. Letters keep their case.

import { afterThinking, announcedAnswer, findBoxes } from './extract.js';
import type { RewardInput, Verdict } from './types.js';

/** The last box counts, else what follows `####` or "Answer:", else the whole text after the first </think>. */
export function verifyExact({ response, groundTruth }: RewardInput): Verdict {
  const text = afterThinking(response);
  const { boxes, unclosed } = findBoxes(text);
  const box = boxes.at(-1);
  if (unclosed) return { score: 0, outcome: 'parse_error', message: 'the last box is not closed' };
  const extracted = normalise(box !== undefined ? box.content : (announcedAnswer(text) ?? text));
  if (extracted === '') return { score: 0, outcome: 'parse_error', message: 'the response holds no answer' };
  const golds = (Array.isArray(groundTruth) ? groundTruth : [groundTruth]).map(goldText);
  const equal = golds.some((gold) => gold !== '' && gold === extracted);
  return { score: equal ? 1 : 0, outcome: equal ? 'ok' : 'wrong', extracted: extracted.slice(0, 500) };
}

/** A ground truth may itself stand in a box. */
function goldText(gold: string): string {
  return normalise(findBoxes(gold).boxes.at(-1)?.content ?? gold);
}

function normalise(text: string): string {
  return text.normalize('NFC').replace(/\s+/g, ' ').trim().replace(/\.$/, '').trim();
}
