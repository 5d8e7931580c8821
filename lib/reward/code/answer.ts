// Which part of a response is the program: the last fenced block marked as Python, else the last fenced block of all.
// A fence that is opened last and never closed is no answer: the response was cut, and more code may have followed.

import { afterThinking } from '../extract.js';

export type FoundCode = { code: string } | { missing: string };

// Responses are hostile too: every expression here takes linear time.
const fence = /^(\s*)(`{3,}|~{3,}(?!~))([^`]*)$/;
/** "The program is ```python": a fence behind words, where the mark leaves no doubt. */
const lateFence = /(?<!`)`{3,}(?=(?:python3?|py)$)/i;

/** The answer's program, after the first </think> if there is one. */
export function findCode(response: string): FoundCode {
  const blocks: { python: boolean; code: string }[] = [];
  let open: { mark: string; indent: number; python: boolean; lines: string[] } | undefined;
  for (const line of afterThinking(response).split(/\r?\n/)) {
    if (open === undefined) {
      const [, blank = '', mark, rest = ''] = fence.exec(line) ?? [];
      const [late] = lateFence.exec(line.trimEnd()) ?? [];
      if (mark !== undefined) {
        const [language = ''] = rest.trim().split(/\s/, 1);
        open = { mark, indent: blank.length, python: /^(python3?|py)$/i.test(language), lines: [] };
      } else if (late !== undefined) {
        open = { mark: late, indent: 0, python: true, lines: [] };
      }
    } else if (closes(line, open.mark)) {
      blocks.push({ python: open.python, code: open.lines.join('\n') });
      open = undefined;
    } else {
      open.lines.push(/^\s*$/.test(line.slice(0, open.indent)) ? line.slice(open.indent) : line);
    }
  }
  if (open !== undefined) return { missing: 'the last code block is not closed' };
  const block = blocks.findLast(({ python }) => python) ?? blocks.at(-1);
  if (block === undefined) return { missing: 'the response holds no code block' };
  return block.code.trim() === '' ? { missing: 'the code block is empty' } : { code: block.code };
}

function closes(line: string, mark: string): boolean {
  const text = line.trim();
  return text.length >= mark.length && text === (mark[0] as string).repeat(text.length);
}
