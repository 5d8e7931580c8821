// npm's install hook: builds the addon where that can be done, and never fails an install. Where npm blocks the hooks
// of dependencies, or something is missing, `npx archer-native setup` does the same work and says what it needs.
// ARCHER_SKIP_BUILD=1 skips it.
import { buildNative } from './build-native.mjs';
import { log } from './tools.mjs';

if (process.env.ARCHER_SKIP_BUILD === '1') {
  log('ARCHER_SKIP_BUILD=1: the addon is not built. `npx archer-native setup` builds it.');
} else {
  try {
    await buildNative();
  } catch (error) {
    log(`the addon was not built: ${error?.name === 'SetupError' ? error.message : (error?.stack ?? error)}`);
    log('run `npx archer-native setup` to build it once that is settled.');
  }
}
