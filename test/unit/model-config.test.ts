import { describe, expect, test } from '@jest/globals';
import { parseModelConfig, readTokenIds, statedDtype } from '../../lib/model/config.js';

const path = '/models/x/config.json';

const qwen2Hub = {
  architectures: ['Qwen2ForCausalLM'],
  model_type: 'qwen2',
  hidden_act: 'silu',
  hidden_size: 1536,
  intermediate_size: 8960,
  max_position_embeddings: 131072,
  max_window_layers: 21,
  num_attention_heads: 12,
  num_hidden_layers: 28,
  num_key_value_heads: 2,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  sliding_window: 4096,
  tie_word_embeddings: false,
  torch_dtype: 'bfloat16',
  use_sliding_window: false,
  vocab_size: 151936,
};

const llama3Hub = {
  architectures: ['LlamaForCausalLM'],
  attention_bias: false,
  head_dim: 64,
  hidden_act: 'silu',
  hidden_size: 2048,
  intermediate_size: 8192,
  max_position_embeddings: 131072,
  mlp_bias: false,
  model_type: 'llama',
  num_attention_heads: 32,
  num_hidden_layers: 16,
  num_key_value_heads: 8,
  rms_norm_eps: 1e-5,
  rope_scaling: {
    factor: 32,
    high_freq_factor: 4,
    low_freq_factor: 1,
    original_max_position_embeddings: 8192,
    rope_type: 'llama3',
  },
  rope_theta: 500000,
  tie_word_embeddings: true,
  vocab_size: 128256,
};

const qwen3New = {
  architectures: ['Qwen3ForCausalLM'],
  attention_bias: false,
  dtype: 'bfloat16',
  head_dim: 128,
  hidden_size: 1024,
  intermediate_size: 3072,
  layer_types: ['full_attention', 'full_attention'],
  max_position_embeddings: 40960,
  max_window_layers: 28,
  model_type: 'qwen3',
  num_attention_heads: 16,
  num_hidden_layers: 2,
  num_key_value_heads: 8,
  rms_norm_eps: 1e-6,
  rope_parameters: { rope_theta: 1000000, rope_type: 'default' },
  sliding_window: null,
  tie_word_embeddings: true,
  use_sliding_window: false,
  vocab_size: 151936,
};

describe('parseModelConfig', () => {
  test('Qwen2 from the hub: biases on q, k and v without a key that says so', () => {
    expect(parseModelConfig(qwen2Hub, path)).toEqual({
      vocabSize: 151936,
      hiddenSize: 1536,
      intermediateSize: 8960,
      numLayers: 28,
      numHeads: 12,
      numKvHeads: 2,
      headDim: 128,
      maxPositionEmbeddings: 131072,
      rmsNormEps: 1e-6,
      ropeTheta: 10000,
      qkvBias: true,
      outputBias: false,
      mlpBias: false,
      qkNorm: false,
      tieWordEmbeddings: false,
    });
  });

  test('Llama 3 from the hub: rope scaling, no biases', () => {
    expect(parseModelConfig(llama3Hub, path)).toMatchObject({
      headDim: 64,
      ropeTheta: 500000,
      ropeScaling: { factor: 32, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositionEmbeddings: 8192 },
      qkvBias: false,
      outputBias: false,
      tieWordEmbeddings: true,
    });
  });

  test('the same model reads alike in the form of transformers 5', () => {
    const { rope_scaling, rope_theta, ...rest } = llama3Hub;
    const renewed = { ...rest, rope_parameters: { ...rope_scaling, rope_theta } };
    expect(parseModelConfig(renewed, path)).toEqual(parseModelConfig(llama3Hub, path));
  });

  test('the old spelling "type" and a scaling without original length', () => {
    const { rope_type, original_max_position_embeddings: _, ...scaling } = llama3Hub.rope_scaling;
    const config = { ...llama3Hub, rope_scaling: { ...scaling, type: rope_type } };
    expect(parseModelConfig(config, path).ropeScaling?.originalMaxPositionEmbeddings).toBe(131072);
  });

  test('Qwen3: norms of q and k, head_dim of its own', () => {
    expect(parseModelConfig(qwen3New, path)).toMatchObject({
      headDim: 128,
      numHeads: 16,
      ropeTheta: 1000000,
      qkNorm: true,
      qkvBias: false,
      tieWordEmbeddings: true,
    });
    const biased = parseModelConfig({ ...qwen3New, attention_bias: true }, path);
    expect(biased).toMatchObject({ qkvBias: true, outputBias: true, mlpBias: false });
  });

  test('absent keys take the defaults of the family, as transformers has them', () => {
    expect(parseModelConfig({ model_type: 'llama', hidden_size: 64, num_attention_heads: 4 }, path)).toMatchObject({
      vocabSize: 32000,
      intermediateSize: 11008,
      numLayers: 32,
      numKvHeads: 4,
      headDim: 16,
      maxPositionEmbeddings: 2048,
      rmsNormEps: 1e-6,
      ropeTheta: 10000,
      tieWordEmbeddings: false,
    });
    const qwen3 = { model_type: 'qwen3', hidden_size: 4096, num_key_value_heads: null };
    expect(parseModelConfig(qwen3, path)).toMatchObject({ numHeads: 32, numKvHeads: 32, headDim: 128 });
    expect(parseModelConfig({ ...qwen3, head_dim: null, hidden_size: 2048 }, path).headDim).toBe(64);
  });

  test.each<[string, object, RegExp]>([
    [
      'another architecture',
      { architectures: ['MistralForCausalLM'] },
      /architectures is \["MistralForCausalLM"\]; supported: Llama/,
    ],
    ['a mixture of experts', { architectures: ['Qwen3MoeForCausalLM'] }, /Qwen3MoeForCausalLM/],
    ['a classifier', { architectures: ['Qwen2ForSequenceClassification'] }, /Qwen2ForSequenceClassification/],
    [
      'another model type',
      { architectures: null, model_type: 'gemma' },
      /model_type is gemma; supported: llama, qwen2, qwen3/,
    ],
    ['another activation', { hidden_act: 'gelu' }, /hidden_act is gelu; supported: silu/],
    ['yarn', { rope_scaling: { type: 'yarn', factor: 4 } }, /rope_scaling: type is yarn; supported: default, llama3/],
    ['linear rope', { rope_parameters: { rope_type: 'linear' } }, /rope_parameters: rope_type is linear/],
    ['dynamic rope', { rope_scaling: { rope_type: 'dynamic', factor: 2 } }, /rope_type is dynamic/],
    [
      'a scaling without its factor',
      { rope_scaling: { ...llama3Hub.rope_scaling, factor: undefined } },
      /factor is missing/,
    ],
    [
      'swapped frequencies',
      { rope_scaling: { ...llama3Hub.rope_scaling, high_freq_factor: 1 } },
      /high_freq_factor is 1/,
    ],
    ['a partly rotated head', { partial_rotary_factor: 0.5 }, /partial_rotary_factor is 0.5; supported: 1/],
    ['a sliding window in use', { use_sliding_window: true }, /use_sliding_window is true; supported: full attention/],
    ['a sliding layer', { layer_types: ['full_attention', 'sliding_attention'] }, /layer_types is sliding_attention/],
    [
      'quantised weights',
      { quantization_config: { bits: 4 } },
      /quantization_config is present; supported: unquantised/,
    ],
    ['heads that do not divide', { num_key_value_heads: 5 }, /num_key_value_heads is 5; supported: a divisor of .*12/],
    ['an odd head', { head_dim: 7 }, /head_dim is 7; supported: an even number/],
    ['a size of the wrong type', { hidden_size: '1536' }, /hidden_size is 1536; supported: a positive integer/],
    ['a negative eps', { rms_norm_eps: -1 }, /rms_norm_eps is -1; supported: a positive number/],
    ['a flag of the wrong type', { tie_word_embeddings: 1 }, /tie_word_embeddings is 1; supported: true or false/],
    ['rope that is no object', { rope_scaling: 'yarn' }, /rope_scaling is yarn; supported: an object/],
  ])('%s is refused by name', (_, change, message) => {
    const parse = () => parseModelConfig({ ...qwen2Hub, ...change }, path);
    expect(parse).toThrow(message);
    expect(parse).toThrow(expect.objectContaining({ code: 'ARCHER_E_MODEL', message: expect.stringContaining(path) }));
  });

  test('a sliding window that reaches no layer is none', () => {
    expect(parseModelConfig({ ...qwen2Hub, use_sliding_window: true, max_window_layers: 28 }, path).numLayers).toBe(28);
  });

  test('something else than an object', () => {
    expect(() => parseModelConfig([], path)).toThrow(/holds no JSON object/);
  });
});

test('statedDtype reads both spellings', () => {
  expect(statedDtype(qwen2Hub)).toBe('bfloat16');
  expect(statedDtype({ dtype: 'float32', torch_dtype: 'bfloat16' })).toBe('float32');
  expect(statedDtype(llama3Hub)).toBeUndefined();
});

test('readTokenIds: the first file that names them, a number or a list', () => {
  const read = (generation: object | undefined, config: object) =>
    readTokenIds('eos_token_id', [
      { path: 'generation_config.json', json: generation as Record<string, unknown> | undefined },
      { path: 'config.json', json: config as Record<string, unknown> },
    ]);
  expect(read({ eos_token_id: [3, 4] }, { eos_token_id: 5 })).toEqual([3, 4]);
  expect(read({ eos_token_id: null }, { eos_token_id: 5 })).toEqual([5]);
  expect(read(undefined, {})).toEqual([]);
  expect(() => read({ eos_token_id: ['</s>'] }, {})).toThrow(/generation_config.json: eos_token_id is \["<\/s>"\]/);
});
