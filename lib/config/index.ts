// The configuration room: `loadConfig` and the views of what it returns.

export { configHash, describe } from './describe.js';
export { environmentVariable } from './environment.js';
export { loadConfig, type LoadOptions } from './load.js';
export { resolveLossOptions, type LossInput } from './loss-input.js';
export { isUniform, lossOptions, needsReference } from './loss-options.js';
export { presets } from './presets.js';
export { configReference } from './reference.js';
export type { LoadedConfig, Source } from './resolve.js';
export { algorithmNames, type AlgorithmName } from './schema-actor.js';
export { loraOptions } from './schema-lora.js';
export { options, schema, valueAt, type ConfigInput, type ResolvedConfig } from './schema.js';
