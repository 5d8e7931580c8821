// Messages -> the text a model reads. The model's own Jinja template is rendered as transformers does it; a model
// without one (a base model, a tiny test model) gets the messages' contents joined by newlines.

import { Template } from '@huggingface/jinja';
import { ArcherError, messageOf } from '../errors.js';
import { stripFunctions, usePythonStrip } from './python-strip.js';
import type { Tokenizer } from './tokenizer.js';
import type { ChatMessage } from './types.js';

export interface RenderPromptOptions {
  /** End with the opening of the assistant's turn. Default true. */
  addGenerationPrompt?: boolean;
  /** Put in front as a system message, unless the prompt brings its own. */
  systemPrompt?: string;
  /** false: never use the template. Default: use it where the tokenizer has one. */
  applyChatTemplate?: boolean;
  /** Further variables of the template, for example `{ enable_thinking: false }`. */
  templateArguments?: Record<string, unknown>;
}

type TemplateSource = Pick<Tokenizer, 'chatTemplate' | 'specialTokens'>;

const parsed = new Map<string, Template>();
const maxCached = 16;

/**
 * The prompt as text. With a chat template the text already holds every special token: encode it without adding any.
 * Without one: the contents, joined by one newline, no role names, nothing added.
 *
 * @throws ArcherError ARCHER_E_MODEL for a template that cannot be parsed, ARCHER_E_DATA for messages it refuses
 * (a template's raise_exception).
 */
export function renderPrompt(
  messages: readonly ChatMessage[],
  tokenizer: TemplateSource,
  options: RenderPromptOptions = {},
): string {
  const { addGenerationPrompt = true, systemPrompt, applyChatTemplate = true, templateArguments } = options;
  const conversation =
    systemPrompt !== undefined && messages[0]?.role !== 'system'
      ? [{ role: 'system', content: systemPrompt }, ...messages]
      : [...messages];
  if (!applyChatTemplate || tokenizer.chatTemplate === undefined) {
    return conversation.map((message) => message.content).join('\n');
  }
  const template = parseTemplate(tokenizer.chatTemplate);
  try {
    return template.render({
      // As transformers calls it: a special token that the model lacks is undefined, tools and documents are none.
      ...tokenizer.specialTokens,
      tools: null,
      documents: null,
      ...templateArguments,
      ...stripFunctions,
      messages: conversation,
      add_generation_prompt: addGenerationPrompt,
    });
  } catch (error) {
    const roles = conversation.map((message) => message.role).join(', ');
    throw new ArcherError(
      'ARCHER_E_DATA',
      `The model's chat template refuses the messages (roles: ${roles}): ${messageOf(error)}.`,
      { cause: error },
    );
  }
}

function parseTemplate(source: string): Template {
  const known = parsed.get(source);
  if (known !== undefined) return known;
  let template: Template;
  try {
    template = new Template(source);
    usePythonStrip(template);
  } catch (error) {
    throw new ArcherError('ARCHER_E_MODEL', `The model's chat template cannot be parsed: ${messageOf(error)}.`, {
      cause: error,
    });
  }
  if (parsed.size >= maxCached) parsed.clear();
  parsed.set(source, template);
  return template;
}
