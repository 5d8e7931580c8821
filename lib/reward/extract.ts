// Where the answer stands in a response: after the first </think>, in the last complete box, else behind a phrase that
// announces it, else the last formula or number.

const maxResponse = 1_000_000;

/** After the first </think>, if there is one; the whole response otherwise. */
export function afterThinking(response: string): string {
  const end = response.indexOf('</think>');
  const text = end === -1 ? response : response.slice(end + '</think>'.length);
  // The answer stands at the end: of an endless response only the end is read.
  return text.length > maxResponse ? text.slice(-maxResponse) : text;
}

export interface Box {
  /** Of `\boxed`, and one past the closing brace. */
  start: number;
  end: number;
  content: string;
}

export interface Boxes {
  /** Complete innermost boxes in order. */
  boxes: Box[];
  /** A box was opened and never closed after the last complete one. */
  unclosed: boolean;
}

const boxCommand = /\\[fd]?box(?:ed)?(?![a-zA-Z])\s*/g;

/** All `\boxed{…}` and `\fbox{…}`; also `\boxed 5`, whose content is one character. */
export function findBoxes(text: string): Boxes {
  const found: Box[] = [];
  let unclosedAt = -1;
  const closings = matchBraces(text);
  for (const match of text.matchAll(boxCommand)) {
    const command = match[0].trim();
    if (command !== '\\boxed' && command !== '\\fbox') continue;
    const open = match.index + match[0].length;
    if (open >= text.length) {
      unclosedAt = match.index;
      continue;
    }
    if (text[open] !== '{') {
      const content = /^(?:\\[a-zA-Z]+|[^\\\s$])/.exec(text.slice(open, open + 40))?.[0];
      if (content !== undefined) found.push({ start: match.index, end: open + content.length, content });
      continue;
    }
    const close = closings.get(open);
    if (close === undefined) {
      unclosedAt = match.index;
      continue;
    }
    found.push({ start: match.index, end: close + 1, content: text.slice(open + 1, close) });
  }
  // Boxes are found in the order of their start, so a box that contains the next one is not the innermost.
  const boxes = found.filter((box, i) => {
    const following = found[i + 1];
    return following === undefined || following.start >= box.end;
  });
  const last = found.at(-1);
  return { boxes, unclosed: unclosedAt !== -1 && (last === undefined || unclosedAt > last.start) };
}

/** Position of the closing brace for every opening one that has one; `\{` and `\}` are characters. */
function matchBraces(text: string): Map<number, number> {
  const closings = new Map<number, number>();
  const open: number[] = [];
  for (let i = 0; i < text.length; i += 1) {
    const character = text[i];
    if (character === '\\') {
      i += 1;
    } else if (character === '{') {
      open.push(i);
    } else if (character === '}') {
      const start = open.pop();
      if (start !== undefined) closings.set(start, i);
    }
  }
  return closings;
}

/** The last sentence that announces an answer: `#### x`, "final answer is x", "Answer: x". */
export function announcedAnswer(text: string): string | undefined {
  const patterns = [
    /^[ \t]*####[ \t]*(.+)$/gm,
    /(?:final[ \t]+answer|answer)(?:\*\*|__)?[ \t]*(?::|is|=)(?:\*\*|__)?[ \t]*:?[ \t]*(.+)$/gim,
  ];
  let best: { at: number; answer: string } | undefined;
  for (const pattern of patterns) {
    for (const match of text.matchAll(pattern)) {
      if (best === undefined || match.index > best.at) best = { at: match.index, answer: (match[1] as string).trim() };
    }
  }
  return best?.answer === '' ? undefined : best?.answer;
}
