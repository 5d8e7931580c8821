// Words that may follow a number and are dropped. Single letters are variables unless they stand in \text{…}.

export const unitWords = new Set(
  (
    'mm cm dm km nm ft yd mi in inch inches feet foot yard yards mile miles meter meters metre metres ' +
    'kilometer kilometers centimeter centimeters kg mg lb lbs oz gram grams pound pounds ton tons ' +
    'sec secs second seconds min mins minute minutes hr hrs hour hours day days week weeks month months year years ' +
    'mph kmh cents cent dollar dollars usd eur euro euros degree degrees radian radians unit units sq square cubic ' +
    'ml liter liters litre litres kwh hz khz mol'
  ).split(' '),
);
