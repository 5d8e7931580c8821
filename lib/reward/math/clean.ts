// The characters of an answer before it is parsed: one spelling for each thing, and nothing that only concerns layout.

const characters: Record<string, string> = {
  π: '\\pi ',
  '∞': '\\infty ',
  '−': '-',
  '–': '-',
  '—': '-',
  '°': '^\\circ ',
  '×': '\\times ',
  '·': '\\cdot ',
  '⋅': '\\cdot ',
  '÷': '\\div ',
  '≤': '\\le ',
  '≥': '\\ge ',
  '≠': '\\ne ',
  '≈': '\\approx ',
  '∪': '\\cup ',
  '∈': '\\in ',
  '∅': '\\emptyset ',
  ℝ: '\\mathbb{R}',
  '±': '\\pm ',
  '∓': '\\mp ',
  '∖': '\\setminus ',
  α: '\\alpha ',
  β: '\\beta ',
  θ: '\\theta ',
  φ: '\\phi ',
  '²': '^{2}',
  '³': '^{3}',
  '½': '\\frac{1}{2}',
  '¼': '\\frac{1}{4}',
  '¾': '\\frac{3}{4}',
  '…': '\\ldots ',
  '％': '\\%',
};

const characterPattern = new RegExp(`[${Object.keys(characters).join('')}]`, 'gu');

/** Layout only: sizing, spacing, colours and currency. */
export function clean(text: string): string {
  return text
    .replace(/,\s*\\!\s*/g, ',')
    .replace(/√\s*(\d+(?:\.\d+)?|[a-zA-Z])/gu, '\\sqrt{$1}')
    .replaceAll('√', '\\sqrt ')
    .replace(characterPattern, (character) => characters[character] ?? character)
    .replace(/\\(?:left|right|middle|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?/g, ' ')
    .replace(
      /\\(?:displaystyle|textstyle|scriptstyle|limits|tiny|small|normalsize|large|Large|LARGE|huge|Huge)(?![a-zA-Z])/g,
      ' ',
    )
    .replace(/\\(?:color|textcolor)\s*\{[^{}]*\}/g, ' ')
    .replace(/\\(?:phantom|hspace|vspace)\s*\{[^{}]*\}/g, ' ')
    .replace(/\\(?:quad|qquad|thinspace|enspace|nobreakspace)(?![a-zA-Z])/g, ' ')
    .replace(/(^|[^\\])((?:\\\\)*)\\[,!;: ]/g, '$1$2 ')
    .replace(/(^|[^\\])((?:\\\\)*)\\[,!;: ]/g, '$1$2 ')
    .replaceAll('{:}', ':')
    .replace(/\\\$|[$€£¥]|\\(?:pounds|euro)(?![a-zA-Z])/g, ' ')
    .replace(/\\[()[\]](?![a-zA-Z\d])/g, ' ')
    .replace(/[~\s\u00a0\u2009\u202f]+/g, ' ')
    .trim();
}

/** Without fonts, braces, spaces and a final full stop, in lower case: how words are compared. */
export function asWords(text: string): string {
  return fontless(text)
    .replace(/[{}\s]/g, '')
    .replace(/\.+$/, '')
    .toLowerCase();
}

/** The text with `\text{…}` and other fonts taken off. */
export function fontless(text: string): string {
  return text.replace(
    /\\(?:text|textbf|textit|textrm|textsf|texttt|mathrm|mathbf|mathit|mathsf|mathcal|boldsymbol|bm|mbox|hbox|rm|bf|it|emph|operatorname)(?![a-zA-Z])\*?/g,
    ' ',
  );
}
