// The words that commands and letters may be.

const wordsOf = (text: string) => new Set(text.split(' '));

export const functionNames = wordsOf(
  'sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh coth sech csch arcsinh arccosh arctanh ' +
    'ln log lg exp cis',
);

export const greekLetters = wordsOf(
  'alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau ' +
    'upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell hbar',
);

/** Fonts of words and units; their argument is read as words first. */
export const uprightFonts = wordsOf('text textrm mathrm textnormal mbox hbox operatorname textsf texttt rm');

/** Fonts of symbols; their argument is read as mathematics first. */
export const symbolFonts = wordsOf(
  'textbf textit underline mathbf mathit mathsf mathtt mathcal boldsymbol bm emph mathbb',
);

/** Above or below a name, and dropped: \overline{AB} = AB. */
export const decorations = wordsOf(
  'overline bar vec hat overrightarrow overleftrightarrow widehat widetilde dot tilde',
);

/** Before a name or a value, and dropped: \angle ABC = ABC. */
export const silentCommands = wordsOf('angle triangle measuredangle mathop mathord mathbin mathrel mathopen mathclose');

const commandsThatStart = wordsOf(
  'frac dfrac tfrac cfrac binom dbinom tbinom sqrt pi infty imath begin lfloor lceil lvert langle gcd lcm max min sum prod',
);

/** Whether a command begins a factor, so that it may stand behind another one without a sign. */
export function startsFactor(command: string): boolean {
  return [commandsThatStart, functionNames, greekLetters, uprightFonts, symbolFonts, decorations, silentCommands].some(
    (set) => set.has(command),
  );
}

export const numberWords: Readonly<Record<string, string>> = Object.fromEntries(
  'two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen'
    .split(' ')
    .map((word, i) => [word, String(i + 2)]),
);
