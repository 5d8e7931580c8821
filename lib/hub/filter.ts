// Which files of a repository are pulled.
import type { Repo } from './cache.js';

/** Globs as huggingface_hub understands them: `*` also goes across slashes, `folder/` is all that is in it. */
export interface FileFilter {
  include?: readonly string[];
  exclude?: readonly string[];
}

// What a model folder is made of. Other formats of the same weights (.bin, .onnx, .gguf, …) are left where they are.
const modelFiles = /^(model(-\d+-of-\d+)?\.safetensors|[^/]+\.(json|txt|model|jinja)|README\.md|LICENSE[^/]*)$/;

/** A test for paths. Without `include` a model's own files are meant, and everything of a data set. */
export function fileFilter(type: Repo['type'], { include = [], exclude = [] }: FileFilter): (path: string) => boolean {
  const wanted = include.length > 0 ? include.map(globPattern) : [type === 'model' ? modelFiles : /^/];
  const unwanted = exclude.map(globPattern);
  return (path) => wanted.some((one) => one.test(path)) && !unwanted.some((one) => one.test(path));
}

function globPattern(glob: string): RegExp {
  const whole = glob.endsWith('/') ? `${glob}*` : glob;
  const source = whole.replace(/\[!?[^\]]+\]|[\s\S]/g, (part) => {
    if (part === '*') return '.*';
    if (part === '?') return '.';
    if (part.length > 1) return part.replaceAll('\\', '\\\\').replace(/^\[!/, '[^');
    return part.replace(/[\\^$.|+(){}[\]]/, '\\$&');
  });
  return new RegExp(`^${source}$`, 's');
}
