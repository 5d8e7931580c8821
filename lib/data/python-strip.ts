// Python's strip, lstrip, rstrip and Jinja's trim in chat templates. @huggingface/jinja takes JavaScript's trim for all
// of them: it ignores the characters that are named (`content.lstrip('\n')` would lose indentation too), strips U+FEFF
// and leaves U+0085. So their calls become calls of functions that the template is rendered with.

import type { Template } from '@huggingface/jinja';

type Node = Record<string, unknown>;
type Strip = (text: unknown, characters?: unknown) => string;

/** What str.isspace() is true for; JavaScript's \s has U+FEFF and lacks U+001C to U+001F and U+0085. */
const pythonSpace =
  '\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a' +
  '\u2028\u2029\u202f\u205f\u3000';

/** To be among the variables that a template is rendered with. */
export const stripFunctions: Record<string, Strip> = {
  python_strip: (text, characters) => strip(text, characters, { left: true, right: true }),
  python_lstrip: (text, characters) => strip(text, characters, { left: true, right: false }),
  python_rstrip: (text, characters) => strip(text, characters, { left: false, right: true }),
};

/** Makes `x.strip(…)`, `x.lstrip(…)`, `x.rstrip(…)` and `x | trim` of a template calls of `stripFunctions`. */
export function usePythonStrip(template: Template): void {
  rewriteChildren(template.parsed as unknown as Node);
}

function rewriteChildren(node: Node): void {
  for (const [key, value] of Object.entries(node)) {
    if (Array.isArray(value)) node[key] = value.map(rewritten);
    else node[key] = rewritten(value);
  }
}

function rewritten(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const node = value as Node;
  rewriteChildren(node);
  return asStripCall(node) ?? node;
}

function asStripCall(node: Node): Node | undefined {
  if (node.type === 'CallExpression') {
    const callee = node.callee as Node;
    const name = callee.type === 'MemberExpression' && !callee.computed ? (callee.property as Node).value : undefined;
    return stripCall(name, callee.object, node.args as unknown[]);
  }
  if (node.type === 'FilterExpression') {
    const filter = node.filter as Node;
    const isCall = filter.type === 'CallExpression';
    const name = (isCall ? (filter.callee as Node) : filter).value;
    return name === 'trim' ? stripCall('strip', node.operand, isCall ? (filter.args as unknown[]) : []) : undefined;
  }
  return undefined;
}

function stripCall(name: unknown, text: unknown, args: unknown[]): Node | undefined {
  const target = `python_${String(name)}`;
  if (!Object.hasOwn(stripFunctions, target)) return undefined;
  return { type: 'CallExpression', callee: { type: 'Identifier', value: target }, args: [text, ...args] };
}

function strip(text: unknown, characters: unknown, sides: { left: boolean; right: boolean }): string {
  if (typeof text !== 'string') throw new Error(`${String(text)} is no text that could be stripped`);
  const stripped = new Set(typeof characters === 'string' ? characters : pythonSpace);
  const points = Array.from(text);
  let start = 0;
  let end = points.length;
  while (sides.left && start < end && stripped.has(points[start] as string)) start += 1;
  while (sides.right && end > start && stripped.has(points[end - 1] as string)) end -= 1;
  return points.slice(start, end).join('');
}
