// What the process's environment adds to a configuration: secrets, which no file and no run folder should hold.

/** The variable's value; undefined where it is unset or empty. */
export function environmentVariable(name: string): string | undefined {
  return process.env[name] || undefined;
}
