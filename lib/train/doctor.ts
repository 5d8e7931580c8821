// The checks of `archer-native doctor`, in the order in which one thing rests on another.
import { availableParallelism, totalmem } from 'node:os';
import type { ResolvedConfig } from '../config/index.js';
import { renderPrompt } from '../data/chat-template.js';
import { ArcherError, messageOf } from '../errors.js';
import { buildInfo, getEngine, resolveThreads } from '../native/engine.js';
import { testVerifiers } from '../reward/known-cases.js';
import { checkLossGradients } from '../native/gradient-check.js';
import { addonPath, readBuildRecord } from '../native/load.js';
import { checkCodeVerifier } from '../reward/code/check.js';
import { Policy, loadModelAndTokenizer } from '../rollout/policy.js';
import { checkReward, loadPrompts, makeScorer, resolveDataFiles } from './setup.js';

export interface Check {
  name: string;
  /** What was found, in a line; throws where something is wrong. */
  run: () => Promise<string>;
}

export interface CheckResult {
  name: string;
  ok: boolean;
  detail: string;
}

// Text that a tokenizer must give back as it was.
const sampleText = 'Café: 3 × 4 = 12, “quoted” — tabs\tand\nlines, 汉字, 🙂.';

async function codeVerifier(config: ResolvedConfig): Promise<string> {
  const { interpreter, isolation, memory_mb: memoryMiB } = config.reward.code;
  try {
    return await checkCodeVerifier({ interpreter, isolation, memoryMiB });
  } catch (error) {
    if (config.reward.name === 'code') throw error;
    return `not judged here: ${messageOf(error)}`;
  }
}

export function doctorChecks(config: ResolvedConfig, signal: AbortSignal): Check[] {
  return [
    {
      name: 'addon',
      run: async () => {
        const info = buildInfo();
        return `${addonPath()}, ${info.compiler}, OpenMP ${info.openmp ? 'on' : 'off'}`;
      },
    },
    {
      name: 'libtorch',
      run: async () => `${buildInfo().libtorch} in ${readBuildRecord()?.libtorchRoot ?? 'an unrecorded place'}, ${buildInfo().cpuCapability}; own kernels: ${buildInfo().cpuIsa}`,
    },
    {
      name: 'machine',
      run: async () => {
        const threads = resolveThreads(config.num_threads);
        getEngine(config.num_threads);
        const note = threads > availableParallelism() ? '; more threads than cores are slower' : '';
        return `${threads} threads of ${availableParallelism()} cores, ${(totalmem() / 2 ** 30).toFixed(1)} GiB, Node ${process.version}${note}`;
      },
    },
    {
      name: 'loss gradients',
      run: async () => {
        const { cases, worst } = await checkLossGradients();
        return `${cases} terms against central differences in float64, worst relative error ${worst.toExponential(1)}`;
      },
    },
    {
      name: 'verifiers',
      run: async () => `${testVerifiers()} known cases come out as they must; programs: ${await codeVerifier(config)}`,
    },
    {
      name: 'model',
      run: async () => {
        using policy = await Policy.load(config.model.path, { dtype: config.model.dtype, numThreads: config.num_threads, signal });
        const { ids } = (await policy.generate(['Hello'], { temperature: 0, maxNewTokens: 4 }))[0]?.[0] ?? { ids: [] };
        return `${policy.weights.folder.path}, ${(policy.weights.numParameters / 1e6).toFixed(2)} M parameters, generates ${ids.length} tokens`;
      },
    },
    {
      name: 'tokenizer',
      run: async () => {
        const { tokenizer } = await loadModelAndTokenizer(config.model.path);
        const back = await tokenizer.decode(await tokenizer.encode(sampleText));
        if (back !== sampleText) throw new ArcherError('ARCHER_E_MODEL', `a text came back as ${JSON.stringify(back)}`);
        return `${tokenizer.vocabSize} ids, round trip exact`;
      },
    },
    {
      name: 'chat template',
      run: async () => {
        const { tokenizer } = await loadModelAndTokenizer(config.model.path);
        if (!tokenizer.chatTemplate) return 'none; prompts are given as they are';
        const text = renderPrompt([{ role: 'user', content: 'Hello' }], tokenizer, {});
        const back = await tokenizer.decode(await tokenizer.encode(text));
        if (back !== text) throw new ArcherError('ARCHER_E_MODEL', `the rendered prompt came back as ${JSON.stringify(back)}`);
        return JSON.stringify(text);
      },
    },
    {
      name: 'data and reward',
      run: async () => {
        const { tokenizer } = await loadModelAndTokenizer(config.model.path);
        const data = await loadPrompts(resolveDataFiles(config.data.train_files, 'train'), tokenizer, config.data, signal);
        const scorer = await makeScorer(config, undefined);
        try {
          await checkReward(scorer, data, { custom: config.reward.path !== null, signal });
        } finally {
          await scorer.dispose();
        }
        return `${data.report[0]}; gold answers earn the reward, a wrong one does not (${scorer.description})`;
      },
    },
  ];
}
