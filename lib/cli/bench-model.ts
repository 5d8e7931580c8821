// The model of `bench rollout` and `bench step`: a folder, or random weights that are made once.
import { join } from 'node:path';
import { makeRandomModel, smollm2 } from '../bench/random-model.js';
import { ArcherError } from '../errors.js';
import { resolveModelPath } from '../hub/resolve.js';
import { type ModelFolder, readModelFolder } from '../model/folder.js';
import { packageRoot } from '../package-root.js';

/**
 * Reads the named model and checks that prompt and response fit into it.
 *
 * @returns what gives the model, and makes it where none is named
 * @throws ArcherError ARCHER_E_MODEL, ARCHER_E_CONFIG
 */
export async function benchModel(
  name: string | undefined,
  { promptTokens, newTokens }: { promptTokens: number; newTokens: number },
): Promise<() => Promise<ModelFolder>> {
  const named = name ? await readModelFolder(resolveModelPath(name)) : undefined;
  const longest = named?.nativeConfig.maxPositionEmbeddings ?? smollm2.max_position_embeddings;
  if (promptTokens + newTokens > longest) {
    throw new ArcherError(
      'ARCHER_E_CONFIG',
      `--prompt-tokens ${promptTokens} and --new-tokens ${newTokens} exceed the model's ${longest} positions; ask for fewer.`,
    );
  }
  return async () =>
    named ?? readModelFolder(makeRandomModel(join(packageRoot, 'native/build/bench/smollm2-135m'), smollm2));
}
