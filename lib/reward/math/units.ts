// Words that may stand behind a number and are dropped. Single letters are variables unless they stand in \text{…}.

export const unitWords = new Set(
  (
    'mm cm dm km nm ft yd mi in inch inches feet foot yard yards mile miles meter meters metre metres ' +
    'kilometer kilometers centimeter centimeters kg mg lb lbs oz gram grams pound pounds ton tons ' +
    'sec secs second seconds min mins minute minutes hr hrs hour hours day days week weeks month months year years ' +
    'mph kph kmh cents cent dollar dollars usd eur gbp euro euros rupees degree degrees radian radians rad deg ' +
    'unit units sq square cubic ml liter liters litre litres kwh kw hz khz mhz mol pa kpa ev kj kcal cal'
  ).split(' '),
);

const currencies = new Set(['usd', 'us', 'eur', 'gbp', 'rs', 'inr', 'cad', 'aud', 'rmb']);

/** A currency's name may stand before the number. */
export function isCurrency(word: string): boolean {
  return currencies.has(word.replace(/\./g, ''));
}

/** Words that change a value, or name another one, instead of measuring it. */
const noUnits =
  /(?:^|[^a-z])(?:or|and|not|no|nor|but|either|neither|maybe|if|when|where|except|than|to|least|most|between|mod|hundred|thousand|million|billion|trillion|dozen|base|choose|over|times|plus|minus)(?![a-z])/i;

/** "km/h", "square units", "m s^{-2}", "people per day": letters, with digits only as exponents. */
export function isUnitPhrase(words: string): boolean {
  const letters = words.replace(/\^\s*-?\s*\d|(?<=[a-zA-Z])-?\d(?!\d)/g, '');
  return words.length <= 60 && !noUnits.test(words) && !/[\d=<>,;:+!?]/.test(letters);
}

/** "5 m" beside a gold of `5\text{ m}` or `5\text{ meters}`: there the letter is the unit, and no variable. */
export function withUnitOf(gold: string, response: string): string {
  const unit = /\\(?:text|textrm|mathrm)\s*\{\s*([a-zA-Z]+)\s*\}$/.exec(gold)?.[1] ?? '';
  if (unit.length !== 1 && unit.length < 4) return response;
  const letter = unit.slice(0, 1);
  return response.replace(/(?<=[\d}])\s*([a-zA-Z])$/, (whole, own) => (own === letter ? `\\text{${own}}` : whole));
}
