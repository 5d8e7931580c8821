// Types of test.mjs, for its own test.
export function parseJUnit(xml: string): { name: string; status: string; text: string }[];
