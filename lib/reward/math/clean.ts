// The characters of an answer before it is parsed: one spelling for each thing, and nothing that only concerns layout.

const characters: Readonly<Record<string, string>> = {
  ...{ '∞': '\\infty ', '°': '^\\circ ', º: '^\\circ ', '…': '\\ldots ', '％': '\\%', ℝ: '\\mathbb{R}' },
  ...{
    '−': '-',
    '–': '-',
    '—': '-',
    '×': '\\times ',
    '·': '\\cdot ',
    '⋅': '\\cdot ',
    '∙': '\\cdot ',
    '÷': '\\div ',
    '⁄': '/',
  },
  ...{ '±': '\\pm ', '∓': '\\mp ', '′': "'", '，': ',', '（': '(', '）': ')', '：': ':', '＝': '=', '＋': '+' },
  ...{ '≤': '\\le ', '≥': '\\ge ', '⩽': '\\le ', '⩾': '\\ge ', '≠': '\\ne ', '≈': '\\approx ' },
  ...{
    '∪': '\\cup ',
    '∈': '\\in ',
    '∅': '\\emptyset ',
    '∖': '\\setminus ',
    '∧': '\\land ',
    '∨': '\\lor ',
    '∠': '\\angle ',
  },
  ...{
    π: '\\pi ',
    α: '\\alpha ',
    β: '\\beta ',
    γ: '\\gamma ',
    δ: '\\delta ',
    ε: '\\epsilon ',
    θ: '\\theta ',
    λ: '\\lambda ',
  },
  ...{ μ: '\\mu ', ρ: '\\rho ', σ: '\\sigma ', τ: '\\tau ', φ: '\\phi ', ω: '\\omega ', Δ: '\\Delta ', Ω: '\\Omega ' },
  ...{ '½': '\\frac{1}{2}', '⅓': '\\frac{1}{3}', '⅔': '\\frac{2}{3}', '¼': '\\frac{1}{4}', '¾': '\\frac{3}{4}' },
  ...{
    '⅕': '\\frac{1}{5}',
    '⅖': '\\frac{2}{5}',
    '⅗': '\\frac{3}{5}',
    '⅘': '\\frac{4}{5}',
    '⅙': '\\frac{1}{6}',
    '⅚': '\\frac{5}{6}',
  },
  ...{ '⅛': '\\frac{1}{8}', '⅜': '\\frac{3}{8}', '⅝': '\\frac{5}{8}', '⅞': '\\frac{7}{8}' },
};

const characterPattern = new RegExp(`[${Object.keys(characters).join('')}]`, 'gu');
const superscripts = '⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ';
const subscripts = '₀₁₂₃₄₅₆₇₈₉';

const raised = (run: string) => `^{${[...run].map((c) => '0123456789+-n'[superscripts.indexOf(c)]).join('')}}`;
const lowered = (run: string) => `_{${[...run].map((c) => subscripts.indexOf(c)).join('')}}`;

// Units of a speed or a density in plain letters: behind a number m/s is no quotient of variables.
const plainUnits =
  /(?<=[\d}] ?)(?:km|cm|mm|mi|ft|kg|m|g|L|N|J|C)\s*\/\s*(?:hr|sec|min|cm|kg|km|m|s|h|L|J|N)(?:\^\s*\{?\d\}?)?(?![a-zA-Z{\d])/g;

const chooseSign = String.raw`(?:C|\\(?:mathrm|text|rm)\s*\{\s*C\s*\})`;
const size = String.raw`\s*(?:\{\s*(\d+)\s*\}|(\d))\s*`;
/** {}_{10}C_{4}, ^{10}C_4 · C_{10}^{4} · C(10, 4) */
const chosen = [
  new RegExp(String.raw`(?:\{\s*\}|(?<![a-zA-Z\d}]))[_^]${size}${chooseSign}\s*_${size}`, 'g'),
  new RegExp(String.raw`(?<![a-zA-Z\\])${chooseSign}\s*_${size}\^${size}`, 'g'),
  /(?<![a-zA-Z\\])C()\((\d+)()\s*,\s*(\d+)\)/g,
];

function binomials(text: string): string {
  return chosen.reduce(
    (result, pattern) => result.replace(pattern, (_, a, b, c, d) => `\\binom{${a || b}}{${c || d}}`),
    text,
  );
}

/** Layout only: sizing, spacing, colours and currency. */
export function clean(text: string): string {
  return (
    binomials(text.replace(/\s+/g, ' '))
      .replace(/\\(?:R(?![a-zA-Z])|Bbb\s*(?:\{\s*R\s*\}|R))/g, '\\mathbb{R}')
      .replace(/^\s*\\text\s*\{(?![^{}]*\b(?:not|or|no)\b)[^{}]*(?:\bis|:|=)\s*\}/i, ' ')
      .replace(/\\(?:therefore|checkmark)(?![a-zA-Z])/g, ' ')
      .replace(/,\s*\\!\s*/g, ',')
      .replace(/([√∛])\s*(\d+(?:\.\d+)?|[a-zA-Z])/gu, (_, root, of) =>
        root === '√' ? `\\sqrt{${of}}` : `\\sqrt[3]{${of}}`,
      )
      .replaceAll('∛', '\\sqrt[3] ')
      .replaceAll('√', '\\sqrt ')
      .replace(/[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+/gu, raised)
      .replace(/[₀₁₂₃₄₅₆₇₈₉]+/gu, lowered)
      .replace(characterPattern, (character) => characters[character] ?? character)
      .replace(/\\text\s*\{\s*\^\\circ\s*\}|(?<=\d)\s*\^\s*(?:\{\s*o\s*\}|o(?![a-zA-Z]))/g, '^\\circ ')
      .replace(/(?<=[\dA-F)]\s*)\\text\s*\{\s*\(?\s*base\s*(\w*)\s*\)?\s*\}\s*(\d*)/g, (_, a, b) => `_{${a}${b}}`)
      .replace(/\\(?:left|right|middle|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?/g, ' ')
      .replace(
        /\\(?:displaystyle|textstyle|scriptstyle|limits|tiny|small|normalsize|large|Large|LARGE|huge|Huge)(?![a-zA-Z])/g,
        ' ',
      )
      .replace(/\\(?:color|textcolor|colorbox)\s*\{[^{}]*\}/g, ' ')
      .replace(/\\(?:phantom|hspace|vspace)\s*\{[^{}]*\}/g, ' ')
      .replace(/\\(?:quad|qquad|thinspace|enspace|nobreakspace)(?![a-zA-Z])/g, ' ')
      // Twice, because two in a row share the character between them.
      .replace(/(^|[^\\])((?:\\\\)*)\\[,!;: ]/g, '$1$2 ')
      .replace(/(^|[^\\])((?:\\\\)*)\\[,!;: ]/g, '$1$2 ')
      .replace(/\\(?:mathbin|mathrel)\s*\{\s*:\s*\}|\\colon(?![a-zA-Z])|\{:\}/g, ':')
      .replace(/\\text\s*\{\s*([,;])\s*\}/g, '$1')
      .replace(/\b([sS]q|[cC]u)\.(?=\s)/g, '$1')
      .replace(/\{\s*([=<>+-])\s*\}/g, '$1')
      .replace(/\\not\s*(?:=|\\eq(?![a-zA-Z]))/g, '\\ne ')
      .replace(/\\(?:lbrack|lparen)(?![a-zA-Z])/g, (command) => (command === '\\lparen' ? '(' : '['))
      .replace(/\\(?:rbrack|rparen)(?![a-zA-Z])/g, (command) => (command === '\\rparen' ? ')' : ']'))
      .replace(/(?<=[)\]}]\s*)U(?=\s*[([\\])/g, '\\cup ')
      .replace(/(?<=\d)\s*[xX]\s*(?=10\s*\^)/g, '\\times ')
      .replace(plainUnits, (unit) => `\\text{ ${unit.replace(/[{}]/g, '')}}`)
      .replace(/\\\$|[$€£¥₹₩¢]|\\(?:pounds|euro|textdollar)(?![a-zA-Z])/g, ' ')
      .replace(/(^|[^\\])((?:\\\\)*)\\[()[\]]/g, '$1$2 ')
      .replace(/\\text\s*\{\s*\.?\s*\}/g, ' ')
      .replace(/[~\s\u00a0\u2009\u202f]+/g, ' ')
      .trim()
  );
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
    /\\(?:text|textbf|textit|textrm|textsf|texttt|textnormal|mathrm|mathbf|mathit|mathsf|mathtt|mathcal|boldsymbol|bm|mbox|hbox|rm|bf|it|emph|operatorname|underline)(?![a-zA-Z])\*?/g,
    ' ',
  );
}
