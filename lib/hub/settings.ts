// What huggingface_hub reads from the environment, by the same names and with the same defaults, so that both share one
// cache and one token.
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

export interface HubSettings {
  /** HF_ENDPOINT, without a slash at its end. */
  endpoint: string;
  /** HF_TOKEN, or what `hf auth login` has stored. */
  token?: string;
  /** HF_HUB_CACHE, else `hub` in HF_HOME. */
  cacheDir: string;
  /** HF_HUB_OFFLINE: nothing is asked of any server. */
  isOffline: boolean;
}

export function hubSettings(env: NodeJS.ProcessEnv = process.env): HubSettings {
  const path = (value: string | undefined) => value?.replace(/^~(?=\/|$)/, homedir());
  const home = path(env.HF_HOME) || join(path(env.XDG_CACHE_HOME) || join(homedir(), '.cache'), 'huggingface');
  const tokenFile = path(env.HF_TOKEN_PATH) || join(home, 'token');
  const stored = () => (existsSync(tokenFile) ? readFileSync(tokenFile, 'utf8') : '');
  return {
    endpoint: (env.HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, ''),
    token: (env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN || stored()).trim() || undefined,
    cacheDir: path(env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE) || join(home, 'hub'),
    isOffline: /^(1|on|yes|true)$/i.test(env.HF_HUB_OFFLINE || env.TRANSFORMERS_OFFLINE || ''),
  };
}
