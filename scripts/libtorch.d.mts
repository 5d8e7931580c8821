// Types of libtorch.mjs, for the tests.
export interface WheelSpec {
  file: string;
  python: string;
  platform: string;
  bytes: number;
  sha256: string;
  url: string;
}
export interface LibtorchSpec {
  version: string;
  label: string;
  supported: { from: string; to: string };
  wheels: Record<string, WheelSpec>;
  unpackedBytes: number;
  members: string[];
  without: string[];
}
export interface FoundLibtorch {
  root: string;
  version: string;
  source: string;
}
export interface ResolveOptions {
  env?: Record<string, string | undefined>;
  spec?: LibtorchSpec;
  say?: (line: string) => void;
  fetch?: boolean;
  cmake?: string;
}
export function readSpec(): LibtorchSpec;
export function libtorchVersion(folder: string): string | undefined;
export function versionFault(version: string | undefined, spec: LibtorchSpec): string;
export function neededMembers(names: string[], spec: LibtorchSpec): { prefix: string; members: string[] } | undefined;
export function resolveLibtorch(options?: ResolveOptions): Promise<FoundLibtorch | undefined>;
